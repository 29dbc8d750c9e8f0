//! `torch.nn.GRU` and `GRUCell`, and the form with the reset gate before the product under the same names.

use burn::module::Module;
use burn::tensor::Tensor;
use recurrent_core::GateLayout;
use recurrent_core::eval::compare::values;
use recurrent_modules::import::pytorch::TorchGru;
use recurrent_modules::import::{ImportError, Layout, Mapping, Piece};
use recurrent_modules::{
    ForwardOptions, Gru, GruConfig, GruState, Lengths, PackedSequence, StackState,
};

use crate::file::{Golden, Outputs, push};

/// The names of PyTorch for the form that PyTorch has not: both biases are summed, the candidate's too.
struct ResetBefore;

impl Layout<Gru> for ResetBefore {
    fn mapping(&self, module: &Gru) -> Result<Mapping, ImportError> {
        let mut mapping = Mapping::default();
        let packed = |piece: Piece| piece.with_gates(GateLayout::GRU, GateLayout::GRU);
        for (index, layer) in module.layers.iter().enumerate() {
            let cells = layer
                .cells()
                .zip([("forward", ""), ("backward", "_reverse")]);
            for (cell, (direction, end)) in cells {
                let path = |name: &str| format!("layers.{index}.{direction}.{name}");
                let name = |name: &str| format!("{name}_l{index}{end}");
                let width = 3 * cell.d_hidden;
                let matrix = |of: &str, rows| packed(Piece::transposed(name(of), [width, rows]));
                mapping.one(path("weight_input"), matrix("weight_ih", cell.d_input));
                mapping.one(path("weight_hidden"), matrix("weight_hh", cell.d_hidden));
                if cell.bias.is_some() {
                    let biases = ["bias_ih", "bias_hh"];
                    let biases = biases.map(|bias| packed(Piece::new(name(bias), [width])));
                    mapping.sum(path("bias"), biases);
                }
            }
        }
        Ok(mapping)
    }
}

fn size(golden: &Golden, key: &str) -> Result<usize, String> {
    let size = golden.usize(key);
    size.ok_or_else(|| format!("options have no `{key}`"))
}

fn config(golden: &Golden) -> Result<GruConfig, String> {
    let config = GruConfig::new(size(golden, "input_size")?, size(golden, "hidden_size")?);
    Ok(config
        .with_bias(golden.flag("bias"))
        .with_reset_after(golden.flag("reset_after")))
}

pub fn gru(golden: &Golden) -> Result<Outputs, String> {
    let reset_after = golden.flag("reset_after");
    let batch_first = golden.flag("batch_first");
    let gru = config(golden)?
        .with_num_layers(size(golden, "num_layers")?)
        .with_bidirectional(golden.flag("bidirectional"))
        .with_batch_first(batch_first)
        .try_init(&golden.device)
        .map_err(|error| error.to_string())?;
    let mut gru = match reset_after {
        true => golden.fill(&TorchGru, gru)?,
        false => golden.fill(&ResetBefore, gru)?,
    };

    let x = golden.leaf::<3>("x");
    let lengths = golden.option("lengths").as_array().map(|list| {
        let list = list.iter().filter_map(|n| n.as_u64());
        let list: Vec<usize> = list.map(|n| n as usize).collect();
        Lengths::new(list, x.dims()[usize::from(batch_first)]).expect("lengths of the file")
    });
    let cells = gru.layers.len() * gru.directions();
    // A single state loses its first axis on reading.
    let state = golden.has("h0").then(|| match cells {
        1 => StackState::from_stacked_hidden(golden.leaf::<2>("h0").unsqueeze_dim::<3>(0)),
        _ => StackState::from_stacked_hidden(golden.leaf::<3>("h0")),
    });
    golden.start(&mut gru);
    let packed = lengths.as_ref().map(|lengths| {
        let rows = PackedSequence::pack(x.clone(), lengths.as_slice(), batch_first, false);
        let (y, state) = gru.forward_packed(&rows.expect("packed"), state.clone());
        (y.unpack(batch_first).0, state.into_stacked())
    });
    let call = ForwardOptions {
        lengths: lengths.as_ref(),
        masks: None,
    };
    let (y, state) = gru.forward_with(x, state, call);
    let state = state.into_stacked();
    if let Some((packed_y, packed_state)) = packed {
        let [a, b, _] = packed_y.dims();
        same(packed_y, y.clone().slice([0..a, 0..b]))?;
        same(packed_state, state.clone())?;
    }
    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    push(&mut outputs, "h_n", state);
    Ok(outputs)
}

/// The packed batch gives what the padded one does, which is compared with the file.
fn same(packed: Tensor<3>, padded: Tensor<3>) -> Result<(), String> {
    match packed.dims() == padded.dims() && values(&packed) == values(&padded) {
        true => Ok(()),
        false => Err("the packed batch gives something else than the padded one".into()),
    }
}

pub fn cell(golden: &Golden) -> Result<Outputs, String> {
    let cell = config(golden)?.try_init_cell(&golden.device);
    let cell = golden.fill(&TorchGru, cell.map_err(|error| error.to_string())?)?;
    let state = golden.has("h0").then(|| GruState {
        hidden: golden.leaf::<2>("h0"),
    });
    let (y, state) = cell.step(golden.leaf::<2>("x"), state);
    if values(&y) != values(&state.hidden) {
        return Err("the output of a step is not its hidden state".into());
    }
    let mut outputs = vec![];
    push(&mut outputs, "h_n", state.hidden);
    Ok(outputs)
}

/// PyTorch has one form: the other is neither read nor written under its name.
#[test]
fn pytorch_has_one_form() {
    let device = burn::tensor::Device::flex();
    let config = GruConfig::new(2, 3).with_reset_after(false);
    let cell = config.init_cell(&device);
    assert_eq!(cell.num_params(), 3 * 3 * (2 + 3 + 1));
    let error = TorchGru.mapping(&cell).expect_err("refused").to_string();
    assert!(error.contains("without `reset_after`"), "{error}");
}

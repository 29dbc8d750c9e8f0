//! `torch.nn.LSTM` and `LSTMCell`, and other plain LSTMs with separate matrices.

use burn::module::{Param, ParamId};
use burn::tensor::Tensor;
use recurrent_core::eval::compare::values;
use recurrent_modules::cells::LstmCell;
use recurrent_modules::import::pytorch::TorchLstm;
use recurrent_modules::{
    ForwardOptions, Lengths, LstmConfig, LstmState, PackedSequence, StackMasks, StackState,
};

use crate::file::{Golden, Outputs, push};

/// A parameter that stays a part of the graph it came from.
pub fn param<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(ParamId::new(), tensor)
}

/// The initial state in stacked form, as leaves.
fn stacked_state(golden: &Golden) -> Option<StackState> {
    golden.has("h0").then(|| {
        StackState::from_stacked(LstmState {
            cell: golden.leaf::<2>("c0").unsqueeze_dim::<3>(0),
            hidden: golden.leaf::<2>("h0").unsqueeze_dim::<3>(0),
        })
    })
}

pub fn lstm(golden: &Golden) -> Result<Outputs, String> {
    let size = |key| {
        golden
            .usize(key)
            .ok_or_else(|| format!("options have no `{key}`"))
    };
    let (layers, proj) = (size("num_layers")?, golden.usize("proj_size").unwrap_or(0));
    let bidirectional = golden.flag("bidirectional");
    let dropout = golden.f64("dropout").unwrap_or(0.0);
    let lstm = LstmConfig::new(size("input_size")?, size("hidden_size")?)
        .with_num_layers(layers)
        .with_bidirectional(bidirectional)
        .with_batch_first(golden.flag("batch_first"))
        .with_bias(golden.flag("bias"))
        .with_d_proj((proj > 0).then_some(proj))
        .with_dropout(if layers > 1 { dropout } else { 0.0 })
        .init(&golden.device);
    let mut lstm = golden.fill(&TorchLstm, lstm)?;

    let masks = StackMasks {
        between: golden.masks_between(layers)?,
        ..StackMasks::default()
    };
    let x = golden.leaf::<3>("x");
    let lengths = golden.option("lengths").as_array().map(|list| {
        let list: Vec<usize> = list
            .iter()
            .filter_map(|n| n.as_u64())
            .map(|n| n as usize)
            .collect();
        let seq_length = x.dims()[usize::from(golden.flag("batch_first"))];
        Lengths::new(list, seq_length).expect("lengths of the file")
    });
    let state = golden.has("h0").then(|| {
        let cells = layers * if bidirectional { 2 } else { 1 };
        // A single state loses its first axis on reading.
        if cells == 1 {
            stacked_state(golden).expect("h0 is there")
        } else {
            StackState::from_stacked(LstmState {
                cell: golden.leaf::<3>("c0"),
                hidden: golden.leaf::<3>("h0"),
            })
        }
    });
    let options = ForwardOptions {
        lengths: lengths.as_ref(),
        masks: Some(&masks),
    };
    golden.start(&mut lstm);
    let packed = lengths.as_ref().map(|lengths| {
        let batch_first = golden.flag("batch_first");
        let rows = PackedSequence::pack(x.clone(), lengths.as_slice(), batch_first, false);
        let (y, state) = lstm.forward_packed(&rows.expect("packed"), state.clone());
        (y.unpack(batch_first).0, state.into_stacked())
    });
    let (y, state) = lstm.forward_with(x, state, options);
    let state = state.into_stacked();
    if let Some((packed_y, packed_state)) = packed {
        let [a, b, _] = packed_y.dims();
        same(packed_y, y.clone().slice([0..a, 0..b]))?;
        same(packed_state.hidden, state.hidden.clone())?;
        same(packed_state.cell, state.cell.clone())?;
    }
    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    Ok(outputs)
}

/// The packed batch gives what the padded one does, which is compared with the file.
fn same(packed: Tensor<3>, padded: Tensor<3>) -> Result<(), String> {
    if packed.dims() != padded.dims() {
        let (got, expected) = (packed.dims(), padded.dims());
        return Err(format!("packed has shape {got:?}, padded {expected:?}"));
    }
    let (packed, padded) = (values(&packed), values(&padded));
    match packed
        .iter()
        .zip(&padded)
        .find(|(a, b)| (*a - *b).abs() > 1e-6)
    {
        Some((got, expected)) => Err(format!("packed gives {got}, padded {expected}")),
        None => Ok(()),
    }
}

/// One step of a bare cell.
fn step(golden: &Golden, cell: &LstmCell) -> Outputs {
    let state = golden.has("h0").then(|| LstmState {
        cell: golden.leaf::<2>("c0"),
        hidden: golden.leaf::<2>("h0"),
    });
    let (_, state) = cell.step(golden.leaf::<2>("x"), state);
    let mut outputs = vec![];
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    outputs
}

fn cell_config(golden: &Golden) -> LstmConfig {
    let size = |key| {
        golden
            .usize(key)
            .unwrap_or_else(|| panic!("options have no `{key}`"))
    };
    LstmConfig::new(size("input_size"), size("hidden_size"))
}

pub fn cell(golden: &Golden) -> Result<Outputs, String> {
    let config = cell_config(golden).with_bias(golden.flag("bias"));
    let cell = golden.fill(&TorchLstm, config.init_cell(&golden.device))?;
    Ok(step(golden, &cell))
}

/// The exercise's plain cell: one matrix per gate and source, `[out, in]`.
pub fn exercise_cell(golden: &Golden) -> Result<Outputs, String> {
    // Where the output gate's peephole looks has no meaning without one.
    let _ = golden.option("output_peephole");
    if golden.flag("coupled") || !golden.option("peephole").is_null() {
        return Err("the bare cell has no coupled gates and no peepholes".into());
    }
    let mut cell = cell_config(golden).init_cell(&golden.device);
    let packed = |source: &str| {
        let blocks = ["i", "f", "c", "o"].map(|gate| {
            golden
                .leaf::<2>(&format!("param.W{gate}{source}"))
                .transpose()
        });
        Tensor::cat(blocks.to_vec(), 1)
    };
    cell.gates.weight_input = param(packed("x"));
    cell.gates.weight_hidden = param(packed("h"));
    let biases = ["i", "f", "c", "o"].map(|gate| golden.leaf::<1>(&format!("param.b{gate}")));
    cell.gates.bias = Some(param(Tensor::cat(biases.to_vec(), 0)));
    Ok(step(golden, &cell))
}

/// The Mogrifier notebook's plain LSTM: one matrix per gate on `[h, x]`.
pub fn naive(golden: &Golden) -> Result<Outputs, String> {
    let config = cell_config(golden).with_batch_first(golden.flag("batch_first"));
    let mut lstm = config.init(&golden.device);
    let cell = &mut lstm.layers[0].forward;
    let d_hidden = cell.d_hidden;
    let gates = ["i", "f", "c", "o"].map(|gate| golden.leaf::<2>(&format!("param.W{gate}")));
    let packed = Tensor::cat(gates.to_vec(), 1);
    let [rows, columns] = packed.dims();
    cell.gates.weight_hidden = param(packed.clone().slice([0..d_hidden, 0..columns]));
    cell.gates.weight_input = param(packed.slice([d_hidden..rows, 0..columns]));
    let biases = ["i", "f", "c", "o"].map(|gate| golden.leaf::<1>(&format!("param.b{gate}")));
    cell.gates.bias = Some(param(Tensor::cat(biases.to_vec(), 0)));

    golden.start(&mut lstm);
    let (y, state) = lstm.forward(golden.leaf::<3>("x"), stacked_state(golden));
    let state = state.into_stacked();
    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    Ok(outputs)
}

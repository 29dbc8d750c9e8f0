//! UR-LSTM and R-LSTM: gate order forget, refine, candidate, output; two biases.

use burn::tensor::Tensor;
use recurrent_core::GateLayout;
use recurrent_core::equations::ur::uniform_gate_bias;
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_modules::cells::UrLstmCell;
use recurrent_modules::{ForwardOptions, LstmState, StackMasks, StackState, UrLstmConfig};

use crate::file::{Golden, Outputs, push};
use crate::torch::param;

fn permuted<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    GateLayout::UR.permute_from(GateLayout::UR_ORIGINAL, tensor)
}

fn fill(cell: &mut UrLstmCell, golden: &Golden, prefix: &str) {
    let name = |name: &str| format!("param.{prefix}{name}");
    let weight = |from: &str| permuted(golden.leaf::<2>(&name(from)).transpose());
    cell.gates.weight_input = param(weight("igates.weight"));
    cell.gates.weight_hidden = param(weight("hgates.weight"));
    let biases = golden.leaf::<1>(&name("igates.bias")) + golden.leaf::<1>(&name("hgates.bias"));
    cell.gates.bias = Some(param(permuted(biases)));
    cell.forget_bias = param(golden.leaf::<1>(&name("forget_bias")));
}

fn config(golden: &Golden) -> Result<UrLstmConfig, String> {
    let size = |key| {
        golden
            .usize(key)
            .ok_or_else(|| format!("options have no `{key}`"))
    };
    Ok(UrLstmConfig::new(size("input_size")?, size("hidden_size")?))
}

pub fn cell(golden: &Golden) -> Result<Outputs, String> {
    let mut cell = config(golden)?.init_cell(&golden.device);
    fill(&mut cell, golden, "");
    let state = LstmState {
        cell: golden.leaf::<2>("c0"),
        hidden: golden.leaf::<2>("h0"),
    };
    let (_, state) = cell.step(golden.leaf::<2>("x"), Some(state));
    let mut outputs = vec![];
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    Ok(outputs)
}

pub fn lstm(golden: &Golden) -> Result<Outputs, String> {
    let layers = golden
        .usize("num_layers")
        .ok_or("options have no `num_layers`")?;
    let mut lstm = config(golden)?
        .with_num_layers(layers)
        .with_batch_first(golden.flag("batch_first"))
        .init(&golden.device);
    for (index, layer) in lstm.layers.iter_mut().enumerate() {
        fill(&mut layer.forward, golden, &format!("layers.{index}."));
        // The initialisation itself, from the same draws.
        let draws = format!("aux.rand.{index}");
        if golden.variant == "urlstm" && golden.has(&draws) {
            let expected = golden.values(&format!("param.layers.{index}.forget_bias"));
            let got = values(&uniform_gate_bias(golden.tensor::<1>(&draws)));
            close(
                "forget_bias",
                &got,
                &expected.expect("listed"),
                Tolerance(5e-6),
            )?;
        }
    }
    let keep = 1.0 - golden.f64("dropout");
    let masks = StackMasks {
        between: match golden.flag("training") && keep < 1.0 {
            true => (0..layers - 1)
                .map(|l| Some(golden.tensor::<3>(&format!("mask.y.{l}")) / keep))
                .collect(),
            false => vec![],
        },
        ..StackMasks::default()
    };
    let state = golden.has("h0").then(|| match layers {
        1 => StackState::from(LstmState {
            cell: golden.leaf::<2>("c0"),
            hidden: golden.leaf::<2>("h0"),
        }),
        _ => StackState::from_stacked(LstmState {
            cell: golden.leaf::<3>("c0"),
            hidden: golden.leaf::<3>("h0"),
        }),
    });
    let options = ForwardOptions {
        masks: Some(&masks),
        ..ForwardOptions::default()
    };
    golden.start(&mut lstm);
    let (y, state) = lstm.forward_with(golden.leaf::<3>("x"), state, options);
    let state = state.into_stacked();
    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    Ok(outputs)
}

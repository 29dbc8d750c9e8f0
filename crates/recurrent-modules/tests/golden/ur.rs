//! UR-LSTM and R-LSTM: gate order forget, refine, candidate, output; two biases.

use recurrent_core::equations::ur::uniform_gate_bias;
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_modules::import::originals::ur_lstm::UrLstmOriginal;
use recurrent_modules::{ForwardOptions, LstmState, StackMasks, StackState, UrLstmConfig};

use crate::file::{Golden, Outputs, push};

fn config(golden: &Golden) -> Result<UrLstmConfig, String> {
    let size = |key| {
        golden
            .usize(key)
            .ok_or_else(|| format!("options have no `{key}`"))
    };
    Ok(UrLstmConfig::new(size("input_size")?, size("hidden_size")?))
}

pub fn cell(golden: &Golden) -> Result<Outputs, String> {
    let cell = golden.fill(&UrLstmOriginal, config(golden)?.init_cell(&golden.device))?;
    let state = golden.has("h0").then(|| LstmState {
        cell: golden.leaf::<2>("c0"),
        hidden: golden.leaf::<2>("h0"),
    });
    let (_, state) = cell.step(golden.leaf::<2>("x"), state);
    let mut outputs = vec![];
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    Ok(outputs)
}

pub fn lstm(golden: &Golden) -> Result<Outputs, String> {
    let layers = golden
        .usize("num_layers")
        .ok_or("options have no `num_layers`")?;
    let lstm = config(golden)?
        .with_num_layers(layers)
        .with_batch_first(golden.flag("batch_first"))
        .init(&golden.device);
    let mut lstm = golden.fill(&UrLstmOriginal, lstm)?;
    for index in 0..layers {
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
    let masks = StackMasks {
        between: golden.masks_between(layers)?,
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

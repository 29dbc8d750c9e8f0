//! The aLSTM of flennerhag/alstm: gate order input, forget, candidate, output; `[out, in]`.

use burn::tensor::Tensor;
use recurrent_modules::import::originals::alstm::Alstm;
use recurrent_modules::{
    AdaptiveLstmConfig, AdaptiveState, ForwardOptions, LstmState, Mask, Masks, PolicyLayout,
    StackMasks, StackState,
};

use crate::file::{Golden, Outputs, push};

fn size(golden: &Golden, key: &str) -> usize {
    golden
        .usize(key)
        .unwrap_or_else(|| panic!("options have no `{key}`"))
}

fn layout(golden: &Golden) -> Result<PolicyLayout, String> {
    match golden.option("policy_offsets").as_str() {
        Some("cumulative") => Ok(PolicyLayout::Cumulative),
        Some("as_shipped") => Ok(PolicyLayout::Overlapping),
        other => Err(format!("unknown policy offsets {other:?}")),
    }
}

/// One step with a given policy.
pub fn cell(golden: &Golden) -> Result<Outputs, String> {
    let config = AdaptiveLstmConfig::new(size(golden, "input_size"), size(golden, "hidden_size"));
    let cell = config
        .with_bias(golden.flag("bias"))
        .with_policy_layout(layout(golden)?)
        .init_cell(&golden.device);
    let cell = golden.fill(&Alstm, cell)?;
    let state = golden.has("h0").then(|| LstmState {
        cell: golden.leaf::<2>("c0"),
        hidden: golden.leaf::<2>("h0"),
    });
    let (_, state) = cell.step(golden.leaf::<2>("x"), golden.leaf::<2>("policy"), state);
    let mut outputs = vec![];
    push(&mut outputs, "h_n", state.hidden);
    push(&mut outputs, "c_n", state.cell);
    Ok(outputs)
}

/// The masks of all layers side by side, scaled; `None` where nothing is dropped.
fn mask(golden: &Golden, name: &str, prob: &str, layers: usize) -> Result<Option<Mask>, String> {
    let of_layer = |layer| golden.required_mask::<2>(&format!("mask.{name}.{layer}"), prob);
    let parts = (0..layers).map(of_layer).collect::<Result<Vec<_>, _>>()?;
    let count = parts.iter().flatten().count();
    let parts: Option<Vec<_>> = parts.into_iter().collect();
    match (parts, count) {
        (Some(parts), _) => Ok(Some(Mask::PerSequence(Tensor::cat(parts, 1)))),
        (None, 0) => Ok(None),
        _ => Err(format!(
            "{count} of {layers} layers have a mask on {name}, expected all or none"
        )),
    }
}

/// The whole model.
pub fn model(golden: &Golden) -> Result<Outputs, String> {
    let layers = size(golden, "num_layers");
    let d_hidden = size(golden, "hidden_size");
    let mut sizes = vec![d_hidden; layers];
    sizes[layers - 1] = golden.usize("output_size").unwrap_or(d_hidden);
    let lstm = AdaptiveLstmConfig::stacked(size(golden, "input_size"), sizes)
        .with_d_adapt(size(golden, "adapt_size"))
        .with_bias(golden.flag("bias"))
        .with_batch_first(golden.flag("batch_first"))
        .with_policy_layout(layout(golden)?)
        .init(&golden.device);
    let mut lstm = golden.fill(&Alstm, lstm)?;

    let masks = Masks {
        hidden: mask(golden, "h", "dropout_alstm", layers)?,
        adapt: mask(golden, "adapt", "dropout_adapt", layers)?,
        ..Masks::none()
    };
    let masks = StackMasks {
        cells: vec![masks],
        ..StackMasks::default()
    };
    let states = |prefix: &str| -> Vec<LstmState<2>> {
        (0..layers)
            .map(|layer| LstmState {
                cell: golden.leaf::<2>(&format!("{prefix}c0.{layer}")),
                hidden: golden.leaf::<2>(&format!("{prefix}h0.{layer}")),
            })
            .collect()
    };
    let state = golden.has("h0.0").then(|| {
        StackState::from(AdaptiveState {
            main: states(""),
            adapt: states("adapt_"),
        })
    });
    let options = ForwardOptions {
        masks: Some(&masks),
        ..ForwardOptions::default()
    };
    golden.start(&mut lstm);
    let (y, state) = lstm.forward_with(golden.leaf::<3>("x"), state, options);

    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    let AdaptiveState { main, adapt } = state.last().clone();
    for (prefix, states) in [("", main), ("adapt_", adapt)] {
        for (layer, state) in states.into_iter().enumerate() {
            push(&mut outputs, format!("{prefix}h_n.{layer}"), state.hidden);
            push(&mut outputs, format!("{prefix}c_n.{layer}"), state.cell);
        }
    }
    Ok(outputs)
}

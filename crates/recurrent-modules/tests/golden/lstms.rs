//! The family of lstms.pth: gate order input, forget, output, candidate.

use burn::tensor::Tensor;
use recurrent_modules::cells::{Cell, LayerNormLstmCell, LstmCell, SlowLstmCell};
use recurrent_modules::import::originals::lstms_pth::LstmsPth;
use recurrent_modules::{
    ForwardOptions, LayerNormLstmConfig, LstmConfig, LstmState, Mask, Masks, Norm, NormBias,
    NormConfig, SlowLstmConfig, Stack, StackMasks, StackState,
};

use crate::file::{Golden, Outputs, push};
use crate::torch::param;

/// The masks of one layer, from `mask.<infix><h|c|g>`; `None` where the file has none.
fn masks(golden: &Golden, infix: &str) -> Result<Masks, String> {
    let per_sequence = match golden.option("dropout_method").as_str() {
        Some("gal" | "moon") => true,
        Some("pytorch" | "semeniuta") | None => false,
        other => return Err(format!("unknown dropout method {other:?}")),
    };
    let mask = |letter: &str| -> Result<Option<Mask>, String> {
        let name = format!("mask.{infix}{letter}");
        if !per_sequence {
            return Ok(golden.mask::<3>(&name, "dropout")?.map(Mask::PerStep));
        }
        let Some(flat) = golden.mask::<1>(&name, "dropout")? else {
            return Ok(None);
        };
        // One row for the whole batch, or one per sequence.
        let [count] = flat.dims();
        let columns = golden.mask_width(infix);
        let batch_size = golden.usize("batch").ok_or("options have no `batch`")?;
        let rows = flat.reshape([count / columns, columns]);
        Ok(Some(Mask::PerSequence(rows.expand([batch_size, columns]))))
    };
    Ok(Masks {
        hidden: mask("h")?,
        cell: mask("c")?,
        candidate: mask("g")?,
        ..Masks::none()
    })
}

impl Golden {
    /// Units of the layer that `mask.<infix>…` belongs to.
    fn mask_width(&self, infix: &str) -> usize {
        match infix.trim_end_matches('.').parse::<usize>() {
            Ok(layer) => sizes(self)[layer],
            Err(_) => self.usize("hidden_size").expect("hidden_size"),
        }
    }
}

fn sizes(golden: &Golden) -> Vec<usize> {
    match golden.option("layer_sizes").as_array() {
        Some(list) => list
            .iter()
            .filter_map(|n| n.as_u64())
            .map(|n| n as usize)
            .collect(),
        None => vec![golden.usize("hidden_size").expect("hidden_size")],
    }
}

/// A module of the family, filled from the file.
enum Module {
    Lstm(Stack<LstmCell>),
    Slow(Stack<SlowLstmCell>),
    LayerNorm(Stack<LayerNormLstmCell>),
}

fn build(golden: &Golden, slow: bool, layout: LstmsPth) -> Result<Module, String> {
    let d_input = golden.usize("input_size").expect("input_size");
    let bias = golden.flag("bias");
    let layer_norm = golden.flag("layer_norm");
    let device = &golden.device;
    if slow {
        let config = SlowLstmConfig::stacked(d_input, sizes(golden));
        let stack = config.with_batch_first(false).with_bias(bias).init(device);
        let mut stack = golden.fill(&layout, stack)?;
        golden.start(&mut stack);
        return Ok(Module::Slow(stack));
    }
    if layer_norm {
        let norm = NormConfig::lstms_pth().with_learnable(golden.flag("learnable"));
        let preact = golden.flag("ln_preact").then(|| norm.clone());
        let stack = LayerNormLstmConfig::stacked(d_input, sizes(golden))
            .with_norm_input(preact.clone())
            .with_norm_hidden(preact)
            .with_norm_cell(Some(norm))
            .with_carry_normalized(true)
            .with_norm_bias(NormBias::Inside)
            .with_batch_first(false)
            .with_bias(bias)
            .init(device);
        let mut stack = golden.fill(&layout, stack)?;
        golden.start(&mut stack);
        return Ok(Module::LayerNorm(stack));
    }
    let config = LstmConfig::stacked(d_input, sizes(golden));
    let stack = config.with_batch_first(false).with_bias(bias).init(device);
    let mut stack = golden.fill(&layout, stack)?;
    golden.start(&mut stack);
    Ok(Module::Lstm(stack))
}

fn forward<C>(
    golden: &Golden,
    stack: &Stack<C>,
    state: Option<StackState>,
    cells: Vec<Masks>,
) -> (Tensor<3>, StackState)
where
    C: Cell,
    C::Step: recurrent_core::Step<State = LstmState<2>>,
{
    let masks = StackMasks {
        cells,
        ..StackMasks::default()
    };
    let options = ForwardOptions {
        masks: Some(&masks),
        ..ForwardOptions::default()
    };
    stack.forward_with(golden.leaf::<3>("x"), state, options)
}

fn run(
    golden: &Golden,
    module: &Module,
    state: Option<StackState>,
    masks: Vec<Masks>,
) -> (Tensor<3>, StackState) {
    match module {
        Module::Lstm(stack) => forward(golden, stack, state, masks),
        Module::Slow(stack) => forward(golden, stack, state, masks),
        Module::LayerNorm(stack) => forward(golden, stack, state, masks),
    }
}

pub fn single(golden: &Golden) -> Result<Outputs, String> {
    let module = build(golden, golden.variant == "lstms_slow", LstmsPth::Single)?;
    let state = golden.has("h0").then(|| {
        StackState::from(LstmState {
            cell: golden.leaf::<2>("c0"),
            hidden: golden.leaf::<2>("h0"),
        })
    });
    let (y, state) = run(golden, &module, state, vec![masks(golden, "")?]);
    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    push(&mut outputs, "h_n", state.last().hidden.clone());
    push(&mut outputs, "c_n", state.last().cell.clone());
    Ok(outputs)
}

pub fn multilayer(golden: &Golden) -> Result<Outputs, String> {
    let slow = match golden.option("layer_type").as_str().unwrap_or_default() {
        "SlowLSTM" => true,
        "LSTM" | "GalLSTM" | "MoonLSTM" | "SemeniutaLSTM" => false,
        "LayerNormLSTM" | "LayerNormGalLSTM" | "LayerNormMoonLSTM" | "LayerNormSemeniutaLSTM" => {
            false
        }
        other => return Err(format!("unknown layer type `{other}`")),
    };
    let module = build(golden, slow, LstmsPth::MultiLayer)?;
    let layers = sizes(golden).len();
    let state = golden.has("h0.0").then(|| StackState {
        cells: (0..layers)
            .map(|layer| LstmState {
                cell: golden.leaf::<2>(&format!("c0.{layer}")),
                hidden: golden.leaf::<2>(&format!("h0.{layer}")),
            })
            .collect(),
    });
    let masks = (0..layers).map(|layer| masks(golden, &format!("{layer}.")));
    let masks = masks.collect::<Result<_, _>>()?;
    let (y, state) = run(golden, &module, state, masks);
    let mut outputs = vec![];
    push(&mut outputs, "y", y);
    for (layer, state) in state.cells.into_iter().enumerate() {
        push(&mut outputs, format!("h_n.{layer}"), state.hidden);
        push(&mut outputs, format!("c_n.{layer}"), state.cell);
    }
    Ok(outputs)
}

/// The three stand-alone normalisers.
pub fn norm(golden: &Golden) -> Result<Outputs, String> {
    let (config, gain, shift) = match golden.option("kind").as_str() {
        Some("LayerNorm") => (NormConfig::lstms_pth(), "alpha", "beta"),
        Some("BradburyLayerNorm") => (NormConfig::bradbury(), "gamma", "beta"),
        Some("BaLayerNorm") => (NormConfig::ba(), "alpha", "beta"),
        other => return Err(format!("unknown normaliser {other:?}")),
    };
    let epsilon = golden.f64("epsilon").unwrap_or(config.epsilon);
    let config = config
        .with_epsilon(epsilon)
        .with_learnable(golden.flag("learnable"));
    let features = golden.usize("input_size").expect("input_size");
    let mut norm: Norm = config.init(features, &golden.device);
    if norm.gain.is_some() {
        norm.gain = Some(param(golden.leaf::<1>(&format!("param.{gain}"))));
        norm.shift = Some(param(golden.leaf::<1>(&format!("param.{shift}"))));
    }
    let mut outputs = vec![];
    push(&mut outputs, "y", norm.forward(golden.leaf::<2>("x")));
    Ok(outputs)
}

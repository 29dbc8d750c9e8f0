//! The kernel of the adaptive LSTM as an operation on tensors.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::Unfused;
use super::contract::{self, Kept, SequenceKernel};
use super::cpu::adaptive::{
    Layer, Mask, Problem, StatePart, Tape, Tensors, Weight, backward, forward,
};
use super::cpu::simd::Isa;
use super::shapes::Expected;
use crate::cell::adaptive::{AdaptiveLayer, AdaptiveLayers, AdaptiveState};
use crate::cell::{Preactivation, Transition};
use crate::equations::adaptive::PolicyLayout;
use crate::sequence::{FusedMask, FusedMasks, FusedOutput, FusedRun};
use crate::state::State;

/// Most layers: a node of the autodiff graph has no more parents than that.
const MAX_LAYERS: usize = 7;

/// Whether the kernel knows the options of the layers.
///
/// # Errors
/// The first option that it does not know.
pub fn check(cell: &AdaptiveLayers) -> Result<(), Unfused> {
    if cell.residual {
        return Err(Unfused::Cell(
            "an adaptive LSTM with residual connections between its layers",
        ));
    }
    if cell.layers.len() > MAX_LAYERS {
        return Err(Unfused::Cell("an adaptive LSTM of more than 7 layers"));
    }
    let normed = |preact: &Preactivation, transition: &Transition| {
        let norms = [&preact.norm_input, &preact.norm_hidden];
        norms.iter().any(|norm| norm.is_some()) || transition.norm_cell.is_some()
    };
    for layer in &cell.layers {
        let (preact, transition) = (&layer.cell.preact, &layer.cell.transition);
        if normed(preact, transition) {
            return Err(Unfused::Cell("an adaptive LSTM with layer normalisation"));
        }
        if transition.projection.is_some() {
            return Err(Unfused::Cell("an adaptive LSTM with a projection"));
        }
        if preact.input.bias.is_some() || preact.hidden.bias.is_some() {
            return Err(Unfused::Cell(
                "an adaptive LSTM with biases that p_i and p_g scale",
            ));
        }
        let adapt = &layer.adapt;
        if normed(&adapt.preact, &adapt.transition) || adapt.transition.projection.is_some() {
            return Err(Unfused::Cell(
                "an adaptive LSTM whose adaptation cells have a normalisation or a projection",
            ));
        }
    }
    Ok(())
}

/// A layer without its tensors.
fn problem_layer(layer: &AdaptiveLayer) -> Layer {
    let bound = |clip: Option<f64>| clip.map_or(f32::INFINITY, |clip| clip as f32);
    Layer {
        d_input: layer.cell.d_input(),
        d_hidden: layer.cell.d_hidden(),
        d_adapt: layer.d_adapt(),
        bias: layer.cell.preact.bias.is_some(),
        overlapping: layer.cell.policy_layout == PolicyLayout::Overlapping,
        clip: bound(layer.cell.transition.clip),
        clip_adapt: bound(layer.adapt.transition.clip),
    }
}

/// b_a `[4A]`: whatever biases the adaptation cell has are added up.
fn adapt_bias(layer: &AdaptiveLayer) -> Tensor<1> {
    let preact = &layer.adapt.preact;
    let biases = [&preact.bias, &preact.input.bias, &preact.hidden.bias];
    let sum = biases.into_iter().flatten().cloned().reduce(|a, b| a + b);
    sum.unwrap_or_else(|| {
        let weight = &preact.input.weight;
        Tensor::<1>::zeros([preact.width()], &weight.device()).cast(weight.dtype())
    })
}

/// A part of a layer, for messages.
fn of_layer(name: &str, layer: usize) -> String {
    format!("{name} of layer {layer}")
}

/// Checks all tensors of a call against the sizes of the layers.
///
/// # Panics
/// If one has another shape.
#[track_caller]
fn check_shapes(problem: &Problem, call: &FusedRun<'_, AdaptiveState>, cell: &AdaptiveLayers) {
    problem.check_sizes();
    let [first, second, features] = call.rows.rows.dims();
    let input = problem.expected_input();
    input.check("input", &[first * second, features]);

    let batch = problem.batch_size();
    let state = |features: usize| Expected::new("[batch_size, features]", [batch, features]);
    let states = &call.state;
    assert!(
        states.main.len() == problem.layers.len() && states.adapt.len() == problem.layers.len(),
        "state has {} and {} cells, expected two for each of {} layers",
        states.main.len(),
        states.adapt.len(),
        problem.layers.len(),
    );
    for (index, layer) in cell.layers.iter().enumerate() {
        let sizes = &problem.layers[index];
        let (main, adapt) = (&states.main[index], &states.adapt[index]);
        for (name, tensor, features) in [
            ("state cell", &main.cell, sizes.d_hidden),
            ("state hidden", &main.hidden, sizes.d_hidden),
            ("state adapt cell", &adapt.cell, sizes.d_adapt),
            ("state adapt hidden", &adapt.hidden, sizes.d_adapt),
        ] {
            state(features).check(of_layer(name, index), &tensor.dims());
        }
        for (weight, tensor) in weights(layer) {
            let expected = problem.expected_weight(index, weight);
            expected.check(of_layer(weight.name(), index), &tensor.dims());
        }
        let main_bias = &layer.cell.preact.bias;
        let preact = &layer.adapt.preact;
        for (name, bias, units) in [
            ("bias", main_bias, sizes.d_hidden),
            ("bias of the adaptation cell", &preact.bias, sizes.d_adapt),
            (
                "bias of the adaptation cell",
                &preact.input.bias,
                sizes.d_adapt,
            ),
            (
                "bias of the adaptation cell",
                &preact.hidden.bias,
                sizes.d_adapt,
            ),
        ] {
            if let Some(bias) = bias {
                let expected = Expected::new("[4·units]", [4 * units]);
                expected.check(of_layer(name, index), &bias.dims());
            }
        }
    }
    let given = masks(&call.masks);
    for (mask, given) in Mask::ALL.into_iter().zip(given) {
        if let Some(given) = given {
            problem
                .expected_mask(mask)
                .check(mask.name(), &given.rows.dims());
        }
    }
}

/// The weights of a layer, in the order of the kernel's list.
fn weights(layer: &AdaptiveLayer) -> [(Weight, &Tensor<2>); 5] {
    [
        (Weight::AdaptInput, &layer.adapt.preact.input.weight),
        (Weight::AdaptHidden, &layer.adapt.preact.hidden.weight),
        (Weight::Policy, &layer.policy_projection),
        (Weight::Input, &layer.cell.preact.input.weight),
        (Weight::Hidden, &layer.cell.preact.hidden.weight),
    ]
}

/// The masks in the order of the kernel's list.
fn masks(masks: &FusedMasks) -> [Option<&FusedMask>; 6] {
    [
        masks.candidate.as_ref(),
        masks.cell.as_ref(),
        masks.hidden.as_ref(),
        masks.update_cell.as_ref(),
        masks.update_hidden.as_ref(),
        masks.adapt.as_ref(),
    ]
}

/// Runs all layers of an adaptive LSTM, of which [`check`] holds.
///
/// # Panics
/// If a tensor has another shape than the sizes of the layers ask for.
#[track_caller]
pub fn run(call: FusedRun<'_, AdaptiveState>, cell: &AdaptiveLayers) -> FusedOutput<AdaptiveState> {
    let problem = Problem {
        layers: cell.layers.iter().map(problem_layer).collect(),
        counts: call.counts.to_vec(),
        masks: masks(&call.masks).map(|mask| mask.map(|mask| mask.per_step)),
        histories: call.histories,
    };
    check_shapes(&problem, &call, cell);
    let biases = cell.layers.iter().flat_map(|layer| {
        let bias = layer.cell.preact.bias.clone();
        [Some(adapt_bias(layer)), bias].into_iter().flatten()
    });
    let mut tensors = vec![
        call.rows.for_kernel(),
        Tensor::cat(call.state.into_tensors(), 1).into_dispatch(),
        Tensor::cat(biases.collect(), 0).into_dispatch(),
    ];
    for layer in &cell.layers {
        tensors.extend(weights(layer).map(|(_, weight)| weight.clone().into_dispatch()));
    }
    let given = masks(&call.masks).into_iter().flatten();
    tensors.extend(given.map(|mask| mask.rows.clone().into_dispatch()));

    let batch = problem.batch_size();
    let (d_output, state_size) = (problem.d_output(), problem.state_size());
    let parts: Vec<usize> = problem
        .layers
        .iter()
        .flat_map(|layer| [layer.d_hidden, layer.d_hidden, layer.d_adapt, layer.d_adapt])
        .collect();
    let output_shape = contract::sequence_shape(call.counts, d_output);
    // Where each part of the state after all rows is, and its features.
    let layers = 0..if call.histories {
        problem.layers.len()
    } else {
        0
    };
    let places: Vec<(Option<usize>, usize)> = layers
        .flat_map(|layer| StatePart::ALL.map(|part| (layer, part)))
        .map(|(layer, part)| (problem.history(layer, part), problem.part_size(layer, part)))
        .collect();
    let flat = contract::run(tensors, Arc::new(AdaptiveKernel { problem }));

    let (output, states) = contract::output_and_rest(&flat, output_shape, batch * state_size);
    let states = states.reshape([batch, state_size]);
    let mut start = 0;
    let piece = |size: &usize| {
        start += size;
        contract::owned(states.clone().slice([0..batch, start - size..start]))
    };
    let state = AdaptiveState::from_tensors(parts.iter().map(piece).collect());
    let history = |(start, features): (Option<usize>, usize)| match start {
        Some(start) => {
            let shape = contract::sequence_shape(call.counts, features);
            contract::owned(contract::piece(&flat, start, shape))
        }
        None => output.clone(),
    };
    FusedOutput {
        histories: places.into_iter().map(history).collect(),
        output,
        state,
    }
}

/// A call of the adaptive LSTM.
#[derive(Debug)]
pub(super) struct AdaptiveKernel {
    pub(super) problem: Problem,
}

impl SequenceKernel for AdaptiveKernel {
    #[cfg(feature = "cube")]
    fn output_len(&self) -> usize {
        self.problem.output_len()
    }

    fn forward(&self, tensors: &[&[f32]], keep: bool) -> (Vec<f32>, Option<Kept>) {
        let members = self.problem.members();
        let tensors = Tensors(tensors);
        let (output, tape) = forward(Isa::best(), members, &self.problem, tensors, keep);
        (output, tape.map(|tape| Box::new(tape) as Kept))
    }

    fn backward(
        &self,
        tensors: &[&[f32]],
        kept: &Kept,
        output: &[f32],
        grad: &[f32],
        wanted: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let tape: &Tape = kept.downcast_ref().expect("the tape of this kernel");
        backward(
            Isa::best(),
            self.problem.members(),
            &self.problem,
            Tensors(tensors),
            tape,
            output,
            grad,
            wanted,
        )
    }

    #[cfg(feature = "cube")]
    fn cube(&self) -> Option<&dyn super::cube::CubeSequence> {
        Some(self)
    }
}

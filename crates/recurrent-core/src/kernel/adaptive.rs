//! The kernel of the adaptive LSTM as an operation on tensors.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::Unfused;
use super::contract::{self, Kept, SequenceKernel};
use super::cpu::adaptive::{Layer, Problem, StatePart, Tape, Tensors, backward, forward};
use super::cpu::simd::Isa;
use crate::cell::adaptive::{AdaptiveLayer, AdaptiveLayers, AdaptiveState};
use crate::cell::{Preactivation, Transition};
use crate::equations::adaptive::PolicyLayout;
use crate::sequence::{FusedOutput, FusedRun};
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

/// Runs all layers of an adaptive LSTM, of which [`check`] holds.
pub fn run(call: FusedRun<'_, AdaptiveState>, cell: &AdaptiveLayers) -> FusedOutput<AdaptiveState> {
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
        let weights = [
            &layer.adapt.preact.input.weight,
            &layer.adapt.preact.hidden.weight,
            &layer.policy_projection,
            &layer.cell.preact.input.weight,
            &layer.cell.preact.hidden.weight,
        ];
        tensors.extend(weights.map(|weight| weight.clone().into_dispatch()));
    }
    let masks = call.masks;
    let masks = [
        masks.candidate,
        masks.cell,
        masks.hidden,
        masks.update_cell,
        masks.update_hidden,
        masks.adapt,
    ];
    let masks = masks.map(|mask| {
        let mask = mask?;
        tensors.push(mask.rows.into_dispatch());
        Some(mask.per_step)
    });

    let problem = Problem {
        layers: cell.layers.iter().map(problem_layer).collect(),
        counts: call.counts.to_vec(),
        masks,
        histories: call.histories,
    };
    let (rows, batch) = (problem.rows(), problem.batch_size());
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

    let output = contract::piece(&flat, 0, output_shape);
    let states: Tensor<2> = contract::piece(&flat, rows * d_output, [batch, state_size]);
    let mut start = 0;
    let piece = |size: &usize| {
        start += size;
        states.clone().slice([0..batch, start - size..start])
    };
    let state = AdaptiveState::from_tensors(parts.iter().map(piece).collect());
    let history = |(start, features): (Option<usize>, usize)| match start {
        Some(start) => contract::piece(
            &flat,
            start,
            contract::sequence_shape(call.counts, features),
        ),
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

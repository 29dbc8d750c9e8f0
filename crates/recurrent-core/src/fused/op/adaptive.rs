//! A call of the adaptive LSTM as an operation on tensors.

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::{FusedCall, FusedOutput};
use crate::fused::problem::adaptive::{AdaptiveProblem, StatePart};
use crate::fused::problem::{AdaptiveLayerSpec, AdaptiveSpec, Expected};

/// b_a `[4A]`: the sum of the adaptation cell's biases.
fn adapt_bias(layer: &AdaptiveLayerSpec) -> Tensor<1> {
    let sum = layer.adapt_biases.iter().cloned().reduce(|a, b| a + b);
    sum.unwrap_or_else(|| {
        let weight = &layer.adapt_input;
        Tensor::<1>::zeros([weight.dims()[1]], &weight.device()).cast(weight.dtype())
    })
}

/// Checks the tensors of a call except weights.
///
/// # Panics
/// If one has a wrong shape.
#[track_caller]
fn check_call(problem: &AdaptiveProblem, call: &FusedCall) {
    let [first, second, features] = call.rows.rows.dims();
    let input = problem.expected_input();
    input.check("input", [first * second, features]);
    let batch = problem.batch_size();
    assert!(
        call.state.len() == 4 * problem.layers.len(),
        "state has {} tensors, expected four for each of {} layers",
        call.state.len(),
        problem.layers.len(),
    );
    let names = [
        "state cell",
        "state hidden",
        "state adapt cell",
        "state adapt hidden",
    ];
    for (index, tensors) in call.state.chunks_exact(4).enumerate() {
        for ((part, name), tensor) in StatePart::ALL.into_iter().zip(names).zip(tensors) {
            let dims = [batch, problem.part_size(index, part)];
            let expected = Expected::new("[batch_size, features]", dims);
            expected.check(format_args!("{name} of layer {index}"), tensor.dims());
        }
    }
    for (place, given) in call.masks.iter() {
        let expected = problem.expected_mask(place);
        expected.check(format_args!("mask {}", place.name()), given.rows.dims());
    }
}

/// Runs all layers of an adaptive LSTM.
///
/// # Panics
/// If a tensor does not have the shape that the sizes of the layers imply.
#[track_caller]
pub fn run(spec: AdaptiveSpec, call: FusedCall) -> FusedOutput {
    spec.check();
    let problem = AdaptiveProblem {
        masks: call.masks.map(|mask| mask.per_step),
        histories: call.histories,
        ..spec.problem(call.counts.clone())
    };
    problem.check_sizes();
    check_call(&problem, &call);
    let biases = spec.layers.iter().flat_map(|layer| {
        let bias = layer.bias.clone();
        [Some(adapt_bias(layer)), bias].into_iter().flatten()
    });
    let mut tensors = vec![
        call.rows.for_kernel(),
        Tensor::cat(call.state, 1).into_dispatch(),
        Tensor::cat(biases.collect(), 0).into_dispatch(),
    ];
    for layer in &spec.layers {
        tensors.extend(
            layer
                .weights()
                .map(|(_, weight)| weight.clone().into_dispatch()),
        );
    }
    let masks = call.masks.iter();
    tensors.extend(masks.map(|(_, mask)| mask.rows.clone().into_dispatch()));

    let batch = problem.batch_size();
    let (d_output, state_size) = (problem.d_output(), problem.state_size());
    let parts: Vec<usize> = problem
        .layers
        .iter()
        .flat_map(|layer| [layer.d_hidden, layer.d_hidden, layer.d_adapt, layer.d_adapt])
        .collect();
    let output_shape = super::sequence_shape(&call.counts, d_output);
    // Offset and features of each part of the state after all rows.
    let layers = 0..if call.histories {
        problem.layers.len()
    } else {
        0
    };
    let places: Vec<(Option<usize>, usize)> = layers
        .flat_map(|layer| StatePart::ALL.map(|part| (layer, part)))
        .map(|(layer, part)| (problem.history(layer, part), problem.part_size(layer, part)))
        .collect();
    let flat = super::run_problem(tensors, super::Problem::Adaptive(problem));

    let (output, states) = super::output_and_rest(&flat, output_shape, batch * state_size);
    let states = states.reshape([batch, state_size]);
    let mut start = 0;
    let piece = |size: &usize| {
        start += size;
        super::owned(states.clone().slice([0..batch, start - size..start]))
    };
    let state = parts.iter().map(piece).collect();
    let history = |(start, features): (Option<usize>, usize)| match start {
        Some(start) => {
            let shape = super::sequence_shape(&call.counts, features);
            super::owned(super::piece(&flat, start, shape))
        }
        None => output.clone(),
    };
    FusedOutput {
        histories: places.into_iter().map(history).collect(),
        output,
        state,
    }
}

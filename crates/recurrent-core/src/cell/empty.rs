//! Calls without any step to run: no sequences, no steps, or only lengths of 0.
//!
//! Outputs are empty or zero. The final state is the initial one, and its gradient passes through
//! unchanged. No equation is evaluated on empty tensors.

use burn::tensor::{Bool, Tensor};

use super::{Step, VisitWeight, Weight};
use crate::state::State;

/// The output of an empty call, see [`empty_output_of`].
pub(crate) fn empty_output<C: Step + ?Sized, const D: usize, const E: usize>(
    cell: &C,
    input: &Tensor<D>,
    state: &C::State,
    shape: [usize; E],
) -> Tensor<E> {
    empty_output_of(input, state, |visit| cell.visit_weights(visit), shape)
}

/// Zeros, on the device on which the output would have been computed. On an autodiff device they are
/// connected to the graph of the weights and the state, with zero gradients, so that a loss can be
/// differentiated as for any other batch.
pub(crate) fn empty_output_of<S: State, const D: usize, const E: usize>(
    input: &Tensor<D>,
    state: &S,
    weights: impl FnOnce(&mut VisitWeight<'_>),
    shape: [usize; E],
) -> Tensor<E> {
    let mut zero = zero_of(input);
    for tensor in state.clone().into_tensors() {
        zero = sum(zero, zero_of(&tensor));
    }
    weights(&mut |_, weight| {
        let next = match weight {
            Weight::Vector(tensor) => zero_of(tensor),
            Weight::Matrix(tensor) => zero_of(tensor),
        };
        zero = sum(zero.take(), next);
    });
    let dtype = input.dtype();
    match zero {
        Some(zero) => Tensor::zeros(shape, (&zero.device(), dtype)) + zero.reshape([1; E]),
        None => Tensor::zeros(shape, (&input.device(), dtype)),
    }
}

/// Zeros of an empty shape, or zeros that replace empty tensors, connected to the graph of these tensors.
///
/// The derivatives of concatenation and slicing fail on Flex (0.22.1) for empty tensors; those of a sum
/// and of an addition work.
pub fn zeros_in_place_of<const D: usize, const E: usize>(
    parts: &[Tensor<D>],
    shape: [usize; E],
) -> Tensor<E> {
    let first = &parts[0];
    let zeros = Tensor::zeros(shape, (&first.device(), first.dtype()));
    match first.device().is_autodiff() {
        true => (parts.iter()).fold(zeros, |zeros, part| {
            zeros + part.clone().sum().reshape([1; E])
        }),
        false => zeros,
    }
}

/// A zero connected to the graph of a tensor, whatever its values are; `None` on a device without
/// autodiff and for an empty tensor.
fn zero_of<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<1>> {
    let device = tensor.device();
    if !device.is_autodiff() || tensor.dims().contains(&0) {
        return None;
    }
    let first = tensor.clone().slice([const { 0..1 }; D]).reshape([1]);
    let all = Tensor::<1, Bool>::from_data([true], &device);
    Some(first.mask_fill(all, 0.0))
}

fn sum(a: Option<Tensor<1>>, b: Option<Tensor<1>>) -> Option<Tensor<1>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

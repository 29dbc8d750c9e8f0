//! Kernels on slices: a whole sequence on a CPU, forward and backward.
//!
//! Knows nothing of Burn: slices in, slices out.

pub mod adaptive;
pub mod bf16;
pub mod buffer;
pub mod layout;
pub mod pointwise;
pub mod product;
pub mod recurrence;
pub mod rows;
pub mod simd;
pub mod sums;
pub mod team;
pub mod transpose;
pub mod view;

use alloc::vec::Vec;

use crate::fused::problem::{Parts, Problem};
use simd::Isa;

/// What the forward of a training step keeps for its backward.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one per call
pub enum Saved {
    /// Of the LSTM family.
    Lstm(recurrence::Tape),
    /// Of the adaptive LSTM.
    Adaptive(adaptive::Tape),
}

/// Runs all steps.
///
/// # Arguments
/// * `tensors` - in the order of the problem, row-major
/// * `keep` - whether a backward will follow
///
/// # Returns
/// [`Problem::output_len`] values, and what the backward needs if `keep`.
///
/// # Panics
/// If a tensor is missing or has another size than the problem says.
#[track_caller]
pub fn forward(problem: &Problem, tensors: &[&[f32]], keep: bool) -> (Vec<f32>, Option<Saved>) {
    let isa = Isa::best();
    match problem {
        Problem::Lstm { problem, which } => {
            let parts = Parts::from_list(tensors.iter().copied(), which.clone());
            let workers = problem.workers();
            let (output, tape) = recurrence::forward(isa, workers, problem, &parts, keep);
            (output, tape.map(Saved::Lstm))
        }
        Problem::Adaptive(problem) => {
            let tensors = crate::fused::problem::adaptive::Tensors(tensors);
            let workers = problem.workers();
            let (output, tape) = adaptive::forward(isa, workers, problem, tensors, keep);
            (output, tape.map(Saved::Adaptive))
        }
    }
}

/// Runs all steps back.
///
/// # Arguments
/// * `tensors`, `saved`, `output` - of the forward; none of them is changed, so that a graph may be
///   walked more than once
/// * `grad` - the gradient of the output
/// * `wanted` - which tensors' gradients are asked for
///
/// # Returns
/// The gradient of each wanted tensor, row-major; none for those that have none.
///
/// # Panics
/// As [`forward`]; also if `saved` is of another call.
#[track_caller]
pub fn backward(
    problem: &Problem,
    tensors: &[&[f32]],
    saved: &Saved,
    output: &[f32],
    grad: &[f32],
    wanted: &[bool],
) -> Vec<Option<Vec<f32>>> {
    let isa = Isa::best();
    match (problem, saved) {
        (Problem::Lstm { problem, which }, Saved::Lstm(tape)) => {
            let parts = Parts::from_list(tensors.iter().copied(), which.clone());
            let keys = which.keys();
            let mut asked = Parts::default();
            for (&key, wanted) in keys.iter().zip(wanted) {
                asked.set(key, wanted.then_some(()));
            }
            let workers = problem.workers();
            let mut grads =
                recurrence::backward(isa, workers, problem, &parts, tape, output, grad, &asked);
            keys.into_iter().map(|key| grads.take(key)).collect()
        }
        (Problem::Adaptive(problem), Saved::Adaptive(tape)) => {
            let tensors = crate::fused::problem::adaptive::Tensors(tensors);
            let workers = problem.workers();
            adaptive::backward(isa, workers, problem, tensors, tape, output, grad, wanted)
        }
        _ => panic!("a backward was given what the forward of another problem saved"),
    }
}

//! Kernels on slices: a whole sequence on a CPU, forward and backward.
//!
//! This module is independent of Burn: it works on slices.

pub mod adaptive;
pub mod bf16;
pub mod buffer;
pub mod driver;
pub mod gru;
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

use crate::fused::problem::{self, Parts, Problem};
use simd::Isa;

/// What the forward of a training step saves for its backward.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one per call
pub enum Saved {
    /// Of the LSTM family.
    Lstm(recurrence::Saved),
    /// Of the GRU.
    Gru(gru::Saved),
    /// Of the adaptive LSTM.
    Adaptive(adaptive::Saved),
}

/// Runs all steps.
///
/// # Arguments
/// * `tensors` - in the order of the problem, row-major
/// * `save` - whether to save what a backward needs
///
/// # Returns
/// [`Problem::output_len`] values, and with `save` the saved tensors for the backward.
///
/// # Panics
/// If a tensor is missing or its size does not match the problem.
#[track_caller]
pub fn forward(problem: &Problem, tensors: &[&[f32]], save: bool) -> (Vec<f32>, Option<Saved>) {
    let isa = Isa::best();
    match problem {
        Problem::Lstm { problem, which } => {
            let parts = Parts::from_list(tensors.iter().copied(), which.clone());
            let workers = problem.workers();
            let (output, saved) = recurrence::forward(isa, workers, problem, &parts, save);
            (output, saved.map(Saved::Lstm))
        }
        Problem::Gru { problem, which } => {
            let parts = Parts::from_list(tensors.iter().copied(), which.clone());
            let workers = problem.workers();
            let (output, saved) = gru::forward(isa, workers, problem, &parts, save);
            (output, saved.map(Saved::Gru))
        }
        Problem::Adaptive(problem) => {
            let tensors = problem::adaptive::Tensors(tensors);
            let workers = problem.workers();
            let (output, saved) = adaptive::forward(isa, workers, problem, tensors, save);
            (output, saved.map(Saved::Adaptive))
        }
    }
}

/// Arguments of a backward.
#[derive(Debug, Clone, Copy)]
pub struct Gradient<'a> {
    /// The tensors of the forward. These, the saved tensors and the output are not modified, so a graph
    /// may be differentiated more than once.
    pub tensors: &'a [&'a [f32]],
    /// The saved tensors of the forward.
    pub saved: &'a Saved,
    /// The output of the forward.
    pub output: &'a [f32],
    /// The gradient of the output.
    pub grad: &'a [f32],
    /// Which tensors need a gradient.
    pub wanted: &'a [bool],
}

/// Runs the backward over all steps.
///
/// # Returns
/// The gradient of each wanted tensor, row-major; `None` for a tensor that is not wanted or has no
/// gradient.
///
/// # Panics
/// As [`forward`]; also if the saved tensors belong to a different call.
#[track_caller]
pub fn backward(problem: &Problem, call: Gradient<'_>) -> Vec<Option<Vec<f32>>> {
    let isa = Isa::best();
    let Gradient {
        tensors,
        output,
        grad,
        wanted,
        ..
    } = call;
    match (problem, call.saved) {
        (Problem::Lstm { problem, which }, Saved::Lstm(saved)) => {
            let keys = which.keys();
            let call = recurrence::Gradient {
                parts: &Parts::from_list(tensors.iter().copied(), which.clone()),
                saved,
                output,
                grad,
                wanted: &which.chosen(wanted),
            };
            let mut grads = recurrence::backward(isa, problem.workers(), problem, call);
            keys.into_iter().map(|key| grads.take(key)).collect()
        }
        (Problem::Gru { problem, which }, Saved::Gru(saved)) => {
            let keys = which.keys();
            let call = gru::Gradient {
                parts: &Parts::from_list(tensors.iter().copied(), which.clone()),
                saved,
                output,
                grad,
                wanted: &which.chosen(wanted),
            };
            let mut grads = gru::backward(isa, problem.workers(), problem, call);
            keys.into_iter().map(|key| grads.take(key)).collect()
        }
        (Problem::Adaptive(problem), Saved::Adaptive(saved)) => {
            let call = adaptive::Gradient {
                tensors: problem::adaptive::Tensors(tensors),
                saved,
                output,
                grad,
                wanted,
            };
            adaptive::backward(isa, problem.workers(), problem, call)
        }
        _ => panic!("a backward was given what the forward of another problem saved"),
    }
}

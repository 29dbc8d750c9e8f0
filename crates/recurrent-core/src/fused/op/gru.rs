//! A call of the GRU as an operation on tensors.

use alloc::vec;
use alloc::vec::Vec;

use burn::backend::DispatchTensor;

use super::tensors::Tensors;
use super::{FusedCall, FusedOutput};
use crate::fused::problem::gru::GruProblem;
use crate::fused::problem::{GruSpec, Part, Parts};

/// Runs a GRU.
///
/// # Panics
/// If a tensor does not have the shape that the input, the state and the cell's sizes imply.
#[track_caller]
pub fn run(spec: GruSpec, call: FusedCall) -> FusedOutput {
    let histories = call.histories;
    let (problem, tensors) = bind(spec, call);
    let (batch, d_hidden) = (problem.batch_size(), problem.d_hidden);
    let shape = super::sequence_shape(&problem.counts, d_hidden);
    let (tensors, which) = tensors.into_list();
    let flat = super::run_problem(tensors, super::Problem::Gru { problem, which });

    let (output, last) = super::output_and_rest(&flat, shape, batch * d_hidden);
    let last = super::owned(last.reshape([batch, d_hidden]));
    FusedOutput {
        // h after each step is the output itself.
        histories: match histories {
            true => vec![output.clone()],
            false => Vec::new(),
        },
        output,
        state: vec![last],
    }
}

/// The problem and the tensors of a spec and a call, checked against each other.
#[track_caller]
fn bind(spec: GruSpec, call: FusedCall) -> (GruProblem, Parts<DispatchTensor>) {
    spec.check();
    let problem = GruProblem {
        order: call.rows.order.clone(),
        masks: call.masks.map(|mask| mask.per_step),
        ..spec.problem(call.counts)
    };
    let mut tensors = Tensors::default();
    tensors.set_rows(call.rows, problem.order.is_some());
    tensors.set(Part::WeightInput, Some(spec.weight_input));
    tensors.set(Part::Bias, spec.bias);
    tensors.set(Part::WeightHidden, Some(spec.weight_hidden));
    tensors.set(Part::BiasHidden, spec.bias_candidate_hidden);
    let hidden = match <[_; 1]>::try_from(call.state) {
        Ok([hidden]) => hidden,
        Err(got) => panic!("state has {} tensors, expected h alone", got.len()),
    };
    tensors.set_of_call(Part::Hidden, hidden);
    tensors.set_masks(&call.masks);
    problem.check_call(&tensors.tensors, &tensors.shapes);
    (problem, tensors.tensors)
}

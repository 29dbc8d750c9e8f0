//! Runs a sequence by a fused kernel. The choice between fused and composed is made only here.

#[cfg(feature = "kernel")]
use alloc::vec;
#[cfg(feature = "kernel")]
use alloc::vec::Vec;

use burn::tensor::{DType, Device, Tensor};

use super::Strategy;
#[cfg(feature = "kernel")]
use super::plan::Plan;
use crate::cell::{CallType, Step};
#[cfg(feature = "kernel")]
use crate::equations::dropout::Masks;
use crate::equations::dropout::StepMasks;
use crate::fused::device::unfused;
#[cfg(feature = "kernel")]
use crate::fused::op::{self, FusedCall, FusedMask, FusedRows};
#[cfg(feature = "kernel")]
use crate::fused::problem::Precision;
use crate::fused::problem::{FusedSpec, Unfused};
#[cfg(feature = "kernel")]
use crate::state::State;

/// The spec for a kernel if the run is to be fused.
///
/// # Panics
/// If the strategy requires a kernel and there is none.
#[track_caller]
pub(super) fn lowered<C: Step>(
    cell: &C,
    strategy: Strategy,
    device: &Device,
    dtype: DType,
) -> Option<FusedSpec> {
    if strategy == Strategy::Composed {
        return None;
    }
    match lower(cell, device, dtype) {
        Ok(spec) => Some(spec),
        Err(reason) => {
            assert!(
                strategy != Strategy::Fused,
                "the strategy is Fused, but {}",
                reason,
            );
            None
        }
    }
}

/// The spec for a kernel, if one supports the cell, the device and the element type of the input.
pub(super) fn lower<C: Step>(
    cell: &C,
    device: &Device,
    dtype: DType,
) -> Result<FusedSpec, Unfused> {
    CallType::of(dtype, |visit| cell.visit_weights(visit))?;
    match unfused(device, dtype) {
        Some(reason) => Err(reason),
        None => cell.lower(),
    }
}

/// Why no kernel can run a cell on an input of type `dtype`; `None` if one can.
pub fn reason<C: Step>(cell: &C, device: &Device, dtype: DType) -> Option<Unfused> {
    lower(cell, device, dtype).err()
}

/// The result of a kernel, with the state in batch order.
#[cfg(feature = "kernel")]
pub(super) struct FusedRun<S> {
    /// `[T, B, d_output]` if all steps have the same number of rows, `[1, N, d_output]` otherwise.
    pub output: Tensor<3>,
    /// The state after the last step of each sequence.
    pub state: S,
    /// The states after all steps, shaped like the output; empty if they were not requested.
    pub histories: Vec<Tensor<3>>,
}

/// Runs a kernel on the rows of a plan.
#[cfg(feature = "kernel")]
#[track_caller]
pub(super) fn run_fused<S: State>(
    spec: FusedSpec,
    rows: FusedRows,
    state: S,
    masks: &Masks,
    plan: &Plan,
    precision: Precision,
    histories: bool,
) -> FusedRun<S> {
    let counts = plan.counts();
    // Sequences of length 0 are the last rows; they are part of no step.
    let (running, batch_size) = (counts[0], plan.batch_size());
    let mut state = plan.sort(state);
    let mut idle = None;
    if running < batch_size {
        idle = Some(state.clone().rows(running..batch_size));
        state = state.rows(0..running);
    }
    let run = op::run(
        spec,
        FusedCall {
            rows,
            state: state.into_tensors(),
            counts,
            masks: masks.map(|mask| plan.mask_rows(mask)),
            precision,
            histories,
        },
    );
    let state = S::from_tensors(run.state);
    let state = match idle {
        Some(idle) => S::cat(vec![state, idle]),
        None => state,
    };
    FusedRun {
        output: run.output,
        state: plan.unsort(state),
        histories: run.histories,
    }
}

/// One step from the raw input, by a kernel if the strategy selects one.
///
/// # Panics
/// As [`Step::step_once`]; also if the strategy is [`Strategy::Fused`] and there is no kernel.
#[track_caller]
pub fn step<C: Step>(
    cell: &C,
    input: Tensor<2>,
    state: C::State,
    masks: &StepMasks,
    strategy: Strategy,
) -> (Tensor<2>, C::State) {
    let [batch_size, _] = input.dims();
    let spec = match batch_size {
        0 => None,
        _ => lowered(cell, strategy, &input.device(), input.dtype()),
    };
    let Some(spec) = spec else {
        return cell.step_once(input, state, masks);
    };
    cell.check_step(&input, &state, masks);
    step_fused(spec, input, state, masks)
}

#[cfg(feature = "kernel")]
#[track_caller]
fn step_fused<S: State>(
    spec: FusedSpec,
    input: Tensor<2>,
    state: S,
    masks: &StepMasks,
) -> (Tensor<2>, S) {
    let [batch_size, _] = input.dims();
    let run = op::run(
        spec,
        FusedCall {
            rows: input.into(),
            state: state.into_tensors(),
            counts: vec![batch_size],
            masks: masks.map(|rows| FusedMask {
                rows: rows.clone(),
                per_step: false,
            }),
            precision: Precision::F32,
            histories: false,
        },
    );
    (run.output.squeeze_dim(0), S::from_tensors(run.state))
}

#[cfg(not(feature = "kernel"))]
fn step_fused<S>(_: FusedSpec, _: Tensor<2>, _: S, _: &StepMasks) -> (Tensor<2>, S) {
    unreachable!("without kernels nothing is lowered")
}

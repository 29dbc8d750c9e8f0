//! A run handed to a fused kernel.

use alloc::sync::Arc;
#[cfg(feature = "kernel")]
use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::CallType;
#[cfg(feature = "kernel")]
use super::plan::Plan;
use crate::cell::Step;
use crate::equations::dropout::StepMasks;
#[cfg(feature = "kernel")]
use crate::equations::dropout::{Mask, Masks};
use crate::kernel::{Precision, Strategy, Unfused, unfused};
#[cfg(feature = "kernel")]
use crate::kernel::{Target, target};
#[cfg(feature = "kernel")]
use crate::state::State;

/// A mask in running order.
#[derive(Debug, Clone)]
pub struct FusedMask {
    /// `[N, features]` with `per_step`, `[B, features]` otherwise.
    pub rows: Tensor<2>,
    /// Whether each step has rows of its own.
    pub per_step: bool,
}

/// The masks of a run in running order, see [`Masks`].
#[derive(Debug, Clone, Default)]
pub struct FusedMasks {
    /// On h'.
    pub hidden: Option<FusedMask>,
    /// On c'.
    pub cell: Option<FusedMask>,
    /// On g.
    pub candidate: Option<FusedMask>,
    /// Share of the new h'.
    pub update_hidden: Option<FusedMask>,
    /// Share of the new c'.
    pub update_cell: Option<FusedMask>,
    /// On z.
    pub adapt: Option<FusedMask>,
}

/// The rows of the input of a run.
#[derive(Debug, Clone)]
pub struct FusedRows {
    /// `[T, B, d_input]` or `[1, N, d_input]`; with an order, all rows in two axes of any lengths.
    pub rows: Tensor<3>,
    /// Which of them each row in running order is; none: they are in running order. There is one only
    /// in inference on a CPU, where it saves a copy of the input.
    pub order: Option<Arc<[usize]>>,
}

impl FusedRows {
    /// The rows in running order, `[N, d_input]`.
    pub fn in_running_order(self) -> Tensor<2> {
        let [steps, rows, features] = self.rows.dims();
        let all = self.rows.reshape([steps * rows, features]);
        let Some(order) = self.order else {
            return all;
        };
        let indices: Vec<i64> = order.iter().map(|&row| row as i64).collect();
        let indices = TensorData::new(indices, [order.len()]);
        let device = all.device();
        let indices: Tensor<1, Int> = Tensor::from_data(indices, &device);
        all.select(0, indices)
    }

    /// The same, of any shape: where tensors are slices of memory, it costs less to copy them there than
    /// in an operation of its own.
    #[cfg(feature = "kernel")]
    pub(crate) fn for_kernel(self) -> burn::backend::DispatchTensor {
        match target(&self.rows.device()) {
            Some(Target::Cpu) if self.order.is_none() => self.rows.into_dispatch(),
            _ => self.in_running_order().into_dispatch(),
        }
    }
}

impl From<Tensor<2>> for FusedRows {
    fn from(rows: Tensor<2>) -> Self {
        Self {
            rows: rows.unsqueeze_dim(0),
            order: None,
        }
    }
}

/// All steps of a run. Rows are in running order: step t has `counts[t]` of them, never more than the
/// step before, and row b of a step continues row b of the step before.
#[derive(Debug, Clone)]
pub struct FusedRun<'a, S> {
    /// The input.
    pub rows: FusedRows,
    /// The initial state, in running order.
    pub state: S,
    /// Rows of each step.
    pub counts: &'a [usize],
    /// Masks.
    pub masks: FusedMasks,
    /// How exactly recurrent weights are read in inference.
    pub precision: Precision,
    /// Whether the states after all steps are asked for.
    pub histories: bool,
}

/// What a kernel gives, in running order.
#[derive(Debug, Clone)]
pub struct FusedOutput<S> {
    /// `[T, B, d_output]` where all steps have as many rows, `[1, N, d_output]` otherwise.
    pub output: Tensor<3>,
    /// The state after the last step of each sequence.
    pub state: S,
    /// The states after all steps, one tensor per part in the order of [`Step::state_parts`], shaped as
    /// the output is; none where they were not asked for.
    pub histories: Vec<Tensor<3>>,
}

/// Whether a run is fused.
///
/// # Panics
/// If it is to be and cannot be.
#[track_caller]
pub(super) fn is_fused<C: Step>(
    cell: &C,
    strategy: Strategy,
    device: &Device,
    dtype: DType,
) -> bool {
    if strategy == Strategy::Composed {
        return false;
    }
    match reason(cell, device, dtype) {
        None => true,
        Some(reason) => {
            assert!(
                strategy != Strategy::Fused,
                "the strategy is Fused, but {}",
                reason,
            );
            false
        }
    }
}

/// Why a cell cannot be run by a kernel on an input of type `dtype`, if it cannot.
pub fn reason<C: Step>(cell: &C, device: &Device, dtype: DType) -> Option<Unfused> {
    if let Err(mixed) = CallType::of(dtype, |visit| cell.visit_weights(visit)) {
        return Some(mixed.into());
    }
    match unfused(device, dtype) {
        Some(reason) => Some(reason),
        None => cell.kernel().err(),
    }
}

/// Runs a kernel over the rows of a plan. Outputs are those of [`Step::run_fused`], the state is in batch
/// order.
#[cfg(feature = "kernel")]
#[track_caller]
pub(super) fn run_fused<C: Step>(
    cell: &C,
    rows: FusedRows,
    state: C::State,
    masks: &Masks,
    plan: &Plan,
    precision: Precision,
    histories: bool,
) -> FusedOutput<C::State> {
    let rows_of = |mask: &Option<Mask>| mask.as_ref().map(|mask| plan.mask_rows(mask));
    let counts = plan.counts();
    // Sequences of length 0 are the last rows, and no step has them.
    let (running, batch_size) = (counts[0], plan.batch_size());
    let mut state = plan.sort(state);
    let mut idle = None;
    if running < batch_size {
        idle = Some(state.clone().rows(running..batch_size));
        state = state.rows(0..running);
    }
    let run = cell.run_fused(FusedRun {
        rows,
        state,
        counts: &counts,
        masks: FusedMasks {
            hidden: rows_of(&masks.hidden),
            cell: rows_of(&masks.cell),
            candidate: rows_of(&masks.candidate),
            update_hidden: rows_of(&masks.update_hidden),
            update_cell: rows_of(&masks.update_cell),
            adapt: rows_of(&masks.adapt),
        },
        precision,
        histories,
    });
    let state = match idle {
        Some(idle) => C::State::cat(vec![run.state, idle]),
        None => run.state,
    };
    FusedOutput {
        output: run.output,
        state: plan.unsort(state),
        histories: run.histories,
    }
}

/// One step from the raw input, by a kernel where the strategy says so.
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
    if batch_size == 0 || !is_fused(cell, strategy, &input.device(), input.dtype()) {
        return cell.step_once(input, state, masks);
    }
    cell.check_step(&input, &state, masks);
    let rows_of = |mask: &Option<Tensor<2>>| {
        mask.clone().map(|rows| FusedMask {
            rows,
            per_step: false,
        })
    };
    let FusedOutput { output, state, .. } = cell.run_fused(FusedRun {
        rows: input.into(),
        state,
        counts: &[batch_size],
        masks: FusedMasks {
            hidden: rows_of(&masks.hidden),
            cell: rows_of(&masks.cell),
            candidate: rows_of(&masks.candidate),
            update_hidden: rows_of(&masks.update_hidden),
            update_cell: rows_of(&masks.update_cell),
            adapt: rows_of(&masks.adapt),
        },
        precision: Precision::F32,
        histories: false,
    });
    (output.squeeze_dim(0), state)
}

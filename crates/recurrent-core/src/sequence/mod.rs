//! Level 3: a step over time.
//!
//! [`run`] is the entry point for every cell. It checks the call and plans the steps (direction,
//! lengths). Then it runs them by a fused kernel if one supports the call, otherwise by the composed
//! scan, a plain differentiable loop of tensor operations ([`Strategy`]). Time is the first axis here:
//! `[seq_length, batch_size, ·]`.
//!
//! **Element types.** Input, state, weights and masks of a call must have one element type; otherwise the
//! call panics before it computes anything ([`CallType`]). [`Strategy::Auto`] runs f32 by a kernel
//! and every other type that the device supports by the composed scan. Zeros created by a run have the
//! type of the call.
//!
//! **Empty calls.** A batch without sequences, an input without steps and sequences of length 0 are
//! valid: their outputs are empty or zero, and their final state is the initial one.

mod fused;
mod history;
mod lengths;
mod packed;
mod pair;
mod plan;
mod scan;
mod strategy;

use alloc::vec::Vec;

use burn::tensor::{DType, Device, Tensor};

pub use fused::{reason, step};
pub use history::{History, run_recorded};
pub use lengths::{Lengths, LengthsError};
pub use packed::{PackedOutput, Packing, run_packed};
pub use pair::{pair, worth_pairing};
pub use strategy::Strategy;

pub use crate::cell::{CallType, or_panic, zeros_in_place_of};
pub use crate::fused::device::{target, unfused};
pub use crate::mixed_types::MixedTypes;

use crate::cell::{Step, empty_output};
use crate::dims::Dims;
use crate::equations::dropout::Masks;
use crate::fused::problem::Precision;
use crate::state::State;
use plan::Plan;

/// The order in which the steps run. In both cases an output is stored at the time index of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the first step to the last.
    #[default]
    Forward,
    /// From the last step to the first; with lengths, from each sequence's own last step.
    Backward,
}

/// Options of one run.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequenceOptions<'a> {
    /// The order in which the steps run.
    pub direction: Direction,
    /// Length of each sequence of the batch; `None`: all have `seq_length` steps.
    pub lengths: Option<&'a Lengths>,
    /// Dropout masks; `None`: no dropout.
    pub masks: Option<&'a Masks>,
    /// By a fused kernel or step by step.
    pub strategy: Strategy,
    /// The precision in which recurrent weights are read in inference.
    pub precision: Precision,
}

/// Result of one run.
#[derive(Debug, Clone)]
pub struct SequenceOutput<S> {
    /// `[seq_length, batch_size, d_output]`, zero past each length.
    pub output: Tensor<3>,
    /// The state after the last step of each sequence (in running order).
    pub state: S,
}

/// Runs a cell over a sequence: `(y_t, s_t) = step(x_t, s_{t−1})`, t = 1..=T.
///
/// # Arguments
/// * `cell` - the step to repeat
/// * `input` - `[seq_length, batch_size, d_input]`; values past a length are never read
/// * `state` - the initial state; zeros where `None`
/// * `options` - direction, lengths, masks; masks on weights are applied to the cell beforehand
///   ([`drop_weights`](crate::cell::drop_weights))
///
/// # Gradients
/// With respect to `input`, the cell's weights and the initial state; none for masks and lengths.
///
/// # Panics
/// If the last axis of `input` is not the cell's `d_input`, the state or a mask has a wrong shape,
/// input, state, weights and masks do not share one element type, the lengths do not fit the input, or
/// the strategy is [`Strategy::Fused`] and no kernel supports the call.
#[track_caller]
pub fn run<C: Step>(
    cell: &C,
    input: Tensor<3>,
    state: Option<C::State>,
    options: &SequenceOptions<'_>,
) -> SequenceOutput<C::State> {
    let (output, _) = run_padded(cell, input, state, options, false);
    output
}

/// [`run`]; with `record` it also returns the states after all steps, `[seq_length, batch_size, ·]` per
/// part.
#[track_caller]
fn run_padded<C: Step>(
    cell: &C,
    input: Tensor<3>,
    state: Option<C::State>,
    options: &SequenceOptions<'_>,
    record: bool,
) -> (SequenceOutput<C::State>, Vec<Tensor<3>>) {
    let dims = Dims::of(&input, cell.d_input(), cell.d_hidden());
    let (device, dtype) = (input.device(), input.dtype());
    let call = CallType::of_cell(cell, dtype);
    let state = checked_state(cell, state, dims.batch_size, &device, call);
    let no_masks = Masks::none();
    let masks = checked_masks(cell, options.masks.unwrap_or(&no_masks), &dims, call);
    let plan = Plan::new(&dims, options.direction, options.lengths, &device);
    if plan.is_empty() {
        let shape = |features| [dims.seq_length, dims.batch_size, features];
        let output = empty_output(cell, &input, &state, shape(cell.d_output()));
        let zeros = |(_, features)| Tensor::zeros(shape(features), (&device, dtype));
        let histories = cell.state_parts().into_iter().filter(|_| record);
        let histories = histories.map(zeros).collect();
        return (SequenceOutput { output, state }, histories);
    }
    let spec = fused::lowered(cell, options.strategy, &device, dtype);
    #[cfg(feature = "kernel")]
    if let Some(spec) = spec {
        let rows = plan.pack_in_place(input);
        let precision = options.precision;
        let run = fused::run_fused(spec, rows, state, masks, &plan, precision, record);
        let histories = run.histories.into_iter();
        let histories = histories.map(|part| plan.unpack_fused(part)).collect();
        let output = plan.unpack_fused(run.output);
        let state = run.state;
        return (SequenceOutput { output, state }, histories);
    }
    #[cfg(not(feature = "kernel"))]
    debug_assert!(spec.is_none(), "without kernels nothing is lowered");
    let run = scan::scan(cell, plan.pack(input), state, masks, &plan, record);
    let histories = run.histories.into_iter();
    let histories = histories.map(|part| plan.unpack(part)).collect();
    let output = plan.unpack(run.rows);
    let state = run.state;
    (SequenceOutput { output, state }, histories)
}

/// Runs over packed rows in running order, by a kernel or step by step.
#[track_caller]
fn run_rows<C: Step>(
    cell: &C,
    rows: Tensor<2>,
    state: C::State,
    masks: &Masks,
    plan: &Plan,
    options: &SequenceOptions<'_>,
) -> (Tensor<2>, C::State) {
    let spec = fused::lowered(cell, options.strategy, &rows.device(), rows.dtype());
    #[cfg(feature = "kernel")]
    if let Some(spec) = spec {
        let precision = options.precision;
        let run = fused::run_fused(spec, rows.into(), state, masks, plan, precision, false);
        return (run.output.flatten(0, 1), run.state);
    }
    #[cfg(not(feature = "kernel"))]
    debug_assert!(spec.is_none(), "without kernels nothing is lowered");
    let run = scan::scan(cell, rows, state, masks, plan, false);
    (run.rows, run.state)
}

/// The given state, or zeros.
#[track_caller]
fn checked_state<C: Step>(
    cell: &C,
    state: Option<C::State>,
    batch_size: usize,
    device: &Device,
    call: CallType,
) -> C::State {
    match state {
        Some(state) => {
            cell.check_state(&state, batch_size);
            call.check_state(cell, &state);
            state
        }
        None => initial_state(cell, batch_size, device, call.dtype),
    }
}

/// The zero state of a call of type `dtype`, also for a cell that does not list its weights.
pub fn initial_state<C: Step>(
    cell: &C,
    batch_size: usize,
    device: &Device,
    dtype: DType,
) -> C::State {
    let state = cell.initial_state(batch_size, device);
    state.map(|tensor| match tensor.dtype() == dtype {
        true => tensor,
        false => tensor.cast(dtype),
    })
}

#[track_caller]
fn checked_masks<'a, C: Step>(
    cell: &C,
    masks: &'a Masks,
    dims: &Dims,
    call: CallType,
) -> &'a Masks {
    masks.check(dims.seq_length, dims.batch_size, cell.mask_sizes());
    call.check_masks(masks.types());
    masks
}

//! Level 3: a step over time.
//!
//! [`run`] is the entry point for every cell. It checks the call, lays out the steps (direction,
//! lengths) and hands them to the composed scan, a plain differentiable loop of tensor operations.
//! Time is the first axis here: `[seq_length, batch_size, ·]`.

mod lengths;
mod plan;
mod scan;

use burn::tensor::Tensor;

pub use lengths::{Lengths, LengthsError};

use crate::cell::Step;
use crate::dims::Dims;
use crate::equations::dropout::Masks;
use crate::state::State;
use plan::Plan;

/// In which order the steps run. Outputs stay at the time of their input either way.
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
    /// In which order the steps run.
    pub direction: Direction,
    /// Length of each sequence of the batch; without, all have `seq_length` steps.
    pub lengths: Option<&'a Lengths>,
    /// Dropout masks; without, no dropout.
    pub masks: Option<&'a Masks>,
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
/// * `input` - `[seq_length, batch_size, d_input]`; what lies past a length is not read
/// * `state` - the initial state; zeros where `None`
/// * `options` - direction, lengths, masks
///
/// # Gradients
/// To `input`, the cell's weights and the initial state; masks and lengths get none.
///
/// # Panics
/// If the last axis of `input` is not the cell's `d_input`, `seq_length` or `batch_size` is 0, the
/// state or a mask has another shape than the call needs, or the lengths do not fit the input.
#[track_caller]
pub fn run<C: Step>(
    cell: &C,
    input: Tensor<3>,
    state: Option<C::State>,
    options: &SequenceOptions<'_>,
) -> SequenceOutput<C::State> {
    let dims = Dims::of(&input, cell.d_input(), cell.d_hidden());
    let state = match state {
        Some(state) => {
            cell.check_state(&state, dims.batch_size);
            state
        }
        // Made in the device's dtype; the input may have another.
        None => cell
            .initial_state(dims.batch_size, &input.device())
            .map(|tensor| tensor.cast(input.dtype())),
    };
    let no_masks = Masks::none();
    let masks = options.masks.unwrap_or(&no_masks);
    masks.check(dims.seq_length, dims.batch_size, cell.mask_sizes());
    let plan = Plan::new(&dims, options.direction, options.lengths, &input.device());
    scan::scan(cell, input, state, masks, &plan)
}

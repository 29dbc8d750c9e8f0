//! Runs on packed rows: batches without padding.

use alloc::vec::Vec;

use burn::tensor::{Device, Tensor};

use super::plan::{Plan, longest_first};
use super::{CallType, Direction, Lengths, SequenceOptions};
use super::{checked_masks, checked_state, empty_output, run_rows};
use crate::cell::Step;
use crate::dims::Dims;
use crate::equations::dropout::Masks;

/// The mapping between the steps of a padded batch and the rows of the packed one.
///
/// The rows are ordered by time, and within one time step by decreasing length (sequences of equal length
/// keep their order), as in PyTorch's `PackedSequence`. Lengths 2, 4, 1 of a, b, c:
/// ```text
/// b0 a0 c0 | b1 a1 | b2 | b3
/// ```
pub struct Packing {
    plan: Plan,
    sorted: Vec<usize>,
}

impl Packing {
    /// # Arguments
    /// * `seq_length` - steps of the padded batch
    ///
    /// # Panics
    /// If a length is more than `seq_length`.
    #[track_caller]
    pub fn new(lengths: &Lengths, seq_length: usize, device: &Device) -> Self {
        let dims = dims(lengths, seq_length, 0, 0);
        Self {
            plan: Plan::new(&dims, Direction::Forward, Some(lengths), device),
            sorted: longest_first(lengths),
        }
    }

    /// `[seq_length, batch_size, ·]` to `[sum of lengths, ·]`; values past a length are dropped.
    ///
    /// # Panics
    /// If the number of steps or of sequences of `padded` is wrong.
    #[track_caller]
    pub fn pack(&self, padded: Tensor<3>) -> Tensor<2> {
        let [steps, sequences, features] = padded.dims();
        let [seq_length, batch_size] = self.plan.shape();
        assert!(
            [steps, sequences] == [seq_length, batch_size],
            "padded batch has shape {:?}, expected [seq_length, batch_size, features] = \
             [{seq_length}, {batch_size}, {features}]",
            padded.dims(),
        );
        self.plan.pack(padded)
    }

    /// Inverse of [`pack`](Self::pack), with zeros past each length.
    ///
    /// # Panics
    /// If the number of rows is not the sum of the lengths.
    #[track_caller]
    pub fn unpack(&self, rows: Tensor<2>) -> Tensor<3> {
        let [got, _] = rows.dims();
        assert!(
            got == self.plan.total(),
            "got {got} packed rows, expected as many as the lengths have steps: {}",
            self.plan.total(),
        );
        self.plan.unpack(rows)
    }

    /// Number of sequences that have a step at each time; non-increasing.
    pub fn batch_sizes(&self) -> Vec<usize> {
        self.plan.counts()
    }

    /// Batch rows, longest sequence first.
    pub fn sorted_indices(&self) -> &[usize] {
        &self.sorted
    }
}

/// Result of one run over packed rows.
#[derive(Debug, Clone)]
pub struct PackedOutput<S> {
    /// `[sum of lengths, d_output]`, packed in the same order as the input.
    pub rows: Tensor<2>,
    /// The state after the last step of each sequence, in batch order.
    pub state: S,
}

/// [`run`](super::run) on packed rows: there is no padding, and only steps within the lengths run.
///
/// # Arguments
/// * `rows` - `[sum of lengths, d_input]`, in the order of [`Packing`]
/// * `state` - the initial state, in batch order; zeros where `None`
/// * `options` - as in [`run`](super::run); the lengths are required here, masks are in batch order
///
/// # Gradients
/// With respect to `rows`, the cell's weights and the initial state; none for masks and lengths.
///
/// # Panics
/// If there are no lengths, the number of rows is not their sum, or as [`run`](super::run).
#[track_caller]
pub fn run_packed<C: Step>(
    cell: &C,
    rows: Tensor<2>,
    state: Option<C::State>,
    options: &SequenceOptions<'_>,
) -> PackedOutput<C::State> {
    let Some(lengths) = options.lengths else {
        panic!("packed rows need lengths, got None")
    };
    let [got, features] = rows.dims();
    assert!(
        got == lengths.total(),
        "got {got} packed rows, expected as many as the lengths have steps: {}",
        lengths.total(),
    );
    assert!(
        features == cell.d_input(),
        "input has inconsistent d_input: got {features}, expected {}",
        cell.d_input(),
    );
    let dims = dims(lengths, lengths.max(), features, cell.d_hidden());
    let device = rows.device();
    let call = CallType::of_cell(cell, rows.dtype());
    let state = checked_state(cell, state, dims.batch_size, &device, call);
    let no_masks = Masks::none();
    let masks = checked_masks(cell, options.masks.unwrap_or(&no_masks), &dims, call);
    let plan = Plan::new(&dims, options.direction, Some(lengths), &device);
    if plan.is_empty() {
        let rows = empty_output(cell, &rows, &state, [0, cell.d_output()]);
        return PackedOutput { rows, state };
    }
    let rows = plan.turn(rows);
    let (rows, state) = run_rows(cell, rows, state, masks, &plan, options);
    PackedOutput {
        rows: plan.turn(rows),
        state,
    }
}

fn dims(lengths: &Lengths, seq_length: usize, d_input: usize, d_hidden: usize) -> Dims {
    Dims {
        batch_size: lengths.as_slice().len(),
        seq_length,
        d_input,
        d_hidden,
    }
}

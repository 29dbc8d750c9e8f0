//! Which rows run at which step. All logic for lengths and direction is here.
//!
//! With lengths, the batch is sorted by decreasing length, so that the sequences still running at a
//! step are its first rows, and the steps of all sequences are packed without padding. Example: three
//! sequences a, b, c of lengths 2, 4, 1, forward:
//!
//! ```text
//! input [T = 4, B = 3]      order  b a c      packed rows      counts
//!   a0 b0 c0                                  b0 a0 c0           3
//!   a1 b1 ·                                   b1 a1              2
//!   ·  b2 ·                                   b2                 1
//!   ·  b3 ·                                   b3                 1
//! ```
//! Backward, the packed rows are b3 a1 c0 | b2 a0 | b1 | b0: each sequence starts at its own end.
//! Padding is never read and costs no time.
//!
//! The forward rows are those of a packed batch ([`Packing`](super::Packing)). The backward rows are
//! obtained by swapping step s of sequence a with step len(a) − 1 − s; the same permutation reverts it.

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Direction, Lengths};
use crate::dims::Dims;
use crate::equations::dropout::{Mask, Masks, StepMasks};
#[cfg(feature = "kernel")]
use crate::fused::device::{RowOrder, row_order};
#[cfg(feature = "kernel")]
use crate::fused::op::{FusedMask, FusedRows};
use crate::state::State;

/// The layout of one run.
pub(crate) struct Plan {
    seq_length: usize,
    batch_size: usize,
    direction: Direction,
    /// Total number of rows that run.
    total: usize,
    /// `None` without lengths, and if nothing runs.
    ragged: Option<Ragged>,
}

/// Additional data for a run with lengths.
struct Ragged {
    /// Rows that run at each step; non-increasing.
    counts: Vec<usize>,
    /// Sorted row to batch row.
    order: Tensor<1, Int>,
    /// Batch row to sorted row.
    inverse: Tensor<1, Int>,
    /// Gather indices: for each packed row, its row of the input viewed as `[T·B, ·]`.
    gather: Tensor<1, Int>,
    /// Scatter indices: for each row of the output viewed as `[T·B, ·]`, its packed row; padding points
    /// one past the last.
    scatter: Tensor<1, Int>,
    /// Permutation between packed rows in running order and in forward order; it is its own inverse.
    /// `None` if the two orders are equal.
    turn: Option<Tensor<1, Int>>,
}

impl Plan {
    /// # Panics
    /// If the lengths do not fit.
    #[track_caller]
    pub fn new(
        dims: &Dims,
        direction: Direction,
        lengths: Option<&Lengths>,
        device: &Device,
    ) -> Self {
        let total = match lengths {
            Some(lengths) => {
                check_lengths(dims, lengths);
                lengths.total()
            }
            None => dims.tokens(),
        };
        let ragged = lengths.filter(|_| total > 0);
        Self {
            seq_length: dims.seq_length,
            batch_size: dims.batch_size,
            direction,
            total,
            ragged: ragged.map(|lengths| Ragged::new(dims, direction, lengths, device)),
        }
    }

    /// Whether nothing runs: no sequences, no steps, or lengths of 0 only.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Total number of rows that run.
    pub fn total(&self) -> usize {
        self.total
    }

    /// `[seq_length, batch_size]`
    pub fn shape(&self) -> [usize; 2] {
        [self.seq_length, self.batch_size]
    }

    /// Number of sequences, including those of length 0.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Rows that run at each step; non-increasing.
    pub fn counts(&self) -> Vec<usize> {
        match &self.ragged {
            Some(ragged) => ragged.counts.clone(),
            None if self.is_empty() => vec![],
            None => vec![self.batch_size; self.seq_length],
        }
    }

    /// `[T, B, ·]` to packed rows in running order.
    pub fn pack(&self, input: Tensor<3>) -> Tensor<2> {
        let [seq_length, batch_size, features] = input.dims();
        if self.is_empty() {
            return Tensor::zeros([0, features], (&input.device(), input.dtype()));
        }
        let input = match (&self.ragged, self.direction) {
            (None, Direction::Backward) => input.flip([0]),
            _ => input,
        };
        let rows = input.reshape([seq_length * batch_size, features]);
        match &self.ragged {
            Some(ragged) => rows.select(0, ragged.gather.clone()),
            None => rows,
        }
    }

    /// [`pack`](Self::pack) without a copy, for a kernel that locates its rows itself: on a CPU, without
    /// lengths. In inference the kernel gets the order of the rows.
    #[cfg(feature = "kernel")]
    pub fn pack_in_place(&self, input: Tensor<3>) -> FusedRows {
        if self.ragged.is_some() {
            return self.pack(input).into();
        }
        let [seq_length, batch_size, _] = input.dims();
        let in_running_order = |rows: Tensor<3>| FusedRows { rows, order: None };
        let batch_first = match (row_order(&input), self.direction) {
            (None | Some(RowOrder::TimeFirst), Direction::Forward) => {
                return in_running_order(input);
            }
            (None, Direction::Backward) => return in_running_order(input.flip([0])),
            (Some(order), _) => order == RowOrder::BatchFirst,
        };
        let rows = match batch_first {
            true => input.swap_dims(0, 1),
            false => input,
        };
        let mut order = Vec::with_capacity(seq_length * batch_size);
        for step in 0..seq_length {
            let time = match self.direction {
                Direction::Forward => step,
                Direction::Backward => seq_length - 1 - step,
            };
            order.extend((0..batch_size).map(|sequence| match batch_first {
                true => sequence * seq_length + time,
                false => time * batch_size + sequence,
            }));
        }
        FusedRows {
            rows,
            order: Some(order.into()),
        }
    }

    /// Packed rows in running order to `[T, B, ·]`, zero past each length.
    pub fn unpack(&self, rows: Tensor<2>) -> Tensor<3> {
        let [_, features] = rows.dims();
        let shape = [self.seq_length, self.batch_size, features];
        if self.is_empty() {
            return super::zeros_in_place_of(&[rows], shape);
        }
        match &self.ragged {
            Some(ragged) => {
                let zero = Tensor::zeros([1, features], (&rows.device(), rows.dtype()));
                Tensor::cat(vec![rows, zero], 0)
                    .select(0, ragged.scatter.clone())
                    .reshape(shape)
            }
            None => self.in_time(rows.reshape(shape)),
        }
    }

    /// [`unpack`](Self::unpack) for the output of a kernel: `[T, B, ·]` or `[1, N, ·]`.
    #[cfg(feature = "kernel")]
    pub fn unpack_fused(&self, output: Tensor<3>) -> Tensor<3> {
        match &self.ragged {
            Some(_) => self.unpack(output.flatten(0, 1)),
            None => self.in_time(output),
        }
    }

    /// Reorders steps from running order to time order.
    fn in_time(&self, output: Tensor<3>) -> Tensor<3> {
        match self.direction {
            Direction::Forward => output,
            Direction::Backward => output.flip([0]),
        }
    }

    /// Permutes rows of a packed batch to running order, or back.
    pub fn turn(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.ragged.as_ref().and_then(|ragged| ragged.turn.as_ref()) {
            Some(turn) => rows.select(0, turn.clone()),
            None => rows,
        }
    }

    /// Batch order to running order.
    pub fn sort<S: State>(&self, state: S) -> S {
        match &self.ragged {
            Some(ragged) => state.select(&ragged.order),
            None => state,
        }
    }

    /// Running order to batch order.
    pub fn unsort<S: State>(&self, state: S) -> S {
        match &self.ragged {
            Some(ragged) => state.select(&ragged.inverse),
            None => state,
        }
    }

    /// A mask in running order, as one tensor.
    #[cfg(feature = "kernel")]
    pub fn mask_rows(&self, mask: &Mask) -> FusedMask {
        match mask {
            Mask::PerSequence(mask) => FusedMask {
                rows: match &self.ragged {
                    Some(ragged) => mask.clone().select(0, ragged.running()),
                    None => mask.clone(),
                },
                per_step: false,
            },
            Mask::PerStep(mask) => FusedMask {
                rows: self.pack(mask.clone().slice(0..self.seq_length)),
                per_step: true,
            },
        }
    }

    /// Masks in running order, one entry per step.
    pub fn masks(&self, masks: &Masks) -> Vec<StepMasks> {
        let counts = self.counts();
        if masks.is_none() {
            return vec![StepMasks::default(); counts.len()];
        }
        match &self.ragged {
            None => (0..self.seq_length)
                .map(|step| match self.direction {
                    Direction::Forward => masks.at(step),
                    Direction::Backward => masks.at(self.seq_length - 1 - step),
                })
                .collect(),
            Some(ragged) => {
                let mut start = 0;
                counts
                    .into_iter()
                    .map(|count| {
                        let rows = ragged.gather.clone().slice(start..start + count);
                        start += count;
                        ragged.masks_at(masks, rows, count)
                    })
                    .collect()
            }
        }
    }
}

/// # Panics
/// If there is not one length per sequence, or one is longer than the input.
#[track_caller]
fn check_lengths(dims: &Dims, lengths: &Lengths) {
    let (batch_size, seq_length) = (dims.batch_size, dims.seq_length);
    let got = lengths.as_slice().len();
    assert!(
        got == batch_size,
        "got {got} lengths, expected one per sequence: batch_size = {batch_size}",
    );
    assert!(
        lengths.max() <= seq_length,
        "longest length is {}, expected at most seq_length = {seq_length}",
        lengths.max(),
    );
}

/// The rows of a batch by decreasing length; equal lengths keep their batch order.
pub(super) fn longest_first(lengths: &Lengths) -> Vec<usize> {
    let list = lengths.as_slice();
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_key(|&row| core::cmp::Reverse(list[row])); // stable
    order
}

impl Ragged {
    /// For lengths that fit and have at least one step.
    fn new(dims: &Dims, direction: Direction, lengths: &Lengths, device: &Device) -> Self {
        let Dims {
            batch_size,
            seq_length,
            ..
        } = *dims;
        let list = lengths.as_slice();
        let order = longest_first(lengths);
        let mut inverse = vec![0; batch_size];
        for (sorted, &row) in order.iter().enumerate() {
            inverse[row] = sorted;
        }

        let total = lengths.total();
        let mut counts = Vec::with_capacity(lengths.max());
        let mut gather = Vec::with_capacity(total);
        let mut scatter = vec![total; seq_length * batch_size];
        for step in 0..lengths.max() {
            let running = order.iter().take_while(|&&row| step < list[row]);
            let mut count = 0;
            for &row in running {
                let time = match direction {
                    Direction::Forward => step,
                    Direction::Backward => list[row] - 1 - step,
                };
                scatter[time * batch_size + row] = gather.len();
                gather.push(time * batch_size + row);
                count += 1;
            }
            counts.push(count);
        }

        let turn = match direction {
            Direction::Forward => None,
            Direction::Backward => {
                let mut starts = Vec::with_capacity(counts.len());
                let mut start = 0;
                for count in &counts {
                    starts.push(start);
                    start += count;
                }
                let turn = counts.iter().enumerate().flat_map(|(step, &count)| {
                    let (order, starts) = (&order, &starts);
                    (0..count).map(move |row| starts[list[order[row]] - 1 - step] + row)
                });
                Some(indices(turn.collect(), device))
            }
        };

        Self {
            counts,
            turn,
            order: indices(order, device),
            inverse: indices(inverse, device),
            gather: indices(gather, device),
            scatter: indices(scatter, device),
        }
    }

    /// Batch rows of the sequences that have steps, longest first.
    #[cfg(feature = "kernel")]
    fn running(&self) -> Tensor<1, Int> {
        let order = self.order.clone();
        match self.counts[0] == order.dims()[0] {
            true => order,
            false => order.slice(0..self.counts[0]),
        }
    }

    /// `rows` are the input rows of the step.
    fn masks_at(&self, masks: &Masks, rows: Tensor<1, Int>, count: usize) -> StepMasks {
        masks.map(|mask| match mask {
            Mask::PerSequence(mask) => {
                let order = self.order.clone().slice(0..count);
                mask.clone().select(0, order)
            }
            Mask::PerStep(mask) => {
                let [steps, batch_size, features] = mask.dims();
                mask.clone()
                    .reshape([steps * batch_size, features])
                    .select(0, rows.clone())
            }
        })
    }
}

fn indices(list: Vec<usize>, device: &Device) -> Tensor<1, Int> {
    let list: Vec<i64> = list.into_iter().map(|index| index as i64).collect();
    let count = list.len();
    Tensor::from_data(TensorData::new(list, [count]), device)
}

//! The decisions that a forward makes before it allocates buffers.

use alloc::vec::Vec;
use core::ops::Range;

use super::super::Reading;
use crate::fused::cpu::driver::{Group, PACK_BACK_FROM, chunks, reads_rows};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::simd::Isa;
use crate::fused::problem::gru::{GATES, GruProblem};

/// How a forward runs.
pub struct Plan {
    pub workers: usize,
    /// Number of shares per worker.
    pub each: usize,
    /// Whether tensors are saved for a backward.
    pub save: bool,
    /// Whether there is one sequence, whose weights are read in row-major order.
    pub by_rows: bool,
    /// The first row of each step.
    pub offsets: Vec<usize>,
    /// Steps whose `x·W` is computed together.
    pub chunks: Vec<Range<usize>>,
    /// Maximum number of rows of a product.
    pub most: usize,
    /// Groups of sequences; empty if the workers share the units.
    pub groups: Vec<Group>,
    /// Columns of W.
    pub columns: Columns,
    /// Layout of the gates of all rows, or of a chunk if they are not saved.
    pub gates: Layout,
}

impl Plan {
    pub fn new(isa: Isa, workers: usize, problem: &GruProblem, save: bool) -> Self {
        let (batch, steps) = (problem.batch_size(), problem.counts.len());
        let bytes = problem.recurrent_bytes();
        let by_rows = batch == 1 && reads_rows(steps, bytes);
        let offsets = problem.offsets();
        let chunks = chunks(&problem.counts);
        let rows_of = |chunk: &Range<usize>| offsets[chunk.end] - offsets[chunk.start];
        let most = chunks.iter().map(rows_of).max().unwrap_or(0).max(batch);
        let columns = Columns::gates(GATES, problem.d_hidden, isa.lanes());
        let rows = if save { problem.rows() } else { most };
        // If the backward of a single sequence does not pack the weights, it reads them in row-major
        // order. The same choice is made without a backward, because tiles are summed in a different
        // order.
        let tiled = !by_rows && (batch > 1 || steps >= PACK_BACK_FROM);
        Self {
            workers,
            each: match by_rows {
                // One share per worker, for the longest possible contiguous reads of the rows of R.
                true => 1,
                false => problem.work().shares_each(workers),
            },
            save,
            by_rows,
            groups: Group::cut(workers, &problem.counts, &offsets, bytes),
            most,
            columns,
            gates: match tiled {
                true => Layout::tiles(&columns, rows),
                false => Layout::row_major(&columns, problem.d_hidden, rows),
            },
            offsets,
            chunks,
        }
    }

    /// How the weights are read when all workers work together.
    pub fn shared_weights(&self, isa: Isa) -> Reading {
        let steps = self.offsets.len() - 1;
        Reading {
            lanes: isa.lanes(),
            sharers: if self.groups.is_empty() {
                self.workers
            } else {
                1
            },
            pack_hidden: steps > 1 && !self.by_rows && self.groups.is_empty(),
            pack_input: self.chunks.len() > 1,
            back: None,
        }
    }

    /// How a worker that runs steps alone reads the weights.
    pub fn own_weights(&self, isa: Isa) -> Reading {
        Reading {
            pack_hidden: self.offsets.len() > 2,
            pack_input: false,
            ..self.shared_weights(isa)
        }
    }
}

//! The decisions that a forward makes before it allocates buffers.

use alloc::vec::Vec;
use core::ops::Range;

use super::super::weights::Reading;
use crate::fused::cpu::driver::{
    Direction, Group, PACK_BACK_FROM, Schedule, chunks, one_span, reads_rows,
};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::simd::Isa;
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Part, Parts};

/// Size in bytes of the recurrent weights below which f32 is kept: they stay in fast caches.
const BF16_ABOVE: usize = 1 << 20;

/// How a forward runs.
#[derive(Debug)]
pub struct Plan {
    /// Number of threads.
    pub workers: usize,
    /// Number of shares per worker.
    pub each: usize,
    /// Whether tensors are saved for a backward.
    pub save: bool,
    /// Whether c' has a row per step and sequence: it is saved, or an output.
    pub all_cells: bool,
    /// Whether `x·W` is part of each step.
    pub in_step: bool,
    /// Whether there is one sequence, whose weights are read in row-major order.
    pub by_rows_of_w: bool,
    /// Whether R is rounded to bf16.
    pub in_bf16: bool,
    /// Whether the weights read by the steps are packed.
    pub pack: bool,
    /// The first row of each step.
    pub offsets: Vec<usize>,
    /// Steps whose `x·W` is computed together.
    pub chunks: Vec<Range<usize>>,
    /// Maximum number of rows of a product.
    pub most: usize,
    /// Groups of sequences; empty if the workers share the units.
    pub groups: Vec<Group>,
    /// Columns of the gates.
    pub columns: Columns,
    /// Layout of the gates of all rows, or of a chunk or step if they are not saved.
    pub gates: Layout,
    /// Layout of h·R, if it is normalised.
    pub products: Layout,
}

impl Plan {
    pub fn new(
        isa: Isa,
        workers: usize,
        problem: &LstmProblem,
        parts: &Parts<&[f32]>,
        save: bool,
    ) -> Self {
        let batch = problem.batch_size();
        let steps = problem.counts.len();
        let (single, mogrified) = (batch == 1, !problem.rounds.is_empty());
        let full = parts.has(Part::PeepholeFull);
        let bytes = problem.d_hidden * problem.width() * 4;
        let in_step = problem.projects_in_step();
        let in_bf16 = problem.bf16 && single && !mogrified && !save && steps > 1;
        let in_bf16 = in_bf16 && !full && bytes > BF16_ABOVE;
        let by_rows_of_w = single && !mogrified && (reads_rows(steps, bytes) || in_bf16);
        let offsets = problem.offsets();
        let chunks = chunks(&problem.counts);
        let rows_of = |chunk: &Range<usize>| offsets[chunk.end] - offsets[chunk.start];
        let most = chunks.iter().map(rows_of).max().unwrap_or(0).max(batch);
        let input_weights = match in_step && !mogrified {
            true => problem.width() * problem.d_input * 4,
            false => 0,
        };
        let weights = problem.step_weights() + input_weights;
        let groups = match full {
            true => Vec::new(),
            false => Group::cut(workers, &problem.counts, &offsets, weights),
        };

        let columns = Columns::gates(problem.coupling.gates(), problem.d_hidden, isa.lanes());
        // If the backward of a single sequence does not pack the weights, it reads them in row-major
        // order. The same choice is made without a backward, because tiles are summed in a different
        // order.
        let tiled = !by_rows_of_w && (!single || steps >= PACK_BACK_FROM);
        let layout = |rows: usize| match tiled {
            true => Layout::tiles(&columns, rows),
            false => Layout::row_major(&columns, problem.d_hidden, rows),
        };
        let rows = problem.rows();
        let (gate_rows, product_rows) = match (save, in_step) {
            (true, _) => (rows, rows),
            (false, true) => (batch, batch),
            (false, false) => (most, batch),
        };
        Self {
            workers,
            each: match by_rows_of_w {
                // One share per worker, for the longest possible contiguous reads of the rows of w.
                true => 1,
                false => problem.work().shares_each(workers),
            },
            save,
            all_cells: save || problem.histories,
            in_step,
            by_rows_of_w,
            in_bf16,
            pack: steps > 1 && !by_rows_of_w,
            most,
            groups,
            columns,
            gates: layout(gate_rows),
            products: layout(product_rows),
            offsets,
            chunks,
        }
    }

    /// Number of shares of a phase.
    pub fn shares(&self) -> usize {
        self.workers * self.each
    }

    /// Number of rows of buffers that are saved for all steps, or reused by every step.
    pub fn saved_rows(&self, problem: &LstmProblem) -> usize {
        match self.save {
            true => problem.rows(),
            false => problem.batch_size(),
        }
    }

    /// How the phases are run.
    pub fn schedule(&self, problem: &LstmProblem) -> Schedule {
        let steps = problem.counts.len();
        Schedule {
            workers: self.workers,
            shares: self.shares(),
            direction: Direction::Forward,
            spans: match self.in_step {
                true => one_span(steps),
                false => self.chunks.clone(),
            },
        }
    }

    /// How the weights are read when all workers work together.
    pub fn shared_weights(&self, isa: Isa) -> Reading {
        let by_group = !self.groups.is_empty();
        let used_again = self.pack && self.in_step || self.chunks.len() > 1;
        Reading {
            back: None,
            gates: self.columns,
            lanes: isa.lanes(),
            sharers: if by_group { 1 } else { self.workers },
            pack_steps: self.pack && !by_group,
            pack_input: match by_group {
                true => used_again && !self.in_step,
                false => used_again,
            },
        }
    }

    /// How a worker that runs steps alone reads the weights.
    pub fn own_weights(&self, isa: Isa) -> Reading {
        Reading {
            pack_steps: self.pack,
            pack_input: self.in_step,
            ..self.shared_weights(isa)
        }
    }
}

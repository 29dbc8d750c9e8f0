//! The decisions that a backward makes before it allocates buffers.

use alloc::vec::Vec;

use super::super::Saved;
use super::super::weights::Reading;
use crate::fused::cpu::driver::{CHUNK_ROWS, Direction, Group, PACK_BACK_FROM, Schedule, one_span};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::simd::Isa;
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Part, Parts};

/// How a backward runs.
#[derive(Debug)]
pub struct Plan {
    /// Number of threads.
    pub workers: usize,
    /// Number of shares per worker.
    pub each: usize,
    /// The first row of each step.
    pub offsets: Vec<usize>,
    /// Groups of sequences; empty if the workers share the units.
    pub groups: Vec<Group>,
    /// Columns of the gates.
    pub columns: Columns,
    /// Layout of the gates and of their gradients.
    pub layout: Layout,
    /// How the steps read the weights that are packed for them, and whether W is one of these.
    steps: Reading,
    /// Whether W is read more than once after all steps.
    input_after: bool,
}

impl Plan {
    pub fn new(
        isa: Isa,
        workers: usize,
        problem: &LstmProblem,
        parts: &Parts<&[f32]>,
        saved: &Saved,
        wants_input: bool,
    ) -> Self {
        let offsets = problem.offsets();
        let groups = match parts.has(Part::PeepholeFull) {
            true => Vec::new(),
            false => Group::cut(workers, &problem.counts, &offsets, problem.step_weights()),
        };
        let (layout, lanes) = (saved.layout, isa.lanes());
        let columns = Columns::gates(problem.coupling.gates(), problem.d_hidden, lanes);
        let pack = problem.batch_size() > 1 || problem.counts.len() >= PACK_BACK_FROM;
        let mogrified = !problem.rounds.is_empty();
        let used_again = problem.rows() > CHUNK_ROWS || layout.is_tiled();
        Self {
            workers,
            each: problem.work().shares_each(workers),
            offsets,
            columns,
            layout,
            steps: Reading {
                back: Some(layout.is_tiled().then_some(columns)),
                gates: columns,
                lanes,
                // The products of the steps are shared by all workers, or done by one.
                sharers: if groups.is_empty() { workers } else { 1 },
                pack_steps: pack,
                pack_input: pack && mogrified,
            },
            input_after: used_again && wants_input,
            groups,
        }
    }

    /// Number of shares of a phase.
    pub fn shares(&self) -> usize {
        self.workers * self.each
    }

    /// How the phases are run.
    pub fn schedule(&self, problem: &LstmProblem) -> Schedule {
        Schedule {
            workers: self.workers,
            shares: self.shares(),
            direction: Direction::Backward,
            spans: one_span(problem.counts.len()),
        }
    }

    /// How the weights are read when all workers work together.
    pub fn shared_weights(&self, problem: &LstmProblem) -> Reading {
        let in_step = self.steps.pack_input;
        match self.groups.is_empty() {
            true => Reading {
                pack_input: in_step || self.input_after,
                ..self.steps
            },
            false => Reading {
                pack_steps: false,
                pack_input: self.input_after && problem.rounds.is_empty(),
                ..self.steps
            },
        }
    }

    /// How a worker that runs steps alone reads the weights.
    pub fn own_weights(&self) -> Reading {
        self.steps
    }
}

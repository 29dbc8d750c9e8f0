//! The input's part of the pre-activations, for the steps of a chunk.

use super::Forward;
use crate::fused::cpu::driver::{Projection, input_term};
use crate::fused::cpu::product::Term;
use crate::fused::cpu::rows::{NormForward, STATS};
use crate::fused::cpu::view::{GateRows, Rows};
use crate::fused::problem::Part;

impl Forward<'_> {
    /// x·W + b of a chunk, for this share's panels.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn project(&self, chunk: usize, share: usize) {
        let (plan, normed) = (self.plan, self.problem.norm_input.is_some());
        let steps = &plan.chunks[chunk];
        let first = self.offsets[steps.start];
        let null = core::ptr::null();
        let projection = Projection {
            matrix: self.weight(Part::WeightInput),
            term: self.input_term(first),
            rows: self.offsets[steps.end] - first,
            target: match normed {
                true => self.raw_input(chunk, steps.start).0,
                false => self.preact(chunk, steps.start),
            },
            tiled: plan.gates.is_tiled(),
            by_rows: plan.by_rows_of_w,
            bias: match normed || !self.biases.any {
                true => null,
                false => self.biases.row.as_ptr(),
            },
            bias_tiles: if normed {
                null
            } else {
                self.biases.tiles.as_ptr()
            },
        };
        // SAFETY: this share's own columns; x and W have these sizes.
        unsafe { projection.run(&self.crew, share) };
    }

    /// LN_x of a chunk, for this share's rows.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn norm_input(&self, chunk: usize, share: usize) {
        let Some(form) = self.problem.norm_input else {
            return;
        };
        let steps = &self.plan.chunks[chunk];
        let rows = self.offsets[steps.end] - self.offsets[steps.start];
        let (x, stats) = self.raw_input(chunk, steps.start);
        let shift = self.biases.after_norm.as_ref();
        let norm = NormForward {
            rows: self.crew.rows(rows, share),
            gates: self.plan.columns.vectors,
            units: self.problem.d_hidden,
            form,
            x,
            bias: self.vector(Part::BiasInput),
            base: GateRows::NONE,
            gain: self.vector(Part::NormInputGain),
            shift: shift.map_or(core::ptr::null(), |shift| shift.as_ptr()),
            y: self.preact(chunk, steps.start),
            stats,
        };
        // SAFETY: this share's own rows.
        unsafe { norm.run(self.crew.isa) };
    }

    /// x·W + b_x with LN_x, starting at a step of a chunk, and the statistics of its rows.
    fn raw_input(&self, chunk: usize, step: usize) -> (GateRows, Rows) {
        let plan = self.plan;
        let first = match plan.save {
            true => 0,
            false => self.offsets[plan.chunks[chunk].start],
        };
        let row = self.offsets[step] - first;
        let stats = Rows {
            ptr: self.at.stats_input,
            stride: STATS,
        };
        let rows = plan.gates.rows(self.at.preact_input, row);
        (rows, stats.from_row(row))
    }

    /// The product of W and the input rows starting at `row`.
    pub(super) fn input_term(&self, row: usize) -> Term {
        let (problem, matrix) = (self.problem, self.weight(Part::WeightInput));
        let input = self.parts.of(Part::Input);
        input_term(matrix, input, problem.d_input, &problem.order, row)
    }
}

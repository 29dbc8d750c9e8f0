//! The part of a step's backward that needs complete rows: normalisations.

use super::Backward;
use crate::fused::cpu::pointwise::{self, Half};
use crate::fused::cpu::rows::{NormBackward, STATS};
use crate::fused::cpu::view::Rows;
use crate::fused::problem::Part;

impl Backward<'_> {
    /// The derivatives of normalisations at a step, and the pointwise part between them.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn rows(&self, step: usize, share: usize) {
        let (problem, saved, isa) = (self.problem, self.saved, self.crew.isa);
        let d_hidden = problem.d_hidden;
        let rows = self.crew.rows(problem.counts[step], share);
        if rows.is_empty() {
            return;
        }
        let whole = self.pointwise(step, rows.len(), 0..d_hidden);
        let backward = whole.from_row(rows.start);
        let kind = self.pointwise.kind;
        // SAFETY: this share's own rows.
        unsafe {
            self.add_given(step, rows.clone(), 0..d_hidden);
            if problem.norm_cell.is_some() {
                backward.clone().run(isa, kind, Half::Hidden);
                let through = self.rows_of(self.at.through, 0, d_hidden);
                let gates = |rows: Rows| rows.gates(d_hidden, isa);
                let norm = NormBackward {
                    rows: rows.clone(),
                    gates: 1,
                    units: d_hidden,
                    x: gates(self.saved(&saved.raw, step, d_hidden)),
                    stats: self.saved(&saved.stats_cell, step, STATS),
                    gain: self.vector(Part::NormCellGain),
                    grad_y: gates(whole.grad_normalized),
                    grad_x: gates(through),
                };
                norm.run(isa);
                let gates = pointwise::LstmBackward {
                    grad_normalized: through.from_row(rows.start),
                    ..backward
                };
                gates.run(isa, kind, Half::Gates);
            } else {
                backward.run(isa, kind, Half::Both);
            }
            if problem.norm_hidden.is_some() {
                let layout = &self.plan.layout;
                let offset = self.offsets[step];
                let norm = NormBackward {
                    rows,
                    gates: self.plan.columns.vectors,
                    units: d_hidden,
                    x: layout.rows(saved.preact_hidden.as_ptr().cast_mut(), offset),
                    stats: self.saved(&saved.stats_hidden, step, STATS),
                    gain: self.vector(Part::NormHiddenGain),
                    grad_y: whole.grad_preact,
                    grad_x: layout.rows(self.at.product, offset),
                };
                norm.run(isa);
            }
        }
    }

    /// The derivative of LN_x, for this share's rows.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn norm_input(&self, share: usize) {
        let (saved, layout) = (self.saved, &self.plan.layout);
        let norm = NormBackward {
            rows: self.crew.rows(self.problem.rows(), share),
            gates: self.plan.columns.vectors,
            units: self.problem.d_hidden,
            x: layout.rows(saved.preact_input.as_ptr().cast_mut(), 0),
            stats: Rows::read(saved.stats_input.as_ptr(), STATS),
            gain: self.vector(Part::NormInputGain),
            grad_y: layout.rows(self.at.preact, 0),
            grad_x: layout.rows(self.at.input, 0),
        };
        // SAFETY: ∂z is complete; this share's own rows.
        unsafe { norm.run(self.crew.isa) };
    }
}

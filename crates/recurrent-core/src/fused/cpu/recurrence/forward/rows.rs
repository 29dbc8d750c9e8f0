//! The part of a step after the pre-activations that needs complete rows: normalisations and the
//! projection.

use super::Forward;
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::pointwise::{self, Half};
use crate::fused::cpu::product::{Onto, Product};
use crate::fused::cpu::rows::{NormForward, STATS};
use crate::fused::cpu::view::{GateRows, Rows};
use crate::fused::problem::Part;

impl Forward<'_> {
    /// The normalisations of a step, and the pointwise part after them.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn rows(&self, chunk: usize, step: usize, share: usize) {
        let (problem, isa) = (self.problem, self.crew.isa);
        let rows = self.crew.rows(problem.counts[step], share);
        if rows.is_empty() {
            return;
        }
        // SAFETY: this share's own rows.
        let preact = unsafe { self.norm_hidden(chunk, step, share) };
        // Pointwise operations index rows from 0; `from_row` moves them to the first row of this share.
        let whole = pointwise::LstmForward {
            preact,
            gates: preact,
            ..self.pointwise(step, rows.len(), 0..problem.d_hidden)
        };
        let forward = whole.from_row(rows.start);
        let kind = self.pointwise.kind;
        // SAFETY: this share's own rows.
        unsafe {
            let Some(form) = problem.norm_cell else {
                forward.run(isa, kind, Half::Both);
                return;
            };
            forward.clone().run(isa, kind, Half::Gates);
            let norm = NormForward {
                rows,
                gates: 1,
                units: problem.d_hidden,
                form,
                x: whole.raw.gates(problem.d_hidden, isa),
                bias: core::ptr::null(),
                base: GateRows::NONE,
                gain: self.vector(Part::NormCellGain),
                shift: self.vector(Part::NormCellShift),
                y: whole.normalized.gates(problem.d_hidden, isa),
                stats: self.saved(self.at.stats_cell, step, STATS),
            };
            norm.run(isa);
            forward.run(isa, kind, Half::Hidden);
        }
    }

    /// LN_h for this share's rows, if it is set. Returns the rows of the pre-activations.
    ///
    /// # Safety
    /// As [`rows`](Self::rows).
    unsafe fn norm_hidden(&self, chunk: usize, step: usize, share: usize) -> GateRows {
        let own = self.own_preact(chunk, step);
        let Some(form) = self.problem.norm_hidden else {
            return own;
        };
        let x = self.product_rows(step);
        // In inference the product is not needed any more, so it is overwritten.
        let preact = if self.plan.save { own } else { x };
        // Terms that are not normalised have already been added to these rows.
        let base = match self.plan.in_step || self.parts.has(Part::PeepholeFull) {
            true => own,
            false => self.preact(chunk, step),
        };
        let norm = NormForward {
            rows: self.crew.rows(self.problem.counts[step], share),
            gates: self.plan.columns.vectors,
            units: self.problem.d_hidden,
            form,
            x,
            bias: self.vector(Part::BiasHidden),
            base,
            gain: self.vector(Part::NormHiddenGain),
            shift: self.vector(Part::NormHiddenShift),
            y: preact,
            stats: self.saved(self.at.stats_hidden, step, STATS),
        };
        // SAFETY: by the contract of this function.
        unsafe { norm.run(self.crew.isa) };
        preact
    }

    /// The projection of h̃ of a step.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn out(&self, step: usize, share: usize) {
        let matrix = self.weight(Part::Projection);
        let a = self.saved(self.at.unprojected, step, self.problem.d_hidden);
        let terms = [matrix.term(a.view())];
        let product = Product {
            isa: self.crew.isa,
            rows: self.problem.counts[step],
            terms: &terms,
            columns: &matrix.columns,
        };
        let target = self.output(step);
        // SAFETY: the scratch and the columns of this share; h̃ and P have these sizes.
        unsafe {
            let scratch = self.crew.scratch(share);
            let panels = self.crew.panels(&matrix.columns, share);
            product.each_tile(scratch, panels, |panel, tile| {
                product.write_tile(panel, tile, target, Onto::Fresh);
                if self.pointwise.kind.masked {
                    let columns = matrix.columns.units(&(panel..panel + 1));
                    self.mask_projected(step, target, columns);
                }
            });
        }
    }

    /// The masks on h after a projection.
    ///
    /// # Safety
    /// These columns of h' are the caller's own.
    unsafe fn mask_projected(&self, step: usize, target: Rows, columns: core::ops::Range<usize>) {
        let (problem, offset) = (self.problem, self.offsets[step]);
        let hidden = self.hidden(step);
        let mask = self.pointwise.masks.or_ones(MaskPlace::Hidden, offset);
        let update = self
            .pointwise
            .masks
            .or_ones(MaskPlace::UpdateHidden, offset);
        for row in 0..problem.counts[step] {
            for column in columns.clone() {
                // SAFETY: by the contract of this function; masks and h have these columns.
                unsafe {
                    let value = target.at(row, column);
                    let update = *update.at(row, column);
                    let old = *hidden.at(row, column);
                    let new = *value * *mask.at(row, column);
                    *value = update * new + (1.0 - update) * old;
                }
            }
        }
    }
}

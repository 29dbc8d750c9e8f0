//! The backward of a step: from ∂h' and ∂c' to ∂z, and from ∂z to ∂h and ∂c of the previous step.

use core::ops::Range;

use super::Backward;
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::pointwise::{self, Half};
use crate::fused::cpu::product::Onto;
use crate::fused::cpu::rows::AddRows;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::Part;

impl Backward<'_> {
    /// The gradient that a step passes to the previous one: ∂h, and ∂c through full peepholes.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn pass_back(&self, step: usize, share: usize) {
        if !self.problem.rounds.is_empty() {
            // SAFETY: ∂p of the first round is complete; these columns of ∂h belong to this share.
            unsafe {
                let [_, grad_h] = self.at.between;
                self.unround(step, 0, grad_h, share);
                self.pass_on(step, share);
            }
            return;
        }
        let through = match self.problem.norm_hidden {
            Some(_) => self.at.product,
            None => self.at.preact,
        };
        // Under zoneout, the direct part is already there.
        let onto = match self.pointwise.kind.masked {
            true => Onto::Sum,
            false => Onto::Fresh,
        };
        // SAFETY: ∂z of the step is complete; these columns of ∂h and ∂c belong to this share.
        unsafe {
            let left = self.gates_of(through, step);
            let matrix = self.weight(Part::WeightHidden);
            self.times(matrix, left, self.at.hidden, onto, share);
            if self.parts.has(Part::PeepholeFull) {
                let left = self.gates_of(self.at.preact, step);
                let matrix = self.weight(Part::PeepholeFull);
                self.times(matrix, left, self.at.cell, Onto::Sum, share);
            }
        }
    }

    /// The pointwise part of a step.
    pub(super) fn pointwise(
        &self,
        step: usize,
        rows: usize,
        units: Range<usize>,
    ) -> pointwise::LstmBackward {
        let (problem, saved) = (self.problem, self.saved);
        let (d_hidden, d_output) = (problem.d_hidden, problem.d_output);
        let offset = self.offsets[step];
        let projected = self.parts.has(Part::Projection);
        let (grad_hidden, grad_output) = match projected {
            true => (self.rows_of(self.at.unprojected, 0, d_hidden), Rows::NONE),
            false => (
                self.rows_of(self.at.hidden, 0, d_output),
                self.saved(self.grad_output, step, d_output),
            ),
        };
        let cell = match step {
            0 => Rows::read(self.parts.of(Part::Cell).as_ptr(), d_hidden),
            _ => self.saved(self.cells, step - 1, d_hidden),
        };
        let layout = &self.plan.layout;
        pointwise::LstmBackward {
            rows,
            units,
            gates: layout.rows(saved.gates.as_ptr().cast_mut(), offset),
            cell,
            normalized: self.saved(&saved.normalized, step, d_hidden),
            carry_normalized: problem.carry_normalized,
            grad_hidden,
            grad_output,
            grad_cell: self.rows_of(self.at.cell, 0, d_hidden),
            grad_normalized: self.rows_of(self.at.normalized, offset, d_hidden),
            grad_raw: self.rows_of(self.at.raw, 0, d_hidden),
            grad_preact: layout.rows(self.at.preact, offset),
            masks: self.pointwise.masks(offset, projected),
            peepholes: self.pointwise.peepholes,
            clip: problem.clip,
        }
    }

    /// ∂h' of a step from the following step. Then the masks on h if there is a projection, otherwise
    /// the pointwise part unless it needs complete rows.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn hidden(&self, step: usize, share: usize) {
        let share = self.crew.serpentine(share, step);
        let problem = self.problem;
        // SAFETY: the following step is complete; the columns belong to this share.
        unsafe {
            if step + 1 < problem.counts.len() {
                self.pass_back(step + 1, share);
            }
            let columns = &self.weight(Part::WeightHidden).columns;
            let units = columns.units(&self.crew.panels(columns, share));
            if self.parts.has(Part::Projection) {
                self.mask_projected(step, units);
            } else if !problem.by_row() {
                self.gates_back(step, units);
            }
        }
    }

    /// The pointwise part of a step for some units.
    ///
    /// # Safety
    /// ∂h' and ∂c' are complete for these units, which are the share's own.
    unsafe fn gates_back(&self, step: usize, units: Range<usize>) {
        let rows = self.problem.counts[step];
        // SAFETY: by the contract of this function.
        unsafe {
            self.add_given(step, 0..rows, units.clone());
            let backward = self.pointwise(step, rows, units);
            backward.run(self.crew.isa, self.pointwise.kind, Half::Both);
        }
    }

    /// If c' of all rows is an output of the call, adds its gradient for some rows of a step to ∂c' from
    /// later steps.
    ///
    /// # Safety
    /// Later steps are complete; the units of ∂c' are this share's own in these rows.
    pub(super) unsafe fn add_given(&self, step: usize, rows: Range<usize>, units: Range<usize>) {
        if self.grad_cells.is_empty() {
            return;
        }
        let d_hidden = self.problem.d_hidden;
        let given = self.saved(self.grad_cells, step, d_hidden);
        let add = AddRows {
            rows: rows.len(),
            columns: units,
            from: given.from_row(rows.start),
            to: self.rows_of(self.at.cell, rows.start, d_hidden),
        };
        // SAFETY: `from` has a row of H values per row of the call and is only read; `to` has one per
        // sequence, of which the contract of this function leaves these units to this share.
        unsafe { add.run(self.crew.isa) };
    }

    /// From ∂h' to the gradient of the projection's result, through the masks on h.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    unsafe fn mask_projected(&self, step: usize, columns: Range<usize>) {
        let problem = self.problem;
        let (offset, d_output) = (self.offsets[step], problem.d_output);
        let masked = self.pointwise.kind.masked;
        let mask = self.pointwise.masks.or_ones(MaskPlace::Hidden, offset);
        let update = self
            .pointwise
            .masks
            .or_ones(MaskPlace::UpdateHidden, offset);
        for row in 0..problem.counts[step] {
            for column in columns.clone() {
                // SAFETY: this share's own columns of ∂h'; masks have these columns.
                unsafe {
                    let later = self.at.hidden.add(row * d_output + column);
                    let index = (offset + row) * d_output + column;
                    let mut grad = *later + self.grad_output[index];
                    if masked {
                        let update = *update.at(row, column);
                        *later = (1.0 - update) * grad;
                        grad *= update * *mask.at(row, column);
                    }
                    *self.at.projected.add(index) = grad;
                }
            }
        }
    }

    /// ∂h̃ = ∂h·Pᵀ of a step.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn unproject(&self, step: usize, share: usize) {
        let matrix = self.weight(Part::Projection);
        let d_output = self.problem.d_output;
        let mut left = self.rows_as_factor(self.at.projected, step, d_output);
        left.back = step % 2 == 1;
        // SAFETY: ∂(h̃·P) is complete; this share's own units.
        unsafe {
            self.times(matrix, left, self.at.unprojected, Onto::Fresh, share);
            if !self.problem.by_row() {
                let panels = self.crew.panels(&matrix.columns, share);
                self.gates_back(step, matrix.columns.units(&panels));
            }
        }
    }
}

//! The gradients that are sums over all rows, and that of the input.

use alloc::vec::Vec;
use core::ops::Range;

use super::Backward;
use super::buffers::features;
use crate::fused::cpu::driver::{InputGradient, Place, column_rows, vectors_of};
use crate::fused::cpu::rows::{By, STATS, SumRows};
use crate::fused::cpu::sums::{Outer, Right};
use crate::fused::cpu::view::Rows;
use crate::fused::problem::{Key, Part, RoundPart};

impl Backward<'_> {
    /// ∂x = ∂z·Wᵀ, for this share's rows.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn input(&self, share: usize) {
        let Some(&out) = self.targets.at.get(Part::Input) else {
            return;
        };
        if !self.problem.rounds.is_empty() {
            return; // computed step by step
        }
        let gradient = InputGradient {
            matrix: self.weight(Part::WeightInput),
            layout: self.plan.layout,
            grad: self.at.input,
            out,
            rows: self.problem.rows(),
        };
        // SAFETY: ∂z is complete; this share's own rows.
        unsafe { gradient.run(&self.crew, share) };
    }

    /// The left factor of a weight, as matrices with consecutive rows.
    fn factor(&self, key: Key) -> Vec<(&[f32], usize)> {
        let (problem, saved) = (self.problem, self.saved);
        let (rows, last) = (problem.rows(), problem.rounds.len());
        match key {
            Key::Part(Part::WeightInput) => self.before_round(last, true),
            Key::Part(Part::WeightHidden) => self.before_round(last, false),
            Key::Part(Part::PeepholeFull) => self.cell_before.pieces().collect(),
            Key::Part(_) => vec![(&saved.unprojected[..], rows)],
            Key::Round(round, RoundPart::Matrix) => self.before_round(round, round % 2 == 1),
            Key::Round(round, _) => vec![(&saved.rounds[round].inner[..], rows)],
        }
    }

    /// Transposes this share's columns of the left factors of the weights.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn transpose(&self, share: usize) {
        let rows = self.problem.rows();
        for &(key, target) in &self.targets.factors {
            let columns = features(self.problem, key).unwrap_or(0);
            let pieces = self.factor(key);
            // SAFETY: the target was made for these features and rows.
            unsafe { self.crew.transpose(pieces, columns, rows, target, share) };
        }
    }

    /// `Σ_rows aᵀ·d` for this share's columns: the gradient of a weight whose left factor is a.
    ///
    /// # Arguments
    /// * `d`, `n` - the gradient of the product, and its number of columns
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn outer(&self, key: impl Into<Key>, d: Right, n: usize, share: usize) {
        let key = key.into();
        let Some(&out) = self.targets.at.get(key) else {
            return;
        };
        let mut factors = self.targets.factors.iter();
        let Some(&(_, a)) = factors.find(|(other, _)| *other == key) else {
            return;
        };
        let m = features(self.problem, key).unwrap_or(0);
        let rows = self.problem.rows();
        let outer = Outer {
            a,
            m,
            rows,
            d,
            n,
            out,
            stride: n,
            add: false,
        };
        // SAFETY: the scratch and the columns of this share; all rows are complete.
        unsafe {
            outer.run(
                self.crew.isa,
                self.crew.scratch(share),
                share,
                self.crew.shares,
            )
        };
    }

    /// The gradients that are sums over all rows, for this share's columns.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn sums(&self, share: usize) {
        let problem = self.problem;
        let (plan, width) = (self.plan, problem.width());
        let through = match problem.norm_hidden {
            Some(_) => self.at.product,
            None => self.at.preact,
        };
        let right = |buffer: *mut f32| match plan.layout.is_tiled() {
            true => Right::Panels(plan.layout.packed(buffer), plan.columns),
            false => Right::Rows(buffer),
        };
        // SAFETY: all rows are complete; each share has columns of its own.
        unsafe {
            self.outer(Part::WeightInput, right(self.at.input), width, share);
            self.outer(Part::WeightHidden, right(through), width, share);
            self.outer(Part::PeepholeFull, right(self.at.preact), width, share);
            let projected = Right::Rows(self.at.projected);
            self.outer(Part::Projection, projected, problem.d_output, share);
            for round in 0..problem.rounds.len() {
                self.round_sums(round, share);
            }
            let panels = self.crew.panels(&plan.columns, share);
            self.gate_sums(panels.clone());
            if self.pointwise.kind.peephole {
                panels.for_each(|panel| self.peephole_sums(panel));
            }
            self.cell_sums(share);
        }
    }

    /// The gradients of the vectors that span all gates, for the columns of some panels.
    ///
    /// # Safety
    /// As [`sums`](Self::sums); the panels are the share's own.
    unsafe fn gate_sums(&self, panels: Range<usize>) {
        let (saved, at) = (self.saved, &self.at);
        let (layout, gates) = (&self.plan.layout, &self.plan.columns);
        let stats = |values: &[f32]| Rows::read(values.as_ptr(), STATS);
        for (place, columns) in vectors_of(*gates, panels) {
            let of = |buffer: *mut f32| column_rows(layout, gates, buffer, place);
            let normalized = |x: &[f32], of_x: &[f32]| By::Normalized {
                x: of(x.as_ptr().cast_mut()),
                stats: stats(of_x),
            };
            let by_hidden = normalized(&saved.preact_hidden, &saved.stats_hidden);
            let by_input = normalized(&saved.preact_input, &saved.stats_input);
            let sums = [
                (Part::Bias, at.preact, By::One),
                (Part::NormHiddenShift, at.preact, By::One),
                (Part::BiasHidden, at.product, By::One),
                (Part::NormHiddenGain, at.preact, by_hidden),
                (Part::BiasInput, at.input, By::One),
                (Part::NormInputShift, at.preact, By::One),
                (Part::NormInputGain, at.preact, by_input),
            ];
            for (part, buffer, by) in sums {
                // SAFETY: by the contract of this function.
                unsafe { self.sum(part, columns.clone(), of(buffer), by) };
            }
        }
    }

    /// The gradients of LN_c, for this share's units.
    ///
    /// # Safety
    /// As [`sums`](Self::sums).
    unsafe fn cell_sums(&self, share: usize) {
        let (saved, d_hidden) = (self.saved, self.problem.d_hidden);
        let own = self.crew.rows(d_hidden, share);
        let all = self.rows_of(self.at.normalized, 0, d_hidden);
        let normalized = By::Normalized {
            x: Rows::read(saved.raw.as_ptr(), d_hidden),
            stats: Rows::read(saved.stats_cell.as_ptr(), STATS),
        };
        // SAFETY: by the contract of this function.
        unsafe {
            self.sum(Part::NormCellShift, own.clone(), all, By::One);
            self.sum(Part::NormCellGain, own, all, normalized);
        }
    }

    /// x or h of all rows before a round.
    pub(super) fn before_round(&self, round: usize, input: bool) -> Vec<(&[f32], usize)> {
        let rows = self.problem.rows();
        let last = (0..round).rev().find(|last| (last % 2 == 0) == input);
        match last {
            Some(last) => vec![(&self.saved.rounds[last].value[..], rows)],
            None if input => vec![(*self.parts.of(Part::Input), rows)],
            None => self.hidden_before.pieces().collect(),
        }
    }

    /// The gradients of a round's matrices and bias, for this share's columns.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn round_sums(&self, round: usize, share: usize) {
        let (_, to) = self.problem.round_shape(round);
        let grads = &self.at.rounds[round];
        let matrix = Key::Round(round, RoundPart::Matrix);
        // SAFETY: all rows are complete; each share has columns of its own.
        unsafe {
            match self.problem.rounds[round] {
                None => self.outer(matrix, Right::Rows(grads.gate), to, share),
                Some(rank) => {
                    self.outer(matrix, Right::Rows(grads.inner), rank, share);
                    let key = Key::Round(round, RoundPart::Right);
                    self.outer(key, Right::Rows(grads.gate), to, share);
                }
            }
            let all = self.rows_of(grads.gate, 0, to);
            let own = self.crew.rows(to, share);
            self.sum(Key::Round(round, RoundPart::Bias), own, all, By::One);
        }
    }

    /// The gradients of diagonal peepholes, for the units of a panel.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn peephole_sums(&self, panel: usize) {
        let problem = self.problem;
        let d_hidden = problem.d_hidden;
        let units = self.plan.columns.units(&(panel..panel + 1));
        let mixing = problem.coupling.mixing_gates();
        let gates = [
            (Part::PeepholeFirst, 0),
            (Part::PeepholeSecond, 1),
            (Part::PeepholeOutput, mixing + 1),
        ];
        let raw = match self.saved.raw.is_empty() {
            true => self.cells,
            false => &self.saved.raw[..],
        };
        for (part, gate) in gates {
            let place = Place { panel, gate };
            let (layout, columns) = (&self.plan.layout, &self.plan.columns);
            let grads = column_rows(layout, columns, self.at.preact, place);
            // Indexed by unit number.
            let grads = Rows {
                ptr: grads.ptr.wrapping_add(gate * d_hidden),
                ..grads
            };
            let mut row = 0;
            if part == Part::PeepholeOutput && problem.output_sees_new {
                let by = By::Values(Rows::read(raw.as_ptr(), d_hidden));
                // SAFETY: these units are this share's own.
                unsafe { self.sum(part, units.clone(), grads, by) };
                continue;
            }
            for (values, rows) in self.cell_before.pieces() {
                let by = By::Values(Rows::read(values.as_ptr(), d_hidden));
                // SAFETY: as above.
                unsafe { self.sum_rows(part, 0..rows, units.clone(), grads.from_row(row), by) };
                row += rows;
            }
        }
    }

    /// Sums some columns over all rows.
    ///
    /// # Safety
    /// The columns are the calling share's own.
    unsafe fn sum(&self, key: impl Into<Key>, columns: Range<usize>, a: Rows, by: By) {
        // SAFETY: by the contract of this function.
        unsafe { self.sum_rows(key, 0..self.problem.rows(), columns, a, by) };
    }

    /// Sums some columns over some rows, and adds the result to the gradient.
    ///
    /// # Safety
    /// The columns are the calling share's own.
    unsafe fn sum_rows(
        &self,
        key: impl Into<Key>,
        rows: Range<usize>,
        columns: Range<usize>,
        a: Rows,
        by: By,
    ) {
        let Some(&out) = self.targets.at.get(key) else {
            return;
        };
        let sum = SumRows {
            rows,
            columns,
            a,
            by,
            out,
        };
        // SAFETY: by the contract of this function.
        unsafe { sum.run(self.crew.isa) };
    }
}

//! The gradients that are sums over all rows, and that of the input.

use alloc::vec::Vec;
use core::ops::Range;

use super::super::Weight;
use super::Backward;
use crate::fused::cpu::driver::{InputGradient, column_rows, vectors_of};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::rows::{By, SumRows};
use crate::fused::cpu::sums::{Outer, Right};
use crate::fused::cpu::view::Rows;
use crate::fused::problem::Part;

impl Backward<'_> {
    /// Transposes the left factors of the wanted weights.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn transpose(&self, share: usize) {
        let (problem, rows) = (self.problem, self.problem.rows());
        let (crew, targets) = (&self.crew, self.targets);
        let (d_input, units) = (problem.d_input, problem.d_hidden);
        // SAFETY: the targets were made for these features and rows.
        unsafe {
            if targets.grads.has(Part::WeightInput) {
                let x = [(*self.parts.of(Part::Input), rows)];
                crew.transpose(x, d_input, rows, targets.input, share);
            }
            if targets.grads.has(Part::WeightHidden) {
                crew.transpose(self.before.pieces(), units, rows, targets.hidden, share);
                if !problem.reset_after {
                    let inner = [(&self.saved.inner[..], rows)];
                    crew.transpose(inner, units, rows, targets.inner, share);
                }
            }
        }
    }

    /// ∂x, for this share's rows.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn input(&self, share: usize) {
        let Some(&out) = self.targets.grads.get(Part::Input) else {
            return;
        };
        let gradient = InputGradient {
            matrix: self.weight(Weight::Input),
            layout: self.plan.layout,
            grad: self.at.preact,
            out,
            rows: self.problem.rows(),
        };
        // SAFETY: the gradients of all steps are complete; this share's own rows.
        unsafe { gradient.run(&self.crew, share) };
    }

    /// ∂W and ∂R, for this share's columns.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn weight_sums(&self, share: usize) {
        let (plan, problem, targets) = (self.plan, self.problem, self.targets);
        let (units, width) = (problem.d_hidden, problem.width());
        let right = |layout: &Layout, columns: Columns, buffer: *mut f32| match layout.is_tiled() {
            true => Right::Panels(layout.packed(buffer), columns),
            false => Right::Rows(buffer),
        };
        let outer = |a: *const f32, m: usize, d: Right, n: usize, out: *mut f32| Outer {
            a,
            m,
            rows: problem.rows(),
            d,
            n,
            out,
            stride: width,
            add: false,
        };
        let mut sums = Vec::with_capacity(3);
        if let Some(&out) = targets.grads.get(Part::WeightInput) {
            let d = right(&plan.layout, plan.columns, self.at.preact);
            sums.push(outer(targets.input, problem.d_input, d, width, out));
        }
        if let Some(&out) = targets.grads.get(Part::WeightHidden) {
            let d = right(&plan.product_layout, plan.product_columns, self.at.product);
            let of_gates = plan.product_columns.count();
            sums.push(outer(targets.hidden, units, d, of_gates, out));
            if !problem.reset_after {
                let d = Right::Rows(self.at.candidate);
                let out = out.wrapping_add(of_gates);
                sums.push(outer(targets.inner, units, d, units, out));
            }
        }
        for sum in sums {
            // SAFETY: the scratch and the columns of this share; all rows are complete.
            unsafe {
                sum.run(
                    self.crew.isa,
                    self.crew.scratch(share),
                    share,
                    self.crew.shares,
                )
            };
        }
    }

    /// ∂b and ∂b_hn, for this share's columns.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn bias_sums(&self, share: usize) {
        let (plan, units) = (self.plan, self.problem.d_hidden);
        let sum = |columns: Range<usize>, a: Rows, out: *mut f32| SumRows {
            rows: 0..self.problem.rows(),
            columns,
            a,
            by: By::One,
            out,
        };
        let panels = self.crew.panels(&plan.columns, share);
        for (place, columns) in vectors_of(plan.columns, panels) {
            if let Some(&out) = self.targets.grads.get(Part::Bias) {
                let rows = column_rows(&plan.layout, &plan.columns, self.at.preact, place);
                // SAFETY: this share's own columns; all rows are complete.
                unsafe { sum(columns.clone(), rows, out).run(self.crew.isa) };
            }
            // b_hn exists only if R has one product, whose block 2 is the candidate's.
            if let (2, Some(&out)) = (place.gate, self.targets.grads.get(Part::BiasHidden)) {
                let (layout, gates) = (&plan.product_layout, &plan.product_columns);
                let rows = column_rows(layout, gates, self.at.product, place);
                let out = out.wrapping_sub(2 * units);
                // SAFETY: as above.
                unsafe { sum(columns, rows, out).run(self.crew.isa) };
            }
        }
    }
}

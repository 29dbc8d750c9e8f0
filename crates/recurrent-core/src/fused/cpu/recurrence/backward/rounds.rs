//! The rounds of the Mogrifier, backward.

use super::*;

impl Run<'_> {
    /// `a·Mᵀ` with a factor of a round, for this share's columns.
    ///
    /// # Safety
    /// As [`times_transposed`](Self::times_transposed).
    pub(super) unsafe fn times_factor(
        &self,
        factor: &Factor,
        rows: usize,
        a: View,
        out: *mut f32,
        add: bool,
        share: usize,
    ) {
        let view = factor.view(self.parts, true);
        let (packed, columns) = (factor.panels.as_ref(), &factor.columns);
        // SAFETY: by the contract of this function.
        unsafe {
            self.times_back(
                factor.size,
                packed,
                view,
                rows,
                (a, None),
                columns,
                out,
                add,
                false,
                share,
            );
        }
    }

    /// ∂x or ∂h between rounds.
    pub(super) fn between(&self, input: bool) -> *mut f32 {
        if input { self.grad_x } else { self.grad_h }
    }

    /// The rows of a step in a buffer of all steps.
    pub(super) fn step_view(&self, buffer: *mut f32, step: usize, size: usize) -> View {
        View {
            ptr: buffer.wrapping_add(self.offsets[step] * size),
            row: size,
            column: 1,
        }
    }

    /// Back through the product of a round to what it read, which `out` has the gradient of.
    ///
    /// # Safety
    /// ∂p of the round is complete; the columns of `out` are this share's own.
    pub(super) unsafe fn unround(&self, step: usize, round: usize, out: *mut f32, share: usize) {
        let rows = self.problem.counts[step];
        let factors = &self.packed.factors[round];
        let factor = &factors[factors.len() - 1];
        let grads = &self.round_grads[round];
        let buffer = if factors.len() == 1 {
            grads.gate
        } else {
            grads.inner
        };
        let a = self.step_view(buffer, step, factor.size.0);
        // SAFETY: by the contract of this function.
        unsafe { self.times_factor(factor, rows, a, out, true, share) };
    }

    /// What the round after this one passes back (∂z after the last), then this round's gate.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn unmix(&self, step: usize, round: usize, share: usize) {
        let problem = self.problem;
        let rows = problem.counts[step];
        let on_input = round.is_multiple_of(2);
        // SAFETY: phases before are complete; this share's own columns of ∂x and ∂h.
        unsafe {
            if round + 1 == problem.rounds.len() {
                let grad = self.layout.factor(self.grad_preact, self.offsets[step]);
                let weights = [
                    (
                        Part::WeightInput,
                        self.packed.get(Part::WeightInput),
                        &self.columns_input,
                        self.grad_x,
                    ),
                    (
                        Part::WeightHidden,
                        self.packed.get(Part::WeightHidden),
                        &self.columns_hidden,
                        self.grad_h,
                    ),
                ];
                for (part, packed, columns, out) in weights {
                    self.times_transposed(
                        step, part, packed, rows, grad, columns, out, false, share,
                    );
                }
            } else {
                // What the next round read is what this one changed.
                self.unround(step, round + 1, self.between(on_input), share);
            }
            let to = if on_input {
                problem.d_input
            } else {
                problem.d_output
            };
            let columns = if on_input {
                &self.columns_input
            } else {
                &self.columns_hidden
            };
            let tape = &self.tape.rounds[round];
            let saved = |values: &[f32]| {
                let row = self.offsets[step] * to;
                Rows::read(values.as_ptr().wrapping_add(row), to)
            };
            let value = match round {
                0 => {
                    let x = self.parts.of(Part::Input);
                    saved(x)
                }
                1 => Rows::read(self.hidden_row(step), to),
                _ => saved(&self.tape.rounds[round - 2].value),
            };
            let copy = match (round, self.targets.get(Part::Input)) {
                // The last on the way back that changes x.
                (0, Some(&target)) => self.rows_of(target, self.offsets[step], to),
                _ => Rows::NONE,
            };
            let gate = GateBack {
                rows,
                columns: columns.units(&columns.share(share, self.shares)),
                gate: saved(&tape.gate),
                value,
                grad: self.rows_of(self.between(on_input), 0, to),
                grad_preact: self.rows_of(self.round_grads[round].gate, self.offsets[step], to),
                copy,
            };
            gate.run(self.isa);
        }
    }

    /// The low-rank half of a round backward.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn unmix_inner(&self, step: usize, round: usize, share: usize) {
        let rows = self.problem.counts[step];
        let factor = &self.packed.factors[round][0];
        let grads = &self.round_grads[round];
        let a = self.step_view(grads.gate, step, factor.size.0);
        let rank = factor.size.1;
        let out = grads.inner.wrapping_add(self.offsets[step] * rank);
        // SAFETY: ∂p of the round is complete; this share's own columns.
        unsafe { self.times_factor(factor, rows, a, out, false, share) };
    }

    /// h before a step.
    pub(super) fn hidden_row(&self, step: usize) -> *const f32 {
        let d_output = self.problem.d_output;
        match step {
            0 => self.parts.of(Part::Hidden).as_ptr(),
            _ => self
                .out
                .as_ptr()
                .wrapping_add(self.offsets[step - 1] * d_output),
        }
    }

    /// Copies or adds this share's columns of ∂h between rounds to ∂h of the step before.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn pass_on(&self, step: usize, share: usize) {
        let d_output = self.problem.d_output;
        let panels = self.columns_hidden.share(share, self.shares);
        let masked = self.pointwise.kind.masked;
        for row in 0..self.problem.counts[step] {
            for column in self.columns_hidden.units(&panels) {
                // SAFETY: this share's own columns.
                unsafe {
                    let index = row * d_output + column;
                    let target = self.grad_hidden.add(index);
                    // Zoneout has left the direct part there.
                    let direct = if masked { *target } else { 0.0 };
                    *target = direct + *self.grad_h.add(index);
                }
            }
        }
    }
}

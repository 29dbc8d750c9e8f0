//! The rounds of the Mogrifier, forward.

use super::*;

impl Run<'_> {
    /// x or h before a round; after the last round for `round == rounds`.
    pub(super) fn before_round(&self, step: usize, round: usize, input: bool) -> View {
        let problem = self.problem;
        // Even rounds change x, odd ones h: the last one before this that changed it.
        let last = (0..round).rev().find(|last| (last % 2 == 0) == input);
        let size = if input {
            problem.d_input
        } else {
            problem.d_output
        };
        let ptr = match last {
            Some(last) => self.kept(self.rounds[last].value, step, size).ptr,
            None if input => {
                let x = self.parts.of(Part::Input).as_ptr();
                x.wrapping_add(self.offsets[step] * size).cast_mut()
            }
            None => return self.hidden(step),
        };
        View {
            ptr,
            row: size,
            column: 1,
        }
    }

    /// A product with a factor of a round.
    pub(super) fn factor_term(&self, factor: &Factor, a: View) -> Term {
        let weights = match &factor.panels {
            Some(panels) => panels.weights(),
            None => Weights::Native(factor.view(self.parts, false)),
        };
        Term::new(a, factor.size.0, weights)
    }

    /// The first product of a round of low rank.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn inner(&self, step: usize, round: usize, share: usize) {
        let rows = self.problem.counts[step];
        let factor = &self.packed.factors[round][0];
        let a = self.before_round(step, round, round % 2 == 1);
        let term = self.factor_term(factor, a);
        let out = self.kept(self.rounds[round].inner, step, factor.size.1);
        let columns = &factor.columns;
        let panels = columns.share(share, self.shares);
        // SAFETY: the scratch and the columns of this share; the rounds before are complete.
        unsafe {
            let scratch = self.scratch.of(share);
            product(
                self.isa,
                scratch,
                rows,
                &[term],
                columns,
                panels,
                |panel, tile| {
                    write_tile(
                        self.isa,
                        tile,
                        columns,
                        panel,
                        rows,
                        out.ptr,
                        out.stride,
                        Onto::Fresh,
                    );
                },
            );
        }
    }

    /// A round of a step: the product and its gate.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn round(&self, step: usize, round: usize, share: usize) {
        let rows = self.problem.counts[step];
        let factors = &self.packed.factors[round];
        let factor = &factors[factors.len() - 1];
        let on_input = round.is_multiple_of(2);
        let a = match factors.len() {
            1 => self.before_round(step, round, !on_input),
            _ => {
                let inner = self.kept(self.rounds[round].inner, step, factor.size.0);
                View {
                    ptr: inner.ptr,
                    row: inner.stride,
                    column: 1,
                }
            }
        };
        let term = self.factor_term(factor, a);
        let to = factor.size.1;
        let value = self.before_round(step, round, on_input);
        let bias = self.parts.get(Key::Round(round, RoundPart::Bias));
        let columns = &factor.columns;
        let panels = columns.share(share, self.shares);
        // SAFETY: the scratch and the columns of this share; the rounds before are complete.
        unsafe {
            let scratch = self.scratch.of(share);
            product(
                self.isa,
                scratch,
                rows,
                &[term],
                columns,
                panels,
                |panel, tile| {
                    let gate = Gate {
                        rows,
                        columns: columns.units(&(panel..panel + 1)),
                        tile,
                        bias: bias.map_or(core::ptr::null(), |bias| bias.as_ptr()),
                        value: Rows::read(value.ptr, value.row),
                        out: self.kept(self.rounds[round].value, step, to),
                        gate: self.kept(self.rounds[round].gate, step, to),
                    };
                    gate.run(self.isa);
                },
            );
        }
    }
}

//! The rounds of the Mogrifier, forward.

use super::super::rounds::Gate;
use super::Forward;
use crate::fused::cpu::product::{Onto, Product};
use crate::fused::cpu::view::Rows;
use crate::fused::problem::{Key, Part, RoundPart};

impl Forward<'_> {
    /// x or h before a round; after the last round for `round == rounds`.
    pub(super) fn before_round(&self, step: usize, round: usize, input: bool) -> Rows {
        let problem = self.problem;
        // Even rounds change x, odd ones h: finds the last earlier round that changed it.
        let last = (0..round).rev().find(|last| (last % 2 == 0) == input);
        let size = match input {
            true => problem.d_input,
            false => problem.d_output,
        };
        match last {
            Some(last) => self.saved(self.at.rounds[last].value, step, size),
            None if input => {
                let x = self.parts.of(Part::Input).as_ptr();
                Rows::read(x, size).from_row(self.offsets[step])
            }
            None => self.hidden(step),
        }
    }

    /// The first product of a low-rank round.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn inner(&self, step: usize, round: usize, share: usize) {
        let matrix = self.weight(Key::Round(round, RoundPart::Matrix));
        let a = self.before_round(step, round, round % 2 == 1);
        let terms = [matrix.term(a.view())];
        let product = Product {
            isa: self.crew.isa,
            rows: self.problem.counts[step],
            terms: &terms,
            columns: &matrix.columns,
        };
        let rank = matrix.columns.count();
        let out = self.saved(self.at.rounds[round].inner, step, rank);
        let panels = self.crew.panels(&matrix.columns, share);
        // SAFETY: the scratch and the columns of this share; the rounds before are complete.
        unsafe { product.write(self.crew.scratch(share), panels, out, Onto::Fresh) };
    }

    /// A round of a step: the product and its gate.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn round(&self, step: usize, round: usize, share: usize) {
        let rows = self.problem.counts[step];
        let low_rank = self.problem.rounds[round].is_some();
        let matrix = self.weight(match low_rank {
            true => Key::Round(round, RoundPart::Right),
            false => Key::Round(round, RoundPart::Matrix),
        });
        let on_input = round.is_multiple_of(2);
        let at = &self.at.rounds[round];
        let a = match low_rank {
            true => self.saved(at.inner, step, matrix.k),
            false => self.before_round(step, round, !on_input),
        };
        let terms = [matrix.term(a.view())];
        let columns = &matrix.columns;
        let product = Product {
            isa: self.crew.isa,
            rows,
            terms: &terms,
            columns,
        };
        let to = columns.count();
        let bias = self.parts.get(Key::Round(round, RoundPart::Bias));
        let value = self.before_round(step, round, on_input);
        let panels = self.crew.panels(columns, share);
        // SAFETY: the scratch and the columns of this share; the rounds before are complete.
        unsafe {
            product.each_tile(self.crew.scratch(share), panels, |panel, tile| {
                let gate = Gate {
                    rows,
                    columns: columns.units(&(panel..panel + 1)),
                    tile,
                    bias: bias.map_or(core::ptr::null(), |bias| bias.as_ptr()),
                    value,
                    out: self.saved(at.value, step, to),
                    gate: self.saved(at.gate, step, to),
                };
                gate.run(self.crew.isa);
            });
        }
    }
}

//! The rounds of the Mogrifier, backward.

use super::super::rounds::GateBack;
use super::Backward;
use crate::fused::cpu::product::Onto;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::{Key, Part, RoundPart};

impl Backward<'_> {
    /// Adds the gradient that passes back through the product of a round to `out`, the gradient of the
    /// round's input u.
    ///
    /// # Safety
    /// ∂p of the round is complete; the columns of `out` are this share's own.
    pub(super) unsafe fn unround(&self, step: usize, round: usize, out: *mut f32, share: usize) {
        let matrix = self.weight(Key::Round(round, RoundPart::Matrix));
        let grads = &self.at.rounds[round];
        let buffer = match self.problem.rounds[round] {
            Some(_) => grads.inner,
            None => grads.gate,
        };
        let left = self.rows_as_factor(buffer, step, matrix.k);
        // SAFETY: by the contract of this function.
        unsafe { self.times(matrix, left, out, Onto::Sum, share) };
    }

    /// The gradient from the following round (from ∂z after the last round), then this round's gate.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn unmix(&self, step: usize, round: usize, share: usize) {
        let problem = self.problem;
        let on_input = round.is_multiple_of(2);
        let [grad_x, grad_h] = self.at.between;
        let (part, grad, to) = match on_input {
            true => (Part::WeightInput, grad_x, problem.d_input),
            false => (Part::WeightHidden, grad_h, problem.d_output),
        };
        // SAFETY: phases before are complete; this share's own columns of ∂x and ∂h.
        unsafe {
            if round + 1 == problem.rounds.len() {
                let left = self.gates_of(self.at.preact, step);
                for (part, out) in [(Part::WeightInput, grad_x), (Part::WeightHidden, grad_h)] {
                    self.times(self.weight(part), left, out, Onto::Fresh, share);
                }
            } else {
                // The u of the following round is the v' of this one.
                self.unround(step, round + 1, grad, share);
            }
        }
        let saved = &self.saved.rounds;
        let value = match round {
            0 => self.saved(self.parts.of(Part::Input), step, to),
            1 => self.hidden_row(step),
            _ => self.saved(&saved[round - 2].value, step, to),
        };
        let columns = &self.weight(part).columns;
        let offset = self.offsets[step];
        let gate = GateBack {
            rows: problem.counts[step],
            columns: columns.units(&self.crew.panels(columns, share)),
            gate: self.saved(&saved[round].gate, step, to),
            value,
            grad: self.rows_of(grad, 0, to),
            grad_preact: self.rows_of(self.at.rounds[round].gate, offset, to),
            copy: match (round, self.targets.at.get(Part::Input)) {
                // In backward order, this is the last round that changes x.
                (0, Some(&target)) => self.rows_of(target, offset, to),
                _ => Rows::NONE,
            },
        };
        // SAFETY: phases before are complete; this share's own columns.
        unsafe { gate.run(self.crew.isa) };
    }

    /// The backward of the first product of a low-rank round.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn unmix_inner(&self, step: usize, round: usize, share: usize) {
        let matrix = self.weight(Key::Round(round, RoundPart::Right));
        let grads = &self.at.rounds[round];
        let left = self.rows_as_factor(grads.gate, step, matrix.k);
        let out = self.rows_of(grads.inner, self.offsets[step], matrix.columns.count());
        // SAFETY: ∂p of the round is complete; this share's own columns.
        unsafe { self.times(matrix, left, out.ptr, Onto::Fresh, share) };
    }

    /// h before a step.
    fn hidden_row(&self, step: usize) -> Rows {
        let d_output = self.problem.d_output;
        match step {
            0 => Rows::read(self.parts.of(Part::Hidden).as_ptr(), d_output),
            _ => self.saved(self.output, step - 1, d_output),
        }
    }

    /// Copies or adds this share's columns of ∂h between rounds to ∂h of the step before.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn pass_on(&self, step: usize, share: usize) {
        let d_output = self.problem.d_output;
        let [_, grad_h] = self.at.between;
        let columns = &self.weight(Part::WeightHidden).columns;
        let panels = self.crew.panels(columns, share);
        let masked = self.pointwise.kind.masked;
        for row in 0..self.problem.counts[step] {
            for column in columns.units(&panels) {
                // SAFETY: this share's own columns.
                unsafe {
                    let index = row * d_output + column;
                    let target = self.at.hidden.add(index);
                    // Under zoneout, the direct part is already there.
                    let direct = if masked { *target } else { 0.0 };
                    *target = direct + *grad_h.add(index);
                }
            }
        }
    }
}

//! The gradients that are sums over all rows, and that of the input.

use super::*;
use crate::kernel::cpu::sums::Outer;

impl Run<'_> {
    /// ∂x = ∂z·Wᵀ, for this share's rows.
    pub(super) unsafe fn input(&self, share: usize) {
        let Some(&target) = self.targets.get(Part::Input) else {
            return;
        };
        if !self.problem.rounds.is_empty() {
            return; // done step by step
        }
        let (d_input, width) = (self.problem.d_input, self.problem.width());
        let columns = self.columns_input;
        let own = part(self.problem.rows(), share, self.shares);
        let mut start = own.start;
        while start < own.end {
            let rows = CHUNK_ROWS.min(own.end - start);
            let term = Term {
                a: View {
                    ptr: self.grad_preact.wrapping_add(start * width),
                    row: width,
                    column: 1,
                },
                k: width,
                weights: match self.weight_input {
                    Some(panels) => Weights::Packed(panels),
                    None => Weights::Native(self.transposed(Part::WeightInput)),
                },
            };
            // SAFETY: the scratch and the rows of this share.
            unsafe {
                let scratch = self.scratch.of(share);
                let out = target.add(start * d_input);
                let panels = 0..columns.panels();
                product(
                    self.isa,
                    scratch,
                    rows,
                    &[term],
                    &columns,
                    panels,
                    |panel, tile| {
                        write_tile(
                            self.isa,
                            tile,
                            &columns,
                            panel,
                            rows,
                            out,
                            d_input,
                            Onto::Fresh,
                        );
                    },
                );
            }
            start += rows;
        }
    }

    /// The matrices that weights are multiplied with, whose gradients are asked for.
    pub(super) fn factors_of(&self, key: Key) -> (Vec<(&[f32], usize)>, usize) {
        let problem = self.problem;
        let (d_hidden, rows) = (problem.d_hidden, problem.rows());
        let last = problem.rounds.len();
        match key {
            Key::Part(Part::WeightInput) => (self.before_round(last, true), problem.d_input),
            Key::Part(Part::WeightHidden) => (self.before_round(last, false), problem.d_output),
            Key::Part(Part::PeepholeFull) => (self.cell_before.pieces().collect(), d_hidden),
            Key::Part(_) => (vec![(&self.tape.unprojected[..], rows)], d_hidden),
            Key::Round(round, RoundPart::Matrix) => {
                let read = self.before_round(round, round % 2 == 1);
                (read, shape(problem, round).0)
            }
            Key::Round(round, _) => {
                let rank = problem.rounds[round].unwrap_or(0);
                (vec![(&self.tape.rounds[round].inner[..], rows)], rank)
            }
        }
    }

    /// Transposes this share's columns of what the weights are multiplied with.
    pub(super) unsafe fn transpose(&self, share: usize) {
        let rows = self.problem.rows();
        for &(key, target) in &self.transposed_factors {
            let (pieces, columns) = self.factors_of(key);
            let own = part(columns, share, self.shares);
            let mut row = 0;
            for (values, count) in pieces {
                let source = View::rows(values, columns).from_column(own.start);
                // SAFETY: this share's own rows of the transposed matrix.
                unsafe {
                    let target = target.add(own.start * rows + row);
                    transpose(source, count, own.len(), target, rows);
                }
                row += count;
            }
        }
    }

    /// `Σ_rows aᵀ·d` for this share's columns: the gradient of a weight that a is multiplied with.
    ///
    /// # Arguments
    /// * `d`, `n` - the gradient of the product, and its columns
    pub(super) unsafe fn outer(&self, key: impl Into<Key>, d: *const f32, n: usize, share: usize) {
        let key = key.into();
        let Some(&out) = self.targets.get(key) else {
            return;
        };
        let Some(&(_, a)) = self
            .transposed_factors
            .iter()
            .find(|(other, _)| *other == key)
        else {
            return;
        };
        let (_, m) = self.factors_of(key);
        let rows = self.problem.rows();
        let outer = Outer {
            a,
            m,
            rows,
            d,
            n,
            out,
        };
        // SAFETY: the scratch and the columns of this share; all rows are complete.
        unsafe { outer.run(self.isa, self.scratch.of(share), share, self.shares) };
    }

    /// The gradients that are sums over all rows, for this share's columns.
    pub(super) unsafe fn weights(&self, share: usize) {
        let problem = self.problem;
        let (d_hidden, d_output, width) = (problem.d_hidden, problem.d_output, problem.width());
        let rows = problem.rows();
        let through = match problem.norm_hidden {
            Some(_) => self.grad_product,
            None => self.grad_preact,
        };
        // SAFETY: all rows are complete; each share has columns of its own.
        unsafe {
            self.outer(Part::WeightInput, self.grad_preact, width, share);
            self.outer(Part::WeightHidden, through, width, share);
            self.outer(Part::PeepholeFull, self.grad_preact, width, share);
            self.outer(Part::Projection, self.grad_projected, d_output, share);
            for round in 0..problem.rounds.len() {
                self.round_weights(round, share);
            }

            let all = self.rows_of(self.grad_preact, 0, width);
            let own = part(width, share, self.shares);
            self.sum(Part::Bias, 0..rows, own.clone(), all, By::One);
            self.sum(Part::NormHiddenShift, 0..rows, own.clone(), all, By::One);
            let product = self.rows_of(self.grad_product, 0, width);
            self.sum(Part::BiasHidden, 0..rows, own.clone(), product, By::One);
            let normalized = By::Normalized {
                x: Rows::read(self.tape.preact_hidden.as_ptr(), width),
                stats: Rows::read(self.tape.stats_hidden.as_ptr(), STATS),
            };
            self.sum(Part::NormHiddenGain, 0..rows, own, all, normalized);

            let own = part(d_hidden, share, self.shares);
            let all = self.rows_of(self.grad_normalized, 0, d_hidden);
            self.sum(Part::NormCellShift, 0..rows, own.clone(), all, By::One);
            let normalized = By::Normalized {
                x: Rows::read(self.tape.raw.as_ptr(), d_hidden),
                stats: Rows::read(self.tape.stats_cell.as_ptr(), STATS),
            };
            self.sum(Part::NormCellGain, 0..rows, own.clone(), all, normalized);
            if self.pointwise.kind.peephole {
                self.peepholes(own);
            }
        }
    }

    /// x or h of all rows before a round.
    pub(super) fn before_round(&self, round: usize, input: bool) -> Vec<(&[f32], usize)> {
        let rows = self.problem.rows();
        let last = (0..round).rev().find(|last| (last % 2 == 0) == input);
        match last {
            Some(last) => vec![(&self.tape.rounds[last].value[..], rows)],
            None if input => vec![(*self.parts.of(Part::Input), rows)],
            None => self.hidden_before.pieces().collect(),
        }
    }

    /// The gradients of a round's matrices and bias, for this share's columns.
    pub(super) unsafe fn round_weights(&self, round: usize, share: usize) {
        let (_, to) = shape(self.problem, round);
        let rows = self.problem.rows();
        let grads = &self.round_grads[round];
        let matrix = Key::Round(round, RoundPart::Matrix);
        // SAFETY: all rows are complete; each share has columns of its own.
        unsafe {
            match self.problem.rounds[round] {
                None => self.outer(matrix, grads.gate, to, share),
                Some(rank) => {
                    self.outer(matrix, grads.inner, rank, share);
                    self.outer(Key::Round(round, RoundPart::Right), grads.gate, to, share);
                }
            }
            let all = self.rows_of(grads.gate, 0, to);
            let own = part(to, share, self.shares);
            self.sum(
                Key::Round(round, RoundPart::Bias),
                0..rows,
                own,
                all,
                By::One,
            );
        }
    }

    /// The gradients of diagonal peepholes, for some units.
    pub(super) unsafe fn peepholes(&self, units: Range<usize>) {
        let problem = self.problem;
        let (d_hidden, width) = (problem.d_hidden, problem.width());
        let shares = problem.coupling.shares();
        let gates = [
            (Part::PeepholeFirst, 0),
            (Part::PeepholeSecond, 1),
            (Part::PeepholeOutput, shares + 1),
        ];
        let raw = match self.tape.raw.is_empty() {
            true => &self.tape.cells,
            false => &self.tape.raw,
        };
        for (part, gate) in gates {
            let grads = self.rows_of(self.grad_preact.wrapping_add(gate * d_hidden), 0, width);
            let mut row = 0;
            if part == Part::PeepholeOutput && problem.output_sees_new {
                let by = By::Values(Rows::read(raw.as_ptr(), d_hidden));
                // SAFETY: these units are this share's own.
                unsafe { self.sum(part, 0..problem.rows(), units.clone(), grads, by) };
                continue;
            }
            for (values, rows) in self.cell_before.pieces() {
                let by = By::Values(Rows::read(values.as_ptr(), d_hidden));
                // SAFETY: as above.
                unsafe { self.sum(part, 0..rows, units.clone(), grads.from_row(row), by) };
                row += rows;
            }
        }
    }

    pub(super) unsafe fn sum(
        &self,
        key: impl Into<Key>,
        rows: Range<usize>,
        columns: Range<usize>,
        a: Rows,
        by: By,
    ) {
        let Some(&out) = self.targets.get(key) else {
            return;
        };
        let sum = SumRows {
            rows,
            columns,
            a,
            by,
            out,
        };
        // SAFETY: the columns are the calling share's own.
        unsafe { sum.run(self.isa) };
    }
}

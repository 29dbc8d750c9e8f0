//! The gradients that are sums over all rows, and that of the input.

use super::*;
use crate::fused::cpu::sums::{Outer, Right};

impl Run<'_> {
    /// ∂x = ∂z·Wᵀ, for this share's rows.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn input(&self, share: usize) {
        let Some(&target) = self.targets.get(Part::Input) else {
            return;
        };
        if !self.problem.rounds.is_empty() {
            return; // done step by step
        }
        let d_input = self.problem.d_input;
        let columns = self.columns_input;
        let own = part(self.problem.rows(), share, self.shares);
        let mut start = own.start;
        while start < own.end {
            let rows = CHUNK_ROWS.min(own.end - start);
            let (a, pieces) = self.layout.factor(self.grad_input, start);
            let weights = match self.packed.get(Part::WeightInput) {
                Some(panels) => panels.weights(),
                None => Weights::Native(self.transposed(Part::WeightInput)),
            };
            let term = Term {
                pieces,
                ..Term::new(a, self.layout.columns, weights)
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

    /// Back through LN_x, for this share's rows.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn norm_input(&self, share: usize) {
        let gain = self.parts.get(Part::NormInputGain);
        let norm = NormBackward {
            rows: part(self.problem.rows(), share, self.shares),
            gates: self.columns.vectors,
            units: self.problem.d_hidden,
            x: (self.layout).rows(self.tape.preact_input.as_ptr().cast_mut(), 0),
            stats: Rows::read(self.tape.stats_input.as_ptr(), STATS),
            gain: gain.map_or(core::ptr::null(), |gain| gain.as_ptr()),
            grad_y: self.layout.rows(self.grad_preact, 0),
            grad_x: self.layout.rows(self.grad_input, 0),
        };
        // SAFETY: ∂z is complete; this share's own rows.
        unsafe { norm.run(self.isa) };
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
                (read, problem.round_shape(round).0)
            }
            Key::Round(round, _) => {
                let rank = problem.rounds[round].unwrap_or(0);
                (vec![(&self.tape.rounds[round].inner[..], rows)], rank)
            }
        }
    }

    /// Transposes this share's columns of what the weights are multiplied with.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn transpose(&self, share: usize) {
        let rows = self.problem.rows();
        for &(key, target) in self.transposed_factors {
            let (pieces, columns) = self.factors_of(key);
            let own = part(columns, share, self.shares);
            let mut row = 0;
            for (values, count) in pieces {
                let source = View::rows(values, columns).from_column(own.start);
                // SAFETY: this share's own rows of the transposed matrix.
                unsafe {
                    let transpose = Transpose {
                        source,
                        rows: count,
                        columns: own.len(),
                        target: target.add(own.start * rows + row),
                        stride: rows,
                    };
                    transpose.run(self.isa);
                }
                row += count;
            }
        }
    }

    /// `Σ_rows aᵀ·d` for this share's columns: the gradient of a weight that a is multiplied with.
    ///
    /// # Arguments
    /// * `d`, `n` - the gradient of the product, and its columns
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn outer(&self, key: impl Into<Key>, d: Right, n: usize, share: usize) {
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
            stride: n,
            add: false,
        };
        // SAFETY: the scratch and the columns of this share; all rows are complete.
        unsafe { outer.run(self.isa, self.scratch.of(share), share, self.shares) };
    }

    /// The gradients that are sums over all rows, for this share's columns.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
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
            let right = |buffer: *mut f32| match self.layout.is_tiled() {
                true => Right::Panels(self.layout.packed(buffer), self.columns),
                false => Right::Rows(buffer),
            };
            self.outer(Part::WeightInput, right(self.grad_input), width, share);
            self.outer(Part::WeightHidden, right(through), width, share);
            self.outer(Part::PeepholeFull, right(self.grad_preact), width, share);
            let projected = Right::Rows(self.grad_projected);
            self.outer(Part::Projection, projected, d_output, share);
            for round in 0..problem.rounds.len() {
                self.round_weights(round, share);
            }

            let stats = Rows::read(self.tape.stats_hidden.as_ptr(), STATS);
            let x = self.tape.preact_hidden.as_ptr().cast_mut();
            let stats_input = Rows::read(self.tape.stats_input.as_ptr(), STATS);
            let x_input = self.tape.preact_input.as_ptr().cast_mut();
            let gates = 0..self.columns.vectors;
            for panel in self.columns.share(share, self.shares) {
                for gate in gates.clone() {
                    let columns = self.columns.of(panel, gate);
                    let of = |buffer: *mut f32| self.column_rows(buffer, panel, gate);
                    let sum = |part, buffer: *mut f32, by| {
                        self.sum(part, 0..rows, columns.clone(), of(buffer), by);
                    };
                    sum(Part::Bias, self.grad_preact, By::One);
                    sum(Part::NormHiddenShift, self.grad_preact, By::One);
                    sum(Part::BiasHidden, self.grad_product, By::One);
                    let normalized = By::Normalized { x: of(x), stats };
                    sum(Part::NormHiddenGain, self.grad_preact, normalized);
                    sum(Part::BiasInput, self.grad_input, By::One);
                    sum(Part::NormInputShift, self.grad_preact, By::One);
                    let normalized = By::Normalized {
                        x: of(x_input),
                        stats: stats_input,
                    };
                    sum(Part::NormInputGain, self.grad_preact, normalized);
                }
            }

            let own = part(d_hidden, share, self.shares);
            let all = self.rows_of(self.grad_normalized, 0, d_hidden);
            self.sum(Part::NormCellShift, 0..rows, own.clone(), all, By::One);
            let normalized = By::Normalized {
                x: Rows::read(self.tape.raw.as_ptr(), d_hidden),
                stats: Rows::read(self.tape.stats_cell.as_ptr(), STATS),
            };
            self.sum(Part::NormCellGain, 0..rows, own.clone(), all, normalized);
            if self.pointwise.kind.peephole {
                for panel in self.columns.share(share, self.shares) {
                    self.peepholes(panel);
                }
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
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn round_weights(&self, round: usize, share: usize) {
        let (_, to) = self.problem.round_shape(round);
        let rows = self.problem.rows();
        let grads = &self.round_grads[round];
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

    /// Rows of a buffer of gates for one vector of columns, found by the number of the column.
    fn column_rows(&self, buffer: *mut f32, panel: usize, gate: usize) -> Rows {
        let columns = self.columns.of(panel, gate);
        let rows = self.layout.rows(buffer, 0);
        Rows {
            ptr: rows.at(0, gate, panel).wrapping_sub(columns.start),
            stride: rows.row,
        }
    }

    /// The gradients of diagonal peepholes, for the units of a panel.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn peepholes(&self, panel: usize) {
        let problem = self.problem;
        let d_hidden = problem.d_hidden;
        let units = self.columns.units(&(panel..panel + 1));
        let shares = problem.coupling.shares();
        let gates = [
            (Part::PeepholeFirst, 0),
            (Part::PeepholeSecond, 1),
            (Part::PeepholeOutput, shares + 1),
        ];
        let raw = match self.tape.raw.is_empty() {
            true => self.cells,
            false => &self.tape.raw[..],
        };
        for (part, gate) in gates {
            let grads = self.column_rows(self.grad_preact, panel, gate);
            // Found by the number of the unit.
            let grads = Rows {
                ptr: grads.ptr.wrapping_add(gate * d_hidden),
                ..grads
            };
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

    /// The sum over all rows of some columns.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
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

//! What the phases of the backward do, step by step.

use super::*;

impl Run<'_> {
    /// `a·Wᵀ` for this share's columns, written or added to the rows of `out`.
    ///
    /// # Safety
    /// `a` is readable for the rows, the columns of `out` are this share's own.
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn times_transposed(
        &self,
        step: usize,
        part: Part,
        packed: Option<&Panels>,
        rows: usize,
        a: (View, Option<Pieces>),
        columns: &Columns,
        out: *mut f32,
        add: bool,
        share: usize,
    ) {
        let transposed = self.transposed(part);
        let (k, size) = match part {
            Part::WeightHidden => (self.layout.columns, self.problem.d_output),
            Part::PeepholeFull => (self.layout.columns, self.problem.d_hidden),
            Part::WeightInput => (self.layout.columns, self.problem.d_input),
            _ => (self.problem.d_output, self.problem.d_hidden),
        };
        // SAFETY: by the contract of this function.
        unsafe {
            self.times_back(
                (k, size),
                packed,
                transposed,
                rows,
                a,
                columns,
                out,
                add,
                step % 2 == 1,
                share,
            );
        }
    }

    /// `a·M` for this share's columns, M transposed in memory: packed, or read in its own order.
    ///
    /// # Arguments
    /// * `size` - rows and columns of M
    /// * `back` - whether to begin with the last columns
    ///
    /// # Safety
    /// As [`times_transposed`](Self::times_transposed).
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn times_back(
        &self,
        (k, size): (usize, usize),
        packed: Option<&Panels>,
        transposed: View,
        rows: usize,
        (a, pieces): (View, Option<Pieces>),
        columns: &Columns,
        out: *mut f32,
        add: bool,
        back: bool,
        share: usize,
    ) {
        let panels = columns.share(share, self.shares);
        let onto = if add { Onto::Sum } else { Onto::Fresh };
        // SAFETY: by the contract of this function.
        unsafe {
            let Some(packed) = packed else {
                debug_assert!(pieces.is_none());
                for row in 0..rows {
                    let times = RowTimesTransposed {
                        n: k,
                        a: a.from_row(row).ptr,
                        w: transposed.transposed(),
                        rows: columns.units(&panels),
                        out: out.add(row * size),
                        add,
                        back,
                    };
                    times.run(self.isa);
                }
                return;
            };
            let term = Term {
                pieces,
                ..Term::new(a, k, packed.weights())
            };
            let scratch = self.scratch.of(share);
            product(
                self.isa,
                scratch,
                rows,
                &[term],
                columns,
                to_and_fro(panels, usize::from(back)),
                |panel, tile| {
                    write_tile(self.isa, tile, columns, panel, rows, out, size, onto);
                },
            );
        }
    }

    /// What a step passes to the one before it: ∂h, and ∂c through full peepholes.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn pass_back(&self, step: usize, share: usize) {
        let problem = self.problem;
        let rows = problem.counts[step];
        let factor = |buffer: *mut f32| self.layout.factor(buffer, self.offsets[step]);
        let through = match problem.norm_hidden {
            Some(_) => self.grad_product,
            None => self.grad_preact,
        };
        if !problem.rounds.is_empty() {
            // SAFETY: ∂p of the first round is complete; this share's columns of ∂h.
            unsafe {
                self.unround(step, 0, self.grad_h, share);
                self.pass_on(step, share);
            }
            return;
        }
        // SAFETY: ∂z of the step is complete; this share's columns of ∂h and ∂c.
        unsafe {
            self.times_transposed(
                step,
                Part::WeightHidden,
                self.packed.get(Part::WeightHidden),
                rows,
                factor(through),
                &self.columns_hidden,
                self.grad_hidden,
                // Zoneout has left the direct part there.
                self.pointwise.kind.masked,
                share,
            );
            if self.parts.has(Part::PeepholeFull) {
                self.times_transposed(
                    step,
                    Part::PeepholeFull,
                    self.packed.get(Part::PeepholeFull),
                    rows,
                    factor(self.grad_preact),
                    &self.columns_cell,
                    self.grad_cell,
                    true,
                    share,
                );
            }
        }
    }

    /// The pointwise part of a step.
    pub(super) fn pointwise(&self, step: usize, rows: usize, units: Range<usize>) -> Backward {
        let problem = self.problem;
        let (d_hidden, d_output) = (problem.d_hidden, problem.d_output);
        let offset = self.offsets[step];
        let projected = self.parts.has(Part::Projection);
        let (grad_hidden, grad_output) = if projected {
            (self.rows_of(self.grad_unprojected, 0, d_hidden), Rows::NONE)
        } else {
            let grad_output = self.grad_output.as_ptr().cast_mut();
            (
                self.rows_of(self.grad_hidden, 0, d_output),
                self.rows_of(grad_output, offset, d_output),
            )
        };
        let cell = match step {
            0 => Rows::read(self.parts.of(Part::Cell).as_ptr(), d_hidden),
            _ => {
                let row = self.offsets[step - 1] * d_hidden;
                Rows::read(self.cells.as_ptr().wrapping_add(row), d_hidden)
            }
        };
        let saved = |values: &[f32], size: usize| {
            Rows::read(values.as_ptr().wrapping_add(offset * size), size)
        };
        Backward {
            rows,
            units,
            gates: self
                .layout
                .rows(self.tape.gates.as_ptr().cast_mut(), offset),
            cell,
            normalized: saved(&self.tape.normalized, d_hidden),
            carry_normalized: problem.carry_normalized,
            grad_hidden,
            grad_output,
            grad_cell: self.rows_of(self.grad_cell, 0, d_hidden),
            grad_normalized: self.rows_of(self.grad_normalized, offset, d_hidden),
            grad_raw: self.rows_of(self.grad_raw, 0, d_hidden),
            grad_preact: self.layout.rows(self.grad_preact, offset),
            masks: self.pointwise.masks(problem, offset, projected),
            peepholes: self.pointwise.peepholes,
            clip: problem.clip,
        }
    }

    /// ∂h of a step, where a projection or masks on h come between.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn hidden(&self, step: usize, share: usize) {
        let share = turn(share, self.shares_each, step);
        let problem = self.problem;
        let rows = problem.counts[step];
        // SAFETY: the step after it is complete; this share's own columns.
        unsafe {
            if step + 1 < problem.counts.len() {
                self.pass_back(step + 1, share);
            }
            let panels = self.columns_hidden.share(share, self.shares);
            let units = self.columns_hidden.units(&panels);
            if self.parts.has(Part::Projection) {
                self.mask_projected(step, rows, units);
            } else if !problem.by_row() {
                self.add_given(step, 0..rows, units.clone());
                let backward = self.pointwise(step, rows, units);
                backward.run(self.isa, self.pointwise.kind, Half::Both);
            }
        }
    }

    /// Adds the gradient that c' of some rows of a step has as an output of the call, if it is one, to
    /// ∂c' from later steps.
    ///
    /// # Safety
    /// Later steps are complete; the units of ∂c' are this share's own in these rows.
    unsafe fn add_given(&self, step: usize, rows: Range<usize>, units: Range<usize>) {
        if self.grad_cells.is_empty() {
            return;
        }
        let d_hidden = self.problem.d_hidden;
        let given = self.grad_cells.as_ptr().cast_mut();
        let add = AddRows {
            rows: rows.len(),
            columns: units,
            from: self.rows_of(given, self.offsets[step] + rows.start, d_hidden),
            to: self.rows_of(self.grad_cell, rows.start, d_hidden),
        };
        // SAFETY: `from` has a row of H values per row of the call and is only read; `to` has one per
        // sequence, of which the contract of this function leaves these units to this share.
        unsafe { add.run(self.isa) };
    }

    /// ∂h' to the gradient of what the projection gave: back through the masks on h.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn mask_projected(&self, step: usize, rows: usize, columns: Range<usize>) {
        let problem = self.problem;
        let (offset, d_output) = (self.offsets[step], problem.d_output);
        let masked = self.pointwise.kind.masked;
        let mask = self.pointwise.mask(problem, Part::MaskHidden, offset);
        let update = self.pointwise.mask(problem, Part::UpdateHidden, offset);
        for row in 0..rows {
            for column in columns.clone() {
                // SAFETY: this share's own columns of ∂h'; masks have these columns.
                unsafe {
                    let later = self.grad_hidden.add(row * d_output + column);
                    let index = (offset + row) * d_output + column;
                    let mut grad = *later + self.grad_output[index];
                    if masked {
                        let update = *update.from_row(row).ptr.add(column);
                        *later = (1.0 - update) * grad;
                        grad *= update * *mask.from_row(row).ptr.add(column);
                    }
                    *self.grad_projected.add(index) = grad;
                }
            }
        }
    }

    /// ∂h̃ = ∂h·Pᵀ of a step.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn unproject(&self, step: usize, share: usize) {
        let problem = self.problem;
        let rows = problem.counts[step];
        let d_output = problem.d_output;
        let a = View {
            ptr: self
                .grad_projected
                .wrapping_add(self.offsets[step] * d_output),
            row: d_output,
            column: 1,
        };
        // SAFETY: ∂(h̃·P) is complete; this share's own units.
        unsafe {
            self.times_transposed(
                step,
                Part::Projection,
                self.packed.get(Part::Projection),
                rows,
                (a, None),
                &self.columns_cell,
                self.grad_unprojected,
                false,
                share,
            );
            if !problem.by_row() {
                let panels = self.columns_cell.share(share, self.shares);
                let units = self.columns_cell.units(&panels);
                self.add_given(step, 0..rows, units.clone());
                let backward = self.pointwise(step, rows, units);
                backward.run(self.isa, self.pointwise.kind, Half::Both);
            }
        }
    }

    /// What needs whole rows of a step: the derivatives of normalisations, and the pointwise part between.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn rows(&self, step: usize, share: usize) {
        let problem = self.problem;
        let d_hidden = problem.d_hidden;
        let rows = part(problem.counts[step], share, self.shares);
        if rows.is_empty() {
            return;
        }
        let offset = self.offsets[step];
        let null = core::ptr::null();
        let weight = |part| self.parts.get(part).map_or(null, |v| v.as_ptr());
        let saved = |values: &[f32], size: usize| {
            Rows::read(values.as_ptr().wrapping_add(offset * size), size)
        };
        let whole = self.pointwise(step, rows.len(), 0..d_hidden);
        let backward = whole.from_row(rows.start);
        // SAFETY: this share's own rows.
        unsafe {
            self.add_given(step, rows.clone(), 0..d_hidden);
            if problem.norm_cell.is_some() {
                backward
                    .clone()
                    .run(self.isa, self.pointwise.kind, Half::Hidden);
                let through = self.rows_of(self.grad_through, 0, d_hidden);
                let gates = |rows: Rows| rows.gates(d_hidden, self.isa);
                let norm = NormBackward {
                    rows: rows.clone(),
                    gates: 1,
                    units: d_hidden,
                    x: gates(saved(&self.tape.raw, d_hidden)),
                    stats: saved(&self.tape.stats_cell, STATS),
                    gain: weight(Part::NormCellGain),
                    grad_y: gates(whole.grad_normalized),
                    grad_x: gates(through),
                };
                norm.run(self.isa);
                let gates = Backward {
                    grad_normalized: through.from_row(rows.start),
                    ..backward
                };
                gates.run(self.isa, self.pointwise.kind, Half::Gates);
            } else {
                backward.run(self.isa, self.pointwise.kind, Half::Both);
            }
            if problem.norm_hidden.is_some() {
                let norm = NormBackward {
                    rows,
                    gates: self.columns.vectors,
                    units: d_hidden,
                    x: (self.layout).rows(self.tape.preact_hidden.as_ptr().cast_mut(), offset),
                    stats: saved(&self.tape.stats_hidden, STATS),
                    gain: weight(Part::NormHiddenGain),
                    grad_y: whole.grad_preact,
                    grad_x: self.layout.rows(self.grad_product, offset),
                };
                norm.run(self.isa);
            }
        }
    }
}

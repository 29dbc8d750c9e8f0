//! What the phases of the forward do.

use super::*;

impl Run<'_> {
    /// x·W + b of a chunk, for this share's panels.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn project(&self, chunk: usize, share: usize) {
        let problem = self.problem;
        let steps = &self.chunks[chunk];
        let first = self.offsets[steps.start];
        let rows = self.offsets[steps.end] - first;
        let (d_input, width) = (problem.d_input, problem.width());
        let term = self.input_term(first);
        let w = View::rows(self.parts.of(Part::WeightInput), width);
        let (bias, target) = match problem.norm_input {
            Some(_) => (None, self.raw_input(chunk, steps.start).0),
            None => (self.parts.get(Part::Bias), self.preact(chunk, steps.start)),
        };
        let panels = self.columns.share(share, self.shares);
        if self.layout.is_tiled() {
            // SAFETY: the scratch and the panels of this share; x and w have these sizes.
            unsafe {
                let begin = match problem.norm_input {
                    Some(_) => Begin::Zero,
                    None => Begin::Row(self.bias_tiles),
                };
                self.sum_up(share, rows, &[term], target, begin, panels, |_| ());
            }
            return;
        }
        let fill = |columns: Range<usize>| {
            // SAFETY: this share's own columns of the only row.
            let target = unsafe {
                core::slice::from_raw_parts_mut(target.ptr.add(columns.start), columns.len())
            };
            match bias {
                Some(bias) => target.copy_from_slice(&bias[columns]),
                None => target.fill(0.0),
            }
        };
        if self.by_rows_of_w && rows == 1 {
            // SAFETY: an order has an entry per row.
            let row = unsafe { term.order.as_ref() }.copied().unwrap_or(0);
            let x = term.a.from_row(row);
            for columns in self.gate_columns(panels) {
                fill(columns.clone());
                let times = RowTimes {
                    k: d_input,
                    a: x.ptr,
                    w,
                    columns,
                    out: target.ptr,
                    back: false,
                };
                // SAFETY: this share's own columns.
                unsafe { times.run(self.isa) };
            }
            return;
        }
        // SAFETY: the scratch of this share; x has these rows, w and target these columns.
        unsafe {
            let scratch = self.scratch.of(share);
            let columns = &self.columns;
            let onto = bias.map_or(Onto::Fresh, |bias| Onto::Row(bias.as_ptr()));
            product(
                self.isa,
                scratch,
                rows,
                &[term],
                columns,
                panels,
                |panel, tile| {
                    write_tile(
                        self.isa, tile, columns, panel, rows, target.ptr, width, onto,
                    );
                },
            );
        }
    }

    /// LN_x of a chunk, for this share's rows.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn norm_input(&self, chunk: usize, share: usize) {
        let problem = self.problem;
        let Some(form) = problem.norm_input else {
            return;
        };
        let steps = &self.chunks[chunk];
        let rows = self.offsets[steps.end] - self.offsets[steps.start];
        let null = core::ptr::null();
        let (x, stats) = self.raw_input(chunk, steps.start);
        let weight = |part| self.parts.get(part).map_or(null, |v| v.as_ptr());
        let norm = NormForward {
            rows: part(rows, share, self.shares),
            gates: self.columns.vectors,
            units: problem.d_hidden,
            form,
            x,
            bias: weight(Part::BiasInput),
            base: GateRows::NONE,
            gain: weight(Part::NormInputGain),
            shift: self.shift_input.map_or(null, <[f32]>::as_ptr),
            y: self.preact(chunk, steps.start),
            stats,
        };
        // SAFETY: this share's own rows.
        unsafe { norm.run(self.isa) };
    }

    /// Products into tiles of gates.
    ///
    /// # Safety
    /// The panels are the share's own, `target` is in tiles, and what the terms read is complete.
    #[allow(clippy::too_many_arguments)] // a product and where it goes
    unsafe fn sum_up(
        &self,
        share: usize,
        rows: usize,
        terms: &[Term],
        target: GateRows,
        begin: Begin,
        panels: impl IntoIterator<Item = usize>,
        mut finish: impl FnMut(usize),
    ) {
        let sums = Sums {
            ptr: target.ptr,
            panel: target.panel,
            begin,
        };
        // SAFETY: by the contract of this function.
        unsafe {
            product_into(
                self.isa,
                self.scratch.of(share),
                rows,
                terms,
                &self.columns,
                panels,
                sums,
                |panel, _| finish(panel),
            );
        }
    }

    /// The columns of some gate panels, gate by gate.
    pub(super) fn gate_columns(&self, panels: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let units = self.columns.units(&panels);
        let d_hidden = self.problem.d_hidden;
        (0..self.columns.vectors)
            .map(move |gate| gate * d_hidden + units.start..gate * d_hidden + units.end)
    }

    /// The products of a step, and its pointwise part where no whole row is needed.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn step(&self, chunk: usize, step: usize, share: usize) {
        let share = turn(share, self.shares_each, step);
        let problem = self.problem;
        let rows = problem.counts[step];
        let width = problem.width();
        let panels = self.columns.share(share, self.shares);
        let preact = self.preact(chunk, step);
        let own = self.own_preact(chunk, step);
        let copy_preact = |columns: Range<usize>, row: usize| {
            if own.ptr != preact.ptr {
                // SAFETY: this share's own columns of a row of the step, in two buffers.
                unsafe {
                    core::ptr::copy_nonoverlapping(
                        preact.from_row(row).ptr.add(columns.start),
                        own.from_row(row).ptr.add(columns.start),
                        columns.len(),
                    );
                }
            }
        };

        let rounds = problem.rounds.len();
        let hidden = self.before_round(step, rounds, false);
        let mut terms = [self.term(Part::WeightHidden, hidden); 3];
        let mut count = 1;
        if self.in_step {
            terms[count] = match rounds {
                0 => self.input_term(self.offsets[step]),
                _ => self.term(Part::WeightInput, self.before_round(step, rounds, true)),
            };
            count += 1;
        }
        if self.parts.has(Part::PeepholeFull) {
            let (cell, _) = self.cells(step);
            let cell = View {
                ptr: cell.ptr,
                row: cell.stride,
                column: 1,
            };
            terms[count] = self.term(Part::PeepholeFull, cell);
            count += 1;
        }
        let terms = &terms[..count];

        // With LN_h, h·R goes to rows of its own; the other terms are not normalised.
        let separate = problem.norm_hidden.is_some();
        let separate_rows = self.product_rows(step);
        let (separate_terms, terms) = terms.split_at(usize::from(separate));
        if let Some(bf16) = self.bf16 {
            self.step_in_bf16(bf16, chunk, step, share);
            return;
        }
        if self.layout.is_tiled() {
            // SAFETY: this share's own panels.
            unsafe { self.step_in_tiles(chunk, step, share, panels, separate_terms, terms) };
            return;
        }
        if self.by_rows_of_w {
            for columns in self.gate_columns(panels.clone()) {
                if separate {
                    // SAFETY: this share's own columns of the row.
                    unsafe {
                        core::slice::from_raw_parts_mut(
                            separate_rows.ptr.add(columns.start),
                            columns.len(),
                        )
                    }
                    .fill(0.0);
                }
                if !terms.is_empty() {
                    copy_preact(columns.clone(), 0);
                }
                let targets = separate_terms.iter().map(|term| (term, separate_rows.ptr));
                for (term, target) in targets.chain(terms.iter().map(|term| (term, own.ptr))) {
                    let Weights::Native(w) = term.weights else {
                        unreachable!("packed weights are not read by rows")
                    };
                    let times = RowTimes {
                        k: term.k,
                        a: term.a.ptr,
                        w,
                        columns: columns.clone(),
                        out: target,
                        back: step % 2 == 1,
                    };
                    // SAFETY: this share's own columns.
                    unsafe { times.run(self.isa) };
                }
            }
            if !problem.by_row() {
                let units = self.columns.units(&panels);
                let forward = Forward {
                    preact: own,
                    gates: if self.keep { own } else { self.dropped(share) },
                    ..self.pointwise(step, rows, units)
                };
                // SAFETY: this share's own units.
                unsafe { forward.run(self.isa, self.pointwise.kind, Half::Both) };
            }
            return;
        }

        let columns = &self.columns;
        // The gates of one sequence's panel are one chain of operations; those of all its panels
        // overlap.
        let at_once = rows == 1 && !problem.by_row();
        let finish = |panel: usize, tile| {
            // SAFETY: this share's own panel: its columns, its units.
            unsafe {
                if at_once {
                    let onto = Onto::Row(preact.ptr);
                    write_tile(self.isa, tile, columns, panel, 1, own.ptr, width, onto);
                } else if problem.by_row() {
                    for row in 0..rows {
                        for vector in 0..columns.vectors {
                            copy_preact(columns.of(panel, vector), row);
                        }
                    }
                    write_tile(
                        self.isa,
                        tile,
                        columns,
                        panel,
                        rows,
                        own.ptr,
                        width,
                        Onto::Sum,
                    );
                } else {
                    let forward = Forward {
                        tile: Some(tile),
                        preact,
                        gates: if self.keep { own } else { self.dropped(share) },
                        ..self.pointwise(step, rows, columns.units(&(panel..panel + 1)))
                    };
                    forward.run(self.isa, self.pointwise.kind, Half::Both);
                }
            }
        };
        if rows == 1 {
            // Other workers have written most of it: their lines come all at the same time.
            fetch(hidden.ptr, problem.d_output);
        }
        // SAFETY: the scratch of this share; h, c and the weights have these sizes.
        unsafe {
            let scratch = self.scratch.of(share);
            if separate {
                let target = separate_rows.ptr;
                product(
                    self.isa,
                    scratch,
                    rows,
                    separate_terms,
                    columns,
                    panels.clone(),
                    |panel, tile| {
                        write_tile(
                            self.isa,
                            tile,
                            columns,
                            panel,
                            rows,
                            target,
                            width,
                            Onto::Fresh,
                        );
                    },
                );
            }
            if !terms.is_empty() {
                let units = columns.units(&panels);
                let panels = to_and_fro(panels, step);
                product(self.isa, scratch, rows, terms, columns, panels, finish);
                if at_once {
                    let forward = Forward {
                        preact: own,
                        gates: if self.keep { own } else { self.dropped(share) },
                        ..self.pointwise(step, rows, units)
                    };
                    forward.run(self.isa, self.pointwise.kind, Half::Both);
                }
            }
        }
    }

    /// A step whose gates are in tiles.
    ///
    /// # Arguments
    /// * `separate`, `terms` - the product that LN_h normalises, and those that are not normalised
    ///
    /// # Safety
    /// As [`work`](Run::work); the panels are the share's own.
    unsafe fn step_in_tiles(
        &self,
        chunk: usize,
        step: usize,
        share: usize,
        panels: Range<usize>,
        separate: &[Term],
        terms: &[Term],
    ) {
        let problem = self.problem;
        let rows = problem.counts[step];
        let own = self.own_preact(chunk, step);
        // The gates of one sequence's panel are one chain of operations; those of all its panels
        // overlap.
        let at_once = rows == 1 && !problem.by_row();
        let apply = |units: Range<usize>| {
            let forward = Forward {
                preact: own,
                gates: if self.keep { own } else { self.dropped(share) },
                ..self.pointwise(step, rows, units)
            };
            // SAFETY: this share's own units, whose pre-activations are complete.
            unsafe { forward.run(self.isa, self.pointwise.kind, Half::Both) };
        };
        if rows == 1 {
            // Other workers have written most of it: their lines come all at the same time.
            fetch(self.hidden(step).ptr, problem.d_output);
        }
        // SAFETY: this share's own panels; h, c and the weights are complete.
        unsafe {
            if !separate.is_empty() {
                let target = self.product_rows(step);
                let panels = panels.clone();
                self.sum_up(share, rows, separate, target, Begin::Zero, panels, |_| ());
            }
            if terms.is_empty() {
                return;
            }
            let units = self.columns.units(&panels);
            let begin = match self.in_step {
                true => Begin::Row(self.bias_tiles),
                false => Begin::There,
            };
            let panels = to_and_fro(panels, step);
            self.sum_up(share, rows, terms, own, begin, panels, |panel| {
                if !problem.by_row() && !at_once {
                    apply(self.columns.units(&(panel..panel + 1)));
                }
            });
            if at_once {
                apply(units);
            }
        }
    }

    /// A step of one sequence with R in bf16.
    pub(super) fn step_in_bf16(&self, bf16: &Bf16Panels, chunk: usize, step: usize, share: usize) {
        let problem = self.problem;
        let pairs = part(bf16.pairs(), share, self.shares);
        let units = bf16.units_of(&pairs);
        if units.is_empty() {
            return;
        }
        let preact = self.preact(chunk, step);
        let own = self.own_preact(chunk, step);
        let separate = problem.norm_hidden.is_some();
        let target = if separate {
            self.product_rows(step).ptr
        } else {
            own.ptr
        };
        for gate in 0..self.columns.vectors {
            let first = gate * problem.d_hidden + units.start;
            // SAFETY: this share's own units of the only row.
            unsafe {
                if separate {
                    core::slice::from_raw_parts_mut(target.add(first), units.len()).fill(0.0);
                } else if own.ptr != preact.ptr {
                    let source = preact.ptr.add(first);
                    core::ptr::copy_nonoverlapping(source, target.add(first), units.len());
                }
            }
        }
        let times = RowTimesBf16 {
            a: self.hidden(step).ptr,
            w: bf16,
            pairs,
            out: target,
            step,
        };
        // SAFETY: this share's own units.
        unsafe {
            times.run(self.isa);
            if !problem.by_row() {
                let forward = Forward {
                    preact: own,
                    gates: self.dropped(share),
                    ..self.pointwise(step, 1, units)
                };
                forward.run(self.isa, self.pointwise.kind, Half::Both);
            }
        }
    }

    /// What needs whole rows of a step: normalisations, and the pointwise part after them.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn rows(&self, chunk: usize, step: usize, share: usize) {
        let problem = self.problem;
        let d_hidden = problem.d_hidden;
        let rows = part(problem.counts[step], share, self.shares);
        if rows.is_empty() {
            return;
        }
        let null = core::ptr::null();
        let weight = |part| self.parts.get(part).map_or(null, |v| v.as_ptr());
        let own = self.own_preact(chunk, step);
        let mut preact = own;
        if let Some(form) = problem.norm_hidden {
            let x = self.product_rows(step);
            // In inference the product is not needed any more.
            preact = if self.keep { own } else { x };
            // Products that are not normalised have been added there.
            let base = match self.in_step || self.parts.has(Part::PeepholeFull) {
                true => own,
                false => self.preact(chunk, step),
            };
            let norm = NormForward {
                rows: rows.clone(),
                gates: self.columns.vectors,
                units: d_hidden,
                form,
                x,
                bias: weight(Part::BiasHidden),
                base,
                gain: weight(Part::NormHiddenGain),
                shift: weight(Part::NormHiddenShift),
                y: preact,
                stats: self.kept(self.stats_hidden, step, STATS),
            };
            // SAFETY: this share's own rows.
            unsafe { norm.run(self.isa) };
        }
        // Pointwise operations count rows from their first.
        let whole = Forward {
            preact,
            gates: preact,
            ..self.pointwise(step, rows.len(), 0..d_hidden)
        };
        let forward = whole.from_row(rows.start);
        // SAFETY: this share's own rows.
        unsafe {
            let Some(form) = problem.norm_cell else {
                forward.run(self.isa, self.pointwise.kind, Half::Both);
                return;
            };
            forward
                .clone()
                .run(self.isa, self.pointwise.kind, Half::Gates);
            let norm = NormForward {
                rows,
                gates: 1,
                units: d_hidden,
                form,
                x: whole.raw.gates(d_hidden, self.isa),
                bias: null,
                base: GateRows::NONE,
                gain: weight(Part::NormCellGain),
                shift: weight(Part::NormCellShift),
                y: whole.normalized.gates(d_hidden, self.isa),
                stats: self.kept(self.stats_cell, step, STATS),
            };
            norm.run(self.isa);
            forward.run(self.isa, self.pointwise.kind, Half::Hidden);
        }
    }

    /// The projection of h̃ of a step.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    pub(super) unsafe fn out(&self, step: usize, share: usize) {
        let problem = self.problem;
        let rows = problem.counts[step];
        let (d_hidden, d_output) = (problem.d_hidden, problem.d_output);
        let offset = self.offsets[step];
        let a = self.kept(self.unprojected, step, d_hidden);
        let a = View {
            ptr: a.ptr,
            row: d_hidden,
            column: 1,
        };
        let target = self.output.wrapping_add(offset * d_output);
        let columns = &self.columns_out;
        let panels = columns.share(share, self.shares);
        let hidden = self.hidden(step);
        let term = self.term(Part::Projection, a);
        let finish = |panel: usize, tile| {
            // SAFETY: this share's own columns of h'.
            unsafe {
                write_tile(
                    self.isa,
                    tile,
                    columns,
                    panel,
                    rows,
                    target,
                    d_output,
                    Onto::Fresh,
                )
            };
            if !self.pointwise.kind.masked {
                return;
            }
            let mask = self.pointwise.mask(problem, Part::MaskHidden, offset);
            let update = self.pointwise.mask(problem, Part::UpdateHidden, offset);
            for row in 0..rows {
                for column in columns.units(&(panel..panel + 1)) {
                    // SAFETY: as above; masks and h have these columns.
                    unsafe {
                        let value = target.add(row * d_output + column);
                        let update = *update.from_row(row).ptr.add(column);
                        let old = *hidden.from_row(row).ptr.add(column);
                        let new = *value * *mask.from_row(row).ptr.add(column);
                        *value = update * new + (1.0 - update) * old;
                    }
                }
            }
        };
        // SAFETY: the scratch of this share; h̃ and P have these sizes.
        unsafe {
            let scratch = self.scratch.of(share);
            product(self.isa, scratch, rows, &[term], columns, panels, finish);
        }
    }
}

//! The recurrent product of a step, and the pointwise part if no complete row is needed.

use core::ops::Range;

use super::Forward;
use crate::fused::cpu::bf16::{Bf16Panels, RowTimesBf16};
use crate::fused::cpu::pointwise::{self, Half};
use crate::fused::cpu::product::{Begin, Onto, Sums, Term, Weights, fetch, part, serpentine};
use crate::fused::cpu::rows::RowTimes;
use crate::fused::cpu::view::{GateRows, Rows};
use crate::fused::problem::Part;

/// The terms of a step's product.
struct Terms {
    list: [Term; 3],
    count: usize,
    /// Whether the first term, h·R, is normalised separately.
    separate: bool,
}

impl Terms {
    /// The normalised term, if any, and the other terms.
    fn split(&self) -> (&[Term], &[Term]) {
        self.list[..self.count].split_at(usize::from(self.separate))
    }
}

/// One share of one step.
struct Share {
    chunk: usize,
    step: usize,
    share: usize,
    rows: usize,
    panels: Range<usize>,
}

impl Forward<'_> {
    /// The products of a step, and its pointwise part if no complete row is needed.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn step(&self, chunk: usize, step: usize, share: usize) {
        let share = self.crew.serpentine(share, step);
        let own = Share {
            chunk,
            step,
            share,
            rows: self.problem.counts[step],
            panels: self.crew.panels(&self.plan.columns, share),
        };
        let terms = self.terms(step);
        // SAFETY: this share's own panels; h, c and the weights are complete.
        unsafe {
            match self.bf16 {
                Some(bf16) => self.step_in_bf16(bf16, &own),
                None if self.plan.gates.is_tiled() => self.step_in_tiles(&own, &terms),
                None if self.plan.by_rows_of_w => self.step_by_rows(&own, &terms),
                None => self.step_in_panels(&own, &terms),
            }
        }
    }

    /// The terms of a step; with LN_h, h·R is separate.
    fn terms(&self, step: usize) -> Terms {
        let (problem, rounds) = (self.problem, self.problem.rounds.len());
        let hidden = self.before_round(step, rounds, false).view();
        let mut list = [self.weight(Part::WeightHidden).term(hidden); 3];
        let mut count = 1;
        if self.plan.in_step {
            list[count] = match rounds {
                0 => self.input_term(self.offsets[step]),
                _ => {
                    let input = self.before_round(step, rounds, true);
                    self.weight(Part::WeightInput).term(input.view())
                }
            };
            count += 1;
        }
        if self.parts.has(Part::PeepholeFull) {
            let (cell, _) = self.cells(step);
            list[count] = self.weight(Part::PeepholeFull).term(cell.view());
            count += 1;
        }
        Terms {
            list,
            count,
            separate: problem.norm_hidden.is_some(),
        }
    }

    /// Applies the gates of some units, whose pre-activations are complete.
    ///
    /// # Safety
    /// The units are the share's own.
    unsafe fn apply(&self, own: &Share, preact: GateRows, units: Range<usize>) {
        let forward = pointwise::LstmForward {
            preact,
            gates: match self.plan.save {
                true => preact,
                false => self.unread(own.share),
            },
            ..self.pointwise(own.step, own.rows, units)
        };
        // SAFETY: by the contract of this function.
        unsafe { forward.run(self.crew.isa, self.pointwise.kind, Half::Both) };
    }

    /// A step whose gates are in tiles.
    ///
    /// # Safety
    /// As [`step`](Self::step).
    unsafe fn step_in_tiles(&self, own: &Share, terms: &Terms) {
        let &Share { step, rows, .. } = own;
        let preact = self.own_preact(own.chunk, step);
        let by_row = self.problem.by_row();
        // For one sequence, the gates of one panel are a serial dependency chain; those of all its panels
        // overlap.
        let at_once = rows == 1 && !by_row;
        if rows == 1 {
            // Most of this row was written by other workers: the prefetch overlaps the cache misses.
            fetch(self.hidden(step).ptr, self.problem.d_output);
        }
        let (separate, terms) = terms.split();
        let sums = |target: GateRows, begin| Sums {
            ptr: target.ptr,
            panel: target.panel,
            begin,
        };
        let columns = &self.plan.columns;
        // SAFETY: this share's own panels; h, c and the weights are complete.
        unsafe {
            let scratch = self.crew.scratch(own.share);
            if !separate.is_empty() {
                let target = sums(self.product_rows(step), Begin::Zero);
                let product = self.product(rows, separate);
                product.sum_into(scratch, own.panels.clone(), target, |_, _| ());
            }
            if terms.is_empty() {
                return;
            }
            let begin = match self.plan.in_step {
                true => Begin::Row(self.biases.tiles.as_ptr()),
                false => Begin::There,
            };
            let panels = serpentine(own.panels.clone(), step);
            let product = self.product(rows, terms);
            product.sum_into(scratch, panels, sums(preact, begin), |panel, _| {
                if !by_row && !at_once {
                    self.apply(own, preact, columns.units(&(panel..panel + 1)));
                }
            });
            if at_once {
                self.apply(own, preact, columns.units(&own.panels));
            }
        }
    }

    /// A step of one sequence whose weights are read in row-major order.
    ///
    /// # Safety
    /// As [`step`](Self::step).
    unsafe fn step_by_rows(&self, own: &Share, terms: &Terms) {
        let step = own.step;
        let preact = self.own_preact(own.chunk, step);
        let (separate, terms) = terms.split();
        let product = self.product_rows(step);
        for columns in self.plan.columns.ranges(own.panels.clone()) {
            // SAFETY: this share's own columns of the only row.
            unsafe {
                if !separate.is_empty() {
                    fill_zero(product, columns.clone());
                }
                if !terms.is_empty() {
                    self.begin_row(own, preact, columns.clone());
                }
            }
            let targets = separate.iter().map(|term| (term, product.ptr));
            for (term, out) in targets.chain(terms.iter().map(|term| (term, preact.ptr))) {
                let Weights::Native(w) = term.weights else {
                    unreachable!("packed weights are not read by rows")
                };
                let times = RowTimes {
                    k: term.k,
                    a: term.a.ptr,
                    w,
                    columns: columns.clone(),
                    out,
                    back: step % 2 == 1,
                };
                // SAFETY: this share's own columns.
                unsafe { times.run(self.crew.isa) };
            }
        }
        if !self.problem.by_row() {
            let units = self.plan.columns.units(&own.panels);
            // SAFETY: this share's own units.
            unsafe { self.apply(own, preact, units) };
        }
    }

    /// Copies the input's pre-activations to the row to which the step adds, if that is a different one.
    ///
    /// # Safety
    /// The columns of the only row are the caller's own.
    unsafe fn begin_row(&self, own: &Share, target: GateRows, columns: Range<usize>) {
        let preact = self.preact(own.chunk, own.step);
        if target.ptr == preact.ptr {
            return;
        }
        // SAFETY: by the contract of this function; the two rows are in different buffers.
        unsafe {
            core::ptr::copy_nonoverlapping(
                preact.ptr.add(columns.start),
                target.ptr.add(columns.start),
                columns.len(),
            );
        }
    }

    /// A step of one sequence with packed weights and row-major gates.
    ///
    /// # Safety
    /// As [`step`](Self::step).
    unsafe fn step_in_panels(&self, own: &Share, terms: &Terms) {
        debug_assert_eq!(own.rows, 1);
        let preact = self.own_preact(own.chunk, own.step);
        let begin = self.preact(own.chunk, own.step);
        let (separate, terms) = terms.split();
        // Most of this row was written by other workers: the prefetch overlaps the cache misses.
        fetch(self.hidden(own.step).ptr, self.problem.d_output);
        let row = |rows: GateRows| Rows {
            ptr: rows.ptr,
            stride: rows.row,
        };
        // SAFETY: this share's own panels; h, c and the weights are complete.
        unsafe {
            let scratch = self.crew.scratch(own.share);
            if !separate.is_empty() {
                let target = row(self.product_rows(own.step));
                let product = self.product(1, separate);
                product.write(scratch, own.panels.clone(), target, Onto::Fresh);
            }
            if terms.is_empty() {
                return;
            }
            let panels = serpentine(own.panels.clone(), own.step);
            let product = self.product(1, terms);
            product.write(scratch, panels, row(preact), Onto::Row(begin.ptr));
            if !self.problem.by_row() {
                self.apply(own, preact, self.plan.columns.units(&own.panels));
            }
        }
    }

    /// A step of one sequence with R in bf16.
    ///
    /// # Safety
    /// As [`step`](Self::step).
    unsafe fn step_in_bf16(&self, bf16: &Bf16Panels, own: &Share) {
        let pairs = part(bf16.pairs(), own.share, self.crew.shares);
        let units = bf16.units_of(&pairs);
        if units.is_empty() {
            return;
        }
        let preact = self.own_preact(own.chunk, own.step);
        let separate = self.problem.norm_hidden.is_some();
        let target = match separate {
            true => self.product_rows(own.step),
            false => preact,
        };
        for gate in 0..self.plan.columns.vectors {
            let first = gate * self.problem.d_hidden;
            let columns = first + units.start..first + units.end;
            // SAFETY: this share's own units of the only row.
            unsafe {
                match separate {
                    true => fill_zero(target, columns),
                    false => self.begin_row(own, target, columns),
                }
            }
        }
        let times = RowTimesBf16 {
            a: self.hidden(own.step).ptr,
            w: bf16,
            pairs,
            out: target.ptr,
            step: own.step,
        };
        // SAFETY: this share's own units.
        unsafe {
            times.run(self.crew.isa);
            if !self.problem.by_row() {
                self.apply(own, preact, units);
            }
        }
    }

    /// The pointwise part of a step, without its pre-activations.
    pub(super) fn pointwise(
        &self,
        step: usize,
        rows: usize,
        units: Range<usize>,
    ) -> pointwise::LstmForward {
        let problem = self.problem;
        let d_hidden = problem.d_hidden;
        let (cell, cell_next) = self.cells(step);
        let projected = self.parts.has(Part::Projection);
        let (hidden, hidden_next) = match projected {
            // h is not read here: with a projection, the masks on h act after it.
            true => (
                self.pointwise.masks.ones(),
                self.saved(self.at.unprojected, step, d_hidden),
            ),
            false => (self.hidden(step), self.output(step)),
        };
        pointwise::LstmForward {
            rows,
            units,
            tile: None,
            preact: GateRows::NONE,
            gates: GateRows::NONE,
            cell,
            cell_next,
            raw: self.saved(self.at.raw, step, d_hidden),
            normalized: self.saved(self.at.normalized, step, d_hidden),
            carry_normalized: problem.carry_normalized,
            hidden,
            hidden_next,
            masks: self.pointwise.masks(self.offsets[step], projected),
            peepholes: self.pointwise.peepholes,
            clip: problem.clip,
        }
    }
}

/// Sets some columns of the only row to zero.
///
/// # Safety
/// They are the caller's own.
unsafe fn fill_zero(row: GateRows, columns: Range<usize>) {
    // SAFETY: by the contract of this function.
    unsafe { core::ptr::write_bytes(row.ptr.add(columns.start), 0, columns.len()) };
}

//! The recurrence backward.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::{PerMember, Pointwise, Problem, Tape, scratch};
use crate::kernel::cpu::gang;
use crate::kernel::cpu::parts::{Part, Parts};
use crate::kernel::cpu::pointwise::{Backward, Half, Rows};
use crate::kernel::cpu::product::{
    Columns, Panels, Scratch, Term, View, Weights, part, product, write_tile,
};
use crate::kernel::cpu::rows::{By, NormBackward, RowTimesTransposed, STATS, SumRows};
use crate::kernel::cpu::simd::Isa;

/// Rows of ∂x that are summed up at a time.
const CHUNK_ROWS: usize = 256;

/// The gradients of a call.
///
/// # Arguments
/// * `members` - threads to share the work, the caller among them
/// * `parts`, `tape`, `out` - of the forward
/// * `grad` - the gradient of `out`, of the same layout
/// * `wanted` - whose gradients are asked for; masks have none
///
/// # Returns
/// The gradients of the wanted parts, each of the part's own shape.
#[allow(clippy::too_many_arguments)] // what a derivative takes
pub fn backward(
    isa: Isa,
    members: usize,
    problem: &Problem,
    parts: &Parts<&[f32]>,
    tape: &Tape,
    out: &[f32],
    grad: &[f32],
    wanted: &Parts<()>,
) -> Parts<Vec<f32>> {
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (units, width, d_output) = (problem.d_hidden, problem.width(), problem.d_output);
    let projected = parts.has(Part::Projection);
    let normed_cell = problem.norm_cell.is_some();
    let normed_hidden = problem.norm_hidden.is_some();
    let offsets = problem.offsets();

    let (grad_output, last) = grad.split_at(rows * d_output);
    let (last_hidden, last_cell) = last.split_at(batch * d_output);
    let mut grad_hidden = last_hidden.to_vec();
    let mut grad_cell = last_cell.to_vec();
    let room = |wanted: bool, size: usize| vec![0.0; if wanted { size } else { 0 }];
    let mut grad_preact = vec![0.0; rows * width];
    let mut grad_product = room(normed_hidden, rows * width);
    let mut grad_projected = room(projected, rows * d_output);
    let mut grad_unprojected = room(projected, batch * units);
    let mut grad_normalized = room(normed_cell, rows * units);
    let mut grad_through = room(normed_cell, batch * units);
    let mut grad_raw = room(normed_cell, batch * units);

    let lanes = isa.lanes();
    let columns_hidden = Columns::plain(d_output, lanes, members);
    let columns_cell = Columns::plain(units, lanes, members);
    let pack = batch > 1;
    let panels = |k: usize, columns: &Columns, wanted: bool| {
        (pack && wanted).then(|| Panels::new(k, columns))
    };
    let full = parts.has(Part::PeepholeFull);
    let mut weight_hidden = panels(width, &columns_hidden, true);
    let mut peephole_full = panels(width, &columns_cell, full);
    let mut projection = panels(d_output, &columns_cell, projected);

    let hidden_before = before(problem, &offsets, parts.of(Part::Hidden), out, d_output);
    let cell_before = before(problem, &offsets, parts.of(Part::Cell), &tape.cells, units);

    let mut grads = Parts::default();
    for part in WEIGHTS {
        let shape = parts.get(part).filter(|_| wanted.has(part));
        grads.set(part, shape.map(|values| vec![0.0; values.len()]));
    }
    if parts.has(Part::WeightInput) && wanted.has(Part::Input) {
        grads.set(Part::Input, vec![0.0; parts.of(Part::Input).len()]);
    }
    let mut targets = Parts::default();
    for part in WEIGHTS.into_iter().chain([Part::Input]) {
        targets.set(part, grads.get_mut(part).map(Vec::as_mut_ptr));
    }

    let most = [batch, CHUNK_ROWS, problem.d_input, units, d_output];
    let run = Run {
        isa,
        members,
        problem,
        parts,
        tape,
        offsets: &offsets,
        columns_hidden,
        columns_cell,
        pack_into: [
            weight_hidden.as_mut().map(Panels::as_mut_ptr),
            peephole_full.as_mut().map(Panels::as_mut_ptr),
            projection.as_mut().map(Panels::as_mut_ptr),
        ],
        weight_hidden: weight_hidden.as_ref(),
        peephole_full: peephole_full.as_ref(),
        projection: projection.as_ref(),
        pointwise: Pointwise::new(problem, parts),
        scratch: scratch(members, most.into_iter().max().unwrap_or(1), isa),
        grad_output,
        hidden_before: &hidden_before,
        cell_before: &cell_before,
        targets,
        grad_hidden: grad_hidden.as_mut_ptr(),
        grad_cell: grad_cell.as_mut_ptr(),
        grad_preact: grad_preact.as_mut_ptr(),
        grad_product: grad_product.as_mut_ptr(),
        grad_projected: grad_projected.as_mut_ptr(),
        grad_unprojected: grad_unprojected.as_mut_ptr(),
        grad_normalized: grad_normalized.as_mut_ptr(),
        grad_through: grad_through.as_mut_ptr(),
        grad_raw: grad_raw.as_mut_ptr(),
    };
    let phases = run.phases();
    gang::run(members, phases.len(), &|phase, share| {
        // SAFETY: the phases are run in order, each share once, with all shares of a phase done
        // before the next begins.
        unsafe { run.work(phases[phase], share) }
    });

    grads.set(Part::Hidden, wanted.get(Part::Hidden).map(|()| grad_hidden));
    grads.set(Part::Cell, wanted.get(Part::Cell).map(|()| grad_cell));
    if !parts.has(Part::WeightInput) && wanted.has(Part::Input) {
        grads.set(Part::Input, grad_preact);
    }
    grads
}

/// The parts whose gradients are sums over all rows.
const WEIGHTS: [Part; 13] = [
    Part::WeightInput,
    Part::Bias,
    Part::WeightHidden,
    Part::BiasHidden,
    Part::PeepholeFirst,
    Part::PeepholeSecond,
    Part::PeepholeOutput,
    Part::PeepholeFull,
    Part::Projection,
    Part::NormHiddenGain,
    Part::NormHiddenShift,
    Part::NormCellGain,
    Part::NormCellShift,
];

/// What a state was before each row: pieces whose rows follow each other.
struct Before<'a>(Vec<(Cow<'a, [f32]>, usize)>);

impl Before<'_> {
    /// Each piece with its number of rows.
    fn pieces(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.0.iter().map(|(values, rows)| (&values[..], *rows))
    }
}

/// The rows before each row, from the initial state and the states after each row.
fn before<'a>(
    problem: &Problem,
    offsets: &[usize],
    first: &'a [f32],
    after: &'a [f32],
    features: usize,
) -> Before<'a> {
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let pieces = if rows == batch * problem.counts.len() {
        // Each step has the rows of the one before.
        vec![
            (Cow::Borrowed(first), batch),
            (
                Cow::Borrowed(&after[..(rows - batch) * features]),
                rows - batch,
            ),
        ]
    } else {
        let mut gathered = Vec::with_capacity(rows * features);
        gathered.extend_from_slice(first);
        for (step, count) in problem.counts.iter().enumerate().skip(1) {
            let start = offsets[step - 1] * features;
            gathered.extend_from_slice(&after[start..start + count * features]);
        }
        vec![(Cow::Owned(gathered), rows)]
    };
    Before(pieces)
}

/// What all members do between two meetings.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Transposed recurrent weights into panels.
    Pack,
    /// ∂h' of a step from the step after it, and the whole step where it can be done unit by unit.
    Hidden(usize),
    /// Back through the projection of a step.
    Unproject(usize),
    /// What needs whole rows.
    Rows(usize),
    /// ∂h_0 from the first step.
    Initial,
    /// ∂x, and all sums over rows.
    Sums,
}

struct Run<'a> {
    isa: Isa,
    members: usize,
    problem: &'a Problem,
    parts: &'a Parts<&'a [f32]>,
    tape: &'a Tape,
    offsets: &'a [usize],
    columns_hidden: Columns,
    columns_cell: Columns,
    /// Where Rᵀ, Vᵀ and Pᵀ are packed.
    pack_into: [Option<*mut f32>; 3],
    weight_hidden: Option<&'a Panels>,
    peephole_full: Option<&'a Panels>,
    projection: Option<&'a Panels>,
    pointwise: Pointwise,
    scratch: PerMember<Scratch>,
    grad_output: &'a [f32],
    hidden_before: &'a Before<'a>,
    cell_before: &'a Before<'a>,
    targets: Parts<*mut f32>,
    /// `[B, d_output]`: ∂h' from later steps.
    grad_hidden: *mut f32,
    /// `[B, H]`: ∂c' from later steps.
    grad_cell: *mut f32,
    /// `[N, G·H]`: ∂z
    grad_preact: *mut f32,
    /// `[N, G·H]`: ∂(h·R + b_h), with LN_h.
    grad_product: *mut f32,
    /// `[N, d_output]`: ∂(h̃·P), with a projection.
    grad_projected: *mut f32,
    /// `[B, H]`: ∂h̃, with a projection.
    grad_unprojected: *mut f32,
    /// `[N, H]`: ∂n, with LN_c.
    grad_normalized: *mut f32,
    /// `[B, H]`: ∂c̃ through LN_c.
    grad_through: *mut f32,
    /// `[B, H]`: ∂c̃ past LN_c.
    grad_raw: *mut f32,
}

// SAFETY: the pointers lead to buffers that outlive the run; each phase writes what its share owns,
// and reads what earlier phases wrote.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    fn phases(&self) -> Vec<Phase> {
        let steps = self.problem.counts.len();
        let mut phases = Vec::with_capacity(3 * steps + 3);
        if self.weight_hidden.is_some() {
            phases.push(Phase::Pack);
        }
        for step in (0..steps).rev() {
            phases.push(Phase::Hidden(step));
            if self.parts.has(Part::Projection) {
                phases.push(Phase::Unproject(step));
            }
            if self.problem.by_row() {
                phases.push(Phase::Rows(step));
            }
        }
        phases.push(Phase::Initial);
        phases.push(Phase::Sums);
        phases
    }

    /// # Safety
    /// Phases run in order, each share once, all shares of a phase before the next.
    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => self.pack(share),
                Phase::Hidden(step) => self.hidden(step, share),
                Phase::Unproject(step) => self.unproject(step, share),
                Phase::Rows(step) => self.rows(step, share),
                Phase::Initial => self.pass_back(0, share),
                Phase::Sums => {
                    self.input(share);
                    self.weights(share);
                }
            }
        }
    }

    /// The view of a recurrent weight, transposed.
    fn transposed(&self, part: Part) -> View {
        let columns = match part {
            Part::Projection => self.problem.d_output,
            _ => self.problem.width(),
        };
        View::rows(self.parts.of(part), columns).transposed()
    }

    unsafe fn pack(&self, share: usize) {
        let width = self.problem.width();
        let weights = [
            (Part::WeightHidden, width, &self.columns_hidden),
            (Part::PeepholeFull, width, &self.columns_cell),
            (Part::Projection, self.problem.d_output, &self.columns_cell),
        ];
        for ((part, k, columns), target) in weights.into_iter().zip(self.pack_into) {
            let Some(target) = target else { continue };
            let panels = columns.share(share, self.members);
            // SAFETY: the transposed weights have k rows and these columns, the panels were made
            // for them, and each share packs panels of its own.
            unsafe { Panels::pack(target, k, self.transposed(part), columns, panels) };
        }
    }

    /// Row-major rows of a buffer, from a row on.
    fn rows_of(&self, buffer: *mut f32, row: usize, size: usize) -> Rows {
        Rows {
            ptr: buffer.wrapping_add(row * size),
            stride: size,
        }
    }

    /// `a·Wᵀ` for this share's columns, written or added to the rows of `out`.
    ///
    /// # Safety
    /// `a` is readable for the rows, the columns of `out` are this share's own.
    #[allow(clippy::too_many_arguments)]
    unsafe fn times_transposed(
        &self,
        part: Part,
        packed: Option<&Panels>,
        rows: usize,
        a: View,
        columns: &Columns,
        out: *mut f32,
        add: bool,
        share: usize,
    ) {
        let transposed = self.transposed(part);
        let (k, size) = match part {
            Part::WeightHidden => (self.problem.width(), self.problem.d_output),
            Part::PeepholeFull => (self.problem.width(), self.problem.d_hidden),
            _ => (self.problem.d_output, self.problem.d_hidden),
        };
        let panels = columns.share(share, self.members);
        // SAFETY: by the contract of this function.
        unsafe {
            let Some(packed) = packed else {
                for row in 0..rows {
                    let times = RowTimesTransposed {
                        n: k,
                        a: a.from_row(row).ptr,
                        w: transposed.transposed(),
                        rows: columns.units(&panels),
                        out: out.add(row * size),
                        add,
                    };
                    times.run(self.isa);
                }
                return;
            };
            let term = Term {
                a,
                k,
                weights: Weights::Packed(packed),
            };
            let scratch = self.scratch.of(share);
            product(
                self.isa,
                scratch,
                rows,
                &[term],
                columns,
                panels,
                |panel, tile| {
                    write_tile(tile, columns, panel, rows, out, size, add);
                },
            );
        }
    }

    /// What a step passes to the one before it: ∂h, and ∂c through full peepholes.
    unsafe fn pass_back(&self, step: usize, share: usize) {
        let problem = self.problem;
        let (rows, width) = (problem.counts[step], problem.width());
        let view = |buffer: *mut f32| View {
            ptr: buffer.wrapping_add(self.offsets[step] * width),
            row: width,
            column: 1,
        };
        let through = match problem.norm_hidden {
            Some(_) => self.grad_product,
            None => self.grad_preact,
        };
        // SAFETY: ∂z of the step is complete; this share's columns of ∂h and ∂c.
        unsafe {
            self.times_transposed(
                Part::WeightHidden,
                self.weight_hidden,
                rows,
                view(through),
                &self.columns_hidden,
                self.grad_hidden,
                // Zoneout has left the direct part there.
                self.pointwise.kind.masked,
                share,
            );
            if self.parts.has(Part::PeepholeFull) {
                self.times_transposed(
                    Part::PeepholeFull,
                    self.peephole_full,
                    rows,
                    view(self.grad_preact),
                    &self.columns_cell,
                    self.grad_cell,
                    true,
                    share,
                );
            }
        }
    }

    /// The pointwise part of a step.
    fn pointwise(&self, step: usize, rows: usize, units: Range<usize>) -> Backward {
        let problem = self.problem;
        let (d_hidden, d_output, width) = (problem.d_hidden, problem.d_output, problem.width());
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
                Rows::read(self.tape.cells.as_ptr().wrapping_add(row), d_hidden)
            }
        };
        let saved = |values: &[f32], size: usize| {
            Rows::read(values.as_ptr().wrapping_add(offset * size), size)
        };
        Backward {
            rows,
            units,
            d_hidden,
            gates: saved(&self.tape.gates, width),
            cell,
            normalized: saved(&self.tape.normalized, d_hidden),
            carry_normalized: problem.carry_normalized,
            grad_hidden,
            grad_output,
            grad_cell: self.rows_of(self.grad_cell, 0, d_hidden),
            grad_normalized: self.rows_of(self.grad_normalized, offset, d_hidden),
            grad_raw: self.rows_of(self.grad_raw, 0, d_hidden),
            grad_preact: self.rows_of(self.grad_preact, offset, width),
            masks: self.pointwise.masks(problem, offset, projected),
            peepholes: self.pointwise.peepholes,
            clip: problem.clip,
        }
    }

    unsafe fn hidden(&self, step: usize, share: usize) {
        let problem = self.problem;
        let rows = problem.counts[step];
        // SAFETY: the step after it is complete; this share's own columns.
        unsafe {
            if step + 1 < problem.counts.len() {
                self.pass_back(step + 1, share);
            }
            let panels = self.columns_hidden.share(share, self.members);
            let units = self.columns_hidden.units(&panels);
            if self.parts.has(Part::Projection) {
                self.mask_projected(step, rows, units);
            } else if !problem.by_row() {
                let backward = self.pointwise(step, rows, units);
                backward.run(self.isa, self.pointwise.kind, Half::Both);
            }
        }
    }

    /// ∂h' to the gradient of what the projection gave: back through the masks on h.
    unsafe fn mask_projected(&self, step: usize, rows: usize, columns: Range<usize>) {
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

    unsafe fn unproject(&self, step: usize, share: usize) {
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
                Part::Projection,
                self.projection,
                rows,
                a,
                &self.columns_cell,
                self.grad_unprojected,
                false,
                share,
            );
            if !problem.by_row() {
                let panels = self.columns_cell.share(share, self.members);
                let backward = self.pointwise(step, rows, self.columns_cell.units(&panels));
                backward.run(self.isa, self.pointwise.kind, Half::Both);
            }
        }
    }

    unsafe fn rows(&self, step: usize, share: usize) {
        let problem = self.problem;
        let (d_hidden, width) = (problem.d_hidden, problem.width());
        let rows = part(problem.counts[step], share, self.members);
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
            if problem.norm_cell.is_some() {
                backward
                    .clone()
                    .run(self.isa, self.pointwise.kind, Half::Hidden);
                let through = self.rows_of(self.grad_through, 0, d_hidden);
                let norm = NormBackward {
                    rows: rows.clone(),
                    n: d_hidden,
                    x: saved(&self.tape.raw, d_hidden),
                    stats: saved(&self.tape.stats_cell, STATS),
                    gain: weight(Part::NormCellGain),
                    grad_y: whole.grad_normalized,
                    grad_x: through,
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
                    n: width,
                    x: saved(&self.tape.preact_hidden, width),
                    stats: saved(&self.tape.stats_hidden, STATS),
                    gain: weight(Part::NormHiddenGain),
                    grad_y: whole.grad_preact,
                    grad_x: self.rows_of(self.grad_product, offset, width),
                };
                norm.run(self.isa);
            }
        }
    }

    /// ∂x = ∂z·Wᵀ, for this share's rows.
    unsafe fn input(&self, share: usize) {
        let Some(&target) = self.targets.get(Part::Input) else {
            return;
        };
        let (d_input, width) = (self.problem.d_input, self.problem.width());
        let columns = Columns::plain(d_input, self.isa.lanes(), 1);
        let own = part(self.problem.rows(), share, self.members);
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
                weights: Weights::Native(self.transposed(Part::WeightInput)),
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
                        write_tile(tile, &columns, panel, rows, out, d_input, false);
                    },
                );
            }
            start += rows;
        }
    }

    /// `Σ_rows aᵀ·d` for this share's columns: the gradient of a weight.
    ///
    /// # Arguments
    /// * `pieces` - a in pieces of some rows
    /// * `m` - columns of a
    /// * `d`, `n` - the other matrix, and its columns
    unsafe fn outer<'b>(
        &self,
        part: Part,
        pieces: impl Iterator<Item = (&'b [f32], usize)>,
        m: usize,
        d: *const f32,
        n: usize,
        share: usize,
    ) {
        let Some(&out) = self.targets.get(part) else {
            return;
        };
        let mut row = 0;
        let mut terms = Vec::with_capacity(2);
        for (a, rows) in pieces {
            if rows == 0 {
                continue;
            }
            let d = View {
                ptr: d.wrapping_add(row * n),
                row: n,
                column: 1,
            };
            terms.push(Term {
                a: View::rows(a, m).transposed(),
                k: rows,
                weights: Weights::Native(d),
            });
            row += rows;
        }
        let columns = Columns::plain(n, self.isa.lanes(), self.members);
        let panels = columns.share(share, self.members);
        // SAFETY: the scratch and the columns of this share; all rows are complete.
        unsafe {
            let scratch = self.scratch.of(share);
            product(
                self.isa,
                scratch,
                m,
                &terms,
                &columns,
                panels,
                |panel, tile| {
                    write_tile(tile, &columns, panel, m, out, n, false);
                },
            );
        }
    }

    /// The gradients that are sums over all rows, for this share's columns.
    unsafe fn weights(&self, share: usize) {
        let problem = self.problem;
        let (d_hidden, d_output, width) = (problem.d_hidden, problem.d_output, problem.width());
        let rows = problem.rows();
        let through = match problem.norm_hidden {
            Some(_) => self.grad_product,
            None => self.grad_preact,
        };
        // SAFETY: all rows are complete; each share has columns of its own.
        unsafe {
            if self.parts.has(Part::WeightInput) {
                let x = core::iter::once((*self.parts.of(Part::Input), rows));
                let input = Part::WeightInput;
                self.outer(input, x, problem.d_input, self.grad_preact, width, share);
            }
            let hidden = self.hidden_before.pieces();
            self.outer(Part::WeightHidden, hidden, d_output, through, width, share);
            let cells = self.cell_before.pieces();
            let full = Part::PeepholeFull;
            self.outer(full, cells, d_hidden, self.grad_preact, width, share);
            let unprojected = core::iter::once((&self.tape.unprojected[..], rows));
            let projection = Part::Projection;
            self.outer(
                projection,
                unprojected,
                d_hidden,
                self.grad_projected,
                d_output,
                share,
            );

            let all = self.rows_of(self.grad_preact, 0, width);
            let own = part(width, share, self.members);
            self.sum(Part::Bias, 0..rows, own.clone(), all, By::One);
            self.sum(Part::NormHiddenShift, 0..rows, own.clone(), all, By::One);
            let product = self.rows_of(self.grad_product, 0, width);
            self.sum(Part::BiasHidden, 0..rows, own.clone(), product, By::One);
            let normalized = By::Normalized {
                x: Rows::read(self.tape.preact_hidden.as_ptr(), width),
                stats: Rows::read(self.tape.stats_hidden.as_ptr(), STATS),
            };
            self.sum(Part::NormHiddenGain, 0..rows, own, all, normalized);

            let own = part(d_hidden, share, self.members);
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

    /// The gradients of diagonal peepholes, for some units.
    unsafe fn peepholes(&self, units: Range<usize>) {
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

    unsafe fn sum(&self, part: Part, rows: Range<usize>, columns: Range<usize>, a: Rows, by: By) {
        let Some(&out) = self.targets.get(part) else {
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

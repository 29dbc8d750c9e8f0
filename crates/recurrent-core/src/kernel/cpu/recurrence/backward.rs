//! The recurrence backward.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::groups::Group;
use super::rounds::{Factor, GateBack, RoundRows, RoundTape, pointers, shape};
use super::{PerMember, Pointwise, Problem, Tape, scratch};
use crate::kernel::cpu::buffer::{Buffer, zeros};
use crate::kernel::cpu::gang;
use crate::kernel::cpu::parts::{Key, Part, Parts, RoundPart};
use crate::kernel::cpu::pointwise::{Backward, Half, Rows};
use crate::kernel::cpu::product::{
    Columns, Onto, Panels, Scratch, Term, View, Weights, part, product, write_tile,
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
    let room = |wanted: bool, size: usize| Buffer::new(if wanted { size } else { 0 });
    let mut grad_preact = Buffer::new(rows * width);
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
    let panels =
        |k: usize, columns: &Columns, wanted: bool| wanted.then(|| Panels::new(k, columns));
    let full = parts.has(Part::PeepholeFull);
    let mut weight_hidden = panels(width, &columns_hidden, pack);
    let mut peephole_full = panels(width, &columns_cell, pack && full);
    let mut projection = panels(d_output, &columns_cell, pack && projected);

    let mogrified = !problem.rounds.is_empty();
    let mut weight_input = panels(
        width,
        &Columns::plain(problem.d_input, lanes, members),
        pack && mogrified
            || parts.has(Part::WeightInput) && rows > CHUNK_ROWS && wanted.has(Part::Input),
    );
    let mut factors = Factor::of_rounds(problem, isa, members, true, pack);
    let mut round_grads = RoundTape::for_rows(problem, rows);
    let mut grad_x = room(mogrified, batch * problem.d_input);
    let mut grad_h = room(mogrified, batch * d_output);

    let hidden_before = before(problem, &offsets, parts.of(Part::Hidden), out, d_output);
    let cell_before = before(problem, &offsets, parts.of(Part::Cell), &tape.cells, units);

    let mut grads = Parts::default();
    let sums = WEIGHTS.map(Key::Part).into_iter();
    let sums = sums.chain(
        wanted
            .keys()
            .into_iter()
            .filter(|key| matches!(key, Key::Round(..))),
    );
    let sums: Vec<Key> = sums.filter(|&key| wanted.has(key)).collect();
    for &key in &sums {
        grads.set(key, parts.get(key).map(|values| zeros(values.len())));
    }
    if parts.has(Part::WeightInput) && wanted.has(Part::Input) {
        grads.set(Part::Input, zeros(parts.of(Part::Input).len()));
    }
    let mut targets = Parts::default();
    for key in sums.into_iter().chain([Key::Part(Part::Input)]) {
        targets.set(key, grads.get_mut(key).map(Vec::as_mut_ptr));
    }

    let mut transposed: Vec<(Key, Buffer)> = Vec::new();
    for key in targets.keys() {
        let features = match key {
            Key::Part(Part::WeightInput) => problem.d_input,
            Key::Part(Part::WeightHidden) => d_output,
            Key::Part(Part::PeepholeFull | Part::Projection) => units,
            Key::Round(round, RoundPart::Matrix) => shape(problem, round).0,
            Key::Round(round, RoundPart::Right) => problem.rounds[round].unwrap_or(0),
            _ => continue,
        };
        transposed.push((key, Buffer::new(features * rows)));
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
            weight_input.as_mut().map(Panels::as_mut_ptr),
        ],
        pack_factors: pointers(&mut factors),
        factors: &factors,
        round_grads: round_grads.iter_mut().map(RoundRows::new).collect(),
        columns_input: Columns::plain(problem.d_input, lanes, members),
        weight_input: weight_input.as_ref(),
        grad_x: grad_x.as_mut_ptr(),
        grad_h: grad_h.as_mut_ptr(),
        weight_hidden: weight_hidden.as_ref(),
        peephole_full: peephole_full.as_ref(),
        projection: projection.as_ref(),
        pointwise: Pointwise::new(problem, parts),
        scratch: scratch(members, most.into_iter().max().unwrap_or(1), isa),
        out,
        grad_output,
        hidden_before: &hidden_before,
        cell_before: &cell_before,
        targets,
        transposed_factors: transposed
            .iter_mut()
            .map(|(key, values)| (*key, values.as_mut_ptr()))
            .collect(),
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
    let sequences = if full {
        Vec::new()
    } else {
        problem.groups(members, 0)
    };
    let groups: Vec<Group<'_>> = match sequences.len() {
        0 | 1 => Vec::new(),
        _ => sequences
            .into_iter()
            .map(|sequences| Group::new(problem, &offsets, parts, sequences))
            .collect(),
    };
    let groups: Vec<Run<'_>> = groups.iter().map(|group| run.of_group(group)).collect();
    let phases = run.phases(!groups.is_empty());
    gang::run(members, phases.len(), &|phase, share| {
        // SAFETY: the phases are run in order, each share once, with all shares of a phase done
        // before the next begins; groups have sequences of their own.
        unsafe {
            match phases[phase] {
                Phase::Group => {
                    let Some(group) = groups.get(share) else {
                        return;
                    };
                    for phase in group.steps() {
                        group.work(phase, 0);
                    }
                }
                phase => run.work(phase, share),
            }
        }
    });
    drop(groups);
    drop(run);

    grads.set(Part::Hidden, wanted.get(Part::Hidden).map(|()| grad_hidden));
    grads.set(Part::Cell, wanted.get(Part::Cell).map(|()| grad_cell));
    if !parts.has(Part::WeightInput) && wanted.has(Part::Input) {
        grads.set(Part::Input, grad_preact.to_vec());
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

/// `target[c, r] = source[r, c]`, a block of a few cache lines at a time.
///
/// # Safety
/// The source is readable, the rows of the target are the caller's own.
unsafe fn transpose(source: View, rows: usize, columns: usize, target: *mut f32, stride: usize) {
    const BLOCK: usize = 16;
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            for c in column..(column + BLOCK).min(columns) {
                for r in row..(row + BLOCK).min(rows) {
                    // SAFETY: inside both matrices, by the contract of this function.
                    unsafe { *target.add(c * stride + r) = *source.ptr.add(r * source.row + c) };
                }
            }
        }
    }
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
    /// From ∂z of a step to ∂x and ∂h after a round, of which it is the last.
    Unmix(usize, usize),
    /// The first product back through a round of low rank.
    UnmixInner(usize, usize),
    /// ∂h_0 from the first step.
    Initial,
    /// All steps, each member for sequences of its own.
    Group,
    /// What the weights are multiplied with, transposed: a product reads it along the rows.
    Transpose,
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
    /// Where Rᵀ, Vᵀ, Pᵀ and Wᵀ are packed.
    pack_into: [Option<*mut f32>; 4],
    pack_factors: Vec<Vec<Option<*mut f32>>>,
    factors: &'a [Vec<Factor>],
    /// ∂p in place of s, and the gradient of u·L.
    round_grads: Vec<RoundRows>,
    columns_input: Columns,
    weight_input: Option<&'a Panels>,
    /// `[B, I]` and `[B, d_output]`: ∂x and ∂h between the rounds of a step.
    grad_x: *mut f32,
    grad_h: *mut f32,
    weight_hidden: Option<&'a Panels>,
    peephole_full: Option<&'a Panels>,
    projection: Option<&'a Panels>,
    pointwise: Pointwise,
    scratch: PerMember<Scratch>,
    out: &'a [f32],
    grad_output: &'a [f32],
    hidden_before: &'a Before<'a>,
    cell_before: &'a Before<'a>,
    targets: Parts<*mut f32>,
    /// Where the factors of the wanted weights go, each `[features, N]`.
    transposed_factors: Vec<(Key, *mut f32)>,
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
    /// # Arguments
    /// * `by_group` - whether each member has sequences of its own
    fn phases(&self, by_group: bool) -> Vec<Phase> {
        let mut phases = Vec::with_capacity(3 * self.problem.counts.len() + 4);
        if self.pack_into.iter().any(Option::is_some) {
            phases.push(Phase::Pack);
        }
        if by_group {
            phases.push(Phase::Group);
        } else {
            phases.extend(self.steps());
        }
        phases.push(Phase::Transpose);
        phases.push(Phase::Sums);
        phases
    }

    /// The phases of all steps, from the last to the initial state.
    fn steps(&self) -> impl Iterator<Item = Phase> {
        let by_row = self.problem.by_row();
        let projected = self.parts.has(Part::Projection);
        let steps = (0..self.problem.counts.len()).rev();
        let steps = steps.flat_map(move |step| {
            let rounds = self.problem.rounds.iter().enumerate().rev();
            let rounds = rounds.flat_map(move |(round, rank)| {
                let inner = rank.is_some().then_some(Phase::UnmixInner(step, round));
                [Phase::Unmix(step, round)].into_iter().chain(inner)
            });
            [Phase::Hidden(step)]
                .into_iter()
                .chain(projected.then_some(Phase::Unproject(step)))
                .chain(by_row.then_some(Phase::Rows(step)))
                .chain(rounds)
        });
        steps.chain([Phase::Initial])
    }

    /// The run of a group's sequences, by one member: steps only.
    fn of_group<'g>(&'g self, group: &'g Group<'g>) -> Run<'g> {
        let problem = self.problem;
        // What has a row per sequence; the rest is found by the row of its step.
        let own = |buffer: *mut f32, size: usize| buffer.wrapping_add(group.first * size);
        Run {
            isa: self.isa,
            members: 1,
            problem: &group.problem,
            parts: &group.parts,
            tape: self.tape,
            offsets: &group.offsets,
            columns_hidden: self.columns_hidden,
            columns_cell: self.columns_cell,
            pack_into: [None; 4],
            pack_factors: Vec::new(),
            factors: self.factors,
            round_grads: self.round_grads.clone(),
            columns_input: self.columns_input,
            weight_input: self.weight_input,
            grad_x: own(self.grad_x, problem.d_input),
            grad_h: own(self.grad_h, problem.d_output),
            weight_hidden: self.weight_hidden,
            peephole_full: self.peephole_full,
            projection: self.projection,
            pointwise: Pointwise::new(&group.problem, &group.parts),
            scratch: scratch(1, group.problem.batch_size(), self.isa),
            out: self.out,
            grad_output: self.grad_output,
            hidden_before: self.hidden_before,
            cell_before: self.cell_before,
            targets: self.targets.clone(),
            transposed_factors: Vec::new(),
            grad_hidden: own(self.grad_hidden, problem.d_output),
            grad_cell: own(self.grad_cell, problem.d_hidden),
            grad_preact: self.grad_preact,
            grad_product: self.grad_product,
            grad_projected: self.grad_projected,
            grad_unprojected: own(self.grad_unprojected, problem.d_hidden),
            grad_normalized: self.grad_normalized,
            grad_through: own(self.grad_through, problem.d_hidden),
            grad_raw: own(self.grad_raw, problem.d_hidden),
        }
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
                Phase::Unmix(step, round) => self.unmix(step, round, share),
                Phase::UnmixInner(step, round) => self.unmix_inner(step, round, share),
                Phase::Initial => self.pass_back(0, share),
                Phase::Group => unreachable!("groups are run phase by phase"),
                Phase::Transpose => self.transpose(share),
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
            (Part::WeightInput, width, &self.columns_input),
        ];
        for ((part, k, columns), target) in weights.into_iter().zip(self.pack_into) {
            let Some(target) = target else { continue };
            let panels = columns.share(share, self.members);
            // SAFETY: the transposed weights have k rows and these columns, the panels were made
            // for them, and each share packs panels of its own.
            unsafe { Panels::pack(self.isa, target, k, self.transposed(part), columns, panels) };
        }
        for (factors, targets) in self.factors.iter().zip(&self.pack_factors) {
            for (factor, target) in factors.iter().zip(targets) {
                let Some(target) = *target else { continue };
                let panels = factor.columns.share(share, self.members);
                // SAFETY: as above.
                unsafe { factor.pack(self.isa, target, self.parts, true, panels) };
            }
        }
    }

    /// `a·Mᵀ` with a factor of a round, for this share's columns.
    ///
    /// # Safety
    /// As [`times_transposed`](Self::times_transposed).
    unsafe fn times_factor(
        &self,
        factor: &Factor,
        rows: usize,
        a: View,
        out: *mut f32,
        add: bool,
        share: usize,
    ) {
        let (k, size) = factor.size;
        let columns = &factor.columns;
        let panels = columns.share(share, self.members);
        let onto = if add { Onto::Sum } else { Onto::Fresh };
        // SAFETY: by the contract of this function.
        unsafe {
            let Some(packed) = &factor.panels else {
                for row in 0..rows {
                    let times = RowTimesTransposed {
                        n: k,
                        a: a.from_row(row).ptr,
                        w: factor.view(self.parts, true).transposed(),
                        rows: columns.units(&panels),
                        out: out.add(row * size),
                        add,
                        back: false,
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
                    write_tile(self.isa, tile, columns, panel, rows, out, size, onto);
                },
            );
        }
    }

    /// ∂x or ∂h between rounds.
    fn between(&self, input: bool) -> *mut f32 {
        if input { self.grad_x } else { self.grad_h }
    }

    /// The rows of a step in a buffer of all steps.
    fn step_view(&self, buffer: *mut f32, step: usize, size: usize) -> View {
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
    unsafe fn unround(&self, step: usize, round: usize, out: *mut f32, share: usize) {
        let rows = self.problem.counts[step];
        let factors = &self.factors[round];
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
    unsafe fn unmix(&self, step: usize, round: usize, share: usize) {
        let problem = self.problem;
        let (rows, width) = (problem.counts[step], problem.width());
        let on_input = round % 2 == 0;
        // SAFETY: phases before are complete; this share's own columns of ∂x and ∂h.
        unsafe {
            if round + 1 == problem.rounds.len() {
                let grad = self.step_view(self.grad_preact, step, width);
                let weights = [
                    (
                        Part::WeightInput,
                        self.weight_input,
                        &self.columns_input,
                        self.grad_x,
                    ),
                    (
                        Part::WeightHidden,
                        self.weight_hidden,
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
                columns: columns.units(&columns.share(share, self.members)),
                gate: saved(&tape.gate),
                value,
                grad: self.rows_of(self.between(on_input), 0, to),
                grad_preact: self.rows_of(self.round_grads[round].gate, self.offsets[step], to),
                copy,
            };
            gate.run(self.isa);
        }
    }

    unsafe fn unmix_inner(&self, step: usize, round: usize, share: usize) {
        let rows = self.problem.counts[step];
        let factor = &self.factors[round][0];
        let grads = &self.round_grads[round];
        let a = self.step_view(grads.gate, step, factor.size.0);
        let rank = factor.size.1;
        let out = grads.inner.wrapping_add(self.offsets[step] * rank);
        // SAFETY: ∂p of the round is complete; this share's own columns.
        unsafe { self.times_factor(factor, rows, a, out, false, share) };
    }

    /// h before a step.
    fn hidden_row(&self, step: usize) -> *const f32 {
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
    unsafe fn pass_on(&self, step: usize, share: usize) {
        let d_output = self.problem.d_output;
        let panels = self.columns_hidden.share(share, self.members);
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
        step: usize,
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
            Part::WeightInput => (self.problem.width(), self.problem.d_input),
            _ => (self.problem.d_output, self.problem.d_hidden),
        };
        let panels = columns.share(share, self.members);
        let onto = if add { Onto::Sum } else { Onto::Fresh };
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
                        back: step % 2 == 1,
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
                    write_tile(self.isa, tile, columns, panel, rows, out, size, onto);
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
                    step,
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
                step,
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
        if !self.problem.rounds.is_empty() {
            return; // done step by step
        }
        let (d_input, width) = (self.problem.d_input, self.problem.width());
        let columns = self.columns_input;
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
    fn factors_of(&self, key: Key) -> (Vec<(&[f32], usize)>, usize) {
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
    unsafe fn transpose(&self, share: usize) {
        let rows = self.problem.rows();
        for &(key, target) in &self.transposed_factors {
            let (pieces, columns) = self.factors_of(key);
            let own = part(columns, share, self.members);
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
    unsafe fn outer(&self, key: impl Into<Key>, d: *const f32, n: usize, share: usize) {
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
        let view = |ptr: *const f32, row: usize| View {
            ptr,
            row,
            column: 1,
        };
        let term = Term {
            a: view(a, rows),
            k: rows,
            weights: Weights::Native(view(d, n)),
        };
        let columns = Columns::plain(n, self.isa.lanes(), self.members);
        let panels = columns.share(share, self.members);
        // SAFETY: the scratch and the columns of this share; all rows are complete.
        unsafe {
            let scratch = self.scratch.of(share);
            product(
                self.isa,
                scratch,
                m,
                &[term],
                &columns,
                panels,
                |panel, tile| {
                    write_tile(self.isa, tile, &columns, panel, m, out, n, Onto::Fresh);
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
            self.outer(Part::WeightInput, self.grad_preact, width, share);
            self.outer(Part::WeightHidden, through, width, share);
            self.outer(Part::PeepholeFull, self.grad_preact, width, share);
            self.outer(Part::Projection, self.grad_projected, d_output, share);
            for round in 0..problem.rounds.len() {
                self.round_weights(round, share);
            }

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

    /// x or h of all rows before a round.
    fn before_round(&self, round: usize, input: bool) -> Vec<(&[f32], usize)> {
        let rows = self.problem.rows();
        let last = (0..round).rev().find(|last| (last % 2 == 0) == input);
        match last {
            Some(last) => vec![(&self.tape.rounds[last].value[..], rows)],
            None if input => vec![(*self.parts.of(Part::Input), rows)],
            None => self.hidden_before.pieces().collect(),
        }
    }

    /// The gradients of a round's matrices and bias, for this share's columns.
    unsafe fn round_weights(&self, round: usize, share: usize) {
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
            let own = part(to, share, self.members);
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

    unsafe fn sum(
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

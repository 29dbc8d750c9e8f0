//! The recurrence backward.

mod rounds;
mod steps;
mod weights;

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::groups::{Group, Worker};
use super::packed::PackedWeights;
use super::rounds::{Factor, GateBack, RoundRows, RoundTape};
use super::{MadeFor, PACK_BACK_FROM, PerWorker, Pointwise, Tape, scratch, turn};
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::pointwise::{Backward, Half, Rows};
use crate::fused::cpu::product::{
    Columns, Onto, Panels, Pieces, Scratch, Term, Weights, part, product, to_and_fro, write_tile,
};
use crate::fused::cpu::rows::{AddRows, By, NormBackward, RowTimesTransposed, STATS, SumRows};
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::team;
use crate::fused::cpu::transpose::Transpose;
use crate::fused::cpu::view::View;
use crate::fused::problem::Expected;
use crate::fused::problem::lstm::Problem;
use crate::fused::problem::{Key, Part, Parts, RoundPart};

/// Rows of ∂x that are summed up at a time.
const CHUNK_ROWS: usize = 256;

/// The gradients of a call.
///
/// # Arguments
/// * `workers` - threads to share the work, the caller among them
/// * `parts`, `tape`, `out` - of the forward
/// * `grad` - the gradient of `out`, of the same layout
/// * `wanted` - whose gradients are asked for; masks have none
///
/// # Returns
/// The gradients of the wanted parts, each of the part's own shape.
///
/// # Panics
/// If a tensor is missing or has another size than the problem says, or the tape is another call's.
#[track_caller]
#[allow(clippy::too_many_arguments)] // what a derivative takes
pub fn backward(
    isa: Isa,
    workers: usize,
    problem: &Problem,
    parts: &Parts<&[f32]>,
    tape: &Tape,
    out: &[f32],
    grad: &[f32],
    wanted: &Parts<()>,
) -> Parts<Vec<f32>> {
    problem.check_slices(parts);
    assert!(
        problem.order.is_none(),
        "the input of a backward is in running order, got an order"
    );
    assert!(
        tape.made_for == MadeFor::new(isa, problem, parts),
        "the saved tensors of a backward are those of another call"
    );
    let workers = workers.max(1);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (units, d_output) = (problem.d_hidden, problem.d_output);
    let projected = parts.has(Part::Projection);
    let normed_cell = problem.norm_cell.is_some();
    let normed_hidden = problem.norm_hidden.is_some();
    let offsets = problem.offsets();
    let full = parts.has(Part::PeepholeFull);

    let sequences = if full {
        Vec::new()
    } else {
        problem.groups(workers, 0)
    };
    let shares = workers * problem.shares_each(workers);

    let size = problem.output_len();
    for (name, values) in [("output", out), ("gradient of the output", grad)] {
        Expected::new("[output, states, histories]", [size]).check_len(name, values.len());
    }
    let (grad_output, last) = grad.split_at(rows * d_output);
    let (last_hidden, last) = last.split_at(batch * d_output);
    let (last_cell, grad_cells) = last.split_at(batch * units);
    let cells = match problem.histories {
        true => &out[problem.cells_start()..],
        false => &tape.cells[..],
    };
    let mut grad_hidden = last_hidden.to_vec();
    let mut grad_cell = last_cell.to_vec();
    let room = |wanted: bool, size: usize| Buffer::new(if wanted { size } else { 0 });
    let layout = tape.layout;
    let mut grad_preact = Buffer::new(layout.size);
    let mut grad_product = room(normed_hidden, layout.size);
    let normed_input = problem.norm_input.is_some();
    let mut grad_input = room(normed_input, layout.size);
    let mut grad_projected = room(projected, rows * d_output);
    let mut grad_unprojected = room(projected, batch * units);
    let mut grad_normalized = room(normed_cell, rows * units);
    let mut grad_through = room(normed_cell, batch * units);
    let mut grad_raw = room(normed_cell, batch * units);

    let lanes = isa.lanes();
    let columns = Columns::gates(problem.coupling.gates(), units, lanes);
    layout.clear_padding(&columns, &mut grad_preact);
    for (normed, buffer) in [
        (normed_hidden, &mut grad_product),
        (normed_input, &mut grad_input),
    ] {
        if normed {
            layout.clear_padding(&columns, buffer);
        }
    }
    let by_group = !sequences.is_empty();
    // Steps are shared by the workers, or done by one.
    let sharers = if by_group { 1 } else { workers };
    let columns_hidden = Columns::plain(d_output, lanes, sharers);
    let columns_cell = Columns::plain(units, lanes, sharers);
    let columns_input = Columns::plain(problem.d_input, lanes, sharers);
    let pack = batch > 1 || problem.counts.len() >= PACK_BACK_FROM;
    let mogrified = !problem.rounds.is_empty();
    let used_again = rows > CHUNK_ROWS || layout.is_tiled();
    // What the steps read, and what is read after them.
    let pack_weights = |steps: bool, input: bool| {
        let panels = [
            (Part::WeightHidden, layout.columns, &columns_hidden, steps),
            (
                Part::PeepholeFull,
                layout.columns,
                &columns_cell,
                steps && full,
            ),
            (
                Part::Projection,
                d_output,
                &columns_cell,
                steps && projected,
            ),
            (Part::WeightInput, layout.columns, &columns_input, input),
        ];
        let factors = Factor::of_rounds(problem, isa, sharers, true, steps);
        PackedWeights::new(panels, factors)
    };
    let in_step = pack && mogrified;
    let after = used_again && wanted.has(Part::Input);
    let packed = match by_group {
        true => pack_weights(false, after && !mogrified),
        false => pack_weights(pack, in_step || after),
    };
    // Of each worker with steps of its own, with scratch memory for them.
    let copies = if by_group { workers } else { 0 };
    let copies: Vec<_> = (0..copies)
        .map(|_| (pack_weights(pack, in_step), scratch(1, batch, isa)))
        .collect();
    let mut round_grads = RoundTape::for_rows(problem, rows);
    let mut grad_x = room(mogrified, batch * problem.d_input);
    let mut grad_h = room(mogrified, batch * d_output);

    let hidden_before = before(problem, &offsets, parts.of(Part::Hidden), out, d_output);
    let cell_before = before(problem, &offsets, parts.of(Part::Cell), cells, units);

    let mut grads = Parts::default();
    let sums = WEIGHTS.map(Key::Part).into_iter();
    let sums = sums.chain(
        wanted
            .keys()
            .into_iter()
            .filter(|key| matches!(key, Key::Round(..))),
    );
    let sums: Vec<Key> = sums.filter(|&key| wanted.has(key)).collect();
    // What a weight is multiplied with has so many features; none: the gradient is a sum of rows.
    let factor = |key| match key {
        Key::Part(Part::WeightInput) => Some(problem.d_input),
        Key::Part(Part::WeightHidden) => Some(d_output),
        Key::Part(Part::PeepholeFull | Part::Projection) => Some(units),
        Key::Round(round, RoundPart::Matrix) => Some(problem.round_shape(round).0),
        Key::Round(round, RoundPart::Right) => Some(problem.rounds[round].unwrap_or(0)),
        _ => None,
    };
    for &key in &sums {
        let grad = |values: &&[f32]| match factor(key) {
            Some(_) => unset(values.len()),
            None => vec![0.0; values.len()],
        };
        grads.set(key, parts.get(key).map(grad));
    }
    if wanted.has(Part::Input) {
        grads.set(Part::Input, Some(unset(parts.of(Part::Input).len())));
    }
    let mut targets = Parts::default();
    for key in sums.into_iter().chain([Key::Part(Part::Input)]) {
        targets.set(key, grads.get_mut(key).map(Vec::as_mut_ptr));
    }

    let mut transposed: Vec<(Key, Buffer)> = Vec::new();
    for key in targets.keys() {
        if let Some(features) = factor(key) {
            transposed.push((key, Buffer::new(features * rows)));
        }
    }
    let transposed_factors: Vec<_> = transposed
        .iter_mut()
        .map(|(key, values)| (*key, values.as_mut_ptr()))
        .collect();
    let round_grads: Vec<_> = round_grads.iter_mut().map(RoundRows::new).collect();
    let most = [batch, CHUNK_ROWS, problem.d_input, units, d_output];
    let scratch = scratch(shares, most.into_iter().max().unwrap_or(1), isa);
    let pointwise = Pointwise::new(problem, parts);
    let run = Run {
        isa,
        shares,
        shares_each: shares / workers,
        problem,
        parts,
        tape,
        offsets: &offsets,
        layout,
        columns,
        columns_hidden,
        columns_cell,
        packed: &packed,
        round_grads: &round_grads,
        columns_input,
        grad_x: grad_x.as_mut_ptr(),
        grad_h: grad_h.as_mut_ptr(),
        pointwise: &pointwise,
        scratch: &scratch,
        out,
        cells,
        grad_output,
        grad_cells,
        hidden_before: &hidden_before,
        cell_before: &cell_before,
        targets: &targets,
        transposed_factors: &transposed_factors,
        grad_hidden: grad_hidden.as_mut_ptr(),
        grad_cell: grad_cell.as_mut_ptr(),
        grad_preact: grad_preact.as_mut_ptr(),
        grad_product: grad_product.as_mut_ptr(),
        grad_input: match normed_input {
            true => grad_input.as_mut_ptr(),
            false => grad_preact.as_mut_ptr(),
        },
        grad_projected: grad_projected.as_mut_ptr(),
        grad_unprojected: grad_unprojected.as_mut_ptr(),
        grad_normalized: grad_normalized.as_mut_ptr(),
        grad_through: grad_through.as_mut_ptr(),
        grad_raw: grad_raw.as_mut_ptr(),
    };
    let groups: Vec<Group<'_>> = sequences
        .into_iter()
        .map(|sequences| Group::new(problem, &offsets, parts, sequences))
        .collect();
    let together = |phases: &[Phase]| {
        team::run(workers, shares, phases.len(), &|phase, share| {
            // SAFETY: the phases are run in order, each share once, with all shares of a phase done
            // before the next begins.
            unsafe { run.work(phases[phase], share) };
        });
    };
    let steps = problem.counts.len();
    if groups.is_empty() {
        let phases = run.packing().into_iter().chain(run.steps(0..steps));
        together(&phases.chain(run.sums()).collect::<Vec<_>>());
    } else {
        together(run.packing().as_slice());
        let workers_own: Vec<_> = copies
            .iter()
            .map(|(packed, scratch)| Worker::new(run.of_worker(packed, scratch)))
            .collect();
        let link = problem.link(groups.len());
        let links = steps.div_ceil(link);
        team::run_chains(workers, groups.len(), links, &|index, group, worker| {
            let end = steps - index * link;
            // SAFETY: each worker is one thread; the steps of a group are run in order, one at a time;
            // groups have sequences of their own.
            unsafe {
                let own = workers_own[worker].packed(|run| run.work(Phase::Pack, 0));
                let run = own.of_group(&groups[group]);
                for phase in run.steps(end.saturating_sub(link)..end) {
                    run.work(phase, 0);
                }
            }
        });
        together(&run.sums().collect::<Vec<_>>());
    }

    grads.set(Part::Hidden, wanted.get(Part::Hidden).map(|()| grad_hidden));
    grads.set(Part::Cell, wanted.get(Part::Cell).map(|()| grad_cell));
    grads
}

/// The parts whose gradients are sums over all rows.
const WEIGHTS: [Part; 16] = [
    Part::WeightInput,
    Part::Bias,
    Part::BiasInput,
    Part::NormInputGain,
    Part::NormInputShift,
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

/// What all workers do between two meetings.
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
    /// Back through LN_x.
    NormInput,
    /// What the weights are multiplied with, transposed: a product reads it along the rows.
    Transpose,
    /// ∂x, and all sums over rows.
    Sums,
}

#[derive(Clone)]
struct Run<'a> {
    isa: Isa,
    shares: usize,
    /// Of them, those of a worker.
    shares_each: usize,
    problem: &'a Problem,
    parts: &'a Parts<&'a [f32]>,
    tape: &'a Tape,
    offsets: &'a [usize],
    /// Of the gates and their gradients.
    layout: Layout,
    columns: Columns,
    columns_hidden: Columns,
    columns_cell: Columns,
    /// Rᵀ, Vᵀ, Pᵀ, Wᵀ and the matrices of rounds.
    packed: &'a PackedWeights,
    /// ∂p in place of s, and the gradient of u·L.
    round_grads: &'a [RoundRows],
    columns_input: Columns,
    /// `[B, I]` and `[B, d_output]`: ∂x and ∂h between the rounds of a step.
    grad_x: *mut f32,
    grad_h: *mut f32,
    pointwise: &'a Pointwise,
    scratch: &'a PerWorker<Scratch>,
    out: &'a [f32],
    /// `[N, H]`: c'
    cells: &'a [f32],
    grad_output: &'a [f32],
    /// `[N, H]`: ∂c' of all rows from outside; nothing where only the last is given out.
    grad_cells: &'a [f32],
    hidden_before: &'a Before<'a>,
    cell_before: &'a Before<'a>,
    targets: &'a Parts<*mut f32>,
    /// Where the factors of the wanted weights go, each `[features, N]`.
    transposed_factors: &'a [(Key, *mut f32)],
    /// `[B, d_output]`: ∂h' from later steps.
    grad_hidden: *mut f32,
    /// `[B, H]`: ∂c' from later steps.
    grad_cell: *mut f32,
    /// `[N, G·H]`: ∂z
    grad_preact: *mut f32,
    /// `[N, G·H]`: ∂(h·R + b_h), with LN_h.
    grad_product: *mut f32,
    /// `[N, G·H]`: ∂(x·W + b_x), which is ∂z without LN_x.
    grad_input: *mut f32,
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

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`recurrence/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    /// The phase before all others.
    fn packing(&self) -> Option<Phase> {
        (!self.packed.is_empty()).then_some(Phase::Pack)
    }

    /// The phases of some steps, those that there are, the last first; after step 0 what leads to the
    /// initial state.
    fn steps(&self, range: Range<usize>) -> impl Iterator<Item = Phase> {
        let steps = self.problem.counts.len();
        let by_row = self.problem.by_row();
        let projected = self.parts.has(Part::Projection);
        let initial = (range.start == 0).then_some(Phase::Initial);
        let steps = (range.start.min(steps)..range.end.min(steps)).rev();
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
        steps.chain(initial)
    }

    /// The phases after all steps.
    fn sums(&self) -> impl Iterator<Item = Phase> {
        let normed = self.problem.norm_input.is_some();
        let normed = normed.then_some(Phase::NormInput).into_iter();
        normed.chain([Phase::Transpose, Phase::Sums])
    }

    /// What one worker does alone, with weights and scratch memory of its own.
    fn of_worker<'g>(
        &'g self,
        packed: &'g PackedWeights,
        scratch: &'g PerWorker<Scratch>,
    ) -> Run<'g> {
        Run {
            shares: 1,
            shares_each: 1,
            packed,
            scratch,
            ..self.clone()
        }
    }

    /// The steps of a group's sequences.
    fn of_group<'g>(&'g self, group: &'g Group<'g>) -> Run<'g> {
        let problem = self.problem;
        // What has a row per sequence; the rest is found by the row of its step.
        let own = |buffer: *mut f32, size: usize| buffer.wrapping_add(group.first * size);
        Run {
            problem: &group.problem,
            parts: &group.parts,
            offsets: &group.offsets,
            pointwise: &group.pointwise,
            grad_x: own(self.grad_x, problem.d_input),
            grad_h: own(self.grad_h, problem.d_output),
            grad_hidden: own(self.grad_hidden, problem.d_output),
            grad_cell: own(self.grad_cell, problem.d_hidden),
            grad_unprojected: own(self.grad_unprojected, problem.d_hidden),
            grad_through: own(self.grad_through, problem.d_hidden),
            grad_raw: own(self.grad_raw, problem.d_hidden),
            ..self.clone()
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
                Phase::NormInput => self.norm_input(share),
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

    /// Transposed weights into panels.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn pack(&self, share: usize) {
        let width = self.problem.width();
        for (part, target) in self.packed.targets() {
            let (k, columns) = match part {
                Part::WeightHidden => (width, &self.columns_hidden),
                Part::PeepholeFull => (width, &self.columns_cell),
                Part::WeightInput => (width, &self.columns_input),
                _ => (self.problem.d_output, &self.columns_cell),
            };
            let panels = columns.share(share, self.shares);
            let (isa, weights) = (self.isa, self.transposed(part));
            // SAFETY: the transposed weights have k rows and these columns, the panels were made
            // for them, and each share packs panels of its own.
            unsafe {
                if part != Part::Projection && self.layout.is_tiled() {
                    let gates = &self.columns;
                    Panels::pack_by_tile(isa, target, gates, weights, columns, panels);
                } else {
                    Panels::pack(isa, target, k, weights, columns, panels);
                }
            }
        }
        for (factor, target) in self.packed.factor_targets() {
            let panels = factor.columns.share(share, self.shares);
            // SAFETY: as above.
            unsafe { factor.pack(self.isa, target, self.parts, true, panels) };
        }
    }

    /// Row-major rows of a buffer, from a row on.
    fn rows_of(&self, buffer: *mut f32, row: usize, size: usize) -> Rows {
        Rows {
            ptr: buffer.wrapping_add(row * size),
            stride: size,
        }
    }
}

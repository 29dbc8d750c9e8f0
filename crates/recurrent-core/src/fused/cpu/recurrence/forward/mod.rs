//! The recurrence forward.

mod rounds;
mod steps;

use alloc::vec::Vec;
use core::ops::Range;

use super::groups::{Group, Worker};
use super::packed::PackedWeights;
use super::rounds::{Factor, Gate, RoundRows, RoundTape};
use super::{MadeFor, PACK_BACK_FROM, PerWorker, Pointwise, Tape, scratch, turn};
use crate::fused::cpu::bf16::{Bf16Panels, RowTimesBf16};
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::layout::{Layout, row_of_tiles};
use crate::fused::cpu::pointwise::{Forward, GateRows, Half, Rows};
use crate::fused::cpu::product::{
    Begin, Columns, Onto, Panels, Scratch, Sums, Term, Weights, fetch, part, product, product_into,
    to_and_fro, write_tile,
};
use crate::fused::cpu::rows::{NormForward, RowTimes, STATS};
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::team;
use crate::fused::cpu::view::View;
use crate::fused::problem::lstm::Problem;
use crate::fused::problem::{Key, Part, Parts, RoundPart};

/// Rows of the input that are projected at a time: their pre-activations should stay in the cache
/// until their steps have run.
const CHUNK_ROWS: usize = 256;

/// Recurrent weights above this size, in bytes, are not packed for a single sequence: packing costs
/// as much as some steps, and memory beyond the caches likes eight rows side by side as well as one
/// panel (measured: packed takes 0.9 of the time at 16 MiB, 1.2 at 64 MiB).
const PACK_BELOW: usize = 24 << 20;

/// Steps of a single sequence from which on its recurrent weights are packed.
const PACK_FROM: usize = 8;

/// Recurrent weights below this size, in bytes, are near enough to be read as they are.
const BF16_ABOVE: usize = 1 << 20;

/// Runs all steps.
///
/// # Arguments
/// * `workers` - threads to share the work, the caller among them
/// * `parts` - the tensors, contiguous, of the shapes that [`Part`] names
/// * `keep` - whether to keep what the backward needs
///
/// # Returns
/// `[N·d_output | B·d_output | B·H]`: h' of all rows, then the last h' and c' of each sequence; with
/// histories also c' of all rows `[N·H]`.
///
/// # Panics
/// If a tensor is missing or has another size than the problem says.
#[track_caller]
pub fn forward(
    isa: Isa,
    workers: usize,
    problem: &Problem,
    parts: &Parts<&[f32]>,
    keep: bool,
) -> (Vec<f32>, Option<Tape>) {
    problem.check_slices(parts);
    let workers = workers.max(1);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (units, width, d_output) = (problem.d_hidden, problem.width(), problem.d_output);
    let projected = parts.has(Part::Projection);
    let normed = problem.norm_cell.is_some();
    let kind = problem.kind(parts);
    let full = parts.has(Part::PeepholeFull);

    let mut out = unset(problem.output_len());
    let output = out.as_mut_ptr();
    let last_hidden = output.wrapping_add(rows * d_output);
    let last_cell = last_hidden.wrapping_add(batch * d_output);
    // c' of all rows is kept, or wanted.
    let all_cells = keep || problem.histories;

    let single = batch == 1;
    let steps = problem.counts.len();
    let mogrified = !problem.rounds.is_empty();
    let in_step = problem.projects_in_step();
    let bytes = units * width * 4;
    let in_bf16 = problem.bf16 && single && !mogrified && !keep && steps > 1;
    let in_bf16 = in_bf16 && !full && bytes > BF16_ABOVE;
    let by_rows_of_w = single && !mogrified && (steps < PACK_FROM || bytes > PACK_BELOW || in_bf16);
    let offsets = problem.offsets();
    let chunks = chunks(&problem.counts);
    let chunk_rows = |chunk: &Range<usize>| offsets[chunk.end] - offsets[chunk.start];
    let most = chunks.iter().map(chunk_rows).max().unwrap_or(0).max(batch);
    let ring = match (!in_step, keep) {
        (_, true) => 0,
        (true, false) => most,
        (false, false) => batch,
    };
    let extra = if in_step && !mogrified {
        width * problem.d_input * 4
    } else {
        0
    };
    let sequences = if full {
        Vec::new()
    } else {
        problem.groups(workers, extra)
    };
    let shares = match by_rows_of_w {
        // Rows of w in pieces that are as long as can be.
        true => workers,
        false => workers * problem.shares_each(workers),
    };

    let columns = Columns::gates(problem.coupling.gates(), units, isa.lanes());
    let pack = steps > 1 && !by_rows_of_w;
    // What the backward of a single sequence does not pack, it reads row by row. The same without a
    // backward: tiles are summed up in another order.
    let packed_back = !single || steps >= PACK_BACK_FROM;
    let tiled = !by_rows_of_w && packed_back;
    let layout = |rows: usize| match tiled {
        true => Layout::tiles(&columns, rows),
        false => Layout::row_major(&columns, units, rows),
    };
    // Of the gates of all rows or of the ring, and of h·R where it is normalised.
    let gates = layout(if keep { rows } else { ring });
    let products = layout(if keep { rows } else { batch });

    // Kept for all rows, or for one step.
    let kept = |wanted: bool, size: usize| {
        Buffer::new(if wanted {
            size * if keep { rows } else { batch }
        } else {
            0
        })
    };
    let mut tape = Tape {
        made_for: MadeFor::new(isa, problem, parts),
        layout: gates,
        gates: Buffer::new(if keep { gates.size } else { 0 }),
        cells: Buffer::new(match (all_cells, full) {
            (true, _) if problem.histories => 0,
            (true, _) => rows * units,
            (false, true) => 2 * batch * units,
            (false, false) => 0,
        }),
        preact_input: Buffer::new(match problem.norm_input {
            Some(_) => gates.size,
            None => 0,
        }),
        stats_input: Buffer::new(match problem.norm_input {
            Some(_) if keep => rows * STATS,
            Some(_) => most * STATS,
            None => 0,
        }),
        preact_hidden: Buffer::new(match problem.norm_hidden {
            Some(_) => products.size,
            None => 0,
        }),
        stats_hidden: kept(problem.norm_hidden.is_some(), STATS),
        raw: kept(normed || kind.peephole && kind.masked, units),
        normalized: kept(normed, units),
        stats_cell: kept(normed, STATS),
        unprojected: kept(projected, units),
        rounds: Vec::new(),
    };

    let cells = match problem.histories {
        true => output.wrapping_add(problem.cells_start()),
        false => tape.cells.as_mut_ptr(),
    };

    let mut ring = Buffer::new(if keep { 0 } else { gates.size });
    let droppers = shares.max(sequences.len());
    let mut dropped = Buffer::new(if keep { 0 } else { droppers * width });

    let by_group = !sequences.is_empty();
    let columns_out = Columns::plain(d_output, isa.lanes(), if by_group { 1 } else { workers });
    // What the steps read, and what is read beside them.
    let pack_weights = |steps: bool, input: bool| {
        let panels = [
            (Part::WeightHidden, d_output, &columns, steps),
            (Part::PeepholeFull, units, &columns, steps && full),
            (Part::Projection, units, &columns_out, steps && projected),
            (Part::WeightInput, problem.d_input, &columns, input),
        ];
        let shares = if by_group { 1 } else { workers };
        let factors = Factor::of_rounds(problem, isa, shares, false, steps);
        PackedWeights::new(panels, factors)
    };
    let mut bf16 = in_bf16.then(|| Bf16Panels::new(isa, d_output, columns.vectors, units));
    let reused = pack && in_step || chunks.len() > 1;
    let packed = match by_group {
        true => pack_weights(false, reused && !in_step),
        false => pack_weights(pack, reused),
    };
    // Of each worker with steps of its own, with scratch memory for them.
    let copies = if by_group { workers } else { 0 };
    let copies: Vec<_> = (0..copies)
        .map(|_| (pack_weights(pack, in_step), scratch(1, batch, isa)))
        .collect();
    let mut rounds = RoundTape::for_rows(problem, if keep { rows } else { batch });
    // What is added after LN_x, in one row.
    let shift_input = problem.norm_input.and_then(|_| {
        let both = [Part::NormInputShift, Part::Bias].map(|part| parts.get(part).copied());
        match both {
            [Some(shift), Some(bias)] => Some(shift.iter().zip(bias).map(|(a, b)| a + b).collect()),
            [one, other] => one.or(other).map(<[f32]>::to_vec),
        }
    });
    let bias_tiles = match (tiled, problem.norm_input) {
        (true, None) => row_of_tiles(&columns, parts.get(Part::Bias).copied()),
        _ => Vec::new(),
    };
    let bias_row = parts.get(Part::Bias).map_or_else(
        || vec![0.0; if in_step { width } else { 0 }],
        |bias| bias.to_vec(),
    );

    if !keep {
        let cell = parts.of(Part::Cell);
        // SAFETY: `[B, H]`, in the values that were just made.
        unsafe { core::ptr::copy_nonoverlapping(cell.as_ptr(), last_cell, batch * units) };
    }
    let scratch = scratch(shares, most, isa);
    let pointwise = Pointwise::new(problem, parts);
    let run = Run {
        isa,
        shares,
        shares_each: shares / workers,
        problem,
        parts,
        keep,
        all_cells,
        in_step,
        by_rows_of_w,
        offsets: &offsets,
        chunks: &chunks,
        columns,
        columns_out,
        packed: &packed,
        fill_bf16: bf16.as_mut().map(Bf16Panels::as_mut_ptr),
        bf16: bf16.as_ref(),
        rounds: rounds.iter_mut().map(RoundRows::new).collect(),
        bias_row: &bias_row,
        shift_input: shift_input.as_deref(),
        preact_input: tape.preact_input.as_mut_ptr(),
        stats_input: tape.stats_input.as_mut_ptr(),
        bias_tiles: bias_tiles.as_ptr(),
        layout: gates,
        products,
        pointwise: &pointwise,
        scratch: &scratch,
        output,
        last_cell,
        ring: ring.as_mut_ptr(),
        gates: tape.gates.as_mut_ptr(),
        cells,
        preact_hidden: tape.preact_hidden.as_mut_ptr(),
        stats_hidden: tape.stats_hidden.as_mut_ptr(),
        raw: tape.raw.as_mut_ptr(),
        normalized: tape.normalized.as_mut_ptr(),
        stats_cell: tape.stats_cell.as_mut_ptr(),
        unprojected: tape.unprojected.as_mut_ptr(),
        dropped: dropped.as_mut_ptr(),
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
    if groups.is_empty() {
        together(&run.phases());
    } else {
        together(run.packing().as_slice());
        let workers_own: Vec<_> = copies
            .iter()
            .map(|(packed, scratch)| Worker::new(run.of_worker(packed, scratch)))
            .collect();
        let link = problem.link(groups.len());
        // Steps between two products of all workers.
        let spans = match run.hoisted() {
            true => chunks.clone(),
            false => alloc::vec![0..steps],
        };
        for (chunk, span) in spans.into_iter().enumerate() {
            together(&run.projection(chunk).collect::<Vec<_>>());
            let links = span.len().div_ceil(link);
            team::run_chains(workers, groups.len(), links, &|index, group, worker| {
                let start = span.start + index * link;
                // SAFETY: each worker is one thread; the steps of a group are run in order, one at a
                // time; groups have sequences of their own.
                unsafe {
                    let own = workers_own[worker].packed(|run| run.work(Phase::Pack, 0));
                    let run = own.of_group(&groups[group], group);
                    for phase in run.steps(start..(start + link).min(span.end)) {
                        run.work(phase, 0);
                    }
                }
            });
        }
    }

    for b in 0..batch {
        let step = problem.steps_of(b) - 1;
        let row = offsets[step] + b;
        // SAFETY: a row of h' that its step has written, and one of the last h'.
        unsafe {
            let hidden = output.add(row * d_output);
            core::ptr::copy_nonoverlapping(hidden, last_hidden.add(b * d_output), d_output);
        }
        let row = match (all_cells, full) {
            (true, _) => row,
            (false, true) => step % 2 * batch + b,
            (false, false) => continue,
        };
        // SAFETY: a row of c' that its step has written, of as many as `cells` was made for, and one of
        // the last c', which lie before c' of all rows; all steps are done, so nobody else is there.
        unsafe {
            let cell = cells.add(row * units);
            core::ptr::copy_nonoverlapping(cell, last_cell.add(b * units), units);
        }
    }
    if keep {
        tape.rounds = rounds;
    }
    (out, keep.then_some(tape))
}

/// Steps cut into pieces of at most [`CHUNK_ROWS`] rows, or one step.
fn chunks(counts: &[usize]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for (step, &count) in counts.iter().enumerate() {
        if step > start && rows + count > CHUNK_ROWS {
            chunks.push(start..step);
            (start, rows) = (step, 0);
        }
        rows += count;
    }
    chunks.push(start..counts.len());
    chunks
}

/// What all workers do between two meetings.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Recurrent weights into panels.
    Pack,
    /// `x·W + b` of a chunk.
    Project(usize),
    /// LN_x of it.
    NormInput(usize),
    /// The first product of a round of low rank, at a step.
    Inner(usize, usize),
    /// A round at a step.
    Round(usize, usize),
    /// The recurrent product of a step of a chunk; the whole step where it can be done unit by unit.
    Step(usize, usize),
    /// What needs whole rows.
    Rows(usize, usize),
    /// The projection of h.
    Out(usize),
}

#[derive(Clone)]
struct Run<'a> {
    isa: Isa,
    shares: usize,
    /// Of them, those of a worker.
    shares_each: usize,
    problem: &'a Problem,
    parts: &'a Parts<&'a [f32]>,
    keep: bool,
    /// Whether c' has a row per step and sequence.
    all_cells: bool,
    /// Whether `x·W` is part of each step.
    in_step: bool,
    /// One sequence whose weights are not packed.
    by_rows_of_w: bool,
    offsets: &'a [usize],
    chunks: &'a [Range<usize>],
    columns: Columns,
    columns_out: Columns,
    /// R, V, P, W and the matrices of rounds.
    packed: &'a PackedWeights,
    /// R in bf16, and where it is written.
    bf16: Option<&'a Bf16Panels>,
    fill_bf16: Option<*mut u32>,
    rounds: Vec<RoundRows>,
    /// b, or zeros, where `x·W` is part of each step.
    bias_row: &'a [f32],
    /// LN_x's shift and b together.
    shift_input: Option<&'a [f32]>,
    /// x·W, then x·W + b_x, in rows like those of the gates.
    preact_input: *mut f32,
    stats_input: *mut f32,
    /// b, or zeros, as tiles have it.
    bias_tiles: *const f32,
    /// Of the gates, or of the ring.
    layout: Layout,
    /// Of h·R, with LN_h.
    products: Layout,
    pointwise: &'a Pointwise,
    scratch: &'a PerWorker<Scratch>,
    output: *mut f32,
    last_cell: *mut f32,
    /// Pre-activations of a chunk, or of a step, where the gates are not kept.
    ring: *mut f32,
    gates: *mut f32,
    cells: *mut f32,
    preact_hidden: *mut f32,
    stats_hidden: *mut f32,
    raw: *mut f32,
    normalized: *mut f32,
    stats_cell: *mut f32,
    unprojected: *mut f32,
    dropped: *mut f32,
}

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`recurrence/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    /// Whether `x·W` is done before the steps.
    fn hoisted(&self) -> bool {
        !self.in_step
    }

    fn phases(&self) -> Vec<Phase> {
        let mut phases = Vec::with_capacity(3 * self.problem.counts.len() + 2);
        phases.extend(self.packing());
        for (index, chunk) in self.chunks.iter().enumerate() {
            phases.extend(self.projection(index));
            phases.extend(self.steps(chunk.clone()));
        }
        phases
    }

    /// The phase before all others.
    fn packing(&self) -> Option<Phase> {
        let wanted = !self.packed.is_empty() || self.bf16.is_some();
        wanted.then_some(Phase::Pack)
    }

    /// The phases of a chunk before its steps.
    fn projection(&self, chunk: usize) -> impl Iterator<Item = Phase> {
        let hoisted = self.hoisted();
        let normed = hoisted && self.problem.norm_input.is_some();
        let project = hoisted.then_some(Phase::Project(chunk)).into_iter();
        project.chain(normed.then_some(Phase::NormInput(chunk)))
    }

    /// The phases of some steps, those that there are.
    fn steps(&self, range: Range<usize>) -> impl Iterator<Item = Phase> {
        let steps = self.problem.counts.len();
        let by_row = self.problem.by_row();
        let projected = self.parts.has(Part::Projection);
        (range.start.min(steps)..range.end.min(steps)).flat_map(move |step| {
            let chunk = self.chunks.partition_point(|chunk| chunk.end <= step);
            let rounds = self.problem.rounds.iter().enumerate();
            let rounds = rounds.flat_map(move |(round, rank)| {
                let inner = rank.is_some().then_some(Phase::Inner(step, round));
                inner.into_iter().chain([Phase::Round(step, round)])
            });
            rounds
                .chain([Phase::Step(chunk, step)])
                .chain(by_row.then_some(Phase::Rows(chunk, step)))
                .chain(projected.then_some(Phase::Out(step)))
        })
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
    fn of_group<'g>(&'g self, group: &'g Group<'g>, index: usize) -> Run<'g> {
        let (units, width) = (self.problem.d_hidden, self.problem.width());
        // What is kept for all steps is found by its row; the rest has a row per sequence.
        let own = |buffer: *mut f32, size: usize| match self.keep {
            true => buffer,
            false => buffer.wrapping_add(group.first * size),
        };
        let rounds = self.rounds.iter().enumerate().map(|(round, rows)| {
            let to = self.problem.round_shape(round).1;
            RoundRows {
                value: own(rows.value, to),
                gate: own(rows.gate, to),
                inner: own(rows.inner, self.problem.rounds[round].unwrap_or(0)),
            }
        });
        Run {
            problem: &group.problem,
            parts: &group.parts,
            offsets: &group.offsets,
            rounds: rounds.collect(),
            pointwise: &group.pointwise,
            last_cell: self.last_cell.wrapping_add(group.first * units),
            ring: own(self.ring, self.layout.row),
            preact_hidden: own(self.preact_hidden, self.products.row),
            stats_hidden: own(self.stats_hidden, STATS),
            raw: own(self.raw, units),
            normalized: own(self.normalized, units),
            stats_cell: own(self.stats_cell, STATS),
            unprojected: own(self.unprojected, units),
            dropped: self.dropped.wrapping_add(index * width),
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
                Phase::Project(chunk) => self.project(chunk, share),
                Phase::NormInput(chunk) => self.norm_input(chunk, share),
                Phase::Inner(step, round) => self.inner(step, round, share),
                Phase::Round(step, round) => self.round(step, round, share),
                Phase::Step(chunk, step) => self.step(chunk, step, share),
                Phase::Rows(chunk, step) => self.rows(chunk, step, share),
                Phase::Out(step) => self.out(step, share),
            }
        }
    }

    /// Weights into panels.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn pack(&self, share: usize) {
        if let (Some(bf16), Some(words)) = (self.bf16, self.fill_bf16) {
            let r = View::rows(self.parts.of(Part::WeightHidden), self.problem.width());
            let pairs = part(bf16.pairs(), share, self.shares);
            // SAFETY: this share's own pairs.
            unsafe { bf16.fill(words, r, pairs) };
        }
        for (part, target) in self.packed.targets() {
            let (k, width) = self.size(part);
            let columns = match part {
                Part::Projection => &self.columns_out,
                _ => &self.columns,
            };
            let view = View::rows(self.parts.of(part), width);
            let panels = columns.share(share, self.shares);
            // SAFETY: the weights have k rows and these columns, the panels were made for them, and
            // each share packs panels of its own.
            unsafe { Panels::pack(self.isa, target, k, view, columns, panels) };
        }
        for (factor, target) in self.packed.factor_targets() {
            let panels = factor.columns.share(share, self.shares);
            // SAFETY: as above.
            unsafe { factor.pack(self.isa, target, self.parts, false, panels) };
        }
    }

    /// Rows and columns of a weight.
    fn size(&self, part: Part) -> (usize, usize) {
        let problem = self.problem;
        match part {
            Part::WeightHidden => (problem.d_output, problem.width()),
            Part::WeightInput => (problem.d_input, problem.width()),
            Part::PeepholeFull => (problem.d_hidden, problem.width()),
            _ => (problem.d_hidden, problem.d_output),
        }
    }

    /// Pre-activations from the input at a step.
    fn preact(&self, chunk: usize, step: usize) -> GateRows {
        let offset = self.offsets[step];
        if self.in_step {
            let bias = Rows::read(self.bias_row.as_ptr(), 0);
            return bias.gates(self.problem.d_hidden, self.isa);
        }
        match self.keep {
            true => self.layout.rows(self.gates, offset),
            false => {
                let first = self.offsets[self.chunks[chunk].start];
                self.layout.rows(self.ring, offset - first)
            }
        }
    }

    /// x·W + b_x from a step of a chunk on, with LN_x, and the statistics of its rows.
    fn raw_input(&self, chunk: usize, step: usize) -> (GateRows, Rows) {
        let first = match self.keep {
            true => 0,
            false => self.offsets[self.chunks[chunk].start],
        };
        let row = self.offsets[step] - first;
        let stats = Rows {
            ptr: self.stats_input.wrapping_add(row * STATS),
            stride: STATS,
        };
        (self.layout.rows(self.preact_input, row), stats)
    }

    /// Room for the pre-activations of a step.
    fn own_preact(&self, chunk: usize, step: usize) -> GateRows {
        match (self.hoisted(), self.keep) {
            (true, _) => self.preact(chunk, step),
            (false, true) => self.layout.rows(self.gates, self.offsets[step]),
            (false, false) => self.layout.rows(self.ring, 0),
        }
    }

    /// Rows of h·R of a step, with LN_h.
    fn product_rows(&self, step: usize) -> GateRows {
        let row = if self.keep { self.offsets[step] } else { 0 };
        self.products.rows(self.preact_hidden, row)
    }

    /// h before a step.
    fn hidden(&self, step: usize) -> View {
        let d_output = self.problem.d_output;
        let ptr = match step {
            0 => self.parts.of(Part::Hidden).as_ptr(),
            _ => self.output.wrapping_add(self.offsets[step - 1] * d_output),
        };
        View {
            ptr,
            row: d_output,
            column: 1,
        }
    }

    /// c before a step, c' after it.
    fn cells(&self, step: usize) -> (Rows, Rows) {
        let stride = self.problem.d_hidden;
        let full = self.parts.has(Part::PeepholeFull);
        if !self.all_cells && !full {
            let rows = Rows {
                ptr: self.last_cell,
                stride,
            };
            return (rows, rows);
        }
        // Full peepholes see all of c while c' is written a panel at a time: two buffers in turn.
        let row = |step: usize| match self.all_cells {
            true => self.offsets[step],
            false => step % 2 * self.problem.batch_size(),
        };
        let at = |step: usize| Rows {
            ptr: self.cells.wrapping_add(row(step) * stride),
            stride,
        };
        let before = match step {
            0 => Rows::read(self.parts.of(Part::Cell).as_ptr(), stride),
            _ => at(step - 1),
        };
        (before, at(step))
    }

    /// Where gates go that nobody reads: one row, again and again.
    fn dropped(&self, share: usize) -> GateRows {
        let width = self.problem.width();
        let row = Rows {
            ptr: self.dropped.wrapping_add(share * width),
            stride: 0,
        };
        row.gates(self.problem.d_hidden, self.isa)
    }

    /// Rows of a buffer that is kept for all steps or lives for one.
    fn kept(&self, buffer: *mut f32, step: usize, size: usize) -> Rows {
        let row = if self.keep { self.offsets[step] } else { 0 };
        Rows {
            ptr: buffer.wrapping_add(row * size),
            stride: size,
        }
    }

    /// The pointwise part of a step.
    fn pointwise(&self, step: usize, rows: usize, units: Range<usize>) -> Forward {
        let problem = self.problem;
        let (d_hidden, d_output) = (problem.d_hidden, problem.d_output);
        let (cell, cell_next) = self.cells(step);
        let projected = self.parts.has(Part::Projection);
        let hidden = self.hidden(step);
        let (hidden, hidden_next) = match projected {
            // Nothing reads h here: masks on it act after the projection.
            true => (
                self.pointwise.ones(),
                self.kept(self.unprojected, step, d_hidden),
            ),
            false => (
                Rows::read(hidden.ptr, d_output),
                Rows {
                    ptr: self.output.wrapping_add(self.offsets[step] * d_output),
                    stride: d_output,
                },
            ),
        };
        Forward {
            rows,
            units,
            tile: None,
            preact: GateRows::NONE,
            gates: GateRows::NONE,
            cell,
            cell_next,
            raw: self.kept(self.raw, step, d_hidden),
            normalized: self.kept(self.normalized, step, d_hidden),
            carry_normalized: problem.carry_normalized,
            hidden,
            hidden_next,
            masks: self.pointwise.masks(problem, self.offsets[step], projected),
            peepholes: self.pointwise.peepholes,
            clip: problem.clip,
        }
    }

    /// The product of some rows of the input, from a row on, with W.
    fn input_term(&self, row: usize) -> Term {
        let x = View::rows(self.parts.of(Part::Input), self.problem.d_input);
        let order = self.problem.order(row);
        let first = if order.is_null() { row } else { 0 };
        Term {
            order,
            ..self.term(Part::WeightInput, x.from_row(first))
        }
    }

    /// A product with weights, packed where they are.
    fn term(&self, part: Part, a: View) -> Term {
        let (k, width) = self.size(part);
        let weights = match self.packed.get(part) {
            Some(panels) => panels.weights(),
            None => Weights::Native(View::rows(self.parts.of(part), width)),
        };
        Term::new(a, k, weights)
    }
}

//! The recurrence forward.

mod buffers;
mod input;
mod plan;
mod rounds;
mod rows;
mod steps;

use alloc::vec::Vec;
use core::ops::Range;

use buffers::{Biases, Buffers, Pointers};
use plan::Plan;

use super::weights::index;
use super::{Pointwise, Saved};
use crate::fused::cpu::bf16::Bf16Panels;
use crate::fused::cpu::buffer::unset;
use crate::fused::cpu::driver::{Crew, Group, Groups, Matrix, OwnMemory, PerShare, Run, WeightSet};
use crate::fused::cpu::product::{Product, Term, part};
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::{GateRows, Rows, View};
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Key, Part, Parts};

/// Runs all steps.
///
/// # Arguments
/// * `workers` - number of threads that share the work, including the caller's
/// * `parts` - the tensors, contiguous, with the shapes given at [`Part`]
/// * `save` - whether to save tensors for the backward
///
/// # Returns
/// `[N·d_output | B·d_output | B·H]`: h' of all rows, then the final h' and c' of each sequence; with
/// histories also c' of all rows `[N·H]`.
///
/// # Panics
/// If a tensor is missing or its size does not match the problem.
#[track_caller]
pub fn forward(
    isa: Isa,
    workers: usize,
    problem: &LstmProblem,
    parts: &Parts<&[f32]>,
    save: bool,
) -> (Vec<f32>, Option<Saved>) {
    problem.check_slices(parts);
    let plan = Plan::new(isa, workers.max(1), problem, parts, save);
    let mut out = unset(problem.output_len());
    let mut buffers = Buffers::new(isa, &plan, problem, parts);
    let at = buffers.pointers(problem, out.as_mut_ptr());
    if !save {
        let cell = parts.of(Part::Cell);
        // SAFETY: `[B, H]` values, inside the output that was just allocated.
        unsafe { core::ptr::copy_nonoverlapping(cell.as_ptr(), at.last_cell, cell.len()) };
    }

    let biases = Biases::new(&plan, problem, parts);
    let weights = WeightSet::new(plan.shared_weights(isa).matrices(problem, parts));
    let panels = || {
        Bf16Panels::new(
            isa,
            problem.d_output,
            plan.columns.vectors,
            problem.d_hidden,
        )
    };
    let mut bf16 = plan.in_bf16.then(panels);
    let scratch = PerShare::scratch(isa, plan.shares(), plan.most);
    let pointwise = Pointwise::new(problem, parts);
    let run = Forward {
        crew: Crew::new(isa, plan.workers, plan.each, &scratch),
        problem,
        parts,
        plan: &plan,
        offsets: &plan.offsets,
        weights: &weights,
        biases: &biases,
        fill_bf16: bf16.as_mut().map(Bf16Panels::as_mut_ptr),
        bf16: bf16.as_ref(),
        pointwise: &pointwise,
        at,
    };
    // SAFETY: the buffers were made for this call and these shares, and nothing else uses them.
    unsafe {
        run.run_all(isa);
        run.last_states();
    }
    (out, save.then_some(buffers.saved))
}

/// A group of sequences, with the arguments of a call for these sequences only.
struct OfGroup<'a> {
    problem: LstmProblem,
    parts: Parts<&'a [f32]>,
    pointwise: Pointwise,
}

/// The work of all workers between two barriers.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Packs the recurrent weights.
    Pack,
    /// `x·W + b` of a chunk.
    Project(usize),
    /// LN_x of a chunk.
    NormInput(usize),
    /// The first product of a low-rank round, at a step.
    Inner(usize, usize),
    /// A round at a step.
    Round(usize, usize),
    /// The recurrent product of a step of a chunk; also the rest of the step if it can be done unit by
    /// unit.
    Step(usize, usize),
    /// The part of a step that needs complete rows.
    Rows(usize, usize),
    /// The projection of h.
    Out(usize),
}

/// A call, or the steps of a group of its sequences.
#[derive(Clone)]
struct Forward<'a> {
    crew: Crew<'a>,
    problem: &'a LstmProblem,
    parts: &'a Parts<&'a [f32]>,
    plan: &'a Plan,
    /// The first row of each step.
    offsets: &'a [usize],
    weights: &'a WeightSet,
    biases: &'a Biases,
    /// R in bf16, and the address to which it is written.
    bf16: Option<&'a Bf16Panels>,
    fill_bf16: Option<*mut u32>,
    pointwise: &'a Pointwise,
    at: Pointers,
}

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`driver/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Forward<'_> {}

impl Run for Forward<'_> {
    type Phase = Phase;

    fn packing(&self) -> Option<Phase> {
        (self.weights.is_packed() || self.bf16.is_some()).then_some(Phase::Pack)
    }

    fn before(&self, chunk: usize) -> impl Iterator<Item = Phase> {
        let hoisted = !self.plan.in_step;
        let normed = hoisted && self.problem.norm_input.is_some();
        let project = hoisted.then_some(Phase::Project(chunk)).into_iter();
        project.chain(normed.then_some(Phase::NormInput(chunk)))
    }

    /// The phases of those steps of the range that exist.
    fn steps(&self, range: Range<usize>) -> impl Iterator<Item = Phase> {
        let steps = self.problem.counts.len();
        let by_row = self.problem.by_row();
        let projected = self.parts.has(Part::Projection);
        (range.start.min(steps)..range.end.min(steps)).flat_map(move |step| {
            let chunk = self.plan.chunks.partition_point(|chunk| chunk.end <= step);
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
}

impl<'a> Forward<'a> {
    /// Runs all phases.
    ///
    /// # Safety
    /// The buffers were made for this call and its shares, and nothing else uses them.
    unsafe fn run_all(&self, isa: Isa) {
        let (plan, problem) = (self.plan, self.problem);
        let schedule = plan.schedule(problem);
        let workers = if plan.groups.is_empty() {
            0
        } else {
            plan.workers
        };
        let memory = OwnMemory::of_workers(isa, workers, problem.batch_size(), || {
            plan.own_weights(isa).matrices(problem, self.parts)
        });
        let parts: Vec<_> = plan.groups.iter().map(|group| self.cut(group)).collect();
        let own = memory.iter().map(|memory| Forward {
            crew: memory.crew(),
            weights: &memory.weights,
            ..self.clone()
        });
        let groups = Groups {
            count: parts.len(),
            link: problem.work().link(parts.len()),
        };
        // SAFETY: by the contract of this function; groups have sequences of their own.
        unsafe {
            schedule.run(self, own.collect(), groups, |own, index| {
                own.of_group(&plan.groups[index], &parts[index], index)
            });
        }
    }

    /// The group's part of the call.
    fn cut(&self, group: &Group) -> OfGroup<'a> {
        let (problem, parts) = self.problem.of_group(group, self.parts);
        OfGroup {
            pointwise: Pointwise::new(&problem, &parts),
            problem,
            parts,
        }
    }

    /// The steps of a group's sequences.
    fn of_group(&self, group: &'a Group, of_group: &'a OfGroup<'a>, index: usize) -> Self {
        let at = &self.at;
        Forward {
            problem: &of_group.problem,
            parts: &of_group.parts,
            offsets: &group.offsets,
            pointwise: &of_group.pointwise,
            at: at.of_group(self.plan, self.problem, group.first, index),
            ..self.clone()
        }
    }

    /// Packs the weights.
    ///
    /// # Safety
    /// As [`work`](Run::work), for this phase.
    unsafe fn pack(&self, share: usize) {
        if let (Some(bf16), Some(words)) = (self.bf16, self.fill_bf16) {
            let r = View::rows(self.parts.of(Part::WeightHidden), self.problem.width());
            let pairs = part(bf16.pairs(), share, self.crew.shares);
            // SAFETY: this share's own pairs.
            unsafe { bf16.fill(words, r, pairs) };
        }
        // SAFETY: this share's own panels.
        unsafe { self.weights.pack(self.crew.isa, share, self.crew.shares) };
    }

    /// Copies the final h' of each sequence, and its final c' unless that was computed in place.
    ///
    /// # Safety
    /// All steps are done, and nothing else uses the buffers.
    unsafe fn last_states(&self) {
        let (problem, at) = (self.problem, &self.at);
        let (units, d_output) = (problem.d_hidden, problem.d_output);
        let full = self.parts.has(Part::PeepholeFull);
        for b in 0..problem.batch_size() {
            let step = problem.steps_of(b) - 1;
            let row = self.offsets[step] + b;
            // SAFETY: a row of h' that its step has written, and a row of the final h'.
            unsafe {
                let hidden = at.output.add(row * d_output);
                let last = at.last_hidden.add(b * d_output);
                core::ptr::copy_nonoverlapping(hidden, last, d_output);
            }
            if !self.plan.all_cells && !full {
                continue;
            }
            let (_, cells) = self.cells(step);
            // SAFETY: a row of c' that its step has written, and a row of the final c', which come
            // before c' of all rows in the output.
            unsafe {
                let cell = cells.from_row(b).ptr;
                core::ptr::copy_nonoverlapping(cell, at.last_cell.add(b * units), units);
            }
        }
    }

    /// A weight in the form that products take.
    fn weight(&self, key: impl Into<Key>) -> &'a Matrix {
        self.weights.get(index(key))
    }

    /// A vector of weights; null if it is absent.
    fn vector(&self, part: Part) -> *const f32 {
        self.parts
            .get(part)
            .map_or(core::ptr::null(), |v| v.as_ptr())
    }

    /// The product of the given terms with weights of gates, for some rows.
    fn product<'t>(&self, rows: usize, terms: &'t [Term]) -> Product<'t>
    where
        'a: 't,
    {
        Product {
            isa: self.crew.isa,
            rows,
            terms,
            columns: &self.plan.columns,
        }
    }

    /// The input's part of the pre-activations of a step.
    fn preact(&self, chunk: usize, step: usize) -> GateRows {
        let (plan, offset) = (self.plan, self.offsets[step]);
        if plan.in_step {
            let bias = Rows::read(self.biases.row.as_ptr(), 0);
            return bias.gates(self.problem.d_hidden, self.crew.isa);
        }
        match plan.save {
            true => plan.gates.rows(self.at.gates, offset),
            false => {
                let first = self.offsets[plan.chunks[chunk].start];
                plan.gates.rows(self.at.ring, offset - first)
            }
        }
    }

    /// The buffer for the pre-activations of a step.
    fn own_preact(&self, chunk: usize, step: usize) -> GateRows {
        let plan = self.plan;
        match (plan.in_step, plan.save) {
            (false, _) => self.preact(chunk, step),
            (true, true) => plan.gates.rows(self.at.gates, self.offsets[step]),
            (true, false) => plan.gates.rows(self.at.ring, 0),
        }
    }

    /// The rows of h·R of a step, with LN_h.
    fn product_rows(&self, step: usize) -> GateRows {
        let row = if self.plan.save {
            self.offsets[step]
        } else {
            0
        };
        self.plan.products.rows(self.at.preact_hidden, row)
    }

    /// h before a step.
    fn hidden(&self, step: usize) -> Rows {
        let d_output = self.problem.d_output;
        match step {
            0 => Rows::read(self.parts.of(Part::Hidden).as_ptr(), d_output),
            _ => self.output(step - 1),
        }
    }

    /// h' of a step.
    fn output(&self, step: usize) -> Rows {
        let stride = self.problem.d_output;
        Rows {
            ptr: self.at.output.wrapping_add(self.offsets[step] * stride),
            stride,
        }
    }

    /// c before a step, c' after it.
    fn cells(&self, step: usize) -> (Rows, Rows) {
        let stride = self.problem.d_hidden;
        let all_cells = self.plan.all_cells;
        if !all_cells && !self.parts.has(Part::PeepholeFull) {
            let rows = Rows {
                ptr: self.at.last_cell,
                stride,
            };
            return (rows, rows);
        }
        // Full peepholes read all of c while c' is written panel by panel, so c is double-buffered.
        let row = |step: usize| match all_cells {
            true => self.offsets[step],
            false => step % 2 * self.problem.batch_size(),
        };
        let at = |step: usize| Rows {
            ptr: self.at.cells.wrapping_add(row(step) * stride),
            stride,
        };
        let before = match step {
            0 => Rows::read(self.parts.of(Part::Cell).as_ptr(), stride),
            _ => at(step - 1),
        };
        (before, at(step))
    }

    /// The destination of gates that are never read: one row that is overwritten each time.
    fn unread(&self, share: usize) -> GateRows {
        let row = Rows {
            ptr: self.at.unread.wrapping_add(share * self.problem.width()),
            stride: 0,
        };
        row.gates(self.problem.d_hidden, self.crew.isa)
    }

    /// Rows of a step in a buffer that is saved for all steps, or reused by every step.
    fn saved(&self, buffer: *mut f32, step: usize, size: usize) -> Rows {
        let row = if self.plan.save {
            self.offsets[step]
        } else {
            0
        };
        Rows {
            ptr: buffer.wrapping_add(row * size),
            stride: size,
        }
    }
}

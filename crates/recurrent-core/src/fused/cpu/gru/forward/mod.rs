//! The GRU forward.

mod plan;

use alloc::vec::Vec;
use core::ops::Range;

use plan::Plan;

use super::{Saved, Weight, made_for, vector};
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::driver::{
    Crew, Direction, Group, Groups, Matrix, OwnMemory, PerShare, Projection, Run, Schedule,
    WeightSet, input_term,
};
use crate::fused::cpu::layout::row_of_tiles;
use crate::fused::cpu::pointwise::{GruForward, GruHalf, MaskTable};
use crate::fused::cpu::product::{Product, Tile, fetch, serpentine};
use crate::fused::cpu::rows::RowTimes;
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::{GateRows, Rows};
use crate::fused::problem::gru::GruProblem;
use crate::fused::problem::{Part, Parts};

/// Runs all steps.
///
/// # Arguments
/// * `workers` - number of threads that share the work, including the caller's
/// * `parts` - the tensors, contiguous, with the shapes given by [`GruProblem::expected`]
/// * `save` - whether to save tensors for the backward
///
/// # Returns
/// `[N·H | B·H]`: h' of all rows, then the final h' of each sequence.
///
/// # Panics
/// If a tensor is missing or its size does not match the problem.
#[track_caller]
pub fn forward(
    isa: Isa,
    workers: usize,
    problem: &GruProblem,
    parts: &Parts<&[f32]>,
    save: bool,
) -> (Vec<f32>, Option<Saved>) {
    problem.check_slices(parts);
    let plan = Plan::new(isa, workers.max(1), problem, save);
    let mut out = unset(problem.output_len());
    let saved_rows = if save {
        problem.rows()
    } else {
        problem.batch_size()
    };
    // u is used only by the backward, r ⊙ h by the second product.
    let inner = if save || !problem.reset_after {
        saved_rows
    } else {
        0
    };
    let mut saved = Saved {
        made_for: save.then(|| made_for(isa, problem, parts)),
        layout: plan.gates,
        gates: Buffer::new(plan.gates.size),
        inner: Buffer::new(inner * problem.d_hidden),
    };
    let row = if plan.by_rows { problem.width() } else { 0 };
    let mut product_row = Buffer::new(row);
    let bias = parts.get(Part::Bias).copied();
    let bias_tiles = match plan.gates.is_tiled() {
        true => row_of_tiles(&plan.columns, bias),
        false => Vec::new(),
    };
    let weights = WeightSet::new(plan.shared_weights(isa).matrices(problem, parts));
    let scratch = PerShare::scratch(isa, plan.workers * plan.each, plan.most);
    let run = Forward {
        crew: Crew::new(isa, plan.workers, plan.each, &scratch),
        problem,
        parts,
        plan: &plan,
        offsets: &plan.offsets,
        weights: &weights,
        bias_tiles: &bias_tiles,
        masks: &problem.mask_table(parts),
        at: Pointers {
            output: out.as_mut_ptr(),
            gates: saved.gates.as_mut_ptr(),
            inner: saved.inner.as_mut_ptr(),
            product_row: product_row.as_mut_ptr(),
        },
    };
    // SAFETY: the buffers were made for this call and these shares, and nothing else uses them.
    unsafe {
        run.run_all(isa);
        run.last_states();
    }
    (out, save.then_some(saved))
}

/// The work of all workers between two barriers.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Packs the weights.
    Pack,
    /// `x·W + b` of a chunk.
    Project(usize),
    /// A step of a chunk, or its r, z and r ⊙ h only.
    Gates(usize, usize),
    /// n and h' of a step, if the reset gate acts before the product.
    Candidate(usize, usize),
}

/// The addresses of the output and the buffers.
#[derive(Clone, Copy)]
struct Pointers {
    /// h' of all rows, then the final h' of each sequence.
    output: *mut f32,
    gates: *mut f32,
    inner: *mut f32,
    /// h·R of the only row, if R is read in row-major order.
    product_row: *mut f32,
}

/// A group of sequences, with the arguments of a call for these sequences only.
struct OfGroup<'a> {
    problem: GruProblem,
    parts: Parts<&'a [f32]>,
    masks: MaskTable,
}

/// A call, or the steps of a group of its sequences.
#[derive(Clone)]
struct Forward<'a> {
    crew: Crew<'a>,
    problem: &'a GruProblem,
    parts: &'a Parts<&'a [f32]>,
    plan: &'a Plan,
    /// The first row of each step.
    offsets: &'a [usize],
    weights: &'a WeightSet,
    bias_tiles: &'a [f32],
    masks: &'a MaskTable,
    at: Pointers,
}

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`driver/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Forward<'_> {}

impl Run for Forward<'_> {
    type Phase = Phase;

    fn packing(&self) -> Option<Phase> {
        self.weights.is_packed().then_some(Phase::Pack)
    }

    fn before(&self, chunk: usize) -> impl Iterator<Item = Phase> {
        [Phase::Project(chunk)].into_iter()
    }

    /// The phases of those steps of the range that exist.
    fn steps(&self, range: Range<usize>) -> impl Iterator<Item = Phase> {
        let steps = self.problem.counts.len();
        let halves = !self.problem.reset_after;
        (range.start.min(steps)..range.end.min(steps)).flat_map(move |step| {
            let chunk = self.plan.chunks.partition_point(|chunk| chunk.end <= step);
            let candidate = halves.then_some(Phase::Candidate(chunk, step));
            [Phase::Gates(chunk, step)].into_iter().chain(candidate)
        })
    }

    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => self.weights.pack(self.crew.isa, share, self.crew.shares),
                Phase::Project(chunk) => self.project(chunk, share),
                Phase::Gates(chunk, step) => {
                    let half = match self.problem.reset_after {
                        true => GruHalf::Both,
                        false => GruHalf::Gates,
                    };
                    self.product(Weight::Hidden, half, chunk, step, share);
                }
                Phase::Candidate(chunk, step) => {
                    self.product(Weight::Candidate, GruHalf::Candidate, chunk, step, share);
                }
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
        let schedule = Schedule {
            workers: plan.workers,
            shares: plan.workers * plan.each,
            direction: Direction::Forward,
            spans: plan.chunks.clone(),
        };
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
                own.of_group(&plan.groups[index], &parts[index])
            });
        }
    }

    /// The group's part of the call.
    fn cut(&self, group: &Group) -> OfGroup<'a> {
        let (problem, parts) = self.problem.of_group(group, self.parts);
        OfGroup {
            masks: problem.mask_table(&parts),
            problem,
            parts,
        }
    }

    /// The steps of a group's sequences.
    fn of_group(&self, group: &'a Group, of_group: &'a OfGroup<'a>) -> Self {
        // Buffers saved for all steps are addressed by row of the call; other buffers have one row per
        // sequence. The gates of a chunk are addressed by row as well.
        let first = if self.plan.save { 0 } else { group.first };
        Forward {
            problem: &of_group.problem,
            parts: &of_group.parts,
            offsets: &group.offsets,
            masks: &of_group.masks,
            at: Pointers {
                inner: self.at.inner.wrapping_add(first * self.problem.d_hidden),
                ..self.at
            },
            ..self.clone()
        }
    }

    /// Copies the final h' of each sequence.
    ///
    /// # Safety
    /// All steps are done, and nothing else uses the buffers.
    unsafe fn last_states(&self) {
        let (problem, units) = (self.problem, self.problem.d_hidden);
        for b in 0..problem.batch_size() {
            let row = self.offsets[problem.steps_of(b) - 1] + b;
            // SAFETY: a row of h' that its step has written, and a row of the final h', which come after
            // all h'.
            unsafe {
                let last = self.at.output.add((problem.rows() + b) * units);
                core::ptr::copy_nonoverlapping(self.at.output.add(row * units), last, units);
            }
        }
    }

    fn weight(&self, weight: Weight) -> &'a Matrix {
        self.weights.get(weight as usize)
    }

    /// x·W + b of a chunk, for this share's panels.
    ///
    /// # Safety
    /// As [`work`](Run::work), for this phase.
    unsafe fn project(&self, chunk: usize, share: usize) {
        let (plan, problem) = (self.plan, self.problem);
        let steps = &plan.chunks[chunk];
        let first = self.offsets[steps.start];
        let (matrix, input) = (self.weight(Weight::Input), self.parts.of(Part::Input));
        let projection = Projection {
            matrix,
            term: input_term(matrix, input, problem.d_input, &problem.order, first),
            rows: self.offsets[steps.end] - first,
            target: self.gates(chunk, steps.start),
            tiled: plan.gates.is_tiled(),
            by_rows: plan.by_rows,
            bias: vector(self.parts, Part::Bias),
            bias_tiles: self.bias_tiles.as_ptr(),
        };
        // SAFETY: this share's own columns; x and W have these sizes.
        unsafe { projection.run(&self.crew, share) };
    }

    /// A recurrent product of a step, and the pointwise part after it.
    ///
    /// # Safety
    /// As [`work`](Run::work), for this phase.
    unsafe fn product(
        &self,
        weight: Weight,
        half: GruHalf,
        chunk: usize,
        step: usize,
        share: usize,
    ) {
        let share = self.crew.serpentine(share, step);
        let (matrix, rows) = (self.weight(weight), self.problem.counts[step]);
        let columns = &matrix.columns;
        let panels = self.crew.panels(columns, share);
        let a = match weight {
            Weight::Candidate => self.inner(step),
            _ => self.hidden(step),
        };
        let whole = self.pointwise(chunk, step);
        let masked = self.masks.any();
        let apply = |units: Range<usize>, product: GateRows| {
            let forward = GruForward {
                units,
                product,
                ..whole.clone()
            };
            // SAFETY: this share's own units, whose products are complete.
            unsafe { forward.run(self.crew.isa, half, masked) };
        };
        if rows == 1 {
            // Most of this row was written by other workers: the prefetch overlaps the cache misses.
            fetch(a.ptr, self.problem.d_hidden);
        }
        if self.plan.by_rows {
            // SAFETY: this share's own columns.
            let product = unsafe { self.row_product(matrix, a, panels.clone(), step) };
            apply(columns.units(&panels), product);
            return;
        }
        let terms = [matrix.term(a.view())];
        let product = Product {
            isa: self.crew.isa,
            rows,
            terms: &terms,
            columns,
        };
        // SAFETY: the scratch and the panels of this share; a and R are complete.
        unsafe {
            let scratch = self.crew.scratch(share);
            let panels = serpentine(panels, step);
            product.each_tile(scratch, panels, |panel, tile| {
                let units = columns.units(&(panel..panel + 1));
                let first = units.start;
                apply(units, self.tile_rows(tile, first));
            });
        }
    }

    /// A tile as rows of gates, indexed by unit number.
    fn tile_rows(&self, tile: Tile, first: usize) -> GateRows {
        let lanes = self.crew.isa.lanes();
        GateRows {
            ptr: tile.values.cast_mut().wrapping_sub(first),
            row: tile.stride,
            gate: lanes,
            panel: lanes,
        }
    }

    /// The product of the only row with a matrix in row-major order.
    ///
    /// # Safety
    /// The panels are the caller's own.
    unsafe fn row_product(
        &self,
        matrix: &Matrix,
        a: Rows,
        panels: Range<usize>,
        step: usize,
    ) -> GateRows {
        let out = Rows {
            ptr: self.at.product_row,
            stride: self.problem.width(),
        };
        for columns in matrix.columns.ranges(panels) {
            let times = RowTimes {
                k: matrix.k,
                a: a.ptr,
                w: matrix.view,
                columns: columns.clone(),
                out: out.ptr,
                back: step % 2 == 1,
            };
            // SAFETY: by the contract of this function.
            unsafe {
                core::ptr::write_bytes(out.ptr.add(columns.start), 0, columns.len());
                times.run(self.crew.isa);
            }
        }
        out.gates(self.problem.d_hidden, self.crew.isa)
    }

    /// The pointwise part of a step; the caller adds units and product.
    fn pointwise(&self, chunk: usize, step: usize) -> GruForward {
        let problem = self.problem;
        GruForward {
            rows: problem.counts[step],
            units: 0..0,
            gates: self.gates(chunk, step),
            product: GateRows::NONE,
            bias: vector(self.parts, Part::BiasHidden),
            inner: match self.plan.save || !problem.reset_after {
                true => self.inner(step),
                false => Rows::NONE,
            },
            hidden: self.hidden(step),
            hidden_next: self.output(step),
            masks: self.masks.at(self.offsets[step]),
        }
    }

    /// The gates of a step; they initially hold x·W + b.
    fn gates(&self, chunk: usize, step: usize) -> GateRows {
        let first = match self.plan.save {
            true => 0,
            // The first row of the chunk in the whole call: a group's rows are addressed relative to it.
            false => self.plan.offsets[self.plan.chunks[chunk].start],
        };
        let row = self.offsets[step] - first;
        self.plan.gates.rows(self.at.gates, row)
    }

    /// u, or r ⊙ h, of a step.
    fn inner(&self, step: usize) -> Rows {
        let rows = Rows {
            ptr: self.at.inner,
            stride: self.problem.d_hidden,
        };
        rows.from_row(if self.plan.save {
            self.offsets[step]
        } else {
            0
        })
    }

    /// h before a step.
    fn hidden(&self, step: usize) -> Rows {
        match step {
            0 => Rows::read(self.parts.of(Part::Hidden).as_ptr(), self.problem.d_hidden),
            _ => self.output(step - 1),
        }
    }

    /// h' of a step.
    fn output(&self, step: usize) -> Rows {
        let rows = Rows {
            ptr: self.at.output,
            stride: self.problem.d_hidden,
        };
        rows.from_row(self.offsets[step])
    }
}

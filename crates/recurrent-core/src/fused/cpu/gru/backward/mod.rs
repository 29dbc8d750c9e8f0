//! The GRU backward.

mod plan;
mod sums;

use alloc::vec::Vec;
use core::ops::Range;

use plan::{Buffers, Plan, Pointers, TargetPointers, Targets};

use super::{Gradient, Saved, Weight, made_for};
use crate::fused::cpu::driver::{
    Back, Before, CHUNK_ROWS, Crew, Direction, Group, Groups, Left, Matrix, OwnMemory, PerShare,
    Run, Schedule, WeightSet, one_span,
};
use crate::fused::cpu::pointwise::{GruBackward, GruHalf, MaskTable};
use crate::fused::cpu::product::Onto;
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::gru::GruProblem;
use crate::fused::problem::{Expected, Part, Parts};

/// The gradients of a call.
///
/// # Arguments
/// * `workers` - number of threads that share the work, including the caller's
///
/// # Returns
/// The gradients of the wanted parts, each of the part's own shape.
///
/// # Panics
/// If a tensor is missing or its size does not match the problem, or the saved tensors belong to a
/// different call.
#[track_caller]
pub fn backward(
    isa: Isa,
    workers: usize,
    problem: &GruProblem,
    call: Gradient<'_>,
) -> Parts<Vec<f32>> {
    check(isa, problem, &call);
    let Gradient { parts, saved, .. } = call;
    let plan = Plan::new(isa, workers.max(1), problem, &call);
    let (rows, units) = (problem.rows(), problem.d_hidden);
    let (grad_output, last) = call.grad.split_at(rows * units);
    let mut grad_hidden = last.to_vec();
    let mut buffers = Buffers::new(&plan, problem);
    let mut targets = Targets::new(problem, &call);
    let weights = WeightSet::new(plan.shared_weights().matrices(problem, parts));
    let most = [problem.batch_size(), CHUNK_ROWS, problem.d_input, units];
    let most = most.into_iter().max().unwrap_or(1);
    let scratch = PerShare::scratch(isa, plan.workers * plan.each, most);
    let first = parts.of(Part::Hidden);
    let run = Backward {
        crew: Crew::new(isa, plan.workers, plan.each, &scratch),
        problem,
        parts,
        saved,
        plan: &plan,
        offsets: &plan.offsets,
        weights: &weights,
        masks: &problem.mask_table(parts),
        output: call.output,
        grad_output,
        before: &Before::new(&problem.counts, &plan.offsets, first, call.output, units),
        targets: &targets.pointers(),
        at: buffers.pointers(grad_hidden.as_mut_ptr()),
    };
    // SAFETY: the buffers were made for this call and these shares, and nothing else uses them.
    unsafe { run.run_all(isa) };

    let mut grads = targets.grads;
    let wanted = call.wanted.get(Part::Hidden);
    grads.set(Part::Hidden, wanted.map(|()| grad_hidden));
    grads
}

/// # Panics
/// As [`backward`].
#[track_caller]
fn check(isa: Isa, problem: &GruProblem, call: &Gradient<'_>) {
    problem.check_slices(call.parts);
    assert!(
        problem.order.is_none(),
        "the input of a backward is in running order, got an order"
    );
    assert!(
        call.saved.made_for == Some(made_for(isa, problem, call.parts)),
        "the saved tensors of a backward are those of another call"
    );
    let size = problem.output_len();
    for (name, values) in [
        ("output", call.output),
        ("gradient of the output", call.grad),
    ] {
        Expected::new("[output, states]", [size]).check_len(name, values.len());
    }
}

/// The work of all workers between two barriers.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Packs the transposed weights.
    Pack,
    /// ∂h' of a step from the following step, then the gradients of its gates, or those of z and n only.
    Gates(usize),
    /// Through R_n and r, if the reset gate acts before the product.
    Reset(usize),
    /// ∂h_0 from the first step.
    Initial,
    /// Transposes the left factors of the weights, so that a product reads them along the rows.
    Transpose,
    /// ∂x, and all sums over rows.
    Sums,
}

/// A group of sequences, with the arguments of a call for these sequences only.
struct OfGroup<'a> {
    problem: GruProblem,
    parts: Parts<&'a [f32]>,
    masks: MaskTable,
}

/// A call, or the steps of a group of its sequences.
#[derive(Clone)]
struct Backward<'a> {
    crew: Crew<'a>,
    problem: &'a GruProblem,
    parts: &'a Parts<&'a [f32]>,
    saved: &'a Saved,
    plan: &'a Plan,
    /// The first row of each step.
    offsets: &'a [usize],
    /// Wᵀ and Rᵀ.
    weights: &'a WeightSet,
    masks: &'a MaskTable,
    output: &'a [f32],
    grad_output: &'a [f32],
    /// h before each row.
    before: &'a Before<'a>,
    targets: &'a TargetPointers,
    at: Pointers,
}

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`driver/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Backward<'_> {}

impl Run for Backward<'_> {
    type Phase = Phase;

    fn packing(&self) -> Option<Phase> {
        self.weights.is_packed().then_some(Phase::Pack)
    }

    /// The phases of those steps of the range that exist, last step first; after step 0 those of the
    /// initial state.
    fn steps(&self, range: Range<usize>) -> impl Iterator<Item = Phase> {
        let steps = self.problem.counts.len();
        let halves = !self.problem.reset_after;
        let initial = (range.start == 0).then_some(Phase::Initial);
        let steps = (range.start.min(steps)..range.end.min(steps)).rev();
        let of_step = move |step| {
            let reset = halves.then_some(Phase::Reset(step));
            [Phase::Gates(step)].into_iter().chain(reset)
        };
        steps.flat_map(of_step).chain(initial)
    }

    fn after(&self) -> impl Iterator<Item = Phase> {
        [Phase::Transpose, Phase::Sums].into_iter()
    }

    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => self.weights.pack(self.crew.isa, share, self.crew.shares),
                Phase::Gates(step) => self.gates(step, self.crew.serpentine(share, step)),
                Phase::Reset(step) => self.reset(step, self.crew.serpentine(share, step)),
                Phase::Initial => self.pass_back(0, share),
                Phase::Transpose => self.transpose(share),
                Phase::Sums => {
                    self.input(share);
                    self.weight_sums(share);
                    self.bias_sums(share);
                }
            }
        }
    }
}

impl<'a> Backward<'a> {
    /// Runs all phases.
    ///
    /// # Safety
    /// The buffers were made for this call and its shares, and nothing else uses them.
    unsafe fn run_all(&self, isa: Isa) {
        let (plan, problem) = (self.plan, self.problem);
        let schedule = Schedule {
            workers: plan.workers,
            shares: plan.workers * plan.each,
            direction: Direction::Backward,
            spans: one_span(problem.counts.len()),
        };
        let workers = if plan.groups.is_empty() {
            0
        } else {
            plan.workers
        };
        let memory = OwnMemory::of_workers(isa, workers, problem.batch_size(), || {
            plan.steps.matrices(problem, self.parts)
        });
        let parts: Vec<_> = plan.groups.iter().map(|group| self.cut(group)).collect();
        let own = memory.iter().map(|memory| Backward {
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
        // Only for buffers with one row per sequence; rows of other buffers are addressed by step.
        let own = |buffer: *mut f32| buffer.wrapping_add(group.first * self.problem.d_hidden);
        Backward {
            problem: &of_group.problem,
            parts: &of_group.parts,
            offsets: &group.offsets,
            masks: &of_group.masks,
            at: Pointers {
                hidden: own(self.at.hidden),
                inner: own(self.at.inner),
                ..self.at
            },
            ..self.clone()
        }
    }

    fn weight(&self, weight: Weight) -> &'a Matrix {
        self.weights.get(weight as usize)
    }

    /// Row-major rows of a step in a buffer of all steps.
    fn rows_of(&self, buffer: *const f32, step: usize) -> Rows {
        Rows::read(buffer, self.problem.d_hidden).from_row(self.offsets[step])
    }

    /// The gradient that a step passes to the previous one: ∂h through R, added to the part that
    /// bypasses R.
    ///
    /// # Safety
    /// As [`work`](Run::work), for this phase.
    unsafe fn pass_back(&self, step: usize, share: usize) {
        let layout = &self.plan.product_layout;
        let (a, pieces) = layout.factor(self.at.product, self.offsets[step]);
        let back = Back {
            matrix: self.weight(Weight::Hidden),
            left: Left {
                a,
                pieces,
                rows: self.problem.counts[step],
                back: step % 2 == 1,
            },
            out: self.at.hidden,
            onto: Onto::Sum,
        };
        // SAFETY: the gradients of the step are complete; these columns of ∂h belong to this share.
        unsafe { back.run(&self.crew, share) };
    }

    /// The pointwise part of a step, for a share's units.
    fn pointwise(&self, step: usize, units: Range<usize>) -> GruBackward {
        let (saved, offset) = (self.saved, self.offsets[step]);
        let row_of_each = |buffer: *mut f32| Rows {
            ptr: buffer,
            stride: self.problem.d_hidden,
        };
        GruBackward {
            rows: self.problem.counts[step],
            units,
            gates: (self.plan.layout).rows(saved.gates.as_ptr().cast_mut(), offset),
            inner: self.rows_of(saved.inner.as_ptr(), step),
            hidden: match step {
                0 => Rows::read(self.parts.of(Part::Hidden).as_ptr(), self.problem.d_hidden),
                _ => self.rows_of(self.output.as_ptr(), step - 1),
            },
            grad_hidden: row_of_each(self.at.hidden),
            grad_output: self.rows_of(self.grad_output.as_ptr(), step),
            grad_preact: self.plan.layout.rows(self.at.preact, offset),
            grad_product: self.plan.product_layout.rows(self.at.product, offset),
            grad_candidate: self.rows_of(self.at.candidate, step),
            grad_inner: row_of_each(self.at.inner),
            masks: self.masks.at(offset),
        }
    }

    /// ∂h' of a step from the following step, then the gradients of its gates, or those of z and n only.
    ///
    /// # Safety
    /// As [`work`](Run::work), for this phase.
    unsafe fn gates(&self, step: usize, share: usize) {
        let columns = &self.weight(Weight::Hidden).columns;
        let units = columns.units(&self.crew.panels(columns, share));
        let half = match self.problem.reset_after {
            true => GruHalf::Both,
            false => GruHalf::Candidate,
        };
        // SAFETY: the following step is complete; the units belong to this share.
        unsafe {
            if step + 1 < self.problem.counts.len() {
                self.pass_back(step + 1, share);
            }
            let backward = self.pointwise(step, units);
            backward.run(self.crew.isa, half, self.masks.any());
        }
    }

    /// Through R_n and r, if the reset gate acts before the product.
    ///
    /// # Safety
    /// As [`work`](Run::work), for this phase.
    unsafe fn reset(&self, step: usize, share: usize) {
        let matrix = self.weight(Weight::Candidate);
        let columns = &matrix.columns;
        let back = Back {
            matrix,
            left: Left {
                a: self.rows_of(self.at.candidate, step).view(),
                pieces: None,
                rows: self.problem.counts[step],
                back: step % 2 == 1,
            },
            out: self.at.inner,
            onto: Onto::Fresh,
        };
        let units = columns.units(&self.crew.panels(columns, share));
        // SAFETY: ∂a_n is complete; this share's own units.
        unsafe {
            back.run(&self.crew, share);
            let backward = self.pointwise(step, units);
            backward.run(self.crew.isa, GruHalf::Gates, self.masks.any());
        }
    }
}

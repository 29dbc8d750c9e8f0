//! The recurrence backward.

mod buffers;
mod plan;
mod rounds;
mod rows;
mod steps;
mod sums;

use core::ops::Range;

use buffers::{Buffers, Pointers, Targets};
use plan::Plan;

use super::weights::index;
use super::{Gradient, MadeFor, Pointwise, Saved};
use crate::fused::cpu::driver::{
    Back, Before, CHUNK_ROWS, Crew, Group, Groups, Left, Matrix, OwnMemory, PerShare, Run,
    WeightSet,
};
use crate::fused::cpu::product::Onto;
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Expected, Key, Part, Parts};

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
    problem: &LstmProblem,
    call: Gradient<'_>,
) -> Parts<Vec<f32>> {
    let Gradient { parts, saved, .. } = call;
    check(isa, problem, &call);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (units, d_output) = (problem.d_hidden, problem.d_output);
    let wants_input = call.wanted.has(Part::Input);
    let plan = Plan::new(isa, workers.max(1), problem, parts, saved, wants_input);
    let mut buffers = Buffers::new(&plan, problem, &call);
    let targets = Targets::new(problem, &call);
    let weights = WeightSet::new(plan.shared_weights(problem).matrices(problem, parts));
    let most = [batch, CHUNK_ROWS, problem.d_input, units, d_output];
    let most = most.into_iter().max().unwrap_or(1);
    let scratch = PerShare::scratch(isa, plan.shares(), most);
    let pointwise = Pointwise::new(problem, parts);
    let cells = match problem.histories {
        true => &call.output[problem.cells_start()..],
        false => &saved.cells[..],
    };
    let before = |first, after, features| {
        Before::new(&problem.counts, &plan.offsets, first, after, features)
    };
    let run = Backward {
        crew: Crew::new(isa, plan.workers, plan.each, &scratch),
        problem,
        parts,
        saved,
        plan: &plan,
        offsets: &plan.offsets,
        weights: &weights,
        pointwise: &pointwise,
        output: call.output,
        cells,
        grad_output: &call.grad[..rows * d_output],
        grad_cells: &call.grad[problem.cells_start()..],
        hidden_before: &before(parts.of(Part::Hidden), call.output, d_output),
        cell_before: &before(parts.of(Part::Cell), cells, units),
        targets: &targets,
        at: buffers.pointers(problem),
    };
    // SAFETY: the buffers were made for this call and these shares, and nothing else uses them.
    unsafe { run.run_all(isa) };

    let mut grads = targets.into_grads(problem, call.wanted);
    let [hidden, cell] = buffers.into_states();
    let wanted = |part, grad| call.wanted.get(part).map(|()| grad);
    grads.set(Part::Hidden, wanted(Part::Hidden, hidden));
    grads.set(Part::Cell, wanted(Part::Cell, cell));
    grads
}

/// # Panics
/// As [`backward`].
#[track_caller]
fn check(isa: Isa, problem: &LstmProblem, call: &Gradient<'_>) {
    problem.check_slices(call.parts);
    assert!(
        problem.order.is_none(),
        "the input of a backward is in running order, got an order"
    );
    assert!(
        call.saved.made_for.as_ref() == Some(&MadeFor::new(isa, problem, call.parts)),
        "the saved tensors of a backward are those of another call"
    );
    let size = problem.output_len();
    for (name, values) in [
        ("output", call.output),
        ("gradient of the output", call.grad),
    ] {
        Expected::new("[output, states, histories]", [size]).check_len(name, values.len());
    }
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
    /// Packs the transposed recurrent weights.
    Pack,
    /// ∂h' of a step from the following step; also the rest of the step if it can be done unit by unit.
    Hidden(usize),
    /// Through the projection of a step.
    Unproject(usize),
    /// The part of a step that needs complete rows.
    Rows(usize),
    /// From the following round (or ∂z of the step after the last round) to ∂x and ∂h after a round,
    /// then its gate.
    Unmix(usize, usize),
    /// The first product back through a low-rank round.
    UnmixInner(usize, usize),
    /// ∂h_0 from the first step.
    Initial,
    /// Through LN_x.
    NormInput,
    /// Transposes the left factors of the weights, so that a product reads them along the rows.
    Transpose,
    /// ∂x, and all sums over rows.
    Sums,
}

/// A call, or the steps of a group of its sequences.
#[derive(Clone)]
struct Backward<'a> {
    crew: Crew<'a>,
    problem: &'a LstmProblem,
    parts: &'a Parts<&'a [f32]>,
    saved: &'a Saved,
    plan: &'a Plan,
    /// The first row of each step.
    offsets: &'a [usize],
    /// Rᵀ, Vᵀ, Pᵀ, Wᵀ and the transposed matrices of the rounds.
    weights: &'a WeightSet,
    pointwise: &'a Pointwise,
    output: &'a [f32],
    /// `[N, H]`: c'
    cells: &'a [f32],
    grad_output: &'a [f32],
    /// `[N, H]`: ∂c' of all rows from outside; empty if only the final c' is an output.
    grad_cells: &'a [f32],
    hidden_before: &'a Before<'a>,
    cell_before: &'a Before<'a>,
    targets: &'a Targets,
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

    fn after(&self) -> impl Iterator<Item = Phase> {
        let normed = self.problem.norm_input.is_some();
        let normed = normed.then_some(Phase::NormInput).into_iter();
        normed.chain([Phase::Transpose, Phase::Sums])
    }

    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => self.weights.pack(self.crew.isa, share, self.crew.shares),
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
                    self.sums(share);
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
        let schedule = plan.schedule(problem);
        let workers = if plan.groups.is_empty() {
            0
        } else {
            plan.workers
        };
        let memory = OwnMemory::of_workers(isa, workers, problem.batch_size(), || {
            plan.own_weights().matrices(problem, self.parts)
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
            pointwise: Pointwise::new(&problem, &parts),
            problem,
            parts,
        }
    }

    /// The steps of a group's sequences.
    fn of_group(&self, group: &'a Group, of_group: &'a OfGroup<'a>) -> Self {
        Backward {
            problem: &of_group.problem,
            parts: &of_group.parts,
            offsets: &group.offsets,
            pointwise: &of_group.pointwise,
            at: self.at.of_group(self.problem, group.first),
            ..self.clone()
        }
    }

    /// A transposed weight, in the form that products take.
    fn weight(&self, key: impl Into<Key>) -> &'a Matrix {
        self.weights.get(index(key))
    }

    /// A vector of weights; null if it is absent.
    fn vector(&self, part: Part) -> *const f32 {
        self.parts
            .get(part)
            .map_or(core::ptr::null(), |v| v.as_ptr())
    }

    /// The rows of a step in a buffer of gates of all steps, as the left factor of a product.
    fn gates_of(&self, buffer: *mut f32, step: usize) -> Left {
        let (a, pieces) = self.plan.layout.factor(buffer, self.offsets[step]);
        Left {
            a,
            pieces,
            rows: self.problem.counts[step],
            back: step % 2 == 1,
        }
    }

    /// The rows of a step in a row-major buffer of all steps, as the left factor of a product.
    fn rows_as_factor(&self, buffer: *mut f32, step: usize, size: usize) -> Left {
        Left {
            a: self.rows_of(buffer, self.offsets[step], size).view(),
            pieces: None,
            rows: self.problem.counts[step],
            back: false,
        }
    }

    /// `a·M` for this share's columns, written to or added to the rows of `out`; M is a transposed weight.
    ///
    /// # Safety
    /// `a` is readable for the rows, the columns of `out` are this share's own.
    unsafe fn times(&self, matrix: &Matrix, left: Left, out: *mut f32, onto: Onto, share: usize) {
        let back = Back {
            matrix,
            left,
            out,
            onto,
        };
        // SAFETY: by the contract of this function.
        unsafe { back.run(&self.crew, share) };
    }

    /// Row-major rows of a buffer, starting at `row`.
    fn rows_of(&self, buffer: *mut f32, row: usize, size: usize) -> Rows {
        Rows {
            ptr: buffer.wrapping_add(row * size),
            stride: size,
        }
    }

    /// Rows of a step of a saved tensor.
    fn saved(&self, values: &[f32], step: usize, size: usize) -> Rows {
        Rows::read(values.as_ptr(), size).from_row(self.offsets[step])
    }
}

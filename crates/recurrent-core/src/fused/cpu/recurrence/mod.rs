//! The recurrence of the LSTM family over a whole sequence.
//!
//! One call runs all steps of one layer and direction. Rows are the steps of all sequences in
//! running order: step t has `counts[t]` rows, never more than the step before, and row b of a step
//! continues row b of the step before. Workers of a team split the hidden units (the rows, where a
//! normalisation needs whole rows), and meet once per step:
//! ```text
//! forward    for chunks of steps: x·W + b           W read once, results stay in the cache
//!            for each step:       h·R + ↑ → gates → c', h'      a panel of units at a time
//! backward   for each step back:  ∂h = ∂z·Rᵀ → ∂z of the step before
//!            afterwards:          ∂R, ∂W, ∂x, ∂b as one product each over all steps
//! ```
//! The forward of a training step keeps the activated gates and the cells; nothing that is kept is
//! ever overwritten. Gates and their gradients lie in tiles (`fused/cpu/layout.rs`).
//!
//! # Why the pointers are sound
//! The phases of a run read and write through raw pointers. Three things make that sound; the `SAFETY`
//! comments of the phases name which of their rows and columns they rely on.
//! - **Bounds.** [`forward`] and [`backward`] first check every tensor, and the order of the input,
//!   against the table of shapes of the problem (`shapes.rs`). All buffers are made from the same problem,
//!   in the same function, and outlive the run. A backward is only given the tape of its own forward.
//! - **No two writers.** Within a phase each share writes the rows (`product::part`) or the columns
//!   (`Columns::share`) of its own number. These cut a range into consecutive pieces, and every share is
//!   run once. A group of sequences works alone, on rows of its own.
//! - **Order.** A phase reads what earlier phases wrote. All shares of a phase are done before the next
//!   begins, which the thread team's acquire and release operations make visible (`team.rs`).

mod backward;
mod forward;
mod groups;
mod packed;
mod rounds;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;

pub use backward::backward;
pub use forward::forward;
pub use groups::worth_pairing;

use rounds::RoundTape;

use super::buffer::Buffer;
use super::layout::Layout;
use super::pointwise::{Kind, MaskRows, PeepholeRows, Rows};
use super::product::Scratch;
use super::simd::Isa;
use super::team;
use crate::fused::problem::lstm::Problem;
use crate::fused::problem::{MASKS, Part, Parts};

impl Problem {
    /// The order of the input from a row on; null: rows follow each other.
    fn order(&self, row: usize) -> *const usize {
        let start = |order: &Arc<[usize]>| order[row..].as_ptr();
        self.order.as_ref().map_or(core::ptr::null(), start)
    }

    fn kind(&self, parts: &Parts<&[f32]>) -> Kind {
        let peepholes = [
            Part::PeepholeFirst,
            Part::PeepholeSecond,
            Part::PeepholeOutput,
        ];
        Kind {
            coupling: self.coupling,
            peephole: peepholes.iter().any(|&part| parts.has(part)),
            masked: MASKS.iter().any(|&part| parts.has(part)),
        }
    }

    /// Operations of a step's products.
    fn per_step(&self) -> usize {
        let mut per_step = self.width() * self.d_output;
        for rank in &self.rounds {
            per_step += match rank {
                Some(rank) => rank * (self.d_input + self.d_output),
                None => self.d_input * self.d_output,
            };
        }
        2 * self.batch_size() * per_step
    }

    /// Threads worth calling for this problem: a share of a step should take longer than meeting the
    /// others does.
    pub fn workers(&self) -> usize {
        let per_step = self.per_step();
        let work = self.counts.len() * per_step;
        if work < WORTH_WAKING {
            return 1;
        }
        team::available_threads()
            .min(per_step / WORTH_MEETING)
            .max(1)
    }

    /// Shares for each of the workers: several where a step is long enough for one that is done to
    /// take from another, whose weights are not in its own cache.
    fn shares_each(&self, workers: usize) -> usize {
        match workers {
            1 => 1,
            _ => (self.per_step() / workers / WORTH_TAKING).clamp(1, MOST_SHARES),
        }
    }
}

/// Operations of a whole call below which no other thread is woken: some 20 µs of work.
const WORTH_WAKING: usize = 1_000_000;

/// Operations per step and thread below which meeting costs more than it saves.
const WORTH_MEETING: usize = 30_000;

/// Shares in the order in which their workers take them, turned around at odd steps, see
/// [`to_and_fro`](crate::fused::cpu::product::to_and_fro).
fn turn(share: usize, each: usize, step: usize) -> usize {
    match step % 2 {
        0 => share,
        _ => share / each * each + each - 1 - share % each,
    }
}

/// Steps of a single sequence from which on its recurrent weights are packed for the backward. They are
/// transposed on the way, which costs more than in the forward.
const PACK_BACK_FROM: usize = 32;

/// Operations of a share worth taking from another worker: some 8 µs of work.
const WORTH_TAKING: usize = 1_000_000;

/// Most shares per worker.
const MOST_SHARES: usize = 4;

/// What the forward of a training step keeps for the backward.
#[derive(Debug)]
pub struct Tape {
    /// The call that it was made for: the sizes of the buffers follow from it.
    made_for: MadeFor,
    /// How the gates of all rows lie.
    layout: Layout,
    /// Activated gates `[N, G·H]`.
    gates: Buffer,
    /// c' `[N, H]`; nothing where the output has it.
    cells: Buffer,
    /// x·W + b_x `[N, G·H]`, with LN_x.
    preact_input: Buffer,
    /// Statistics of its rows.
    stats_input: Buffer,
    /// h·R + b_h `[N, G·H]`, with LN_h.
    preact_hidden: Buffer,
    /// Statistics of its rows.
    stats_hidden: Buffer,
    /// c̃ `[N, H]`, with LN_c.
    raw: Buffer,
    /// n `[N, H]`, with LN_c.
    normalized: Buffer,
    /// Statistics of c̃'s rows.
    stats_cell: Buffer,
    /// o ⊙ tanh(n) `[N, H]`, with a projection.
    unprojected: Buffer,
    /// What each round of the Mogrifier gave.
    rounds: Vec<RoundTape>,
}

/// What the sizes of a tape's buffers depend on.
#[derive(Debug, PartialEq)]
struct MadeFor {
    problem: Problem,
    which: Parts<()>,
    lanes: usize,
}

impl MadeFor {
    fn new(isa: Isa, problem: &Problem, parts: &Parts<&[f32]>) -> Self {
        Self {
            problem: problem.clone(),
            which: parts.clone().map(|_| ()),
            lanes: isa.lanes(),
        }
    }
}

/// A value per worker that only the worker's share touches.
pub(super) struct PerWorker<T>(Vec<UnsafeCell<T>>);

// SAFETY: each value is reached by one share of a phase at a time, and phases are separated by
// acquire and release operations.
unsafe impl<T: Send> Sync for PerWorker<T> {}

impl<T> PerWorker<T> {
    fn new(workers: usize, value: impl Fn() -> T) -> Self {
        Self((0..workers).map(|_| UnsafeCell::new(value())).collect())
    }

    /// # Safety
    /// Called by the share `worker` only, which lets go of it before the phase ends.
    #[allow(clippy::mut_from_ref)] // see the contract
    pub(super) unsafe fn of(&self, worker: usize) -> &mut T {
        // SAFETY: by the contract of this function.
        unsafe { &mut *self.0[worker].get() }
    }
}

/// Rows of the parts of a call that pointwise operations read.
struct Pointwise {
    kind: Kind,
    peepholes: PeepholeRows,
    masks: Parts<*const f32>,
    /// Enough ones, and zeros, for a row of anything.
    ones: Vec<f32>,
    /// What absent peepholes read.
    _zeros: Vec<f32>,
}

// SAFETY: what the pointers lead to is only read.
unsafe impl Sync for Pointwise {}

impl Pointwise {
    fn new(problem: &Problem, parts: &Parts<&[f32]>) -> Self {
        let kind = problem.kind(parts);
        let size = problem.d_hidden.max(problem.d_output);
        let zeros = alloc::vec![0.0; if kind.peephole { size } else { 0 }];
        let ones = alloc::vec![1.0; if kind.masked { size } else { 0 }];
        let or_zeros = |part| parts.get(part).map_or(zeros.as_ptr(), |v| v.as_ptr());
        // The gates with weights may be one alone.
        let output = or_zeros(Part::PeepholeOutput);
        let (output_previous, output_new) = match problem.output_sees_new {
            true => (zeros.as_ptr(), output),
            false => (output, zeros.as_ptr()),
        };
        let mut masks = Parts::default();
        for part in MASKS {
            masks.set(part, parts.get(part).map(|mask| mask.as_ptr()));
        }
        Self {
            kind,
            peepholes: PeepholeRows {
                shares: [
                    or_zeros(Part::PeepholeFirst),
                    or_zeros(Part::PeepholeSecond),
                ],
                output_previous,
                output_new,
            },
            masks,
            ones,
            _zeros: zeros,
        }
    }

    /// A mask at the step whose first row is `offset`; ones where there is none.
    fn mask(&self, problem: &Problem, part: Part, offset: usize) -> Rows {
        let features = problem.mask_features(part);
        match self.masks.get(part) {
            Some(mask) if problem.per_step.has(part) => {
                Rows::read(mask.wrapping_add(offset * features), features)
            }
            Some(mask) => Rows::read(*mask, features),
            None => self.ones(),
        }
    }

    fn ones(&self) -> Rows {
        Rows::read(self.ones.as_ptr(), 0)
    }

    /// The masks of the pointwise operations at a step; with a projection, those on h act after it.
    fn masks(&self, problem: &Problem, offset: usize, projected: bool) -> MaskRows {
        if !self.kind.masked {
            return MaskRows::NONE;
        }
        let mask = |part| self.mask(problem, part, offset);
        let on_hidden = |part| if projected { self.ones() } else { mask(part) };
        MaskRows {
            candidate: mask(Part::MaskCandidate),
            cell: mask(Part::MaskCell),
            hidden: on_hidden(Part::MaskHidden),
            update_cell: mask(Part::UpdateCell),
            update_hidden: on_hidden(Part::UpdateHidden),
        }
    }
}

/// Scratch memory for each worker.
pub(super) fn scratch(workers: usize, rows: usize, isa: Isa) -> PerWorker<Scratch> {
    PerWorker::new(workers, || Scratch::new(rows, isa.lanes()))
}

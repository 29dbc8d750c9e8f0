//! Common to all kernel families: how a call is divided, packed and run by a team of threads.
//!
//! ```text
//! work      amount of work → number of workers and of shares per worker
//! weights   matrices in the form that products take, packed if they are read more than once
//! groups    splits a batch into groups of sequences whose steps a worker runs alone
//! forward   x·W + b of some steps
//! backward  products with transposed weights, and the factors of sums over all rows
//! mod       phases: the work between two barriers, and the order of the phases
//! ```
//! A family (`recurrence`, `adaptive`, `gru`) implements [`Run`]: its buffers, the phases of some steps,
//! and the work of one share of a phase. The driver runs them in one of two ways: with all workers
//! together, one phase after the other, or with each group of sequences independently.
//!
//! # Why the pointers are sound
//! The phases of a run read and write through raw pointers. Three properties make that sound; the `SAFETY`
//! comments of the phases name the rows and columns that they rely on.
//! - **Bounds.** A family first checks every tensor, and the gather order of the input, against the
//!   table of shapes of its problem (`problem/shapes.rs`). All buffers are made from the same problem,
//!   in the same function, and outlive the run. A backward only gets saved tensors of its own forward.
//! - **No two writers.** Within a phase each share writes only the rows ([`Crew::rows`]) or the columns
//!   ([`Crew::panels`]) of its own number. These divide a range into disjoint consecutive pieces, and
//!   every share is run once. A group of sequences is run by one worker at a time, on rows of its own.
//! - **Order.** A phase reads what earlier phases wrote. All shares of a phase are done before the next
//!   begins, and the acquire and release operations of the thread team make their writes visible
//!   (`team.rs`).

mod backward;
mod forward;
mod groups;
mod weights;
mod work;

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use super::product::{Columns, Scratch, part};
use super::simd::Isa;
use super::team;

pub use backward::{Back, Before, CHUNK_ROWS, InputGradient, Left, Place, column_rows, vectors_of};
pub use forward::{PACK_BACK_FROM, Projection, chunks, input_term, reads_rows};
pub use groups::{Group, stays_cached, worth_pairing};
pub use weights::{Matrix, WeightSet};
pub use work::Work;

/// A value per share, accessed by that share only.
#[derive(Debug)]
pub struct PerShare<T>(Vec<UnsafeCell<T>>);

// SAFETY: each value is reached by one share of a phase at a time, and phases are separated by
// acquire and release operations.
unsafe impl<T: Send> Sync for PerShare<T> {}

impl<T> PerShare<T> {
    /// # Safety
    /// Called by this share only, which drops the reference before the phase ends.
    #[allow(clippy::mut_from_ref)] // see the contract
    unsafe fn of(&self, share: usize) -> &mut T {
        // SAFETY: by the contract of this function.
        unsafe { &mut *self.0[share].get() }
    }
}

impl PerShare<Scratch> {
    /// Scratch memory of each share, for products of at most `rows` rows.
    pub fn scratch(isa: Isa, shares: usize, rows: usize) -> Self {
        let new = |_| UnsafeCell::new(Scratch::new(rows, isa.lanes()));
        Self((0..shares).map(new).collect())
    }
}

/// The execution context of a phase: the instruction set, the number of shares, and scratch memory per
/// share.
#[derive(Debug, Clone, Copy)]
pub struct Crew<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// Number of shares of a phase.
    pub shares: usize,
    /// Number of shares assigned to each worker.
    pub each: usize,
    scratch: &'a PerShare<Scratch>,
}

impl<'a> Crew<'a> {
    /// A context for `workers` workers with `each` shares per worker.
    pub fn new(isa: Isa, workers: usize, each: usize, scratch: &'a PerShare<Scratch>) -> Self {
        Self {
            isa,
            shares: workers * each,
            each,
            scratch,
        }
    }

    /// A share's part of some rows, features or other things.
    pub fn rows(&self, count: usize, share: usize) -> Range<usize> {
        part(count, share, self.shares)
    }

    /// A share's panels.
    pub fn panels(&self, columns: &Columns, share: usize) -> Range<usize> {
        columns.share(share, self.shares)
    }

    /// Maps shares to positions so that those of a worker are processed in serpentine order as well, see
    /// [`serpentine`](super::product::serpentine).
    pub fn serpentine(&self, share: usize, step: usize) -> usize {
        let each = self.each;
        match step % 2 {
            0 => share,
            _ => share / each * each + each - 1 - share % each,
        }
    }

    /// The scratch memory of a share.
    ///
    /// # Safety
    /// Called by this share only, which drops the reference before the phase ends.
    #[allow(clippy::mut_from_ref)] // see the contract
    pub unsafe fn scratch(&self, share: usize) -> &mut Scratch {
        // SAFETY: by the contract of this function.
        unsafe { self.scratch.of(share) }
    }
}

/// A call, described as phases.
pub trait Run: Sync {
    /// A phase: work of all workers between two barriers.
    type Phase: Copy + Send + Sync;

    /// Packs the weights, before all other phases; `None` if nothing is packed.
    fn packing(&self) -> Option<Self::Phase>;

    /// The phases before the steps of a span.
    fn before(&self, span: usize) -> impl Iterator<Item = Self::Phase> {
        let _ = span;
        core::iter::empty()
    }

    /// The phases of some steps, in the order in which they run.
    fn steps(&self, steps: Range<usize>) -> impl Iterator<Item = Self::Phase>;

    /// The phases after all steps.
    fn after(&self) -> impl Iterator<Item = Self::Phase> {
        core::iter::empty()
    }

    /// Runs one share of a phase.
    ///
    /// # Safety
    /// Phases run in order, each share once, all shares of a phase before the next.
    unsafe fn work(&self, phase: Self::Phase, share: usize);
}

/// The order in which the steps of a call run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Backward,
}

/// The groups of a call.
#[derive(Debug, Clone, Copy)]
pub struct Groups {
    /// How many there are; 0 where all workers share the units.
    pub count: usize,
    /// Steps between two questions of which is behind.
    pub link: usize,
}

/// What a worker that runs steps alone has for itself.
#[derive(Debug)]
pub struct OwnMemory {
    isa: Isa,
    /// Its weights.
    pub weights: WeightSet,
    scratch: PerShare<Scratch>,
}

impl OwnMemory {
    /// That of each worker; none where no worker runs alone.
    ///
    /// # Arguments
    /// * `rows` - most rows of a product
    /// * `matrices` - the weights of a call
    pub fn of_workers(
        isa: Isa,
        workers: usize,
        rows: usize,
        matrices: impl Fn() -> Vec<Option<Matrix>>,
    ) -> Vec<Self> {
        let own = |_| Self {
            isa,
            weights: WeightSet::new(matrices()),
            scratch: PerShare::scratch(isa, 1, rows),
        };
        (0..workers).map(own).collect()
    }

    /// The worker alone.
    pub fn crew(&self) -> Crew<'_> {
        Crew::new(self.isa, 1, 1, &self.scratch)
    }
}

/// How a call is run.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Number of threads, including the caller's.
    pub workers: usize,
    /// Number of shares of a phase.
    pub shares: usize,
    /// The order of the steps.
    pub direction: Direction,
    /// The steps, divided into spans; all workers run the `before` phases of a span together.
    pub spans: Vec<Range<usize>>,
}

/// All steps as one span.
#[allow(clippy::single_range_in_vec_init)] // it is one span
pub fn one_span(steps: usize) -> Vec<Range<usize>> {
    alloc::vec![0..steps]
}

impl Schedule {
    /// Runs some phases with all workers.
    ///
    /// # Safety
    /// The phases are those of one [`Run`], in its order.
    unsafe fn phases<R: Run>(&self, run: &R, phases: &[R::Phase]) {
        team::run(self.workers, self.shares, phases.len(), &|phase, share| {
            // SAFETY: the phases are run in order, each share once, with all shares of a phase done
            // before the next begins.
            unsafe { run.work(phases[phase], share) };
        });
    }

    /// Runs a call: all workers at each step, or each group of sequences on its own where there are groups.
    ///
    /// # Arguments
    /// * `own` - the same run for each worker, with memory of its own ([`OwnMemory`])
    /// * `of_group` - a worker's run for the sequences of a group
    ///
    /// # Safety
    /// The buffers of the run were made for the call and for these shares; groups have sequences of their
    /// own.
    pub unsafe fn run<R: Run>(
        &self,
        run: &R,
        own: Vec<R>,
        groups: Groups,
        of_group: impl Fn(&R, usize) -> R + Sync,
    ) {
        let own: Vec<_> = own.into_iter().map(Worker::new).collect();
        // SAFETY: by the contract of this function.
        unsafe {
            match groups.count {
                0 => self.together(run),
                _ => self.in_groups(run, &own, groups, of_group),
            }
        }
    }

    /// Runs all steps, all workers at each step.
    ///
    /// # Safety
    /// The buffers of the run were made for the call and for these shares.
    pub unsafe fn together<R: Run>(&self, run: &R) {
        let steps: usize = self.spans.iter().map(Range::len).sum();
        let mut phases = Vec::with_capacity(2 * steps + 4);
        phases.extend(run.packing());
        for (index, span) in self.spans.iter().enumerate() {
            phases.extend(run.before(index));
            phases.extend(run.steps(span.clone()));
        }
        phases.extend(run.after());
        // SAFETY: by the contract of this function.
        unsafe { self.phases(run, &phases) };
    }

    /// Runs the steps of each group of sequences independently; the phases before and after them run
    /// with all workers.
    ///
    /// There are more groups than workers. After each scheduling quantum a worker continues with the
    /// group that is furthest behind, because cores differ in speed and pool threads may start late.
    ///
    /// # Arguments
    /// * `own` - the same run for each worker, with weights and scratch memory of its own, one share
    /// * `groups` - how many there are, and steps between two questions of who is behind
    /// * `of_group` - a worker's run for the sequences of one
    ///
    /// # Safety
    /// As [`run`](Self::run).
    unsafe fn in_groups<R: Run>(
        &self,
        run: &R,
        own: &[Worker<R>],
        Groups { count, link }: Groups,
        of_group: impl Fn(&R, usize) -> R + Sync,
    ) {
        // SAFETY: by the contract of this function.
        unsafe { self.phases(run, run.packing().as_slice()) };
        for (index, span) in self.spans.iter().enumerate() {
            let before: Vec<_> = run.before(index).collect();
            // SAFETY: by the contract of this function.
            unsafe { self.phases(run, &before) };
            let links = span.len().div_ceil(link);
            team::run_chains(self.workers, count, links, &|index, group, worker| {
                let steps = match self.direction {
                    Direction::Forward => {
                        let start = span.start + index * link;
                        start..(start + link).min(span.end)
                    }
                    Direction::Backward => {
                        let end = span.end - index * link;
                        end.saturating_sub(link).max(span.start)..end
                    }
                };
                // SAFETY: each worker is one thread; the steps of a group are run in order, one at a
                // time; groups have sequences of their own.
                unsafe {
                    let own = own[worker].packed();
                    let run = of_group(own, group);
                    for phase in run.steps(steps) {
                        run.work(phase, 0);
                    }
                }
            });
        }
        let after: Vec<_> = run.after().collect();
        // SAFETY: by the contract of this function.
        unsafe { self.phases(run, &after) };
    }
}

/// The run that one worker uses for the steps of groups. It packs the worker's weights on first use.
#[derive(Debug)]
struct Worker<R> {
    run: R,
    packed: AtomicBool,
}

impl<R: Run> Worker<R> {
    /// A worker that has not packed its weights.
    fn new(run: R) -> Self {
        Self {
            run,
            packed: AtomicBool::new(false),
        }
    }

    /// The run, with packed weights.
    ///
    /// # Safety
    /// Called only by the worker itself.
    unsafe fn packed(&self) -> &R {
        if !self.packed.swap(true, Ordering::Relaxed)
            && let Some(phase) = self.run.packing()
        {
            // SAFETY: the only share of a phase that comes before all others.
            unsafe { self.run.work(phase, 0) };
        }
        &self.run
    }
}

//! A batch cut into groups of sequences.
//!
//! Sequences do not know of each other: where the weights fit into each core's own cache, a worker runs
//! steps for some sequences alone and meets the others only before and after all steps. There are more
//! groups than workers, and a worker that is done with some steps of one takes those of the group that is
//! furthest behind: cores are not equally fast, and helpers may come late.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{Pointwise, WORTH_WAKING};
use crate::fused::cpu::team;
use crate::fused::problem::lstm::Problem;
use crate::fused::problem::{MASKS, Part, Parts};

/// Size in bytes below which recurrent weights stay in a core's second-level cache next to what else
/// a step touches (measured: with 1 MiB, half of that cache, sharing the units is 1.4 times as fast).
const CACHED_BELOW: usize = 3 << 18;

/// Fewest sequences worth a group: a register tile of fewer rows reads its weights too often.
const FEWEST: usize = 4;

/// Sequences from which on a group fills its register tiles.
const ENOUGH: usize = 5;

/// Operations between two questions of who is behind: some 40 µs of work.
const LINK: usize = 4_000_000;

/// Whether two calls of this size had better run side by side, a thread or some for each, than one
/// after the other with all threads: where the threads would share the units of a few sequences and
/// meet at every step, or one thread would do it alone, and each core's cache holds the weights.
///
/// # Arguments
/// * `weights` - values that are read at every step
pub fn worth_pairing(steps: usize, batch: usize, weights: usize) -> bool {
    let threads = team::available_threads();
    threads > 1
        && batch < FEWEST * threads
        && weights * size_of::<f32>() <= CACHED_BELOW
        && 2 * steps * batch * weights >= WORTH_WAKING
}

/// Some sequences of a call, as a call of their own: rows of all steps are still those of the call.
pub struct Group<'a> {
    /// With the counts of these sequences.
    pub problem: Problem,
    /// The first row of each step.
    pub offsets: Vec<usize>,
    /// With the initial states and masks of these sequences.
    pub parts: Parts<&'a [f32]>,
    /// Of these.
    pub pointwise: Pointwise,
    /// The first sequence.
    pub first: usize,
}

/// What one worker runs links with, whose weights it packs before the first.
pub struct Worker<R> {
    run: R,
    packed: AtomicBool,
}

impl<R> Worker<R> {
    pub fn new(run: R) -> Self {
        Self {
            run,
            packed: AtomicBool::new(false),
        }
    }

    /// Calls `pack` once; only the worker itself may call this.
    pub fn packed(&self, pack: impl FnOnce(&R)) -> &R {
        if !self.packed.swap(true, Ordering::Relaxed) {
            pack(&self.run);
        }
        &self.run
    }
}

impl Problem {
    /// Bytes of the weights that are read at every step.
    fn step_weights(&self) -> usize {
        let mut values = self.width() * self.d_output;
        if self.d_output != self.d_hidden {
            values += self.d_hidden * self.d_output;
        }
        if !self.rounds.is_empty() {
            values += self.width() * self.d_input;
        }
        for rank in &self.rounds {
            values += match rank {
                Some(rank) => rank * (self.d_input + self.d_output),
                None => self.d_input * self.d_output,
            };
        }
        values * size_of::<f32>()
    }

    /// Whether `x·W` is part of each step, although it could be done before: saves writing it down.
    ///
    /// Does not depend on the number of threads, since it changes the order of a sum.
    pub fn projects_in_step(&self) -> bool {
        let weight_input = self.width() * self.d_input * size_of::<f32>();
        !self.rounds.is_empty()
            || self.norm_input.is_none()
                && self.counts[0] >= FEWEST
                && self.step_weights() + weight_input <= CACHED_BELOW
    }

    /// The sequences of each group; none where workers had better share the units.
    ///
    /// # Arguments
    /// * `extra` - bytes of weights that are read at every step beside R, P and those of rounds
    pub fn groups(&self, workers: usize, extra: usize) -> Vec<Range<usize>> {
        let batch = self.batch_size();
        if workers == 1 || batch < FEWEST * workers || self.step_weights() + extra > CACHED_BELOW {
            return Vec::new();
        }
        let wanted = match batch / (workers + 1) {
            ENOUGH.. => workers + 1,
            _ => workers,
        };
        // As equal in steps as possible: with lengths, the first sequences are the longest.
        let total = self.rows();
        let mut groups = Vec::with_capacity(wanted);
        let (mut start, mut steps) = (0, 0);
        for b in 0..batch {
            steps += self.steps_of(b);
            let done = groups.len() + 1;
            if done < wanted && steps * wanted >= total * done && b + 1 < batch {
                groups.push(start..b + 1);
                start = b + 1;
            }
        }
        groups.push(start..batch);
        groups
    }

    /// Steps of a group between two questions of who is behind.
    ///
    /// # Arguments
    /// * `groups` - how many there are
    pub fn link(&self, groups: usize) -> usize {
        let per_step = self.per_step() / groups.max(1);
        LINK.div_ceil(per_step.max(1))
    }
}

impl<'a> Group<'a> {
    /// # Arguments
    /// * `offsets` - of the whole call
    pub fn new(
        problem: &Problem,
        offsets: &[usize],
        parts: &Parts<&'a [f32]>,
        sequences: Range<usize>,
    ) -> Self {
        let first = sequences.start;
        let mut own = problem.clone();
        own.counts = problem
            .counts
            .iter()
            .map(|&count| count.min(sequences.end).saturating_sub(first))
            .take_while(|&count| count > 0)
            .collect();
        let mut parts = parts.clone();
        let mut from = |part: Part, features: usize| {
            if let Some(values) = parts.get_mut(part) {
                *values = &values[first * features..];
            }
        };
        from(Part::Cell, problem.d_hidden);
        from(Part::Hidden, problem.d_output);
        for mask in MASKS {
            if !problem.per_step.has(mask) {
                from(mask, problem.mask_features(mask));
            }
        }
        Self {
            pointwise: Pointwise::new(&own, &parts),
            problem: own,
            offsets: offsets.iter().map(|offset| offset + first).collect(),
            parts,
            first,
        }
    }
}

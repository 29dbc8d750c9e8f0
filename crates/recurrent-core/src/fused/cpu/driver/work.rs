//! The amount of work of a call, and how many threads it justifies.

use crate::fused::cpu::team;

/// The arithmetic of a call, in operations.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Number of steps.
    pub steps: usize,
    /// Operations of the products of a step.
    pub per_step: usize,
    /// Number of barriers per step.
    pub meetings: usize,
}

/// Operations of a whole call below which no other thread is woken: about 20 µs of work.
pub const WORTH_WAKING: usize = 1_000_000;

/// Operations per thread between two barriers below which a barrier costs more than the parallelism saves.
const WORTH_MEETING: usize = 30_000;

/// Minimum number of operations of a share for which work stealing pays: about 8 µs of work.
const WORTH_TAKING: usize = 1_000_000;

/// Maximum number of shares per worker.
const MOST_SHARES: usize = 4;

/// Operations per scheduling quantum of a group: about 40 µs of work.
const LINK: usize = 4_000_000;

impl Work {
    /// Number of threads: a share of a step should take longer than a barrier.
    pub fn workers(self) -> usize {
        if self.steps * self.per_step < WORTH_WAKING {
            return 1;
        }
        team::available_threads()
            .min(self.per_step / self.meetings / WORTH_MEETING)
            .max(1)
    }

    /// Number of shares per worker. It is more than one if a phase is long enough for work stealing,
    /// which reads weights that are not in the thief's cache.
    pub fn shares_each(self, workers: usize) -> usize {
        match workers {
            1 => 1,
            _ => (self.per_step / self.meetings / workers / WORTH_TAKING).clamp(1, MOST_SHARES),
        }
    }

    /// Number of steps of a group per scheduling quantum.
    ///
    /// # Arguments
    /// * `groups` - number of groups
    pub fn link(self, groups: usize) -> usize {
        let per_step = self.per_step / groups.max(1);
        LINK.div_ceil(per_step.max(1))
    }
}

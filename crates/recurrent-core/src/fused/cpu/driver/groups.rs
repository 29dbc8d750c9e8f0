//! Splits a batch into groups of sequences.
//!
//! Sequences are independent of each other. If the weights fit into each core's own cache, a worker runs
//! steps for some sequences alone; there is a barrier only before and after all steps.

use alloc::vec::Vec;
use core::ops::Range;

use super::work::WORTH_WAKING;
use crate::fused::cpu::team;

/// Size in bytes below which recurrent weights stay in a core's second-level cache together with the other
/// data of a step (measured: with 1 MiB, half of that cache, sharing the units is 1.4 times as fast).
pub const CACHED_BELOW: usize = 3 << 18;

/// Minimum number of sequences of a group: a register tile of fewer rows reads its weights too often.
pub const FEWEST: usize = 4;

/// Number of sequences from which on a group fills its register tiles.
const ENOUGH: usize = 5;

/// Whether two calls of this size run faster concurrently, with half of the threads each, than one after
/// the other with all threads. That is the case if the threads would share the units of a few sequences,
/// with a barrier at every step, or a single thread would be used, and the weights fit into each core's
/// cache.
///
/// # Arguments
/// * `weights` - number of values that are read at every step
pub fn worth_pairing(steps: usize, batch: usize, weights: usize) -> bool {
    let threads = team::available_threads();
    threads > 1
        && batch < FEWEST * threads
        && weights * size_of::<f32>() <= CACHED_BELOW
        && 2 * steps * batch * weights >= WORTH_WAKING
}

/// A group of sequences of a call. Row indices remain those of the call.
#[derive(Debug, Clone)]
pub struct Group {
    /// The first sequence.
    pub first: usize,
    /// Number of rows of each step that belong to the group.
    pub counts: Vec<usize>,
    /// The first row of each step that belongs to the group.
    pub offsets: Vec<usize>,
}

impl Group {
    /// The groups of a call; empty if it is better that the workers share the units.
    ///
    /// # Arguments
    /// * `counts`, `offsets` - number of rows of each step of the call, and its first row
    /// * `weights` - size in bytes of the weights that are read at every step
    pub fn cut(workers: usize, counts: &[usize], offsets: &[usize], weights: usize) -> Vec<Self> {
        let batch = counts[0];
        if workers == 1 || batch < FEWEST * workers || weights > CACHED_BELOW {
            return Vec::new();
        }
        let wanted = match batch / (workers + 1) {
            ENOUGH.. => workers + 1,
            _ => workers,
        };
        let group = |sequences: Range<usize>| Self {
            first: sequences.start,
            counts: counts
                .iter()
                .map(|&count| count.min(sequences.end).saturating_sub(sequences.start))
                .take_while(|&count| count > 0)
                .collect(),
            offsets: offsets
                .iter()
                .map(|offset| offset + sequences.start)
                .collect(),
        };
        // Balances the total number of steps: with lengths, the first sequences are the longest.
        let total: usize = counts.iter().sum();
        let mut groups = Vec::with_capacity(wanted);
        let (mut start, mut steps) = (0, 0);
        for b in 0..batch {
            steps += counts.partition_point(|&count| count > b);
            let done = groups.len() + 1;
            if done < wanted && steps * wanted >= total * done && b + 1 < batch {
                groups.push(group(start..b + 1));
                start = b + 1;
            }
        }
        groups.push(group(start..batch));
        groups
    }
}

/// Whether there are several sequences and the weights read at every step stay in a core's own cache.
pub fn stays_cached(batch: usize, weights: usize) -> bool {
    batch >= FEWEST && weights <= CACHED_BELOW
}

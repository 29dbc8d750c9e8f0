//! Two runs at the same time.

use burn::tensor::{DType, Device};

use super::fused;
use crate::cell::Step;
use crate::kernel::{Strategy, Target, target};

/// Whether the two directions of a layer had better run at the same time, each with half of the
/// threads, than one after the other with all of them: few sequences of a small layer, by a fused
/// kernel on a CPU. The results are the same, bit for bit.
///
/// # Arguments
/// * `cell` - one of the directions
pub fn worth_pairing<C: Step>(
    cell: &C,
    seq_length: usize,
    batch_size: usize,
    strategy: Strategy,
    device: &Device,
    dtype: DType,
) -> bool {
    let on_threads = target(device) == Some(Target::Cpu);
    if strategy == Strategy::Composed || !on_threads || fused::reason(cell, device, dtype).is_some()
    {
        return false;
    }
    #[cfg(feature = "kernel")]
    {
        let (d_hidden, d_input, d_output) = (cell.d_hidden(), cell.d_input(), cell.d_output());
        // Gates on x and h; variants have a little less or more.
        let weights = 4 * d_hidden * (d_input + d_output);
        crate::kernel::cpu::recurrence::worth_pairing(seq_length, batch_size, weights)
    }
    #[cfg(not(feature = "kernel"))]
    {
        let _ = (seq_length, batch_size);
        false
    }
}

/// Runs two things at the same time, each with half of the threads, or one after the other where
/// there is but one.
///
/// # Panics
/// If one of the two does.
pub fn pair<A: Send, B: Send>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    #[cfg(feature = "kernel")]
    return crate::kernel::cpu::gang::side_by_side(first, second);
    #[cfg(not(feature = "kernel"))]
    (first(), second())
}

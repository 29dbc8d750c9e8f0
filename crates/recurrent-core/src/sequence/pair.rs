//! Two runs at the same time.

use burn::tensor::{DType, Device};

use super::{Strategy, fused};
use crate::cell::Step;
use crate::fused::device::{Target, target};

/// Whether the two directions of a layer had better run at the same time, each with half of the
/// threads, than one after the other with all of them: few sequences of a small layer, by a fused
/// kernel on a CPU. The results are the same, bit for bit.
///
/// # Arguments
/// * `cell` - one of the directions
///
/// # Panics
/// If a weight has another shape than the cell's sizes ask for, and a kernel would run it.
#[track_caller]
pub fn worth_pairing<C: Step>(
    cell: &C,
    seq_length: usize,
    batch_size: usize,
    strategy: Strategy,
    device: &Device,
    dtype: DType,
) -> bool {
    let on_threads = target(device) == Some(Target::Cpu);
    if strategy == Strategy::Composed || !on_threads {
        return false;
    }
    let (d_hidden, d_input, d_output) = (cell.d_hidden(), cell.d_input(), cell.d_output());
    // Gates on x and h; variants have a little less or more.
    let weights = 4 * d_hidden * (d_input + d_output);
    if !by_size(seq_length, batch_size, weights) {
        return false;
    }
    let Ok(spec) = fused::lower(cell, device, dtype) else {
        return false;
    };
    // Here, where a panic names the caller.
    spec.check();
    true
}

#[cfg(feature = "kernel-cpu")]
fn by_size(seq_length: usize, batch_size: usize, weights: usize) -> bool {
    crate::fused::op::worth_pairing(seq_length, batch_size, weights)
}

/// Without CPU kernels nothing runs on threads.
#[cfg(not(feature = "kernel-cpu"))]
fn by_size(_: usize, _: usize, _: usize) -> bool {
    false
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
    #[cfg(feature = "kernel-cpu")]
    return crate::fused::op::side_by_side(first, second);
    #[cfg(not(feature = "kernel-cpu"))]
    (first(), second())
}

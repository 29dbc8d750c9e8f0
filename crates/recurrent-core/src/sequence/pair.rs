//! Runs the two directions of a layer concurrently.

use burn::tensor::{DType, Device};

use super::{Strategy, fused};
use crate::cell::Step;
use crate::fused::device::{Target, target};

/// Whether it is faster to run the two directions of a layer concurrently, each with half of the
/// threads, than one after the other with all of them. That is the case for few sequences of a small
/// layer that runs by a fused kernel on a CPU. The results are the same, bit for bit.
///
/// # Arguments
/// * `cell` - one of the directions
///
/// # Panics
/// If a kernel would run the cell and a weight does not have the shape that the cell's sizes imply.
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
    // The gates' weights on x and h; the exact number depends slightly on the variant.
    let weights = 4 * d_hidden * (d_input + d_output);
    if !by_size(seq_length, batch_size, weights) {
        return false;
    }
    let Ok(spec) = fused::lower(cell, device, dtype) else {
        return false;
    };
    // Checked here so that the panic reports the caller's location.
    spec.check();
    true
}

#[cfg(feature = "kernel-cpu")]
fn by_size(seq_length: usize, batch_size: usize, weights: usize) -> bool {
    crate::fused::op::worth_pairing(seq_length, batch_size, weights)
}

/// Without CPU kernels no run uses threads.
#[cfg(not(feature = "kernel-cpu"))]
fn by_size(_: usize, _: usize, _: usize) -> bool {
    false
}

/// Runs two closures concurrently, each with half of the threads, or one after the other if only one
/// thread is available.
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

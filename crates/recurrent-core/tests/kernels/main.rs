//! The CPU kernels on slices, for every instruction set of this machine: against the same in f64, or
//! one instruction set against the widest.

#[allow(dead_code)] // not all of it is needed here
#[path = "../common/mod.rs"]
mod common;

#[path = "../common/bits.rs"]
mod bits_of;

mod activations;
mod adaptive;
mod bits;
mod gru;
mod problems;
mod product;
mod recurrence;
mod rows;

/// f32 values, uniform in ±1.
fn draw(random: &mut common::Random, count: usize) -> Vec<f32> {
    let list = random.values(count, 1.0);
    list.into_iter().map(|v| v as f32).collect()
}

/// Panics unless `|got − expected|` is at most `bound` for each.
#[track_caller]
fn assert_within(what: &str, got: &[f32], expected: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs();
        let bound = bound(index);
        assert!(
            error <= bound,
            "{what}[{index}]: got {got}, expected {expected}; error {error:e}, allowed {bound:e}"
        );
    }
}

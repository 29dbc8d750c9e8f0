//! What shape each tensor of a fused call must have, and the check of it.
//!
//! Kernels follow raw pointers as far as the sizes of a problem say. So the sizes and the tensors are
//! checked against one table per family (`recurrence/shapes.rs`, `adaptive/shapes.rs`) before any pointer is
//! made: by shape where tensors enter ([`Expected::check`], on every backend), and once more by
//! length where slices enter the CPU kernels ([`Expected::check_len`]), so that these are sound on their own.

use alloc::vec::Vec;
use core::fmt::Display;

/// The shape that a tensor must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// In letters, for messages.
    letters: &'static str,
    /// In numbers.
    dims: Vec<usize>,
}

impl Expected {
    /// A shape in letters and in numbers.
    pub fn new(letters: &'static str, dims: impl Into<Vec<usize>>) -> Self {
        Self {
            letters,
            dims: dims.into(),
        }
    }

    /// # Panics
    /// If a tensor has another shape.
    #[track_caller]
    pub fn check(&self, name: impl Display, got: &[usize]) {
        assert!(
            got == self.dims,
            "`{name}` has shape {got:?}, expected {} = {:?}",
            self.letters,
            self.dims,
        );
    }

    /// # Panics
    /// If a tensor has another number of values.
    #[track_caller]
    pub fn check_len(&self, name: impl Display, got: usize) {
        assert!(
            got == self.dims.iter().product::<usize>(),
            "`{name}` has {got} values, expected {} = {:?}",
            self.letters,
            self.dims,
        );
    }
}

/// # Panics
/// If there are no steps, or the number of rows per step is 0 or rises.
#[track_caller]
pub fn check_counts(counts: &[usize]) {
    assert!(
        !counts.is_empty(),
        "a sequence has no steps, expected at least 1"
    );
    let falls = counts.windows(2).all(|pair| pair[0] >= pair[1]);
    let last = counts[counts.len() - 1];
    assert!(
        falls && last > 0,
        "rows per step are {counts:?}, expected at least 1 in each step and never more than in the step \
         before",
    );
}

//! What shape each tensor of a fused call must have, and the check of it.
//!
//! Kernels follow raw pointers as far as the sizes of a problem say. So the sizes and the tensors are
//! checked against one table per family (`lstm.rs`, `adaptive.rs`) before any pointer is
//! made: by shape where tensors enter ([`Expected::check`], on every backend), and once more by
//! length where slices enter the CPU kernels ([`Expected::check_len`]), so that these are sound on their own.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Display};

/// The shape of a tensor of one or two axes, without memory of its own: a call has twenty of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Axes {
    lengths: [usize; 2],
    count: usize,
}

impl Axes {
    /// # Panics
    /// If there are more than two axes.
    pub fn of(dims: &[usize]) -> Self {
        let mut lengths = [1; 2];
        lengths[..dims.len()].copy_from_slice(dims);
        Self {
            lengths,
            count: dims.len(),
        }
    }

    fn as_slice(&self) -> &[usize] {
        &self.lengths[..self.count]
    }
}

impl<const D: usize> From<[usize; D]> for Axes {
    fn from(dims: [usize; D]) -> Self {
        Self::of(&dims)
    }
}

impl fmt::Debug for Axes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// The shape that a tensor must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// In letters, for messages.
    letters: &'static str,
    /// In numbers.
    dims: Axes,
}

impl Expected {
    /// A shape in letters and in numbers.
    pub fn new(letters: &'static str, dims: impl Into<Axes>) -> Self {
        Self {
            letters,
            dims: dims.into(),
        }
    }

    /// What is wrong with the shape of a tensor, if it is another one.
    pub fn mismatch(&self, name: impl Display, got: impl Into<Axes>) -> Option<String> {
        let got = got.into();
        (got != self.dims).then(|| {
            let Self { letters, dims } = self;
            format!("`{name}` has shape {got:?}, expected {letters} = {dims:?}")
        })
    }

    /// # Panics
    /// If a tensor has another shape.
    #[track_caller]
    pub fn check(&self, name: impl Display, got: impl Into<Axes>) {
        if let Some(text) = self.mismatch(name, got) {
            panic!("{text}");
        }
    }

    /// # Panics
    /// If a tensor has another number of values.
    #[track_caller]
    pub fn check_len(&self, name: impl Display, got: usize) {
        assert!(
            got == self.dims.lengths.iter().product::<usize>(),
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

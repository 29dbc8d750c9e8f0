//! The shapes of the tensors of a fused call, and their check.
//!
//! Kernels access memory through raw pointers, with ranges computed from the sizes of the problem.
//! Therefore tensors are checked against one table per family (`lstm.rs`, `gru.rs`, `adaptive.rs`)
//! before any pointer is made: by shape where tensors enter ([`Expected::check`], on every backend), and
//! again by length where slices enter the CPU kernels ([`Expected::check_len`]), so that the CPU kernels
//! are sound on their own.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Display};

/// The shape of a tensor of one or two axes, without heap allocation: a call has about twenty.
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
    /// Symbolic form, for messages.
    letters: &'static str,
    /// Sizes.
    dims: Axes,
}

impl Expected {
    /// A shape in symbolic form and in numbers.
    pub fn new(letters: &'static str, dims: impl Into<Axes>) -> Self {
        Self {
            letters,
            dims: dims.into(),
        }
    }

    /// The error text if a tensor has a different shape.
    pub fn mismatch(&self, name: impl Display, got: impl Into<Axes>) -> Option<String> {
        let got = got.into();
        (got != self.dims).then(|| {
            let Self { letters, dims } = self;
            format!("`{name}` has shape {got:?}, expected {letters} = {dims:?}")
        })
    }

    /// # Panics
    /// If a tensor has a different shape.
    #[track_caller]
    pub fn check(&self, name: impl Display, got: impl Into<Axes>) {
        if let Some(text) = self.mismatch(name, got) {
            panic!("{text}");
        }
    }

    /// # Panics
    /// If a tensor has a different number of values.
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
/// If there are no steps, or the number of rows per step is 0 or increases.
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

/// # Panics
/// If the gather order has a wrong length, or contains an invalid row.
#[track_caller]
pub fn check_order(order: &[usize], rows: usize) {
    assert!(
        order.len() == rows,
        "the order of the input has {} rows, expected one per step of a sequence: {rows}",
        order.len(),
    );
    if let Some(row) = order.iter().find(|&&row| row >= rows) {
        panic!("the order of the input names row {row}, expected rows below {rows}");
    }
}

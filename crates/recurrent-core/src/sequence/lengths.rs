//! Lengths of the sequences of a padded batch.

use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

/// Length of each sequence of a batch, stored on the host. A length may be 0, as in ONNX (PyTorch's
/// `pack_padded_sequence` rejects it): such a sequence has no output, and its final state is its
/// initial one.
///
/// # Example
/// ```
/// use recurrent_core::{Lengths, LengthsError};
///
/// let lengths = Lengths::new([5, 2, 7], 7).unwrap();
/// assert_eq!(lengths.as_slice(), [5, 2, 7]);
/// assert_eq!(
///     Lengths::new([5, 9], 7),
///     Err(LengthsError::TooLong { index: 1, got: 9, seq_length: 7 }),
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lengths {
    lengths: Vec<usize>,
}

/// What is wrong with a list of lengths.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum LengthsError {
    /// A sequence longer than the padded input.
    #[error("length of sequence {index} is {got}, expected at most seq_length = {seq_length}")]
    TooLong {
        /// Position in the batch.
        index: usize,
        /// Its length.
        got: usize,
        /// Steps of the padded input.
        seq_length: usize,
    },
}

/// The error's text, so that `unwrap` prints it.
impl fmt::Debug for LengthsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Lengths {
    /// Checks and stores the lengths of a batch that is padded to `seq_length` steps.
    ///
    /// # Errors
    /// If one is longer than `seq_length`.
    pub fn new(lengths: impl Into<Vec<usize>>, seq_length: usize) -> Result<Self, LengthsError> {
        let lengths = lengths.into();
        for (index, &got) in lengths.iter().enumerate() {
            if got > seq_length {
                return Err(LengthsError::TooLong {
                    index,
                    got,
                    seq_length,
                });
            }
        }
        Ok(Self { lengths })
    }

    /// The lengths, in batch order.
    pub fn as_slice(&self) -> &[usize] {
        &self.lengths
    }

    /// The longest length; 0 for an empty batch.
    pub fn max(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// The sum of the lengths.
    pub fn total(&self) -> usize {
        self.lengths.iter().sum()
    }
}

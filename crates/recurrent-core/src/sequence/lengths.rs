//! Lengths of the sequences of a padded batch.

use alloc::vec::Vec;

use thiserror::Error;

/// Length of each sequence of a batch, kept on the host.
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
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LengthsError {
    /// No sequence at all.
    #[error("lengths are empty, expected one length per sequence of the batch")]
    Empty,
    /// A sequence without steps.
    #[error("length of sequence {index} is 0, expected at least 1")]
    Zero {
        /// Position in the batch.
        index: usize,
    },
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

impl Lengths {
    /// Checks and keeps the lengths of a batch that is padded to `seq_length` steps.
    ///
    /// # Errors
    /// If there are none, one is 0, or one is longer than `seq_length`.
    pub fn new(lengths: impl Into<Vec<usize>>, seq_length: usize) -> Result<Self, LengthsError> {
        let lengths = lengths.into();
        if lengths.is_empty() {
            return Err(LengthsError::Empty);
        }
        for (index, &got) in lengths.iter().enumerate() {
            if got == 0 {
                return Err(LengthsError::Zero { index });
            }
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

    /// The longest.
    pub fn max(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Steps of all sequences together.
    pub fn total(&self) -> usize {
        self.lengths.iter().sum()
    }
}

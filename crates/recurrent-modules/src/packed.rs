//! Batches without padding, PyTorch's `PackedSequence`.

use alloc::vec::Vec;
use core::fmt;

use burn::tensor::Tensor;
use recurrent_core::{Lengths, LengthsError, Packing};
use thiserror::Error;

/// Sequences of unequal length without padding, ordered by time step and within a step by decreasing
/// length, as in PyTorch.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::{LstmConfig, PackedSequence};
///
/// let device = Device::flex();
/// let lstm = LstmConfig::new(3, 4).init(&device);
/// let padded = Tensor::<3>::ones([2, 5, 3], &device);            // [batch, time, features]
/// let packed = PackedSequence::pack(padded, [2, 5], true, false).unwrap();
/// assert_eq!(packed.batch_sizes(), [2, 2, 1, 1, 1]);
/// assert_eq!(packed.sorted_indices(), [1, 0]);
/// let (out, state) = lstm.forward_packed(&packed, None);
/// assert_eq!(out.data().dims(), [2 + 5, 4]);
/// assert_eq!(state.last().hidden.dims(), [2, 4]);
/// let (out, lengths) = out.unpack(true);
/// assert_eq!(out.dims(), [2, 5, 4]);
/// assert_eq!(lengths.as_slice(), [2, 5]);
/// ```
#[derive(Debug, Clone)]
pub struct PackedSequence {
    data: Tensor<2>,
    lengths: Lengths,
    batch_sizes: Vec<usize>,
    sorted_indices: Vec<usize>,
}

/// Why sequences cannot be packed.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum PackError {
    /// Not one length per sequence.
    #[error("got {got} lengths, expected one per sequence: batch_size = {batch_size}")]
    Count {
        /// Number of lengths.
        got: usize,
        /// Sequences of the padded batch.
        batch_size: usize,
    },
    /// A length that does not fit the padded batch.
    #[error(transparent)]
    Lengths(#[from] LengthsError),
    /// Lengths that increase although `enforce_sorted` is set.
    #[error(
        "length of sequence {index} is {got}, expected at most {previous}, that of the sequence \
         before it: with enforce_sorted lengths must not rise"
    )]
    NotSorted {
        /// Position in the batch.
        index: usize,
        /// Its length.
        got: usize,
        /// The length before it.
        previous: usize,
    },
}

/// The text of the error: what `unwrap` prints.
impl fmt::Debug for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PackedSequence {
    /// Packs a padded batch; steps past a sequence's length are dropped.
    ///
    /// # Arguments
    /// * `padded` - `[batch_size, seq_length, features]`, or `[seq_length, batch_size, features]`
    ///   without `batch_first`
    /// * `lengths` - of each sequence, in batch order; 0 is allowed, unlike in PyTorch
    /// * `enforce_sorted` - whether increasing lengths are an error; otherwise they are sorted here,
    ///   and states stay in batch order
    ///
    /// # Gradients
    /// To `padded`, zero past each length.
    ///
    /// # Errors
    /// If there is not one length per sequence, a length is more than `seq_length`, or lengths increase
    /// with `enforce_sorted`.
    pub fn pack(
        padded: Tensor<3>,
        lengths: impl Into<Vec<usize>>,
        batch_first: bool,
        enforce_sorted: bool,
    ) -> Result<Self, PackError> {
        let lengths = lengths.into();
        let padded = match batch_first {
            true => padded.swap_dims(0, 1),
            false => padded,
        };
        let [seq_length, batch_size, _] = padded.dims();
        if lengths.len() != batch_size {
            return Err(PackError::Count {
                got: lengths.len(),
                batch_size,
            });
        }
        let lengths = Lengths::new(lengths, seq_length)?;
        if enforce_sorted {
            for (index, pair) in lengths.as_slice().windows(2).enumerate() {
                if pair[1] > pair[0] {
                    return Err(PackError::NotSorted {
                        index: index + 1,
                        got: pair[1],
                        previous: pair[0],
                    });
                }
            }
        }
        let packing = Packing::new(&lengths, seq_length, &padded.device());
        Ok(Self {
            data: packing.pack(padded),
            batch_sizes: packing.batch_sizes(),
            sorted_indices: packing.sorted_indices().to_vec(),
            lengths,
        })
    }

    /// The padded batch, as long as its longest sequence and zero past each length, and the
    /// lengths, both in the order of the batch that was packed.
    ///
    /// # Shapes
    /// - `[batch_size, longest, features]`, or `[longest, batch_size, features]` without
    ///   `batch_first`
    ///
    /// # Gradients
    /// To the packed rows.
    pub fn unpack(self, batch_first: bool) -> (Tensor<3>, Lengths) {
        let packing = Packing::new(&self.lengths, self.lengths.max(), &self.data.device());
        let padded = packing.unpack(self.data);
        let padded = match batch_first {
            true => padded.swap_dims(0, 1),
            false => padded,
        };
        (padded, self.lengths)
    }

    /// The steps of all sequences, `[sum of lengths, features]`.
    pub fn data(&self) -> Tensor<2> {
        self.data.clone()
    }

    /// Lengths in the order of the batch that was packed.
    pub fn lengths(&self) -> &Lengths {
        &self.lengths
    }

    /// Number of sequences at each time step, decreasing.
    pub fn batch_sizes(&self) -> &[usize] {
        &self.batch_sizes
    }

    /// The batch's rows, longest sequence first; equal lengths in batch order.
    pub fn sorted_indices(&self) -> &[usize] {
        &self.sorted_indices
    }

    /// The same sequences with other features.
    ///
    /// # Panics
    /// If `data` has another number of rows.
    #[track_caller]
    pub fn with_data(&self, data: Tensor<2>) -> Self {
        assert!(
            data.dims()[0] == self.lengths.total(),
            "got {} packed rows, expected as many as the lengths have steps: {}",
            data.dims()[0],
            self.lengths.total(),
        );
        Self {
            data,
            ..self.clone()
        }
    }
}

//! The four sizes of a recurrent problem.

use burn::tensor::Tensor;

/// Sizes of one layer run over one batch.
///
/// # Example
/// ```
/// use recurrent_core::Dims;
///
/// let dims = Dims { batch_size: 3, seq_length: 5, d_input: 7, d_hidden: 11 };
/// assert_eq!(dims.tokens(), 15);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// B: sequences in the batch.
    pub batch_size: usize,
    /// T: steps of the (longest) sequence.
    pub seq_length: usize,
    /// I: features of one input step.
    pub d_input: usize,
    /// H: units of the layer.
    pub d_hidden: usize,
}

impl Dims {
    /// Takes the sizes from a time-major input and checks it.
    ///
    /// # Arguments
    /// * `input` - `[seq_length, batch_size, d_input]`
    /// * `d_input`, `d_hidden` - the sizes of the cell that will run
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_input`.
    #[track_caller]
    pub fn of(input: &Tensor<3>, d_input: usize, d_hidden: usize) -> Self {
        let [seq_length, batch_size, features] = input.dims();
        assert!(
            features == d_input,
            "input has inconsistent d_input: got {features}, expected {d_input}",
        );
        Self {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        }
    }

    /// B·T: steps of all sequences together.
    pub fn tokens(&self) -> usize {
        self.batch_size * self.seq_length
    }
}

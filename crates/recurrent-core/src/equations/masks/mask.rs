//! A mask as a value.

use burn::tensor::{DType, Tensor};

/// A multiplier for one quantity during one call.
#[derive(Debug, Clone)]
pub enum Mask {
    /// `[batch_size, features]`: the same at each step of the sequence.
    PerSequence(Tensor<2>),
    /// `[seq_length, batch_size, features]`: a new mask at each step, in time order of the input.
    PerStep(Tensor<3>),
}

impl Mask {
    /// Panics with `name` and the actual and expected shape if the mask does not fit.
    #[track_caller]
    pub(super) fn check(&self, name: &str, seq_length: usize, batch_size: usize, features: usize) {
        match self {
            Mask::PerSequence(mask) => assert!(
                mask.dims() == [batch_size, features],
                "mask `{name}` has shape {:?}, expected [batch_size, features] = [{batch_size}, {features}]",
                mask.dims(),
            ),
            Mask::PerStep(mask) => {
                let [steps, rows, columns] = mask.dims();
                assert!(
                    steps >= seq_length && [rows, columns] == [batch_size, features],
                    "mask `{name}` has shape {:?}, expected [seq_length, batch_size, features] = \
                     [{seq_length}, {batch_size}, {features}]",
                    mask.dims(),
                );
            }
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Mask::PerSequence(mask) => mask.dtype(),
            Mask::PerStep(mask) => mask.dtype(),
        }
    }

    /// The multiplier of step `t`, `[batch_size, features]`.
    pub fn at(&self, t: usize) -> Tensor<2> {
        match self {
            Mask::PerSequence(mask) => mask.clone(),
            Mask::PerStep(mask) => {
                let [_, batch_size, features] = mask.dims();
                mask.clone()
                    .slice([t..t + 1, 0..batch_size, 0..features])
                    .reshape([batch_size, features])
            }
        }
    }
}

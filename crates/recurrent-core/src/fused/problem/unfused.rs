//! Why there is no kernel for a call.

use alloc::string::String;

use burn::tensor::DType;
use thiserror::Error;

use crate::mixed_types::MixedTypes;

/// Why a sequence is run by the composed scan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unfused {
    /// The cell has options that no kernel knows.
    #[error("there is no fused kernel for {0}")]
    Cell(&'static str),
    /// The device has no kernels in this build.
    #[error(
        "there are no fused kernels for {device} in this build: they come with the features of the \
         recurrent crates that are named like the backends of Burn, such as `flex` and `wgpu`"
    )]
    Device {
        /// What the device calls itself.
        device: String,
    },
    /// The weights have another type of numbers than the input, or than each other: such a call is an
    /// error whatever the strategy.
    #[error(transparent)]
    Types(#[from] MixedTypes),
    /// Kernels compute in f32.
    #[error("there are fused kernels for f32 only, the input is {got:?}")]
    DType {
        /// The type of the input.
        got: DType,
    },
}

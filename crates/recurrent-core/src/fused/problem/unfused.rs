//! Why no kernel supports a call.

use alloc::string::String;

use burn::tensor::DType;
use thiserror::Error;

use crate::mixed_types::MixedTypes;

/// Why a sequence runs by the composed scan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unfused {
    /// No kernel supports the options of the cell.
    #[error("there is no fused kernel for {0}")]
    Cell(&'static str),
    /// This build has no kernels for the device.
    #[error(
        "there are no fused kernels for {device} in this build: they come with the features of the \
         recurrent crates that are named like the backends of Burn, such as `flex` and `wgpu`"
    )]
    Device {
        /// The name of the device.
        device: String,
    },
    /// Weights and input do not share one element type. Such a call is an error with every strategy.
    #[error(transparent)]
    Types(#[from] MixedTypes),
    /// Kernels support f32 only.
    #[error("there are fused kernels for f32 only, the input is {got:?}")]
    DType {
        /// The type of the input.
        got: DType,
    },
}

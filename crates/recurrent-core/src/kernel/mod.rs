//! Level 3, fused: a whole sequence in one operation, with hand-written gradients.
//!
//! ```text
//! sequence/          asks for a kernel, or runs the composed scan
//!     ↓
//! contract           one operation on tensors: SequenceKernel in, one tensor out, one autodiff node
//!     ↓
//! flex, ndarray      tensors to slices and back          cube/    the same for devices of CubeCL:
//!     ↓                                                           one kernel per step, generic
//! cpu/               slices in, slices out: vectors,              over the runtime
//!                    panels, threads; knows nothing of Burn
//! ```
//! The composed scan is the reference; what a kernel may differ in is rounding.

#[cfg(feature = "kernel")]
pub(crate) mod adaptive;
#[cfg(feature = "kernel")]
mod autodiff;
#[cfg(feature = "kernel")]
mod contract;
#[cfg(all(feature = "kernel", not(feature = "eval")))]
pub(crate) mod cpu;
/// Public with the feature `eval` only, for the tests of single kernels.
#[cfg(all(feature = "kernel", feature = "eval"))]
pub mod cpu;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "kernel")]
pub(crate) mod lstm;
#[cfg(feature = "ndarray")]
mod ndarray;
#[cfg(feature = "kernel")]
mod shapes;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod slices;

#[cfg(feature = "kernel")]
pub use cpu::buffer::release as release_buffers;

use alloc::string::String;

use burn::serde::{Deserialize, Serialize};
use burn::tensor::{DType, Device};
use thiserror::Error;

use crate::sequence::MixedTypes;

/// How a sequence is run.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(crate = "burn::serde")]
pub enum Strategy {
    /// A fused kernel where there is one for the cell, the device and the type of numbers; the
    /// composed scan otherwise. [`unfused`] gives the reason.
    #[default]
    Auto,
    /// Tensor operations, step by step, differentiated by Burn.
    Composed,
    /// A fused kernel, or a panic that says why there is none.
    Fused,
}

/// How exactly recurrent weights are read in inference.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(crate = "burn::serde")]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 at the start of a run, where reading them is what takes the time: one sequence
    /// of more than one step with more than 1 MiB of recurrent weights, without a backward, by a fused
    /// kernel of the LSTM family. Everything else runs in f32, as do all sums.
    Bf16,
}

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

/// Why kernels cannot run on a device with a type of numbers, if they cannot.
pub fn unfused(device: &Device, dtype: DType) -> Option<Unfused> {
    if target(device).is_none() {
        return Some(Unfused::Device {
            device: alloc::format!("{:?}", device.clone().inner()),
        });
    }
    (dtype != DType::F32).then_some(Unfused::DType { got: dtype })
}

/// Which kernels a device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Those on slices: Flex, NdArray.
    Cpu,
    /// Those for CubeCL: GPUs, and CubeCL's own CPU runtime.
    Cube,
}

/// How the rows of a sequence `[T, B, ·]` lie in memory.
#[cfg(feature = "kernel")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lies {
    /// Step by step.
    TimeFirst,
    /// Sequence by sequence: the tensor is a view of one of `[B, T, ·]`.
    BatchFirst,
}

/// How the rows of a sequence `[T, B, ·]` lie in memory; none where they are not one behind the other,
/// gradients are tracked, or the device is no CPU.
#[cfg(feature = "kernel")]
pub(crate) fn lies(sequence: &burn::tensor::Tensor<3>) -> Option<Lies> {
    #[allow(unused_imports)] // where there is no CPU backend
    use burn::backend::{BackendTensor, DispatchTensorKind};

    let [steps, batch, features] = sequence.dims();
    let strides: [isize; 3] = match sequence.clone().into_dispatch().kind {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => {
            tensor.layout().strides().try_into().ok()?
        }
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)] // upstream has deprecated the backend; it is supported here
        DispatchTensorKind::NdArray(BackendTensor::Float(
            burn::backend::ndarray::NdArrayTensor::F32(storage),
        )) => storage.view().strides().try_into().ok()?,
        _ => return None,
    };
    // The stride of an axis of length 1 says nothing.
    let agrees = |expected: [usize; 3]| {
        let lengths = [steps, batch, features];
        (strides.iter().zip(expected).zip(lengths))
            .all(|((&stride, expected), length)| length == 1 || stride == expected as isize)
    };
    if agrees([batch * features, features, 1]) {
        Some(Lies::TimeFirst)
    } else {
        agrees([features, steps * features, 1]).then_some(Lies::BatchFirst)
    }
}

/// Which kernels a device runs, if the contract is implemented for its backend in this build.
pub fn target(device: &Device) -> Option<Target> {
    #[cfg(feature = "kernel")]
    {
        use burn::backend::DispatchDevice;

        let inner = device.clone().inner();
        #[allow(unreachable_patterns)] // where these are all the backends there are
        match inner.as_dispatch() {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => Some(Target::Cpu),
            #[cfg(feature = "ndarray")]
            DispatchDevice::NdArray(_) => Some(Target::Cpu),
            #[cfg(feature = "cube")]
            DispatchDevice::Cube(device) => cube::is_able(device).then_some(Target::Cube),
            _ => None,
        }
    }
    #[cfg(not(feature = "kernel"))]
    {
        let _ = device;
        None
    }
}

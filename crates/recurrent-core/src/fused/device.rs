//! Which kernels a device runs, and the memory order of its tensors.

use burn::tensor::{DType, Device};

use super::problem::Unfused;

/// Why kernels cannot run on a device with an element type; `None` if they can.
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
    /// The kernels on slices: Flex, NdArray.
    Cpu,
    /// The kernels for CubeCL: GPUs, and CubeCL's own CPU runtime.
    Cube,
}

/// Which kernels a device runs; `None` if this build has no kernels for its backend.
pub fn target(device: &Device) -> Option<Target> {
    #[cfg(feature = "kernel")]
    {
        use burn::backend::DispatchDevice;

        let inner = device.clone().inner();
        #[allow(unreachable_patterns)] // unreachable if the build has no other backend
        match inner.as_dispatch() {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => Some(Target::Cpu),
            #[cfg(feature = "ndarray")]
            DispatchDevice::NdArray(_) => Some(Target::Cpu),
            #[cfg(feature = "kernel-cube")]
            DispatchDevice::Cube(device) => super::cube::is_able(device).then_some(Target::Cube),
            _ => None,
        }
    }
    #[cfg(not(feature = "kernel"))]
    {
        let _ = device;
        None
    }
}

/// The memory order of the rows of a sequence `[T, B, ·]`.
#[cfg(feature = "kernel")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "kernel-cpu"), allow(dead_code))]
pub enum RowOrder {
    /// Time-major.
    TimeFirst,
    /// Batch-major: the tensor is a view of a contiguous `[B, T, ·]`.
    BatchFirst,
}

/// The memory order of the rows of a sequence `[T, B, ·]`; `None` if they are not contiguous, gradients
/// are tracked, or the device is not a CPU.
#[cfg(feature = "kernel-cpu")]
pub fn row_order(sequence: &burn::tensor::Tensor<3>) -> Option<RowOrder> {
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
    // The stride of an axis of length 1 is irrelevant.
    let agrees = |expected: [usize; 3]| {
        let lengths = [steps, batch, features];
        (strides.iter().zip(expected).zip(lengths))
            .all(|((&stride, expected), length)| length == 1 || stride == expected as isize)
    };
    if agrees([batch * features, features, 1]) {
        Some(RowOrder::TimeFirst)
    } else {
        agrees([features, steps * features, 1]).then_some(RowOrder::BatchFirst)
    }
}

/// Only CPU kernels read rows in place.
#[cfg(all(feature = "kernel", not(feature = "kernel-cpu")))]
pub fn row_order(_: &burn::tensor::Tensor<3>) -> Option<RowOrder> {
    None
}

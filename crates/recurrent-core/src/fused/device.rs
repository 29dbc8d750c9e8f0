//! Which kernels a device runs, and how its tensors lie in memory.

use burn::tensor::{DType, Device};

use super::problem::Unfused;

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

/// Which kernels a device runs, if there are any for its backend in this build.
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

/// How the rows of a sequence `[T, B, ·]` lie in memory.
#[cfg(feature = "kernel")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "kernel-cpu"), allow(dead_code))]
pub enum Lies {
    /// Step by step.
    TimeFirst,
    /// Sequence by sequence: the tensor is a view of one of `[B, T, ·]`.
    BatchFirst,
}

/// How the rows of a sequence `[T, B, ·]` lie in memory; none where they are not one behind the other,
/// gradients are tracked, or the device is no CPU.
#[cfg(feature = "kernel-cpu")]
pub fn lies(sequence: &burn::tensor::Tensor<3>) -> Option<Lies> {
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

/// Nobody asks how tensors lie where no kernel reads them in place.
#[cfg(all(feature = "kernel", not(feature = "kernel-cpu")))]
pub fn lies(_: &burn::tensor::Tensor<3>) -> Option<Lies> {
    None
}

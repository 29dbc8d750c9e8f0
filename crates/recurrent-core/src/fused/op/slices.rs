//! Kernels on backends that expose their values as slices.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{Problem, SliceBackend};
use crate::fused::cpu::{self, Saved, buffer::unset};

/// [`RunKernel::scatter`](super::RunKernel::scatter) on slices.
pub(super) fn scatter<B: SliceBackend>(
    tensor: &FloatTensor<B>,
    start: usize,
    len: usize,
) -> FloatTensor<B> {
    let end = start + tensor.shape().num_elements();
    let mut values = unset(len);
    values[..start].fill(0.0);
    B::copy_to(tensor, &mut values[start..end]);
    values[end..].fill(0.0);
    B::from_values(values, &[len], &tensor.device())
}

/// [`RunKernel::copied`](super::RunKernel::copied) on slices.
pub(super) fn copied<B: SliceBackend>(tensor: &FloatTensor<B>) -> FloatTensor<B> {
    let shape = tensor.shape();
    let mut values = unset(shape.num_elements());
    B::copy_to(tensor, &mut values);
    B::from_values(values, shape.as_slice(), &tensor.device())
}

/// [`RunKernel::forward`](super::RunKernel::forward) on slices.
pub(super) fn forward<B: SliceBackend>(
    problem: &Arc<Problem>,
    tensors: &[FloatTensor<B>],
    save: bool,
) -> (FloatTensor<B>, Option<Arc<Saved>>) {
    let device = tensors[0].device();
    let slices: Vec<_> = tensors.iter().map(B::as_slice).collect();
    let (output, saved) = cpu::forward(problem, &slices, save);
    let len = output.len();
    (B::from_values(output, &[len], &device), saved.map(Arc::new))
}

/// [`RunKernel::backward`](super::RunKernel::backward) on slices.
pub(super) fn backward<B: SliceBackend>(
    problem: &Arc<Problem>,
    tensors: &[FloatTensor<B>],
    saved: &Saved,
    output: &FloatTensor<B>,
    grad: &FloatTensor<B>,
    wanted: &[bool],
) -> Vec<Option<FloatTensor<B>>> {
    let device = output.device();
    let slices: Vec<_> = tensors.iter().map(B::as_slice).collect();
    let call = cpu::Gradient {
        tensors: &slices,
        saved,
        output: B::as_slice(output),
        grad: B::as_slice(grad),
        wanted,
    };
    let grads = cpu::backward(problem, call);
    let shaped = tensors.iter().zip(grads).map(|(tensor, values)| {
        values.map(|values| B::from_values(values, tensor.shape().as_slice(), &device))
    });
    shaped.collect()
}

/// Implements [`RunKernel`](super::RunKernel) for a backend with slices.
macro_rules! run_on_slices {
    ($Backend:ty) => {
        impl $crate::fused::op::RunKernel for $Backend {
            type Saved = Arc<$crate::fused::cpu::Saved>;

            fn prepare(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::contiguous(tensor)
            }

            fn scatter(tensor: FloatTensor<Self>, start: usize, len: usize) -> FloatTensor<Self> {
                $crate::fused::op::slices::scatter::<Self>(&tensor, start, len)
            }

            fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
                $crate::fused::op::slices::copied::<Self>(&tensor)
            }

            fn forward(
                problem: &Arc<$crate::fused::problem::Problem>,
                tensors: &[FloatTensor<Self>],
                save: bool,
            ) -> (FloatTensor<Self>, Option<Self::Saved>) {
                $crate::fused::op::slices::forward::<Self>(problem, tensors, save)
            }

            fn backward(
                problem: &Arc<$crate::fused::problem::Problem>,
                tensors: &[FloatTensor<Self>],
                saved: &Self::Saved,
                output: &FloatTensor<Self>,
                grad: FloatTensor<Self>,
                wanted: &[bool],
            ) -> alloc::vec::Vec<Option<FloatTensor<Self>>> {
                $crate::fused::op::slices::backward::<Self>(
                    problem, tensors, saved, output, &grad, wanted,
                )
            }
        }
    };
}

pub(super) use run_on_slices;

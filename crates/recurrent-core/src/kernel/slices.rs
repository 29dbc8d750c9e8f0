//! Kernels on backends that hand out their values as slices.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::contract::{Kept, SequenceKernel, SliceBackend};
use super::cpu::buffer::unset;

/// [`RunKernel::place`](super::contract::RunKernel::place) on slices.
pub(super) fn place<B: SliceBackend>(
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

/// [`RunKernel::copied`](super::contract::RunKernel::copied) on slices.
pub(super) fn copied<B: SliceBackend>(tensor: &FloatTensor<B>) -> FloatTensor<B> {
    let shape = tensor.shape();
    let mut values = unset(shape.num_elements());
    B::copy_to(tensor, &mut values);
    B::from_values(values, shape.as_slice(), &tensor.device())
}

/// [`RunKernel::forward`](super::contract::RunKernel::forward) on slices.
pub(super) fn forward<B: SliceBackend>(
    kernel: &Arc<dyn SequenceKernel>,
    tensors: &[FloatTensor<B>],
    keep: bool,
) -> (FloatTensor<B>, Option<Arc<Kept>>) {
    let device = tensors[0].device();
    let slices: Vec<_> = tensors.iter().map(B::as_slice).collect();
    let (output, kept) = kernel.forward(&slices, keep);
    let len = output.len();
    (B::from_values(output, &[len], &device), kept.map(Arc::new))
}

/// [`RunKernel::backward`](super::contract::RunKernel::backward) on slices.
pub(super) fn backward<B: SliceBackend>(
    kernel: &Arc<dyn SequenceKernel>,
    tensors: &[FloatTensor<B>],
    kept: &Kept,
    output: &FloatTensor<B>,
    grad: &FloatTensor<B>,
    wanted: &[bool],
) -> Vec<Option<FloatTensor<B>>> {
    let device = output.device();
    let slices: Vec<_> = tensors.iter().map(B::as_slice).collect();
    let grads = kernel.backward(
        &slices,
        kept,
        B::as_slice(output),
        B::as_slice(grad),
        wanted,
    );
    let shaped = tensors.iter().zip(grads).map(|(tensor, values)| {
        values.map(|values| B::from_values(values, tensor.shape().as_slice(), &device))
    });
    shaped.collect()
}

/// Implements [`RunKernel`](super::contract::RunKernel) for a backend with slices.
macro_rules! run_on_slices {
    ($Backend:ty) => {
        impl $crate::kernel::contract::RunKernel for $Backend {
            type Kept = Arc<$crate::kernel::contract::Kept>;

            fn prepare(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
                Self::contiguous(tensor)
            }

            fn place(tensor: FloatTensor<Self>, start: usize, len: usize) -> FloatTensor<Self> {
                $crate::kernel::slices::place::<Self>(&tensor, start, len)
            }

            fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
                $crate::kernel::slices::copied::<Self>(&tensor)
            }

            fn forward(
                kernel: &Arc<dyn SequenceKernel>,
                tensors: &[FloatTensor<Self>],
                keep: bool,
            ) -> (FloatTensor<Self>, Option<Self::Kept>) {
                $crate::kernel::slices::forward::<Self>(kernel, tensors, keep)
            }

            fn backward(
                kernel: &Arc<dyn SequenceKernel>,
                tensors: &[FloatTensor<Self>],
                kept: &Self::Kept,
                output: &FloatTensor<Self>,
                grad: FloatTensor<Self>,
                wanted: &[bool],
            ) -> alloc::vec::Vec<Option<FloatTensor<Self>>> {
                $crate::kernel::slices::backward::<Self>(
                    kernel, tensors, kept, output, &grad, wanted,
                )
            }
        }
    };
}

pub(super) use run_on_slices;

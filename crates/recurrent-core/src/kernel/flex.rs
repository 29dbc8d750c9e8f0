//! Slices of Flex tensors.

use alloc::sync::Arc;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;

use super::contract::{KernelBackend, SequenceKernel, SliceBackend, TensorList, run_once};
use super::slices::run_on_slices;

impl SliceBackend for Flex {
    fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        if tensor.is_contiguous() {
            tensor
        } else {
            tensor.to_contiguous()
        }
    }

    fn as_slice(tensor: &FloatTensor<Self>) -> &[f32] {
        tensor.as_slice().expect("a contiguous tensor of f32")
    }
}

run_on_slices!(Flex);

impl KernelBackend for Flex {
    fn run_kernel(tensors: TensorList<Self>, kernel: Arc<dyn SequenceKernel>) -> FloatTensor<Self> {
        run_once::<Self>(tensors, &kernel)
    }
}

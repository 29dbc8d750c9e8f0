//! Slices of Flex tensors.

use alloc::sync::Arc;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;

use super::contract::{KernelBackend, SequenceKernel, SliceBackend, TensorList, run_slices};

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

impl KernelBackend for Flex {
    fn run_kernel(tensors: TensorList<Self>, kernel: Arc<dyn SequenceKernel>) -> FloatTensor<Self> {
        run_slices::<Self>(tensors, &*kernel)
    }
}

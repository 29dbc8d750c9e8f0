//! Slices of Flex tensors.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::{ManuallyDrop, MaybeUninit, take};
use core::ptr::NonNull;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

use super::slices::run_on_slices;
use super::{KernelBackend, Problem, RunKernel, SliceBackend, TensorList, run_once};
use crate::fused::cpu::buffer;

impl SliceBackend for Flex {
    fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        if tensor.is_contiguous() {
            return tensor;
        }
        if tensor.dtype() != DType::F32 {
            return tensor.to_contiguous(); // rejected later with an error that names the tensor
        }
        let shape = tensor.shape();
        let mut values = buffer::unset(shape.num_elements());
        Self::copy_to(&tensor, &mut values);
        Self::from_values(values, shape.as_slice(), &tensor.device())
    }

    fn copy_to(tensor: &FloatTensor<Self>, target: &mut [f32]) {
        let layout = tensor.layout();
        let (shape, strides) = (layout.shape().as_slice(), layout.strides());
        let start = layout.start_offset() as isize;
        copy(tensor.storage(), start, shape, strides, target);
    }

    fn as_slice(tensor: &FloatTensor<Self>) -> &[f32] {
        tensor.as_slice().expect("a contiguous tensor of f32")
    }

    fn from_values(values: Vec<f32>, shape: &[usize], device: &Self::Device) -> FloatTensor<Self> {
        let len = size_of_val(&values[..]);
        // SAFETY: all values of a vector are initialised.
        let bytes = unsafe { Bytes::from_controller(Box::new(Pooled(values)), len) };
        Self::float_from_data(TensorData::from_bytes(bytes, shape, DType::F32), device)
    }
}

run_on_slices!(Flex);

impl KernelBackend for Flex {
    fn run_kernel(tensors: TensorList<Self>, problem: Arc<Problem>) -> FloatTensor<Self> {
        run_once::<Self>(tensors, &problem)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RunKernel>::copied(tensor)
    }
}

/// Copies the values starting at `start`, in row-major order.
fn copy(values: &[f32], start: isize, shape: &[usize], strides: &[isize], target: &mut [f32]) {
    match (shape, strides) {
        ([len], [1]) => {
            let start = start as usize;
            target.copy_from_slice(&values[start..start + len]);
        }
        ([_, inner @ ..], [stride, rest @ ..]) => {
            let size = inner.iter().product::<usize>().max(1);
            for (index, target) in target.chunks_exact_mut(size).enumerate() {
                copy(values, start + index as isize * stride, inner, rest, target);
            }
        }
        _ => target[0] = values[start as usize],
    }
}

/// Memory of a tensor that returns to the pool when the tensor is dropped.
struct Pooled(Vec<f32>);

impl Pooled {
    fn len(&self) -> usize {
        self.0.capacity() * size_of::<f32>()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        buffer::give_back(take(&mut self.0));
    }
}

impl AllocationController for Pooled {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Native
    }

    unsafe fn memory_mut(
        &mut self,
        _: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let (values, len) = (self.0.as_mut_ptr(), self.len());
        // SAFETY: the whole allocation, borrowed like `self`; the caller writes initialised bytes only,
        // and any four of them form a valid f32.
        Ok(unsafe { core::slice::from_raw_parts_mut(values.cast(), len) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        // SAFETY: the whole allocation, borrowed like `self`.
        Ok(unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), self.len()) })
    }

    fn try_detach(&mut self) -> Option<NonNull<u8>> {
        // The vector was allocated by the global allocator, with the capacity and alignment given above.
        let values = &mut *ManuallyDrop::new(take(&mut self.0));
        NonNull::new(values.as_mut_ptr().cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(len: usize) -> FloatTensor<Flex> {
        let values = (0..len).map(|index| index as f32).collect();
        Flex::from_values(values, &[len], &Default::default())
    }

    #[test]
    fn values_are_kept() {
        let len = 1001;
        let tensor = Flex::float_mul_scalar(tensor(len), 2.0f32.into());
        let copied = tensor.clone().into_data().try_into_vec::<f32>();
        let copied = copied.expect("f32");
        let start = Flex::as_slice(&tensor).as_ptr();
        let detached = tensor.into_data().try_into_vec::<f32>().expect("f32");
        assert_eq!(copied, detached);
        assert_eq!(detached[len - 1], 2.0 * (len - 1) as f32);
        assert_eq!(detached.as_ptr(), start, "the only owner needs no copy");
    }

    #[test]
    fn memory_comes_back() {
        // A size that nothing else in this test binary uses.
        let len = 1_000_003;
        let tensor = tensor(len);
        let start = Flex::as_slice(&tensor).as_ptr();
        drop(tensor);
        let again = buffer::unset(len);
        assert_eq!(again.as_ptr(), start);
    }

    #[test]
    fn any_order_is_copied() {
        let values: Vec<f32> = (0..24).map(|index| index as f32).collect();
        let tensor = Flex::from_values(values, &[2, 3, 4], &Default::default());
        let turned = tensor.transpose(0, 1).transpose(1, 2);
        let expected = turned.to_contiguous();
        let got = Flex::contiguous(turned);
        assert_eq!(Flex::as_slice(&got), Flex::as_slice(&expected));
        assert_eq!(Flex::as_slice(&got)[..3], [0.0, 12.0, 1.0]);
    }
}

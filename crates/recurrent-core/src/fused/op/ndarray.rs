//! Slices of NdArray tensors.
#![allow(deprecated)] // upstream has deprecated the backend; it is supported here

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::backend::NdArray;
use burn::backend::ndarray::NdArrayTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::TensorData;

use super::slices::run_on_slices;
use super::{KernelBackend, Problem, RunKernel, SliceBackend, TensorList, run_once};

impl SliceBackend for NdArray {
    fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        match tensor {
            NdArrayTensor::F32(storage) if storage.view().as_slice().is_none() => {
                let values = storage.into_owned();
                NdArrayTensor::from(values.as_standard_layout().into_owned().into_shared())
            }
            other => other,
        }
    }

    fn copy_to(tensor: &FloatTensor<Self>, target: &mut [f32]) {
        let NdArrayTensor::F32(storage) = tensor else {
            panic!("a kernel was given {tensor:?}, expected f32");
        };
        let view = storage.view();
        let features = view.shape().last().copied().unwrap_or(1).max(1);
        for (target, row) in target.chunks_exact_mut(features).zip(view.rows()) {
            match row.to_slice() {
                Some(row) => target.copy_from_slice(row),
                None => target.iter_mut().zip(row).for_each(|(t, v)| *t = *v),
            }
        }
    }

    fn as_slice(tensor: &FloatTensor<Self>) -> &[f32] {
        match tensor {
            NdArrayTensor::F32(storage) => {
                let view = storage.view();
                view.to_slice().expect("a contiguous tensor")
            }
            other => panic!("a kernel was given {other:?}, expected f32"),
        }
    }

    fn from_values(values: Vec<f32>, shape: &[usize], device: &Self::Device) -> FloatTensor<Self> {
        Self::float_from_data(TensorData::new(values, shape), device)
    }
}

run_on_slices!(NdArray);

impl KernelBackend for NdArray {
    fn run_kernel(tensors: TensorList<Self>, problem: Arc<Problem>) -> FloatTensor<Self> {
        run_once::<Self>(tensors, &problem)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RunKernel>::copied(tensor)
    }
}

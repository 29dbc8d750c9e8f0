//! Tensors of CubeCL.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{KernelBackend, Problem, RunKernel, TensorList, run_once};
use crate::fused::cube::sequence;

impl RunKernel for CubeBackend {
    type Saved = Vec<CubeTensor>;

    fn prepare(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        burn_cubecl::kernel::into_contiguous(tensor)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor.copy()
    }

    fn forward(
        problem: &Arc<Problem>,
        tensors: &[FloatTensor<Self>],
        save: bool,
    ) -> (FloatTensor<Self>, Option<Self::Saved>) {
        let (output, saved) = sequence(problem).forward(tensors, save);
        (output, save.then_some(saved))
    }

    fn backward(
        problem: &Arc<Problem>,
        tensors: &[FloatTensor<Self>],
        saved: &Self::Saved,
        output: &FloatTensor<Self>,
        grad: FloatTensor<Self>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Self>>> {
        sequence(problem).backward(tensors, saved, output, &grad, wanted)
    }
}

impl KernelBackend for CubeBackend {
    fn run_kernel(tensors: TensorList<Self>, problem: Arc<Problem>) -> FloatTensor<Self> {
        run_once::<Self>(tensors, &problem)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RunKernel>::copied(tensor)
    }
}

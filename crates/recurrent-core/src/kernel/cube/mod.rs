//! Kernels for every device of CubeCL: CUDA, ROCm, Metal, Vulkan, WebGPU, and its CPU runtime.
//!
//! ```text
//! lstm/        what runs when: one matrix product and one kernel per step, forward and backward;
//!              all that does not depend on the state is one product over all steps
//! adaptive/    the same for the adaptive LSTM: three of each per step and layer
//! pointwise/   the kernels: from pre-activations to the next state, and the derivative
//! device       what depends on it: units of a cube, and which product
//! fusion       the same behind Burn's fusion: one entry in its queue per call
//! ```
//! Values are f32. Kernels are compiled at run time for what a call has (which masks, peepholes,
//! normalisations), so that nothing absent costs a branch or a read.

pub(super) mod adaptive;
mod buffer;
mod device;
mod fusion;
pub(super) mod lstm;
mod pointwise;
mod product;

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::backend::tensor::FloatTensor;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};

use super::contract::{KernelBackend, RunKernel, SequenceKernel, TensorList, run_once};

/// A [`SequenceKernel`] on tensors of a CubeCL device, all of f32 and row-major.
pub trait CubeSequence: Send + Sync {
    /// The shapes of what a forward keeps.
    fn kept(&self) -> Vec<[usize; 2]>;

    /// Whether a tensor may have a gradient.
    fn differentiable(&self, tensor: usize) -> bool;

    /// The output, flat, and if `keep` what the backward needs.
    fn forward(&self, tensors: &[CubeTensor], keep: bool) -> (CubeTensor, Vec<CubeTensor>);

    /// The gradient of each wanted tensor that may have one, of its own shape.
    ///
    /// # Arguments
    /// * `tensors`, `kept`, `output` - of the forward; none of them is changed
    /// * `grad` - the gradient of the output
    fn backward(
        &self,
        tensors: &[CubeTensor],
        kept: &[CubeTensor],
        output: &CubeTensor,
        grad: &CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>>;
}

/// Storage buffers that the largest kernel binds.
const BINDINGS: u32 = 15;

/// Whether a device can run the kernels: browsers, for one, allow few buffers per kernel.
pub(super) fn is_able(device: &CubeDevice) -> bool {
    device.client().properties().hardware.max_bindings >= BINDINGS
}

/// The kernel's part for these devices.
///
/// # Panics
/// If it has none: [`unfused`](super::unfused) and the cells say so beforehand.
fn of(kernel: &Arc<dyn SequenceKernel>) -> &dyn CubeSequence {
    match kernel.cube() {
        Some(kernel) => kernel,
        None => panic!("{kernel:?} does not run on a device of CubeCL"),
    }
}

impl RunKernel for CubeBackend {
    type Kept = Vec<CubeTensor>;

    fn prepare(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        burn_cubecl::kernel::into_contiguous(tensor)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor.copy()
    }

    fn forward(
        kernel: &Arc<dyn SequenceKernel>,
        tensors: &[FloatTensor<Self>],
        keep: bool,
    ) -> (FloatTensor<Self>, Option<Self::Kept>) {
        let (output, kept) = of(kernel).forward(tensors, keep);
        (output, keep.then_some(kept))
    }

    fn backward(
        kernel: &Arc<dyn SequenceKernel>,
        tensors: &[FloatTensor<Self>],
        kept: &Self::Kept,
        output: &FloatTensor<Self>,
        grad: FloatTensor<Self>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Self>>> {
        of(kernel).backward(tensors, kept, output, &grad, wanted)
    }
}

impl KernelBackend for CubeBackend {
    fn run_kernel(tensors: TensorList<Self>, kernel: Arc<dyn SequenceKernel>) -> FloatTensor<Self> {
        run_once::<Self>(tensors, &kernel)
    }

    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self> {
        <Self as RunKernel>::copied(tensor)
    }
}

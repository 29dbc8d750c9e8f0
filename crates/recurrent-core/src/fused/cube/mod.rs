//! Kernels for every device of CubeCL: CUDA, ROCm, Metal, Vulkan, WebGPU, and its CPU runtime.
//!
//! ```text
//! lstm/        what runs when: one matrix product and one kernel per step, forward and backward;
//!              all that does not depend on the state is one product over all steps
//! adaptive/    the same for the adaptive LSTM: three of each per step and layer
//! pointwise/   the kernels: from pre-activations to the next state, and the derivative
//! device       what depends on it: units of a cube, and which product
//! ```
//! Values are f32. Kernels are compiled at run time for what a call has (which masks, peepholes,
//! normalisations), so that nothing absent costs a branch or a read.

mod adaptive;
mod buffer;
mod device;
mod lstm;
mod pointwise;
mod product;

use alloc::boxed::Box;
use alloc::vec::Vec;

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;

use super::problem::Problem;

/// A sequence on tensors of a CubeCL device, all of f32 and row-major.
pub trait CubeSequence {
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

/// The kernels of a problem.
pub fn sequence(problem: &Problem) -> Box<dyn CubeSequence + '_> {
    match problem {
        Problem::Lstm { problem, which } => Box::new(lstm::Sequence { problem, which }),
        Problem::Adaptive(problem) => Box::new(adaptive::Sequence(problem)),
    }
}

/// Storage buffers that the largest kernel binds.
const BINDINGS: u32 = 15;

/// Whether a device can run the kernels: browsers, for one, allow few buffers per kernel.
pub fn is_able(device: &CubeDevice) -> bool {
    device.client().properties().hardware.max_bindings >= BINDINGS
}

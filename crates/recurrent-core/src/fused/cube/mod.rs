//! Kernels for every device of CubeCL: CUDA, ROCm, Metal, Vulkan, WebGPU, and its CPU runtime.
//!
//! ```text
//! lstm/        the loop over steps of the LSTM family: one matrix product and one kernel per step, forward and
//!              backward; what does not depend on the state is one product over all steps
//! gru/         the same for the GRU; with the reset gate before the product two of each per step
//! adaptive/    the same for the adaptive LSTM: three products and three kernels per step and layer
//! pointwise/   the kernels: from pre-activations to the next state, and the derivative
//! step         the rows of a step
//! buffer       buffers of a call, copies between them
//! product      matrix products
//! device       what depends on the device: how many units a cube has, which product
//! ```
//! Values are f32. Kernels are compiled at run time for the options of a call (which masks, peepholes,
//! normalisations): an option that is off costs no branch and no read. A *cube* is a workgroup (a block of CUDA),
//! a *unit* one of its threads; units read and write vectors of up to four values.

mod adaptive;
mod buffer;
mod device;
mod gru;
mod lstm;
mod pointwise;
mod product;
mod step;

use alloc::boxed::Box;
use alloc::vec::Vec;

use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;

use super::problem::Problem;

/// A sequence on tensors of a CubeCL device, all of f32 and row-major.
pub trait CubeSequence {
    /// The shapes of what a forward saves for the backward.
    fn saved_shapes(&self) -> Vec<[usize; 2]>;

    /// Whether a tensor may have a gradient.
    fn differentiable(&self, tensor: usize) -> bool;

    /// The output, flat, and if `save` what the backward needs.
    fn forward(&self, tensors: &[CubeTensor], save: bool) -> (CubeTensor, Vec<CubeTensor>);

    /// The gradient of each wanted tensor that may have one, of its own shape.
    ///
    /// # Arguments
    /// * `tensors`, `saved`, `output` - of the forward; none of them is changed
    /// * `grad` - the gradient of the output
    fn backward(
        &self,
        tensors: &[CubeTensor],
        saved: &[CubeTensor],
        output: &CubeTensor,
        grad: &CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>>;
}

/// The kernels of a problem.
pub fn sequence(problem: &Problem) -> Box<dyn CubeSequence + '_> {
    match problem {
        Problem::Lstm { problem, which } => Box::new(lstm::Sequence { problem, which }),
        Problem::Gru { problem, which } => Box::new(gru::Sequence { problem, which }),
        Problem::Adaptive(problem) => Box::new(adaptive::Sequence(problem)),
    }
}

/// Storage buffers that the largest kernel binds.
const BINDINGS: u32 = 15;

/// Whether a device can run the kernels. Browsers, for example, allow too few buffers per kernel.
pub fn is_able(device: &CubeDevice) -> bool {
    device.client().properties().hardware.max_bindings >= BINDINGS
}

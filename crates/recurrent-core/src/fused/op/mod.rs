//! A fused sequence as one operation of Burn.
//!
//! ```text
//! lstm, gru, adaptive    a spec and the tensors of a call → a checked problem and a list of tensors;
//!     ↓             afterwards the pieces of the output
//! mod               the operation: a list of tensors in, one flat tensor out, one autodiff node
//!     ↓
//! slices: flex, ndarray      conversion between tensors and slices, for the kernels in `cpu`
//! cubecl, fusion             CubeCL tensors, for the kernels in `cube`; the same with Burn's fusion
//! ```
//! An autodiff node of Burn has one differentiable output. A kernel therefore returns one flat tensor; the
//! problem defines its layout. Derivatives are hand-written.
#![allow(deprecated)] // upstream has deprecated NdArray; it is supported here

mod adaptive;
mod autodiff;
mod call;
#[cfg(feature = "kernel-cube")]
mod cubecl;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "kernel-cube")]
mod fusion;
mod gru;
mod lstm;
#[cfg(feature = "ndarray")]
mod ndarray;
#[cfg(feature = "kernel-cpu")]
mod slices;
mod tensors;

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, BackendTypes, Dispatch, DispatchAutodiffContext, DispatchTensor,
    DispatchTensorKind, ExtensionType, TensorMetadata, backend_extension,
};
use burn::tensor::{Shape, Slice, Tensor};

pub use call::{FusedCall, FusedMask, FusedMasks, FusedOutput, FusedRows};

use super::problem::{FusedSpec, Problem};

/// Whether two calls of this size are faster concurrently on a CPU than one after the other.
///
/// # Arguments
/// * `weights` - number of values that are read at every step
#[cfg(feature = "kernel-cpu")]
pub fn worth_pairing(steps: usize, batch: usize, weights: usize) -> bool {
    super::cpu::driver::worth_pairing(steps, batch, weights)
}

/// Runs two closures concurrently, each with half of the threads.
#[cfg(feature = "kernel-cpu")]
pub fn side_by_side<A: Send, B: Send>(
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    super::cpu::team::side_by_side(first, second)
}

/// Runs a cell over all steps of a call.
///
/// # Panics
/// If the shapes of the tensors do not match, or the device has no kernels.
#[track_caller]
pub fn run(spec: FusedSpec, call: FusedCall) -> FusedOutput {
    match spec {
        FusedSpec::Lstm(spec) => lstm::run(spec, call),
        FusedSpec::Gru(spec) => gru::run(spec, call),
        FusedSpec::Adaptive(spec) => adaptive::run(spec, call),
    }
}

/// Backends that can run kernels: the forward and the backward on the backend's own tensors.
pub trait RunKernel: Backend {
    /// The data that a forward saves for its backward.
    type Saved: Clone + Send + 'static;

    /// The same tensor in the form that kernels read.
    fn prepare(tensor: FloatTensor<Self>) -> FloatTensor<Self>;

    /// A vector of `len` zeros into which the values of a tensor are written from `start` on, in
    /// row-major order.
    fn scatter(tensor: FloatTensor<Self>, start: usize, len: usize) -> FloatTensor<Self> {
        let zeros = Self::float_zeros(Shape::new([len]), &tensor.device(), tensor.dtype().into());
        let count = tensor.shape().num_elements();
        let values = Self::float_reshape(tensor, Shape::new([count]));
        let place = Slice::from(start..start + count);
        Self::float_slice_assign(zeros, &[place], values)
    }

    /// A copy in separate memory, for backends where a slice of a tensor is a view of it.
    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Runs the forward on prepared tensors. Returns the output and, if `save`, the data for the backward.
    fn forward(
        problem: &Arc<Problem>,
        tensors: &[FloatTensor<Self>],
        save: bool,
    ) -> (FloatTensor<Self>, Option<Self::Saved>);

    /// Runs the backward. The gradient of the output is prepared; the other arguments are those of the
    /// forward. Returns the gradient of each wanted tensor.
    fn backward(
        problem: &Arc<Problem>,
        tensors: &[FloatTensor<Self>],
        saved: &Self::Saved,
        output: &FloatTensor<Self>,
        grad: FloatTensor<Self>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<Self>>>;
}

/// Backends that expose their values as slices.
#[cfg(feature = "kernel-cpu")]
pub trait SliceBackend: Backend {
    /// The same tensor, contiguous in row-major order.
    fn contiguous(tensor: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Copies the values of a tensor in row-major order.
    fn copy_to(tensor: &FloatTensor<Self>, target: &mut [f32]);

    /// The values of a contiguous tensor.
    ///
    /// # Panics
    /// If the tensor is not contiguous, or not f32.
    fn as_slice(tensor: &FloatTensor<Self>) -> &[f32];

    /// A tensor from values in row-major order.
    fn from_values(values: Vec<f32>, shape: &[usize], device: &Self::Device) -> FloatTensor<Self>;
}

/// The tensors of a call; their number depends on the kernel.
#[derive(Debug, Clone)]
pub struct TensorList<B: BackendTypes>(pub Vec<FloatTensor<B>>);

// Not derived: the derive supports single tensors only.
impl<B: Backend> ExtensionType<B> for TensorList<B> {
    type Target = TensorList<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor {
            kind: map_kind(BackendTensor::Float(tensor)),
            autodiff,
        };
        TensorList(self.0.into_iter().map(wrap).collect())
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        let unwrap = |tensor| unwrap_kind(tensor).float();
        Self(target.0.into_iter().map(unwrap).collect())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.0.first()
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let contexts = target.0.iter().map(|tensor| tensor.autodiff);
        contexts
            .reduce(DispatchAutodiffContext::merge)
            .unwrap_or_default()
    }
}

/// Backends that run sequence kernels.
#[backend_extension(
    Autodiff,
    Cube: cfg(feature = "kernel-cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray")
)]
pub trait KernelBackend: Backend {
    /// Runs a kernel.
    fn run_kernel(
        #[extension_type] tensors: TensorList<Self>,
        problem: Arc<Problem>,
    ) -> FloatTensor<Self>;

    /// The values of a kernel's output from `start` on, as a tensor of the given shape. Its gradient may
    /// have any strides: it is copied once, into the buffer that the kernel's backward reads.
    ///
    /// The result may be a view, which keeps the kernel's whole output in memory: see [`owned`].
    fn piece(flat: FloatTensor<Self>, start: usize, shape: Shape) -> FloatTensor<Self> {
        let place = Slice::from(start..start + shape.num_elements());
        Self::float_reshape(Self::float_slice(flat, &[place]), shape)
    }

    /// A copy in separate memory.
    fn copied(tensor: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Runs a kernel without saving anything for a backward.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "kernel-cube"))]
fn run_once<B: RunKernel>(tensors: TensorList<B>, problem: &Arc<Problem>) -> FloatTensor<B> {
    let tensors: Vec<_> = tensors.0.into_iter().map(B::prepare).collect();
    B::forward(problem, &tensors, false).0
}

/// Runs a kernel on tensors of any device that has kernels.
///
/// # Panics
/// If the device has none: see [`unfused`](super::device::unfused).
fn run_problem(tensors: Vec<DispatchTensor>, problem: Problem) -> Tensor<1> {
    let tensors = TensorList(tensors);
    let flat = <Dispatch as KernelBackend>::run_kernel(tensors, Arc::new(problem));
    Tensor::from_dispatch(flat)
}

/// A part of the output of [`run_problem`]: the values from `start` on.
///
/// # Panics
/// If fewer values are left than the shape needs.
fn piece<const D: usize>(flat: &Tensor<1>, start: usize, shape: [usize; D]) -> Tensor<D> {
    let flat = flat.clone().into_dispatch();
    let piece = <Dispatch as KernelBackend>::piece(flat, start, Shape::new(shape));
    Tensor::from_dispatch(piece)
}

/// A copy in separate memory: a tensor that outlives a call must not keep the rest of the kernel's
/// output alive.
fn owned<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as KernelBackend>::copied(tensor.into_dispatch()))
}

/// The output of a call, and the values that follow it as a flat tensor. The output is a view if it
/// makes up most of the kernel's output, and a copy otherwise; the rest is a view.
///
/// # Arguments
/// * `flat` - the output of [`run_problem`]
/// * `shape` - of the output, whose values come first
/// * `rest` - number of values that follow: the states
fn output_and_rest(flat: &Tensor<1>, shape: [usize; 3], rest: usize) -> (Tensor<3>, Tensor<1>) {
    let count = shape.iter().product::<usize>();
    let [all] = flat.dims();
    let output = piece(flat, 0, shape);
    let output = match 8 * count < 7 * all {
        true => owned(output),
        false => output,
    };
    (output, piece(flat, count, [rest]))
}

/// The shape of the rows of all steps: `[T, B, features]`, or `[1, N, features]` if the steps have
/// different numbers of rows.
///
/// # Panics
/// If there are no steps.
fn sequence_shape(counts: &[usize], features: usize) -> [usize; 3] {
    match counts.iter().all(|count| *count == counts[0]) {
        true => [counts.len(), counts[0], features],
        false => [1, counts.iter().sum(), features],
    }
}

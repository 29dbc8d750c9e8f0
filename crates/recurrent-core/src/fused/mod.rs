//! Level 3, fused: a whole sequence in one operation, with hand-written gradients.
//!
//! ```text
//! sequence/          asks for a kernel, or runs the composed scan
//!     ↓
//! op/                the operation of Burn: a spec and the tensors of a call in, one autodiff node
//!     ↓
//! cpu/               slices in, slices out: vectors,     cube/    the same for devices of CubeCL:
//!     ↓              panels, threads                       ↓      one kernel per step, generic
//!     ↓                                                    ↓      over the runtime
//! problem/           what a fused sequence is: sizes, options, tensors by name, their shapes
//! ```
//! `device` says which kernels a device runs. The composed scan is the reference; what a kernel may differ
//! in is rounding.

#[cfg(all(feature = "kernel-cpu", not(feature = "eval")))]
pub(crate) mod cpu;
/// Public with the feature `eval` only, for the tests of single kernels.
#[cfg(all(feature = "kernel-cpu", feature = "eval"))]
pub mod cpu;
#[cfg(feature = "kernel-cube")]
mod cube;
pub(crate) mod device;
#[cfg(feature = "kernel")]
pub(crate) mod op;
#[cfg(not(feature = "eval"))]
// Some of it is for one kind of backend alone.
#[cfg_attr(
    not(all(feature = "kernel-cpu", feature = "kernel-cube")),
    allow(dead_code, unused_imports)
)]
pub(crate) mod problem;
/// Public with the feature `eval` only; what a cell's own [`Step::lower`](crate::Step::lower) needs is
/// re-exported.
#[cfg(feature = "eval")]
pub mod problem;

pub use problem::{
    AdaptiveLayerSpec, AdaptiveSpec, Coupling, ForgetBias, FusedSpec, LstmSpec, Peepholes,
    RoundSpec,
};

#[cfg(feature = "kernel-cpu")]
pub use cpu::buffer::release as release_buffers;

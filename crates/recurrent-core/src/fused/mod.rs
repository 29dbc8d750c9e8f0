//! Level 3, fused: a whole sequence in one operation, with hand-written gradients.
//!
//! ```text
//! sequence/          lowers a cell for a kernel, or runs the composed scan
//!     ↓
//! op/                the Burn operation: from a spec and the tensors of a call to one autodiff node
//!     ↓
//! cpu/               on slices: SIMD vectors,            cube/    on CubeCL devices:
//!     ↓              packed panels, threads                ↓      one kernel per step, generic
//!     ↓                                                    ↓      over the runtime
//! problem/           the contract: sizes, options, tensors by name and their shapes
//! ```
//! `device` tells which kernels a device runs. The composed scan is the reference; kernels differ from it
//! only in rounding.

#[cfg(all(feature = "kernel-cpu", not(feature = "eval")))]
pub(crate) mod cpu;
/// Public only with the feature `eval`, for the tests of single kernels.
#[cfg(all(feature = "kernel-cpu", feature = "eval"))]
pub mod cpu;
#[cfg(feature = "kernel-cube")]
mod cube;
pub(crate) mod device;
#[cfg(feature = "kernel")]
pub(crate) mod op;
#[cfg(not(feature = "eval"))]
// Some items are used by only one kind of backend.
#[cfg_attr(
    not(all(feature = "kernel-cpu", feature = "kernel-cube")),
    allow(dead_code, unused_imports)
)]
pub(crate) mod problem;
/// Public only with the feature `eval`. The items that a custom [`Step::lower`](crate::Step::lower) needs
/// are re-exported.
#[cfg(feature = "eval")]
pub mod problem;

pub use problem::{
    AdaptiveLayerSpec, AdaptiveSpec, Coupling, ForgetBias, FusedSpec, GruSpec, LstmSpec, Peepholes,
    RoundSpec,
};

#[cfg(feature = "kernel-cpu")]
pub use cpu::buffer::release as release_buffers;

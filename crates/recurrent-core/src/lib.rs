//! Tensors in, tensors out: the mathematics of LSTM variants and the GRU on [Burn](https://burn.dev).
//!
//! ```text
//! sequence    a step over time: lengths, direction; decides between
//!   ↓    ↘
//! cell     fused      cell: affine maps + equations = one step on borrowed weights
//!   ↓                 fused: all steps in one operation, with hand-written gradients
//! equations           pointwise: gates and cell state, no weights, no time; value and derivative
//! ```
//!
//! A variant has the same file name at every level. Parameters, configs, layers and directions
//! are in the crate `recurrent-modules`, which holds no maths; this crate holds no `Param`.
//!
//! Symbols: I = `d_input`, H = `d_hidden`, B = `batch_size`, T = `seq_length`; σ is the logistic
//! function and ⊙ the elementwise product; rows are samples, so a product reads `x·W`.
//!
//! # Features
//! `std` (default); one feature per Burn backend (`flex`, `ndarray`, `wgpu`, `vulkan`, `metal`,
//! `webgpu`, `cuda`, `rocm`, `cpu`); `eval` for the f64 reference that tests and benches compare with.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod cell;
pub mod dims;
pub mod equations;
#[cfg(feature = "eval")]
pub mod eval;
pub mod fused;
pub mod gates;
mod mixed_types;
pub mod sequence;
pub mod state;

pub use cell::Step;
pub use dims::Dims;
pub use equations::masks::{Mask, MaskPlace, Masks};
pub use fused::device::Target;
pub use fused::problem::{FusedSpec, Precision, Unfused};
pub use gates::{Gate, GateLayout};
pub use sequence::{
    Direction, History, Lengths, LengthsError, PackedOutput, Packing, SequenceOptions,
    SequenceOutput, Strategy,
};
pub use state::{GruState, State};

/// Burn's LSTM state `{ cell, hidden }`, each `[batch_size, d_hidden]`; with a projection the
/// hidden part is `[batch_size, d_proj]`.
pub use burn::nn::LstmState;

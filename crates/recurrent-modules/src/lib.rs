//! LSTM and GRU variants as [Burn](https://burn.dev) modules.
//!
//! | type | equations | paper |
//! |---|---|---|
//! | [`Lstm`] | c' = f⊙c + i⊙g, h' = o⊙tanh(c') | Hochreiter & Schmidhuber 1997; Gers et al. 2000 |
//! | [`SlowLstm`] | the same, one pair of linears per gate | |
//! | [`LayerNormLstm`] | z = LN(x·W) + LN(h·R) + b, h' = o⊙tanh(LN(c')) | Ba et al., arXiv:1607.06450 |
//! | [`CifgLstm`] | i = 1 − f (or f = 1 − i, or i ≤ 1 − f) | Greff et al., arXiv:1503.04069 |
//! | [`PeepholeLstm`] | gates read c: z + v⊙c, o reads c' | Gers & Schmidhuber, IJCNN 2000 |
//! | [`UrLstm`] | c' = e⊙c + (1 − e)⊙g, e = 2rf + (1 − 2r)f² | Gu et al., arXiv:1910.09890 |
//! | [`MogrifierLstm`] | x ← 2σ(h·Q)⊙x, h ← 2σ(x·R)⊙h, then LSTM | Melis et al., arXiv:1909.01792 |
//! | [`AdaptiveLstm`] | z = ((x⊙p_x)·W)⊙p_i + ((h⊙p_h)·R)⊙p_g + b⊙p_b, policy p from a small LSTM | Flennerhag et al., arXiv:1805.08574 |
//! | [`Gru`] | h' = (1 − z)⊙n + z⊙h, n = tanh(x·W + r⊙(h·R)) | Cho et al., arXiv:1406.1078 |
//! | [`GalLstm`], [`LayerNormGalLstm`] | h' = m⊙o⊙tanh(c'), m per sequence | Gal & Ghahramani, arXiv:1512.05287 |
//! | [`MoonLstm`], [`LayerNormMoonLstm`] | c' = m⊙(f⊙c + i⊙g), m per sequence | Moon et al., ASRU 2015 |
//! | [`SemeniutaLstm`], [`LayerNormSemeniutaLstm`] | c' = f⊙c + i⊙(m_t⊙g) | Semeniuta et al., arXiv:1603.05118 |
//! | any, with [`RecurrentDropout::Zoneout`] | units keep their old value | Krueger et al., arXiv:1606.01305 |
//!
//! Each is a [`Stack`] of cells with the same container features: layers of equal or listed sizes,
//! both directions, `reverse`, `batch_first`, lengths, initial state, projection, clip, dropout
//! inside and between layers, weight drop, residual connections, states over time
//! ([`Stack::forward_histories`]), packed batches ([`PackedSequence`]), [`Stack::step`].
//! [`Recurrent`] chooses the variant at run time; its state is a [`RecurrentState`] of named tensors.
//! Fields shared by all configs are in [`SharedConfig`] and [`StackConfig`]. The maths is in
//! [`recurrent_core`].
//!
//! [`import`] reads and writes weights in the layouts of PyTorch, Keras and the original implementations.
//! `Recurrent::save` and `Recurrent::load` store a model together with its config.
//!
//! # Example
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::{Device, Tensor};
//! use recurrent_modules::{LayerNormGalLstm, LayerNormLstmConfig};
//!
//! #[derive(Module, Debug)]
//! struct Tagger {
//!     lstm: LayerNormGalLstm,
//!     head: Linear,
//! }
//!
//! let device = Device::flex();
//! let tagger = Tagger {
//!     lstm: LayerNormLstmConfig::gal(10, 20, 0.3).init(&device),
//!     head: LinearConfig::new(20, 5).init(&device),
//! };
//! let (hidden, _) = tagger.lstm.forward(Tensor::ones([3, 7, 10], &device), None);
//! assert_eq!(tagger.head.forward(hidden).dims(), [3, 7, 5]);
//! ```
//!
//! # Features
//! `std` (default); one per Burn backend (`flex`, `ndarray`, `wgpu`, `vulkan`, `metal`, `webgpu`,
//! `cuda`, `rocm`, `cpu`); `pytorch` reads `.pt` and `.pth` files, `safetensors` reads and writes
//! `.safetensors` files (burnpack files need neither).
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

mod cell;
pub mod cells;
#[cfg(feature = "std")]
mod checkpoint;
mod error;
mod flat;
pub mod import;
mod init;
mod layer;
mod masks;
mod norm;
mod packed;
mod recurrent;
mod stack;
mod state;

pub use cells::{
    AdaptiveLstm, AdaptiveLstmConfig, AdaptiveState, Cell, CifgLstm, CifgLstmConfig, Coupling,
    GalLstm, GateMechanism, Gru, GruConfig, LayerNormConfig, LayerNormGalLstm, LayerNormLstm,
    LayerNormLstmConfig, LayerNormMoonLstm, LayerNormSemeniutaLstm, Lstm, LstmConfig,
    MogrifierLstm, MogrifierLstmConfig, MoonLstm, NormBias, OutputPeephole, PeepholeKind,
    PeepholeLstm, PeepholeLstmConfig, PolicyLayout, SemeniutaLstm, SharedConfig, SlowLstm,
    SlowLstmConfig, UrLstm, UrLstmConfig,
};
#[cfg(feature = "std")]
pub use checkpoint::{CONFIG_FILE, CheckpointError, MODEL_FILE};
pub use error::InvalidConfig;
pub use init::{GateInit, WeightInit};
pub use layer::Layer;
pub use masks::{Mask, Masks, RecurrentDropout, StackMasks};
pub use norm::{EpsilonPlace, Norm, NormConfig, Variance};
pub use packed::{PackError, PackedSequence};
pub use recurrent::{Recurrent, RecurrentConfig};
pub use recurrent_core::equations::dropout::{StepMasks, apply as apply_mask};
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub use recurrent_core::fused::release_buffers;
pub use recurrent_core::{
    Gate, GateLayout, History, Lengths, LengthsError, Precision, Step, Strategy, Unfused,
};
pub use stack::{ForwardOptions, Stack, StackConfig};
pub use state::{GruState, LstmState, NamedState, RecurrentState, StackState, State};

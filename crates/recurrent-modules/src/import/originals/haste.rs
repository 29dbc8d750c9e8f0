//! `haste_pytorch.LSTM` of lmnt-com/haste.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `kernel` | `[I, 4·H]` | `weight_input` |
//! | `recurrent_kernel` | `[H, 4·H]` | `weight_hidden` |
//! | `bias` | `[4·H]` | `bias` |
//!
//! Gate order: input, candidate, forget, output. It has one bias, as we do. Dropout and zoneout
//! are settings and not in the file. `LayerNormLSTM` is not supported.
//!
//! The layout names one layer at a time. For a stack, load each cell from its own prefix:
//! `stack.layers[i].forward = load(&Haste, cell, &file.under(prefix)?)?`.

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::{one_layer, plain};
use crate::Lstm;
use crate::cells::{LstmCell, LstmConfig};
use crate::import::{ImportError, Layout, Mapping, Tensors, load};

/// The layout of `haste_pytorch.LSTM` of lmnt-com/haste.
#[derive(Debug, Clone, Copy, Default)]
pub struct Haste;

impl Layout<LstmCell> for Haste {
    fn mapping(&self, module: &LstmCell) -> Result<Mapping, ImportError> {
        plain::mapping("haste", module, GateLayout::HASTE)
    }
}

impl Layout<Lstm> for Haste {
    fn mapping(&self, module: &Lstm) -> Result<Mapping, ImportError> {
        one_layer("haste", self, module)
    }
}

/// Sizes and biases.
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    plain::config(file)
}

/// One layer; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(file: &Tensors, device: &Device) -> Result<Lstm, ImportError> {
    load(&Haste, plain::stack(file, device)?, file)
}

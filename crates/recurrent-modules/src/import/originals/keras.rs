//! `keras.layers.LSTM`.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `kernel` | `[I, 4·H]` | `weight_input` |
//! | `recurrent_kernel` | `[H, 4·H]` | `weight_hidden` |
//! | `bias` | `[4·H]` | `bias` |
//!
//! Order of the gates: input, forget, candidate (`c`), output: ours. Its one bias is ours. Keras before
//! 2.3 computed the gates with `hard_sigmoid` by default; such weights load, and give other numbers
//! here.
//!
//! The layout names one layer at a time. For a stack, load each cell from its own prefix:
//! `stack.layers[i].forward = load(&Keras, cell, &file.under(prefix)?)?`.

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::{one_layer, plain};
use crate::Lstm;
use crate::cells::{LstmCell, LstmConfig};
use crate::import::{ImportError, Layout, Mapping, Tensors, load};

/// The layout of `keras.layers.LSTM`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keras;

impl Layout<LstmCell> for Keras {
    fn mapping(&self, module: &LstmCell) -> Result<Mapping, ImportError> {
        plain::mapping("Keras", module, GateLayout::LSTM)
    }
}

impl Layout<Lstm> for Keras {
    fn mapping(&self, module: &Lstm) -> Result<Mapping, ImportError> {
        one_layer("Keras", self, module)
    }
}

/// Sizes and biases.
///
/// # Errors
/// If a name is missing or a shape makes no sense.
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    plain::config(file)
}

/// One layer, its sizes found from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(file: &Tensors, device: &Device) -> Result<Lstm, ImportError> {
    load(&Keras, plain::stack(file, device)?, file)
}

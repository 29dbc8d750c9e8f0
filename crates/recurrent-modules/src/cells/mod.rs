//! Level 2 with parameters: one step of each variant as a Burn module.
//!
//! A cell holds parameters. For each call it passes them to the cell of the same name in
//! [`recurrent_core::cell`]. Layers, directions and lengths use it through the trait [`Cell`] only.

mod adaptive;
mod cifg;
pub(crate) mod config;
mod gru;
mod layer_norm;
mod lstm;
mod mogrifier;
mod parts;
mod peephole;
mod slow;
mod ur;

use recurrent_core::{Gate, GateLayout};

pub use adaptive::*;
pub use cifg::*;
pub use config::{SharedConfig, VariantConfig};
pub use gru::*;
pub use layer_norm::*;
pub use lstm::*;
pub use mogrifier::*;
pub use parts::*;
pub use peephole::*;
pub use slow::*;
pub use ur::*;

pub use crate::cell::{Cell, StateOf};

use crate::error::{InvalidConfig, check_positive, check_size};
use crate::init::WeightInit;

/// The options that every cell has.
#[derive(Debug, Clone, PartialEq)]
pub struct CellOptions {
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Size of the projected hidden state.
    pub d_proj: Option<usize>,
    /// Whether there are biases.
    pub bias: bool,
    /// Bound of the cell state.
    pub clip: Option<f64>,
    /// Layer normalisation.
    pub layer_norm: Option<LayerNormConfig>,
    /// Initial values.
    pub init: WeightInit,
}

impl CellOptions {
    /// # Errors
    /// If a size is 0, `d_proj` is not smaller than `d_hidden`, `clip` is not positive, a forget
    /// bias is given without biases or without a forget gate in `layout`, a normalisation does not
    /// fit, or the initial values are invalid.
    pub fn validate_for(&self, layout: GateLayout) -> Result<(), InvalidConfig> {
        check_size("d_input", self.d_input)?;
        check_size("d_hidden", self.d_hidden)?;
        if let Some(d_proj) = self.d_proj {
            check_size("d_proj", d_proj)?;
            if d_proj >= self.d_hidden {
                return Err(InvalidConfig::value(
                    "d_proj",
                    d_proj,
                    alloc::format!("less than d_hidden = {}", self.d_hidden),
                ));
            }
        }
        if let Some(clip) = self.clip {
            check_positive("clip", clip)?;
        }
        if !self.bias && self.init.forget_bias.is_some() {
            return Err(InvalidConfig::contradiction(
                "bias",
                "forget_bias",
                "without biases there is none to set",
            ));
        }
        if layout.slot(Gate::Forget).is_none() && self.init.forget_bias.is_some() {
            return Err(InvalidConfig::contradiction(
                "coupling",
                "forget_bias",
                "the forget gate has no weights of its own, and no bias to set",
            ));
        }
        if let Some(layer_norm) = &self.layer_norm {
            layer_norm.validate_for(layout.len(), self.d_hidden)?;
        }
        self.init.validate()
    }

    /// Features of the hidden state.
    pub fn d_output(&self) -> usize {
        self.d_proj.unwrap_or(self.d_hidden)
    }
}

/// `step` of a bare cell, the same for each type.
macro_rules! cell_step {
    ($Cell:ident) => {
        impl $Cell {
            /// One step without dropout: `(y_t, s_t) = step(x_t, s_{t−1})`.
            ///
            /// # Shapes
            /// - input `[batch_size, d_input]`; output `[batch_size, d_output]`
            /// - state: zeros where `None`
            ///
            /// # Panics
            /// If the last axis of `input` is not `d_input`, or the state has other sizes.
            #[track_caller]
            pub fn step(
                &self,
                input: burn::tensor::Tensor<2>,
                state: Option<$crate::cell::StateOf<Self>>,
            ) -> (burn::tensor::Tensor<2>, $crate::cell::StateOf<Self>) {
                $crate::cell::step(self, input, state, &Default::default())
            }
        }
    };
}
use cell_step;

/// The sizes of a cell that keeps them in fields.
macro_rules! cell_sizes {
    () => {
        fn d_input(&self) -> usize {
            self.d_input
        }

        fn d_hidden(&self) -> usize {
            self.d_hidden
        }

        fn d_output(&self) -> usize {
            self.d_output
        }
    };
}
use cell_sizes;

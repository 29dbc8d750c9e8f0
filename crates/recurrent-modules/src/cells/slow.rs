//! The LSTM cell with one pair of linears per gate. Equations: [`recurrent_core::cell::slow`].

use burn::module::{Module, Param};
use burn::nn::{GateController, Linear};
use burn::tensor::{Device, Tensor};
use recurrent_core::cell as steps;
use recurrent_core::cell::slow::GateMaps;
use recurrent_core::{Gate, GateLayout};

use super::{Cell, CellOptions, affine, cell_step, transition};
use crate::config::variant_config;
use crate::error::InvalidConfig;
use crate::init::{packed_bias, packed_weight};
use crate::stack::Stack;

/// The LSTM with one pair of linears per gate: layers of [`SlowLstmCell`], created with
/// [`SlowLstmConfig`].
///
/// Same equations and, with the same weights, same numbers as [`Lstm`](crate::Lstm); slower, and
/// easier to read and to load per-gate weights into.
pub type SlowLstm = Stack<SlowLstmCell>;

variant_config! {
    /// Configuration of [`SlowLstm`].
    pub struct SlowLstmConfig => SlowLstm of SlowLstmCell {}
}

impl SlowLstmConfig {
    fn validate_variant(&self, _d_hidden: usize) -> Result<(), InvalidConfig> {
        Ok(())
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> SlowLstmCell {
        SlowLstmCell::new(options, device)
    }
}

/// One LSTM step, a pair of linears per gate: the readable twin of [`LstmCell`](super::LstmCell).
///
/// The gates are burn-nn's own type; the bias is that of `input_transform`, `hidden_transform` has
/// none.
#[derive(Module, Debug)]
pub struct SlowLstmCell {
    /// i
    pub input_gate: GateController,
    /// f
    pub forget_gate: GateController,
    /// g
    pub cell_gate: GateController,
    /// o
    pub output_gate: GateController,
    /// P `[d_hidden, d_proj]`
    pub projection: Option<Param<Tensor<2>>>,
    /// Bound of the cell state.
    pub clip: Option<f64>,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(SlowLstmCell);

impl SlowLstmCell {
    fn new(options: &CellOptions, device: &Device) -> Self {
        let (d_input, d_hidden) = (options.d_input, options.d_hidden);
        let init = &options.init;
        let one = GateLayout::PLAIN;
        let gate = |gate: Gate| {
            let forget_bias = init.forget_bias.filter(|_| gate == Gate::Forget);
            let bias = match forget_bias {
                Some(value) => Some(burn::nn::Initializer::Constant { value }),
                None => init.bias.clone(),
            };
            GateController {
                input_transform: Linear {
                    weight: packed_weight(one, d_input, d_hidden, &init.input, device),
                    bias: options
                        .bias
                        .then(|| packed_bias(one, d_hidden, &bias, None, device)),
                },
                hidden_transform: Linear {
                    weight: packed_weight(one, options.d_output(), d_hidden, &init.hidden, device),
                    bias: None,
                },
            }
        };
        Self {
            input_gate: gate(Gate::Input),
            forget_gate: gate(Gate::Forget),
            cell_gate: gate(Gate::Candidate),
            output_gate: gate(Gate::Output),
            projection: options.projection(device),
            clip: options.clip,
            d_input,
            d_hidden,
            d_output: options.d_output(),
        }
    }
}

impl Cell for SlowLstmCell {
    type Step = steps::slow::SlowLstmCell;

    fn bind(&self) -> Self::Step {
        let maps = |gate: &GateController| GateMaps {
            input: affine(&gate.input_transform.weight, &gate.input_transform.bias),
            hidden: affine(&gate.hidden_transform.weight, &gate.hidden_transform.bias),
        };
        steps::slow::SlowLstmCell {
            input_gate: maps(&self.input_gate),
            forget_gate: maps(&self.forget_gate),
            cell_gate: maps(&self.cell_gate),
            output_gate: maps(&self.output_gate),
            transition: transition(self.clip, &self.projection),
        }
    }

    fn d_input(&self) -> usize {
        self.d_input
    }

    fn d_hidden(&self) -> usize {
        self.d_hidden
    }

    fn d_output(&self) -> usize {
        self.d_output
    }
}

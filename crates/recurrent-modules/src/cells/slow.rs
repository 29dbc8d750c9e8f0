//! The LSTM cell with one pair of linears per gate. Equations: [`recurrent_core::cell::slow`].

use burn::module::{Module, Param};
use burn::nn::{GateController, Linear};
use burn::tensor::Device;
use recurrent_core::cell as steps;
use recurrent_core::cell::Affine;
use recurrent_core::cell::slow::GateMaps;
use recurrent_core::{Gate, GateLayout};

use super::config::{bare_cell_methods, config_methods, dropout_methods};
use super::{Cell, CellOptions, SharedConfig, StateUpdate, VariantConfig, cell_sizes, cell_step};
use crate::flat::flat_config;
use crate::init::{packed_bias, packed_weight};
use crate::stack::Stack;

/// The LSTM with one pair of linears per gate: layers of [`SlowLstmCell`], created with
/// [`SlowLstmConfig`].
///
/// It computes the same as [`Lstm`](crate::Lstm). It is slower, but easier to read, and its weights are
/// stored per gate.
pub type SlowLstm = Stack<SlowLstmCell>;

flat_config! {
    /// Configuration of [`SlowLstm`].
    pub struct SlowLstmConfig: shared: SharedConfig {}
}

config_methods!(SlowLstmConfig => SlowLstm);
bare_cell_methods!(SlowLstmConfig => SlowLstmCell);
dropout_methods!(SlowLstmConfig);

impl VariantConfig for SlowLstmConfig {
    const NAME: &'static str = "SlowLstmConfig";
    type Cell = SlowLstmCell;

    fn layout(&self) -> GateLayout {
        GateLayout::LSTM
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> SlowLstmCell {
        SlowLstmCell::new(options, device)
    }

    fn of_cell(cell: &SlowLstmCell) -> Self {
        let bias = cell.input_gate.input_transform.bias.is_some();
        Self {
            shared: SharedConfig::of_cell(cell, bias, &cell.update),
        }
    }
}

/// One LSTM step with a pair of linears per gate: a readable version of [`LstmCell`](super::LstmCell).
///
/// The gates have burn-nn's type. The bias is that of `input_transform`; `hidden_transform` has
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
    /// Clip, cell normalisation and projection.
    pub update: StateUpdate,
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
            let constant = init.forget_bias.filter(|_| gate == Gate::Forget);
            let constant = constant.map(|value| burn::nn::Initializer::Constant { value });
            let bias = constant.or_else(|| init.bias.clone());
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
            update: StateUpdate::new(options, device),
            d_input,
            d_hidden,
            d_output: options.d_output(),
        }
    }
}

impl Cell for SlowLstmCell {
    type Step = steps::slow::SlowLstmStep;

    fn bind(&self) -> Self::Step {
        let affine = |linear: &Linear| Affine {
            weight: linear.weight.val(),
            bias: linear.bias.as_ref().map(Param::val),
        };
        let maps = |gate: &GateController| GateMaps {
            input: affine(&gate.input_transform),
            hidden: affine(&gate.hidden_transform),
        };
        steps::slow::SlowLstmStep {
            input_gate: maps(&self.input_gate),
            forget_gate: maps(&self.forget_gate),
            cell_gate: maps(&self.cell_gate),
            output_gate: maps(&self.output_gate),
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

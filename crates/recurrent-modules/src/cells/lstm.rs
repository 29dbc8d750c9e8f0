//! The LSTM cell with packed gates. Equations: [`recurrent_core::equations::lstm`].

use burn::module::Module;
use burn::tensor::Device;
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;

use super::config::{bare_cell_methods, config_methods, dropout_methods};
use super::{
    Cell, CellOptions, GateWeights, SharedConfig, StateUpdate, VariantConfig, cell_sizes, cell_step,
};
use crate::error::InvalidConfig;
use crate::flat::flat_config;
use crate::init::GateInit;
use crate::stack::Stack;

/// The LSTM: layers of [`LstmCell`], created with [`LstmConfig`].
///
/// ```text
/// i = σ(x·W_i + h·R_i + b_i)      f = σ(x·W_f + h·R_f + b_f)
/// g = tanh(x·W_g + h·R_g + b_g)   o = σ(x·W_o + h·R_o + b_o)
/// c' = f ⊙ c + i ⊙ g              h' = o ⊙ tanh(c')
/// ```
/// Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::LstmConfig;
///
/// let device = Device::flex();
/// let lstm = LstmConfig::new(10, 20)
///     .with_num_layers(2)
///     .with_bidirectional(true)
///     .with_forget_bias(Some(1.0))
///     .init(&device);
/// let x = Tensor::<3>::ones([3, 7, 10], &device);     // [batch, time, features]
/// let (out, state) = lstm.forward(x, None);
/// assert_eq!(out.dims(), [3, 7, 2 * 20]);
/// assert_eq!(state.into_stacked().hidden.dims(), [2 * 2, 3, 20]);
/// ```
pub type Lstm = Stack<LstmCell>;

/// [`Lstm`] with Gal & Ghahramani's dropout, see [`LstmConfig::gal`].
pub type GalLstm = Lstm;

/// [`Lstm`] with Moon et al.'s dropout, see [`LstmConfig::moon`].
pub type MoonLstm = Lstm;

/// [`Lstm`] with Semeniuta et al.'s dropout, see [`LstmConfig::semeniuta`].
pub type SemeniutaLstm = Lstm;

flat_config! {
    /// Configuration of [`Lstm`].
    pub struct LstmConfig: shared: SharedConfig {
        /// Distribution of the forget gate's initial bias, instead of one value (`forget_bias`):
        /// [`GateInit::Uniform`] makes a U-LSTM, [`GateInit::Chrono`] a chrono LSTM.
        pub gate_init: Option<GateInit> = None => with_gate_init,
    }
}

config_methods!(LstmConfig => Lstm);
bare_cell_methods!(LstmConfig => LstmCell);
dropout_methods!(LstmConfig);

impl VariantConfig for LstmConfig {
    const NAME: &'static str = "LstmConfig";
    type Cell = LstmCell;

    fn layout(&self) -> GateLayout {
        GateLayout::LSTM
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> LstmCell {
        LstmCell {
            gates: GateWeights::new(self.layout(), options, device),
            update: StateUpdate::new(options, device),
            d_input: options.d_input,
            d_hidden: options.d_hidden,
            d_output: options.d_output(),
        }
    }

    fn of_cell(cell: &LstmCell) -> Self {
        Self {
            shared: SharedConfig::of_cell(cell, cell.gates.has_bias(), &cell.update),
            gate_init: None,
        }
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        if self.gate_init.is_some() && !self.bias {
            return Err(InvalidConfig::contradiction(
                "bias",
                "gate_init",
                "without biases there is none to set",
            ));
        }
        Ok(())
    }

    fn cell_options(&self, d_input: usize, d_hidden: usize) -> CellOptions {
        let mut options = self.shared.cell_options(d_input, d_hidden);
        options.init.gate_init = self.gate_init;
        options
    }
}

/// One LSTM step; gates packed in the order input, forget, candidate, output.
#[derive(Module, Debug)]
pub struct LstmCell {
    /// W, R and b of the four gates.
    pub gates: GateWeights,
    /// Clip, cell normalisation and projection.
    pub update: StateUpdate,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(LstmCell);

impl Cell for LstmCell {
    type Step = steps::lstm::LstmStep;

    fn bind(&self) -> Self::Step {
        steps::lstm::LstmStep {
            preact: self.gates.bind(),
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

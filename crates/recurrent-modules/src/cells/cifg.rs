//! The LSTM cell with coupled gates. Equations: [`recurrent_core::equations::cifg`].

use burn::module::Module;
use burn::tensor::Device;
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;
pub use recurrent_core::equations::cifg::Coupling;

use super::config::{bare_cell_methods, config_methods, dropout_methods};
use super::{
    Cell, CellOptions, GateWeights, LayerNormConfig, SharedConfig, StateUpdate, VariantConfig,
    cell_sizes, cell_step,
};
use crate::error::InvalidConfig;
use crate::flat::flat_config;
use crate::stack::Stack;

/// The LSTM with coupled input and forget gates (CIFG): layers of [`CifgLstmCell`], created with
/// [`CifgLstmConfig`].
///
/// ```text
/// f = σ(z_f)   i = 1 − f                    Coupling::InputFromForget (default)
/// i = σ(z_i)   f = 1 − i                    Coupling::ForgetFromInput (burn-nn, ONNX)
/// f = σ(z_f)   i = min(σ(z_i), 1 − f)       Coupling::CappedInput (lamb)
/// c' = f ⊙ c + i ⊙ g                        h' = o ⊙ tanh(c')
/// ```
/// Greff et al., LSTM: A Search Space Odyssey, arXiv:1503.04069.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::{CifgLstmConfig, Coupling};
///
/// let device = Device::flex();
/// let lstm = CifgLstmConfig::new(10, 20)
///     .with_coupling(Coupling::ForgetFromInput)
///     .init(&device);
/// let (out, _) = lstm.forward(Tensor::<3>::ones([3, 7, 10], &device), None);
/// assert_eq!(out.dims(), [3, 7, 20]);
/// ```
pub type CifgLstm = Stack<CifgLstmCell>;

flat_config! {
    /// Configuration of [`CifgLstm`].
    pub struct CifgLstmConfig: shared: SharedConfig {
        /// How the input and forget gates depend on each other.
        pub coupling: Coupling = Coupling::InputFromForget => with_coupling,
        /// Layer normalisation; none by default.
        pub layer_norm: Option<LayerNormConfig> = None => with_layer_norm,
    }
}

config_methods!(CifgLstmConfig => CifgLstm);
bare_cell_methods!(CifgLstmConfig => CifgLstmCell);
dropout_methods!(CifgLstmConfig);

impl VariantConfig for CifgLstmConfig {
    const NAME: &'static str = "CifgLstmConfig";
    type Cell = CifgLstmCell;

    fn layout(&self) -> GateLayout {
        self.coupling.layout()
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> CifgLstmCell {
        CifgLstmCell {
            gates: GateWeights::new(self.layout(), options, device),
            update: StateUpdate::new(options, device),
            coupling: self.coupling,
            d_input: options.d_input,
            d_hidden: options.d_hidden,
            d_output: options.d_output(),
        }
    }

    fn of_cell(cell: &CifgLstmCell) -> Self {
        Self {
            shared: SharedConfig::of_cell(cell, cell.gates.has_bias(), &cell.update),
            coupling: cell.coupling,
            layer_norm: LayerNormConfig::of(&cell.gates, &cell.update),
        }
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        if self.coupling == Coupling::Independent {
            return Err(InvalidConfig::value(
                "coupling",
                "Independent",
                "a coupling of the gates; without one use LstmConfig",
            ));
        }
        Ok(())
    }

    fn layer_norm(&self) -> Option<LayerNormConfig> {
        self.layer_norm.clone()
    }
}

/// One LSTM step with coupled gates, packed in the order of [`Coupling::layout`].
#[derive(Module, Debug)]
pub struct CifgLstmCell {
    /// W, R and b of the gates.
    pub gates: GateWeights,
    /// Clip, cell normalisation and projection.
    pub update: StateUpdate,
    /// How the input and forget gates depend on each other.
    #[module(skip)]
    pub coupling: Coupling,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(CifgLstmCell);

impl Cell for CifgLstmCell {
    type Step = steps::cifg::CifgLstmStep;

    fn bind(&self) -> Self::Step {
        steps::cifg::CifgLstmStep {
            preact: self.gates.bind(),
            coupling: self.coupling,
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

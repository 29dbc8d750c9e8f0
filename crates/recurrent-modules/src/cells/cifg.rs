//! The LSTM cell with coupled gates. Equations: [`recurrent_core::equations::cifg`].

use burn::module::Module;
use burn::tensor::Device;
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;
pub use recurrent_core::equations::cifg::Coupling;

use super::config::variant_config;
use super::{Cell, CellOptions, GateWeights, LayerNormConfig, StateUpdate, cell_sizes, cell_step};
use crate::error::InvalidConfig;
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

variant_config! {
    /// Configuration of [`CifgLstm`].
    pub struct CifgLstmConfig => CifgLstm of CifgLstmCell {
        /// How the input and forget gates depend on each other.
        #[config(default = "Coupling::InputFromForget")]
        pub coupling: Coupling,
        /// Layer normalisation; none by default.
        pub layer_norm: Option<LayerNormConfig>,
    }
}

impl CifgLstmConfig {
    fn validate_variant(&self, _options: &CellOptions) -> Result<(), InvalidConfig> {
        if self.coupling == Coupling::Independent {
            return Err(InvalidConfig::value(
                "coupling",
                "Independent",
                "a coupling of the gates; without one use LstmConfig",
            ));
        }
        Ok(())
    }

    fn with_own_of(self, cell: &CifgLstmCell) -> Self {
        self.with_bias(cell.gates.has_bias())
            .with_coupling(cell.coupling)
            .with_layer_norm(LayerNormConfig::of(&cell.gates, &cell.update))
    }

    fn layer_norm_config(&self) -> Option<LayerNormConfig> {
        self.layer_norm.clone()
    }

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
}

/// One LSTM step with coupled gates, packed in the order of [`Coupling::layout`].
#[derive(Module, Debug)]
pub struct CifgLstmCell {
    /// W, R and b of the gates.
    pub gates: GateWeights,
    /// What follows the gates.
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
    type Step = steps::cifg::CifgLstmCell;

    fn bind(&self) -> Self::Step {
        steps::cifg::CifgLstmCell {
            preact: self.gates.bind(),
            coupling: self.coupling,
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

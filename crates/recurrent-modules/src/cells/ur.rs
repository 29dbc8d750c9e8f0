//! The UR-LSTM cell and its gate family. Equations: [`recurrent_core::equations::ur`].

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;
pub use recurrent_core::cell::ur::GateMechanism;

use super::config::{bare_cell_methods, config_methods, dropout_methods};
use super::{
    Cell, CellOptions, GateWeights, LayerNormConfig, SharedConfig, StateUpdate, VariantConfig,
    cell_sizes, cell_step,
};
use crate::error::InvalidConfig;
use crate::flat::flat_config;
use crate::init::{GateInit, gate_bias};
use crate::stack::Stack;

/// UR-LSTM: layers of [`UrLstmCell`], created with [`UrLstmConfig`].
///
/// ```text
/// f = σ(z_f + b)   r = σ(z_r − b)   g = tanh(z_g)   o = σ(z_o)
/// e = r ⊙ (1 − (1 − f)²) + (1 − r) ⊙ f²
/// c' = e ⊙ c + (1 − e) ⊙ g          h' = o ⊙ tanh(c')
/// ```
/// with b from the uniform gate initialisation, b = −log(1/u − 1), u ~ U[1/H, 1 − 1/H].
/// Gu et al., Improving the Gating Mechanism of Recurrent Neural Networks, arXiv:1910.09890.
///
/// Its ablations: [`UrLstmConfig::refine_only`] (R), [`UrLstmConfig::uniform_only`] (U, with tied
/// gates), [`UrLstmConfig::ordered`] (master gates), and any [`GateInit`]. U-LSTM with its own
/// input gate is [`LstmConfig`](crate::LstmConfig) with `gate_init`.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::UrLstmConfig;
///
/// let device = Device::flex();
/// let lstm = UrLstmConfig::new(10, 20).with_num_layers(2).with_dropout(0.5).init(&device);
/// let (out, _) = lstm.forward(Tensor::<3>::ones([3, 7, 10], &device), None);
/// assert_eq!(out.dims(), [3, 7, 20]);
/// ```
pub type UrLstm = Stack<UrLstmCell>;

flat_config! {
    /// Configuration of [`UrLstm`].
    pub struct UrLstmConfig: shared: SharedConfig {
        /// How the weight of the old cell state is computed.
        pub mechanism: GateMechanism = GateMechanism::Refine => with_mechanism,
        /// Initialisation of b. With fewer than 3 units the range of the uniform gate initialisation is
        /// empty or a point: b = 0.
        pub gate_init: GateInit = GateInit::Uniform => with_gate_init,
        /// Whether b is learnt (r0mainK/ur-lstm) or fixed (the authors' later code).
        pub trainable_forget_bias: bool = true => with_trainable_forget_bias,
        /// Whether the refine gate gets −b.
        pub tied: bool = true => with_tied,
        /// Layer normalisation; none by default.
        pub layer_norm: Option<LayerNormConfig> = None => with_layer_norm,
    }
}

config_methods!(UrLstmConfig => UrLstm);
bare_cell_methods!(UrLstmConfig => UrLstmCell);
dropout_methods!(UrLstmConfig);

impl UrLstmConfig {
    /// R: the refine gate with b = 0 at the start.
    pub fn refine_only(d_input: usize, d_hidden: usize) -> Self {
        Self::new(d_input, d_hidden).with_gate_init(GateInit::Constant { value: 0.0 })
    }

    /// U: the uniform gate initialisation without a refine gate, i = 1 − f.
    pub fn uniform_only(d_input: usize, d_hidden: usize) -> Self {
        Self::new(d_input, d_hidden).with_mechanism(GateMechanism::Standard)
    }

    /// Ordered neurons: master gates by cumax (Shen et al., arXiv:1810.09536), b = 0.
    pub fn ordered(d_input: usize, d_hidden: usize) -> Self {
        Self::new(d_input, d_hidden)
            .with_mechanism(GateMechanism::Master)
            .with_gate_init(GateInit::Constant { value: 0.0 })
    }
}

impl VariantConfig for UrLstmConfig {
    const NAME: &'static str = "UrLstmConfig";
    type Cell = UrLstmCell;

    fn layout(&self) -> GateLayout {
        self.mechanism.layout()
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> UrLstmCell {
        let trainable = self.trainable_forget_bias;
        UrLstmCell {
            gates: GateWeights::new(self.layout(), options, device),
            forget_bias: gate_bias(options.d_hidden, self.gate_init, trainable, device),
            update: StateUpdate::new(options, device),
            mechanism: self.mechanism,
            tied: self.tied,
            trainable_forget_bias: trainable,
            d_input: options.d_input,
            d_hidden: options.d_hidden,
            d_output: options.d_output(),
        }
    }

    fn of_cell(cell: &UrLstmCell) -> Self {
        Self {
            shared: SharedConfig::of_cell(cell, cell.gates.has_bias(), &cell.update),
            mechanism: cell.mechanism,
            gate_init: GateInit::Uniform, // the default: a cell does not show it
            trainable_forget_bias: cell.trainable_forget_bias,
            tied: cell.tied,
            layer_norm: LayerNormConfig::of(&cell.gates, &cell.update),
        }
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        self.gate_init.validate()
    }

    fn layer_norm(&self) -> Option<LayerNormConfig> {
        self.layer_norm.clone()
    }
}

/// One UR-LSTM step; gates packed in the order of [`GateMechanism::layout`].
#[derive(Module, Debug)]
pub struct UrLstmCell {
    /// W, R and b of the gates.
    pub gates: GateWeights,
    /// b `[d_hidden]` of the forget and refine gates.
    pub forget_bias: Param<Tensor<1>>,
    /// Clip, cell normalisation and projection.
    pub update: StateUpdate,
    /// How the weight of the old cell state is computed.
    #[module(skip)]
    pub mechanism: GateMechanism,
    /// Whether the refine gate gets −b.
    pub tied: bool,
    /// Whether b is learnt. Stored here because `forget_bias` does not show it on a plain device.
    pub trainable_forget_bias: bool,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(UrLstmCell);

impl Cell for UrLstmCell {
    type Step = steps::ur::UrLstmStep;

    fn bind(&self) -> Self::Step {
        steps::ur::UrLstmStep {
            preact: self.gates.bind(),
            mechanism: self.mechanism,
            forget_bias: self.forget_bias.val(),
            tied: self.tied,
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

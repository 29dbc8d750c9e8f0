//! The layer-normalised LSTM cell. Equations: [`recurrent_core::cell::Preactivation`].

use burn::module::Module;
use burn::tensor::Device;
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;

use super::config::variant_config;
use super::{
    Cell, CellOptions, GateWeights, LayerNormConfig, NormBias, StateUpdate, cell_sizes, cell_step,
};
use crate::error::InvalidConfig;
use crate::norm::NormConfig;
use crate::stack::Stack;

/// The layer-normalised LSTM: layers of [`LayerNormLstmCell`], created with
/// [`LayerNormLstmConfig`].
///
/// ```text
/// z = LN_x(x·W) + LN_h(h·R) + b       gates from z as in Lstm
/// c' = f ⊙ c + i ⊙ g                  h' = o ⊙ tanh(LN_c(c'))
/// ```
/// Ba, Kiros & Hinton, arXiv:1607.06450. The stored cell is c', not LN_c(c'), unless
/// `carry_normalized` is set as in lstms.pth ([`LayerNormLstmConfig::lstms_pth`]).
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::LayerNormLstmConfig;
///
/// let device = Device::flex();
/// let lstm = LayerNormLstmConfig::gal(10, 20, 0.3).init(&device);
/// let (out, _) = lstm.forward(Tensor::<3>::ones([3, 7, 10], &device), None);
/// assert_eq!(out.dims(), [3, 7, 20]);
/// ```
pub type LayerNormLstm = Stack<LayerNormLstmCell>;

/// [`LayerNormLstm`] with Gal & Ghahramani's dropout, see [`LayerNormLstmConfig::gal`].
pub type LayerNormGalLstm = LayerNormLstm;

/// [`LayerNormLstm`] with Moon et al.'s dropout, see [`LayerNormLstmConfig::moon`].
pub type LayerNormMoonLstm = LayerNormLstm;

/// [`LayerNormLstm`] with Semeniuta et al.'s dropout, see [`LayerNormLstmConfig::semeniuta`].
pub type LayerNormSemeniutaLstm = LayerNormLstm;

variant_config! {
    /// Configuration of [`LayerNormLstm`].
    ///
    /// By default all three normalisations of Ba et al., in the form of `torch.nn.LayerNorm`.
    pub struct LayerNormLstmConfig => LayerNormLstm of LayerNormLstmCell {
        /// LN_x over the 4·d_hidden projected inputs.
        #[config(default = "Some(NormConfig::new())")]
        pub norm_input: Option<NormConfig>,
        /// LN_h over the 4·d_hidden recurrent pre-activations.
        #[config(default = "Some(NormConfig::new())")]
        pub norm_hidden: Option<NormConfig>,
        /// LN_c over the cell, after a Moon mask and before tanh.
        #[config(default = "Some(NormConfig::new())")]
        pub norm_cell: Option<NormConfig>,
        /// Whether LN_c(c') is carried to the next step (lstms.pth) or c' itself (Ba et al.).
        #[config(default = false)]
        pub carry_normalized: bool,
        /// Where the biases stand.
        #[config(default = "NormBias::Outside")]
        pub norm_bias: NormBias,
    }
}

impl LayerNormLstmConfig {
    /// The form of lstms.pth: unbiased variance with ε = 1e-6, biases inside the normalisations,
    /// the normalised cell carried.
    pub fn lstms_pth(d_input: usize, d_hidden: usize) -> Self {
        let norm = || Some(NormConfig::lstms_pth());
        Self::new(d_input, d_hidden)
            .with_norm_input(norm())
            .with_norm_hidden(norm())
            .with_norm_cell(norm())
            .with_carry_normalized(true)
            .with_norm_bias(NormBias::Inside)
    }

    fn validate_variant(&self, _options: &CellOptions) -> Result<(), InvalidConfig> {
        Ok(())
    }

    fn with_own_of(self, cell: &LayerNormLstmCell) -> Self {
        // A cell of this type without any norm is still of this type.
        let norms = LayerNormConfig::parts_of(&cell.gates, &cell.update);
        self.with_bias(cell.gates.has_bias())
            .with_norm_input(norms.norm_input)
            .with_norm_hidden(norms.norm_hidden)
            .with_norm_cell(norms.norm_cell)
            .with_carry_normalized(norms.carry_normalized)
            .with_norm_bias(norms.norm_bias)
    }

    fn layer_norm_config(&self) -> Option<LayerNormConfig> {
        Some(LayerNormConfig {
            norm_input: self.norm_input.clone(),
            norm_hidden: self.norm_hidden.clone(),
            norm_cell: self.norm_cell.clone(),
            carry_normalized: self.carry_normalized,
            norm_bias: self.norm_bias,
        })
    }

    fn layout(&self) -> GateLayout {
        GateLayout::LSTM
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> LayerNormLstmCell {
        LayerNormLstmCell {
            gates: GateWeights::new(self.layout(), options, device),
            update: StateUpdate::new(options, device),
            d_input: options.d_input,
            d_hidden: options.d_hidden,
            d_output: options.d_output(),
        }
    }
}

/// One layer-normalised LSTM step; gates packed in the order input, forget, candidate, output.
#[derive(Module, Debug)]
pub struct LayerNormLstmCell {
    /// W, R, biases, LN_x and LN_h of the four gates.
    pub gates: GateWeights,
    /// What follows the gates, LN_c with it.
    pub update: StateUpdate,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(LayerNormLstmCell);

impl Cell for LayerNormLstmCell {
    type Step = steps::lstm::LstmCell;

    fn bind(&self) -> Self::Step {
        steps::lstm::LstmCell {
            preact: self.gates.bind(),
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

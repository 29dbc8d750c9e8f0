//! The layer-normalised LSTM cell. Equations: [`recurrent_core::cell::Preactivation`].

use burn::module::Module;
use burn::tensor::Device;
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;

use super::config::{bare_cell_methods, config_methods, dropout_methods};
use super::{
    Cell, CellOptions, GateWeights, LayerNormConfig, NormBias, SharedConfig, StateUpdate,
    VariantConfig, cell_sizes, cell_step,
};
use crate::flat::flat_config;
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

flat_config! {
    /// Configuration of [`LayerNormLstm`].
    ///
    /// By default all three normalisations of Ba et al., in the form of `torch.nn.LayerNorm`.
    pub struct LayerNormLstmConfig: shared: SharedConfig {
        /// LN_x over the 4·d_hidden projected inputs.
        pub norm_input: Option<NormConfig> = Some(NormConfig::new()) => with_norm_input,
        /// LN_h over the 4·d_hidden recurrent pre-activations.
        pub norm_hidden: Option<NormConfig> = Some(NormConfig::new()) => with_norm_hidden,
        /// LN_c over the cell, after a Moon mask and before tanh.
        pub norm_cell: Option<NormConfig> = Some(NormConfig::new()) => with_norm_cell,
        /// Whether LN_c(c') is carried to the next step (lstms.pth) or c' itself (Ba et al.).
        pub carry_normalized: bool = false => with_carry_normalized,
        /// Whether biases are added before or after the normalisations.
        pub norm_bias: NormBias = NormBias::Outside => with_norm_bias,
    }
}

config_methods!(LayerNormLstmConfig => LayerNormLstm);
bare_cell_methods!(LayerNormLstmConfig => LayerNormLstmCell);
dropout_methods!(LayerNormLstmConfig);

impl LayerNormLstmConfig {
    /// As in lstms.pth: unbiased variance with ε = 1e-6, biases inside the normalisations,
    /// and the normalised cell carried to the next step.
    pub fn lstms_pth(d_input: usize, d_hidden: usize) -> Self {
        let norm = || Some(NormConfig::lstms_pth());
        Self::new(d_input, d_hidden)
            .with_norm_input(norm())
            .with_norm_hidden(norm())
            .with_norm_cell(norm())
            .with_carry_normalized(true)
            .with_norm_bias(NormBias::Inside)
    }
}

impl VariantConfig for LayerNormLstmConfig {
    const NAME: &'static str = "LayerNormLstmConfig";
    type Cell = LayerNormLstmCell;

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

    fn of_cell(cell: &LayerNormLstmCell) -> Self {
        // A cell of this type may have no normalisation at all.
        let norms = LayerNormConfig::parts_of(&cell.gates, &cell.update);
        Self {
            shared: SharedConfig::of_cell(cell, cell.gates.has_bias(), &cell.update),
            norm_input: norms.norm_input,
            norm_hidden: norms.norm_hidden,
            norm_cell: norms.norm_cell,
            carry_normalized: norms.carry_normalized,
            norm_bias: norms.norm_bias,
        }
    }

    fn layer_norm(&self) -> Option<LayerNormConfig> {
        Some(LayerNormConfig {
            norm_input: self.norm_input.clone(),
            norm_hidden: self.norm_hidden.clone(),
            norm_cell: self.norm_cell.clone(),
            carry_normalized: self.carry_normalized,
            norm_bias: self.norm_bias,
        })
    }
}

/// One layer-normalised LSTM step; gates packed in the order input, forget, candidate, output.
#[derive(Module, Debug)]
pub struct LayerNormLstmCell {
    /// W, R, biases, LN_x and LN_h of the four gates.
    pub gates: GateWeights,
    /// Clip, cell normalisation LN_c and projection.
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
    type Step = steps::lstm::LstmStep;

    fn bind(&self) -> Self::Step {
        steps::lstm::LstmStep {
            preact: self.gates.bind(),
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

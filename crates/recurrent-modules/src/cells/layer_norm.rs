//! The layer-normalised LSTM cell. Equations: [`recurrent_core::cell::layer_norm`].

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;

use super::{Cell, CellOptions, affine, cell_step, transition};
use crate::config::variant_config;
use crate::error::InvalidConfig;
use crate::init::{packed_bias, packed_weight};
use crate::norm::{Norm, NormConfig};
use crate::stack::Stack;

/// Where the biases of a layer-normalised cell stand.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum NormBias {
    /// One bias after the normalisations: `LN(x·W) + LN(h·R) + b` (Ba et al., haste).
    Outside,
    /// One bias in each affine map, normalised with it: `LN(x·W + b_x) + LN(h·R + b_h)`
    /// (lstms.pth).
    Inside,
}

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

    fn validate_variant(&self, d_hidden: usize) -> Result<(), InvalidConfig> {
        let norms = [
            ("norm_input", &self.norm_input, 4 * d_hidden),
            ("norm_hidden", &self.norm_hidden, 4 * d_hidden),
            ("norm_cell", &self.norm_cell, d_hidden),
        ];
        for (field, norm, features) in norms {
            if let Some(norm) = norm {
                norm.validate_for(field, features)?;
            }
        }
        if self.carry_normalized && self.norm_cell.is_none() {
            return Err(InvalidConfig::contradiction(
                "carry_normalized",
                "norm_cell",
                "without a cell normalisation there is no normalised cell to carry",
            ));
        }
        Ok(())
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> LayerNormLstmCell {
        LayerNormLstmCell::new(self, options, device)
    }
}

/// One layer-normalised LSTM step; gates packed in the order input, forget, candidate, output.
#[derive(Module, Debug)]
pub struct LayerNormLstmCell {
    /// W `[d_input, 4·d_hidden]`
    pub weight_input: Param<Tensor<2>>,
    /// R `[d_output, 4·d_hidden]`
    pub weight_hidden: Param<Tensor<2>>,
    /// b `[4·d_hidden]`, after the normalisations ([`NormBias::Outside`])
    pub bias: Option<Param<Tensor<1>>>,
    /// b_x `[4·d_hidden]`, inside LN_x ([`NormBias::Inside`])
    pub bias_input: Option<Param<Tensor<1>>>,
    /// b_h `[4·d_hidden]`, inside LN_h ([`NormBias::Inside`])
    pub bias_hidden: Option<Param<Tensor<1>>>,
    /// LN_x over the 4·d_hidden projected inputs
    pub norm_input: Option<Norm>,
    /// LN_h over the 4·d_hidden recurrent pre-activations
    pub norm_hidden: Option<Norm>,
    /// LN_c over the cell
    pub norm_cell: Option<Norm>,
    /// P `[d_hidden, d_proj]`
    pub projection: Option<Param<Tensor<2>>>,
    /// Whether LN_c(c') is what is carried.
    pub carry_normalized: bool,
    /// Bound of the cell state, before its normalisation.
    pub clip: Option<f64>,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(LayerNormLstmCell);

impl LayerNormLstmCell {
    fn new(config: &LayerNormLstmConfig, options: &CellOptions, device: &Device) -> Self {
        let layout = GateLayout::LSTM;
        let (d_input, d_hidden) = (options.d_input, options.d_hidden);
        let init = &options.init;
        let inside = config.norm_bias == NormBias::Inside;
        let bias = |wanted: bool, forget_bias: Option<f64>| {
            (options.bias && wanted)
                .then(|| packed_bias(layout, d_hidden, &init.bias, forget_bias, device))
        };
        let norm = |norm: &Option<NormConfig>, features: usize| {
            norm.as_ref().map(|norm| norm.init(features, device))
        };
        Self {
            weight_input: packed_weight(layout, d_input, d_hidden, &init.input, device),
            weight_hidden: packed_weight(
                layout,
                options.d_output(),
                d_hidden,
                &init.hidden,
                device,
            ),
            bias: bias(!inside, init.forget_bias),
            bias_input: bias(inside, init.forget_bias),
            bias_hidden: bias(inside, init.forget_bias.map(|_| 0.0)), // counted once
            norm_input: norm(&config.norm_input, 4 * d_hidden),
            norm_hidden: norm(&config.norm_hidden, 4 * d_hidden),
            norm_cell: norm(&config.norm_cell, d_hidden),
            projection: options.projection(device),
            carry_normalized: config.carry_normalized,
            clip: options.clip,
            d_input,
            d_hidden,
            d_output: options.d_output(),
        }
    }
}

impl Cell for LayerNormLstmCell {
    type Step = steps::layer_norm::LayerNormLstmCell;

    fn bind(&self) -> Self::Step {
        let norm = |norm: &Option<Norm>| norm.as_ref().map(Norm::bind);
        steps::layer_norm::LayerNormLstmCell {
            input: affine(&self.weight_input, &self.bias_input),
            hidden: affine(&self.weight_hidden, &self.bias_hidden),
            norm_input: norm(&self.norm_input),
            norm_hidden: norm(&self.norm_hidden),
            bias: self.bias.as_ref().map(Param::val),
            transition: steps::Transition {
                norm_cell: norm(&self.norm_cell),
                carry_normalized: self.carry_normalized,
                ..transition(self.clip, &self.projection)
            },
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

//! Parts shared by the cells: packed gate weights, and the parameters of the state update.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell::{Affine, Preactivation, Transition};

use super::CellOptions;
use crate::error::InvalidConfig;
use crate::init::{GateInit, packed_bias, packed_weight, uniform_by};
use crate::norm::{Norm, NormConfig};

/// Whether the biases of a layer-normalised cell are added before or after its normalisations.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum NormBias {
    /// One bias after the normalisations: `LN(x·W) + LN(h·R) + b` (Ba et al., haste).
    Outside,
    /// One bias in each affine map, normalised with it: `LN(x·W + b_x) + LN(h·R + b_h)`
    /// (lstms.pth).
    Inside,
}

/// Layer normalisation inside a cell, for every variant. Equations:
/// [`recurrent_core::cell::Preactivation`], [`Transition`].
///
/// By default all three normalisations of Ba et al., in the form of `torch.nn.LayerNorm`.
#[derive(Config, Debug, PartialEq)]
pub struct LayerNormConfig {
    /// LN_x over the projected inputs of all gates.
    #[config(default = "Some(NormConfig::new())")]
    pub norm_input: Option<NormConfig>,
    /// LN_h over the recurrent pre-activations of all gates.
    #[config(default = "Some(NormConfig::new())")]
    pub norm_hidden: Option<NormConfig>,
    /// LN_c over the cell, after a Moon mask and before tanh.
    #[config(default = "Some(NormConfig::new())")]
    pub norm_cell: Option<NormConfig>,
    /// Whether LN_c(c') is carried to the next step (lstms.pth) or c' itself (Ba et al.).
    #[config(default = false)]
    pub carry_normalized: bool,
    /// Whether biases are added before or after the normalisations.
    #[config(default = "NormBias::Outside")]
    pub norm_bias: NormBias,
}

impl LayerNormConfig {
    /// The normalisations of a cell; `None` if it has none.
    pub(crate) fn of(gates: &GateWeights, update: &StateUpdate) -> Option<Self> {
        let norms = Self::parts_of(gates, update);
        let any = norms.norm_input.is_some()
            || norms.norm_hidden.is_some()
            || norms.norm_cell.is_some()
            || norms.norm_bias == NormBias::Inside;
        any.then_some(norms)
    }

    /// The normalisations that a cell has.
    pub(crate) fn parts_of(gates: &GateWeights, update: &StateUpdate) -> Self {
        let config = |norm: &Option<Norm>| norm.as_ref().map(NormConfig::of);
        Self {
            norm_input: config(&gates.norm_input),
            norm_hidden: config(&gates.norm_hidden),
            norm_cell: config(&update.norm_cell),
            carry_normalized: update.carry_normalized,
            norm_bias: match gates.bias_input {
                Some(_) => NormBias::Inside,
                None => NormBias::Outside,
            },
        }
    }

    /// # Errors
    /// If a normalisation is invalid for its width, or `carry_normalized` is set without a cell
    /// normalisation.
    pub(crate) fn validate_for(&self, gates: usize, d_hidden: usize) -> Result<(), InvalidConfig> {
        let norms = [
            ("norm_input", &self.norm_input, gates * d_hidden),
            ("norm_hidden", &self.norm_hidden, gates * d_hidden),
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
}

/// Packed weights of all gates: `z = LN_x(x·W + b_x) + LN_h(h·R + b_h) + b`.
#[derive(Module, Debug)]
pub struct GateWeights {
    /// W `[d_input, gates·d_hidden]`
    pub weight_input: Param<Tensor<2>>,
    /// R `[d_output, gates·d_hidden]`
    pub weight_hidden: Param<Tensor<2>>,
    /// b `[gates·d_hidden]`, after the normalisations ([`NormBias::Outside`])
    pub bias: Option<Param<Tensor<1>>>,
    /// b_x `[gates·d_hidden]`, inside LN_x ([`NormBias::Inside`])
    pub bias_input: Option<Param<Tensor<1>>>,
    /// b_h `[gates·d_hidden]`, inside LN_h ([`NormBias::Inside`])
    pub bias_hidden: Option<Param<Tensor<1>>>,
    /// LN_x over all gates
    pub norm_input: Option<Norm>,
    /// LN_h over all gates
    pub norm_hidden: Option<Norm>,
}

/// The normalisation of a checked config.
fn norm(config: Option<&NormConfig>, features: usize, device: &Device) -> Option<Norm> {
    config.map(|config| config.init(features, device))
}

impl GateWeights {
    pub(crate) fn new(layout: GateLayout, options: &CellOptions, device: &Device) -> Self {
        let (d_hidden, init) = (options.d_hidden, &options.init);
        let norms = options.layer_norm.as_ref();
        let inside = norms.is_some_and(|norms| norms.norm_bias == NormBias::Inside);
        let bias = |wanted: bool, forget: Option<GateInit>| {
            (options.bias && wanted)
                .then(|| packed_bias(layout, d_hidden, &init.bias, forget, device))
        };
        let zero = init.forget().map(|_| GateInit::Constant { value: 0.0 });
        let weight =
            |rows: usize, initializer| packed_weight(layout, rows, d_hidden, initializer, device);
        let width = layout.len() * d_hidden;
        Self {
            weight_input: weight(options.d_input, &init.input),
            weight_hidden: weight(options.d_output(), &init.hidden),
            bias: bias(!inside, init.forget()),
            bias_input: bias(inside, init.forget()),
            bias_hidden: bias(inside, zero), // counted once
            norm_input: norm(norms.and_then(|n| n.norm_input.as_ref()), width, device),
            norm_hidden: norm(norms.and_then(|n| n.norm_hidden.as_ref()), width, device),
        }
    }

    /// Whether there are biases.
    pub(crate) fn has_bias(&self) -> bool {
        self.bias.is_some() || self.bias_input.is_some()
    }

    /// The weights for one call.
    pub(crate) fn bind(&self) -> Preactivation {
        let affine = |weight: &Param<Tensor<2>>, bias: &Option<Param<Tensor<1>>>| Affine {
            weight: weight.val(),
            bias: bias.as_ref().map(Param::val),
        };
        Preactivation {
            input: affine(&self.weight_input, &self.bias_input),
            hidden: affine(&self.weight_hidden, &self.bias_hidden),
            norm_input: self.norm_input.as_ref().map(Norm::bind),
            norm_hidden: self.norm_hidden.as_ref().map(Norm::bind),
            bias: self.bias.as_ref().map(Param::val),
        }
    }
}

/// The state update after the gates: clip, cell normalisation, projection.
#[derive(Module, Debug)]
pub struct StateUpdate {
    /// P `[d_hidden, d_proj]`
    pub projection: Option<Param<Tensor<2>>>,
    /// LN_c over the cell
    pub norm_cell: Option<Norm>,
    /// Whether LN_c(c') is carried to the next step instead of c'.
    pub carry_normalized: bool,
    /// Bound of the cell state, before its normalisation.
    pub clip: Option<f64>,
}

impl StateUpdate {
    pub(crate) fn new(options: &CellOptions, device: &Device) -> Self {
        let norms = options.layer_norm.as_ref();
        let projection = options.d_proj.map(|d_proj| {
            // PyTorch draws it from U(−1/√H, 1/√H) like the other weights.
            let initializer = options.init.hidden.clone();
            let initializer = initializer.unwrap_or_else(|| uniform_by(options.d_hidden));
            let plain = GateLayout::PLAIN;
            packed_weight(plain, options.d_hidden, d_proj, &Some(initializer), device)
        });
        Self {
            projection,
            norm_cell: norm(
                norms.and_then(|n| n.norm_cell.as_ref()),
                options.d_hidden,
                device,
            ),
            carry_normalized: norms.is_some_and(|norms| norms.carry_normalized),
            clip: options.clip,
        }
    }

    /// The weights for one call.
    pub(crate) fn bind(&self) -> Transition {
        Transition {
            clip: self.clip,
            norm_cell: self.norm_cell.as_ref().map(Norm::bind),
            carry_normalized: self.carry_normalized,
            projection: self.projection.as_ref().map(Param::val),
        }
    }
}

//! Packed pre-activations: the affine part that all cells share.
//!
//! ```text
//! z = LN_x(x·W + b_x) + LN_h(h·R + b_h) + b
//! ```
//! Each LN and each bias is optional. LN_x and LN_h normalise all gates' pre-activations together.
//! Ba et al. have b outside (b_x = b_h = 0), lstms.pth has b_x and b_h inside.
//!
//! **Source.** Ba, Kiros & Hinton, arXiv:1607.06450, equation 20.

use core::fmt::Display;

use burn::tensor::Tensor;

use super::weights::{visit_norm, visit_some};
use super::{Affine, VisitWeight};
use crate::equations::layer_norm::NormWeights;

/// Weights of the pre-activations of all gates, for one call.
#[derive(Debug, Clone)]
pub struct Preactivation {
    /// W `[I, gates·H]` and b_x `[gates·H]`
    pub input: Affine,
    /// R `[d_output, gates·H]` and b_h `[gates·H]`
    pub hidden: Affine,
    /// LN_x over `[rows, gates·H]`
    pub norm_input: Option<NormWeights>,
    /// LN_h over `[rows, gates·H]`
    pub norm_hidden: Option<NormWeights>,
    /// b `[gates·H]`, after the normalisations
    pub bias: Option<Tensor<1>>,
}

impl Preactivation {
    /// Without normalisation: `z = x·W + h·R + b`.
    pub fn plain(
        weight_input: Tensor<2>,
        weight_hidden: Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Self {
        Self {
            input: Affine::linear(weight_input),
            hidden: Affine::linear(weight_hidden),
            norm_input: None,
            norm_hidden: None,
            bias,
        }
    }

    /// I
    pub fn d_input(&self) -> usize {
        self.input.d_in()
    }

    /// gates·H
    pub fn width(&self) -> usize {
        self.input.d_out()
    }

    /// Visits the weights, see [`Step::visit_weights`](super::Step::visit_weights); each name gets the
    /// prefix `prefix`.
    pub fn visit_weights(&self, prefix: &dyn Display, visit: &mut VisitWeight<'_>) {
        visit(
            format_args!("{prefix}weight_input"),
            (&self.input.weight).into(),
        );
        visit(
            format_args!("{prefix}weight_hidden"),
            (&self.hidden.weight).into(),
        );
        visit_some(prefix, "bias", &self.bias, visit);
        visit_some(prefix, "bias_input", &self.input.bias, visit);
        visit_some(prefix, "bias_hidden", &self.hidden.bias, visit);
        visit_norm(prefix, "norm_input", &self.norm_input, visit);
        visit_norm(prefix, "norm_hidden", &self.norm_hidden, visit);
    }

    /// `LN_x(x·W + b_x) + b`: the part that does not depend on the state. Rows are independent, so all
    /// steps of all sequences can be computed in one call.
    pub fn from_input(&self, x: Tensor<2>) -> Tensor<2> {
        let projected = normalized(&self.norm_input, self.input.forward(x));
        match &self.bias {
            Some(bias) => projected + bias.clone().unsqueeze(),
            None => projected,
        }
    }

    /// `LN_h(h·R + b_h)`
    pub fn from_hidden(&self, h: Tensor<2>) -> Tensor<2> {
        normalized(&self.norm_hidden, self.hidden.forward(h))
    }
}

/// `LN(x)`, or `x` where there is no LN.
pub(super) fn normalized(norm: &Option<NormWeights>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

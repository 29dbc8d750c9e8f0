//! The GRU cell with packed gates. Equations: [`recurrent_core::equations::gru`].

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell::{Affine, gru as steps};

use super::config::{bare_cell_methods, config_methods};
use super::{Cell, CellOptions, SharedConfig, VariantConfig, cell_step};
use crate::error::InvalidConfig;
use crate::flat::flat_config;
use crate::init::{packed_bias, packed_weight};
use crate::masks::RecurrentDropout;
use crate::stack::Stack;

/// The gated recurrent unit: layers of [`GruCell`], created with [`GruConfig`].
///
/// ```text
/// r = σ(x·W_r + h·R_r + b_r)      z = σ(x·W_z + h·R_z + b_z)
/// n = tanh(x·W_n + b_n + r ⊙ (h·R_n + b_hn))        reset_after (PyTorch, cuDNN)
/// n = tanh(x·W_n + b_n + (r ⊙ h)·R_n)               without it (Cho et al.)
/// h' = (1 − z) ⊙ n + z ⊙ h
/// ```
/// Cho et al., arXiv:1406.1078.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::GruConfig;
///
/// let device = Device::flex();
/// let gru = GruConfig::new(10, 20).with_num_layers(2).init(&device);
/// let x = Tensor::<3>::ones([3, 7, 10], &device);     // [batch, time, features]
/// let (out, state) = gru.forward(x, None);
/// assert_eq!(out.dims(), [3, 7, 20]);
/// assert_eq!(state.last().hidden.dims(), [3, 20]);
/// ```
pub type Gru = Stack<GruCell>;

flat_config! {
    /// Configuration of [`Gru`].
    ///
    /// A GRU has no cell state. The shared fields `d_proj`, `clip` and `forget_bias` are therefore errors, and so
    /// are the kinds of dropout that act on a cell state.
    pub struct GruConfig: shared: SharedConfig {
        /// Whether the reset gate multiplies h·R_n + b_hn (PyTorch, cuDNN), or h before the product (Cho
        /// et al.). Keras and burn-nn have the same switch.
        pub reset_after: bool = true => with_reset_after,
    }
}

config_methods!(GruConfig => Gru);
bare_cell_methods!(GruConfig => GruCell);

impl GruConfig {
    /// With Gal & Ghahramani's dropout: one mask per sequence on the hidden state.
    pub fn gal(d_input: usize, d_hidden: usize, prob: f64) -> Self {
        Self::new(d_input, d_hidden).with_recurrent_dropout(RecurrentDropout::Gal { prob })
    }

    /// With Semeniuta et al.'s dropout: a mask per step on the candidate.
    pub fn semeniuta(d_input: usize, d_hidden: usize, prob: f64) -> Self {
        Self::new(d_input, d_hidden).with_recurrent_dropout(RecurrentDropout::Semeniuta { prob })
    }

    /// With zoneout: units of the hidden state keep their value with this probability.
    pub fn zoneout(d_input: usize, d_hidden: usize, hidden: f64) -> Self {
        let zoneout = RecurrentDropout::Zoneout { hidden, cell: 0.0 };
        Self::new(d_input, d_hidden).with_recurrent_dropout(zoneout)
    }
}

impl VariantConfig for GruConfig {
    const NAME: &'static str = "GruConfig";
    type Cell = GruCell;

    fn layout(&self) -> GateLayout {
        GateLayout::GRU
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        let on_cell = match self.recurrent_dropout {
            RecurrentDropout::Moon { .. } => true,
            RecurrentDropout::Zoneout { cell, .. } => cell != 0.0,
            _ => false,
        };
        for (set, field, reason) in [
            (self.d_proj.is_some(), "d_proj", "a GRU has no projection"),
            (
                self.clip.is_some(),
                "clip",
                "a GRU has no cell state to clip",
            ),
            (
                self.forget_bias.is_some(),
                "forget_bias",
                "a GRU has no forget gate",
            ),
            (
                on_cell,
                "recurrent_dropout",
                "a GRU has no cell state: use a kind that acts on the hidden state or the candidate",
            ),
        ] {
            InvalidConfig::refuse(set, field, "GruConfig", reason)?;
        }
        Ok(())
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> GruCell {
        let (d_input, d_hidden, init) = (options.d_input, options.d_hidden, &options.init);
        let weight = |rows: usize, initializer| {
            packed_weight(GateLayout::GRU, rows, d_hidden, initializer, device)
        };
        let bias = |layout: GateLayout, wanted: bool| {
            let wanted = options.bias && wanted;
            wanted.then(|| packed_bias(layout, d_hidden, &init.bias, None, device))
        };
        GruCell {
            weight_input: weight(d_input, &init.input),
            weight_hidden: weight(d_hidden, &init.hidden),
            bias: bias(GateLayout::GRU, true),
            bias_candidate_hidden: bias(GateLayout::PLAIN, self.reset_after),
            reset_after: self.reset_after,
            d_input,
            d_hidden,
        }
    }

    fn of_cell(cell: &GruCell) -> Self {
        let bias = cell.bias.is_some() || cell.bias_candidate_hidden.is_some();
        Self {
            shared: SharedConfig::new(cell.d_input, cell.d_hidden).with_bias(bias),
            reset_after: cell.reset_after,
        }
    }
}

/// One GRU step; gates packed in the order reset, update, candidate.
#[derive(Module, Debug)]
pub struct GruCell {
    /// W `[d_input, 3·d_hidden]`
    pub weight_input: Param<Tensor<2>>,
    /// R `[d_hidden, 3·d_hidden]`
    pub weight_hidden: Param<Tensor<2>>,
    /// b `[3·d_hidden]`
    pub bias: Option<Param<Tensor<1>>>,
    /// b_hn `[d_hidden]`, which the reset gate multiplies; only with `reset_after`
    pub bias_candidate_hidden: Option<Param<Tensor<1>>>,
    /// Whether the reset gate multiplies h·R_n + b_hn, or h before the product.
    pub reset_after: bool,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
}

cell_step!(GruCell);

impl Cell for GruCell {
    type Step = steps::GruStep;

    /// # Panics
    /// If there is a `bias_candidate_hidden` without `reset_after`.
    #[track_caller]
    fn bind(&self) -> Self::Step {
        let value = |bias: &Option<Param<Tensor<1>>>| bias.as_ref().map(Param::val);
        assert!(
            self.reset_after || self.bias_candidate_hidden.is_none(),
            "got a `bias_candidate_hidden`, expected none without `reset_after`: add it to the \
             candidate's part of `bias`",
        );
        steps::GruStep {
            input: Affine {
                weight: self.weight_input.val(),
                bias: value(&self.bias),
            },
            weight_hidden: self.weight_hidden.val(),
            bias_candidate_hidden: value(&self.bias_candidate_hidden),
            reset_after: self.reset_after,
        }
    }

    fn d_input(&self) -> usize {
        self.d_input
    }

    fn d_hidden(&self) -> usize {
        self.d_hidden
    }
}

//! The LSTM cell with packed gates. Equations: [`recurrent_core::equations::lstm`].

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;

use super::{Cell, CellOptions, affine, cell_step, transition};
use crate::config::variant_config;
use crate::error::InvalidConfig;
use crate::init::{packed_bias, packed_weight};
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

variant_config! {
    /// Configuration of [`Lstm`].
    pub struct LstmConfig => Lstm of LstmCell {}
}

impl LstmConfig {
    fn validate_variant(&self, _d_hidden: usize) -> Result<(), InvalidConfig> {
        Ok(())
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> LstmCell {
        LstmCell::new(options, device)
    }
}

/// One LSTM step; gates packed in the order input, forget, candidate, output.
#[derive(Module, Debug)]
pub struct LstmCell {
    /// W `[d_input, 4·d_hidden]`
    pub weight_input: Param<Tensor<2>>,
    /// R `[d_output, 4·d_hidden]`
    pub weight_hidden: Param<Tensor<2>>,
    /// b `[4·d_hidden]`
    pub bias: Option<Param<Tensor<1>>>,
    /// P `[d_hidden, d_proj]`
    pub projection: Option<Param<Tensor<2>>>,
    /// Bound of the cell state.
    pub clip: Option<f64>,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(LstmCell);

impl LstmCell {
    fn new(options: &CellOptions, device: &Device) -> Self {
        let layout = GateLayout::LSTM;
        let (d_input, d_hidden) = (options.d_input, options.d_hidden);
        let init = &options.init;
        Self {
            weight_input: packed_weight(layout, d_input, d_hidden, &init.input, device),
            weight_hidden: packed_weight(
                layout,
                options.d_output(),
                d_hidden,
                &init.hidden,
                device,
            ),
            bias: options
                .bias
                .then(|| packed_bias(layout, d_hidden, &init.bias, init.forget_bias, device)),
            projection: options.projection(device),
            clip: options.clip,
            d_input,
            d_hidden,
            d_output: options.d_output(),
        }
    }
}

impl Cell for LstmCell {
    type Step = steps::lstm::LstmCell;

    fn bind(&self) -> Self::Step {
        steps::lstm::LstmCell {
            input: affine(&self.weight_input, &self.bias),
            weight_hidden: self.weight_hidden.val(),
            transition: transition(self.clip, &self.projection),
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

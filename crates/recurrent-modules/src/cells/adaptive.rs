//! The adaptive LSTM (aLSTM). Equations: [`recurrent_core::equations::adaptive`],
//! [`recurrent_core::cell::adaptive`].

use alloc::vec::Vec;

use burn::module::{Module, Param};
use burn::nn::{Initializer, LstmState};
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;
pub use recurrent_core::cell::adaptive::AdaptiveState;
pub use recurrent_core::equations::adaptive::PolicyLayout;

use super::config::{config_methods, more_than_a_cell};
use super::{
    Cell, CellOptions, GateWeights, LayerNormConfig, LstmCell, SharedConfig, StateUpdate,
    VariantConfig,
};
use crate::error::{InvalidConfig, check_prob, check_size, or_panic};
use crate::flat::flat_config;
use crate::init::{WeightInit, packed_weight, uniform_by};
use crate::masks::RecurrentDropout;
use crate::stack::{Stack, StackConfig};

/// The adaptive LSTM (aLSTM), created with [`AdaptiveLstmConfig`].
///
/// ```text
/// z_l, m_l = LSTM([x, h_l, z_below], (z_l, m_l))     p = tanh(z_l·P_l)       the policy
/// z = ((x ⊙ p_x)·W) ⊙ p_i + ((h ⊙ p_h)·R) ⊙ p_g + b ⊙ p_b     then as in Lstm
/// ```
/// where `p = [p_x | p_h | p_i | p_g | p_b]` and z_below is the adaptation state of the layer below;
/// layer 0 uses that of the top layer at the previous step; a single layer has none. Flennerhag et
/// al., arXiv:1805.08574.
///
/// All its layers are one cell of the [`Stack`], which therefore has one layer: its state is one
/// [`AdaptiveState`] per direction, and its masks hold the layers' features side by side. With
/// `bidirectional` a second model of all layers runs backward, and the outputs of both are
/// concatenated at the top.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::AdaptiveLstmConfig;
///
/// let device = Device::flex();
/// let lstm = AdaptiveLstmConfig::stacked(10, [20, 12]) // the last layer may differ in size
///     .with_d_adapt(5)
///     .with_dropout_adapt(0.1)
///     .init(&device);
/// let (out, state) = lstm.forward(Tensor::<3>::ones([3, 7, 10], &device), None);
/// assert_eq!(out.dims(), [3, 7, 12]);
/// assert_eq!(state.last().main[1].hidden.dims(), [3, 12]);
/// assert_eq!(state.last().adapt[1].hidden.dims(), [3, 5]);
/// ```
pub type AdaptiveLstm = Stack<AdaptiveLayers>;

flat_config! {
    /// Configuration of [`AdaptiveLstm`].
    ///
    /// It has the shared fields of the other variants, which refer to the model's own layers.
    /// Differences:
    ///
    /// | field | here |
    /// |---|---|
    /// | `bidirectional` | a second model of all layers runs backward; outputs are concatenated at the top |
    /// | `dropout` | must be 0: `recurrent_dropout` already masks the h that a layer passes to the next one |
    /// | `recurrent_dropout` | in the cells that the policy scales; masks on h act on the h that is fed back, passed to the next layer and returned as the state, but not on the output |
    /// | `weight_drop` | on the recurrent weights of the adaptation cells too |
    /// | `residual` | each layer but the first adds its input to its output |
    /// | `bias` | if set, the policy has a p_b; the adaptation cells always have a bias |
    /// | `initializer` | by default W and R are orthogonal as a whole, as in the published code |
    /// | `bias_initializer`, `forget_bias` | by default 0, and 1 for the forget gate, as in the published code |
    pub struct AdaptiveLstmConfig: shared: SharedConfig {
        /// Units A of each adaptation cell; 100 by default, as in the paper's language models.
        pub d_adapt: usize = 100 => with_d_adapt,
        /// Offsets of the parts of the policy. Overlapping is for checkpoints of the published code.
        pub policy_layout: PolicyLayout = PolicyLayout::Cumulative => with_policy_layout,
        /// Probability of zeroing z, one mask per sequence.
        pub dropout_adapt: f64 = 0.0 => with_dropout_adapt,
        /// W and R of the adaptation cells, and P; U(−1/√A, 1/√A) by default, as in PyTorch.
        pub adapt_initializer: Option<Initializer> = None => with_adapt_initializer,
        /// Layer normalisation in the cells that the policy scales, before its factors; none by
        /// default.
        pub layer_norm: Option<LayerNormConfig> = None => with_layer_norm,
    }
}

config_methods!(AdaptiveLstmConfig => AdaptiveLstm);

impl VariantConfig for AdaptiveLstmConfig {
    const NAME: &'static str = "AdaptiveLstmConfig";
    type Cell = AdaptiveLayers;

    fn layout(&self) -> GateLayout {
        GateLayout::LSTM
    }

    /// All layers of the model; each has options of its own.
    fn new_cell(&self, _: &CellOptions, device: &Device) -> AdaptiveLayers {
        self.new_layers(device)
    }

    fn of_cell(model: &AdaptiveLayers) -> Self {
        let first = &model.layers[0];
        let cell = &first.cell;
        let sizes: Vec<usize> = model.layers.iter().map(|l| l.cell.d_hidden).collect();
        let unequal = sizes.windows(2).any(|pair| pair[0] != pair[1]);
        Self::stacked(cell.d_input, sizes.clone())
            .with_layer_sizes(unequal.then_some(sizes))
            .with_d_adapt(first.adapt.d_hidden)
            .with_policy_layout(cell.policy_layout)
            .with_dropout_adapt(model.dropout_adapt)
            .with_layer_norm(LayerNormConfig::of(&cell.gates, &cell.update))
            .with_residual(model.residual)
            .with_d_proj(cell.update.projection.is_some().then_some(cell.d_output))
            .with_bias(cell.gates.has_bias())
            .with_clip(cell.update.clip)
    }

    fn of(module: &AdaptiveLstm) -> Self {
        let container = StackConfig::of(module);
        Self::of_cell(&module.layers[0].forward)
            .with_bidirectional(container.bidirectional)
            .with_reverse(container.reverse)
            .with_batch_first(container.batch_first)
            .with_recurrent_dropout(container.recurrent_dropout)
            .with_weight_drop(container.weight_drop)
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        check_size("d_adapt", self.d_adapt)?;
        check_prob("dropout_adapt", self.dropout_adapt)?;
        check_prob("dropout", self.dropout)?;
        InvalidConfig::refuse(
            self.dropout > 0.0,
            "dropout",
            "AdaptiveLstm",
            "its layers advance together, and what each passes up is the h that it feeds back; \
             recurrent_dropout on h acts on both",
        )
    }

    fn layer_norm(&self) -> Option<LayerNormConfig> {
        self.layer_norm.clone()
    }

    /// Of the cell that the policy scales.
    fn cell_options(&self, d_input: usize, d_hidden: usize) -> CellOptions {
        let mut options = self.shared.cell_options(d_input, d_hidden);
        options.layer_norm = self.layer_norm();
        if self.bias && self.bias_initializer.is_none() {
            options.init.bias = Some(Initializer::Zeros);
            options.init.forget_bias = self.forget_bias.or(Some(1.0));
        }
        options
    }

    /// The directions are concatenated at the top only, not between layers.
    fn directions_read(&self) -> usize {
        1
    }

    /// One layer, which holds all of the model's.
    fn container(&self) -> StackConfig {
        StackConfig::new(self.d_input, self.d_hidden)
            .with_bidirectional(self.bidirectional)
            .with_reverse(self.reverse)
            .with_batch_first(self.batch_first)
            .with_recurrent_dropout(self.recurrent_dropout)
            .with_weight_drop(self.weight_drop)
    }
}

impl AdaptiveLstmConfig {
    /// With the paper's dropout: one mask per sequence on h, one on z.
    pub fn gal(d_input: usize, d_hidden: usize, prob: f64, prob_adapt: f64) -> Self {
        Self::new(d_input, d_hidden)
            .with_recurrent_dropout(RecurrentDropout::Gal { prob })
            .with_dropout_adapt(prob_adapt)
    }

    /// The largest size, and the number of layers.
    pub(crate) fn largest(&self) -> [usize; 2] {
        let [size, layers] = self.shared.largest();
        [size.max(self.d_adapt), layers]
    }

    /// A bare cell, which takes its policy as an argument.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); also if the config asks for features of the whole model: more than one
    /// layer, directions, dropout.
    pub fn try_init_cell(&self, device: &Device) -> Result<AdaptiveLstmCell, InvalidConfig> {
        let options = self.bare_cell_options()?;
        if self.dropout_adapt > 0.0 {
            return Err(more_than_a_cell());
        }
        Ok(self.new_scaled_cell(&options, device))
    }

    /// # Panics
    /// If [`try_init_cell`](Self::try_init_cell) returns an error, with the same text.
    #[track_caller]
    pub fn init_cell(&self, device: &Device) -> AdaptiveLstmCell {
        or_panic(Self::NAME, self.try_init_cell(device))
    }

    fn new_layers(&self, device: &Device) -> AdaptiveLayers {
        let cells = self.cells();
        let z_below = if cells.len() > 1 { self.d_adapt } else { 0 };
        let layers = cells
            .iter()
            .map(|options| {
                let d_seen = options.d_input + options.d_output() + z_below;
                let adapt = self.adapt_options(d_seen);
                let cell = self.new_scaled_cell(options, device);
                AdaptiveLayer {
                    adapt: LstmCell {
                        gates: GateWeights::new(GateLayout::LSTM, &adapt, device),
                        update: StateUpdate::new(&adapt, device),
                        d_input: d_seen,
                        d_hidden: self.d_adapt,
                        d_output: self.d_adapt,
                    },
                    policy_projection: packed_weight(
                        GateLayout::PLAIN,
                        self.d_adapt,
                        cell.policy_size(),
                        &Some(self.adapt_weights()),
                        device,
                    ),
                    cell,
                }
            })
            .collect();
        AdaptiveLayers {
            layers,
            residual: self.residual,
            dropout_adapt: self.dropout_adapt,
        }
    }

    fn adapt_weights(&self) -> Initializer {
        let own = self.adapt_initializer.clone();
        own.unwrap_or_else(|| uniform_by(self.d_adapt))
    }

    /// Of an adaptation cell.
    fn adapt_options(&self, d_input: usize) -> CellOptions {
        CellOptions {
            d_input,
            d_hidden: self.d_adapt,
            d_proj: None,
            bias: true,
            clip: None,
            layer_norm: None,
            init: WeightInit::new()
                .with_input(Some(self.adapt_weights()))
                .with_hidden(Some(self.adapt_weights())),
        }
    }

    /// The cell that the policy scales.
    fn new_scaled_cell(&self, options: &CellOptions, device: &Device) -> AdaptiveLstmCell {
        let mut gates = GateWeights::new(GateLayout::LSTM, options, device);
        let width = 4 * options.d_hidden;
        let orthogonal = |rows| {
            let initializer = Some(Initializer::Orthogonal { gain: 1.0 });
            packed_weight(GateLayout::PLAIN, rows, width, &initializer, device)
        };
        if options.init.input.is_none() {
            gates.weight_input = orthogonal(options.d_input);
        }
        if options.init.hidden.is_none() {
            gates.weight_hidden = orthogonal(options.d_output());
        }
        AdaptiveLstmCell {
            gates,
            update: StateUpdate::new(options, device),
            policy_layout: self.policy_layout,
            d_input: options.d_input,
            d_hidden: options.d_hidden,
            d_output: options.d_output(),
        }
    }
}

/// One adaptive LSTM step with a given policy; gates packed in the order input, forget, candidate,
/// output.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::AdaptiveLstmConfig;
///
/// let device = Device::flex();
/// let cell = AdaptiveLstmConfig::new(3, 4).init_cell(&device);
/// // A policy of ones makes it the plain LSTM.
/// let policy = Tensor::ones([2, cell.policy_size()], &device);
/// let (out, _) = cell.step(Tensor::ones([2, 3], &device), policy, None);
/// assert_eq!(out.dims(), [2, 4]);
/// ```
#[derive(Module, Debug)]
pub struct AdaptiveLstmCell {
    /// W, R and b of the four gates.
    pub gates: GateWeights,
    /// Clip, cell normalisation and projection.
    pub update: StateUpdate,
    /// Offsets of the parts of a policy.
    #[module(skip)]
    pub policy_layout: PolicyLayout,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

impl AdaptiveLstmCell {
    /// Features of a policy: `d_input + d_output + 12·d_hidden`, or `8·d_hidden` where there is no
    /// bias after the gates' products (`bias` is false, or [`NormBias::Inside`](crate::NormBias::Inside)).
    pub fn policy_size(&self) -> usize {
        let bias = self.gates.bias.is_some();
        PolicyLayout::size(self.d_input, self.d_hidden, self.d_output, bias)
    }

    /// The weights for one call.
    pub fn bind(&self) -> steps::adaptive::AdaptiveLstmStep {
        steps::adaptive::AdaptiveLstmStep {
            preact: self.gates.bind(),
            transition: self.update.bind(),
            policy_layout: self.policy_layout,
        }
    }

    /// One step without dropout.
    ///
    /// # Shapes
    /// - input `[batch_size, d_input]`; output `[batch_size, d_output]`
    /// - policy `[batch_size, policy_size]`
    /// - state: zeros where `None`
    ///
    /// # Gradients
    /// To the input, the policy, every parameter and the state.
    ///
    /// # Panics
    /// If the input, the policy or the state has another shape.
    #[track_caller]
    pub fn step(
        &self,
        input: Tensor<2>,
        policy: Tensor<2>,
        state: Option<LstmState<2>>,
    ) -> (Tensor<2>, LstmState<2>) {
        let zeros = |features| {
            let options = (&input.device(), input.dtype());
            Tensor::zeros([input.dims()[0], features], options)
        };
        let state = state.unwrap_or_else(|| LstmState {
            cell: zeros(self.d_hidden),
            hidden: zeros(self.d_output),
        });
        self.bind().step_once(input, policy, state)
    }
}

/// One layer of an [`AdaptiveLstm`].
#[derive(Module, Debug)]
pub struct AdaptiveLayer {
    /// The adaptation cell, on `[x, h, z_below]`.
    pub adapt: LstmCell,
    /// P `[d_adapt, policy_size]`
    pub policy_projection: Param<Tensor<2>>,
    /// The cell that the policy scales.
    pub cell: AdaptiveLstmCell,
}

/// All layers of an [`AdaptiveLstm`] in one direction, which advance together.
#[derive(Module, Debug)]
pub struct AdaptiveLayers {
    /// First to last.
    pub layers: Vec<AdaptiveLayer>,
    /// Whether each layer but the first adds its input to its output.
    pub residual: bool,
    /// Probability of zeroing z.
    pub dropout_adapt: f64,
}

impl Cell for AdaptiveLayers {
    type Step = steps::adaptive::AdaptiveLayersStep;

    fn bind(&self) -> Self::Step {
        let layers = self
            .layers
            .iter()
            .map(|layer| steps::adaptive::AdaptiveLayerStep {
                adapt: layer.adapt.bind(),
                policy_projection: layer.policy_projection.val(),
                cell: layer.cell.bind(),
            });
        steps::adaptive::AdaptiveLayersStep {
            layers: layers.collect(),
            residual: self.residual,
        }
    }

    fn d_input(&self) -> usize {
        self.layers[0].cell.d_input
    }

    fn d_hidden(&self) -> usize {
        self.layers[self.layers.len() - 1].cell.d_hidden
    }

    fn d_output(&self) -> usize {
        self.layers[self.layers.len() - 1].cell.d_output
    }

    fn layers(&self) -> usize {
        self.layers.len()
    }

    fn dropout_adapt(&self) -> f64 {
        self.dropout_adapt
    }
}

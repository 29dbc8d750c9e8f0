//! The adaptive LSTM (aLSTM). Equations: [`recurrent_core::equations::adaptive`],
//! [`recurrent_core::cell::adaptive`].

use alloc::vec::Vec;

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Initializer, LstmState};
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;
pub use recurrent_core::cell::adaptive::AdaptiveState;
pub use recurrent_core::equations::adaptive::PolicyLayout;

use super::{Cell, CellOptions, GateWeights, LayerNormConfig, LstmCell, StateUpdate};
use crate::error::{InvalidConfig, check_prob, check_size, or_panic};
use crate::init::{WeightInit, check_vector_initializer, packed_weight, uniform_by};
use crate::masks::RecurrentDropout;
use crate::stack::{Stack, StackConfig};

/// The adaptive LSTM (aLSTM), created with [`AdaptiveLstmConfig`].
///
/// ```text
/// z_l, m_l = LSTM([x, h_l, z_below], (z_l, m_l))     p = tanh(z_l·P_l)       the policy
/// z = ((x ⊙ p_x)·W) ⊙ p_i + ((h ⊙ p_h)·R) ⊙ p_g + b ⊙ p_b     then as in Lstm
/// ```
/// where `p = [p_x | p_h | p_i | p_g | p_b]` and z_below is the adaptation state of the layer below;
/// layer 0 has that of the top layer at the previous step, a single layer has none. Flennerhag et
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

/// Configuration of [`AdaptiveLstm`].
///
/// The fields have the names and meanings of the other variants' configs, seen from the model's own
/// layers. By default the weights start as in the published code: W and R orthogonal as a whole,
/// biases 0, those of the forget gate 1; adaptation cells and P as in PyTorch.
#[derive(Config, Debug, PartialEq)]
pub struct AdaptiveLstmConfig {
    /// Features of one input step.
    pub d_input: usize,
    /// Units of each layer; with `layer_sizes`, of the last.
    pub d_hidden: usize,
    /// Units A of each adaptation cell; 100 by default, as in the paper's language models.
    #[config(default = 100)]
    pub d_adapt: usize,
    /// Where the parts of the policy lie. Overlapping is for checkpoints of the published code.
    #[config(default = "PolicyLayout::Cumulative")]
    pub policy_layout: PolicyLayout,
    /// Probability of zeroing z, one mask per sequence.
    #[config(default = 0.0)]
    pub dropout_adapt: f64,
    /// W and R of the adaptation cells, and P; U(−1/√A, 1/√A) by default, as in PyTorch.
    pub adapt_initializer: Option<Initializer>,
    /// Layer normalisation in the cells that the policy scales, before its factors; none by
    /// default.
    pub layer_norm: Option<LayerNormConfig>,
    /// Number of layers.
    #[config(default = 1)]
    pub num_layers: usize,
    /// Units of each layer, where they differ; see `stacked`.
    pub layer_sizes: Option<Vec<usize>>,
    /// Whether a second model of all layers runs backward; outputs are concatenated at the top.
    #[config(default = false)]
    pub bidirectional: bool,
    /// Whether the only direction runs from the last step to the first. Outputs stay at the time
    /// of their input.
    #[config(default = false)]
    pub reverse: bool,
    /// Whether input and output are `[batch_size, seq_length, ·]`; else
    /// `[seq_length, batch_size, ·]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// Must be 0: what is passed up is the h of the layer below, which `recurrent_dropout` masks.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Dropout inside the cells that the policy scales. Masks on h act on what is fed back, passed
    /// up and returned as the state, but not on the output.
    #[config(default = "RecurrentDropout::None")]
    pub recurrent_dropout: RecurrentDropout,
    /// Probability of zeroing each recurrent weight, of the adaptation cells too, anew in each
    /// call.
    #[config(default = 0.0)]
    pub weight_drop: f64,
    /// Whether each layer but the first adds its input to what it passes up and puts out. Their
    /// sizes must agree.
    #[config(default = false)]
    pub residual: bool,
    /// Size of the projected hidden state (LSTMP; PyTorch's `proj_size`).
    pub d_proj: Option<usize>,
    /// Whether there is a bias, and with it a p_b. The adaptation cells always have one.
    #[config(default = true)]
    pub bias: bool,
    /// Bounds the cell state to [−clip, clip] before tanh.
    pub clip: Option<f64>,
    /// Both weight matrices, gate by gate; each orthogonal as a whole by default.
    pub initializer: Option<Initializer>,
    /// Input weights, over `initializer`.
    pub input_initializer: Option<Initializer>,
    /// Recurrent weights (and the projection), over `initializer`.
    pub hidden_initializer: Option<Initializer>,
    /// Biases; 0 and for the forget gate 1 by default.
    pub bias_initializer: Option<Initializer>,
    /// Initial bias of the forget gate, in pre-activation units; over `bias_initializer`.
    pub forget_bias: Option<f64>,
}

impl AdaptiveLstmConfig {
    /// Layers of the listed sizes, first to last.
    ///
    /// An empty list is reported by [`validate`](Self::validate).
    pub fn stacked(d_input: usize, layer_sizes: impl Into<Vec<usize>>) -> Self {
        let sizes = layer_sizes.into();
        Self::new(d_input, sizes.last().copied().unwrap_or(0))
            .with_num_layers(sizes.len())
            .with_layer_sizes(Some(sizes))
    }

    /// With the paper's dropout: one mask per sequence on h, one on z.
    pub fn gal(d_input: usize, d_hidden: usize, prob: f64, prob_adapt: f64) -> Self {
        Self::new(d_input, d_hidden)
            .with_recurrent_dropout(RecurrentDropout::Gal { prob })
            .with_dropout_adapt(prob_adapt)
    }

    /// The config of a module: what is needed to build it again, not how it started.
    ///
    /// Initial values are left at their defaults. What the config has once for all layers
    /// (projection, clip, biases, normalisation) is that of the first.
    pub fn of(module: &AdaptiveLstm) -> Self {
        let layers = &module.layers[0].forward;
        let first = &layers.layers[0];
        let cell = &first.cell;
        let sizes: Vec<usize> = layers.layers.iter().map(|l| l.cell.d_hidden).collect();
        let unequal = sizes.windows(2).any(|pair| pair[0] != pair[1]);
        Self::stacked(cell.d_input, sizes.clone())
            .with_layer_sizes(unequal.then_some(sizes))
            .with_d_adapt(first.adapt.d_hidden)
            .with_policy_layout(cell.policy_layout)
            .with_dropout_adapt(layers.dropout_adapt)
            .with_layer_norm(LayerNormConfig::of(&cell.gates, &cell.update))
            .with_bidirectional(module.directions() > 1)
            .with_reverse(module.reverse)
            .with_batch_first(module.batch_first)
            .with_recurrent_dropout(module.recurrent_dropout)
            .with_weight_drop(module.weight_drop)
            .with_residual(layers.residual)
            .with_d_proj(cell.update.projection.is_some().then_some(cell.d_output))
            .with_bias(cell.gates.has_bias())
            .with_clip(cell.update.clip)
    }

    /// The largest size, and the number of layers.
    pub(crate) fn largest(&self) -> [usize; 2] {
        let d_proj = self.d_proj.unwrap_or(0);
        let sizes = [self.d_input, self.d_hidden, self.d_adapt, d_proj];
        let listed = self.layer_sizes.iter().flatten().copied();
        let largest = sizes.into_iter().chain(listed).max().unwrap_or(0);
        [largest, self.num_layers]
    }

    /// The stack around the model: one layer, which holds all of the model's.
    fn container(&self) -> StackConfig {
        StackConfig::new(self.d_input, self.d_hidden)
            .with_bidirectional(self.bidirectional)
            .with_reverse(self.reverse)
            .with_batch_first(self.batch_first)
            .with_recurrent_dropout(self.recurrent_dropout)
            .with_weight_drop(self.weight_drop)
    }

    /// The model's own layers as a stack.
    fn layers(&self) -> StackConfig {
        self.container()
            .with_num_layers(self.num_layers)
            .with_layer_sizes(self.layer_sizes.clone())
            .with_residual(self.residual)
    }

    /// Of the cell that the policy scales.
    fn cell_options(&self, d_input: usize, d_hidden: usize) -> CellOptions {
        let or_common =
            |own: &Option<Initializer>| own.clone().or_else(|| self.initializer.clone());
        let as_published = self.bias && self.bias_initializer.is_none();
        let zeros = as_published.then_some(Initializer::Zeros);
        CellOptions {
            d_input,
            d_hidden,
            d_proj: self.d_proj,
            bias: self.bias,
            clip: self.clip,
            layer_norm: self.layer_norm.clone(),
            init: WeightInit::new()
                .with_input(or_common(&self.input_initializer))
                .with_hidden(or_common(&self.hidden_initializer))
                .with_bias(self.bias_initializer.clone().or(zeros))
                .with_forget_bias(self.forget_bias.or(as_published.then_some(1.0))),
        }
    }

    /// Of the cells that the policies scale, first to last.
    fn cells(&self) -> Vec<CellOptions> {
        let mut d_input = self.d_input;
        let cell = |d_hidden| {
            let options = self.cell_options(d_input, d_hidden);
            d_input = options.d_output();
            options
        };
        self.layers().sizes().into_iter().map(cell).collect()
    }

    /// Checks the config without making a tensor.
    ///
    /// # Errors
    /// If a size is 0, a probability is not in [0, 1), a bound is not positive, or two fields
    /// contradict each other.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.layers().validate()?;
        check_size("d_adapt", self.d_adapt)?;
        check_prob("dropout_adapt", self.dropout_adapt)?;
        check_prob("dropout", self.dropout)?;
        if self.dropout > 0.0 {
            return Err(InvalidConfig::contradiction(
                "dropout",
                "AdaptiveLstm",
                "its layers advance together, and what each passes up is the h that it feeds back; \
                 recurrent_dropout on h acts on both",
            ));
        }
        check_vector_initializer("bias_initializer", &self.bias_initializer)?;
        let cells = self.cells();
        for options in &cells {
            options.validate_for(GateLayout::LSTM)?;
        }
        // The directions of this model do not meet between its layers.
        let one_way = self.layers().with_bidirectional(false);
        one_way.check_residual(cells.iter().map(CellOptions::d_output))?;
        Ok(())
    }

    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn try_init(&self, device: &Device) -> Result<AdaptiveLstm, InvalidConfig> {
        self.validate()?;
        self.container()
            .try_init_with(|_, _| Ok(self.new_layers(device)))
    }

    /// # Panics
    /// Where [`try_init`](Self::try_init) gives an error, with the same text.
    #[track_caller]
    pub fn init(&self, device: &Device) -> AdaptiveLstm {
        or_panic("AdaptiveLstmConfig", self.try_init(device))
    }

    /// A bare cell, which takes its policy as an argument.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); also if the config asks for what only the model around a
    /// cell can do: more than one layer, directions, dropout.
    pub fn try_init_cell(&self, device: &Device) -> Result<AdaptiveLstmCell, InvalidConfig> {
        self.validate()?;
        let plain =
            StackConfig::new(self.d_input, self.d_hidden).with_batch_first(self.batch_first);
        if self.layers() != plain || self.dropout_adapt > 0.0 {
            return Err(InvalidConfig::contradiction(
                "layers, directions or dropout",
                "a bare cell",
                "a cell has one layer and one direction and no dropout of its own; use `init`, \
                 whose `step` has all of them",
            ));
        }
        Ok(self.new_cell(&self.cell_options(self.d_input, self.d_hidden), device))
    }

    /// # Panics
    /// Where [`try_init_cell`](Self::try_init_cell) gives an error, with the same text.
    #[track_caller]
    pub fn init_cell(&self, device: &Device) -> AdaptiveLstmCell {
        or_panic("AdaptiveLstmConfig", self.try_init_cell(device))
    }

    fn new_layers(&self, device: &Device) -> AdaptiveLayers {
        let cells = self.cells();
        let z_below = if cells.len() > 1 { self.d_adapt } else { 0 };
        let layers = cells
            .iter()
            .map(|options| {
                let d_seen = options.d_input + options.d_output() + z_below;
                let adapt = self.adapt_options(d_seen);
                let cell = self.new_cell(options, device);
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

    fn new_cell(&self, options: &CellOptions, device: &Device) -> AdaptiveLstmCell {
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
    /// What follows the gates.
    pub update: StateUpdate,
    /// Where the parts of a policy lie.
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
    pub fn bind(&self) -> steps::adaptive::AdaptiveLstmCell {
        steps::adaptive::AdaptiveLstmCell {
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
    /// Whether each layer but the first adds its input to what it passes up and puts out.
    pub residual: bool,
    /// Probability of zeroing z.
    pub dropout_adapt: f64,
}

impl Cell for AdaptiveLayers {
    type Step = steps::adaptive::AdaptiveLayers;

    fn bind(&self) -> Self::Step {
        let layers = self
            .layers
            .iter()
            .map(|layer| steps::adaptive::AdaptiveLayer {
                adapt: layer.adapt.bind(),
                policy_projection: layer.policy_projection.val(),
                cell: layer.cell.bind(),
            });
        steps::adaptive::AdaptiveLayers {
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

    fn dropout_adapt(&self) -> f64 {
        self.dropout_adapt
    }
}

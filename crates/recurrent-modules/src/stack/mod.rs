//! Level 4: layers over layers, dropout between them.

mod call;
mod named;

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use burn::config::Config;
use burn::module::{Flag, Module, Param};
use burn::tensor::{DType, Device, Tensor};
use recurrent_core::{
    Dims, History, Lengths, Packing, Precision, Step, Strategy, Unfused, sequence,
};

use call::Call;
pub(crate) use named::StateNames;

use crate::cell::{Cell, StateOf};
use crate::error::{InvalidConfig, check_prob, check_size};
use crate::flat::flat_fields;
use crate::layer::{How, Layer, Packed, Padded, Recorded, RunCell};
use crate::masks::{RecurrentDropout, StackMasks};
use crate::packed::PackedSequence;
use crate::state::StackState;

/// How cells are combined into a stack. The configs of the variants contain it; use it directly for your own
/// cells.
#[derive(Config, Debug, PartialEq)]
pub struct StackConfig {
    /// Features of one input step.
    pub d_input: usize,
    /// Units of each layer; with `layer_sizes`, of the last layer.
    pub d_hidden: usize,
    /// Number of layers.
    #[config(default = 1)]
    pub num_layers: usize,
    /// Units of each layer, if they differ; see `stacked` of the variants' configs.
    pub layer_sizes: Option<Vec<usize>>,
    /// Whether each layer has a second cell that runs backward; outputs are concatenated.
    #[config(default = false)]
    pub bidirectional: bool,
    /// Whether the only direction runs from the last step to the first. Outputs keep the time step of their
    /// input.
    #[config(default = false)]
    pub reverse: bool,
    /// Whether input and output are `[batch_size, seq_length, ·]`; else `[seq_length, batch_size, ·]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// Probability of zeroing the outputs of each layer but the last, with a new mask at each step.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// Dropout inside the cells.
    #[config(default = "RecurrentDropout::None")]
    pub recurrent_dropout: RecurrentDropout,
    /// Probability of zeroing each recurrent weight, with a new mask in each call: R' = M ⊙ R with one M for
    /// all steps (weight drop; Merity et al., arXiv:1708.02182).
    #[config(default = 0.0)]
    pub weight_drop: f64,
    /// Whether each layer but the first adds its input to its output, before dropout (Wu et al.,
    /// arXiv:1609.08144). Their sizes must agree.
    #[config(default = false)]
    pub residual: bool,
}

flat_fields!(StackConfig {
    d_input,
    d_hidden,
    num_layers,
    layer_sizes,
    bidirectional,
    reverse,
    batch_first,
    dropout,
    recurrent_dropout,
    weight_drop,
    residual,
});

impl StackConfig {
    /// The config of a stack: sizes, layers, directions and dropout.
    pub fn of<C: Cell>(stack: &Stack<C>) -> Self {
        let cells = stack.layers.iter().map(|layer| &layer.forward);
        let sizes: Vec<usize> = cells.map(Cell::d_hidden).collect();
        let unequal = sizes.windows(2).any(|pair| pair[0] != pair[1]);
        Self {
            d_input: stack.d_input(),
            d_hidden: sizes[sizes.len() - 1],
            num_layers: sizes.len(),
            layer_sizes: unequal.then_some(sizes),
            bidirectional: stack.directions() > 1,
            reverse: stack.reverse,
            batch_first: stack.batch_first,
            dropout: stack.dropout,
            recurrent_dropout: stack.recurrent_dropout,
            weight_drop: stack.weight_drop,
            residual: stack.residual,
        }
    }

    /// Units of each layer.
    pub fn sizes(&self) -> Vec<usize> {
        match &self.layer_sizes {
            Some(sizes) => sizes.clone(),
            None => vec![self.d_hidden; self.num_layers],
        }
    }

    /// # Errors
    /// If a size or the number of layers is 0, a probability is not in [0, 1), or two fields
    /// contradict each other.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        check_size("d_input", self.d_input)?;
        if let Some(sizes) = &self.layer_sizes {
            // First, since `stacked` derives the other sizes from the list.
            let expected = match sizes.contains(&0) {
                true => Some("sizes of at least 1"),
                false => sizes.is_empty().then_some("at least one size"),
            };
            if let Some(expected) = expected {
                let got = format!("{sizes:?}");
                return Err(InvalidConfig::value("layer_sizes", got, expected));
            }
        }
        check_size("d_hidden", self.d_hidden)?;
        check_size("num_layers", self.num_layers)?;
        check_prob("dropout", self.dropout)?;
        self.recurrent_dropout.validate()?;
        check_prob("weight_drop", self.weight_drop)?;
        if self.bidirectional && self.reverse {
            return Err(InvalidConfig::contradiction(
                "bidirectional",
                "reverse",
                "both directions run already",
            ));
        }
        if let Some(sizes) = &self.layer_sizes {
            if self.num_layers != sizes.len() {
                return Err(InvalidConfig::contradiction(
                    "num_layers",
                    "layer_sizes",
                    format!("{} layers, but {} sizes", self.num_layers, sizes.len()),
                ));
            }
            if sizes.last() != Some(&self.d_hidden) {
                return Err(InvalidConfig::contradiction(
                    "d_hidden",
                    "layer_sizes",
                    format!(
                        "d_hidden is {}, the last layer has {} units",
                        self.d_hidden,
                        sizes[sizes.len() - 1]
                    ),
                ));
            }
        }
        if self.dropout > 0.0 && self.num_layers == 1 {
            return Err(InvalidConfig::contradiction(
                "dropout",
                "num_layers",
                "dropout acts between layers (none after the last), and there is only one; \
                 for dropout inside the cell see recurrent_dropout",
            ));
        }
        if self.residual && self.num_layers == 1 {
            return Err(InvalidConfig::contradiction(
                "residual",
                "num_layers",
                "each layer but the first adds its input, and there is only one",
            ));
        }
        Ok(())
    }

    /// Checks the sizes of residual connections.
    ///
    /// # Arguments
    /// * `outputs` - the features that each layer passes to the next
    pub(crate) fn check_residual(
        &self,
        outputs: impl IntoIterator<Item = usize>,
    ) -> Result<(), InvalidConfig> {
        if !self.residual {
            return Ok(());
        }
        let outputs: Vec<usize> = outputs.into_iter().collect();
        for (index, pair) in outputs.windows(2).enumerate() {
            if pair[0] != pair[1] {
                return Err(InvalidConfig::contradiction(
                    "residual",
                    "layer_sizes",
                    format!(
                        "layer {} has {} input features and {} output features, which cannot be \
                         added",
                        index + 1,
                        pair[0],
                        pair[1],
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Builds the stack from a function that makes one cell of given sizes.
    ///
    /// # Arguments
    /// * `cell` - called with (`d_input`, `d_hidden`) for each layer and direction
    ///
    /// # Errors
    /// As [`validate`](Self::validate), and those of `cell`; also if residual connections do not
    /// match the sizes of the cells, or `weight_drop` is set for cells without recurrent weights.
    pub fn try_init_with<C: Cell>(
        &self,
        mut cell: impl FnMut(usize, usize) -> Result<C, InvalidConfig>,
    ) -> Result<Stack<C>, InvalidConfig> {
        self.validate()?;
        let mut d_input = self.d_input;
        let mut layers: Vec<Layer<C>> = Vec::with_capacity(self.num_layers);
        for d_hidden in self.sizes() {
            let forward = cell(d_input, d_hidden)?;
            let backward = match self.bidirectional {
                true => Some(cell(d_input, d_hidden)?),
                false => None,
            };
            let layer = Layer { forward, backward };
            d_input = layer.d_output();
            layers.push(layer);
        }
        self.check_residual(layers.iter().map(Layer::d_output))?;
        if self.weight_drop > 0.0 {
            let mut cells = layers.iter().flat_map(Layer::cells);
            if cells.any(|cell| cell.bind().recurrent_weights().is_empty()) {
                return Err(InvalidConfig::contradiction(
                    "weight_drop",
                    "the cell",
                    "its `Step::recurrent_weights` names no weights to drop",
                ));
            }
        }
        Ok(Stack {
            layers,
            training: Param::from_bool(true),
            reverse: self.reverse,
            batch_first: self.batch_first,
            dropout: self.dropout,
            recurrent_dropout: self.recurrent_dropout,
            weight_drop: self.weight_drop,
            residual: self.residual,
            strategy: Strategy::Auto,
            precision: Precision::F32,
        })
    }
}

/// Options of one call of [`Stack::forward_with`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ForwardOptions<'a> {
    /// Length of each sequence of the batch.
    pub lengths: Option<&'a Lengths>,
    /// Masks to use instead of sampling; they act in evaluation too.
    pub masks: Option<&'a StackMasks>,
}

/// Layers of one kind of cell. [`Lstm`](crate::Lstm) and every other variant is a `Stack`.
///
/// # Dropout
/// Dropout acts in a call if both of the following hold:
/// - `training` is set; [`freeze`](Module::freeze) and [`valid`](Module::valid) clear it;
/// - the input or a parameter is on an autodiff device. An input on the plain device does not turn dropout off
///   if the parameters are trained.
///
/// This applies to every kind: between layers, inside the cells
/// ([`RecurrentDropout`]), on the weights (`weight_drop`) and in adaptation cells. In evaluation
/// nothing is dropped, and zoneout uses its expectation.
///
/// # Data types
/// Input, state, parameters and given masks of a call must have the same data type. Otherwise the call
/// panics before it computes anything, with the tensor, its type and the expected type; cast the input or the module.
/// f32 runs by fused kernels where they exist, other types step by step. Masks and zero states created by a call have
/// the type of the parameters.
///
/// # Empty inputs
/// Empty batches, inputs without steps and sequences of length 0 are valid. Their outputs
/// are empty or zero. Their final state is the initial one, and gradients pass through it
/// unchanged.
#[derive(Module, Debug)]
pub struct Stack<C: Cell> {
    /// The layers, first to last.
    pub layers: Vec<Layer<C>>,
    /// Whether dropout may act; cleared by freezing the module, as in Burn's `Dropout`.
    pub training: Param<Flag>,
    /// Whether the only direction runs from the last step to the first.
    pub reverse: bool,
    /// Whether input and output are `[batch_size, seq_length, ·]`.
    pub batch_first: bool,
    /// Probability of zeroing outputs between layers.
    pub dropout: f64,
    /// Dropout inside the cells.
    #[module(skip)]
    pub recurrent_dropout: RecurrentDropout,
    /// Probability of zeroing each recurrent weight.
    pub weight_drop: f64,
    /// Whether each layer but the first adds its input to its output.
    pub residual: bool,
    /// Fused kernels or step by step; set by [`with_strategy`](Self::with_strategy).
    #[module(skip)]
    pub strategy: Strategy,
    /// Precision of the recurrent weights in inference; set by
    /// [`with_precision`](Self::with_precision).
    #[module(skip)]
    pub precision: Precision,
}

impl<C: Cell> Stack<C> {
    /// Chooses fused kernels or step-by-step execution; the default is [`Strategy::Auto`].
    ///
    /// The results differ only in rounding.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{DType, Device, Tensor};
    /// use recurrent_modules::{LstmConfig, Strategy};
    ///
    /// let device = Device::flex();
    /// let lstm = LstmConfig::new(3, 4).init(&device).with_strategy(Strategy::Composed);
    /// let (out, _) = lstm.forward(Tensor::<3>::ones([2, 5, 3], &device), None);
    /// assert_eq!(out.dims(), [2, 5, 4]);
    /// ```
    pub fn with_strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Rounds recurrent weights to bf16 in inference of a single sequence, which is bound by their memory traffic; see
    /// [`Precision::Bf16`]. The parameters stay f32.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The reason why [`Strategy::Auto`] runs step by step for this device and data type, or `None` if a fused kernel
    /// runs: the first reason of any layer. [`Unfused::Types`] means that such a call is an error, because some
    /// weights have another type.
    pub fn unfused(&self, device: &Device, dtype: DType) -> Option<Unfused> {
        let layers = self.bind();
        if let Err(mixed) = call::call_type(&layers, dtype) {
            return Some(mixed.into());
        }
        let mut cells = layers.iter().flat_map(|layer| layer.cells());
        cells.find_map(|cell| sequence::reason(cell, device, dtype))
    }

    /// Features of one input step.
    pub fn d_input(&self) -> usize {
        self.layers[0].forward.d_input()
    }

    /// Features of the output: directions · (units or projected size) of the last layer.
    pub fn d_output(&self) -> usize {
        self.layers[self.layers.len() - 1].d_output()
    }

    /// 1, or 2 when bidirectional.
    pub fn directions(&self) -> usize {
        self.layers[0].directions()
    }

    /// Runs the layers over a batch of sequences.
    ///
    /// ```text
    /// y_l = layer_l(x_l)      x_{l+1} = dropout(y_l)
    ///                         x_{l+1} = dropout(y_l + x_l)     with `residual`, l ≥ 1
    /// ```
    /// where x_0 is the input and the last layer's x_{l+1}, without dropout, the output.
    ///
    /// # Arguments
    /// * `input` - `[batch_size, seq_length, d_input]`, or `[seq_length, batch_size, d_input]`
    ///   without `batch_first`
    /// * `state` - the initial state; zeros where `None`
    ///
    /// # Returns
    /// The output of the last layer, `[batch_size, seq_length, directions·d_output]` (or
    /// time-major as the input), and the final state of each layer and direction.
    ///
    /// # Gradients
    /// To `input`, every parameter and the initial state; none to masks. First order only.
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_input`, the state has other sizes than the stack, or
    /// input, state and weights are not of one [data type](Stack#data-types).
    #[track_caller]
    pub fn forward(
        &self,
        input: Tensor<3>,
        state: Option<StackState<StateOf<C>>>,
    ) -> (Tensor<3>, StackState<StateOf<C>>) {
        self.forward_with(input, state, ForwardOptions::default())
    }

    /// [`forward`](Self::forward) with lengths or given masks.
    ///
    /// With lengths, outputs past a sequence's end are zero, its final state is that of its own
    /// last step, the backward direction starts there, and padding is never read.
    ///
    /// # Panics
    /// As [`forward`](Self::forward); also if lengths or masks do not match the batch.
    #[track_caller]
    pub fn forward_with(
        &self,
        input: Tensor<3>,
        state: Option<StackState<StateOf<C>>>,
        options: ForwardOptions<'_>,
    ) -> (Tensor<3>, StackState<StateOf<C>>) {
        self.forward_by(input, state, options, &mut Padded)
    }

    /// [`forward_with`](Self::forward_with) that also returns the states after every step. It uses a fused kernel
    /// under the same conditions.
    ///
    /// # Returns
    /// Output and final state as [`forward_with`](Self::forward_with), and for each layer and
    /// direction, ordered as the states, the history of each part of the state (for the LSTM
    /// `cell` and `hidden`): batch- or time-major as the input, at the time step of its input, zero past
    /// each length. Histories are those of the cells, before dropout between layers and residual
    /// connections.
    ///
    /// # Gradients
    /// As [`forward_with`](Self::forward_with), and through the histories.
    ///
    /// # Panics
    /// As [`forward_with`](Self::forward_with).
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{DType, Device, Tensor};
    /// use recurrent_modules::{ForwardOptions, LstmConfig};
    ///
    /// let device = Device::flex();
    /// let lstm = LstmConfig::new(3, 4).with_num_layers(2).init(&device);
    /// let x = Tensor::<3>::ones([2, 5, 3], &device);
    /// let (out, _, histories) = lstm.forward_histories(x, None, ForwardOptions::default());
    /// assert_eq!(histories[0].part("cell").dims(), [2, 5, 4]);
    /// assert_eq!(histories[1].part("hidden").into_data(), out.into_data());
    /// ```
    #[track_caller]
    pub fn forward_histories(
        &self,
        input: Tensor<3>,
        state: Option<StackState<StateOf<C>>>,
        options: ForwardOptions<'_>,
    ) -> (Tensor<3>, StackState<StateOf<C>>, Vec<History>) {
        let mut recorded = Recorded(Vec::new());
        let (output, state) = self.forward_by(input, state, options, &mut recorded);
        let histories = recorded.0.into_iter();
        let histories = histories.map(|history| history.map(|part| self.swap_if_batch_first(part)));
        (output, state, histories.collect())
    }

    /// Runs the layers over a packed batch, without padding.
    ///
    /// # Arguments
    /// * `input` - packed rows of `d_input` features
    /// * `state` - the initial state, in the order of the batch that was packed; zeros where `None`
    ///
    /// # Returns
    /// The output, packed as the input, and the final state, in the order of the batch.
    /// The same as [`forward_with`](Self::forward_with) with lengths on the padded batch.
    ///
    /// # Gradients
    /// As [`forward`](Self::forward), to the packed rows.
    ///
    /// # Panics
    /// If the rows have another size than `d_input`, the state has other sizes than the stack, or
    /// rows, state and weights are not of one [data type](Stack#data-types).
    #[track_caller]
    pub fn forward_packed(
        &self,
        input: &PackedSequence,
        state: Option<StackState<StateOf<C>>>,
    ) -> (PackedSequence, StackState<StateOf<C>>) {
        let lengths = input.lengths();
        let rows = input.data();
        let [_, features] = rows.dims();
        assert!(
            features == self.d_input(),
            "input has inconsistent d_input: got {features}, expected {}",
            self.d_input(),
        );
        let (seq_length, batch_size) = (lengths.max(), lengths.as_slice().len());
        let call = self.prepare(&rows, seq_length, batch_size, state, None);
        let packing = Packing::new(lengths, seq_length, &rows.device());
        let between = |mask: &Tensor<3>| packing.pack(mask.clone().slice(0..seq_length));
        let (rows, state) = self.layers_over(rows, call, Some(lengths), between, &mut Packed);
        (input.with_data(rows), state)
    }

    #[track_caller]
    fn forward_by(
        &self,
        input: Tensor<3>,
        state: Option<StackState<StateOf<C>>>,
        options: ForwardOptions<'_>,
        run: &mut impl RunCell<3>,
    ) -> (Tensor<3>, StackState<StateOf<C>>) {
        let input = self.swap_if_batch_first(input);
        let Dims {
            seq_length,
            batch_size,
            ..
        } = Dims::of(&input, self.d_input(), self.layers[0].forward.d_hidden());
        let call = self.prepare(&input, seq_length, batch_size, state, options.masks);
        let between = |mask: &Tensor<3>| mask.clone().slice(0..seq_length);
        let (output, state) = self.layers_over(input, call, options.lengths, between, run);
        (self.swap_if_batch_first(output), state)
    }

    /// Runs the layers one after the other, over padded (`D` = 3) or packed (`D` = 2) sequences.
    ///
    /// # Arguments
    /// * `between` - converts a mask between layers to the layout of the sequences
    /// * `run` - runs one cell
    #[track_caller]
    fn layers_over<const D: usize>(
        &self,
        input: Tensor<D>,
        call: Call<'_, C::Step>,
        lengths: Option<&Lengths>,
        between: impl Fn(&Tensor<3>) -> Tensor<D>,
        run: &mut impl RunCell<D>,
    ) -> (Tensor<D>, StackState<StateOf<C>>) {
        let directions = self.directions();
        let how = How {
            reverse: self.reverse,
            strategy: self.strategy,
            precision: self.precision,
        };
        let Call {
            layers,
            mut states,
            masks,
        } = call;
        let mut x = input;
        let mut finals = Vec::with_capacity(layers.len() * directions);
        for (index, layer) in layers.into_iter().enumerate() {
            let cell_masks = masks
                .cells
                .get(index * directions..(index + 1) * directions)
                .unwrap_or(&[]);
            let states = states
                .as_mut()
                .map(|states| core::mem::take(&mut states[index]));
            let skipped = (self.residual && index > 0).then(|| x.clone());
            let (output, layer_finals) = layer.run(x, states, lengths, cell_masks, how, run);
            finals.extend(layer_finals);
            if output.dims().contains(&0) {
                x = output; // there is nothing to add to or to drop
                continue;
            }
            let output = match skipped {
                Some(skipped) => output + skipped,
                None => output,
            };
            x = match masks.between.get(index) {
                Some(Some(mask)) => output * between(mask),
                _ => output,
            };
        }
        (x, StackState { cells: finals })
    }

    /// One step of all layers: `(y_t, s_t) = step(x_t, s_{t−1})`, for streaming.
    ///
    /// In training with dropout each call samples new masks; to use one per-sequence mask for several
    /// calls, use [`step_with`](Self::step_with).
    ///
    /// For inference use the plain device: `stack.valid()`, with inputs and states on that device. On an autodiff
    /// device each call adds to the graph, which Burn 0.22.1 frees only at a `backward` through the same
    /// parameters, so without one memory grows with every call (`docs/known-issues.md`).
    ///
    /// # Shapes
    /// - input `[batch_size, d_input]`, output `[batch_size, d_output]`
    ///
    /// # Panics
    /// If the stack is bidirectional (a step cannot see the future), the last axis of `input` is
    /// not `d_input`, the state has other sizes than the stack, or input, state and weights are not
    /// of one [data type](Stack#data-types).
    #[track_caller]
    pub fn step(
        &self,
        input: Tensor<2>,
        state: Option<StackState<StateOf<C>>>,
    ) -> (Tensor<2>, StackState<StateOf<C>>) {
        self.step_by(input, state, None, 0)
    }

    /// [`step`](Self::step) with given masks, of which per-step masks are read at time `t`.
    ///
    /// # Panics
    /// As [`step`](Self::step); also if a mask has the wrong shape.
    #[track_caller]
    pub fn step_with(
        &self,
        input: Tensor<2>,
        state: Option<StackState<StateOf<C>>>,
        masks: &StackMasks,
        t: usize,
    ) -> (Tensor<2>, StackState<StateOf<C>>) {
        self.step_by(input, state, Some(masks), t)
    }

    #[track_caller]
    fn step_by(
        &self,
        input: Tensor<2>,
        state: Option<StackState<StateOf<C>>>,
        masks: Option<&StackMasks>,
        t: usize,
    ) -> (Tensor<2>, StackState<StateOf<C>>) {
        assert!(
            self.directions() == 1,
            "step needs one direction, got a bidirectional stack: its backward direction starts \
             at the end of the sequence; use forward",
        );
        let [batch_size, features] = input.dims();
        assert!(
            features == self.d_input(),
            "input has inconsistent d_input: got {features}, expected {}",
            self.d_input(),
        );
        let Call {
            layers,
            mut states,
            masks,
        } = self.prepare(&input, t + 1, batch_size, state, masks);
        let mut x = input;
        let mut finals = Vec::with_capacity(layers.len());
        for (index, layer) in layers.into_iter().enumerate() {
            let cell = layer.into_forward();
            let state = states.as_mut().and_then(|states| states[index].pop());
            let state = state.unwrap_or_else(|| {
                sequence::initial_state(&cell, batch_size, &x.device(), x.dtype())
            });
            let step_masks = match masks.cells.get(index) {
                Some(masks) if batch_size > 0 => masks.at(t),
                _ => Default::default(),
            };
            let skipped = (self.residual && index > 0).then(|| x.clone());
            let (output, next) = sequence::step(&cell, x, state, &step_masks, self.strategy);
            finals.push(next);
            if batch_size == 0 {
                x = output;
                continue;
            }
            let output = match skipped {
                Some(skipped) => output + skipped,
                None => output,
            };
            x = match masks.between.get(index) {
                Some(Some(mask)) => {
                    let [_, rows, features] = mask.dims();
                    let mask = mask.clone().slice([t..t + 1, 0..rows, 0..features]);
                    output * mask.reshape([rows, features])
                }
                _ => output,
            };
        }
        (x, StackState { cells: finals })
    }

    /// The zero state, of the type of the weights.
    pub fn initial_state(&self, batch_size: usize, device: &Device) -> StackState<StateOf<C>> {
        StackState {
            cells: self
                .layers
                .iter()
                .flat_map(Layer::cells)
                .map(|cell| cell.bind().initial_state(batch_size, device))
                .collect(),
        }
    }

    /// The states of each layer.
    #[track_caller]
    pub(crate) fn per_layer(&self, state: StackState<StateOf<C>>) -> Vec<Vec<StateOf<C>>> {
        let directions = self.directions();
        let expected = self.layers.len() * directions;
        assert!(
            state.cells.len() == expected,
            "state has {} cells, expected layers × directions = {} × {directions} = {expected}",
            state.cells.len(),
            self.layers.len(),
        );
        let mut cells = state.cells.into_iter();
        self.layers
            .iter()
            .map(|_| cells.by_ref().take(directions).collect())
            .collect()
    }

    fn swap_if_batch_first(&self, tensor: Tensor<3>) -> Tensor<3> {
        if self.batch_first {
            tensor.swap_dims(0, 1)
        } else {
            tensor
        }
    }
}

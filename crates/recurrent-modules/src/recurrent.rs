//! The variant chosen at run time.

use alloc::vec::Vec;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use recurrent_core::{History, Precision, Step, Strategy, Unfused};

use crate::cells::{
    AdaptiveLstm, AdaptiveLstmConfig, Cell, CifgLstm, CifgLstmConfig, LayerNormLstm,
    LayerNormLstmConfig, Lstm, LstmConfig, MogrifierLstm, MogrifierLstmConfig, PeepholeLstm,
    PeepholeLstmConfig, SlowLstm, SlowLstmConfig, StateOf, UrLstm, UrLstmConfig,
};
use crate::error::{InvalidConfig, or_panic};
use crate::layer::Layer;
use crate::masks::StackMasks;
use crate::packed::PackedSequence;
use crate::stack::{ForwardOptions, Stack};
use crate::state::{LstmState, StackState, State};

/// A stack's state as (c, h) pairs: every state is a list of such pairs.
fn spread<S: State>(state: StackState<S>) -> StackState {
    let mut cells = Vec::new();
    for state in state.cells {
        let mut tensors = state.into_tensors().into_iter();
        while let (Some(cell), Some(hidden)) = (tensors.next(), tensors.next()) {
            cells.push(LstmState { cell, hidden });
        }
    }
    StackState { cells }
}

/// Inverse of [`spread`].
#[track_caller]
fn gather<C: Cell>(stack: &Stack<C>, state: StackState) -> StackState<StateOf<C>> {
    let cells = stack.layers.iter().flat_map(Layer::cells);
    let pairs: Vec<usize> = cells
        .map(|cell| cell.bind().state_parts().len() / 2)
        .collect();
    let directions = stack.directions();
    let layers = pairs.iter().sum::<usize>() / directions;
    let (got, expected) = (state.cells.len(), layers * directions);
    assert!(
        got == expected,
        "state has {got} cells, expected layers × directions = {layers} × {directions} = \
         {expected}",
    );
    let mut parts = state.cells.into_iter();
    let cells = pairs.into_iter().map(|count| {
        let pairs = parts.by_ref().take(count);
        State::from_tensors(pairs.flat_map(State::into_tensors).collect())
    });
    StackState {
        cells: cells.collect(),
    }
}

/// [`gather`] of a state that may not be given. Not `map`: a closure would hide the caller's line.
#[track_caller]
fn gather_given<C: Cell>(
    stack: &Stack<C>,
    state: Option<StackState>,
) -> Option<StackState<StateOf<C>>> {
    Some(gather(stack, state?))
}

/// Writes the two enums and hands each call to the variant; `$d` is a dollar sign, for the macros that
/// this one writes.
macro_rules! variants {
    ([$d:tt] $($(#[$doc:meta])* $Variant:ident($Module:ident, $Config:ident)),* $(,)?) => {
        /// Configuration of any variant, tagged with its name.
        ///
        /// # Example
        /// ```
        /// use burn::config::Config;
        /// use burn::tensor::{Device, Tensor};
        /// use recurrent_modules::{LstmConfig, RecurrentConfig};
        ///
        /// let json = RecurrentConfig::Lstm(LstmConfig::new(3, 4)).to_string();
        /// let config = RecurrentConfig::load_binary(json.as_bytes()).unwrap();
        /// assert_eq!(config.name(), "Lstm");
        /// let device = Device::flex();
        /// let (out, _) = config.init(&device).forward(Tensor::ones([2, 5, 3], &device), None);
        /// assert_eq!(out.dims(), [2, 5, 4]);
        /// ```
        #[derive(Config, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // configs are few and short-lived
        pub enum RecurrentConfig {
            $($(#[$doc])* $Variant($Config),)*
        }

        /// Any variant, chosen at run time with [`RecurrentConfig`].
        ///
        /// All variants have one type of state here: (c, h) pairs, as many as a [`StackState`] of
        /// the variant holds. For the aLSTM these are, for each direction and within it each layer,
        /// the pair of the cell and then that of the adaptation cell.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum Recurrent {
            $($(#[$doc])* $Variant($Module),)*
        }

        impl RecurrentConfig {
            /// The variant's name, as it stands in the JSON.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$Variant(_) => stringify!($Variant),)*
                }
            }

            /// The config of a model: what is needed to build it again, not how it started; see
            /// the `of` of the variant's own config.
            pub fn of(model: &Recurrent) -> Self {
                match model {
                    $(Recurrent::$Variant(stack) => Self::$Variant($Config::of(stack)),)*
                }
            }

            /// The largest size, and the largest number of layers or of parts with their own
            /// weights.
            pub(crate) fn largest(&self) -> [usize; 2] {
                match self {
                    $(Self::$Variant(config) => config.largest(),)*
                }
            }

            /// Checks the config without making a tensor.
            ///
            /// # Errors
            /// As the variant's own config.
            pub fn validate(&self) -> Result<(), InvalidConfig> {
                match self {
                    $(Self::$Variant(config) => config.validate(),)*
                }
            }

            /// # Errors
            /// As [`validate`](Self::validate).
            pub fn try_init(&self, device: &Device) -> Result<Recurrent, InvalidConfig> {
                Ok(match self {
                    $(Self::$Variant(config) => Recurrent::$Variant(config.try_init(device)?),)*
                })
            }

            /// # Panics
            /// Where [`try_init`](Self::try_init) gives an error, with the same text.
            #[track_caller]
            pub fn init(&self, device: &Device) -> Recurrent {
                or_panic(self.name(), self.try_init(device))
            }
        }

        /// Runs an expression with the module of whichever variant it is.
        macro_rules! by_variant {
            ($d model:expr, $d stack:ident => $d value:expr) => {
                match $d model {
                    $($crate::Recurrent::$Variant($d stack) => $d value,)*
                }
            };
        }

        /// The same, where the expression gives another module of the variant.
        macro_rules! map_variant {
            ($d model:expr, $d stack:ident => $d value:expr) => {
                match $d model {
                    $($crate::Recurrent::$Variant($d stack) => {
                        $crate::Recurrent::$Variant($d value)
                    })*
                }
            };
        }

        impl Recurrent {
            /// Features of one input step.
            pub fn d_input(&self) -> usize {
                match self {
                    $(Self::$Variant(stack) => stack.d_input(),)*
                }
            }

            /// Features of the output, all directions together.
            pub fn d_output(&self) -> usize {
                match self {
                    $(Self::$Variant(stack) => stack.d_output(),)*
                }
            }

            /// As [`Stack::with_strategy`](crate::Stack::with_strategy).
            pub fn with_strategy(self, strategy: Strategy) -> Self {
                match self {
                    $(Self::$Variant(stack) => Self::$Variant(stack.with_strategy(strategy)),)*
                }
            }

            /// As [`Stack::with_precision`](crate::Stack::with_precision).
            pub fn with_precision(self, precision: Precision) -> Self {
                match self {
                    $(Self::$Variant(stack) => Self::$Variant(stack.with_precision(precision)),)*
                }
            }

            /// As [`Stack::unfused`](crate::Stack::unfused).
            pub fn unfused(&self, device: &Device, dtype: DType) -> Option<Unfused> {
                match self {
                    $(Self::$Variant(stack) => stack.unfused(device, dtype),)*
                }
            }

            /// As [`Stack::forward`](crate::Stack::forward).
            #[track_caller]
            pub fn forward(
                &self,
                input: Tensor<3>,
                state: Option<StackState>,
            ) -> (Tensor<3>, StackState) {
                self.forward_with(input, state, ForwardOptions::default())
            }

            /// As [`Stack::forward_with`](crate::Stack::forward_with).
            #[track_caller]
            pub fn forward_with(
                &self,
                input: Tensor<3>,
                state: Option<StackState>,
                options: ForwardOptions<'_>,
            ) -> (Tensor<3>, StackState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let state = gather_given(stack, state);
                        let (output, state) = stack.forward_with(input, state, options);
                        (output, spread(state))
                    })*
                }
            }

            /// As [`Stack::step`](crate::Stack::step): to stream without training, call
            /// `model.valid()` first, since memory grows with every step on an autodiff device.
            #[track_caller]
            pub fn step(
                &self,
                input: Tensor<2>,
                state: Option<StackState>,
            ) -> (Tensor<2>, StackState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let state = gather_given(stack, state);
                        let (output, state) = stack.step(input, state);
                        (output, spread(state))
                    })*
                }
            }

            /// As [`Stack::step_with`](crate::Stack::step_with).
            #[track_caller]
            pub fn step_with(
                &self,
                input: Tensor<2>,
                state: Option<StackState>,
                masks: &StackMasks,
                t: usize,
            ) -> (Tensor<2>, StackState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let state = gather_given(stack, state);
                        let (output, state) = stack.step_with(input, state, masks, t);
                        (output, spread(state))
                    })*
                }
            }

            /// As [`Stack::forward_packed`](crate::Stack::forward_packed).
            #[track_caller]
            pub fn forward_packed(
                &self,
                input: &PackedSequence,
                state: Option<StackState>,
            ) -> (PackedSequence, StackState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let state = gather_given(stack, state);
                        let (output, state) = stack.forward_packed(input, state);
                        (output, spread(state))
                    })*
                }
            }

            /// As [`Stack::forward_histories`](crate::Stack::forward_histories); parts are named as
            /// the variant names them.
            #[track_caller]
            pub fn forward_histories(
                &self,
                input: Tensor<3>,
                state: Option<StackState>,
                options: ForwardOptions<'_>,
            ) -> (Tensor<3>, StackState, Vec<History>) {
                match self {
                    $(Self::$Variant(stack) => {
                        let state = gather_given(stack, state);
                        let (output, state, histories) =
                            stack.forward_histories(input, state, options);
                        (output, spread(state), histories)
                    })*
                }
            }

            /// As [`Stack::initial_state`](crate::Stack::initial_state).
            pub fn initial_state(&self, batch_size: usize, device: &Device) -> StackState {
                match self {
                    $(Self::$Variant(stack) => spread(stack.initial_state(batch_size, device)),)*
                }
            }

            /// As [`Stack::sample_masks`](crate::Stack::sample_masks).
            pub fn sample_masks(
                &self,
                seq_length: usize,
                batch_size: usize,
                device: &Device,
            ) -> StackMasks {
                match self {
                    $(Self::$Variant(stack) => {
                        stack.sample_masks(seq_length, batch_size, device)
                    })*
                }
            }
        }
    };
}

variants! {
    [$]
    /// Packed gates.
    Lstm(Lstm, LstmConfig),
    /// One pair of linears per gate.
    SlowLstm(SlowLstm, SlowLstmConfig),
    /// Layer-normalised.
    LayerNormLstm(LayerNormLstm, LayerNormLstmConfig),
    /// Coupled gates.
    CifgLstm(CifgLstm, CifgLstmConfig),
    /// Gates that look at the cell.
    PeepholeLstm(PeepholeLstm, PeepholeLstmConfig),
    /// Refine gate and uniform gate initialisation.
    UrLstm(UrLstm, UrLstmConfig),
    /// Input and state gate each other.
    MogrifierLstm(MogrifierLstm, MogrifierLstmConfig),
    /// A policy scales inputs and pre-activations.
    AdaptiveLstm(AdaptiveLstm, AdaptiveLstmConfig),
}

// The macros that the macro writes, as items of this module: clippy takes that for nothing.
#[allow(clippy::single_component_path_imports)]
pub(crate) use by_variant;
#[allow(clippy::single_component_path_imports)]
pub(crate) use map_variant;

//! The variant chosen at run time.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use recurrent_core::{History, Precision, Strategy, Unfused};

use crate::cells::config::shared_setters;
use crate::cells::{
    AdaptiveLstm, AdaptiveLstmConfig, CifgLstm, CifgLstmConfig, Gru, GruConfig, LayerNormLstm,
    LayerNormLstmConfig, Lstm, LstmConfig, MogrifierLstm, MogrifierLstmConfig, PeepholeLstm,
    PeepholeLstmConfig, SharedConfig, SlowLstm, SlowLstmConfig, UrLstm, UrLstmConfig,
};
use crate::error::{InvalidConfig, or_panic};
use crate::masks::StackMasks;
use crate::packed::PackedSequence;
use crate::stack::{ForwardOptions, StateNames};
use crate::state::RecurrentState;

/// Generates the two enums and their forwarding methods; `$d` is a dollar sign, for the macros that this one
/// generates.
macro_rules! variants {
    ([$d:tt] $($(#[$doc:meta])* $Variant:ident($Module:ident, $Config:ident)),* $(,)?) => {
        /// Configuration of any variant, tagged with its name.
        ///
        /// It has the fields and setters that all variants share: `config.num_layers`,
        /// `config.with_num_layers(2)`. A field that a variant does not support is an error of
        /// [`validate`](Self::validate).
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
        /// All variants have one type of state here, [`RecurrentState`]: named tensors per layer and
        /// direction.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum Recurrent {
            $($(#[$doc])* $Variant($Module),)*
        }

        impl Deref for RecurrentConfig {
            type Target = SharedConfig;

            fn deref(&self) -> &SharedConfig {
                match self {
                    $(Self::$Variant(config) => config,)*
                }
            }
        }

        impl DerefMut for RecurrentConfig {
            fn deref_mut(&mut self) -> &mut SharedConfig {
                match self {
                    $(Self::$Variant(config) => config,)*
                }
            }
        }

        impl RecurrentConfig {
            shared_setters!();

            /// The variant's name, as in the JSON.
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

            /// Checks the config without creating a tensor.
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
            /// If [`try_init`](Self::try_init) returns an error, with the same text.
            #[track_caller]
            pub fn init(&self, device: &Device) -> Recurrent {
                or_panic(self.name(), self.try_init(device))
            }
        }

        /// Runs an expression on the variant inside a [`Recurrent`] or a [`RecurrentConfig`].
        ///
        /// # Example
        /// ```
        /// use burn::tensor::Device;
        /// use recurrent_modules::{GruConfig, RecurrentConfig, by_variant};
        ///
        /// let config = RecurrentConfig::Gru(GruConfig::new(3, 4).with_num_layers(2));
        /// let model = config.init(&Device::flex());
        /// // `stack` has another type for each variant.
        /// let layers = by_variant!(Recurrent: &model, |stack| stack.layers.len());
        /// let units = by_variant!(RecurrentConfig: &config, |config| config.d_hidden);
        /// assert_eq!((layers, units), (2, 4));
        /// ```
        #[macro_export]
        macro_rules! by_variant {
            ($d Enum:ident: $d value:expr, |$d inner:ident| $d body:expr) => {
                match $d value {
                    $($crate::$d Enum::$Variant($d inner) => $d body,)*
                }
            };
        }

        /// Runs an expression with the module of whichever variant it is; the expression gives another
        /// module of the variant.
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
                state: Option<RecurrentState>,
            ) -> (Tensor<3>, RecurrentState) {
                self.forward_with(input, state, ForwardOptions::default())
            }

            /// As [`Stack::forward_with`](crate::Stack::forward_with).
            #[track_caller]
            pub fn forward_with(
                &self,
                input: Tensor<3>,
                state: Option<RecurrentState>,
                options: ForwardOptions<'_>,
            ) -> (Tensor<3>, RecurrentState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let names = StateNames::of(stack);
                        let state = names.type_given(state);
                        let (output, state) = stack.forward_with(input, state, options);
                        (output, names.name_state(state))
                    })*
                }
            }

            /// As [`Stack::step`](crate::Stack::step): to stream without training, call
            /// `model.valid()` first, since memory grows with every step on an autodiff device.
            #[track_caller]
            pub fn step(
                &self,
                input: Tensor<2>,
                state: Option<RecurrentState>,
            ) -> (Tensor<2>, RecurrentState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let names = StateNames::of(stack);
                        let state = names.type_given(state);
                        let (output, state) = stack.step(input, state);
                        (output, names.name_state(state))
                    })*
                }
            }

            /// As [`Stack::step_with`](crate::Stack::step_with).
            #[track_caller]
            pub fn step_with(
                &self,
                input: Tensor<2>,
                state: Option<RecurrentState>,
                masks: &StackMasks,
                t: usize,
            ) -> (Tensor<2>, RecurrentState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let names = StateNames::of(stack);
                        let state = names.type_given(state);
                        let (output, state) = stack.step_with(input, state, masks, t);
                        (output, names.name_state(state))
                    })*
                }
            }

            /// As [`Stack::forward_packed`](crate::Stack::forward_packed).
            #[track_caller]
            pub fn forward_packed(
                &self,
                input: &PackedSequence,
                state: Option<RecurrentState>,
            ) -> (PackedSequence, RecurrentState) {
                match self {
                    $(Self::$Variant(stack) => {
                        let names = StateNames::of(stack);
                        let state = names.type_given(state);
                        let (output, state) = stack.forward_packed(input, state);
                        (output, names.name_state(state))
                    })*
                }
            }

            /// As [`Stack::forward_histories`](crate::Stack::forward_histories), ordered and named as
            /// the state.
            #[track_caller]
            pub fn forward_histories(
                &self,
                input: Tensor<3>,
                state: Option<RecurrentState>,
                options: ForwardOptions<'_>,
            ) -> (Tensor<3>, RecurrentState, Vec<History>) {
                match self {
                    $(Self::$Variant(stack) => {
                        let names = StateNames::of(stack);
                        let state = names.type_given(state);
                        let (output, state, histories) =
                            stack.forward_histories(input, state, options);
                        let histories = names.name_histories(histories);
                        (output, names.name_state(state), histories)
                    })*
                }
            }

            /// As [`Stack::initial_state`](crate::Stack::initial_state).
            pub fn initial_state(&self, batch_size: usize, device: &Device) -> RecurrentState {
                match self {
                    $(Self::$Variant(stack) => {
                        stack.named_state(stack.initial_state(batch_size, device))
                    })*
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
    /// Reset and update gates, a hidden state alone.
    Gru(Gru, GruConfig),
    /// A policy scales inputs and pre-activations.
    AdaptiveLstm(AdaptiveLstm, AdaptiveLstmConfig),
}

// Makes the generated macros items of this module; clippy considers the import redundant.
#[allow(clippy::single_component_path_imports)]
pub(crate) use by_variant;
#[allow(clippy::single_component_path_imports)]
pub(crate) use map_variant;

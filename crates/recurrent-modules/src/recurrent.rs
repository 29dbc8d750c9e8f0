//! The variant chosen at run time.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::cells::{
    CifgLstm, CifgLstmConfig, LayerNormLstm, LayerNormLstmConfig, Lstm, LstmConfig, MogrifierLstm,
    MogrifierLstmConfig, PeepholeLstm, PeepholeLstmConfig, SlowLstm, SlowLstmConfig, UrLstm,
    UrLstmConfig,
};
use crate::error::{InvalidConfig, or_panic};
use crate::masks::StackMasks;
use crate::stack::ForwardOptions;
use crate::state::StackState;

/// Writes the two enums and hands each call to the variant.
macro_rules! variants {
    ($($(#[$doc:meta])* $Variant:ident($Module:ident, $Config:ident)),* $(,)?) => {
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
                    $(Self::$Variant(stack) => stack.forward_with(input, state, options),)*
                }
            }

            /// As [`Stack::step`](crate::Stack::step).
            #[track_caller]
            pub fn step(
                &self,
                input: Tensor<2>,
                state: Option<StackState>,
            ) -> (Tensor<2>, StackState) {
                match self {
                    $(Self::$Variant(stack) => stack.step(input, state),)*
                }
            }

            /// As [`Stack::initial_state`](crate::Stack::initial_state).
            pub fn initial_state(&self, batch_size: usize, device: &Device) -> StackState {
                match self {
                    $(Self::$Variant(stack) => stack.initial_state(batch_size, device),)*
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
}

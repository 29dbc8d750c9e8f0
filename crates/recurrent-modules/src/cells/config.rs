//! The configs of the variants: the shared fields, and the trait through which a variant adds its own.

use core::ops::DerefMut;

use alloc::vec::Vec;

use burn::nn::Initializer;
use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::{CellOptions, LayerNormConfig, StateUpdate};
use crate::cell::Cell;
use crate::error::{InvalidConfig, or_panic};
use crate::flat::flat_config;
use crate::init::WeightInit;
use crate::stack::{Stack, StackConfig};

flat_config! {
    /// The fields that the configs of all variants share.
    ///
    /// Each variant's config contains this struct and derefs to it, so `config.clip` and
    /// `config.with_clip(..)` work on the config itself. The same holds for the [`StackConfig`] in here.
    pub struct SharedConfig: stack: StackConfig {
        /// Size of the projected hidden state (LSTMP; PyTorch's `proj_size`).
        pub d_proj: Option<usize> = None => with_d_proj,
        /// Whether there are biases.
        pub bias: bool = true => with_bias,
        /// Bounds the cell state to [−clip, clip] before tanh.
        pub clip: Option<f64> = None => with_clip,
        /// Initializer of both weight matrices, gate by gate; U(−1/√H, 1/√H) by default, as in PyTorch.
        pub initializer: Option<Initializer> = None => with_initializer,
        /// Input weights; overrides `initializer`.
        pub input_initializer: Option<Initializer> = None => with_input_initializer,
        /// Recurrent weights (and the projection); overrides `initializer`.
        pub hidden_initializer: Option<Initializer> = None => with_hidden_initializer,
        /// Biases; U(−1/√H, 1/√H) by default, as in PyTorch.
        pub bias_initializer: Option<Initializer> = None => with_bias_initializer,
        /// Initial bias of the forget gate, in pre-activation units; overrides `bias_initializer`.
        pub forget_bias: Option<f64> = None => with_forget_bias,
    }
}

impl SharedConfig {
    /// These fields, read back from a cell; initial values are left at their defaults.
    pub(crate) fn of_cell(cell: &impl Cell, bias: bool, update: &StateUpdate) -> Self {
        let projected = update.projection.is_some();
        Self::new(cell.d_input(), cell.d_hidden())
            .with_d_proj(projected.then_some(cell.d_output()))
            .with_bias(bias)
            .with_clip(update.clip)
    }

    /// The options of one cell.
    ///
    /// # Arguments
    /// * `d_input`, `d_hidden` - the sizes of the cell
    pub fn cell_options(&self, d_input: usize, d_hidden: usize) -> CellOptions {
        let or_common =
            |own: &Option<Initializer>| own.clone().or_else(|| self.initializer.clone());
        CellOptions {
            d_input,
            d_hidden,
            d_proj: self.d_proj,
            bias: self.bias,
            clip: self.clip,
            layer_norm: None,
            init: WeightInit {
                input: or_common(&self.input_initializer),
                hidden: or_common(&self.hidden_initializer),
                bias: self.bias_initializer.clone(),
                forget_bias: self.forget_bias,
                gate_init: None,
            },
        }
    }

    /// The largest size, and the number of layers.
    pub(crate) fn largest(&self) -> [usize; 2] {
        let sizes = [self.d_input, self.d_hidden, self.d_proj.unwrap_or(0)];
        let listed = self.layer_sizes.iter().flatten().copied();
        [
            sizes.into_iter().chain(listed).max().unwrap_or(0),
            self.num_layers,
        ]
    }
}

/// The config of a variant: a [`SharedConfig`] and fields of its own.
///
/// A variant implements how a cell is built from its options and read back, and what is checked. The
/// provided methods do the rest. The configs of this crate also have these methods without the trait.
pub trait VariantConfig: DerefMut<Target = SharedConfig> + Sized {
    /// The name of the config, for panics.
    const NAME: &'static str;

    /// The cell of each layer and direction.
    type Cell: Cell;

    /// The order of the gates in a cell's weights.
    fn layout(&self) -> GateLayout;

    /// Builds a cell; the config has been validated.
    fn new_cell(&self, options: &CellOptions, device: &Device) -> Self::Cell;

    /// Inverse of [`new_cell`](Self::new_cell): the part of the config that a cell determines. The rest
    /// (initial values, fields of the stack) has its defaults.
    fn of_cell(cell: &Self::Cell) -> Self;

    /// Checks the variant's own fields, and [rejects](InvalidConfig::refuse) shared fields that have no
    /// meaning for it. By default nothing is checked.
    ///
    /// # Errors
    /// The first field that is invalid.
    fn validate_own(&self) -> Result<(), InvalidConfig> {
        Ok(())
    }

    /// Checks the variant's own fields against the sizes of one cell. By default nothing is
    /// checked.
    ///
    /// # Errors
    /// The first field that does not fit.
    fn validate_cell(&self, options: &CellOptions) -> Result<(), InvalidConfig> {
        let _ = options;
        Ok(())
    }

    /// The layer normalisation of a cell: none by default.
    fn layer_norm(&self) -> Option<LayerNormConfig> {
        None
    }

    /// The options of a cell of these sizes. Override it to add initial values of the variant.
    fn cell_options(&self, d_input: usize, d_hidden: usize) -> CellOptions {
        CellOptions {
            layer_norm: self.layer_norm(),
            ..SharedConfig::cell_options(self, d_input, d_hidden)
        }
    }

    /// How many directions of a layer the next layer reads: all by default.
    fn directions_read(&self) -> usize {
        if self.bidirectional { 2 } else { 1 }
    }

    /// The config of the stack: that of the config by default.
    fn container(&self) -> StackConfig {
        self.stack.clone()
    }

    /// The options of the cells of one direction, first layer to last.
    fn cells(&self) -> Vec<CellOptions> {
        let mut d_input = self.d_input;
        let cell = |d_hidden| {
            let options = self.cell_options(d_input, d_hidden);
            d_input = options.d_output() * self.directions_read();
            options
        };
        self.sizes().into_iter().map(cell).collect()
    }

    /// Checks the config without creating a tensor.
    ///
    /// # Errors
    /// If a size is 0, a probability is not in [0, 1), a bound is not positive, the variant does not have an
    /// option, or two fields contradict each other.
    fn validate(&self) -> Result<(), InvalidConfig> {
        self.validate_own()?;
        self.stack.validate()?;
        let cells = self.cells();
        for options in &cells {
            options.validate_for(self.layout())?;
            self.validate_cell(options)?;
        }
        let read = self.directions_read();
        self.stack
            .check_residual(cells.iter().map(|options| options.d_output() * read))
    }

    /// # Errors
    /// As [`validate`](Self::validate).
    fn try_init(&self, device: &Device) -> Result<Stack<Self::Cell>, InvalidConfig> {
        self.validate()?;
        self.container().try_init_with(|d_input, d_hidden| {
            Ok(self.new_cell(&self.cell_options(d_input, d_hidden), device))
        })
    }

    /// # Panics
    /// If [`try_init`](Self::try_init) returns an error, with the same text.
    #[track_caller]
    fn init(&self, device: &Device) -> Stack<Self::Cell> {
        or_panic(Self::NAME, self.try_init(device))
    }

    /// The options of a bare cell.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); also if the config asks for features of a stack: more than one
    /// layer, directions, dropout.
    fn bare_cell_options(&self) -> Result<CellOptions, InvalidConfig> {
        self.validate()?;
        let plain =
            StackConfig::new(self.d_input, self.d_hidden).with_batch_first(self.batch_first);
        match self.stack == plain {
            true => Ok(self.cell_options(self.d_input, self.d_hidden)),
            false => Err(more_than_a_cell()),
        }
    }

    /// The config of a module: what is needed to build it again, not how it started.
    ///
    /// Initial values are left at their defaults. What the config has once for all layers
    /// (projection, clip, biases, the variant's own fields) is that of the first.
    fn of(module: &Stack<Self::Cell>) -> Self {
        let mut config = Self::of_cell(&module.layers[0].forward);
        config.stack = StackConfig::of(module);
        config
    }
}

/// The options of a config are more than those of a cell.
pub(crate) fn more_than_a_cell() -> InvalidConfig {
    InvalidConfig::contradiction(
        "layers, directions or dropout",
        "a bare cell",
        "a cell has one layer and one direction and no dropout of its own; use `init`, whose `step` \
         has all of them",
    )
}

/// Setters of fields that a config has through `Deref`.
macro_rules! forward_setters {
    ($Owner:ident { $($with:ident($field:ident: $type:ty) $doc:literal,)* }) => {
        $(
            #[doc = concat!(
                "Sets the field [`", stringify!($field), "`](crate::", stringify!($Owner), "::",
                stringify!($field), ")."
            )]
            #[doc = ""]
            #[doc = $doc]
            pub fn $with(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}
pub(crate) use forward_setters;

/// The setters of all shared fields, for a config that derefs to [`SharedConfig`].
macro_rules! shared_setters {
    () => {
        $crate::cells::config::forward_setters!(StackConfig {
            with_num_layers(num_layers: usize) "Number of layers.",
            with_layer_sizes(layer_sizes: Option<alloc::vec::Vec<usize>>)
                "Units of each layer, where they differ; the last are `d_hidden`.",
            with_bidirectional(bidirectional: bool)
                "Whether there is a second direction, which runs backward; outputs are concatenated.",
            with_reverse(reverse: bool)
                "Whether the only direction runs from the last step to the first.",
            with_batch_first(batch_first: bool)
                "Whether input and output are `[batch_size, seq_length, ·]` (the default).",
            with_dropout(dropout: f64)
                "Probability of zeroing the outputs of each layer but the last.",
            with_recurrent_dropout(recurrent_dropout: $crate::masks::RecurrentDropout)
                "Dropout inside the cells.",
            with_weight_drop(weight_drop: f64)
                "Probability of zeroing each recurrent weight, anew in each call.",
            with_residual(residual: bool)
                "Whether each layer but the first adds its input to its output.",
        });

        $crate::cells::config::forward_setters!(SharedConfig {
            with_d_proj(d_proj: Option<usize>) "Size of the projected hidden state.",
            with_bias(bias: bool) "Whether there are biases (the default).",
            with_clip(clip: Option<f64>) "Bounds the cell state to [−clip, clip] before tanh.",
            with_initializer(initializer: Option<burn::nn::Initializer>)
                "Both weight matrices, gate by gate.",
            with_input_initializer(input_initializer: Option<burn::nn::Initializer>)
                "Input weights, over `initializer`.",
            with_hidden_initializer(hidden_initializer: Option<burn::nn::Initializer>)
                "Recurrent weights (and the projection), over `initializer`.",
            with_bias_initializer(bias_initializer: Option<burn::nn::Initializer>) "Biases.",
            with_forget_bias(forget_bias: Option<f64>)
                "Initial bias of the forget gate, over `bias_initializer`.",
        });
    };
}
pub(crate) use shared_setters;

/// Adds the setters of the shared fields and the methods of [`VariantConfig`] to a config as inherent
/// methods, so that callers need not import the trait. All of them only forward.
macro_rules! config_methods {
    ($Config:ident => $Module:ident) => {
        impl $Config {
            $crate::cells::config::shared_setters!();

            /// Layers of the listed sizes, first to last.
            ///
            /// An empty list is reported by [`validate`](Self::validate).
            pub fn stacked(d_input: usize, layer_sizes: impl Into<alloc::vec::Vec<usize>>) -> Self {
                let sizes = layer_sizes.into();
                Self::new(d_input, sizes.last().copied().unwrap_or(0))
                    .with_num_layers(sizes.len())
                    .with_layer_sizes(Some(sizes))
            }

            /// The config of a module: what is needed to build it again, not how it started.
            ///
            /// Initial values are left at their defaults. What the config has once for all layers
            /// (projection, clip, biases, the variant's own fields) is that of the first.
            pub fn of(module: &$Module) -> Self {
                $crate::cells::VariantConfig::of(module)
            }

            /// Checks the config without creating a tensor.
            ///
            /// # Errors
            /// If a size is 0, a probability is not in [0, 1), a bound is not positive, the variant
            /// has no such option, or two fields contradict each other.
            pub fn validate(&self) -> Result<(), $crate::InvalidConfig> {
                $crate::cells::VariantConfig::validate(self)
            }

            /// # Errors
            /// As [`validate`](Self::validate).
            pub fn try_init(
                &self,
                device: &burn::tensor::Device,
            ) -> Result<$Module, $crate::InvalidConfig> {
                $crate::cells::VariantConfig::try_init(self, device)
            }

            /// # Panics
            /// If [`try_init`](Self::try_init) returns an error, with the same text.
            #[track_caller]
            pub fn init(&self, device: &burn::tensor::Device) -> $Module {
                $crate::cells::VariantConfig::init(self, device)
            }
        }
    };
}
pub(crate) use config_methods;

/// Adds the constructors of bare cells to a config.
macro_rules! bare_cell_methods {
    ($Config:ident => $Cell:ident) => {
        impl $Config {
            /// A bare cell, for stepping by hand.
            ///
            /// # Errors
            /// As [`validate`](Self::validate); also if the config asks for features of a stack: more
            /// than one layer, directions, dropout.
            pub fn try_init_cell(
                &self,
                device: &burn::tensor::Device,
            ) -> Result<$Cell, $crate::InvalidConfig> {
                use $crate::cells::VariantConfig;
                Ok(self.new_cell(&self.bare_cell_options()?, device))
            }

            /// # Panics
            /// If [`try_init_cell`](Self::try_init_cell) returns an error, with the same text.
            #[track_caller]
            pub fn init_cell(&self, device: &burn::tensor::Device) -> $Cell {
                $crate::error::or_panic(stringify!($Config), self.try_init_cell(device))
            }
        }
    };
}
pub(crate) use bare_cell_methods;

/// Adds a constructor for each kind of dropout of an LSTM cell to a config.
macro_rules! dropout_methods {
    ($Config:ident) => {
        impl $Config {
            /// With Gal & Ghahramani's dropout: one mask per sequence on the hidden state.
            pub fn gal(d_input: usize, d_hidden: usize, prob: f64) -> Self {
                Self::new(d_input, d_hidden)
                    .with_recurrent_dropout($crate::masks::RecurrentDropout::Gal { prob })
            }

            /// With Moon et al.'s dropout: one mask per sequence on the cell state.
            pub fn moon(d_input: usize, d_hidden: usize, prob: f64) -> Self {
                Self::new(d_input, d_hidden)
                    .with_recurrent_dropout($crate::masks::RecurrentDropout::Moon { prob })
            }

            /// With Semeniuta et al.'s dropout: a mask per step on the candidate.
            pub fn semeniuta(d_input: usize, d_hidden: usize, prob: f64) -> Self {
                Self::new(d_input, d_hidden)
                    .with_recurrent_dropout($crate::masks::RecurrentDropout::Semeniuta { prob })
            }

            /// With zoneout: units keep their value with these probabilities.
            pub fn zoneout(d_input: usize, d_hidden: usize, hidden: f64, cell: f64) -> Self {
                Self::new(d_input, d_hidden).with_recurrent_dropout(
                    $crate::masks::RecurrentDropout::Zoneout { hidden, cell },
                )
            }
        }
    };
}
pub(crate) use dropout_methods;

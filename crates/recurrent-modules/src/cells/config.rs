//! The fields that every variant's config shares, written once.
//!
//! Burn's `Config` derive takes neither generics nor flattened structs, so the shared fields are
//! put into each config by this macro. What they mean is implemented in
//! [`StackConfig`](crate::StackConfig) and [`CellOptions`](crate::cells::CellOptions).

/// Makes the config of a variant: its own fields, the shared fields, `validate`, `try_init`,
/// `init`, `try_init_cell`, `init_cell` and the constructors for each dropout kind.
///
/// The variant implements `validate_variant(&self, &CellOptions)`, `layer_norm_config(&self)`,
/// `layout(&self) -> GateLayout`, `new_cell(&self, &CellOptions, &Device) -> Cell` and its inverse
/// `with_own_of(self, &Cell) -> Self` (its own fields, and `bias`) by hand.
macro_rules! variant_config {
    (
        $(#[$meta:meta])*
        pub struct $Config:ident => $Module:ident of $Cell:ident {
            $($own:tt)*
        }
    ) => {
        $(#[$meta])*
        #[derive(burn::config::Config, Debug, PartialEq)]
        pub struct $Config {
            /// Features of one input step.
            pub d_input: usize,
            /// Units of each layer; with `layer_sizes`, of the last.
            pub d_hidden: usize,
            $($own)*
            /// Number of layers.
            #[config(default = 1)]
            pub num_layers: usize,
            /// Units of each layer, where they differ; see `stacked`.
            pub layer_sizes: Option<alloc::vec::Vec<usize>>,
            /// Whether each layer has a second cell that runs backward; outputs are concatenated.
            #[config(default = false)]
            pub bidirectional: bool,
            /// Whether the only direction runs from the last step to the first. Outputs stay at
            /// the time of their input.
            #[config(default = false)]
            pub reverse: bool,
            /// Whether input and output are `[batch_size, seq_length, ·]`; else
            /// `[seq_length, batch_size, ·]`.
            #[config(default = true)]
            pub batch_first: bool,
            /// Probability of zeroing the outputs of each layer but the last, anew at each step.
            #[config(default = 0.0)]
            pub dropout: f64,
            /// Dropout inside the cells.
            #[config(default = "crate::masks::RecurrentDropout::None")]
            pub recurrent_dropout: $crate::masks::RecurrentDropout,
            /// Probability of zeroing each recurrent weight, anew in each call: R' = M ⊙ R with one
            /// M for all steps (weight drop; Merity et al., arXiv:1708.02182).
            #[config(default = 0.0)]
            pub weight_drop: f64,
            /// Whether each layer but the first adds its input to its output, before dropout
            /// (Wu et al., arXiv:1609.08144). Their sizes must agree.
            #[config(default = false)]
            pub residual: bool,
            /// Size of the projected hidden state (LSTMP; PyTorch's `proj_size`).
            pub d_proj: Option<usize>,
            /// Whether there are biases.
            #[config(default = true)]
            pub bias: bool,
            /// Bounds the cell state to [−clip, clip] before tanh.
            pub clip: Option<f64>,
            /// Both weight matrices, gate by gate; U(−1/√H, 1/√H) by default, as in PyTorch.
            pub initializer: Option<burn::nn::Initializer>,
            /// Input weights, over `initializer`.
            pub input_initializer: Option<burn::nn::Initializer>,
            /// Recurrent weights (and the projection), over `initializer`.
            pub hidden_initializer: Option<burn::nn::Initializer>,
            /// Biases; U(−1/√H, 1/√H) by default, as in PyTorch.
            pub bias_initializer: Option<burn::nn::Initializer>,
            /// Initial bias of the forget gate, in pre-activation units; over `bias_initializer`.
            pub forget_bias: Option<f64>,
        }

        impl $Config {
            /// Layers of the listed sizes, first to last.
            ///
            /// An empty list is reported by [`validate`](Self::validate).
            pub fn stacked(d_input: usize, layer_sizes: impl Into<alloc::vec::Vec<usize>>) -> Self {
                let sizes = layer_sizes.into();
                Self::new(d_input, sizes.last().copied().unwrap_or(0))
                    .with_num_layers(sizes.len())
                    .with_layer_sizes(Some(sizes))
            }

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
                Self::new(d_input, d_hidden)
                    .with_recurrent_dropout($crate::masks::RecurrentDropout::Zoneout { hidden, cell })
            }

            /// The part of the config that is about layers and directions.
            pub fn stack(&self) -> $crate::StackConfig {
                $crate::StackConfig {
                    d_input: self.d_input,
                    d_hidden: self.d_hidden,
                    num_layers: self.num_layers,
                    layer_sizes: self.layer_sizes.clone(),
                    bidirectional: self.bidirectional,
                    reverse: self.reverse,
                    batch_first: self.batch_first,
                    dropout: self.dropout,
                    recurrent_dropout: self.recurrent_dropout,
                    weight_drop: self.weight_drop,
                    residual: self.residual,
                }
            }

            /// The config of a module: what is needed to build it again, not how it started.
            ///
            /// Initial values are left at their defaults. What the config has once for all layers
            /// (projection, clip, biases, the variant's own fields) is that of the first.
            pub fn of(module: &$Module) -> Self {
                let cell = &module.layers[0].forward;
                let sizes: alloc::vec::Vec<usize> =
                    module.layers.iter().map(|layer| layer.forward.d_hidden).collect();
                let unequal = sizes.windows(2).any(|pair| pair[0] != pair[1]);
                Self::stacked(cell.d_input, sizes.clone())
                    .with_layer_sizes(unequal.then_some(sizes))
                    .with_bidirectional(module.directions() > 1)
                    .with_reverse(module.reverse)
                    .with_batch_first(module.batch_first)
                    .with_dropout(module.dropout)
                    .with_recurrent_dropout(module.recurrent_dropout)
                    .with_weight_drop(module.weight_drop)
                    .with_residual(module.residual)
                    .with_d_proj(cell.update.projection.is_some().then_some(cell.d_output))
                    .with_clip(cell.update.clip)
                    .with_own_of(cell)
            }

            /// The largest size, and the number of layers.
            pub(crate) fn largest(&self) -> [usize; 2] {
                let sizes = [self.d_input, self.d_hidden, self.d_proj.unwrap_or(0)];
                let listed = self.layer_sizes.iter().flatten().copied();
                [sizes.into_iter().chain(listed).max().unwrap_or(0), self.num_layers]
            }

            /// The part of the config that is about one cell.
            fn cell_options(&self, d_input: usize, d_hidden: usize) -> $crate::cells::CellOptions {
                let or_common = |own: &Option<burn::nn::Initializer>| {
                    own.clone().or_else(|| self.initializer.clone())
                };
                $crate::cells::CellOptions {
                    d_input,
                    d_hidden,
                    d_proj: self.d_proj,
                    bias: self.bias,
                    clip: self.clip,
                    layer_norm: self.layer_norm_config(),
                    init: $crate::init::WeightInit {
                        input: or_common(&self.input_initializer),
                        hidden: or_common(&self.hidden_initializer),
                        bias: self.bias_initializer.clone(),
                        forget_bias: self.forget_bias,
                        gate_init: None,
                    },
                }
            }

            /// Checks the config without making a tensor.
            ///
            /// # Errors
            /// If a size is 0, a probability is not in [0, 1), a bound is not positive, or two
            /// fields contradict each other.
            pub fn validate(&self) -> Result<(), $crate::InvalidConfig> {
                self.stack().validate()?;
                let mut d_input = self.d_input;
                for d_hidden in self.stack().sizes() {
                    let options = self.cell_options(d_input, d_hidden);
                    d_input = options.d_output() * if self.bidirectional { 2 } else { 1 };
                    options.validate_for(self.layout())?;
                    self.validate_variant(&options)?;
                }
                let outputs = self.stack().sizes().into_iter();
                self.stack().check_residual(
                    outputs.map(|d_hidden| self.cell_options(self.d_input, d_hidden).d_output()),
                )
            }

            /// # Errors
            /// As [`validate`](Self::validate).
            pub fn try_init(
                &self,
                device: &burn::tensor::Device,
            ) -> Result<$Module, $crate::InvalidConfig> {
                self.validate()?;
                self.stack().try_init_with(|d_input, d_hidden| {
                    Ok(self.new_cell(&self.cell_options(d_input, d_hidden), device))
                })
            }

            /// # Panics
            /// Where [`try_init`](Self::try_init) gives an error, with the same text.
            #[track_caller]
            pub fn init(&self, device: &burn::tensor::Device) -> $Module {
                $crate::error::or_panic(stringify!($Config), self.try_init(device))
            }

            /// A bare cell, for stepping by hand.
            ///
            /// # Errors
            /// As [`validate`](Self::validate); also if the config asks for what only the layers
            /// around a cell can do: more than one layer, directions, dropout.
            pub fn try_init_cell(
                &self,
                device: &burn::tensor::Device,
            ) -> Result<$Cell, $crate::InvalidConfig> {
                self.validate()?;
                let plain = $crate::StackConfig::new(self.d_input, self.d_hidden)
                    .with_batch_first(self.batch_first);
                if self.stack() != plain {
                    return Err($crate::InvalidConfig::contradiction(
                        "layers, directions or dropout",
                        "a bare cell",
                        "a cell has one layer and one direction and no dropout of its own; use \
                         `init`, whose `step` has all of them",
                    ));
                }
                Ok(self.new_cell(&self.cell_options(self.d_input, self.d_hidden), device))
            }

            /// # Panics
            /// Where [`try_init_cell`](Self::try_init_cell) gives an error, with the same text.
            #[track_caller]
            pub fn init_cell(&self, device: &burn::tensor::Device) -> $Cell {
                $crate::error::or_panic(stringify!($Config), self.try_init_cell(device))
            }
        }
    };
}
pub(crate) use variant_config;

//! The LSTM cell with peepholes. Equations: [`recurrent_core::equations::peephole`].

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use recurrent_core::cell as steps;
pub use recurrent_core::equations::peephole::OutputPeephole;
use recurrent_core::equations::peephole::Peephole;
use recurrent_core::{Gate, GateLayout};

use super::config::variant_config;
use super::{
    Cell, CellOptions, Coupling, GateWeights, LayerNormConfig, StateUpdate, cell_sizes, cell_step,
};
use crate::error::InvalidConfig;
use crate::init::{packed_bias, packed_weight, uniform_by};
use crate::stack::Stack;

/// The LSTM with peepholes: layers of [`PeepholeLstmCell`], created with [`PeepholeLstmConfig`].
///
/// ```text
/// i = σ(z_i + v_i ⊙ c)   f = σ(z_f + v_f ⊙ c)   g = tanh(z_g)
/// c' = f ⊙ c + i ⊙ g     o = σ(z_o + v_o ⊙ c')  h' = o ⊙ tanh(c')
/// ```
/// Gers & Schmidhuber, IJCNN 2000. With [`PeepholeKind::Full`] v ⊙ c is c·V; with
/// [`OutputPeephole::PreviousCell`] the output gate looks at c.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::PeepholeLstmConfig;
///
/// let device = Device::flex();
/// let lstm = PeepholeLstmConfig::new(10, 20).with_bidirectional(true).init(&device);
/// let (out, _) = lstm.forward(Tensor::<3>::ones([3, 7, 10], &device), None);
/// assert_eq!(out.dims(), [3, 7, 40]);
/// ```
pub type PeepholeLstm = Stack<PeepholeLstmCell>;

/// The form of the peephole weights.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum PeepholeKind {
    /// A weight per unit, `[H]` (Gers & Schmidhuber).
    Diagonal,
    /// A matrix, `[H, H]`.
    Full,
}

variant_config! {
    /// Configuration of [`PeepholeLstm`].
    pub struct PeepholeLstmConfig => PeepholeLstm of PeepholeLstmCell {
        /// The form of the peephole weights.
        #[config(default = "PeepholeKind::Diagonal")]
        pub peephole: PeepholeKind,
        /// Which cell the output gate looks at.
        #[config(default = "OutputPeephole::NewCell")]
        pub output_looks_at: OutputPeephole,
        /// How the input and forget gates depend on each other.
        #[config(default = "Coupling::Independent")]
        pub coupling: Coupling,
        /// Initial peephole weights; U(−1/√H, 1/√H) by default.
        pub peephole_initializer: Option<burn::nn::Initializer>,
        /// Layer normalisation; none by default. Peepholes look at the raw cell and are added
        /// after the normalisations.
        pub layer_norm: Option<LayerNormConfig>,
    }
}

impl PeepholeLstmConfig {
    fn validate_variant(&self, _options: &CellOptions) -> Result<(), InvalidConfig> {
        match self.peephole {
            PeepholeKind::Diagonal => crate::init::check_vector_initializer(
                "peephole_initializer",
                &self.peephole_initializer,
            ),
            PeepholeKind::Full => Ok(()),
        }
    }

    fn with_own_of(self, cell: &PeepholeLstmCell) -> Self {
        self.with_bias(cell.gates.has_bias())
            .with_peephole(match cell.peephole_output.full {
                Some(_) => PeepholeKind::Full,
                None => PeepholeKind::Diagonal,
            })
            .with_output_looks_at(cell.output_looks_at)
            .with_coupling(cell.coupling)
            .with_layer_norm(LayerNormConfig::of(&cell.gates, &cell.update))
    }

    fn layer_norm_config(&self) -> Option<LayerNormConfig> {
        self.layer_norm.clone()
    }

    fn layout(&self) -> GateLayout {
        self.coupling.layout()
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> PeepholeLstmCell {
        let size = options.d_hidden;
        let initializer = self.peephole_initializer.clone();
        let initializer = Some(initializer.unwrap_or_else(|| uniform_by(size)));
        let weights = || match self.peephole {
            PeepholeKind::Diagonal => PeepholeWeights {
                diagonal: Some(packed_bias(
                    GateLayout::PLAIN,
                    size,
                    &initializer,
                    None,
                    device,
                )),
                full: None,
            },
            PeepholeKind::Full => PeepholeWeights {
                diagonal: None,
                full: Some(packed_weight(
                    GateLayout::PLAIN,
                    size,
                    size,
                    &initializer,
                    device,
                )),
            },
        };
        let has = |gate| self.layout().slot(gate).is_some();
        PeepholeLstmCell {
            gates: GateWeights::new(self.layout(), options, device),
            peephole_input: has(Gate::Input).then(weights),
            peephole_forget: has(Gate::Forget).then(weights),
            peephole_output: weights(),
            update: StateUpdate::new(options, device),
            coupling: self.coupling,
            output_looks_at: self.output_looks_at,
            d_input: options.d_input,
            d_hidden: options.d_hidden,
            d_output: options.d_output(),
        }
    }
}

/// The peephole weights of one gate; one of the two is there.
#[derive(Module, Debug)]
pub struct PeepholeWeights {
    /// v `[d_hidden]`
    pub diagonal: Option<Param<Tensor<1>>>,
    /// V `[d_hidden, d_hidden]`, applied as c·V
    pub full: Option<Param<Tensor<2>>>,
}

impl PeepholeWeights {
    fn bind(&self) -> Peephole {
        match (&self.diagonal, &self.full) {
            (Some(v), None) => Peephole::Diagonal(v.val()),
            (None, Some(v)) => Peephole::Full(v.val()),
            _ => panic!("peephole weights are either diagonal or full, got both or neither"),
        }
    }
}

/// One LSTM step with peepholes; gates packed in the order of [`Coupling::layout`].
#[derive(Module, Debug)]
pub struct PeepholeLstmCell {
    /// W, R and b of the gates.
    pub gates: GateWeights,
    /// v_i; absent where the coupling leaves the input gate out.
    pub peephole_input: Option<PeepholeWeights>,
    /// v_f; absent where the coupling leaves the forget gate out.
    pub peephole_forget: Option<PeepholeWeights>,
    /// v_o
    pub peephole_output: PeepholeWeights,
    /// What follows the gates.
    pub update: StateUpdate,
    /// How the input and forget gates depend on each other.
    #[module(skip)]
    pub coupling: Coupling,
    /// Which cell the output gate looks at.
    #[module(skip)]
    pub output_looks_at: OutputPeephole,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(PeepholeLstmCell);

impl Cell for PeepholeLstmCell {
    type Step = steps::peephole::PeepholeLstmCell;

    fn bind(&self) -> Self::Step {
        steps::peephole::PeepholeLstmCell {
            preact: self.gates.bind(),
            coupling: self.coupling,
            peephole_input: self.peephole_input.as_ref().map(PeepholeWeights::bind),
            peephole_forget: self.peephole_forget.as_ref().map(PeepholeWeights::bind),
            peephole_output: self.peephole_output.bind(),
            output_looks_at: self.output_looks_at,
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

//! The LSTM cell with peepholes. Equations: [`recurrent_core::equations::peephole`].

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use recurrent_core::cell as steps;
pub use recurrent_core::equations::peephole::OutputPeephole;
use recurrent_core::equations::peephole::Peephole;
use recurrent_core::{Gate, GateLayout};

use super::config::{bare_cell_methods, config_methods, dropout_methods};
use super::{
    Cell, CellOptions, Coupling, GateWeights, LayerNormConfig, SharedConfig, StateUpdate,
    VariantConfig, cell_sizes, cell_step,
};
use crate::error::InvalidConfig;
use crate::flat::flat_config;
use crate::init::{check_vector_initializer, packed_bias, packed_weight, uniform_by};
use crate::stack::Stack;

/// The LSTM with peepholes: layers of [`PeepholeLstmCell`], created with [`PeepholeLstmConfig`].
///
/// ```text
/// i = σ(z_i + v_i ⊙ c)   f = σ(z_f + v_f ⊙ c)   g = tanh(z_g)
/// c' = f ⊙ c + i ⊙ g     o = σ(z_o + v_o ⊙ c')  h' = o ⊙ tanh(c')
/// ```
/// Gers & Schmidhuber, IJCNN 2000. With [`PeepholeKind::Full`] v ⊙ c is c·V; with
/// [`OutputPeephole::PreviousCell`] the output gate reads c.
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

flat_config! {
    /// Configuration of [`PeepholeLstm`].
    pub struct PeepholeLstmConfig: shared: SharedConfig {
        /// The form of the peephole weights.
        pub peephole: PeepholeKind = PeepholeKind::Diagonal => with_peephole,
        /// Which cell state the output gate reads.
        pub output_looks_at: OutputPeephole = OutputPeephole::NewCell => with_output_looks_at,
        /// How the input and forget gates depend on each other.
        pub coupling: Coupling = Coupling::Independent => with_coupling,
        /// Initial peephole weights; U(−1/√H, 1/√H) by default.
        pub peephole_initializer: Option<Initializer> = None => with_peephole_initializer,
        /// Layer normalisation; none by default. Peepholes read the cell before its normalisation and are
        /// added after the other normalisations.
        pub layer_norm: Option<LayerNormConfig> = None => with_layer_norm,
    }
}

config_methods!(PeepholeLstmConfig => PeepholeLstm);
bare_cell_methods!(PeepholeLstmConfig => PeepholeLstmCell);
dropout_methods!(PeepholeLstmConfig);

impl VariantConfig for PeepholeLstmConfig {
    const NAME: &'static str = "PeepholeLstmConfig";
    type Cell = PeepholeLstmCell;

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

    fn of_cell(cell: &PeepholeLstmCell) -> Self {
        Self {
            shared: SharedConfig::of_cell(cell, cell.gates.has_bias(), &cell.update),
            peephole: match cell.peephole_output.full {
                Some(_) => PeepholeKind::Full,
                None => PeepholeKind::Diagonal,
            },
            output_looks_at: cell.output_looks_at,
            coupling: cell.coupling,
            peephole_initializer: None,
            layer_norm: LayerNormConfig::of(&cell.gates, &cell.update),
        }
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        match self.peephole {
            PeepholeKind::Diagonal => {
                check_vector_initializer("peephole_initializer", &self.peephole_initializer)
            }
            PeepholeKind::Full => Ok(()),
        }
    }

    fn layer_norm(&self) -> Option<LayerNormConfig> {
        self.layer_norm.clone()
    }
}

/// The peephole weights of one gate, diagonal or full: exactly one field is set.
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
    /// v_i; `None` if the coupling has no input gate.
    pub peephole_input: Option<PeepholeWeights>,
    /// v_f; `None` if the coupling has no forget gate.
    pub peephole_forget: Option<PeepholeWeights>,
    /// v_o
    pub peephole_output: PeepholeWeights,
    /// Clip, cell normalisation and projection.
    pub update: StateUpdate,
    /// How the input and forget gates depend on each other.
    #[module(skip)]
    pub coupling: Coupling,
    /// Which cell state the output gate reads.
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
    type Step = steps::peephole::PeepholeLstmStep;

    fn bind(&self) -> Self::Step {
        steps::peephole::PeepholeLstmStep {
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

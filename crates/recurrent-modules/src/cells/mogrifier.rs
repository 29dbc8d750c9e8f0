//! The Mogrifier LSTM cell. Equations: [`recurrent_core::equations::mogrifier`].

use alloc::vec::Vec;

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use recurrent_core::GateLayout;
use recurrent_core::cell as steps;
use recurrent_core::cell::mogrifier::{Round, RoundMatrix};

use super::config::{bare_cell_methods, config_methods, dropout_methods};
use super::{
    Cell, CellOptions, Coupling, GateWeights, LayerNormConfig, SharedConfig, StateUpdate,
    VariantConfig, cell_sizes, cell_step,
};
use crate::error::{InvalidConfig, check_size};
use crate::flat::flat_config;
use crate::init::{packed_bias, packed_weight, uniform_by};
use crate::stack::Stack;

/// The Mogrifier LSTM: layers of [`MogrifierLstmCell`], created with [`MogrifierLstmConfig`].
///
/// ```text
/// odd rounds:   x ← 2 σ(h·Q) ⊙ x        even rounds:   h ← 2 σ(x·R) ⊙ h
/// z = x·W + h·R + b                     then as in Lstm
/// ```
/// Melis, Kočiský & Blunsom, arXiv:1909.01792. The state gates the input, so the input projection
/// must be computed step by step, unlike in the other variants.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::MogrifierLstmConfig;
///
/// let device = Device::flex();
/// let lstm = MogrifierLstmConfig::new(10, 20).with_rounds(5).with_rank(Some(4)).init(&device);
/// let (out, _) = lstm.forward(Tensor::<3>::ones([3, 7, 10], &device), None);
/// assert_eq!(out.dims(), [3, 7, 20]);
/// ```
pub type MogrifierLstm = Stack<MogrifierLstmCell>;

flat_config! {
    /// Configuration of [`MogrifierLstm`].
    pub struct MogrifierLstmConfig: shared: SharedConfig {
        /// Rounds of gating; 0 is the plain LSTM.
        pub rounds: usize = 5 => with_rounds,
        /// Rank of Q and R; full by default.
        pub rank: Option<usize> = None => with_rank,
        /// Whether one Q and one R serve all rounds (RMichaelSwan/MogrifierLSTM) or each round has
        /// its own (the paper).
        pub share_rounds: bool = false => with_share_rounds,
        /// Whether the rounds have a bias, zero at the start (the authors' code).
        pub round_bias: bool = false => with_round_bias,
        /// Whether the input gate is capped at 1 − f (the authors' code).
        pub cap_input_gate: bool = false => with_cap_input_gate,
        /// Layer normalisation; none by default.
        pub layer_norm: Option<LayerNormConfig> = None => with_layer_norm,
    }
}

config_methods!(MogrifierLstmConfig => MogrifierLstm);
bare_cell_methods!(MogrifierLstmConfig => MogrifierLstmCell);
dropout_methods!(MogrifierLstmConfig);

impl VariantConfig for MogrifierLstmConfig {
    const NAME: &'static str = "MogrifierLstmConfig";
    type Cell = MogrifierLstmCell;

    fn layout(&self) -> GateLayout {
        GateLayout::LSTM
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> MogrifierLstmCell {
        let (d_input, d_output) = (options.d_input, options.d_output());
        let own = if self.share_rounds {
            self.rounds.min(2)
        } else {
            self.rounds
        };
        let rounds = (0..own)
            .map(|index| {
                let (from, to) = if index % 2 == 0 {
                    (d_output, d_input)
                } else {
                    (d_input, d_output)
                };
                RoundWeights::new(from, to, self.rank, self.round_bias, device)
            })
            .collect();
        MogrifierLstmCell {
            rounds,
            gates: GateWeights::new(self.layout(), options, device),
            update: StateUpdate::new(options, device),
            num_rounds: self.rounds,
            cap_input_gate: self.cap_input_gate,
            d_input,
            d_hidden: options.d_hidden,
            d_output,
        }
    }

    fn of_cell(cell: &MogrifierLstmCell) -> Self {
        let rank = cell.rounds.first().and_then(|round| round.right.as_ref());
        Self {
            shared: SharedConfig::of_cell(cell, cell.gates.has_bias(), &cell.update),
            rounds: cell.num_rounds,
            rank: rank.map(|right| right.lazy_shape()[0]),
            share_rounds: cell.rounds.len() < cell.num_rounds,
            round_bias: cell.rounds.iter().any(|round| round.bias.is_some()),
            cap_input_gate: cell.cap_input_gate,
            layer_norm: LayerNormConfig::of(&cell.gates, &cell.update),
        }
    }

    fn validate_cell(&self, options: &CellOptions) -> Result<(), InvalidConfig> {
        let Some(rank) = self.rank else {
            return Ok(());
        };
        check_size("rank", rank)?;
        let most = options.d_input.min(options.d_output());
        if rank > most {
            return Err(InvalidConfig::value(
                "rank",
                rank,
                alloc::format!(
                    "at most {most}, the smaller of a layer's input size {} and hidden size {}",
                    options.d_input,
                    options.d_output()
                ),
            ));
        }
        Ok(())
    }

    fn layer_norm(&self) -> Option<LayerNormConfig> {
        self.layer_norm.clone()
    }
}

/// The weights of one round: Q or R.
#[derive(Module, Debug)]
pub struct RoundWeights {
    /// `[from, to]`, or `[from, rank]` of a low-rank matrix
    pub left: Param<Tensor<2>>,
    /// `[rank, to]` of a low-rank matrix
    pub right: Option<Param<Tensor<2>>>,
    /// `[to]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl RoundWeights {
    fn new(from: usize, to: usize, rank: Option<usize>, bias: bool, device: &Device) -> Self {
        let matrix = |from: usize, to: usize| {
            packed_weight(GateLayout::PLAIN, from, to, &Some(uniform_by(from)), device)
        };
        let zeros = Some(Initializer::Zeros);
        Self {
            left: matrix(from, rank.unwrap_or(to)),
            right: rank.map(|rank| matrix(rank, to)),
            bias: bias.then(|| packed_bias(GateLayout::PLAIN, to, &zeros, None, device)),
        }
    }

    fn bind(&self) -> Round {
        let left = self.left.val();
        Round {
            matrix: match &self.right {
                Some(right) => RoundMatrix::LowRank(left, right.val()),
                None => RoundMatrix::Full(left),
            },
            bias: self.bias.as_ref().map(Param::val),
        }
    }
}

/// One Mogrifier step; gates packed in the order input, forget, candidate, output.
#[derive(Module, Debug)]
pub struct MogrifierLstmCell {
    /// Q and R of each round, or of the first two if all rounds share them.
    pub rounds: Vec<RoundWeights>,
    /// W, R and b of the four gates.
    pub gates: GateWeights,
    /// Clip, cell normalisation and projection.
    pub update: StateUpdate,
    /// Rounds of gating.
    pub num_rounds: usize,
    /// Whether the input gate is capped at 1 − f.
    pub cap_input_gate: bool,
    /// Features of one input step.
    pub d_input: usize,
    /// Units.
    pub d_hidden: usize,
    /// Features of the hidden state: `d_hidden`, or the projected size.
    pub d_output: usize,
}

cell_step!(MogrifierLstmCell);

impl Cell for MogrifierLstmCell {
    type Step = steps::mogrifier::MogrifierLstmStep;

    fn bind(&self) -> Self::Step {
        let own: Vec<Round> = self.rounds.iter().map(RoundWeights::bind).collect();
        let rounds = (0..self.num_rounds)
            .map(|index| match own.get(index) {
                Some(round) => round.clone(),
                None => own[index % 2].clone(), // shared
            })
            .collect();
        steps::mogrifier::MogrifierLstmStep {
            rounds,
            preact: self.gates.bind(),
            coupling: match self.cap_input_gate {
                true => Coupling::CappedInput,
                false => Coupling::Independent,
            },
            transition: self.update.bind(),
        }
    }

    cell_sizes!();
}

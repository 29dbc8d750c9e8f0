//! One step of the Mogrifier LSTM: see [`crate::equations::mogrifier`].
//!
//! The state gates the input, so no projection can be hoisted out of the loop.

use alloc::vec::Vec;

use burn::nn::LstmState;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::lower::lowered;
use super::{Preactivation, Step, Transition, VisitWeight, packed_sizes};
use crate::equations::cifg::Coupling;
use crate::equations::dropout::StepMasks;
use crate::equations::mogrifier::gate;
use crate::fused::problem::lstm::MAX_ROUNDS;
use crate::fused::problem::{FusedSpec, LstmSpec, RoundSpec, Unfused};
use crate::gates::Gate;

/// The matrix of one round.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a handful per call
pub enum RoundMatrix {
    /// Full rank: `[from, to]`.
    Full(Tensor<2>),
    /// `left·right`, `[from, rank]` and `[rank, to]`.
    LowRank(Tensor<2>, Tensor<2>),
}

/// One round of gating.
#[derive(Debug, Clone)]
pub struct Round {
    /// Q `[d_output, I]` in odd rounds, R `[I, d_output]` in even ones.
    pub matrix: RoundMatrix,
    /// `[I]` or `[d_output]`
    pub bias: Option<Tensor<1>>,
}

impl Round {
    /// `2 σ(by·M + b) ⊙ value`
    fn apply(&self, by: Tensor<2>, value: Tensor<2>) -> Tensor<2> {
        let preact = match &self.matrix {
            RoundMatrix::Full(matrix) => by.matmul(matrix.clone()),
            RoundMatrix::LowRank(left, right) => by.matmul(left.clone()).matmul(right.clone()),
        };
        let preact = match &self.bias {
            Some(bias) => preact + bias.clone().unsqueeze(),
            None => preact,
        };
        gate(preact, value)
    }

    fn lowered(&self) -> RoundSpec {
        let (matrix, right) = match self.matrix.clone() {
            RoundMatrix::Full(matrix) => (matrix, None),
            RoundMatrix::LowRank(left, right) => (left, Some(right)),
        };
        RoundSpec {
            matrix,
            right,
            bias: self.bias.clone(),
        }
    }
}

/// Weights of a Mogrifier cell for one call.
#[derive(Debug, Clone)]
pub struct MogrifierLstmStep {
    /// The rounds in order; the first gates the input. Empty: a plain LSTM.
    pub rounds: Vec<Round>,
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// [`Coupling::Independent`], or [`Coupling::CappedInput`] as in the authors' code.
    pub coupling: Coupling,
    /// What is applied after the gates.
    pub transition: Transition,
}

impl MogrifierLstmStep {
    /// The input is gated at each step, and the kernel has no normalisation of the input product there.
    fn check_kernel(&self) -> Result<(), Unfused> {
        let normed = self.preact.norm_input.is_some() || self.preact.norm_hidden.is_some();
        if normed && !self.rounds.is_empty() {
            return Err(Unfused::Cell(
                "a Mogrifier with layer normalisation of its pre-activations",
            ));
        }
        if self.rounds.len() > MAX_ROUNDS {
            return Err(Unfused::Cell("a Mogrifier with more than 8 rounds"));
        }
        Ok(())
    }
}

impl Step for MogrifierLstmStep {
    type State = LstmState<2>;

    packed_sizes!(|cell| cell.coupling.layout().len());

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        self.preact.visit_weights(&"", visit);
        self.transition.visit_weights(&"", visit);
        for (index, round) in self.rounds.iter().enumerate() {
            match &round.matrix {
                RoundMatrix::Full(matrix) => {
                    visit(format_args!("rounds[{index}].matrix"), matrix.into());
                }
                RoundMatrix::LowRank(left, right) => {
                    visit(format_args!("rounds[{index}].left"), left.into());
                    visit(format_args!("rounds[{index}].right"), right.into());
                }
            }
            if let Some(bias) = &round.bias {
                visit(format_args!("rounds[{index}].bias"), bias.into());
            }
        }
    }

    fn lower(&self) -> Result<FusedSpec, Unfused> {
        self.check_kernel()?;
        Ok(FusedSpec::Lstm(LstmSpec {
            rounds: self.rounds.iter().map(Round::lowered).collect(),
            ..lowered(self.coupling, &self.preact, &self.transition)
        }))
    }

    fn step(
        &self,
        input: Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> (Tensor<2>, LstmState<2>) {
        let (mut x, mut h) = (input, state.hidden.clone());
        for (index, round) in self.rounds.iter().enumerate() {
            if index % 2 == 0 {
                x = round.apply(h.clone(), x);
            } else {
                h = round.apply(x.clone(), h);
            }
        }
        let z = self
            .coupling
            .layout()
            .blocks(self.preact.from_input(x) + self.preact.from_hidden(h));
        let (input, forget) = self.coupling.gates(z.get(Gate::Input), z.get(Gate::Forget));
        let candidate = tanh(z.of(Gate::Candidate));
        let output = sigmoid(z.of(Gate::Output));
        let state = self
            .transition
            .advance(forget, input, candidate, |_| output, state, masks);
        (state.hidden.clone(), state)
    }
}

//! One step of the LSTM with coupled gates: see [`crate::equations::cifg`].

use burn::nn::LstmState;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::lower::lowered;
use super::{Preactivation, Step, Transition, VisitWeight, packed_sizes};
use crate::equations::cifg::Coupling;
use crate::equations::dropout::StepMasks;
use crate::fused::problem::{FusedSpec, Unfused};
use crate::gates::Gate;

/// Weights of a coupled-gate cell for one call, gates in the order of [`Coupling::layout`].
#[derive(Debug, Clone)]
pub struct CifgLstmStep {
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// How the input and forget gates depend on each other.
    pub coupling: Coupling,
    /// What is applied after the gates.
    pub transition: Transition,
}

impl Step for CifgLstmStep {
    type State = LstmState<2>;

    packed_sizes!(|cell| cell.coupling.layout().len());

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        self.preact.visit_weights(&"", visit);
        self.transition.visit_weights(&"", visit);
    }

    fn lower(&self) -> Result<FusedSpec, Unfused> {
        let spec = lowered(self.coupling, &self.preact, &self.transition);
        Ok(FusedSpec::Lstm(spec))
    }

    fn project(&self, input: Tensor<2>) -> Tensor<2> {
        self.preact.from_input(input)
    }

    fn step(
        &self,
        projected: Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> (Tensor<2>, LstmState<2>) {
        let preact = projected + self.preact.from_hidden(state.hidden.clone());
        let z = self.coupling.layout().blocks(preact);
        let (input, forget) = self.coupling.gates(z.get(Gate::Input), z.get(Gate::Forget));
        let candidate = tanh(z.of(Gate::Candidate));
        let output = sigmoid(z.of(Gate::Output));
        let state = self
            .transition
            .advance(forget, input, candidate, |_| output, state, masks);
        (state.hidden.clone(), state)
    }
}

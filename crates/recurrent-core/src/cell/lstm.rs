//! One step of the LSTM with packed gates: see [`crate::equations::lstm`].
//!
//! ```text
//! z = x·W + h·R + b        all four gates in one product; x·W and h·R optionally normalised
//! ```
//! With normalisations this is the layer-normalised LSTM.

use burn::nn::LstmState;
use burn::tensor::Tensor;

use super::lower::lowered;
use super::{Preactivation, Step, Transition, VisitWeight, packed_sizes};
use crate::equations::dropout::StepMasks;
use crate::equations::lstm::{Gates, gates};
use crate::fused::problem::{Coupling, FusedSpec, Unfused};

/// Weights of an LSTM cell for one call, gates in the order of
/// [`GateLayout::LSTM`](crate::GateLayout::LSTM).
#[derive(Debug, Clone)]
pub struct LstmStep {
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// What is applied after the gates.
    pub transition: Transition,
}

impl Step for LstmStep {
    type State = LstmState<2>;

    packed_sizes!(|cell| 4);

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        self.preact.visit_weights(&"", visit);
        self.transition.visit_weights(&"", visit);
    }

    fn lower(&self) -> Result<FusedSpec, Unfused> {
        let spec = lowered(Coupling::Independent, &self.preact, &self.transition);
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
        let Gates {
            input,
            forget,
            candidate,
            output,
        } = gates(projected + self.preact.from_hidden(state.hidden.clone()));
        let state = self
            .transition
            .advance(forget, input, candidate, |_| output, state, masks);
        (state.hidden.clone(), state)
    }
}

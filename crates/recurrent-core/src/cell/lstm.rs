//! One step of the LSTM with packed gates: see [`crate::equations::lstm`].
//!
//! ```text
//! z = x·W + h·R + b        all four gates in one product, each half normalised where asked
//! ```
//! With normalisations it is the layer-normalised LSTM.

use alloc::vec::Vec;

use burn::nn::LstmState;
use burn::tensor::Tensor;

use super::{Preactivation, Step, Transition};
use crate::equations::dropout::StepMasks;
use crate::equations::lstm::{Gates, gates};

/// Weights of an LSTM cell for one call, gates in the order of
/// [`GateLayout::LSTM`](crate::GateLayout::LSTM).
#[derive(Debug, Clone)]
pub struct LstmCell {
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// What follows the gates.
    pub transition: Transition,
}

impl Step for LstmCell {
    type State = LstmState<2>;

    fn d_input(&self) -> usize {
        self.preact.d_input()
    }

    fn d_hidden(&self) -> usize {
        self.preact.width() / 4
    }

    fn d_output(&self) -> usize {
        self.transition.d_output(self.d_hidden())
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        self.transition.state_parts(self.d_hidden())
    }

    fn recurrent_weights(&mut self) -> Vec<&mut Tensor<2>> {
        alloc::vec![&mut self.preact.hidden.weight]
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

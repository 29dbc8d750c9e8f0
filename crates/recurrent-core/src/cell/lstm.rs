//! One step of the LSTM with packed gates: see [`crate::equations::lstm`].
//!
//! ```text
//! z = x·W + h·R + b        all four gates in one product
//! ```

use alloc::vec::Vec;

use burn::nn::LstmState;
use burn::tensor::Tensor;

use super::{Affine, Step, Transition};
use crate::equations::dropout::StepMasks;
use crate::equations::lstm::{Gates, gates};

/// Weights of an LSTM cell for one call, gates in the order of
/// [`GateLayout::LSTM`](crate::GateLayout::LSTM).
#[derive(Debug, Clone)]
pub struct LstmCell {
    /// W `[I, 4·H]` and b `[4·H]`
    pub input: Affine,
    /// R `[d_output, 4·H]`
    pub weight_hidden: Tensor<2>,
    /// What follows the gates.
    pub transition: Transition,
}

impl Step for LstmCell {
    type State = LstmState<2>;

    fn d_input(&self) -> usize {
        self.input.d_in()
    }

    fn d_hidden(&self) -> usize {
        self.input.d_out() / 4
    }

    fn d_output(&self) -> usize {
        self.transition.d_output(self.d_hidden())
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        self.transition.state_parts(self.d_hidden())
    }

    fn project(&self, input: Tensor<2>) -> Tensor<2> {
        self.input.forward(input)
    }

    fn step(
        &self,
        projected: Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> (Tensor<2>, LstmState<2>) {
        let preact = projected + state.hidden.clone().matmul(self.weight_hidden.clone());
        let Gates {
            input,
            forget,
            candidate,
            output,
        } = gates(preact);
        let state = self
            .transition
            .advance(forget, input, candidate, |_| output, state, masks);
        (state.hidden.clone(), state)
    }
}

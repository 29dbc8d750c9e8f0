//! One step of the layer-normalised LSTM.
//!
//! ```text
//! z = LN_x(x·W + b_x) + LN_h(h·R + b_h) + b        then as in equations/lstm.rs, with
//! h' = o ⊙ tanh(LN_c(c'))
//! ```
//! Each LN and each bias is optional. LN_x and LN_h normalise all 4·H pre-activations together.
//! Ba et al. have b outside (b_x = b_h = 0) and carry the raw c'; lstms.pth has b_x and b_h inside
//! and carries LN_c(c').
//!
//! **Source.** Ba, Kiros & Hinton, arXiv:1607.06450, equations 20 to 22.

use alloc::vec::Vec;

use burn::nn::LstmState;
use burn::tensor::Tensor;

use super::{Affine, Step, Transition};
use crate::equations::dropout::StepMasks;
use crate::equations::layer_norm::Norm;
use crate::equations::lstm::{Gates, gates};

/// Weights of a layer-normalised LSTM cell for one call, gates in the order of
/// [`GateLayout::LSTM`](crate::GateLayout::LSTM).
///
/// The cell normalisation is [`Transition::norm_cell`].
#[derive(Debug, Clone)]
pub struct LayerNormLstmCell {
    /// W `[I, 4·H]` and b_x `[4·H]`
    pub input: Affine,
    /// R `[d_output, 4·H]` and b_h `[4·H]`
    pub hidden: Affine,
    /// LN_x over `[rows, 4·H]`
    pub norm_input: Option<Norm>,
    /// LN_h over `[rows, 4·H]`
    pub norm_hidden: Option<Norm>,
    /// b `[4·H]`, after the normalisations
    pub bias: Option<Tensor<1>>,
    /// What follows the gates.
    pub transition: Transition,
}

fn normalized(norm: &Option<Norm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

impl Step for LayerNormLstmCell {
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

    /// LN_x(x·W + b_x) + b: row by row, so it does not matter that all steps are together.
    fn project(&self, input: Tensor<2>) -> Tensor<2> {
        let projected = normalized(&self.norm_input, self.input.forward(input));
        match &self.bias {
            Some(bias) => projected + bias.clone().unsqueeze(),
            None => projected,
        }
    }

    fn step(
        &self,
        projected: Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> (Tensor<2>, LstmState<2>) {
        let recurrent = self.hidden.forward(state.hidden.clone());
        let preact = projected + normalized(&self.norm_hidden, recurrent);
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

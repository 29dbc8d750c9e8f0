//! One step of the LSTM with peepholes: see [`crate::equations::peephole`].

use burn::nn::LstmState;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::{Preactivation, Step, Transition, packed_sizes};
use crate::equations::cifg::Coupling;
use crate::equations::dropout::StepMasks;
use crate::equations::peephole::{OutputPeephole, Peephole};
use crate::gates::Gate;

/// Weights of a peephole cell for one call, gates in the order of [`Coupling::layout`].
#[derive(Debug, Clone)]
pub struct PeepholeLstmCell {
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// How the input and forget gates depend on each other.
    pub coupling: Coupling,
    /// v_i; absent where the coupling leaves the input gate out.
    pub peephole_input: Option<Peephole>,
    /// v_f; absent where the coupling leaves the forget gate out.
    pub peephole_forget: Option<Peephole>,
    /// v_o
    pub peephole_output: Peephole,
    /// Which cell the output gate looks at.
    pub output_looks_at: OutputPeephole,
    /// What follows the gates.
    pub transition: Transition,
}

/// `z + v(c)` where both are there.
fn look(peephole: &Option<Peephole>, z: Option<Tensor<2>>, cell: &Tensor<2>) -> Option<Tensor<2>> {
    z.map(|z| match peephole {
        Some(peephole) => peephole.look(z, cell),
        None => z,
    })
}

impl Step for PeepholeLstmCell {
    type State = LstmState<2>;

    packed_sizes!(|cell| cell.coupling.layout().len());

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
        let cell = state.cell.clone();
        let (input, forget) = self.coupling.gates(
            look(&self.peephole_input, z.get(Gate::Input), &cell),
            look(&self.peephole_forget, z.get(Gate::Forget), &cell),
        );
        let candidate = tanh(z.of(Gate::Candidate));
        let output = |new_cell: &Tensor<2>| {
            let seen = match self.output_looks_at {
                OutputPeephole::NewCell => new_cell,
                OutputPeephole::PreviousCell => &cell,
            };
            sigmoid(self.peephole_output.look(z.of(Gate::Output), seen))
        };
        let state = self
            .transition
            .advance(forget, input, candidate, output, state, masks);
        (state.hidden.clone(), state)
    }
}

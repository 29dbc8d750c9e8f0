//! One step of the LSTM with peepholes: see [`crate::equations::peephole`].

use alloc::vec::Vec;

use burn::nn::LstmState;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::lower::lowered;
use super::{Preactivation, Step, Transition, VisitWeight, packed_sizes};
use crate::equations::cifg::Coupling;
use crate::equations::dropout::StepMasks;
use crate::equations::peephole::{OutputPeephole, Peephole};
use crate::fused::problem::{FusedSpec, LstmSpec, Peepholes, Unfused};
use crate::gates::Gate;

/// Weights of a peephole cell for one call, gates in the order of [`Coupling::layout`].
#[derive(Debug, Clone)]
pub struct PeepholeLstmStep {
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// How the input and forget gates depend on each other.
    pub coupling: Coupling,
    /// v_i; absent if the coupling has no weights for the input gate.
    pub peephole_input: Option<Peephole>,
    /// v_f; absent if the coupling has no weights for the forget gate.
    pub peephole_forget: Option<Peephole>,
    /// v_o
    pub peephole_output: Peephole,
    /// Which cell state the output gate reads.
    pub output_looks_at: OutputPeephole,
    /// What is applied after the gates.
    pub transition: Transition,
}

impl PeepholeLstmStep {
    /// The peepholes of the gates with weights, in packed order; the last one belongs to the output gate.
    fn packed(&self) -> Vec<Option<&Peephole>> {
        let gates = self.coupling.layout().gates().iter();
        gates
            .filter(|&&gate| gate != Gate::Candidate)
            .map(|gate| match gate {
                Gate::Input => self.peephole_input.as_ref(),
                Gate::Forget => self.peephole_forget.as_ref(),
                _ => Some(&self.peephole_output),
            })
            .collect()
    }

    /// The kernel supports either only full peepholes on c, or only diagonal ones.
    fn check_kernel(&self) -> Result<(), Unfused> {
        let full = |peephole: &&Peephole| matches!(peephole, Peephole::Full(_));
        let peepholes = self.packed();
        let count = peepholes.iter().flatten().filter(|&p| full(p)).count();
        match self.output_looks_at {
            _ if count == 0 => Ok(()),
            OutputPeephole::PreviousCell if count == peepholes.iter().flatten().count() => Ok(()),
            OutputPeephole::PreviousCell => {
                Err(Unfused::Cell("full and diagonal peepholes side by side"))
            }
            OutputPeephole::NewCell => Err(Unfused::Cell("full peepholes on the new cell")),
        }
    }

    fn kernel_peepholes(&self) -> Peepholes {
        let peepholes = self.packed();
        let diagonal = |peephole: Option<&Peephole>| match peephole {
            Some(Peephole::Diagonal(v)) => Some(v.clone()),
            _ => None,
        };
        let (output, shares) = match peepholes.split_last() {
            Some((output, shares)) => (*output, shares),
            None => (None, &[][..]),
        };
        let is_full = matches!(self.peephole_output, Peephole::Full(_));
        let full = is_full.then(|| {
            // Packed in the gate order of R; the candidate has no peephole.
            let zeros = match &self.peephole_output {
                Peephole::Full(v) => v.zeros_like(),
                Peephole::Diagonal(v) => v.zeros_like().unsqueeze(),
            };
            let block = |peephole: Option<&Peephole>| match peephole {
                Some(Peephole::Full(v)) => v.clone(),
                _ => zeros.clone(),
            };
            let mut blocks: Vec<_> = shares.iter().map(|&share| block(share)).collect();
            blocks.push(zeros.clone());
            blocks.push(block(output));
            Tensor::cat(blocks, 1)
        });
        Peepholes {
            mixing: [0, 1].map(|index| diagonal(shares.get(index).copied().flatten())),
            output: diagonal(output),
            output_sees_new: self.output_looks_at == OutputPeephole::NewCell,
            full,
        }
    }
}

/// `z + v(c)` if both are present.
fn look(peephole: &Option<Peephole>, z: Option<Tensor<2>>, cell: &Tensor<2>) -> Option<Tensor<2>> {
    z.map(|z| match peephole {
        Some(peephole) => peephole.look(z, cell),
        None => z,
    })
}

impl Step for PeepholeLstmStep {
    type State = LstmState<2>;

    packed_sizes!(|cell| cell.coupling.layout().len());

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        self.preact.visit_weights(&"", visit);
        self.transition.visit_weights(&"", visit);
        let peepholes = [
            ("peephole_input", self.peephole_input.as_ref()),
            ("peephole_forget", self.peephole_forget.as_ref()),
            ("peephole_output", Some(&self.peephole_output)),
        ];
        for (name, peephole) in peepholes {
            match peephole {
                Some(Peephole::Diagonal(v)) => visit(format_args!("{name}"), v.into()),
                Some(Peephole::Full(v)) => visit(format_args!("{name}"), v.into()),
                None => {}
            }
        }
    }

    fn lower(&self) -> Result<FusedSpec, Unfused> {
        self.check_kernel()?;
        Ok(FusedSpec::Lstm(LstmSpec {
            peepholes: self.kernel_peepholes(),
            ..lowered(self.coupling, &self.preact, &self.transition)
        }))
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

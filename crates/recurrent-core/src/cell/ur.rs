//! One step of UR-LSTM and its gate family: see [`crate::equations::ur`].

use burn::nn::LstmState;
use burn::serde::{Deserialize, Serialize};
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::lower::lowered;
use super::{Preactivation, Step, Transition, VisitWeight, packed_sizes};
use crate::equations::dropout::StepMasks;
use crate::equations::lstm::one_minus;
use crate::equations::ur::{effective_gate, master_gates};
use crate::fused::problem::{Coupling, ForgetBias, FusedSpec, LstmSpec, Unfused};
use crate::gates::{Gate, GateLayout};

/// How the share of the old cell is made.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(crate = "burn::serde")]
pub enum GateMechanism {
    /// e = f, the new content weighs 1 − f.
    Standard,
    /// The refine gate moves f.
    Refine,
    /// Ordered master gates over i and f.
    Master,
}

impl GateMechanism {
    /// The gates that have weights, in packed order.
    pub const fn layout(self) -> GateLayout {
        match self {
            Self::Standard => GateLayout::FORGET_ONLY,
            Self::Refine => GateLayout::UR,
            Self::Master => GateLayout::MASTER,
        }
    }
}

/// Weights of a UR-LSTM cell for one call, gates in the order of [`GateMechanism::layout`].
#[derive(Debug, Clone)]
pub struct UrLstmStep {
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// How the share of the old cell is made.
    pub mechanism: GateMechanism,
    /// b `[H]`: added to the forget gate's pre-activation.
    pub forget_bias: Tensor<1>,
    /// Whether b is taken from the refine gate's pre-activation as well.
    pub tied: bool,
    /// What follows the gates.
    pub transition: Transition,
}

impl UrLstmStep {
    /// (i, f): the weights of the candidate and of the old cell.
    fn shares(&self, z: &crate::gates::Blocks) -> (Tensor<2>, Tensor<2>) {
        let bias = self.forget_bias.clone().unsqueeze::<2>();
        let forget = sigmoid(z.of(Gate::Forget) + bias.clone());
        match self.mechanism {
            GateMechanism::Standard => (one_minus(forget.clone()), forget),
            GateMechanism::Refine => {
                let preact = z.of(Gate::Refine);
                let refine = sigmoid(if self.tied { preact - bias } else { preact });
                let effective = effective_gate(forget, refine);
                (one_minus(effective.clone()), effective)
            }
            GateMechanism::Master => master_gates(
                sigmoid(z.of(Gate::Input)),
                forget,
                z.of(Gate::MasterInput),
                z.of(Gate::MasterForget),
            ),
        }
    }
}

impl Step for UrLstmStep {
    type State = LstmState<2>;

    packed_sizes!(|cell| cell.mechanism.layout().len());

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        self.preact.visit_weights(&"", visit);
        self.transition.visit_weights(&"", visit);
        visit(format_args!("forget_bias"), (&self.forget_bias).into());
    }

    fn lower(&self) -> Result<FusedSpec, Unfused> {
        let coupling = match self.mechanism {
            GateMechanism::Standard => Coupling::InputFromForget,
            GateMechanism::Refine => Coupling::Refined,
            GateMechanism::Master => return Err(Unfused::Cell("ordered master gates")),
        };
        Ok(FusedSpec::Lstm(LstmSpec {
            forget_bias: Some(ForgetBias {
                bias: self.forget_bias.clone(),
                tied: self.tied,
            }),
            ..lowered(coupling, &self.preact, &self.transition)
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
        let z = self.mechanism.layout().blocks(preact);
        let (input, forget) = self.shares(&z);
        let candidate = tanh(z.of(Gate::Candidate));
        let output = sigmoid(z.of(Gate::Output));
        let state = self
            .transition
            .advance(forget, input, candidate, |_| output, state, masks);
        (state.hidden.clone(), state)
    }
}

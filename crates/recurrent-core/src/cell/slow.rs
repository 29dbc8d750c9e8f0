//! The LSTM with one pair of affine maps per gate: the readable counterpart of [`super::lstm`].
//!
//! ```text
//! i = σ(x·W_i + h·R_i + b_i)        f = σ(x·W_f + h·R_f + b_f)
//! g = tanh(x·W_g + h·R_g + b_g)     o = σ(x·W_o + h·R_o + b_o)
//! ```
//! Eight products per step, none hoisted out of the loop. It is meant for reading, and for weights that
//! are stored per gate.

use alloc::vec::Vec;

use burn::nn::LstmState;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::weights::visit_some;
use super::{Affine, Step, Transition, VisitWeight};
use crate::equations::dropout::StepMasks;
use crate::fused::problem::{FusedSpec, Unfused};

/// The two affine maps of one gate.
#[derive(Debug, Clone)]
pub struct GateMaps {
    /// W `[I, H]` and b `[H]`
    pub input: Affine,
    /// R `[d_output, H]`, usually without a bias
    pub hidden: Affine,
}

impl GateMaps {
    /// `x·W + h·R + b`
    pub fn preact(&self, input: &Tensor<2>, hidden: &Tensor<2>) -> Tensor<2> {
        self.input.forward(input.clone()) + self.hidden.forward(hidden.clone())
    }
}

/// Weights of a per-gate LSTM cell for one call.
#[derive(Debug, Clone)]
pub struct SlowLstmStep {
    /// i
    pub input_gate: GateMaps,
    /// f
    pub forget_gate: GateMaps,
    /// g
    pub cell_gate: GateMaps,
    /// o
    pub output_gate: GateMaps,
    /// What is applied after the gates.
    pub transition: Transition,
}

impl SlowLstmStep {
    /// The same cell with packed weights.
    fn packed(&self) -> super::lstm::LstmStep {
        let gates = [
            &self.input_gate,
            &self.forget_gate,
            &self.cell_gate,
            &self.output_gate,
        ];
        let pack = |map: fn(&GateMaps) -> &Affine| {
            let maps = gates.map(map);
            let bias = maps.iter().any(|map| map.bias.is_some()).then(|| {
                let bias = |map: &Affine| match &map.bias {
                    Some(bias) => bias.clone(),
                    None => {
                        let weight = &map.weight;
                        Tensor::zeros([map.d_out()], (&weight.device(), weight.dtype()))
                    }
                };
                Tensor::cat(maps.map(bias).to_vec(), 0)
            });
            let weight = maps.map(|map| map.weight.clone()).to_vec();
            Affine {
                weight: Tensor::cat(weight, 1),
                bias,
            }
        };
        super::lstm::LstmStep {
            preact: super::Preactivation {
                input: pack(|gate| &gate.input),
                hidden: pack(|gate| &gate.hidden),
                norm_input: None,
                norm_hidden: None,
                bias: None,
            },
            transition: self.transition.clone(),
        }
    }
}

impl Step for SlowLstmStep {
    type State = LstmState<2>;

    fn d_input(&self) -> usize {
        self.input_gate.input.d_in()
    }

    fn d_hidden(&self) -> usize {
        self.input_gate.input.d_out()
    }

    fn d_output(&self) -> usize {
        self.transition.d_output(self.d_hidden())
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        self.transition.state_parts(self.d_hidden())
    }

    fn recurrent_weights(&mut self) -> Vec<&mut Tensor<2>> {
        alloc::vec![
            &mut self.input_gate.hidden.weight,
            &mut self.forget_gate.hidden.weight,
            &mut self.cell_gate.hidden.weight,
            &mut self.output_gate.hidden.weight,
        ]
    }

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        for (name, gate) in [
            ("input_gate.", &self.input_gate),
            ("forget_gate.", &self.forget_gate),
            ("cell_gate.", &self.cell_gate),
            ("output_gate.", &self.output_gate),
        ] {
            let GateMaps { input, hidden } = gate;
            visit(format_args!("{name}weight_input"), (&input.weight).into());
            visit(format_args!("{name}weight_hidden"), (&hidden.weight).into());
            visit_some(&name, "bias_input", &input.bias, visit);
            visit_some(&name, "bias_hidden", &hidden.bias, visit);
        }
        self.transition.visit_weights(&"", visit);
    }

    /// Lowers the packed cell; its weights are those of the gates, concatenated.
    fn lower(&self) -> Result<FusedSpec, Unfused> {
        self.packed().lower()
    }

    fn step(
        &self,
        input: Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> (Tensor<2>, LstmState<2>) {
        let preact = |gate: &GateMaps| gate.preact(&input, &state.hidden);
        let i = sigmoid(preact(&self.input_gate));
        let f = sigmoid(preact(&self.forget_gate));
        let g = tanh(preact(&self.cell_gate));
        let o = sigmoid(preact(&self.output_gate));
        let state = self.transition.advance(f, i, g, |_| o, state, masks);
        (state.hidden.clone(), state)
    }
}

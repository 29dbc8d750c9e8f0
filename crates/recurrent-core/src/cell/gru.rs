//! One step of the GRU with packed gates: see [`crate::equations::gru`].
//!
//! ```text
//! a = x·W + b              all three blocks in one product, for all steps at once
//! u = h·R                  reset after the product: all three blocks at once
//! r = σ(a_r + u_r)         z = σ(a_z + u_z)
//! n = tanh(a_n + r ⊙ (u_n + b_hn))                   reset after
//! n = tanh(a_n + (r ⊙ h)·R_n)                        reset before: a second product, once r is known
//! h̃ = m_h ⊙ ((1 − z) ⊙ (m_n ⊙ n) + z ⊙ h)            m_n: Semeniuta mask;  m_h: standard or Gal mask
//! h' = v ⊙ h̃ + (1 − v) ⊙ h                           v: zoneout
//! ```
//! Absent masks are skipped. There is no cell state, so masks on c are rejected.

use alloc::{vec, vec::Vec};

use burn::tensor::Tensor;

use super::weights::visit_some;
use super::{Affine, Step, VisitWeight};
use crate::equations::dropout::{MaskSizes, StepMasks, apply, zoneout};
use crate::equations::gru::{Gates, Preactivations, gates, hidden, reset};
use crate::fused::problem::{FusedSpec, GruSpec, Unfused};
use crate::gates::GateLayout;
use crate::state::GruState;

/// Weights of a GRU cell for one call, gates in the order of [`GateLayout::GRU`].
#[derive(Debug, Clone)]
pub struct GruStep {
    /// W `[I, 3·H]` and b `[3·H]`
    pub input: Affine,
    /// R `[H, 3·H]`
    pub weight_hidden: Tensor<2>,
    /// b_hn `[H]`; only if the reset gate acts after the product.
    pub bias_candidate_hidden: Option<Tensor<1>>,
    /// Whether the reset gate multiplies `h·R_n + b_hn` (PyTorch, cuDNN), or h (Cho et al.).
    pub reset_after: bool,
}

impl GruStep {
    /// The activated gates of one step.
    fn gates(&self, projected: Tensor<2>, h: &Tensor<2>) -> Gates {
        let [reset_x, update_x, candidate] = GateLayout::GRU.split(projected);
        let preact = |reset_h, update_h| Preactivations {
            reset: reset_x + reset_h,
            update: update_x + update_h,
            candidate,
        };
        if self.reset_after {
            let product = h.clone().matmul(self.weight_hidden.clone());
            let [reset_h, update_h, candidate_h] = GateLayout::GRU.split(product);
            let candidate_h = match &self.bias_candidate_hidden {
                Some(bias) => candidate_h + bias.clone().unsqueeze(),
                None => candidate_h,
            };
            return gates(preact(reset_h, update_h), |r| reset(r.clone(), candidate_h));
        }
        let [of_gates, of_candidate] = GateLayout::GRU.split_at(2, self.weight_hidden.clone());
        let [reset_h, update_h] = GateLayout::GRU_GATES.split(h.clone().matmul(of_gates));
        gates(preact(reset_h, update_h), |r| {
            reset(r.clone(), h.clone()).matmul(of_candidate)
        })
    }
}

impl Step for GruStep {
    type State = GruState;

    fn d_input(&self) -> usize {
        self.input.d_in()
    }

    fn d_hidden(&self) -> usize {
        self.input.d_out() / GateLayout::GRU.len()
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        vec![("hidden", self.d_hidden())]
    }

    fn mask_sizes(&self) -> MaskSizes {
        MaskSizes::without_cell_state(self.d_hidden())
    }

    fn recurrent_weights(&mut self) -> Vec<&mut Tensor<2>> {
        vec![&mut self.weight_hidden]
    }

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        visit(format_args!("weight_input"), (&self.input.weight).into());
        visit_some(&"", "bias", &self.input.bias, visit);
        visit(format_args!("weight_hidden"), (&self.weight_hidden).into());
        let bias = &self.bias_candidate_hidden;
        visit_some(&"", "bias_candidate_hidden", bias, visit);
    }

    fn project(&self, input: Tensor<2>) -> Tensor<2> {
        self.input.forward(input)
    }

    fn step(
        &self,
        projected: Tensor<2>,
        state: GruState,
        masks: &StepMasks,
    ) -> (Tensor<2>, GruState) {
        let h = state.hidden;
        let Gates {
            update, candidate, ..
        } = self.gates(projected, &h);
        let next = hidden(update, apply(&masks.candidate, candidate), h.clone());
        let next = apply(&masks.hidden, next);
        let next = zoneout(&masks.update_hidden, next, h);
        (next.clone(), GruState { hidden: next })
    }

    fn lower(&self) -> Result<FusedSpec, Unfused> {
        Ok(FusedSpec::Gru(GruSpec {
            weight_input: self.input.weight.clone(),
            bias: self.input.bias.clone(),
            weight_hidden: self.weight_hidden.clone(),
            bias_candidate_hidden: self.bias_candidate_hidden.clone(),
            reset_after: self.reset_after,
        }))
    }
}

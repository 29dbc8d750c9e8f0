//! From the gates to the next state: common to all LSTM variants.
//!
//! ```text
//! c̃ = f ⊙ c + i ⊙ (m_g ⊙ g)                  m_g: Semeniuta mask
//! c̃ = m_c ⊙ c̃                                 m_c: Moon mask
//! c̃ = clamp(c̃, −clip, clip)
//! n = LN(c̃)                                   cell normalisation
//! h̃ = m_h ⊙ ((o ⊙ tanh(n))·P)                 P: projection;  m_h: standard or Gal mask
//! c' = u ⊙ ĉ + (1 − u) ⊙ c                    ĉ = c̃, or n if the normalised cell is carried
//! h' = v ⊙ h̃ + (1 − v) ⊙ h                    u, v: zoneout
//! ```
//! A line whose option is not set is the identity. The output gate is passed as a function of c̃, since
//! peepholes may read c̃.

use alloc::{vec, vec::Vec};
use core::fmt::Display;

use burn::nn::LstmState;
use burn::tensor::Tensor;

use super::VisitWeight;
use super::weights::{visit_norm, visit_some};
use crate::equations::dropout::{StepMasks, apply, zoneout};
use crate::equations::layer_norm::NormWeights;
use crate::equations::lstm;

/// Options and weights of the transition.
#[derive(Debug, Clone, Default)]
pub struct Transition {
    /// Bounds |c̃|; in units of the cell state.
    pub clip: Option<f64>,
    /// Normalises the cell before tanh.
    pub norm_cell: Option<NormWeights>,
    /// Whether the carried cell is the normalised one (lstms.pth) or the raw one (Ba et al.).
    pub carry_normalized: bool,
    /// P `[H, d_proj]`: projects the hidden state (LSTMP, Sak et al., arXiv:1402.1128).
    pub projection: Option<Tensor<2>>,
}

impl Transition {
    /// The next state, from the activated gates.
    ///
    /// # Arguments
    /// * `forget`, `input`, `candidate` - f, i, g `[B, H]`
    /// * `output` - computes o `[B, H]` from c̃
    /// * `state` - c `[B, H]`, h `[B, d_output]`
    pub fn advance(
        &self,
        forget: Tensor<2>,
        input: Tensor<2>,
        candidate: Tensor<2>,
        output: impl FnOnce(&Tensor<2>) -> Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> LstmState<2> {
        let candidate = apply(&masks.candidate, candidate);
        let raw = lstm::cell(forget, state.cell.clone(), input, candidate);
        let raw = apply(&masks.cell, raw);
        let raw = match self.clip {
            Some(clip) => raw.clamp(-clip, clip),
            None => raw,
        };

        let output = output(&raw);
        let visible = match &self.norm_cell {
            Some(norm) => norm.forward(raw.clone()),
            None => raw.clone(),
        };
        let carried = if self.carry_normalized {
            visible.clone()
        } else {
            raw
        };

        let hidden = lstm::hidden(output, visible);
        let hidden = match &self.projection {
            Some(projection) => hidden.matmul(projection.clone()),
            None => hidden,
        };
        let hidden = apply(&masks.hidden, hidden);

        // Not `LstmState::new`: with a projection the two sizes differ, which it rejects in debug.
        LstmState {
            cell: zoneout(&masks.update_cell, carried, state.cell),
            hidden: zoneout(&masks.update_hidden, hidden, state.hidden),
        }
    }

    /// Visits the weights, see [`Step::visit_weights`](super::Step::visit_weights); each name gets the
    /// prefix `prefix`.
    pub fn visit_weights(&self, prefix: &dyn Display, visit: &mut VisitWeight<'_>) {
        visit_some(prefix, "projection", &self.projection, visit);
        visit_norm(prefix, "norm_cell", &self.norm_cell, visit);
    }

    /// Size of h: `d_proj`, or `d_hidden` without a projection.
    pub fn d_output(&self, d_hidden: usize) -> usize {
        self.projection
            .as_ref()
            .map_or(d_hidden, |projection| projection.dims()[1])
    }

    /// The parts of an LSTM state, in the order of [`State::into_tensors`](crate::State::into_tensors).
    pub fn state_parts(&self, d_hidden: usize) -> Vec<(&'static str, usize)> {
        vec![("cell", d_hidden), ("hidden", self.d_output(d_hidden))]
    }
}

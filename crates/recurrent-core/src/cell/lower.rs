//! Lowers the cells of the LSTM family to the data that a kernel takes.

use alloc::vec::Vec;

use super::{Affine, Preactivation, Transition};
use crate::fused::problem::{Coupling, LstmSpec, Peepholes};

/// The spec of a cell with packed gates and a transition, without the additions of the variants.
pub(super) fn lowered(
    coupling: impl Into<Coupling>,
    preact: &Preactivation,
    transition: &Transition,
) -> LstmSpec {
    let Affine {
        weight: weight_input,
        bias: bias_input,
    } = preact.input.clone();
    let Affine {
        weight: weight_hidden,
        bias: bias_hidden,
    } = preact.hidden.clone();
    LstmSpec {
        coupling: coupling.into(),
        weight_input,
        bias_input,
        norm_input: preact.norm_input.clone(),
        weight_hidden,
        bias_hidden,
        norm_hidden: preact.norm_hidden.clone(),
        bias: preact.bias.clone(),
        forget_bias: None,
        peepholes: Peepholes::default(),
        rounds: Vec::new(),
        clip: transition.clip,
        norm_cell: transition.norm_cell.clone(),
        carry_normalized: transition.carry_normalized,
        projection: transition.projection.clone(),
    }
}

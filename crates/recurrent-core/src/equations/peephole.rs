//! Peepholes: gates that read the cell state.
//!
//! ```text
//! i = σ(z_i + v_i(c))     f = σ(z_f + v_f(c))     o = σ(z_o + v_o(c*))
//! diagonal   v(c) = v ⊙ c        v [H]           Gers & Schmidhuber
//! full       v(c) = c·V          V [H, H]        common in teaching code
//! ```
//! then as in [`super::lstm`]; c* is c' (the published form) or c (a common simplification).
//!
//! **Source.** Gers & Schmidhuber, Recurrent Nets that Time and Count, IJCNN 2000; Gers, Schraudolph &
//! Schmidhuber, JMLR 3, 2002.

use burn::serde::{Deserialize, Serialize};
use burn::tensor::Tensor;

/// Which cell state the output gate reads.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(crate = "burn::serde")]
pub enum OutputPeephole {
    /// c', after its mask and clip: the published form.
    NewCell,
    /// c: a common simplification.
    PreviousCell,
}

/// The weights of one gate's peephole.
#[derive(Debug, Clone)]
pub enum Peephole {
    /// v `[H]`
    Diagonal(Tensor<1>),
    /// V `[H, H]`
    Full(Tensor<2>),
}

impl Peephole {
    /// `z + v(c)`
    ///
    /// # Shapes
    /// - preact, cell, output `[B, H]`
    pub fn look(&self, preact: Tensor<2>, cell: &Tensor<2>) -> Tensor<2> {
        match self {
            Self::Diagonal(v) => preact + cell.clone() * v.clone().unsqueeze(),
            Self::Full(v) => preact + cell.clone().matmul(v.clone()),
        }
    }
}

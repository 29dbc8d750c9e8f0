//! Where dropout masks multiply, in every variant.
//!
//! ```text
//! standard    h' = m_t ⊙ (o ⊙ tanh(c'))          m_t [B, H] resampled at each step
//! Gal         h' = m ⊙ (o ⊙ tanh(c'))            m   [B, H] one per sequence
//! Moon        c' = m ⊙ (f ⊙ c + i ⊙ g)           m   [B, H] one per sequence
//! Semeniuta   c' = f ⊙ c + i ⊙ (m_t ⊙ g)         m_t [B, H] resampled at each step
//! zoneout     c' = u_t ⊙ c̃ + (1 − u_t) ⊙ c       h' = v_t ⊙ h̃ + (1 − v_t) ⊙ h
//! weight drop R' = M ⊙ R                         M the shape of R, one per call
//! ```
//! where c̃, h̃ are the values without zoneout. A dropout mask holds 0 or 1/(1 − p); a zoneout mask
//! holds 1 where the unit is updated, 0 where it keeps its old value, and 1 − p (the expectation)
//! in evaluation. The masked value is both what is returned and what is fed back. Masks are
//! ordinary multiplications: gradients flow through them.
//!
//! **Source.** Gal & Ghahramani, arXiv:1512.05287; Moon et al., RNNDrop, ASRU 2015; Semeniuta,
//! Severyn & Barth, arXiv:1603.05118, equation 9; Krueger et al., Zoneout, arXiv:1606.01305;
//! Merity, Keskar & Socher, AWD-LSTM, arXiv:1708.02182, section 2
//! ([`drop_weights`](crate::cell::drop_weights)).
//! The standard, Gal and Moon forms are those of lstms.pth, which feeds the dropped state back.
//! With a projection, masks on h act on the projected h.

use burn::tensor::Tensor;

pub use super::masks::{Mask, MaskPlace, MaskSizes, Masks, StepMasks};

/// `m ⊙ x`, or `x` without a mask.
pub fn apply(mask: &Option<Tensor<2>>, x: Tensor<2>) -> Tensor<2> {
    match mask {
        Some(mask) => x * mask.clone(),
        None => x,
    }
}

/// `u ⊙ new + (1 − u) ⊙ old`, or `new` without a mask.
pub fn zoneout(update: &Option<Tensor<2>>, new: Tensor<2>, old: Tensor<2>) -> Tensor<2> {
    match update {
        // Not `old + u ⊙ (new − old)`: with u = 1 that would not give `new` exactly.
        Some(update) => {
            let keep = update.clone().neg().add_scalar(1.0);
            new * update.clone() + old * keep
        }
        None => new,
    }
}

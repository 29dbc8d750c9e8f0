//! Where dropout masks multiply, in every variant.
//!
//! ```text
//! standard    h' = m_t ⊙ (o ⊙ tanh(c'))          m_t [B, H] anew at each step
//! Gal         h' = m ⊙ (o ⊙ tanh(c'))            m   [B, H] one per sequence
//! Moon        c' = m ⊙ (f ⊙ c + i ⊙ g)           m   [B, H] one per sequence
//! Semeniuta   c' = f ⊙ c + i ⊙ (m_t ⊙ g)         m_t [B, H] anew at each step
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
//! Merity, Keskar & Socher, AWD-LSTM, arXiv:1708.02182, section 2.
//! The standard, Gal and Moon forms are those of lstms.pth, which feeds the dropped state back.
//! With a projection, masks on h act on the projected h.

use alloc::vec::Vec;

use burn::tensor::{DType, Tensor};

/// A multiplier for one quantity during one call.
#[derive(Debug, Clone)]
pub enum Mask {
    /// `[batch_size, features]`: the same at each step of the sequence.
    PerSequence(Tensor<2>),
    /// `[seq_length, batch_size, features]`: anew at each step, in the order of the input.
    PerStep(Tensor<3>),
}

impl Mask {
    /// Panics with `name`, got and expected if the mask does not fit.
    #[track_caller]
    fn check(&self, name: &str, seq_length: usize, batch_size: usize, features: usize) {
        match self {
            Mask::PerSequence(mask) => assert!(
                mask.dims() == [batch_size, features],
                "mask `{name}` has shape {:?}, expected [batch_size, features] = [{batch_size}, {features}]",
                mask.dims(),
            ),
            Mask::PerStep(mask) => {
                let [steps, rows, columns] = mask.dims();
                assert!(
                    steps >= seq_length && [rows, columns] == [batch_size, features],
                    "mask `{name}` has shape {:?}, expected [seq_length, batch_size, features] = \
                     [{seq_length}, {batch_size}, {features}]",
                    mask.dims(),
                );
            }
        }
    }

    /// Its type of numbers.
    pub fn dtype(&self) -> DType {
        match self {
            Mask::PerSequence(mask) => mask.dtype(),
            Mask::PerStep(mask) => mask.dtype(),
        }
    }

    /// The multiplier of step `t`, `[batch_size, features]`.
    pub fn at(&self, t: usize) -> Tensor<2> {
        match self {
            Mask::PerSequence(mask) => mask.clone(),
            Mask::PerStep(mask) => {
                let [_, batch_size, features] = mask.dims();
                mask.clone()
                    .slice([t..t + 1, 0..batch_size, 0..features])
                    .reshape([batch_size, features])
            }
        }
    }
}

/// Features of the masks of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskSizes {
    /// Of the masks on c' and g.
    pub cell: usize,
    /// Of the masks on h'.
    pub hidden: usize,
    /// Of the mask on the adaptation cells' z; 0 in a variant without such cells.
    pub adapt: usize,
}

impl MaskSizes {
    /// Those of one cell without an adaptation cell.
    pub const fn of(d_hidden: usize, d_output: usize) -> Self {
        Self {
            cell: d_hidden,
            hidden: d_output,
            adapt: 0,
        }
    }
}

/// The masks of one cell for one call; `None` leaves the value alone.
///
/// Masks are values that a caller may hold, so that streaming a sequence in pieces, or a test, can
/// use one mask throughout.
#[derive(Debug, Clone, Default)]
pub struct Masks {
    /// On h' (standard, Gal).
    pub hidden: Option<Mask>,
    /// On c', before clip, normalisation and tanh (Moon).
    pub cell: Option<Mask>,
    /// On the candidate g (Semeniuta).
    pub candidate: Option<Mask>,
    /// Share of the new h' against the old h (zoneout).
    pub update_hidden: Option<Mask>,
    /// Share of the new c' against the old c (zoneout).
    pub update_cell: Option<Mask>,
    /// On z, the hidden state of an adaptation cell (aLSTM only).
    pub adapt: Option<Mask>,
    /// On the recurrent weights, one per entry of
    /// [`Step::recurrent_weights`](crate::Step::recurrent_weights), each of its shape (weight
    /// drop); empty means none. Applied to the weights before a run, with
    /// [`drop_weights`](crate::cell::drop_weights).
    pub weights: Vec<Tensor<2>>,
}

/// [`Masks`] at one step, each `[batch_size, features]`.
#[derive(Debug, Clone, Default)]
pub struct StepMasks {
    /// On h'.
    pub hidden: Option<Tensor<2>>,
    /// On c'.
    pub cell: Option<Tensor<2>>,
    /// On g.
    pub candidate: Option<Tensor<2>>,
    /// Share of the new h'.
    pub update_hidden: Option<Tensor<2>>,
    /// Share of the new c'.
    pub update_cell: Option<Tensor<2>>,
    /// On z.
    pub adapt: Option<Tensor<2>>,
}

impl StepMasks {
    /// Name and type of numbers of each mask that is set.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, DType)> {
        let masks = [
            ("hidden", &self.hidden),
            ("cell", &self.cell),
            ("candidate", &self.candidate),
            ("update_hidden", &self.update_hidden),
            ("update_cell", &self.update_cell),
            ("adapt", &self.adapt),
        ];
        let masks = masks.into_iter();
        masks.filter_map(|(name, mask)| Some((name, mask.as_ref()?.dtype())))
    }
}

impl Masks {
    /// No dropout.
    pub fn none() -> Self {
        Self::default()
    }

    fn named(&self) -> [(&'static str, &Option<Mask>); 6] {
        [
            ("hidden", &self.hidden),
            ("cell", &self.cell),
            ("candidate", &self.candidate),
            ("update_hidden", &self.update_hidden),
            ("update_cell", &self.update_cell),
            ("adapt", &self.adapt),
        ]
    }

    /// Name and type of numbers of each mask that is set, those on weights apart.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, DType)> {
        let masks = self.named().into_iter();
        masks.filter_map(|(name, mask)| Some((name, mask.as_ref()?.dtype())))
    }

    /// Whether no mask is set.
    pub fn is_none(&self) -> bool {
        self.weights.is_empty() && self.named().iter().all(|(_, mask)| mask.is_none())
    }

    /// Checks every mask against the sizes of a call.
    ///
    /// # Panics
    /// If a mask's shape is not `[batch_size, ·]` or `[at least seq_length, batch_size, ·]` with
    /// the features of `sizes`.
    #[track_caller]
    pub fn check(&self, seq_length: usize, batch_size: usize, sizes: MaskSizes) {
        for (name, mask) in self.named() {
            let features = match name {
                "hidden" | "update_hidden" => sizes.hidden,
                "adapt" => sizes.adapt,
                _ => sizes.cell,
            };
            if let Some(mask) = mask {
                mask.check(name, seq_length, batch_size, features);
            }
        }
    }

    /// The masks of step `t`.
    pub fn at(&self, t: usize) -> StepMasks {
        let at = |mask: &Option<Mask>| mask.as_ref().map(|mask| mask.at(t));
        StepMasks {
            hidden: at(&self.hidden),
            cell: at(&self.cell),
            candidate: at(&self.candidate),
            update_hidden: at(&self.update_hidden),
            update_cell: at(&self.update_cell),
            adapt: at(&self.adapt),
        }
    }
}

/// `m ⊙ x`, or `x` where there is no mask.
pub fn apply(mask: &Option<Tensor<2>>, x: Tensor<2>) -> Tensor<2> {
    match mask {
        Some(mask) => x * mask.clone(),
        None => x,
    }
}

/// `u ⊙ new + (1 − u) ⊙ old`, or `new` where there is no mask.
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

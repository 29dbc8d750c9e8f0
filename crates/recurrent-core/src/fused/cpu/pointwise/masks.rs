//! The masks of a call, as pointwise operations read them.

use alloc::vec::Vec;

use crate::equations::masks::{MaskPlace, Masks};
use crate::fused::cpu::view::Rows;

/// A mask of a call.
#[derive(Debug, Clone, Copy)]
pub struct MaskValues {
    /// The rows of the mask.
    pub rows: Rows,
    /// Whether there are separate rows for each step.
    pub per_step: bool,
}

/// The masks of a call.
#[derive(Debug)]
pub struct MaskTable {
    masks: Masks<MaskValues>,
    /// A row of ones, wide enough for every mask.
    ones: Vec<f32>,
}

// SAFETY: the memory behind the pointers is only read.
unsafe impl Sync for MaskTable {}

impl MaskTable {
    /// # Arguments
    /// * `features` - number of features of the widest mask
    pub fn new(masks: Masks<MaskValues>, features: usize) -> Self {
        let any = !masks.is_none();
        Self {
            masks,
            ones: alloc::vec![1.0; if any { features } else { 0 }],
        }
    }

    /// Whether any mask is present.
    pub fn any(&self) -> bool {
        !self.masks.is_none()
    }

    /// A mask at the step whose first row is `offset`, if it is present.
    pub fn get(&self, place: MaskPlace, offset: usize) -> Option<Rows> {
        let mask = self.masks.get(place)?;
        Some(mask.rows.from_row(if mask.per_step { offset } else { 0 }))
    }

    /// The masks of the step whose first row is `offset`.
    pub fn at(&self, offset: usize) -> Masks<Rows> {
        Masks::from_fn(|place| self.get(place, offset))
    }

    /// One of them; ones if the mask is absent.
    pub fn or_ones(&self, place: MaskPlace, offset: usize) -> Rows {
        self.get(place, offset).unwrap_or_else(|| self.ones())
    }

    /// Rows of ones, all the same row (stride 0).
    pub fn ones(&self) -> Rows {
        Rows::read(self.ones.as_ptr(), 0)
    }
}

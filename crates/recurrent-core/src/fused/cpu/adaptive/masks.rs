//! The masks of a call.

use crate::equations::masks::{MaskPlace, Masks};
use crate::fused::cpu::pointwise::{MaskTable, MaskValues};
use crate::fused::cpu::view::Rows;
use crate::fused::problem::adaptive::{AdaptiveProblem, Layer, Tensors, Weight, weight_index};

/// The masks of a call, as pointwise operations read them. The features of all layers are concatenated.
pub struct LayerMasks<'a> {
    problem: &'a AdaptiveProblem,
    table: MaskTable,
    /// Whether any mask acts inside the cells.
    pub masked: bool,
}

impl<'a> LayerMasks<'a> {
    /// The masks of a call.
    pub fn new(problem: &'a AdaptiveProblem, tensors: Tensors<'a>) -> Self {
        let mut next = weight_index(problem.layers.len(), Weight::AdaptInput);
        let masks = Masks::from_fn(|place| {
            let &per_step = problem.masks.get(place)?;
            next += 1;
            let size = |layer: &Layer| AdaptiveProblem::mask_size(layer, place);
            let stride = problem.layers.iter().map(size).sum();
            Some(MaskValues {
                rows: Rows::read(tensors.0[next - 1].as_ptr(), stride),
                per_step,
            })
        });
        let size = |layer: &Layer| layer.d_hidden.max(layer.d_adapt);
        let size = problem.layers.iter().map(size).max().unwrap_or(0);
        let inside = [
            MaskPlace::Candidate,
            MaskPlace::Cell,
            MaskPlace::UpdateCell,
            MaskPlace::UpdateHidden,
        ];
        Self {
            problem,
            table: MaskTable::new(masks, size),
            masked: inside.iter().any(|&mask| problem.has(mask)),
        }
    }

    /// A layer's part of a mask at the step whose first row is `offset`, if it is present.
    pub fn get(&self, place: MaskPlace, layer: usize, offset: usize) -> Option<Rows> {
        let rows = self.table.get(place, offset)?;
        let size = |layer: &Layer| AdaptiveProblem::mask_size(layer, place);
        let start: usize = self.problem.layers[..layer].iter().map(size).sum();
        Some(Rows {
            ptr: rows.ptr.wrapping_add(start),
            ..rows
        })
    }

    /// The masks inside a layer's cell; the mask on h' is applied after it.
    ///
    /// # Arguments
    /// * `zoneout` - whether to include the zoneout mask of h
    pub fn inside(&self, layer: usize, offset: usize, zoneout: bool) -> Masks<Rows> {
        Masks::from_fn(|place| match place {
            MaskPlace::Hidden | MaskPlace::Adapt => None,
            MaskPlace::UpdateHidden if !zoneout => None,
            place => self.get(place, layer, offset),
        })
    }

    /// The masks of an adaptation cell.
    pub fn adapt(&self, layer: usize, offset: usize) -> Masks<Rows> {
        Masks {
            hidden: self.get(MaskPlace::Adapt, layer, offset),
            ..Masks::none()
        }
    }
}

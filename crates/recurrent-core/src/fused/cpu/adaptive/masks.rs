//! The masks of a call.

use alloc::vec::Vec;

use crate::equations::masks::MaskPlace;
use crate::fused::cpu::pointwise::{MaskRows, Rows};
use crate::fused::problem::adaptive::{Layer, Problem, Tensors, Weight, weight_index};

/// The masks of a call, where pointwise operations read them.
pub struct MaskTable<'a> {
    problem: &'a Problem,
    values: [Option<*const f32>; 6],
    /// Enough ones for a row of anything.
    ones: Vec<f32>,
    /// Whether there are masks inside the cells.
    pub masked: bool,
}

impl<'a> MaskTable<'a> {
    /// Those of a call.
    pub fn new(problem: &'a Problem, tensors: Tensors<'a>) -> Self {
        let mut next = weight_index(problem.layers.len(), Weight::AdaptInput);
        let values = MaskPlace::ALL.map(|mask| {
            problem.has(mask).then(|| {
                next += 1;
                tensors.0[next - 1].as_ptr()
            })
        });
        let size = |layer: &Layer| layer.d_hidden.max(layer.d_adapt);
        let size = problem.layers.iter().map(size).max().unwrap_or(0);
        let any = !problem.masks.is_none();
        let inside = [
            MaskPlace::Candidate,
            MaskPlace::Cell,
            MaskPlace::UpdateCell,
            MaskPlace::UpdateHidden,
        ];
        Self {
            problem,
            values,
            ones: alloc::vec![1.0; if any { size } else { 0 }],
            masked: inside.iter().any(|&mask| problem.has(mask)),
        }
    }

    /// A layer's part of a mask at the step whose first row is `offset`, if there is the mask.
    pub fn get(&self, mask: MaskPlace, layer: usize, offset: usize) -> Option<Rows> {
        let ptr = self.values[mask as usize]?;
        let size = |layer: &Layer| Problem::mask_size(layer, mask);
        let stride = self.problem.layers.iter().map(size).sum();
        let start: usize = self.problem.layers[..layer].iter().map(size).sum();
        let row = match self.problem.masks.get(mask) {
            Some(true) => offset,
            _ => 0,
        };
        Some(Rows::read(ptr.wrapping_add(start), stride).from_row(row))
    }

    fn ones(&self) -> Rows {
        Rows::read(self.ones.as_ptr(), 0)
    }

    /// The masks inside a layer's cell; that on h' comes after it.
    ///
    /// # Arguments
    /// * `zoneout` - whether those on the update of h are among them
    pub fn inside(&self, layer: usize, offset: usize, zoneout: bool) -> MaskRows {
        if !self.masked {
            return MaskRows::NONE;
        }
        let mask = |mask| {
            let rows = self.get(mask, layer, offset);
            rows.unwrap_or_else(|| self.ones())
        };
        MaskRows {
            candidate: mask(MaskPlace::Candidate),
            cell: mask(MaskPlace::Cell),
            hidden: self.ones(),
            update_cell: mask(MaskPlace::UpdateCell),
            update_hidden: match zoneout {
                true => mask(MaskPlace::UpdateHidden),
                false => self.ones(),
            },
        }
    }

    /// The masks of an adaptation cell.
    pub fn adapt(&self, layer: usize, offset: usize) -> MaskRows {
        let Some(hidden) = self.get(MaskPlace::Adapt, layer, offset) else {
            return MaskRows::NONE;
        };
        let ones = self.ones();
        MaskRows {
            candidate: ones,
            cell: ones,
            hidden,
            update_cell: ones,
            update_hidden: ones,
        }
    }
}

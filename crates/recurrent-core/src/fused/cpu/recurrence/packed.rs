//! Weights in panels, as the steps of a call read them.

use alloc::vec::Vec;

use super::rounds::Factor;
use crate::fused::cpu::product::{Columns, Panels};
use crate::fused::problem::Part;

/// The weights of a call that are packed: one set for all workers, or one for each.
///
/// Workers that read the same panels at every step want a copy each (measured: products of two threads with
/// the same 256 to 1024 KiB give 127 to 164 GFLOP/s together, with a copy each 142 to 184; with 4 MiB there is
/// no difference).
#[derive(Debug)]
pub struct PackedWeights {
    /// What is packed, with where it is.
    panels: Vec<(Part, Panels, *mut f32)>,
    /// The matrices of each round of the Mogrifier.
    pub factors: Vec<Vec<Factor>>,
    /// Where their panels are.
    into_factors: Vec<Vec<Option<*mut f32>>>,
}

impl PackedWeights {
    /// Room for the given panels.
    ///
    /// # Arguments
    /// * `panels` - each weight with its rows, its columns, and whether it is packed
    pub fn new<'a>(
        panels: impl IntoIterator<Item = (Part, usize, &'a Columns, bool)>,
        mut factors: Vec<Vec<Factor>>,
    ) -> Self {
        let with_pointer = |(part, rows, columns, wanted): (Part, usize, &Columns, bool)| {
            let mut panels = wanted.then(|| Panels::new(rows, columns))?;
            let pointer = panels.as_mut_ptr();
            Some((part, panels, pointer))
        };
        let pointer = |factor: &mut Factor| factor.panels.as_mut().map(Panels::as_mut_ptr);
        let of_round = |round: &mut Vec<Factor>| round.iter_mut().map(pointer).collect();
        Self {
            panels: panels.into_iter().filter_map(with_pointer).collect(),
            into_factors: factors.iter_mut().map(of_round).collect(),
            factors,
        }
    }

    /// The panels of a weight, if it is packed.
    pub fn get(&self, part: Part) -> Option<&Panels> {
        let mut panels = self.panels.iter();
        panels.find_map(|(key, panels, _)| (*key == part).then_some(panels))
    }

    /// Whether there is nothing to pack.
    pub fn is_empty(&self) -> bool {
        let mut factors = self.into_factors.iter().flatten();
        self.panels.is_empty() && factors.all(Option::is_none)
    }

    /// What is to be packed, and where.
    pub fn targets(&self) -> impl Iterator<Item = (Part, *mut f32)> {
        self.panels.iter().map(|&(part, _, target)| (part, target))
    }

    /// The matrices of rounds that are to be packed, and where.
    pub fn factor_targets(&self) -> impl Iterator<Item = (&Factor, *mut f32)> {
        let factors = self.factors.iter().flatten();
        let targets = self.into_factors.iter().flatten();
        let pairs = factors.zip(targets);
        pairs.filter_map(|(factor, target)| target.map(|target| (factor, target)))
    }
}

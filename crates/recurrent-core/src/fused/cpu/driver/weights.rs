//! The weights of a call, in the form that products take.

use alloc::vec::Vec;

use crate::fused::cpu::product::{Columns, Panels, Term, Weights};
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::View;

/// One weight, or some of its rows or columns, as the right factor of a product.
#[derive(Debug)]
pub struct Matrix {
    /// `[k, n]`; the transpose of a weight, for products of the backward.
    pub view: View,
    /// Number of columns of the left factor.
    pub k: usize,
    /// How the product's columns are grouped.
    pub columns: Columns,
    /// If the left factor is in tiles: its columns.
    tiles: Option<Columns>,
    /// Packed, if it is used more than once or its rows are permuted to the order of tiles.
    panels: Option<Panels>,
}

impl Matrix {
    /// A weight that is read in its own memory order.
    pub fn new(view: View, k: usize, columns: Columns) -> Self {
        Self {
            view,
            k,
            columns,
            tiles: None,
            panels: None,
        }
    }

    /// Sets the order of rows for a left factor in tiles of these gates, if `Some`. Only a packed matrix
    /// can be permuted to this order.
    pub fn by_tile(mut self, gates: Option<Columns>) -> Self {
        if let Some(gates) = &gates {
            self.k = gates.padded();
        }
        self.tiles = gates;
        self
    }

    /// Allocates panels for the matrix if `pack`.
    pub fn packed(mut self, pack: bool) -> Self {
        self.panels = pack.then(|| Panels::new(self.k, &self.columns));
        self
    }

    /// Whether it is packed.
    pub fn is_packed(&self) -> bool {
        self.panels.is_some()
    }

    /// The product of `a` and this matrix.
    pub fn term(&self, a: View) -> Term {
        let weights = match &self.panels {
            Some(panels) => panels.weights(),
            None => Weights::Native(self.view),
        };
        Term::new(a, self.k, weights)
    }
}

/// The matrices of a call, or of one worker. Workers that read the same panels at every step get a copy
/// each (measured: products of two threads with the same 256 to 1024 KiB give 127 to 164 GFLOP/s
/// together, with a copy each 142 to 184; with 4 MiB there is no difference).
#[derive(Debug)]
pub struct WeightSet {
    /// By the index that the family assigns; `None` for matrices that a call does not have.
    matrices: Vec<Option<Matrix>>,
    /// The address of each matrix's panels.
    targets: Vec<Option<*mut f32>>,
}

// SAFETY: the panels are written by the shares of one phase, each its own, and only read after it.
unsafe impl Sync for WeightSet {}

impl WeightSet {
    /// The set of the matrices of a list.
    pub fn new(mut matrices: Vec<Option<Matrix>>) -> Self {
        let target = |matrix: &mut Option<Matrix>| {
            let panels = matrix.as_mut()?.panels.as_mut()?;
            Some(panels.as_mut_ptr())
        };
        Self {
            targets: matrices.iter_mut().map(target).collect(),
            matrices,
        }
    }

    /// # Panics
    /// If the call does not have that matrix.
    pub fn get(&self, index: usize) -> &Matrix {
        let matrix = self.matrices.get(index).and_then(Option::as_ref);
        matrix.expect("a phase runs only where the call has its weights")
    }

    /// Whether any matrix is packed.
    pub fn is_packed(&self) -> bool {
        self.targets.iter().any(Option::is_some)
    }

    /// Packs a share's panels of all matrices.
    ///
    /// # Safety
    /// Nobody else touches the panels of this share, and no thread reads any before all shares are done.
    pub unsafe fn pack(&self, isa: Isa, share: usize, shares: usize) {
        for (matrix, target) in self.matrices.iter().zip(&self.targets) {
            let (Some(matrix), &Some(target)) = (matrix, target) else {
                continue;
            };
            let Matrix {
                view, k, columns, ..
            } = matrix;
            let panels = columns.share(share, shares);
            // SAFETY: the matrix has k rows and these columns, the panels were made for them, and
            // each share packs panels of its own.
            unsafe {
                match &matrix.tiles {
                    Some(gates) => {
                        Panels::pack_by_tile(isa, target, gates, *view, columns, panels);
                    }
                    None => Panels::pack(isa, target, *k, *view, columns, panels),
                }
            }
        }
    }
}

//! One step of all sequences as one kernel: from pre-activations to the next state, and back.
//!
//! The equations are those of `cell/transition.rs`; the names are the same. A unit of the device
//! handles a vector of hidden units of one sequence. Where a row is normalised, a cube handles the
//! row, and its units add up sums in shared memory; otherwise there are no barriers.
//!
//! **Two copies of h'.** The product of the next step needs its left side at the start of a buffer (devices
//! align views of buffers). So h' is written into a small buffer of its own and into the output; likewise ∂z
//! backward.
//!
//! **Saved rows.** For the backward each row saves, in pieces of H values, the activated gates (G pieces), c',
//! with LN_c also c̃, with LN_h also h·R + b_h (G pieces).
//!
//! **Mixing gates** are the gates with weights that mix the candidate and the old cell: i and f, or one of
//! them. The output gate is not one of them.
#![allow(clippy::too_many_arguments)] // a kernel has one per buffer
#![allow(clippy::collapsible_if)] // what is decided at compile time has an `if` of its own

mod activations;
pub mod adaptive;
mod backward;
mod buffers;
mod cell;
mod forward;
pub mod gru;
mod layer_norm;
pub mod masks;
mod persistent;
pub mod rounds;
mod scalars;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use activations::*;
pub use backward::{project_back, step_back};
pub use buffers::*;
use cell::{CellForm, CellUnit, bounded, cell_unit, cell_unit_back};
pub use forward::{project, step};
use layer_norm::RowNorm;
use masks::{MaskStarts, masked, updated};
pub use persistent::{steps, steps_back};
pub use rounds::{accumulate, round, round_back};
pub use scalars::*;

use crate::equations::masks::Masks;
pub use crate::fused::problem::Coupling;

/// A normalisation as kernels are compiled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NormKind {
    /// Whether ε is added outside of the root.
    pub outside: bool,
    /// Whether there is a gain.
    pub gain: bool,
    /// Whether there is a shift.
    pub shift: bool,
}

/// What kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind {
    /// How i and f follow from the gates.
    pub coupling: Coupling,
    /// b
    pub bias: bool,
    /// Diagonal peepholes of all gates with weights.
    pub peepholes: bool,
    /// Whether the output gate sees c̃ through its peephole, or c.
    pub output_sees_new: bool,
    /// Whether all gates see c through full matrices.
    pub full: bool,
    /// Masks; with a projection those on h belong to it.
    pub masks: Masks<()>,
    /// Whether |c̃| is bounded.
    pub clip: bool,
    /// Whether a backward will follow.
    pub save: bool,
    /// Whether a projection follows.
    pub projected: bool,
    /// b_h, inside LN_h
    pub bias_hidden: bool,
    /// LN_h
    pub norm_hidden: Option<NormKind>,
    /// LN_c
    pub norm_cell: Option<NormKind>,
    /// Whether n is carried.
    pub carry_normalized: bool,
    /// Units that work on one row, see [`own`]; 0 where none is normalised.
    pub threads: usize,
}

impl Kind {
    /// The arithmetic of the cell.
    pub const fn cell(&self) -> CellForm {
        CellForm {
            coupling: self.coupling,
            clip: self.clip,
            masks: self.masks,
        }
    }

    /// Mixing gates.
    pub const fn mixing_gates(&self) -> usize {
        self.coupling.mixing_gates()
    }

    /// Gate blocks of a row.
    pub const fn gates(&self) -> usize {
        self.coupling.gates()
    }

    /// Whether rows are normalised.
    pub const fn by_row(&self) -> bool {
        self.norm_hidden.is_some() || self.norm_cell.is_some()
    }

    // The vectors of a call, one after the other in pieces of H values: b, v, b_h, LN_h, LN_c.

    const fn peepholes_at(&self) -> usize {
        if self.bias { self.gates() } else { 0 }
    }

    const fn bias_hidden_at(&self) -> usize {
        self.peepholes_at()
            + if self.peepholes {
                self.mixing_gates() + 1
            } else {
                0
            }
    }

    const fn gain_hidden_at(&self) -> usize {
        self.bias_hidden_at() + if self.bias_hidden { self.gates() } else { 0 }
    }

    const fn shift_hidden_at(&self) -> usize {
        match self.norm_hidden {
            Some(NormKind { gain: true, .. }) => self.gain_hidden_at() + self.gates(),
            _ => self.gain_hidden_at(),
        }
    }

    const fn gain_cell_at(&self) -> usize {
        match self.norm_hidden {
            Some(NormKind { shift: true, .. }) => self.shift_hidden_at() + self.gates(),
            _ => self.shift_hidden_at(),
        }
    }

    const fn shift_cell_at(&self) -> usize {
        match self.norm_cell {
            Some(NormKind { gain: true, .. }) => self.gain_cell_at() + 1,
            _ => self.gain_cell_at(),
        }
    }

    const fn norm_row(&self, norm: Option<NormKind>, pieces: usize, at: (usize, usize)) -> RowNorm {
        let norm = match norm {
            Some(norm) => norm,
            None => NormKind {
                outside: false,
                gain: false,
                shift: false,
            },
        };
        RowNorm {
            pieces,
            outside: norm.outside,
            gain: if norm.gain { Some(at.0) } else { None },
            shift: if norm.shift { Some(at.1) } else { None },
            threads: self.threads,
        }
    }

    /// LN_h; of no use where there is none.
    const fn row_norm_hidden(&self) -> RowNorm {
        let at = (self.gain_hidden_at(), self.shift_hidden_at());
        self.norm_row(self.norm_hidden, self.gates(), at)
    }

    /// LN_c; of no use where there is none.
    const fn row_norm_cell(&self) -> RowNorm {
        self.norm_row(
            self.norm_cell,
            1,
            (self.gain_cell_at(), self.shift_cell_at()),
        )
    }

    // The pieces of a saved row.

    const fn raw_at(&self) -> usize {
        self.gates() + 1
    }

    const fn product_at(&self) -> usize {
        self.raw_at() + if self.norm_cell.is_some() { 1 } else { 0 }
    }

    /// Pieces of a saved row.
    pub const fn saved_pieces(&self) -> usize {
        self.product_at()
            + if self.norm_hidden.is_some() {
                self.gates()
            } else {
                0
            }
    }

    // The pieces of a row of products, whose sums over rows are gradients of vectors.

    /// ∂LN_h's gain
    pub const fn products_hidden_at(&self) -> usize {
        if self.peepholes {
            self.mixing_gates() + 1
        } else {
            0
        }
    }

    /// ∂LN_c's gain, then its shift
    pub const fn products_cell_at(&self) -> usize {
        self.products_hidden_at()
            + if self.norm_hidden.is_some() {
                self.gates()
            } else {
                0
            }
    }

    /// Pieces of a row of products.
    pub const fn products(&self) -> usize {
        self.products_cell_at() + if self.norm_cell.is_some() { 2 } else { 0 }
    }
}

/// Which of the rows and vectors of a step a unit of the device works on.
#[derive(CubeType, Clone, Copy)]
pub struct Own {
    /// The row within the step.
    pub row: usize,
    /// Vectors of a row.
    pub units: usize,
    /// The first of the row's vectors that is its own.
    pub first: usize,
    /// From one of its own vectors to the next.
    pub stride: usize,
}

/// # Arguments
/// * `units` - vectors of a row
/// * `threads` - units that work on one row; 0 where each has one vector
#[cube]
fn own(units: usize, #[comptime] threads: usize) -> Own {
    if comptime![threads == 0] {
        Own {
            row: ABSOLUTE_POS / units,
            units,
            first: ABSOLUTE_POS % units,
            stride: units,
        }
    } else if comptime![threads == 1] {
        Own {
            row: ABSOLUTE_POS,
            units,
            first: 0usize,
            stride: 1usize,
        }
    } else {
        Own {
            row: CUBE_POS,
            units,
            first: UNIT_POS as usize,
            stride: threads.runtime(),
        }
    }
}

//! One step of a layer of the adaptive LSTM, between its products, and back.
//!
//! ```text
//! adapt      q = [h | z_below | z]·[W_a; R_a] + x·W_a + b_a → gates → m', z'
//! scale      p = tanh(z'·P)      x ⊙ p_x, h ⊙ p_h
//! advance    a ⊙ p_i + b ⊙ p_g + bias ⊙ p_b → gates → c', y, h'
//! ```
//! where a = (x ⊙ p_x)·W and b = (h ⊙ p_h)·R. The equations are those of `cell/adaptive.rs` and
//! `equations/adaptive.rs`; the names are the same. A unit of the device handles a vector of features
//! of one sequence; there are no barriers.
//!
//! **Seen.** What an adaptation cell sees of the states is one row, `[h | z_below | z]`, in a layer above the
//! first `[x | h | z_below | z]`, since its x is the h' of the layer below. The kernel that computes h' or z'
//! also writes it into the rows in which it will be seen: of the layer itself at the next step, of the layer
//! above at this one, from the top layer of the first one at the next step. The product reads a buffer of one
//! step; the rows of all steps are saved too, for the gradients of W_a and R_a.
//!
//! **Pairs.** (x ⊙ p_x)·W and (h ⊙ p_h)·R are one product of two matrices of K = max(I, H) rows, the smaller
//! of them padded with zeros: one launch instead of two, for |I − H|·4H more values to read.
//!
//! **Saved** for the backward is of each row, in pieces of A values the activated gates (4) and m'; in pieces
//! of H values the activated gates (4), c', a (4) and b (4).

mod backward;
mod forward;
mod scalars;

use alloc::boxed::Box;

use super::*;

pub use backward::{adapt_back, advance_back, scale_back};
pub use forward::{adapt, advance, scale};
pub use scalars::*;

/// Gates of both cells.
const GATES: usize = 4;

/// Pieces of a saved row of an adaptation cell.
pub const ADAPT_SAVED: usize = GATES + 1;

/// Pieces of a saved row of the cell.
pub const SAVED: usize = 3 * GATES + 1;

/// What the kernels of a layer are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerKind {
    /// Whether x comes from outside.
    pub first: bool,
    /// Whether y is the output.
    pub top: bool,
    /// Whether there are other layers, and with them a z_below.
    pub stacked: bool,
    /// Whether there are a bias and a p_b.
    pub bias: bool,
    /// Whether |c̃| is bounded.
    pub clip: bool,
    /// The same of the adaptation cell.
    pub clip_adapt: bool,
    /// Masks of the cell, and of z'.
    pub masks: Masks<()>,
    /// Whether a backward will follow.
    pub save: bool,
}

impl LayerKind {
    /// The arithmetic of the cell.
    pub const fn cell(&self) -> CellForm {
        CellForm {
            coupling: Coupling::Independent,
            clip: self.clip,
            masks: self.masks,
        }
    }

    /// That of the adaptation cell, whose mask is on z' alone.
    pub const fn adapt_cell(&self) -> CellForm {
        CellForm {
            coupling: Coupling::Independent,
            clip: self.clip_adapt,
            masks: Masks::none(),
        }
    }

    /// p_i, p_g and p_b, as far as there are any.
    pub const fn parts(&self) -> usize {
        if self.bias { 3 } else { 2 }
    }
}

/// The rows that adaptation cells see, where the forward writes h' and z'.
#[derive(CubeLaunch, CubeType)]
pub struct SeenBuffers<N: Size> {
    /// What this layer sees at the next step `[B, ·]`.
    pub own: Box<[Vector<f32, N>]>,
    /// The same of all rows, if they are saved.
    pub own_rows: Box<[Vector<f32, N>]>,
    /// What the layer above sees, or of the top layer the first one `[B, ·]`.
    pub above: Box<[Vector<f32, N>]>,
    /// The same of all rows, if they are saved.
    pub above_rows: Box<[Vector<f32, N>]>,
}

/// The gradients of the rows that adaptation cells saw.
#[derive(CubeLaunch, CubeType)]
pub struct SeenGrads<N: Size> {
    /// Of what this layer saw at the next step `[B, ·]`.
    pub own: Box<[Vector<f32, N>]>,
    /// Of what the layer above saw at this step, or of the top layer the first one at the next step
    /// `[B, ·]`.
    pub above: Box<[Vector<f32, N>]>,
}

/// What the backward of a cell reads of the forward.
#[derive(CubeLaunch, CubeType)]
pub struct LayerSaved<N: Size> {
    /// The saved rows of the cell, see the module.
    pub rows: Box<[Vector<f32, N>]>,
    /// The states before the first step.
    pub first_states: Box<[Vector<f32, N>]>,
}

/// Which row of the step a unit of the device works on, which of the row's vectors, and which row that is
/// among those of all steps. Units past the last row end here.
///
/// # Arguments
/// * `units` - vectors of a row
#[cube]
fn own_unit(scalars: &LayerScalars, units: usize) -> (usize, usize, usize) {
    let own = own(units, 0usize);
    if own.row >= scalars.rows.count as usize {
        terminate!();
    }
    (own.row, own.first, scalars.rows.first as usize + own.row)
}

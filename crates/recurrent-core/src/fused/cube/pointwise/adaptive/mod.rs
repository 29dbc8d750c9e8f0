//! One step of a layer of the adaptive LSTM, between its products, and back.
//!
//! ```text
//! adapt      q = [h | z_below | z]·[W_a; R_a] + x·W_a + b_a → gates → m', z'
//! scale      p = tanh(z'·P)      x ⊙ p_x, h ⊙ p_h
//! advance    a ⊙ p_i + b ⊙ p_g + bias ⊙ p_b → gates → c', y, h'
//! ```
//! where a = (x ⊙ p_x)·W and b = (h ⊙ p_h)·R. The equations are those of `cell/adaptive.rs` and
//! `equations/adaptive.rs`; the names are the same. A unit of the device handles a vector of features
//! of one sequence; nobody meets anybody.
//!
//! **Seen.** What an adaptation cell sees of the states lies side by side, `[h | z_below | z]`, in a
//! layer above the first `[x | h | z_below | z]`, since its x is the h' of the layer below. Whoever
//! computes h' or z' puts it where it will be seen: in the layer itself at the next step, in the layer
//! above at this one, from the top layer in the first at the next one. The product reads a buffer of one
//! step; the rows of all steps are kept beside it, for the gradients of W_a and R_a.
//!
//! **Pairs.** (x ⊙ p_x)·W and (h ⊙ p_h)·R are one product of two matrices of K = max(I, H) rows, the smaller
//! of them filled up with zeros: a launch less, for |I − H|·4H values more to read.
//!
//! **The tapes** hold for each row, in pieces of A values the activated gates (4) and m'; in pieces of H
//! values the activated gates (4), c', a (4) and b (4).

mod backward;
mod forward;

use super::*;

pub use backward::{adapt_back, advance_back, scale_back};
pub use forward::{adapt, advance, scale};

/// Gates of both cells.
const GATES: usize = 4;

/// Pieces of a row of an adaptation cell's tape.
pub const ADAPT_TAPE: usize = GATES + 1;

/// Pieces of a row of the cell's tape.
pub const TAPE: usize = 3 * GATES + 1;

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
    /// Masks of the cell.
    pub masks: MaskKinds,
    /// Whether z' has a mask.
    pub mask_adapt: bool,
    /// Whether a backward will follow.
    pub keep: bool,
}

impl LayerKind {
    /// p_i, p_g and p_b, as far as there are any.
    pub const fn parts(&self) -> usize {
        if self.bias { 3 } else { 2 }
    }
}

/// A layer at a step. Features and rows are counted in vectors.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct LayerAt {
    /// I
    pub input: u32,
    /// H
    pub hidden: u32,
    /// A
    pub adapt: u32,
    /// Features of p.
    pub policy: u32,
    /// K
    pub pair: u32,
    /// Features of the states of all layers.
    pub states: u32,
    /// Where c begins in there; h, m and z follow.
    pub state: u32,
    /// Where the h of the layer below begins in there.
    pub state_below: u32,
    /// Where b_a begins in the biases; b follows.
    pub biases: u32,
    /// Where p_i begins in p.
    pub preact_input: u32,
    /// Where p_g begins.
    pub preact_hidden: u32,
    /// Where p_b begins.
    pub preact_bias: u32,
    /// Features of what the layer sees; z is the last of them.
    pub seen: u32,
    /// Where h is among them.
    pub seen_hidden: u32,
    /// Features of what the layer above sees, or of the top layer the first; x comes first in a layer
    /// above.
    pub above: u32,
    /// Where z is among them.
    pub above_below: u32,
    /// Rows of the step.
    pub rows: u32,
    /// First row of the step among those of all steps.
    pub row: u32,
    /// The same in what is kept for a backward only.
    pub kept_row: u32,
    /// First row of the step after it, forward; of the step before it, backward.
    pub other_row: u32,
    /// Rows of the step after it.
    pub next_rows: u32,
    /// 1 for the first step, whose c and m are given.
    pub first: u32,
    /// Features of the masks of all layers' cells.
    pub mask_size: u32,
    /// The same of the adaptation cells.
    pub mask_adapt_size: u32,
    /// Where the layer's masks of the step begin.
    pub mask_candidate: u32,
    /// m_c
    pub mask_cell: u32,
    /// m_h
    pub mask_hidden: u32,
    /// u
    pub update_cell: u32,
    /// v
    pub update_hidden: u32,
    /// On z'.
    pub mask_adapt: u32,
    /// Bound of |c̃|.
    pub clip: f32,
    /// The same of the adaptation cell.
    pub clip_adapt: f32,
}

/// Which row of the step a unit of the device works on, which of the row's vectors, and which row that is
/// among those of all steps. Units past the last row end here.
///
/// # Arguments
/// * `units` - vectors of a row
#[cube]
fn place(at: &LayerAt, units: usize) -> (usize, usize, usize) {
    let (b, unit, _) = own(units, 0usize);
    if b >= at.rows as usize {
        terminate!();
    }
    (b, unit, at.row as usize + b)
}

/// c̃ of an LSTM, before its bound: from i, f and g.
///
/// # Arguments
/// * `unit` - among those of a mask
#[cube]
fn unbounded<N: Size>(
    i: Vector<f32, N>,
    f: Vector<f32, N>,
    g: Vector<f32, N>,
    c: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    at: &LayerAt,
    unit: usize,
    #[comptime] masked: MaskKinds,
) -> Vector<f32, N> {
    let mut g = g;
    if comptime![masked.candidate] {
        g *= masks[at.mask_candidate as usize + unit];
    }
    let mut raw = f * c + i * g;
    if comptime![masked.cell] {
        raw *= masks[at.mask_cell as usize + unit];
    }
    raw
}

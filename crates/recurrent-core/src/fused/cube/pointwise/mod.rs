//! One step of all sequences as one kernel: from pre-activations to the next state, and back.
//!
//! The equations are those of `cell/transition.rs`; the names are the same. A unit of the device
//! handles a vector of hidden units of one sequence. Where a row is normalised, a cube handles the
//! row and its units meet for the sums; otherwise nobody meets anybody.
//!
//! **What is written beside the state.** The product of the next step needs its left side at the start
//! of a buffer (devices align views of buffers), so h' goes to a small buffer of its own as well as to
//! its place in the output; likewise ∂z backward.
//!
//! **The tape** holds for each row, in pieces of H values: the activated gates (G pieces), c', with LN_c
//! also c̃, with LN_h also h·R + b_h (G pieces).
#![allow(clippy::too_many_arguments)] // a kernel has as many as it has buffers
#![allow(clippy::collapsible_if)] // what is decided at compile time stands apart

pub mod adaptive;
mod backward;
mod forward;
mod persistent;
mod rounds;
mod rows;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

pub use backward::{project_back, step_back};
pub use forward::{project, step};
pub use persistent::{steps, steps_back};
pub use rounds::{accumulate, round, round_back};

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

/// Which masks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MaskKinds {
    /// m_g
    pub candidate: bool,
    /// m_c
    pub cell: bool,
    /// m_h
    pub hidden: bool,
    /// u
    pub update_cell: bool,
    /// v
    pub update_hidden: bool,
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
    pub masks: MaskKinds,
    /// Whether |c̃| is bounded.
    pub clip: bool,
    /// Whether a backward will follow.
    pub keep: bool,
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
    /// Units that share a row, see [`own`]; 0 where none is normalised.
    pub threads: usize,
}

impl Kind {
    /// Gates with weights that weigh the candidate and the old cell.
    pub const fn shares(&self) -> usize {
        self.coupling.shares()
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
        self.peepholes_at() + if self.peepholes { self.shares() + 1 } else { 0 }
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

    // The pieces of a row of the tape.

    const fn raw_at(&self) -> usize {
        self.gates() + 1
    }

    const fn product_at(&self) -> usize {
        self.raw_at() + if self.norm_cell.is_some() { 1 } else { 0 }
    }

    /// Pieces of a row of the tape.
    pub const fn tape(&self) -> usize {
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
        if self.peepholes { self.shares() + 1 } else { 0 }
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

/// Where a step is. Rows and units are counted in vectors.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct At {
    /// Vectors of H.
    pub units: u32,
    /// Rows of the step.
    pub rows: u32,
    /// First row of the step among those of all steps.
    pub row: u32,
    /// Its first row in what comes from the input.
    pub projected_row: u32,
    /// Its first row on the tape.
    pub tape_row: u32,
    /// First row of the step after it, forward; of the step before it, backward.
    pub other_row: u32,
    /// Rows of the step after it.
    pub next_rows: u32,
    /// 1 for the first step, whose c is c_0.
    pub first: u32,
    /// Where the masks of the step begin.
    pub mask_candidate: u32,
    /// m_c
    pub mask_cell: u32,
    /// m_h
    pub mask_hidden: u32,
    /// u
    pub update_cell: u32,
    /// v
    pub update_hidden: u32,
    /// Bound of |c̃|.
    pub clip: f32,
    /// ε of LN_h
    pub epsilon_hidden: f32,
    /// 1/k of LN_h: what its sum of squares is multiplied with.
    pub share_hidden: f32,
    /// ε of LN_c
    pub epsilon_cell: f32,
    /// 1/k of LN_c
    pub share_cell: f32,
}

/// Which row a unit of the device works on, the first of the row's vectors that is its own, and how far
/// apart those are.
///
/// # Arguments
/// * `units` - vectors of a row
/// * `threads` - units that share a row; 0 where each has one vector
#[cube]
fn own(units: usize, #[comptime] threads: usize) -> (usize, usize, usize) {
    if comptime![threads == 0] {
        (ABSOLUTE_POS / units, ABSOLUTE_POS % units, units)
    } else if comptime![threads == 1] {
        (ABSOLUTE_POS, 0usize, 1usize)
    } else {
        (CUBE_POS, UNIT_POS as usize, threads.runtime())
    }
}

/// `σ(x)`: `1 − e/(1 + e)`, or `e/(1 + e)` where x < 0, with e = e^{−|x|}.
///
/// 0 ≤ σ ≤ 1, exactly 1 from x = 17.4 on, whatever the driver's exponential function and division round
/// to: they only touch what is taken from 1. Nothing overflows.
#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    let e = (-x.abs()).exp();
    let rest = e / (one + e);
    select_many(x.less_than(&Vector::new(0.0f32)), rest, one - rest)
}

/// `tanh(x)`, in the two pieces of the CPU kernels (`fused/cpu/simd.rs`).
///
/// |tanh| ≤ 1, exactly ±1 from |x| = 9.02 on, odd, whatever the driver's exponential function and division
/// round to. The driver's own tanh need not saturate.
#[cube]
fn tanh<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    let size = x.abs();

    let x2 = x * x;
    let p = Vector::new(-5.704_988_7e-3f32) * x2 + Vector::new(2.063_909e-2f32);
    let p = p * x2 + Vector::new(-5.373_971_6e-2f32);
    let p = p * x2 + Vector::new(1.333_144_2e-1f32);
    let p = p * x2 + Vector::new(-3.333_328e-1f32);
    let small = size + size * (p * x2);

    // A comparison with NaN is false, a minimum with it may be the bound.
    let bound = Vector::new(9.1f32);
    let most = select_many(size.greater_than(&bound), bound, size);
    let large = one - Vector::new(2.0f32) / ((most + most).exp() + one);

    let y = select_many(size.less_than(&Vector::new(0.625f32)), small, large);
    select_many(x.less_than(&Vector::new(0.0f32)), -y, y)
}

/// `1 − x`
#[cube]
fn one_minus<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    Vector::new(1.0f32) - x
}

/// `σ'` from its value.
#[cube]
fn sigmoid_slope<N: Size>(y: Vector<f32, N>) -> Vector<f32, N> {
    y * one_minus::<N>(y)
}

/// `tanh'` from its value: `1 − y²`, whose factor `1 − y` is exact near 1.
#[cube]
fn tanh_slope<N: Size>(y: Vector<f32, N>) -> Vector<f32, N> {
    one_minus::<N>(y) * (Vector::new(1.0f32) + y)
}

/// i from the activated gates; b is a where there is one gate only.
#[cube]
fn input_gate<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![matches!(
        coupling,
        Coupling::Independent | Coupling::ForgetFromInput
    )] {
        a
    } else if comptime![coupling == Coupling::InputFromForget] {
        one_minus::<N>(a)
    } else if comptime![coupling == Coupling::CappedInput] {
        let most = one_minus::<N>(b);
        select_many(a.greater_than(&most), most, a)
    } else {
        // 1 − e = (1 − f)·(1 − f + 2f(1 − r)): nothing cancels.
        let rest = one_minus::<N>(b);
        rest * (rest + (b + b) * one_minus::<N>(a))
    }
}

/// f from the activated gates.
#[cube]
fn forget_gate<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![matches!(
        coupling,
        Coupling::Independent | Coupling::CappedInput
    )] {
        b
    } else if comptime![coupling == Coupling::InputFromForget] {
        a
    } else if comptime![coupling == Coupling::ForgetFromInput] {
        one_minus::<N>(a)
    } else {
        // e = 2rf + (1 − 2r)f² = f·(f + 2r(1 − f))
        b * (b + (a + a) * one_minus::<N>(b))
    }
}

/// ∂ of the first gate with weights.
#[cube]
fn first_share<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    grad_input: Vector<f32, N>,
    grad_forget: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![coupling == Coupling::Independent] {
        grad_input
    } else if comptime![coupling == Coupling::InputFromForget] {
        grad_forget - grad_input
    } else if comptime![coupling == Coupling::ForgetFromInput] {
        grad_input - grad_forget
    } else if comptime![coupling == Coupling::CappedInput] {
        let zero = Vector::new(0.0f32);
        select_many(a.greater_than(&one_minus::<N>(b)), zero, grad_input)
    } else {
        let slope = b * one_minus::<N>(b);
        (grad_forget - grad_input) * (slope + slope)
    }
}

/// ∂ of the second gate with weights.
#[cube]
fn second_share<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    grad_input: Vector<f32, N>,
    grad_forget: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![coupling == Coupling::CappedInput] {
        let zero = Vector::new(0.0f32);
        let capped = select_many(a.greater_than(&one_minus::<N>(b)), grad_input, zero);
        grad_forget - capped
    } else if comptime![coupling == Coupling::Refined] {
        let half = a * one_minus::<N>(b) + b * one_minus::<N>(a);
        (grad_forget - grad_input) * (half + half)
    } else {
        grad_forget
    }
}

/// The bounded cell.
#[cube]
fn bounded<N: Size>(x: Vector<f32, N>, bound: f32, #[comptime] clip: bool) -> Vector<f32, N> {
    if comptime![clip] {
        let high = Vector::new(bound);
        let low = Vector::new(-bound);
        let x = select_many(x.greater_than(&high), high, x);
        select_many(x.less_than(&low), low, x)
    } else {
        x
    }
}

/// `u ⊙ new + (1 − u) ⊙ old`
#[cube]
fn zoneout<N: Size>(
    update: Vector<f32, N>,
    new: Vector<f32, N>,
    old: Vector<f32, N>,
) -> Vector<f32, N> {
    update * new + one_minus::<N>(update) * old
}

//! From pre-activations to the next state, and its derivative, on vectors of units.
//!
//! The equations and names are those of `cell/transition.rs` and of the variants' gates. A step of one
//! vector of units has two halves, so that a cell normalisation, which needs the whole row, can run
//! between them:
//! ```text
//! gates     z ─→ mixing gates, g ─→ c̃ = clamp(m_c ⊙ (f ⊙ c + i ⊙ m_g ⊙ g))
//! hidden    n = c̃ or LN(c̃), o ─→ h̃ = m_h ⊙ o ⊙ tanh(n) ─→ c', h' (zoneout)
//! ```
//! Variants differ in a type or a constant ([`Coupled`], `PEEPHOLE`, `MASKED`), so the loops have no
//! branch that depends on the variant.

mod coupled;
mod masks;

use core::marker::PhantomData;
use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::product::Tile;
use super::simd::{Either, Isa, Lanes, clamp, fma, load, sigmoid, tanh};
use super::view::{GateRows, Rows};
use crate::fused::problem::Coupling;

pub use masks::{MaskTable, MaskValues};

pub use coupled::{CappedInput, Coupled, ForgetFromInput, Independent, InputFromForget, Refined};

/// `1 − x`
#[inline(always)]
fn one_minus<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.sub_f32s(simd.splat_f32s(1.0), x)
}

/// `σ'` from the value: `y(1 − y)`.
#[inline(always)]
fn sigmoid_slope<S: Simd>(simd: S, y: S::f32s) -> S::f32s {
    simd.mul_f32s(y, one_minus(simd, y))
}

/// `tanh'` from the value: `1 − y²` as `(1 − y)(1 + y)`, whose first factor is exact near 1.
#[inline(always)]
fn tanh_slope<S: Simd>(simd: S, y: S::f32s) -> S::f32s {
    let above = simd.add_f32s(simd.splat_f32s(1.0), y);
    simd.mul_f32s(one_minus(simd, y), above)
}

/// The diagonal peepholes, each `[H]`.
#[derive(Debug, Clone, Copy)]
pub struct PeepholeRows {
    /// Peepholes of the mixing gates, on c.
    pub mixing: [*const f32; 2],
    /// Peephole of the output gate, on c.
    pub output_previous: *const f32,
    /// Peephole of the output gate, on c̃.
    pub output_new: *const f32,
}

/// The differences between variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// How i and f are computed from the gates.
    pub coupling: Coupling,
    /// Whether there are diagonal peepholes.
    pub peephole: bool,
    /// Whether there are masks.
    pub masked: bool,
}

/// Which halves of a step run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Both, with n = c̃.
    Both,
    /// The gates; c̃ is written to `raw`, and the output gate remains a pre-activation.
    Gates,
    /// The second half; n is read from `normalized`, c̃ from `raw`.
    Hidden,
}

/// Runs `$Op::<C, PEEPHOLE, MASKED>` for a kind.
macro_rules! by_kind {
    ($isa:expr, $kind:expr, $Op:ident, $args:expr) => {{
        macro_rules! flags {
            ($C:ty) => {
                match ($kind.peephole, $kind.masked) {
                    (false, false) => $isa.run($Op::<$C, false, false>($args, PhantomData)),
                    (false, true) => $isa.run($Op::<$C, false, true>($args, PhantomData)),
                    (true, false) => $isa.run($Op::<$C, true, false>($args, PhantomData)),
                    (true, true) => $isa.run($Op::<$C, true, true>($args, PhantomData)),
                }
            };
        }
        match $kind.coupling {
            Coupling::Independent => flags!(Independent),
            Coupling::InputFromForget => flags!(InputFromForget),
            Coupling::ForgetFromInput => flags!(ForgetFromInput),
            Coupling::CappedInput => flags!(CappedInput),
            // UR-LSTM gates have no peepholes.
            Coupling::Refined if $kind.masked => {
                $isa.run($Op::<Refined, false, true>($args, PhantomData))
            }
            Coupling::Refined => $isa.run($Op::<Refined, false, false>($args, PhantomData)),
        }
    }};
}

/// Runs `$Op::<PEEPHOLE, MASKED>` for a kind: for code that does not depend on the coupling.
macro_rules! by_flags {
    ($isa:expr, $kind:expr, $Op:ident, $args:expr) => {
        match ($kind.peephole, $kind.masked) {
            (false, false) => $isa.run($Op::<false, false>($args)),
            (false, true) => $isa.run($Op::<false, true>($args)),
            (true, false) => $isa.run($Op::<true, false>($args)),
            (true, true) => $isa.run($Op::<true, true>($args)),
        }
    };
}

/// Calls `$body` for each row and vector of units of `$args`.
macro_rules! each {
    ($S:ident, $simd:expr, $args:expr, |$at:ident| $body:block) => {
        for b in 0..$args.rows {
            let mut unit = $args.units.start;
            debug_assert_eq!(unit % $S::F32_LANES, 0, "units begin at a panel");
            while unit < $args.units.end {
                let lanes = Either::<$S>::new($simd, $args.units.end - unit);
                let $at = At { b, unit, lanes };
                $body
                unit += $S::F32_LANES;
            }
        }
    };
}

/// A vector of units of a row.
#[derive(Clone, Copy)]
struct At<S: Simd> {
    b: usize,
    unit: usize,
    lanes: Either<S>,
}

impl<S: Simd> At<S> {
    /// # Safety
    /// The units are readable in the rows.
    #[inline(always)]
    unsafe fn read(self, simd: S, rows: Rows) -> S::f32s {
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.load(simd, rows.at(self.b, self.unit)) }
    }

    /// A mask; ones if it is absent.
    ///
    /// # Safety
    /// The units are readable in the rows.
    #[inline(always)]
    unsafe fn mask(self, simd: S, rows: Option<Rows>) -> S::f32s {
        match rows {
            // SAFETY: by the contract of this function.
            Some(rows) => unsafe { self.read(simd, rows) },
            None => simd.splat_f32s(1.0),
        }
    }

    /// # Safety
    /// The units of that gate are readable in the rows.
    #[inline(always)]
    unsafe fn read_gate(self, simd: S, rows: GateRows, gate: usize) -> S::f32s {
        let panel = self.unit / S::F32_LANES;
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.load(simd, rows.at(self.b, gate, panel)) }
    }

    /// # Safety
    /// The units are the caller's own in the rows.
    #[inline(always)]
    unsafe fn write(self, simd: S, rows: Rows, value: S::f32s) {
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.store(simd, rows.at(self.b, self.unit), value) }
    }

    /// # Safety
    /// The units of that gate are the caller's own in the rows.
    #[inline(always)]
    unsafe fn write_gate(self, simd: S, rows: GateRows, gate: usize, value: S::f32s) {
        let panel = self.unit / S::F32_LANES;
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.store(simd, rows.at(self.b, gate, panel), value) }
    }

    /// # Safety
    /// The units are readable at `weights`.
    #[inline(always)]
    unsafe fn weight(self, simd: S, weights: *const f32) -> S::f32s {
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.load(simd, weights.wrapping_add(self.unit)) }
    }
}

/// `u ⊙ new + (1 − u) ⊙ old`
#[inline(always)]
fn zoneout<S: Simd>(simd: S, update: S::f32s, new: S::f32s, old: S::f32s) -> S::f32s {
    // Exactly `new` if u = 1, even if `old` is infinite: u is 1 if only another mask is set.
    let kept = one_minus(simd, update);
    let zero = simd.splat_f32s(0.0);
    let none = simd.equal_f32s(kept, zero);
    let kept = simd.select_f32s(none, zero, simd.mul_f32s(kept, old));
    simd.add_f32s(simd.mul_f32s(update, new), kept)
}

// Declared after the macros that these modules use.
mod backward;
mod forward;
mod gru;

pub use backward::LstmBackward;
pub use forward::LstmForward;
pub use gru::{GruBackward, GruForward, GruHalf};

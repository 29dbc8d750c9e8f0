//! The rounds of the Mogrifier: input and hidden state gate each other before the recurrence.
//!
//! ```text
//! round k    v' = s ⊙ v,   s = 2σ(p),   p = u·M + b        v: x in even k, h in odd (k from 0)
//!                                                          u: the other one, after earlier rounds
//! back       ∂p = ∂v' ⊙ v ⊙ s(1 − s/2)    ∂v = ∂v' ⊙ s    ∂u += ∂p·Mᵀ
//! ```
//! With a low rank M = L·N there is one more product. Equations and source:
//! `equations/mogrifier.rs`.

use alloc::vec::Vec;
use core::ops::Range;

use pulp::{Simd, WithSimd};

use crate::fused::cpu::buffer::Buffer;
use crate::fused::cpu::product::Tile;
use crate::fused::cpu::rows::each_vector;
use crate::fused::cpu::simd::{First, Isa, Lanes, Whole, load, sigmoid};
use crate::fused::cpu::view::Rows;
use crate::fused::problem::lstm::LstmProblem;

/// The rows of one round, for all steps or for one.
#[derive(Debug, Default)]
pub struct SavedRound {
    /// v' `[N, to]`
    pub value: Buffer,
    /// s `[N, to]`
    pub gate: Buffer,
    /// u·L `[N, rank]`
    pub inner: Buffer,
}

impl SavedRound {
    /// Allocates the given number of rows for each round.
    pub fn for_rows(problem: &LstmProblem, rows: usize) -> Vec<Self> {
        let rounds = problem.rounds.iter().enumerate();
        rounds
            .map(|(round, rank)| {
                let to = problem.round_shape(round).1;
                Self {
                    value: Buffer::new(rows * to),
                    gate: Buffer::new(rows * to),
                    inner: Buffer::new(rows * rank.unwrap_or(0)),
                }
            })
            .collect()
    }
}

/// The addresses of the rows of a round.
#[derive(Debug, Clone, Copy)]
pub struct RoundRows {
    /// v'
    pub value: *mut f32,
    /// s
    pub gate: *mut f32,
    /// u·L
    pub inner: *mut f32,
}

impl RoundRows {
    /// The addresses of a round's buffers.
    pub fn new(round: &mut SavedRound) -> Self {
        Self {
            value: round.value.as_mut_ptr(),
            gate: round.gate.as_mut_ptr(),
            inner: round.inner.as_mut_ptr(),
        }
    }
}

/// `v' = 2σ(tile + b) ⊙ v` for the columns of a panel.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Number of sequences.
    pub rows: usize,
    /// Columns of v.
    pub columns: Range<usize>,
    /// u·M, at the panel of the columns.
    pub tile: Tile,
    /// `[to]`; null: 0
    pub bias: *const f32,
    /// v
    pub value: Rows,
    /// v'
    pub out: Rows,
    /// s
    pub gate: Rows,
}

impl Gate {
    /// # Safety
    /// What is read is readable for the rows and columns; what is written belongs to the caller alone.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(self)
    }
}

impl WithSimd for Gate {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            // SAFETY: by the contract of `run`; a tile has whole vectors.
            unsafe {
                let tile = self.tile.values.add(b * self.tile.stride);
                let value = self.value.from_row(b).ptr;
                let (out, gate) = (self.out.from_row(b).ptr, self.gate.from_row(b).ptr);
                each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
                    let mut z = load::<S>(tile.add(unit - self.columns.start));
                    if !self.bias.is_null() {
                        z = simd.add_f32s(z, lanes.load(simd, self.bias.add(unit)));
                    }
                    let s = sigmoid(simd, z);
                    let s = simd.add_f32s(s, s);
                    lanes.store(simd, gate.add(unit), s);
                    let v = lanes.load(simd, value.add(unit));
                    lanes.store(simd, out.add(unit), simd.mul_f32s(s, v));
                });
            }
        }
    }
}

/// The derivative of [`Gate`]: from ∂v' to ∂p and ∂v.
#[derive(Debug, Clone)]
pub struct GateBack {
    /// Number of sequences.
    pub rows: usize,
    /// Columns of v.
    pub columns: Range<usize>,
    /// s
    pub gate: Rows,
    /// v
    pub value: Rows,
    /// ∂v' on entry, ∂v on return.
    pub grad: Rows,
    /// ∂p
    pub grad_preact: Rows,
    /// Second destination of ∂v; `Rows::NONE`: none.
    pub copy: Rows,
}

impl GateBack {
    /// # Safety
    /// What is read is readable for the rows and columns; what is written belongs to the caller alone.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(self)
    }
}

impl WithSimd for GateBack {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            // SAFETY: by the contract of `run`.
            unsafe {
                let (gate, value) = (self.gate.from_row(b).ptr, self.value.from_row(b).ptr);
                let (grad, copy) = (self.grad.from_row(b).ptr, self.copy.from_row(b).ptr);
                let grad_preact = self.grad_preact.from_row(b).ptr;
                each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
                    let s = lanes.load(simd, gate.add(unit));
                    let delta = lanes.load(simd, grad.add(unit));
                    let half = simd.mul_f32s(s, simd.splat_f32s(0.5));
                    let slope = simd.mul_f32s(s, simd.sub_f32s(simd.splat_f32s(1.0), half));
                    let v = lanes.load(simd, value.add(unit));
                    let grad_p = simd.mul_f32s(simd.mul_f32s(delta, v), slope);
                    lanes.store(simd, grad_preact.add(unit), grad_p);
                    let delta = simd.mul_f32s(delta, s);
                    lanes.store(simd, grad.add(unit), delta);
                    if !self.copy.is_none() {
                        lanes.store(simd, copy.add(unit), delta);
                    }
                });
            }
        }
    }
}

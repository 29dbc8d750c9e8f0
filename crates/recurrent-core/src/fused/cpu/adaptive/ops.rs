//! The operations of a policy on rows, and their derivatives, on vectors.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use crate::fused::cpu::product::Tile;
use crate::fused::cpu::rows::each_vector;
use crate::fused::cpu::simd::{First, Isa, Lanes, Whole, fma, load, store, tanh};
use crate::fused::cpu::view::Rows;

/// Implements `run`, the entry point of an operation.
macro_rules! run {
    ($Op:ty) => {
        impl $Op {
            /// # Safety
            /// What is read is readable for the rows and columns; what is written belongs to the
            /// caller alone.
            pub unsafe fn run(self, isa: Isa) {
                isa.run(self)
            }
        }
    };
}

/// `p = tanh(tile)` for some columns of p_x or p_h, then v ⊙ p, where v is x or h.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Number of sequences.
    pub rows: usize,
    /// Columns.
    pub columns: Range<usize>,
    /// z'·P at these columns.
    pub tile: Tile,
    /// p
    pub policy: Rows,
    /// v
    pub values: Rows,
    /// v ⊙ p
    pub scaled: Rows,
}

run!(Scale);

impl WithSimd for Scale {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            let policy = self.policy.from_row(b).ptr;
            let (values, scaled) = (self.values.from_row(b).ptr, self.scaled.from_row(b).ptr);
            // SAFETY: by the contract of `run`; a tile has whole vectors.
            unsafe {
                let tile = self.tile.values.add(b * self.tile.stride);
                each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
                    let p = tanh(simd, load::<S>(tile.add(unit - self.columns.start)));
                    lanes.store(simd, policy.add(unit), p);
                    let value = simd.mul_f32s(p, lanes.load(simd, values.add(unit)));
                    lanes.store(simd, scaled.add(unit), value);
                });
            }
        }
    }
}

/// `p = tanh(z'·P)` and `z = a ⊙ p_i + b ⊙ p_g + bias ⊙ p_b` for the tiles of a panel, `[rows][width]`.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Number of sequences.
    pub rows: usize,
    /// Number of values per row of a tile.
    pub width: usize,
    /// z'·P for p_i, p_g, p_b on entry, the activated values on return.
    pub policy: [*mut f32; 3],
    /// a, b
    pub from: [*const f32; 2],
    /// A row; null: neither a bias nor p_b.
    pub bias: *const f32,
    /// z
    pub preact: *mut f32,
}

run!(Mix);

impl WithSimd for Mix {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for start in (0..self.width).step_by(S::F32_LANES) {
            // SAFETY: by the contract of `run`; a tile has whole vectors.
            unsafe {
                let bias = vector_of::<S>(self.bias, start);
                for b in 0..self.rows {
                    let at = b * self.width + start;
                    let mut p = [simd.splat_f32s(0.0); 3];
                    let parts = if bias.is_some() { 3 } else { 2 };
                    for (part, p) in self.policy.iter().zip(&mut p).take(parts) {
                        *p = tanh(simd, load::<S>(part.add(at)));
                        store::<S>(part.add(at), *p);
                    }
                    let z = simd.mul_f32s(load::<S>(self.from[0].add(at)), p[0]);
                    let mut z = fma(simd, load::<S>(self.from[1].add(at)), p[1], z);
                    if let Some(bias) = bias {
                        z = fma(simd, bias, p[2], z);
                    }
                    store::<S>(self.preact.add(at), z);
                }
            }
        }
    }
}

/// The vector of a row that begins at `start`; `None` if the row is null.
///
/// # Safety
/// The row, where it is not null, is readable there.
#[inline(always)]
unsafe fn vector_of<S: Simd>(row: *const f32, start: usize) -> Option<S::f32s> {
    match row.is_null() {
        true => None,
        // SAFETY: by the contract of this function.
        false => Some(unsafe { load::<S>(row.add(start)) }),
    }
}

/// The derivative of [`Mix`]: from ∂z to ∂a, ∂b and the gradient of z'·P, which includes the derivative
/// of tanh.
#[derive(Debug, Clone)]
pub struct MixBack {
    /// Number of sequences.
    pub rows: usize,
    /// Number of values per row of a tile.
    pub width: usize,
    /// ∂z
    pub grad: *const f32,
    /// a, b
    pub from: [*const f32; 2],
    /// p_i, p_g, p_b
    pub policy: [*const f32; 3],
    /// A row; null: neither a bias nor p_b.
    pub bias: *const f32,
    /// ∂a, ∂b
    pub grad_from: [*mut f32; 2],
    /// ∂(z'·P) for p_i, p_g, p_b
    pub grad_policy: [*mut f32; 3],
}

run!(MixBack);

/// `grad ⊙ (1 − p²)`
#[inline(always)]
fn slope<S: Simd>(simd: S, grad: S::f32s, p: S::f32s) -> S::f32s {
    let square = simd.mul_f32s(p, p);
    simd.mul_f32s(grad, simd.sub_f32s(simd.splat_f32s(1.0), square))
}

impl WithSimd for MixBack {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for start in (0..self.width).step_by(S::F32_LANES) {
            // SAFETY: by the contract of `run`; a tile has whole vectors.
            unsafe {
                let bias = vector_of::<S>(self.bias, start);
                for b in 0..self.rows {
                    let at = b * self.width + start;
                    let delta = load::<S>(self.grad.add(at));
                    for part in 0..2 {
                        let p = load::<S>(self.policy[part].add(at));
                        store::<S>(self.grad_from[part].add(at), simd.mul_f32s(delta, p));
                        let value = simd.mul_f32s(delta, load::<S>(self.from[part].add(at)));
                        store::<S>(self.grad_policy[part].add(at), slope(simd, value, p));
                    }
                    if let Some(bias) = bias {
                        let p = load::<S>(self.policy[2].add(at));
                        let value = simd.mul_f32s(delta, bias);
                        store::<S>(self.grad_policy[2].add(at), slope(simd, value, p));
                    }
                }
            }
        }
    }
}

/// The derivative of `v ⊙ p` for the columns of a panel, from a tile of its gradient.
#[derive(Debug, Clone)]
pub struct ScaleBack {
    /// Number of sequences.
    pub rows: usize,
    /// Columns of v.
    pub columns: Range<usize>,
    /// ∂(v ⊙ p), at the panel of the columns.
    pub tile: Tile,
    /// v
    pub value: Rows,
    /// p
    pub policy: Rows,
    /// ∂(z'·P)
    pub grad_policy: Rows,
    /// ∂v; `Rows::NONE`: not needed.
    pub grad: Rows,
    /// Whether to add to the contents of `grad`.
    pub add: bool,
}

run!(ScaleBack);

impl WithSimd for ScaleBack {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            let (value, policy) = (self.value.from_row(b).ptr, self.policy.from_row(b).ptr);
            let (grad, grad_policy) = (self.grad.from_row(b).ptr, self.grad_policy.from_row(b).ptr);
            // SAFETY: by the contract of `run`; a tile has whole vectors.
            unsafe {
                let tile = self.tile.values.add(b * self.tile.stride);
                each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
                    let delta = load::<S>(tile.add(unit - self.columns.start));
                    let p = lanes.load(simd, policy.add(unit));
                    let by_policy = simd.mul_f32s(delta, lanes.load(simd, value.add(unit)));
                    let by_policy = slope(simd, by_policy, p);
                    lanes.store(simd, grad_policy.add(unit), by_policy);
                    if !self.grad.is_none() {
                        let mut sum = simd.mul_f32s(delta, p);
                        if self.add {
                            sum = simd.add_f32s(sum, lanes.load(simd, grad.add(unit)));
                        }
                        lanes.store(simd, grad.add(unit), sum);
                    }
                });
            }
        }
    }
}

/// h' from y and its mask: `h' = m ⊙ (y − d) + d`, where d = (1 − v) ⊙ h is the part that zoneout
/// preserves.
#[derive(Debug, Clone)]
pub struct Carry {
    /// Number of sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// y
    pub output: Rows,
    /// m
    pub mask: Rows,
    /// v; `Rows::NONE`: 1
    pub update: Rows,
    /// h
    pub hidden: Rows,
    /// h'; may alias h.
    pub hidden_next: Rows,
}

run!(Carry);

impl WithSimd for Carry {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            let (output, mask) = (self.output.from_row(b).ptr, self.mask.from_row(b).ptr);
            let (update, hidden) = (self.update.from_row(b).ptr, self.hidden.from_row(b).ptr);
            let next = self.hidden_next.from_row(b).ptr;
            // SAFETY: by the contract of `run`.
            unsafe {
                each_vector!(S, simd, self.units.clone(), |unit, lanes| {
                    let y = lanes.load(simd, output.add(unit));
                    let m = lanes.load(simd, mask.add(unit));
                    let value = if self.update.is_none() {
                        simd.mul_f32s(m, y)
                    } else {
                        let v = lanes.load(simd, update.add(unit));
                        let kept = simd.sub_f32s(simd.splat_f32s(1.0), v);
                        let kept = simd.mul_f32s(kept, lanes.load(simd, hidden.add(unit)));
                        fma(simd, m, simd.sub_f32s(y, kept), kept)
                    };
                    lanes.store(simd, next.add(unit), value);
                });
            }
        }
    }
}

/// The gradient of h before dropout and zoneout: `∂h̃ = v ⊙ (m ⊙ ∂h' + ∂y)`; with zoneout also its
/// direct part, `∂h = (1 − v) ⊙ (∂h' + ∂y)`.
#[derive(Debug, Clone)]
pub struct CarryBack {
    /// Number of sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// ∂h' on entry; with zoneout it receives the direct part of ∂h.
    pub grad_hidden: Rows,
    /// ∂y; `Rows::NONE`: 0
    pub grad_output: Rows,
    /// m; `Rows::NONE`: 1
    pub mask: Rows,
    /// v; `Rows::NONE`: 1
    pub update: Rows,
    /// ∂h̃
    pub grad: Rows,
}

run!(CarryBack);

impl WithSimd for CarryBack {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            let carried = self.grad_hidden.from_row(b).ptr;
            let output = self.grad_output.from_row(b).ptr;
            let (mask, update) = (self.mask.from_row(b).ptr, self.update.from_row(b).ptr);
            let grad = self.grad.from_row(b).ptr;
            // SAFETY: by the contract of `run`.
            unsafe {
                each_vector!(S, simd, self.units.clone(), |unit, lanes| {
                    let mut both = lanes.load(simd, carried.add(unit));
                    let mut value = both;
                    if !self.mask.is_none() {
                        value = simd.mul_f32s(value, lanes.load(simd, mask.add(unit)));
                    }
                    if !self.grad_output.is_none() {
                        let output = lanes.load(simd, output.add(unit));
                        value = simd.add_f32s(value, output);
                        both = simd.add_f32s(both, output);
                    }
                    if !self.update.is_none() {
                        let v = lanes.load(simd, update.add(unit));
                        value = simd.mul_f32s(value, v);
                        let kept = simd.sub_f32s(simd.splat_f32s(1.0), v);
                        lanes.store(simd, carried.add(unit), simd.mul_f32s(kept, both));
                    }
                    lanes.store(simd, grad.add(unit), value);
                });
            }
        }
    }
}

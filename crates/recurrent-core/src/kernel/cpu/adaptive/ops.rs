//! What a policy does to rows, and its derivative, on vectors.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use crate::kernel::cpu::pointwise::Rows;
use crate::kernel::cpu::product::Tile;
use crate::kernel::cpu::rows::each_vector;
use crate::kernel::cpu::simd::{First, Isa, Lanes, Whole, fma, load, tanh};

/// Implements `run`, the way into an operation.
macro_rules! run {
    ($Op:ty) => {
        impl $Op {
            /// # Safety
            /// What is read is readable for the rows and columns; what is written belongs to the
            /// caller.
            pub unsafe fn run(self, isa: Isa) {
                isa.run(self)
            }
        }
    };
}

/// The columns of `range` that are in `0..size` after `start` is taken off.
fn inside(range: &Range<usize>, start: usize, size: usize) -> Range<usize> {
    range.start.clamp(start, start + size) - start..range.end.clamp(start, start + size) - start
}

/// `p = tanh(tile)` for some columns, then x ⊙ p_x and h ⊙ p_h as far as these columns go.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Sequences.
    pub rows: usize,
    /// Columns of p.
    pub columns: Range<usize>,
    /// z'·P at these columns.
    pub tile: Tile,
    /// p
    pub policy: Rows,
    /// x and h, with their features.
    pub values: [(Rows, usize); 2],
    /// x ⊙ p_x and h ⊙ p_h
    pub scaled: [Rows; 2],
}

run!(Scale);

impl WithSimd for Scale {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            // SAFETY: by the contract of `run`; a tile has whole vectors.
            unsafe {
                let tile = self.tile.values.add(b * self.tile.stride);
                let policy = self.policy.from_row(b).ptr;
                each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
                    let p = tanh(simd, load::<S>(tile.add(unit - self.columns.start)));
                    lanes.store(simd, policy.add(unit), p);
                });
                let mut start = 0;
                for ((values, size), scaled) in self.values.iter().zip(&self.scaled) {
                    let p = policy.add(start);
                    let (values, scaled) = (values.from_row(b).ptr, scaled.from_row(b).ptr);
                    let own = inside(&self.columns, start, *size);
                    each_vector!(S, simd, own, |unit, lanes| {
                        let value = lanes.load(simd, values.add(unit));
                        let value = simd.mul_f32s(value, lanes.load(simd, p.add(unit)));
                        lanes.store(simd, scaled.add(unit), value);
                    });
                    start += size;
                }
            }
        }
    }
}

/// `z = a ⊙ p_i + b ⊙ p_g + bias ⊙ p_b` for some units of each gate, with b from a tile.
#[derive(Debug, Clone)]
pub struct Mix {
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// H
    pub d_hidden: usize,
    /// b, at the panel of the units.
    pub tile: Tile,
    /// a
    pub from_input: Rows,
    /// Where b goes; none: nowhere.
    pub from_hidden: Rows,
    /// p_i, p_g, p_b
    pub policy: [Rows; 3],
    /// `[4H]`; null: neither a bias nor p_b.
    pub bias: *const f32,
    /// z
    pub preact: Rows,
}

run!(Mix);

impl WithSimd for Mix {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            let [p_i, p_g, p_b] = self.policy.map(|rows| rows.from_row(b).ptr);
            let from_input = self.from_input.from_row(b).ptr;
            let from_hidden = self.from_hidden.from_row(b).ptr;
            let preact = self.preact.from_row(b).ptr;
            for gate in 0..4 {
                let first = gate * self.d_hidden;
                let own = first + self.units.start..first + self.units.end;
                // SAFETY: by the contract of `run`; a tile has whole vectors.
                unsafe {
                    let tile = self.tile.values.add(b * self.tile.stride);
                    let tile = tile.add(gate * S::F32_LANES);
                    each_vector!(S, simd, own.clone(), |unit, lanes| {
                        let from = load::<S>(tile.add(unit - own.start));
                        if !self.from_hidden.is_none() {
                            lanes.store(simd, from_hidden.add(unit), from);
                        }
                        let z = lanes.load(simd, from_input.add(unit));
                        let z = simd.mul_f32s(z, lanes.load(simd, p_i.add(unit)));
                        let mut z = fma(simd, from, lanes.load(simd, p_g.add(unit)), z);
                        if !self.bias.is_null() {
                            let bias = lanes.load(simd, self.bias.add(unit));
                            z = fma(simd, bias, lanes.load(simd, p_b.add(unit)), z);
                        }
                        lanes.store(simd, preact.add(unit), z);
                    });
                }
            }
        }
    }
}

/// The derivative of [`Mix`]: from ∂z to ∂a, ∂b and the policy's part of it.
#[derive(Debug, Clone)]
pub struct MixBack {
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// H
    pub d_hidden: usize,
    /// ∂z
    pub grad: Rows,
    /// a, b
    pub from: [Rows; 2],
    /// p_i, p_g, p_b
    pub policy: [Rows; 3],
    /// `[4H]`; null: neither a bias nor p_b.
    pub bias: *const f32,
    /// ∂a, ∂b
    pub grad_from: [Rows; 2],
    /// ∂p_i, ∂p_g, ∂p_b
    pub grad_policy: [Rows; 3],
    /// Whether they are taken back through the policy's tanh.
    pub through: bool,
}

run!(MixBack);

/// `grad ⊙ (1 − p²)` if `through`, else `grad`.
#[inline(always)]
fn slope<S: Simd>(simd: S, through: bool, grad: S::f32s, p: S::f32s) -> S::f32s {
    if !through {
        return grad;
    }
    let square = simd.mul_f32s(p, p);
    simd.mul_f32s(grad, simd.sub_f32s(simd.splat_f32s(1.0), square))
}

impl WithSimd for MixBack {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            let grad = self.grad.from_row(b).ptr;
            let from = self.from.map(|rows| rows.from_row(b).ptr);
            let policy = self.policy.map(|rows| rows.from_row(b).ptr);
            let grad_from = self.grad_from.map(|rows| rows.from_row(b).ptr);
            let grad_policy = self.grad_policy.map(|rows| rows.from_row(b).ptr);
            for gate in 0..4 {
                let first = gate * self.d_hidden;
                let own = first + self.units.start..first + self.units.end;
                // SAFETY: by the contract of `run`.
                unsafe {
                    each_vector!(S, simd, own.clone(), |unit, lanes| {
                        let delta = lanes.load(simd, grad.add(unit));
                        for part in 0..2 {
                            let p = lanes.load(simd, policy[part].add(unit));
                            lanes.store(simd, grad_from[part].add(unit), simd.mul_f32s(delta, p));
                            let value = lanes.load(simd, from[part].add(unit));
                            let value = simd.mul_f32s(delta, value);
                            let value = slope(simd, self.through, value, p);
                            lanes.store(simd, grad_policy[part].add(unit), value);
                        }
                        if !self.bias.is_null() {
                            let p = lanes.load(simd, policy[2].add(unit));
                            let value = lanes.load(simd, self.bias.add(unit));
                            let value = simd.mul_f32s(delta, value);
                            let value = slope(simd, self.through, value, p);
                            lanes.store(simd, grad_policy[2].add(unit), value);
                        }
                    });
                }
            }
        }
    }
}

/// The derivative of `v ⊙ p` for the columns of a panel, from a tile of its gradient.
#[derive(Debug, Clone)]
pub struct ScaleBack {
    /// Sequences.
    pub rows: usize,
    /// Columns of v.
    pub columns: Range<usize>,
    /// ∂(v ⊙ p), at the panel of the columns.
    pub tile: Tile,
    /// v
    pub value: Rows,
    /// p
    pub policy: Rows,
    /// ∂p
    pub grad_policy: Rows,
    /// Whether it is taken back through the policy's tanh.
    pub through: bool,
    /// ∂v; none: nobody asks for it.
    pub grad: Rows,
    /// Whether to add to what is there.
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
                    let by_policy = slope(simd, self.through, by_policy, p);
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

/// h' from y and its mask: `h' = m ⊙ (y − d) + d`, where d = (1 − v) ⊙ h is what zoneout keeps.
#[derive(Debug, Clone)]
pub struct Carry {
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// y
    pub output: Rows,
    /// m
    pub mask: Rows,
    /// v; none: 1
    pub update: Rows,
    /// h
    pub hidden: Rows,
    /// h'; may be h.
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
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// ∂h' on entry; takes ∂h's direct part with zoneout.
    pub grad_hidden: Rows,
    /// ∂y; none: 0
    pub grad_output: Rows,
    /// m; none: 1
    pub mask: Rows,
    /// v; none: 1
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

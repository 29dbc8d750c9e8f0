//! A round of the Mogrifier at a step: `v = 2σ(p + b) ⊙ u`, where p is a product of the other side.

use super::*;

/// The numbers that a kernel is given of a round at a step.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct RoundScalars {
    /// Vectors of n.
    pub units: u32,
    /// Rows of the step.
    pub rows: u32,
    /// Its first row among those of all steps.
    pub row: u32,
    /// The first row of u.
    pub value_row: u32,
}

/// # Arguments
/// * `product` - p `[B, n]`
/// * `bias` - b `[n]`
/// * `value` - u
/// * `next` - v, for the product of the next round `[B, n]`
/// * `gates`, `values` - σ(p + b) and v of all rows `[N, n]`, if `save`
#[cube(launch)]
pub fn round<N: Size>(
    product: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    value: &[Vector<f32, N>],
    next: &mut [Vector<f32, N>],
    gates: &mut [Vector<f32, N>],
    values: &mut [Vector<f32, N>],
    scalars: &RoundScalars,
    #[comptime] biased: bool,
    #[comptime] save: bool,
) {
    let own = own(scalars.units as usize, 0usize);
    let (b, units, unit) = (own.row, own.units, own.first);
    if b >= scalars.rows as usize {
        terminate!();
    }
    let row = (scalars.row as usize + b) * units + unit;
    let value = value[(scalars.value_row as usize + b) * units + unit];
    let mut p = product[b * units + unit];
    if comptime![biased] {
        p += bias[unit];
    }
    let gate = sigmoid::<N>(p);
    let v = (gate + gate) * value;
    next[b * units + unit] = v;
    if comptime![save] {
        gates[row] = gate;
        values[row] = v;
    }
}

/// The derivative of [`round`].
///
/// # Arguments
/// * `pending` - what a product of another round adds to ∂v `[B, n]`, if `add`
/// * `gates` - of the forward
/// * `value` - u
/// * `grad` - ∂v on entry, ∂u on return `[B, n]`
/// * `grad_product` - ∂p of all rows `[N, n]`
/// * `left` - ∂p for the product with the transposed matrix `[B, n]`
/// * `grad_rows` - ∂u of all rows `[N, n]`, if `first`
#[cube(launch)]
pub fn round_back<N: Size>(
    pending: &[Vector<f32, N>],
    gates: &[Vector<f32, N>],
    value: &[Vector<f32, N>],
    grad: &mut [Vector<f32, N>],
    grad_product: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    grad_rows: &mut [Vector<f32, N>],
    scalars: &RoundScalars,
    #[comptime] add: bool,
    #[comptime] first: bool,
) {
    let own = own(scalars.units as usize, 0usize);
    let (b, units, unit) = (own.row, own.units, own.first);
    if b >= scalars.rows as usize {
        terminate!();
    }
    let row = (scalars.row as usize + b) * units + unit;
    let value = value[(scalars.value_row as usize + b) * units + unit];
    let i = b * units + unit;
    let mut grad_v = grad[i];
    if comptime![add] {
        grad_v += pending[i];
    }
    let gate = gates[row];
    let slope = sigmoid_slope::<N>(gate);
    let grad_p = grad_v * (slope + slope) * value;
    let grad_u = grad_v * (gate + gate);
    grad[i] = grad_u;
    grad_product[row] = grad_p;
    left[i] = grad_p;
    if comptime![first] {
        grad_rows[row] = grad_u;
    }
}

/// `to += from`, for rows of a step.
#[cube(launch)]
pub fn accumulate<N: Size>(from: &[Vector<f32, N>], to: &mut [Vector<f32, N>], count: u32) {
    if ABSOLUTE_POS < count as usize {
        to[ABSOLUTE_POS] += from[ABSOLUTE_POS];
    }
}

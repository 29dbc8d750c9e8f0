//! Activations and their slopes, the same on every device.

use super::*;

/// `σ(x)`: `1 − e/(1 + e)`, or `e/(1 + e)` where x < 0, with e = e^{−|x|}.
///
/// 0 ≤ σ ≤ 1, exactly 1 from x = 17.4 on, whatever the driver's exponential function and division round
/// to: they only touch what is taken from 1. Nothing overflows.
#[cube]
pub fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
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
pub fn tanh<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
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
pub fn one_minus<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    Vector::new(1.0f32) - x
}

/// `σ'` from its value.
#[cube]
pub fn sigmoid_slope<N: Size>(y: Vector<f32, N>) -> Vector<f32, N> {
    y * one_minus::<N>(y)
}

/// `tanh'` from its value: `1 − y²`, whose factor `1 − y` is exact near 1.
#[cube]
pub fn tanh_slope<N: Size>(y: Vector<f32, N>) -> Vector<f32, N> {
    one_minus::<N>(y) * (Vector::new(1.0f32) + y)
}

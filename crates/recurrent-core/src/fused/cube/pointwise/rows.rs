//! Sums over a row by the units of a cube, for normalisation.

use super::*;

/// The sum over all units that share the row.
///
/// # Arguments
/// * `threads` - how many they are, a power of two
#[cube]
pub fn total(value: f32, #[comptime] threads: usize) -> f32 {
    if comptime![threads == 1] {
        value
    } else {
        let unit = UNIT_POS as usize;
        let mut shared = Shared::<[f32]>::new_slice(threads);
        shared[unit] = value;
        sync_cube();
        let mut half = comptime![threads / 2].runtime();
        while half > 0 {
            if unit < half {
                let other = shared[unit + half];
                shared[unit] += other;
            }
            sync_cube();
            half /= 2;
        }
        let sum = shared[0];
        // Nobody writes the next sum before all have read this one.
        sync_cube();
        sum
    }
}

/// The sum over a vector.
#[cube]
pub fn across<N: Size>(x: Vector<f32, N>) -> f32 {
    let mut sum = x.extract(0usize);
    #[unroll]
    for lane in 1..N::value() {
        sum += x.extract(lane);
    }
    sum
}

/// 1/d from the sum of squares.
#[cube]
pub fn inverse_deviation(squares: f32, share: f32, epsilon: f32, #[comptime] outside: bool) -> f32 {
    let variance = squares * share;
    if comptime![outside] {
        1.0 / (f32::max(variance, f32::MIN_POSITIVE).sqrt() + epsilon)
    } else {
        1.0 / (variance + epsilon).sqrt()
    }
}

/// 1/(k·s̃·d²) from the sum of squares; without d³, which may leave the range of f32.
#[cube]
pub fn slope(squares: f32, share: f32, epsilon: f32, #[comptime] outside: bool) -> f32 {
    let variance = squares * share;
    if comptime![outside] {
        // As the composed form: a constant row has a slope of 0, not of 0·∞.
        let root = f32::max(variance, f32::MIN_POSITIVE).sqrt();
        let deviation = root + epsilon;
        share / root / deviation / deviation
    } else {
        let root = (variance + epsilon).sqrt();
        share / root / root / root
    }
}

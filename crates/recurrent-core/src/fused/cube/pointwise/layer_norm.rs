//! Layer normalisation of the rows of a step: `y = gain ⊙ (x − μ)/d + shift`, and its derivative.
//!
//! Each of the units that work on a row sums over its own vectors of it; the sums of all of these units are
//! added in shared memory.

use super::*;

/// A normalisation of rows as kernels are compiled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowNorm {
    /// Pieces of H values that a row has.
    pub pieces: usize,
    /// Whether ε is added outside of the root.
    pub outside: bool,
    /// Where the gain is among the vectors of a call, in pieces.
    pub gain: Option<usize>,
    /// The same of the shift.
    pub shift: Option<usize>,
    /// Units that work on one row, a power of two.
    pub threads: usize,
}

/// Mean and deviation of a row.
#[derive(CubeType, Clone, Copy)]
pub struct Statistics {
    /// μ
    pub mean: f32,
    /// Σ (x − μ)²
    pub squares: f32,
    /// 1/d
    pub inverse_deviation: f32,
}

#[cube]
impl Statistics {
    /// Those of a row that is not normalised: they are not read.
    pub fn none() -> Self {
        Statistics {
            mean: 0.0f32,
            squares: 0.0f32,
            inverse_deviation: 1.0f32,
        }
    }
}

/// What the derivative needs of a row's gradients `∂y ⊙ gain`.
#[derive(CubeType, Clone, Copy)]
pub struct GradStatistics {
    /// Their mean.
    pub mean: f32,
    /// Their sum weighted by x − μ, times 1/(k·s̃·d²).
    pub along: f32,
}

/// The sum over all units that work on the row.
///
/// # Arguments
/// * `threads` - how many they are, a power of two
#[cube]
fn total(value: f32, #[comptime] threads: usize) -> f32 {
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
        // No unit writes the next sum before all have read this one.
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

/// Values of a row.
#[cube]
fn count<N: Size>(own: &Own, #[comptime] norm: RowNorm) -> f32 {
    (own.units * norm.pieces * N::value()) as f32
}

/// The sum over a unit's own vectors of a row.
///
/// # Arguments
/// * `start` - where the row begins among `values`
#[cube]
pub fn own_sum<N: Size>(
    values: &[Vector<f32, N>],
    start: usize,
    own: &Own,
    #[comptime] norm: RowNorm,
) -> f32 {
    let mut sum = 0.0f32;
    let mut unit = own.first;
    while unit < own.units {
        #[unroll]
        for piece in 0..norm.pieces {
            sum += across::<N>(values[start + piece * own.units + unit]);
        }
        unit += own.stride;
    }
    sum
}

/// Mean and deviation of a row.
///
/// # Arguments
/// * `sum` - over the unit's own vectors of the row, as [`own_sum`] gives it
/// * `start` - where the row begins among `values`
#[cube]
pub fn statistics<N: Size>(
    sum: f32,
    values: &[Vector<f32, N>],
    start: usize,
    own: &Own,
    scalars: &NormScalars,
    #[comptime] norm: RowNorm,
) -> Statistics {
    let mean = total(sum, norm.threads) / count::<N>(own, norm);
    let mut squares = 0.0f32;
    let mut unit = own.first;
    while unit < own.units {
        #[unroll]
        for piece in 0..norm.pieces {
            let centred = values[start + piece * own.units + unit] - Vector::new(mean);
            squares += across::<N>(centred * centred);
        }
        unit += own.stride;
    }
    let squares = total(squares, norm.threads);
    Statistics {
        mean,
        squares,
        inverse_deviation: inverse_deviation(squares, scalars, norm.outside),
    }
}

/// `(x − μ)/d`
#[cube]
pub fn normalized<N: Size>(x: Vector<f32, N>, statistics: &Statistics) -> Vector<f32, N> {
    (x - Vector::new(statistics.mean)) * Vector::new(statistics.inverse_deviation)
}

/// `gain ⊙ x`, or x without a gain.
///
/// # Arguments
/// * `index` - of the vector within its row
#[cube]
pub fn with_gain<N: Size>(
    x: Vector<f32, N>,
    vectors: &[Vector<f32, N>],
    index: usize,
    units: usize,
    #[comptime] norm: RowNorm,
) -> Vector<f32, N> {
    // In a variable: otherwise CubeCL fuses the product with a sum that follows, which rounds differently.
    let mut y = x;
    if comptime![norm.gain.is_some()] {
        y *= vectors[comptime![norm.gain.unwrap_or(0)] * units + index];
    }
    y
}

/// `gain ⊙ x + shift`, as far as there are any.
///
/// # Arguments
/// * `index` - of the vector within its row
#[cube]
pub fn with_gain_and_shift<N: Size>(
    x: Vector<f32, N>,
    vectors: &[Vector<f32, N>],
    index: usize,
    units: usize,
    #[comptime] norm: RowNorm,
) -> Vector<f32, N> {
    let mut y = with_gain::<N>(x, vectors, index, units, norm);
    if comptime![norm.shift.is_some()] {
        y += vectors[comptime![norm.shift.unwrap_or(0)] * units + index];
    }
    y
}

/// # Arguments
/// * `sum`, `along` - over the unit's own vectors: of `∂y ⊙ gain`, and of that times x − μ
#[cube]
pub fn grad_statistics<N: Size>(
    sum: f32,
    along: f32,
    statistics: &Statistics,
    own: &Own,
    scalars: &NormScalars,
    #[comptime] norm: RowNorm,
) -> GradStatistics {
    let mean = total(sum, norm.threads) / count::<N>(own, norm);
    let along = total(along, norm.threads) * slope(statistics.squares, scalars, norm.outside);
    GradStatistics { mean, along }
}

/// ∂x from `∂y ⊙ gain`.
#[cube]
pub fn norm_back<N: Size>(
    grad: Vector<f32, N>,
    x: Vector<f32, N>,
    statistics: &Statistics,
    grads: &GradStatistics,
) -> Vector<f32, N> {
    let centred = x - Vector::new(statistics.mean);
    (grad - Vector::new(grads.mean)) * Vector::new(statistics.inverse_deviation)
        - centred * Vector::new(grads.along)
}

/// 1/d from the sum of squares.
#[cube]
fn inverse_deviation(squares: f32, norm: &NormScalars, #[comptime] outside: bool) -> f32 {
    let variance = squares * norm.inverse_count;
    if comptime![outside] {
        1.0 / (f32::max(variance, f32::MIN_POSITIVE).sqrt() + norm.epsilon)
    } else {
        1.0 / (variance + norm.epsilon).sqrt()
    }
}

/// 1/(k·s̃·d²) from the sum of squares; without d³, which may leave the range of f32.
#[cube]
fn slope(squares: f32, norm: &NormScalars, #[comptime] outside: bool) -> f32 {
    let variance = squares * norm.inverse_count;
    if comptime![outside] {
        // As the composed form: a constant row has a slope of 0, not of 0·∞.
        let root = f32::max(variance, f32::MIN_POSITIVE).sqrt();
        let deviation = root + norm.epsilon;
        norm.inverse_count / root / deviation / deviation
    } else {
        let root = (variance + norm.epsilon).sqrt();
        norm.inverse_count / root / root / root
    }
}

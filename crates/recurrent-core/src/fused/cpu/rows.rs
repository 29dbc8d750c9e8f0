//! Operations on whole rows: normalisation, sums over rows, a row times a matrix.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::product::prefetch;
use super::simd::{First, Isa, Lanes, Whole, fma};
use super::view::{GateRows, Rows, View};
use crate::equations::layer_norm::{EpsilonPlace, Normalizer, Variance};

/// Number of values that a normalised row saves for its derivative: μ, 1/d and 1/(k·s̃·d²), see
/// [`Normalizer::backward`].
pub const STATS: usize = 3;

/// Calls `$body` for each vector of a range, with the lanes in use. The calling module imports `First`,
/// `Lanes`, `Range` and `Whole`.
macro_rules! each_vector {
    ($S:ident, $simd:expr, $range:expr, |$unit:ident, $lanes:ident| $body:block) => {{
        let range: Range<usize> = $range;
        let mut $unit = range.start;
        while $unit + $S::F32_LANES <= range.end {
            let $lanes = Whole;
            $body
            $unit += $S::F32_LANES;
        }
        if $unit < range.end {
            let $lanes = First::<$S>::new($simd, range.end - $unit);
            $body
        }
    }};
}

pub(super) use each_vector;

/// Calls `$body` for each vector of each gate. `$gate` and `$panel` identify it; `$unit` is the position
/// of its values in a row of all gates.
macro_rules! each_gate_vector {
    ($S:ident, $simd:expr, $self:ident, |$gate:ident, $panel:ident, $unit:ident, $lanes:ident| $body:block) => {
        each_vector!($S, $simd, 0..$self.units, |first, $lanes| {
            let $panel = first / $S::F32_LANES;
            for $gate in 0..$self.gates {
                let $unit = $gate * $self.units + first;
                $body
            }
        })
    };
}

/// `to ← to + from` for some columns.
#[derive(Debug, Clone)]
pub struct AddRows {
    /// Number of rows.
    pub rows: usize,
    /// Columns.
    pub columns: Range<usize>,
    /// The values that are added.
    pub from: Rows,
    /// The values that they are added to.
    pub to: Rows,
}

impl AddRows {
    /// # Safety
    /// `from` is readable for the rows and columns; those of `to` belong to the caller alone.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(self)
    }
}

impl WithSimd for AddRows {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for b in 0..self.rows {
            let (from, to) = (self.from.from_row(b).ptr, self.to.from_row(b).ptr);
            each_vector!(S, simd, self.columns.clone(), |column, lanes| {
                // SAFETY: by the contract of `run`, and no lanes beyond the columns are touched.
                unsafe {
                    let sum = lanes.load(simd, to.add(column));
                    let sum = simd.add_f32s(sum, lanes.load(simd, from.add(column)));
                    lanes.store(simd, to.add(column), sum);
                }
            });
        }
    }
}

/// `x ← x + bias`, `y = base + gain ⊙ (x − μ)/d + shift`, row by row.
#[derive(Debug, Clone)]
pub struct NormForward {
    /// Row range.
    pub rows: Range<usize>,
    /// Number of gates that are normalised together; 1 for plain rows.
    pub gates: usize,
    /// Features of each gate.
    pub units: usize,
    /// The form of the normaliser.
    pub form: Normalizer,
    /// x
    pub x: GateRows,
    /// `[n]`, added to x; null: nothing. It is added last: a sum that starts with the bias is less
    /// exact, and a small d magnifies the error.
    pub bias: *const f32,
    /// Added to the result; `GateRows::NONE`: nothing.
    pub base: GateRows,
    /// `[n]`; null: 1
    pub gain: *const f32,
    /// `[n]`; null: 0
    pub shift: *const f32,
    /// y; may alias x or base.
    pub y: GateRows,
    /// Destination of [`STATS`] values per row.
    pub stats: Rows,
}

impl NormForward {
    /// # Safety
    /// What is read is readable for the rows, what is written belongs to the caller alone.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(self)
    }
}

impl WithSimd for NormForward {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.gates * self.units;
        for b in self.rows.clone() {
            // SAFETY: by the contract of `run`.
            unsafe {
                let x = |gate, panel| self.x.at(b, gate, panel);
                let mut sum = simd.splat_f32s(0.0);
                each_gate_vector!(S, simd, self, |gate, panel, unit, lanes| {
                    let mut value = lanes.load(simd, x(gate, panel));
                    if !self.bias.is_null() {
                        value = simd.add_f32s(value, lanes.load(simd, self.bias.add(unit)));
                        lanes.store(simd, x(gate, panel), value);
                    }
                    sum = simd.add_f32s(sum, value);
                });
                let mean = simd.reduce_sum_f32s(sum) / n as f32;
                let mu = simd.splat_f32s(mean);
                let mut squares = simd.splat_f32s(0.0);
                each_gate_vector!(S, simd, self, |gate, panel, _unit, lanes| {
                    // In unused lanes the value is −μ; they are masked.
                    let value = lanes.load(simd, x(gate, panel));
                    let centred = lanes_or_zero(simd, lanes, simd.sub_f32s(value, mu));
                    squares = fma(simd, centred, centred, squares);
                });
                let (inverse, ratio) = deviation(&self.form, simd.reduce_sum_f32s(squares), n);
                let stats = self.stats.from_row(b).ptr;
                *stats = mean;
                *stats.add(1) = inverse;
                *stats.add(2) = ratio;

                let inverse = simd.splat_f32s(inverse);
                each_gate_vector!(S, simd, self, |gate, panel, unit, lanes| {
                    let value = simd.sub_f32s(lanes.load(simd, x(gate, panel)), mu);
                    let mut value = simd.mul_f32s(value, inverse);
                    if !self.gain.is_null() {
                        value = simd.mul_f32s(value, lanes.load(simd, self.gain.add(unit)));
                    }
                    if !self.shift.is_null() {
                        value = simd.add_f32s(value, lanes.load(simd, self.shift.add(unit)));
                    }
                    if !self.base.is_none() {
                        let base = lanes.load(simd, self.base.at(b, gate, panel));
                        value = simd.add_f32s(value, base);
                    }
                    lanes.store(simd, self.y.at(b, gate, panel), value);
                });
            }
        }
    }
}

/// `value` with zero in the unused lanes.
///
/// # Safety
/// No lane may be beyond the end of a vector; [`Lanes`] guarantee this.
#[inline(always)]
unsafe fn lanes_or_zero<S: Simd>(simd: S, lanes: impl Lanes<S>, value: S::f32s) -> S::f32s {
    // SAFETY: the value is one whole vector, which has all lanes.
    unsafe { lanes.load(simd, core::ptr::from_ref(&value).cast()) }
}

/// (1/d, d/(k·s̃)) from the sum of squares.
fn deviation(form: &Normalizer, squares: f32, n: usize) -> (f32, f32) {
    let k = match form.variance {
        Variance::Biased => n as f32,
        Variance::Unbiased => n as f32 - 1.0,
    };
    let (variance, epsilon) = (squares * (1.0 / k), form.epsilon as f32);
    let (root, deviation) = match form.place {
        EpsilonPlace::InsideRoot => {
            let root = (variance + epsilon).sqrt();
            (root, root)
        }
        EpsilonPlace::OutsideRoot => {
            // As in the composed form: a constant row has a slope of 0, not of 0·∞.
            let root = variance.max(f32::MIN_POSITIVE).sqrt();
            (root, root + epsilon)
        }
    };
    (1.0 / deviation, deviation / (k * root))
}

/// Derivative of [`NormForward`] with respect to x: from `∂L/∂y` to `∂L/∂x`.
#[derive(Debug, Clone)]
pub struct NormBackward {
    /// Row range.
    pub rows: Range<usize>,
    /// Number of gates that are normalised together; 1 for plain rows.
    pub gates: usize,
    /// Features of each gate.
    pub units: usize,
    /// x
    pub x: GateRows,
    /// The statistics that the forward saved.
    pub stats: Rows,
    /// `[n]`; null: 1
    pub gain: *const f32,
    /// ∂L/∂y
    pub grad_y: GateRows,
    /// ∂L/∂x; may alias ∂L/∂y.
    pub grad_x: GateRows,
}

impl NormBackward {
    /// # Safety
    /// What is read is readable for the rows, what is written belongs to the caller alone.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(self)
    }
}

impl NormBackward {
    /// (the gradient with respect to x̂, x̂)
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn read<S: Simd>(
        &self,
        simd: S,
        lanes: impl Lanes<S>,
        (b, gate, panel): (usize, usize, usize),
        unit: usize,
        mu: S::f32s,
        inverse: S::f32s,
    ) -> (S::f32s, S::f32s) {
        // SAFETY: by the contract of this function.
        unsafe {
            let mut grad = lanes.load(simd, self.grad_y.at(b, gate, panel));
            if !self.gain.is_null() {
                grad = simd.mul_f32s(grad, lanes.load(simd, self.gain.add(unit)));
            }
            let x = lanes.load(simd, self.x.at(b, gate, panel));
            (grad, simd.mul_f32s(simd.sub_f32s(x, mu), inverse))
        }
    }
}

// δ: the gradient with respect to x̂. No intermediate value is larger than δ or x̂: a power of d,
// which may be as large as the cell state, would overflow f32.
// ∂L/∂x = (δ − mean(δ) − x̂·Σ(δ·x̂)·d/(k·s̃)) / d
impl WithSimd for NormBackward {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n = self.gates * self.units;
        for b in self.rows.clone() {
            // SAFETY: by the contract of `run`.
            unsafe {
                let stats = self.stats.from_row(b).ptr;
                let (mean, inverse, ratio) = (*stats, *stats.add(1), *stats.add(2));
                let (mu, inverse) = (simd.splat_f32s(mean), simd.splat_f32s(inverse));
                let mut sum = simd.splat_f32s(0.0);
                let mut along = simd.splat_f32s(0.0);
                each_gate_vector!(S, simd, self, |gate, panel, unit, lanes| {
                    let at = (b, gate, panel);
                    let (grad, normal) = self.read(simd, lanes, at, unit, mu, inverse);
                    sum = simd.add_f32s(sum, grad);
                    // The gradient is 0 in unused lanes.
                    along = fma(simd, grad, normal, along);
                });
                let mean_grad = simd.splat_f32s(simd.reduce_sum_f32s(sum) / n as f32);
                let along = simd.splat_f32s(-simd.reduce_sum_f32s(along) * ratio);
                each_gate_vector!(S, simd, self, |gate, panel, unit, lanes| {
                    let at = (b, gate, panel);
                    let (grad, normal) = self.read(simd, lanes, at, unit, mu, inverse);
                    let grad = fma(simd, normal, along, simd.sub_f32s(grad, mean_grad));
                    let grad = simd.mul_f32s(grad, inverse);
                    lanes.store(simd, self.grad_x.at(b, gate, panel), grad);
                });
            }
        }
    }
}

/// `out[u] += Σ_b a[b, u]·w[b, u]` for a range of rows and columns.
#[derive(Debug, Clone)]
pub struct SumRows {
    /// Row range.
    pub rows: Range<usize>,
    /// Column range.
    pub columns: Range<usize>,
    /// a
    pub a: Rows,
    /// w
    pub by: By,
    /// `[columns]`; read and written at the columns.
    pub out: *mut f32,
}

/// The weights of a sum over rows.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// 1
    One,
    /// A matrix.
    Values(Rows),
    /// A normalised matrix: (x − μ)/d.
    Normalized {
        /// x
        x: Rows,
        /// The statistics that [`NormForward`] saved.
        stats: Rows,
    },
}

impl SumRows {
    /// # Safety
    /// What is read is readable for the rows and columns; `out` belongs to the caller alone there.
    pub unsafe fn run(self, isa: Isa) {
        isa.run(self)
    }
}

/// Number of rows that are summed before they are added to the total: limits the rounding error of long
/// sums.
const SUM_BLOCK: usize = 128;

impl WithSimd for SumRows {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
            // SAFETY: by the contract of `run`.
            unsafe {
                let mut total = lanes.load(simd, self.out.add(unit));
                let mut start = self.rows.start;
                while start < self.rows.end {
                    let end = (start + SUM_BLOCK).min(self.rows.end);
                    let mut sum = simd.splat_f32s(0.0);
                    for b in start..end {
                        let value = lanes.load(simd, self.a.from_row(b).ptr.add(unit));
                        match self.by {
                            By::One => sum = simd.add_f32s(sum, value),
                            By::Values(rows) => {
                                let by = lanes.load(simd, rows.from_row(b).ptr.add(unit));
                                sum = fma(simd, value, by, sum);
                            }
                            By::Normalized { x, stats } => {
                                let stats = stats.from_row(b).ptr;
                                let x = lanes.load(simd, x.from_row(b).ptr.add(unit));
                                let by = simd.sub_f32s(x, simd.splat_f32s(*stats));
                                let by = simd.mul_f32s(by, simd.splat_f32s(*stats.add(1)));
                                sum = fma(simd, value, by, sum);
                            }
                        }
                    }
                    total = simd.add_f32s(total, sum);
                    start = end;
                }
                lanes.store(simd, self.out.add(unit), total);
            }
        });
    }
}

/// `out[n] += Σ_k a[k]·w[k, n]` for a range of columns: a row vector times a row-major matrix. The
/// matrix is read once, in its own order.
#[derive(Debug, Clone)]
pub struct RowTimes {
    /// Rows of w.
    pub k: usize,
    /// `[k]`
    pub a: *const f32,
    /// Row-major.
    pub w: View,
    /// Column range.
    pub columns: Range<usize>,
    /// `[n]`
    pub out: *mut f32,
    /// Whether to start with the last rows of w: those that the previous step has read last are still in
    /// the cache.
    pub back: bool,
}

/// Rows of w that are processed together: `out` is then read and written once per eight rows.
const SIDE_BY_SIDE: usize = 8;

impl RowTimes {
    /// # Safety
    /// `a` and the columns of w are readable; `out` belongs to the caller alone at the columns.
    pub unsafe fn run(self, isa: Isa) {
        debug_assert_eq!(self.w.column, 1);
        isa.run(self)
    }
}

impl WithSimd for RowTimes {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let groups = self.k / SIDE_BY_SIDE;
        // SAFETY: by the contract of `run`.
        unsafe {
            for index in 0..groups {
                let group = if self.back { groups - 1 - index } else { index };
                let next = if self.back {
                    group.saturating_sub(1)
                } else {
                    (group + 1).min(groups - 1)
                };
                let k = group * SIDE_BY_SIDE;
                let mut a = [simd.splat_f32s(0.0); SIDE_BY_SIDE];
                for (offset, a) in a.iter_mut().enumerate() {
                    *a = simd.splat_f32s(*self.a.add(k + offset));
                }
                let w = self.w.from_row(k).ptr;
                // The row stride is large, so the hardware prefetcher does not predict the next rows.
                let ahead = self.w.from_row(next * SIDE_BY_SIDE).ptr;
                each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
                    let mut even = lanes.load(simd, self.out.add(unit));
                    let mut odd = simd.splat_f32s(0.0);
                    for pair in 0..SIDE_BY_SIDE / 2 {
                        prefetch(ahead.wrapping_add(2 * pair * self.w.row + unit));
                        prefetch(ahead.wrapping_add((2 * pair + 1) * self.w.row + unit));
                        let w = w.add(2 * pair * self.w.row + unit);
                        even = fma(simd, a[2 * pair], lanes.load(simd, w), even);
                        let w = w.add(self.w.row);
                        odd = fma(simd, a[2 * pair + 1], lanes.load(simd, w), odd);
                    }
                    lanes.store(simd, self.out.add(unit), simd.add_f32s(even, odd));
                });
            }
            for k in groups * SIDE_BY_SIDE..self.k {
                let a = simd.splat_f32s(*self.a.add(k));
                let w = self.w.from_row(k).ptr;
                each_vector!(S, simd, self.columns.clone(), |unit, lanes| {
                    let out = lanes.load(simd, self.out.add(unit));
                    let out = fma(simd, a, lanes.load(simd, w.add(unit)), out);
                    lanes.store(simd, self.out.add(unit), out);
                });
            }
        }
    }
}

/// `out[k] (+)= Σ_n a[n]·w[k, n]` for a range of rows of w: a row vector times a transposed matrix. The
/// matrix is read once, in its own order.
#[derive(Debug, Clone)]
pub struct RowTimesTransposed {
    /// Columns of w.
    pub n: usize,
    /// `[n]`
    pub a: *const f32,
    /// Row-major.
    pub w: View,
    /// Row range of w.
    pub rows: Range<usize>,
    /// `[k]`
    pub out: *mut f32,
    /// Whether to add to the contents of `out`.
    pub add: bool,
    /// Whether to start with the last rows, as in [`RowTimes`].
    pub back: bool,
}

impl RowTimesTransposed {
    /// # Safety
    /// `a` and the rows of w are readable; `out` belongs to the caller alone at the rows.
    pub unsafe fn run(self, isa: Isa) {
        debug_assert_eq!(self.w.column, 1);
        isa.run(self)
    }

    /// Rows `k..k + R`.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn dots<S: Simd, const R: usize>(&self, simd: S, k: usize) {
        // SAFETY: by the contract of `run`.
        unsafe {
            let mut sums = [simd.splat_f32s(0.0); R];
            each_vector!(S, simd, 0..self.n, |unit, lanes| {
                let a = lanes.load(simd, self.a.add(unit));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let w = self.w.from_row(k + r).ptr.add(unit);
                    *sum = fma(simd, a, lanes.load(simd, w), *sum);
                }
            });
            for (r, sum) in sums.into_iter().enumerate() {
                let out = self.out.add(k + r);
                let before = if self.add { *out } else { 0.0 };
                *out = before + simd.reduce_sum_f32s(sum);
            }
        }
    }
}

impl WithSimd for RowTimesTransposed {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let groups = self.rows.len() / SIDE_BY_SIDE;
        // SAFETY: by the contract of `run`.
        unsafe {
            for index in 0..groups {
                let group = if self.back { groups - 1 - index } else { index };
                self.dots::<S, SIDE_BY_SIDE>(simd, self.rows.start + group * SIDE_BY_SIDE);
            }
            for k in self.rows.start + groups * SIDE_BY_SIDE..self.rows.end {
                self.dots::<S, 1>(simd, k);
            }
        }
    }
}

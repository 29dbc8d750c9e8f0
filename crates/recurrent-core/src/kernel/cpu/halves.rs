//! Recurrent weights in bf16: half the memory to read at every step of a single sequence.
//!
//! A bf16 value is the upper half of an f32, rounded to nearest: 8 bits of precision. Two of them share
//! a 32-bit word, so that a vector of words opens into two vectors of f32 with a shift and a mask;
//! products and sums are f32.
//! ```text
//! [k][gate][pair of vectors][lane]: u32 = units j (low half) and j + lanes (high half)
//! ```

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::product::{View, prefetch};
use super::simd::{Either, Isa, Lanes, fma};

/// Rows that are read side by side.
const SIDE_BY_SIDE: usize = 8;

/// Weights `[k, gates·units]` in bf16.
#[derive(Debug)]
pub struct Halves {
    words: Vec<u32>,
    k: usize,
    gates: usize,
    units: usize,
    lanes: usize,
}

impl Halves {
    /// Room for weights of `k` rows.
    pub fn new(isa: Isa, k: usize, gates: usize, units: usize) -> Self {
        let lanes = isa.lanes();
        let words = vec![0; k * gates * units.div_ceil(2 * lanes) * lanes];
        Self {
            words,
            k,
            gates,
            units,
            lanes,
        }
    }

    /// Pairs of vectors that hold the units of a gate.
    pub fn pairs(&self) -> usize {
        self.units.div_ceil(2 * self.lanes)
    }

    /// The words, for [`fill`](Self::fill) by several threads.
    pub fn as_mut_ptr(&mut self) -> *mut u32 {
        self.words.as_mut_ptr()
    }

    /// Units of some pairs.
    pub fn units_of(&self, pairs: &Range<usize>) -> Range<usize> {
        let width = 2 * self.lanes;
        (pairs.start * width).min(self.units)..(pairs.end * width).min(self.units)
    }

    /// Rounds some rows of the weights to bf16, into what [`as_mut_ptr`](Self::as_mut_ptr) gave.
    ///
    /// # Safety
    /// The weights are readable; no other thread touches these rows of `words`.
    pub unsafe fn fill(&self, words: *mut u32, weights: View, rows: Range<usize>) {
        let row_words = self.gates * self.pairs() * self.lanes;
        for k in rows {
            let source = weights.from_row(k).ptr;
            for gate in 0..self.gates {
                for pair in 0..self.pairs() {
                    let unit = pair * 2 * self.lanes;
                    if unit + 2 * self.lanes <= self.units {
                        let index = k * row_words + (gate * self.pairs() + pair) * self.lanes;
                        // SAFETY: two whole vectors of columns, and the words of this row, which are
                        // the caller's own.
                        let (source, words) = unsafe {
                            let source = source.add(gate * self.units + unit);
                            (
                                core::slice::from_raw_parts(source, 2 * self.lanes),
                                core::slice::from_raw_parts_mut(words.add(index), self.lanes),
                            )
                        };
                        let (low, high) = source.split_at(self.lanes);
                        for ((word, &low), &high) in words.iter_mut().zip(low).zip(high) {
                            *word = round(low) | round(high) << 16;
                        }
                        continue;
                    }
                    for lane in 0..self.lanes {
                        let at = |unit: usize| {
                            if unit >= self.units {
                                return 0;
                            }
                            // SAFETY: a column of the weights.
                            let value = unsafe { *source.add(gate * self.units + unit) };
                            round(value)
                        };
                        let unit = pair * 2 * self.lanes + lane;
                        let word = at(unit) | at(unit + self.lanes) << 16;
                        let index =
                            k * row_words + (gate * self.pairs() + pair) * self.lanes + lane;
                        // SAFETY: inside the words of this row, which are the caller's own.
                        unsafe { *words.add(index) = word };
                    }
                }
            }
        }
    }
}

/// The bits of the nearest bf16, ties to even; NaN stays NaN. Without branches, for vectors.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    if value.is_nan() { nan } else { nearest }
}

/// `out[gate, unit] += Σ_k a[k]·w[k, gate, unit]` for some pairs of vectors of units.
#[derive(Debug, Clone)]
pub struct RowTimesHalves<'a> {
    /// `[k]`
    pub a: *const f32,
    /// w
    pub w: &'a Halves,
    /// Which pairs, of every gate.
    pub pairs: Range<usize>,
    /// `[gates·units]`
    pub out: *mut f32,
    /// Whether to begin with the last rows of w: what the step before has read last is still in the
    /// cache.
    pub back: bool,
}

impl RowTimesHalves<'_> {
    /// # Safety
    /// `a` is readable; `out` belongs to the caller alone at the units of the pairs.
    pub unsafe fn run(self, isa: Isa) {
        debug_assert_eq!(self.w.lanes, isa.lanes());
        isa.run(self)
    }

    /// Rows `k..k + R`, for all pairs.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn rows<S: Simd, const R: usize>(&self, simd: S, k: usize, ahead: usize) {
        let Halves {
            words,
            gates,
            units,
            lanes,
            ..
        } = self.w;
        let pairs = self.w.pairs();
        let row_words = gates * pairs * lanes;
        let high = simd.splat_u32s(0xffff_0000);
        let shift = simd.splat_u32s(16);
        // SAFETY: by the contract of `run`.
        unsafe {
            let mut a = [simd.splat_f32s(0.0); R];
            for (offset, a) in a.iter_mut().enumerate() {
                *a = simd.splat_f32s(*self.a.add(k + offset));
            }
            for gate in 0..*gates {
                for pair in self.pairs.clone() {
                    let unit = pair * 2 * lanes;
                    let out = self.out.add(gate * units + unit);
                    let first = Either::<S>::new(simd, units - unit);
                    let second = Either::<S>::new(simd, units.saturating_sub(unit + lanes));
                    let behind = out.wrapping_add(*lanes);
                    let mut low_sum = first.load(simd, out);
                    let mut high_sum = second.load(simd, behind);
                    let column = (gate * pairs + pair) * lanes;
                    for (offset, &a) in a.iter().enumerate() {
                        let word = words.as_ptr().add((k + offset) * row_words + column);
                        let next = (ahead + offset).wrapping_mul(row_words) + column;
                        prefetch(words.as_ptr().wrapping_add(next).cast());
                        let word = word.cast::<S::u32s>().read_unaligned();
                        let even = simd.wrapping_dyn_shl_u32s(word, shift);
                        let odd = simd.and_u32s(word, high);
                        low_sum = fma(simd, a, simd.transmute_f32s_u32s(even), low_sum);
                        high_sum = fma(simd, a, simd.transmute_f32s_u32s(odd), high_sum);
                    }
                    first.store(simd, out, low_sum);
                    second.store(simd, behind, high_sum);
                }
            }
        }
    }
}

impl WithSimd for RowTimesHalves<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let groups = self.w.k / SIDE_BY_SIDE;
        // SAFETY: by the contract of `run`.
        unsafe {
            for index in 0..groups {
                let group = if self.back { groups - 1 - index } else { index };
                let next = if self.back {
                    group.saturating_sub(1)
                } else {
                    (group + 1).min(groups - 1)
                };
                self.rows::<S, SIDE_BY_SIDE>(simd, group * SIDE_BY_SIDE, next * SIDE_BY_SIDE);
            }
            for k in groups * SIDE_BY_SIDE..self.w.k {
                self.rows::<S, 1>(simd, k, k);
            }
        }
    }
}

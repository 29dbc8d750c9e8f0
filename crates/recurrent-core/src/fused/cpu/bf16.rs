//! Recurrent weights in bf16: halves the memory read at every step of a single sequence.
//!
//! A bf16 value is the upper half of an f32, rounded to nearest: 8 bits of precision. Two values share
//! a 32-bit word, so a shift and a mask expand a vector of words into two vectors of f32. Products and
//! sums are f32. The units of a *pair* of vectors, with all their gates, form a panel that is read
//! sequentially:
//! ```text
//! [pair of vectors][k][gate][lane]: u32 = units j (low half) and j + lanes (high half)
//! ```

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::buffer::Buffer;
use super::product::{PACK_ROWS, serpentine};
use super::simd::{Either, Isa, Lanes, fma};
use super::view::View;

/// Weights `[k, gates·units]` in bf16.
#[derive(Debug)]
pub struct Bf16Panels {
    /// The 32-bit words, stored in a buffer of f32.
    words: Buffer,
    k: usize,
    gates: usize,
    units: usize,
    lanes: usize,
}

impl Bf16Panels {
    /// Allocates panels for weights of `k` rows.
    pub fn new(isa: Isa, k: usize, gates: usize, units: usize) -> Self {
        let lanes = isa.lanes();
        Self {
            words: Buffer::new(k * gates * units.div_ceil(2 * lanes) * lanes),
            k,
            gates,
            units,
            lanes,
        }
    }

    /// Number of vector pairs that hold the units of a gate.
    pub fn pairs(&self) -> usize {
        self.units.div_ceil(2 * self.lanes)
    }

    /// The words, so that several threads can [`fill`](Self::fill) them.
    pub fn as_mut_ptr(&mut self) -> *mut u32 {
        self.words.as_mut_ptr().cast()
    }

    /// The units of some pairs.
    pub fn units_of(&self, pairs: &Range<usize>) -> Range<usize> {
        let width = 2 * self.lanes;
        (pairs.start * width).min(self.units)..(pairs.end * width).min(self.units)
    }

    /// Rounds the weights of some pairs to bf16 and writes them to the pointer of
    /// [`as_mut_ptr`](Self::as_mut_ptr).
    ///
    /// # Safety
    /// The weights are readable; no other thread touches these pairs of `words`.
    pub unsafe fn fill(&self, words: *mut u32, weights: View, pairs: Range<usize>) {
        for start in (0..self.k).step_by(PACK_ROWS) {
            for pair in pairs.clone() {
                for k in start..(start + PACK_ROWS).min(self.k) {
                    for gate in 0..self.gates {
                        let source = weights.from_row(k).ptr.wrapping_add(gate * self.units);
                        let index = ((pair * self.k + k) * self.gates + gate) * self.lanes;
                        // SAFETY: a gate of a row of the weights, and the words of its pair.
                        unsafe { self.round_pair(words.add(index), source, pair) };
                    }
                }
            }
        }
    }

    /// # Safety
    /// `source` has the units of a gate, `words` room for a vector of them.
    unsafe fn round_pair(&self, words: *mut u32, source: *const f32, pair: usize) {
        let (lanes, unit) = (self.lanes, pair * 2 * self.lanes);
        if unit + 2 * lanes <= self.units {
            // SAFETY: two whole vectors of units.
            let (source, words) = unsafe {
                (
                    core::slice::from_raw_parts(source.add(unit), 2 * lanes),
                    core::slice::from_raw_parts_mut(words, lanes),
                )
            };
            let (low, high) = source.split_at(lanes);
            for ((word, &low), &high) in words.iter_mut().zip(low).zip(high) {
                *word = round(low) | round(high) << 16;
            }
            return;
        }
        for lane in 0..lanes {
            let at = |unit: usize| {
                if unit >= self.units {
                    return 0;
                }
                // SAFETY: a unit of the gate.
                round(unsafe { *source.add(unit) })
            };
            let word = at(unit + lane) | at(unit + lane + lanes) << 16;
            // SAFETY: inside the vector.
            unsafe { *words.add(lane) = word };
        }
    }
}

/// The bits of the nearest bf16, ties to even; NaN stays NaN. Branch-free, so that it vectorises.
#[inline(always)]
fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    if value.is_nan() { nan } else { nearest }
}

/// `out[gate, unit] += Σ_k a[k]·w[k, gate, unit]` for some pairs of vectors of units.
#[derive(Debug, Clone)]
pub struct RowTimesBf16<'a> {
    /// `[k]`
    pub a: *const f32,
    /// w
    pub w: &'a Bf16Panels,
    /// Which pairs, of every gate.
    pub pairs: Range<usize>,
    /// `[gates·units]`
    pub out: *mut f32,
    /// The step; it selects the direction in which the pairs are read: see [`serpentine`].
    pub step: usize,
}

impl RowTimesBf16<'_> {
    /// # Safety
    /// `a` is readable; `out` belongs to the caller alone at the units of the pairs.
    pub unsafe fn run(self, isa: Isa) {
        debug_assert_eq!(self.w.lanes, isa.lanes());
        match self.w.gates {
            3 => isa.run(Gates::<3>(self)),
            4 => isa.run(Gates::<4>(self)),
            gates => unreachable!("{gates} gates"),
        }
    }
}

/// [`RowTimesBf16`] for G gates.
struct Gates<'a, const G: usize>(RowTimesBf16<'a>);

/// Number of independent accumulators along k, which hide the latency of the additions.
const SIDE_BY_SIDE: usize = 2;

/// `sums[gate] += a[k]·w[k, gate]` for the two vectors of a pair.
///
/// # Safety
/// `a` and the words of row k of the pair are readable.
#[inline(always)]
unsafe fn add<S: Simd, const G: usize>(
    simd: S,
    a: *const f32,
    words: *const f32,
    k: usize,
    sums: &mut [[S::f32s; 2]; G],
) {
    let high = simd.splat_u32s(0xffff_0000);
    let shift = simd.splat_u32s(16);
    // SAFETY: by the contract of this function.
    unsafe {
        let a = simd.splat_f32s(*a.add(k));
        for (gate, [low, behind]) in sums.iter_mut().enumerate() {
            let word = words.add((k * G + gate) * S::F32_LANES);
            let word = word.cast::<S::u32s>().read_unaligned();
            let even = simd.wrapping_dyn_shl_u32s(word, shift);
            let odd = simd.and_u32s(word, high);
            *low = fma(simd, a, simd.transmute_f32s_u32s(even), *low);
            *behind = fma(simd, a, simd.transmute_f32s_u32s(odd), *behind);
        }
    }
}

impl<const G: usize> WithSimd for Gates<'_, G> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let RowTimesBf16 {
            a,
            w,
            pairs,
            out,
            step,
        } = self.0;
        let (k, units, lanes) = (w.k, w.units, S::F32_LANES);
        for pair in serpentine(pairs, step) {
            let words = w.words.as_ptr().wrapping_add(pair * k * G * lanes);
            let mut sums = [[[simd.splat_f32s(0.0); 2]; G]; SIDE_BY_SIDE];
            let whole = k / SIDE_BY_SIDE * SIDE_BY_SIDE;
            for start in (0..whole).step_by(SIDE_BY_SIDE) {
                for (offset, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: by the contract of `run`; a row of the pair.
                    unsafe { add::<S, G>(simd, a, words, start + offset, sums) };
                }
            }
            for k in whole..k {
                // SAFETY: as above.
                unsafe { add::<S, G>(simd, a, words, k, &mut sums[0]) };
            }
            let unit = pair * 2 * lanes;
            let first = Either::<S>::new(simd, units - unit);
            let second = Either::<S>::new(simd, units.saturating_sub(unit + lanes));
            for gate in 0..G {
                let mut total = sums[0][gate];
                for sums in &sums[1..] {
                    for (total, &sum) in total.iter_mut().zip(&sums[gate]) {
                        *total = simd.add_f32s(*total, sum);
                    }
                }
                // SAFETY: by the contract of `run`; lanes past the units are not touched.
                unsafe {
                    let out = out.add(gate * units + unit);
                    let behind = out.wrapping_add(lanes);
                    let low = simd.add_f32s(first.load(simd, out), total[0]);
                    let high = simd.add_f32s(second.load(simd, behind), total[1]);
                    first.store(simd, out, low);
                    second.store(simd, behind, high);
                }
            }
        }
    }
}

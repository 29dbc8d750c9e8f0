//! The innermost loops of a product: register tiles.

use pulp::{Simd, WithSimd};

use crate::fused::cpu::simd::{Isa, fma, load, store};
use crate::fused::cpu::view::View;

/// Maximum number of rows of a register tile.
const MAX_TILE_ROWS: usize = 8;

/// Number of rows of a register tile that is `vectors` wide: as many as fit if the accumulators of the
/// tile, a row of weights and one broadcast value are kept in registers.
pub fn tile_rows(isa: Isa, vectors: usize) -> usize {
    ((isa.registers() - 1) / vectors - 1).clamp(1, MAX_TILE_ROWS)
}

/// Size of a block of k: a block of a panel of four vectors of 16 lanes is then 32 KiB, and stays in the
/// first-level cache while it is multiplied with all rows (measured: 128 gives 125 to 130 GFLOP/s on a
/// core where 256 gives 85 to 95).
pub const K_BLOCK: usize = 128;

/// Register tiles over one block of k: `sum[r, v] = from[r, v] + Σ_k a[r, k]·w[k, v]`.
#[derive(Clone, Copy)]
pub struct Micro {
    /// Number of tiles, stacked along the rows, all of the same height.
    pub tiles: usize,
    pub k: usize,
    pub a: View,
    /// As in [`Term`].
    pub order: *const usize,
    /// As in [`Term`].
    pub far: bool,
    /// The first row.
    pub row: usize,
    /// Contiguous columns of a, and the jump from the end of these to the next piece.
    pub piece: usize,
    pub jump: usize,
    pub w: *const f32,
    /// Initial value of the sum, null: 0; and its row stride.
    pub from: *const f32,
    pub from_row: usize,
    pub sum: *mut f32,
    /// Weights that are read next; they are prefetched at one line per step of k. Null: no prefetch.
    pub ahead: *const f32,
}

/// f32 values per cache line.
const LINE: usize = 16;

/// Cache lines of a row within a block.
const ROW_LINES: usize = K_BLOCK / LINE;

/// Prefetches some values into the first-level cache.
#[inline(always)]
pub fn fetch(values: *const f32, count: usize) {
    for line in (0..count).step_by(LINE) {
        let ptr = values.wrapping_add(line);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch of any address only fills caches.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(ptr.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = ptr;
    }
}

/// Prefetches the cache line at `ptr`, which need not be readable.
#[inline(always)]
pub fn prefetch(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address only fills caches.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

impl Micro {
    /// # Safety
    /// `a` is readable at the `tiles·rows` rows, `w` as `[k, vectors·lanes]`, `from` as the sum, and `sum`
    /// is the caller's own `[tiles·rows, vectors·lanes]`.
    pub unsafe fn run(self, isa: Isa, vectors: usize, rows: usize) {
        macro_rules! sized {
            ($($V:literal)*) => {
                match vectors {
                    $($V => match (rows, self.far) {
                        (1, _) => isa.run(Sized::<$V, 1, false>(self)),
                        (2, false) => isa.run(Sized::<$V, 2, false>(self)),
                        (3, false) => isa.run(Sized::<$V, 3, false>(self)),
                        (4, false) => isa.run(Sized::<$V, 4, false>(self)),
                        (5, false) => isa.run(Sized::<$V, 5, false>(self)),
                        (6, false) => isa.run(Sized::<$V, 6, false>(self)),
                        (7, false) => isa.run(Sized::<$V, 7, false>(self)),
                        (8, false) => isa.run(Sized::<$V, 8, false>(self)),
                        (2, true) => isa.run(Sized::<$V, 2, true>(self)),
                        (3, true) => isa.run(Sized::<$V, 3, true>(self)),
                        (4, true) => isa.run(Sized::<$V, 4, true>(self)),
                        (5, true) => isa.run(Sized::<$V, 5, true>(self)),
                        (6, true) => isa.run(Sized::<$V, 6, true>(self)),
                        (7, true) => isa.run(Sized::<$V, 7, true>(self)),
                        (8, true) => isa.run(Sized::<$V, 8, true>(self)),
                        _ => unreachable!("a tile of {rows} rows"),
                    },)*
                    _ => unreachable!("a panel of {vectors} vectors"),
                }
            };
        }
        sized!(1 2 3 4)
    }
}

/// [`Micro`] with a size known at compile time, so that the sums stay in registers.
struct Sized<const V: usize, const R: usize, const FAR: bool>(Micro);

impl<const V: usize, const R: usize, const FAR: bool> WithSimd for Sized<V, R, FAR> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Micro {
            tiles,
            k,
            a,
            order,
            far: _,
            row,
            piece,
            jump,
            w,
            from,
            from_row,
            sum,
            mut ahead,
        } = self.0;
        let lanes = S::F32_LANES;
        for tile in 0..tiles {
            let mut acc = [[simd.splat_f32s(0.0); V]; R];
            // Prefetches one block ahead and no further.
            let next = if tile * LINE < V * lanes { LINE } else { 0 };
            // SAFETY: by the contract of `Micro::run`.
            unsafe {
                let sum = sum.add(tile * R * V * lanes);
                if !from.is_null() {
                    for (r, row) in acc.iter_mut().enumerate() {
                        let from = from.add((tile * R + r) * from_row);
                        for (v, value) in row.iter_mut().enumerate() {
                            *value = load::<S>(from.add(v * lanes));
                        }
                    }
                }
                let first = row + tile * R;
                let rows: [*const f32; R] = core::array::from_fn(|r| {
                    let row = match order.is_null() {
                        true => first + r,
                        false => *order.add(first + r),
                    };
                    a.from_row(row).ptr
                });
                let mut column = 0;
                let mut w = w;
                let mut left = k;
                while left > 0 {
                    let together = left.min(piece);
                    for index in 0..together {
                        prefetch(ahead);
                        ahead = ahead.wrapping_add(next);
                        if FAR {
                            // Prefetches the next tile: one line of one row per step, as many lines as a
                            // tile has.
                            let (row, line) = (index / ROW_LINES, index % ROW_LINES);
                            let rows = rows[R - 1].wrapping_add((row + 1) * a.row);
                            fetch(rows.wrapping_add(line * LINE), 1);
                        }
                        let mut b = [simd.splat_f32s(0.0); V];
                        for (v, value) in b.iter_mut().enumerate() {
                            *value = load::<S>(w.add(v * lanes));
                        }
                        for (r, row) in acc.iter_mut().enumerate() {
                            let x = simd.splat_f32s(*rows[r].add(column));
                            for (value, &b) in row.iter_mut().zip(&b) {
                                *value = fma(simd, x, b, *value);
                            }
                        }
                        column += a.column;
                        w = w.wrapping_add(V * lanes);
                    }
                    column += jump;
                    left -= together;
                }
                for (r, row) in acc.iter().enumerate() {
                    for (v, &value) in row.iter().enumerate() {
                        store::<S>(sum.add((r * V + v) * lanes), value);
                    }
                }
            }
        }
    }
}

/// A row times a panel: `sum[v] = from[v] + Σ_k a[k]·w[k, v]`. No value is read twice, so there is no
/// blocking of k. The order of summation is that of [`Micro`]: whether a row is processed alone may
/// depend on the number of threads, and the result must not.
#[derive(Clone, Copy)]
pub struct OneRow {
    pub k: usize,
    /// Only the first row is used.
    pub a: View,
    /// As in [`Micro`].
    pub piece: usize,
    pub jump: usize,
    pub w: *const f32,
    /// Initial value of the sum; null: 0.
    pub from: *const f32,
    pub sum: *mut f32,
}

impl OneRow {
    /// # Safety
    /// `a` is readable as `[1, k]`, `w` as `[k, vectors·lanes]`, `from` as the sum, and `sum` is the
    /// caller's own `[vectors·lanes]`.
    pub unsafe fn run(self, isa: Isa, vectors: usize) {
        match vectors {
            1 => isa.run(SizedRow::<1>(self)),
            2 => isa.run(SizedRow::<2>(self)),
            3 => isa.run(SizedRow::<3>(self)),
            4 => isa.run(SizedRow::<4>(self)),
            _ => unreachable!("a panel of {vectors} vectors"),
        }
    }
}

/// [`OneRow`] for V vectors.
struct SizedRow<const V: usize>(OneRow);

impl<const V: usize> WithSimd for SizedRow<V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let OneRow {
            k,
            a,
            piece,
            jump,
            w,
            from,
            sum,
        } = self.0;
        let lanes = S::F32_LANES;
        let mut acc = [simd.splat_f32s(0.0); V];
        // SAFETY: by the contract of `OneRow::run`.
        unsafe {
            if !from.is_null() {
                for (v, value) in acc.iter_mut().enumerate() {
                    *value = load::<S>(from.add(v * lanes));
                }
            }
            let (mut values, mut w) = (a.ptr, w);
            let mut left = k;
            while left > 0 {
                let together = left.min(piece);
                for index in 0..together {
                    let x = simd.splat_f32s(*values.add(index * a.column));
                    let w = w.add(index * V * lanes);
                    for (v, value) in acc.iter_mut().enumerate() {
                        *value = fma(simd, x, load::<S>(w.add(v * lanes)), *value);
                    }
                }
                values = values.wrapping_add(together * a.column + jump);
                w = w.wrapping_add(together * V * lanes);
                left -= together;
            }
            for (v, &value) in acc.iter().enumerate() {
                store::<S>(sum.add(v * lanes), value);
            }
        }
    }
}

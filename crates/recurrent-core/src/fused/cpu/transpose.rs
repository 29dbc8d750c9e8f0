//! Transposes matrices.

use pulp::{Simd, WithSimd};

use super::simd::Isa;
#[cfg(target_arch = "x86_64")]
use super::simd::is_avx512;
use super::view::View;

/// Number of rows and columns of a [`Block`]: a cache line of f32.
pub const BLOCK: usize = 16;

/// A block of rows of a matrix, accessed by column.
///
/// The rows are copied first, one line at a time: rows with a stride of some KiB map to few sets of the
/// first-level cache, and evict each other before their last value is read.
#[repr(align(64))]
pub struct Block([[f32; BLOCK]; BLOCK]);

impl Block {
    /// The first `columns` values of `rows` rows with the given stride, at most [`BLOCK`] of each; zero
    /// beyond.
    ///
    /// # Safety
    /// They are readable.
    #[inline(always)]
    pub unsafe fn read<S: Simd>(
        simd: S,
        source: *const f32,
        stride: usize,
        rows: usize,
        columns: usize,
    ) -> Self {
        debug_assert!(rows <= BLOCK && columns <= BLOCK);
        let mut lines = Self([[0.0; BLOCK]; BLOCK]);
        for (row, line) in lines.0.iter_mut().enumerate().take(rows) {
            // SAFETY: by the contract of this function.
            unsafe {
                let source = source.add(row * stride);
                if columns == BLOCK {
                    *line = source.cast::<[f32; BLOCK]>().read_unaligned();
                } else {
                    core::ptr::copy_nonoverlapping(source, line.as_mut_ptr(), columns);
                }
            }
        }
        lines.transposed(simd)
    }

    #[inline(always)]
    fn transposed<S: Simd>(&self, simd: S) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = is_avx512(simd) {
            return self.transposed_avx512(simd);
        }
        Self(core::array::from_fn(|column| {
            core::array::from_fn(|row| self.0[row][column])
        }))
    }

    /// Interleaves pairs of rows, then groups of four, then quarters of vectors: 64 operations for 256
    /// values.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn transposed_avx512(&self, simd: pulp::x86::V4) -> Self {
        use core::arch::x86_64::__m512;
        let f = simd.avx512f;
        let rows: [__m512; BLOCK] = self.0.map(pulp::cast);
        // (a0 b0 a1 b1 | a4 b4 a5 b5 | …), (a2 b2 a3 b3 | …) of rows a, b.
        let pairs: [__m512; BLOCK] = core::array::from_fn(|i| {
            let (a, b) = (rows[i & !1], rows[i | 1]);
            match i % 2 {
                0 => f._mm512_unpacklo_ps(a, b),
                _ => f._mm512_unpackhi_ps(a, b),
            }
        });
        // For four rows: columns j, j + 4, j + 8 and j + 12 in one vector, j = i mod 4.
        let fours: [__m512; BLOCK] = core::array::from_fn(|i| {
            let first = i / 4 * 4 + i % 4 / 2;
            let a = f._mm512_castps_pd(pairs[first]);
            let b = f._mm512_castps_pd(pairs[first + 2]);
            f._mm512_castpd_ps(match i % 2 {
                0 => f._mm512_unpacklo_pd(a, b),
                _ => f._mm512_unpackhi_pd(a, b),
            })
        });
        // The even quarters of two vectors, and the odd ones.
        let even = |a, b| f._mm512_shuffle_f32x4::<0x88>(a, b);
        let odd = |a, b| f._mm512_shuffle_f32x4::<0xdd>(a, b);
        Self(core::array::from_fn(|column| {
            let (j, quarter) = (column % 4, column / 4);
            let half = |a, b| match quarter % 2 {
                0 => even(a, b),
                _ => odd(a, b),
            };
            let (a, b) = (
                half(fours[j], fours[j + 4]),
                half(fours[j + 8], fours[j + 12]),
            );
            pulp::cast(match quarter / 2 {
                0 => even(a, b),
                _ => odd(a, b),
            })
        }))
    }

    /// A column of the matrix.
    #[inline(always)]
    pub fn column(&self, column: usize) -> &[f32; BLOCK] {
        &self.0[column]
    }
}

/// `target[c, r] = source[r, c]`
#[derive(Debug, Clone, Copy)]
pub struct Transpose {
    /// `[rows, columns]`; each row is contiguous.
    pub source: View,
    /// Rows of the source.
    pub rows: usize,
    /// Columns of the source.
    pub columns: usize,
    /// The first row of the target.
    pub target: *mut f32,
    /// Row stride of the target.
    pub stride: usize,
}

impl Transpose {
    /// # Safety
    /// The source is readable, the rows of the target are the caller's own.
    pub unsafe fn run(self, isa: Isa) {
        debug_assert_eq!(self.source.column, 1);
        isa.run(self);
    }
}

impl WithSimd for Transpose {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            source,
            rows,
            columns,
            target,
            stride,
        } = self;
        for row in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - row);
            for column in (0..columns).step_by(BLOCK) {
                let width = BLOCK.min(columns - column);
                // SAFETY: inside both matrices, by the contract of `run`.
                unsafe {
                    let from = source.from_row(row).from_column(column).ptr;
                    let block = Block::read(simd, from, source.row, count, width);
                    for c in 0..width {
                        let target = target.add((column + c) * stride + row);
                        let values = block.column(c);
                        if count == BLOCK {
                            target.cast::<[f32; BLOCK]>().write_unaligned(*values);
                        } else {
                            core::ptr::copy_nonoverlapping(values.as_ptr(), target, count);
                        }
                    }
                }
            }
        }
    }
}

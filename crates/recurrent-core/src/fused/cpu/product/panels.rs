//! Weights in panels: `[panel][k][vector][lane]`.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::columns::Columns;
use crate::fused::cpu::buffer::Buffer;
use crate::fused::cpu::simd::{First, Isa, Lanes, load, store};
use crate::fused::cpu::transpose::{BLOCK, Block};
use crate::fused::cpu::view::View;

/// Packed weights.
#[derive(Debug)]
pub struct Panels {
    values: Buffer,
    /// Number of values per panel.
    panel: usize,
}

/// A view of packed panels.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    /// The first panel: `[k][vector][lane]`.
    pub ptr: *const f32,
    /// Panel stride.
    pub panel: usize,
}

impl Panels {
    /// Allocates panels for weights of `k` rows.
    pub fn new(k: usize, columns: &Columns) -> Self {
        let panel = k * columns.width();
        Self {
            values: Buffer::new(columns.panels() * panel),
            panel,
        }
    }

    /// The weights in the form that a product takes.
    pub fn weights(&self) -> Weights {
        Weights::Packed(Packed {
            ptr: self.values.as_ptr(),
            panel: self.panel,
        })
    }

    /// The values, so that several threads can [`pack`](Self::pack) them.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.values.as_mut_ptr()
    }

    /// Packs the given panels of `weights` to the pointer of [`as_mut_ptr`](Self::as_mut_ptr).
    ///
    /// # Safety
    /// `weights` has `k` rows and the columns of `columns`; `values` points to panels made for them,
    /// of which no other thread touches the given ones.
    pub unsafe fn pack(
        isa: Isa,
        values: *mut f32,
        k: usize,
        weights: View,
        columns: &Columns,
        panels: Range<usize>,
    ) {
        // Processes a few rows at a time over their full length: hardware prefetchers track only a few
        // streams.
        for start in (0..k).step_by(PACK_ROWS) {
            let rows = start..(start + PACK_ROWS).min(k);
            for (panel, vector) in columns.along_row(panels.clone()) {
                // SAFETY: by the contract of this function.
                unsafe {
                    let target = values.add((panel * k + start) * columns.width());
                    pack_vector(isa, target, weights, columns, panel, vector, rows.clone());
                }
            }
        }
    }
}

impl Panels {
    /// [`pack`](Self::pack) with the rows of `weights`, one per column of gates, permuted to the order of
    /// tiles: by panel, then vector, then lane. Rows for padding lanes are zero.
    ///
    /// # Safety
    /// As [`pack`](Self::pack), for panels made for [`Columns::padded`] rows.
    pub unsafe fn pack_by_tile(
        isa: Isa,
        values: *mut f32,
        gates: &Columns,
        weights: View,
        columns: &Columns,
        panels: Range<usize>,
    ) {
        let width = columns.width();
        // Columns of a transposed matrix are contiguous rows, which are read over their full length.
        for (panel, vector) in columns.along_row(panels) {
            for (tile, gate) in gates.along_row(0..gates.panels()) {
                let rows = gates.of(tile, gate);
                let first = (tile * gates.vectors + gate) * gates.lanes;
                // SAFETY: by the contract of this function.
                unsafe {
                    let target = values.add((panel * gates.padded() + first) * width);
                    for row in rows.len()..gates.lanes {
                        let lanes = target.add(row * width + vector * columns.lanes);
                        core::ptr::write_bytes(lanes, 0, columns.lanes);
                    }
                    pack_vector(isa, target, weights, columns, panel, vector, rows);
                }
            }
        }
    }
}

/// Rows that are packed together.
pub const PACK_ROWS: usize = 16;

/// The source of the weights of a product.
#[derive(Debug, Clone, Copy)]
pub enum Weights {
    /// Packed, for the columns of the product.
    Packed(Packed),
    /// A plain matrix `[k, n]`, packed during the product.
    Native(View),
}

/// Packs rows `rows` of one panel: `[k][vector][lane]`, zero in the padding.
///
/// # Safety
/// The rows and columns are readable, `target` has room for `rows.len()·width` values of its own.
pub unsafe fn pack_block(
    isa: Isa,
    target: *mut f32,
    weights: View,
    columns: &Columns,
    panel: usize,
    rows: Range<usize>,
) {
    for vector in 0..columns.vectors {
        // SAFETY: by the contract of this function.
        unsafe { pack_vector(isa, target, weights, columns, panel, vector, rows.clone()) };
    }
}

/// One vector of [`pack_block`].
///
/// # Safety
/// As there, for the lanes of this vector.
unsafe fn pack_vector(
    isa: Isa,
    target: *mut f32,
    weights: View,
    columns: &Columns,
    panel: usize,
    vector: usize,
    rows: Range<usize>,
) {
    debug_assert_eq!(columns.lanes, isa.lanes());
    let range = columns.of(panel, vector);
    // A vector has at most `lanes` columns.
    isa.run(PackVector {
        rows: rows.len(),
        count: range.len(),
        source: weights.from_column(range.start).from_row(rows.start),
        target: target.wrapping_add(vector * columns.lanes),
        stride: columns.width(),
    });
}

/// One vector of columns of a block.
struct PackVector {
    rows: usize,
    /// Columns in use.
    count: usize,
    source: View,
    target: *mut f32,
    stride: usize,
}

impl WithSimd for PackVector {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            rows,
            count,
            source,
            target,
            stride,
        } = self;
        // SAFETY: by the contract of `pack_block`.
        unsafe {
            debug_assert!(source.column == 1 || source.row == 1);
            if source.column == 1 && count == S::F32_LANES {
                for k in 0..rows {
                    let value = load::<S>(source.ptr.add(k * source.row));
                    store::<S>(target.add(k * stride), value);
                }
            } else if source.column == 1 {
                let lanes = First::<S>::new(simd, count);
                for k in 0..rows {
                    let value = lanes.load(simd, source.ptr.add(k * source.row));
                    store::<S>(target.add(k * stride), value);
                }
            } else {
                // A transposed matrix is contiguous along k.
                let mut start = 0;
                while start < rows {
                    let ks = BLOCK.min(rows - start);
                    let from = source.ptr.add(start * source.row);
                    let block = Block::read(simd, from, source.column, count, ks);
                    for k in 0..ks {
                        let lanes = load::<S>(block.column(k).as_ptr());
                        store::<S>(target.add((start + k) * stride), lanes);
                    }
                    start += ks;
                }
            }
        }
    }
}

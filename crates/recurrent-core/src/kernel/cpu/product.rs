//! Matrix products in panels: the one product kernel behind every step and every weight gradient.
//!
//! `out[m, n] = Σ_k a[m, k]·w[k, n]`. The columns of w are grouped into *panels* of a few vectors
//! each, stored as `[panel][k][vector][lane]`, so that a tile of some rows by one panel is summed up
//! in registers while the panel streams by once. For gates a panel holds the same units of every
//! gate: when its tile is done, the gates of those units are complete and can be applied at once.
//!
//! Weights that are used at every step are packed once ([`Panels::pack`]); those that are used once
//! are packed a block at a time on the way ([`Weights::Native`]).

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::simd::{Isa, fma, load, store};

/// Most rows of a register tile.
pub const MAX_TILE_ROWS: usize = 8;

/// Most vectors side by side in a panel.
pub const MAX_VECTORS: usize = 4;

/// Steps of k between two visits of the same tile: a block of a panel of four vectors of 16 lanes is
/// then 64 KiB, and stays in the second-level cache while all rows go by.
const K_BLOCK: usize = 256;

/// A matrix somewhere in memory.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The first value.
    pub ptr: *const f32,
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub column: usize,
}

// SAFETY: a view is an address; what is read through it is up to the unsafe functions that do so.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// Row-major values, `width` columns.
    pub fn rows(values: &[f32], width: usize) -> Self {
        Self {
            ptr: values.as_ptr(),
            row: width,
            column: 1,
        }
    }

    /// The same matrix with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            ptr: self.ptr,
            row: self.column,
            column: self.row,
        }
    }

    /// The matrix from row `row` on.
    pub fn from_row(self, row: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(row * self.row),
            ..self
        }
    }

    /// The matrix from column `column` on.
    pub fn from_column(self, column: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(column * self.column),
            ..self
        }
    }
}

/// How columns are grouped into panels.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// Vectors side by side in a panel.
    pub vectors: usize,
    /// Lanes of a vector.
    pub lanes: usize,
    /// Columns of one gate; all of them where there are no gates.
    per_gate: usize,
    /// Whether each vector of a panel belongs to another gate.
    gated: bool,
}

impl Columns {
    /// Vector v of panel p holds the units `p·lanes..` of gate v.
    pub fn gates(gates: usize, units: usize, lanes: usize) -> Self {
        Self {
            vectors: gates,
            lanes,
            per_gate: units,
            gated: true,
        }
    }

    /// Consecutive columns; panels as wide as possible, but enough of them for `shares`.
    pub fn plain(columns: usize, lanes: usize, shares: usize) -> Self {
        let vectors = columns.div_ceil(lanes).div_ceil(shares);
        Self {
            vectors: vectors.clamp(1, MAX_VECTORS),
            lanes,
            per_gate: columns,
            gated: false,
        }
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        let width = if self.gated { self.lanes } else { self.width() };
        self.per_gate.div_ceil(width)
    }

    /// Values in a row of a panel.
    pub fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// The columns in vector `vector` of panel `panel`; fewer than the lanes at the end.
    pub fn of(&self, panel: usize, vector: usize) -> Range<usize> {
        let (offset, first) = if self.gated {
            (vector * self.per_gate, panel * self.lanes)
        } else {
            (0, (panel * self.vectors + vector) * self.lanes)
        };
        let first = first.min(self.per_gate);
        let end = (first + self.lanes).min(self.per_gate);
        offset + first..offset + end
    }

    /// The panels of one of `shares` equal parts.
    pub fn share(&self, share: usize, shares: usize) -> Range<usize> {
        part(self.panels(), share, shares)
    }

    /// The columns (of each gate) in those panels.
    pub fn units(&self, panels: &Range<usize>) -> Range<usize> {
        let width = if self.gated { self.lanes } else { self.width() };
        (panels.start * width).min(self.per_gate)..(panels.end * width).min(self.per_gate)
    }
}

/// Part `share` of `count` things cut into `shares`.
pub fn part(count: usize, share: usize, shares: usize) -> Range<usize> {
    count * share / shares..count * (share + 1) / shares
}

/// Weights packed once.
#[derive(Debug)]
pub struct Panels {
    values: Vec<f32>,
    k: usize,
    width: usize,
}

impl Panels {
    /// Room for weights of `k` rows.
    pub fn new(k: usize, columns: &Columns) -> Self {
        let width = columns.width();
        Self {
            values: vec![0.0; columns.panels() * k * width],
            k,
            width,
        }
    }

    /// The values, for [`pack`](Self::pack) by several threads.
    pub fn as_mut_ptr(&mut self) -> *mut f32 {
        self.values.as_mut_ptr()
    }

    /// Packs the given panels of `weights` into what [`as_mut_ptr`](Self::as_mut_ptr) gave.
    ///
    /// # Safety
    /// `weights` has `k` rows and the columns of `columns`; `values` points to panels made for them,
    /// of which no other thread touches the given ones.
    pub unsafe fn pack(
        values: *mut f32,
        k: usize,
        weights: View,
        columns: &Columns,
        panels: Range<usize>,
    ) {
        for panel in panels {
            // SAFETY: by the contract of this function.
            unsafe {
                let target = values.add(panel * k * columns.width());
                pack_block(target, weights, columns, panel, 0..k);
            }
        }
    }
}

/// Where a product reads its weights.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// Packed once, for the columns that the product is given.
    Packed(&'a Panels),
    /// A plain matrix `[k, n]`, packed on the way.
    Native(View),
}

/// Rows `rows` of one panel: `[k][vector][lane]`, zero where there is no column.
///
/// # Safety
/// The rows and columns are readable, `target` has room for `rows.len()·width` values of its own.
unsafe fn pack_block(
    target: *mut f32,
    weights: View,
    columns: &Columns,
    panel: usize,
    rows: Range<usize>,
) {
    let width = columns.width();
    for vector in 0..columns.vectors {
        let range = columns.of(panel, vector);
        let source = weights.from_column(range.start).from_row(rows.start);
        // SAFETY: by the contract of this function, and since a vector has at most `lanes` columns.
        unsafe {
            let target = target.add(vector * columns.lanes);
            if weights.column == 1 {
                for k in 0..rows.len() {
                    let (source, target) = (source.ptr.add(k * source.row), target.add(k * width));
                    core::ptr::copy_nonoverlapping(source, target, range.len());
                    for lane in range.len()..columns.lanes {
                        *target.add(lane) = 0.0;
                    }
                }
            } else {
                // A transposed matrix: along k its values are neighbours.
                for lane in 0..columns.lanes {
                    let target = target.add(lane);
                    if lane >= range.len() {
                        for k in 0..rows.len() {
                            *target.add(k * width) = 0.0;
                        }
                        continue;
                    }
                    let source = source.ptr.add(lane * source.column);
                    for k in 0..rows.len() {
                        *target.add(k * width) = *source.add(k * weights.row);
                    }
                }
            }
        }
    }
}

/// Memory that one share of a product works in.
#[derive(Debug)]
pub struct Scratch {
    tile: Vec<f32>,
    block: Vec<f32>,
}

impl Scratch {
    /// For products of at most `rows` rows.
    pub fn new(rows: usize, lanes: usize) -> Self {
        Self {
            tile: vec![0.0; rows * MAX_VECTORS * lanes],
            block: vec![0.0; K_BLOCK * MAX_VECTORS * lanes],
        }
    }
}

/// A finished tile: some rows of one panel.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// `[rows][vector][lane]`
    pub values: *const f32,
    /// Distance between its rows.
    pub stride: usize,
}

/// One summand of a product: `a·w` with k columns of a.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a> {
    /// `[rows, k]`
    pub a: View,
    /// Columns of a, rows of w.
    pub k: usize,
    /// `[k, n]`
    pub weights: Weights<'a>,
}

/// Sums up the given panels of `Σ a·w` and hands each, with all its rows, to `finish`.
///
/// # Arguments
/// * `terms` - the products that are added up; at least one
/// * `finish` - called with a panel and its tile, in order of the panels
///
/// # Safety
/// For each term, `a` is readable as `[rows, k]`, the weights as `[k, n]` with the columns of
/// `columns`. `scratch` was made for as many rows.
pub unsafe fn product(
    isa: Isa,
    scratch: &mut Scratch,
    rows: usize,
    terms: &[Term<'_>],
    columns: &Columns,
    panels: Range<usize>,
    mut finish: impl FnMut(usize, Tile),
) {
    let width = columns.width();
    let tallest = isa.tile_rows(columns.vectors);
    let tiles = rows.div_ceil(tallest);
    debug_assert!(scratch.tile.len() >= rows * width);
    for panel in panels {
        let mut fresh = true;
        for term in terms {
            let mut start = 0;
            while start < term.k {
                let block = start..(start + K_BLOCK).min(term.k);
                // SAFETY: the panel is inside the packed weights, which have k rows; a block that is
                // packed on the way has at most K_BLOCK rows.
                let w = unsafe {
                    match term.weights {
                        Weights::Packed(packed) => {
                            debug_assert_eq!((packed.k, packed.width), (term.k, width));
                            let offset = (panel * term.k + block.start) * width;
                            packed.values.as_ptr().add(offset)
                        }
                        Weights::Native(weights) => {
                            let target = scratch.block.as_mut_ptr();
                            pack_block(target, weights, columns, panel, block.clone());
                            target.cast_const()
                        }
                    }
                };
                // As equal tiles as possible: a last tile of one row would cost nearly as much as a
                // full one.
                for index in 0..tiles {
                    let range = part(rows, index, tiles);
                    let micro = Micro {
                        k: block.len(),
                        a: term.a.from_row(range.start).from_column(block.start),
                        w,
                        // SAFETY: the tile has room for all rows.
                        sum: unsafe { scratch.tile.as_mut_ptr().add(range.start * width) },
                        fresh,
                    };
                    // SAFETY: the rows are inside a and the tile, the block inside k.
                    unsafe { micro.run(isa, columns.vectors, range.len()) };
                }
                fresh = false;
                start = block.end;
            }
        }
        let tile = Tile {
            values: scratch.tile.as_ptr(),
            stride: width,
        };
        finish(panel, tile);
    }
}

/// Writes a tile to a row-major matrix.
///
/// # Arguments
/// * `add` - whether to add to what is there
///
/// # Safety
/// The columns of the panel in the rows of `out` are the caller's own, and initialised if `add`.
pub unsafe fn write_tile(
    tile: Tile,
    columns: &Columns,
    panel: usize,
    rows: usize,
    out: *mut f32,
    stride: usize,
    add: bool,
) {
    for row in 0..rows {
        for vector in 0..columns.vectors {
            let range = columns.of(panel, vector);
            // SAFETY: by the contract of this function; a tile has `vectors·lanes` values per row.
            let (source, target) = unsafe {
                (
                    core::slice::from_raw_parts(
                        tile.values.add(row * tile.stride + vector * columns.lanes),
                        range.len(),
                    ),
                    core::slice::from_raw_parts_mut(
                        out.add(row * stride + range.start),
                        range.len(),
                    ),
                )
            };
            if add {
                for (target, source) in target.iter_mut().zip(source) {
                    *target += source;
                }
            } else {
                target.copy_from_slice(source);
            }
        }
    }
}

/// One register tile over one block of k: `sum[r, v] (+)= Σ_k a[r, k]·w[k, v]`.
#[derive(Clone, Copy)]
struct Micro {
    k: usize,
    a: View,
    w: *const f32,
    sum: *mut f32,
    /// Whether the sum begins here.
    fresh: bool,
}

impl Micro {
    /// # Safety
    /// `a` is readable as `[rows, k]`, `w` as `[k, vectors·lanes]`, and `sum` is the caller's own
    /// `[rows, vectors·lanes]`.
    unsafe fn run(self, isa: Isa, vectors: usize, rows: usize) {
        macro_rules! sized {
            ($($V:literal)*) => {
                match vectors {
                    $($V => match rows {
                        1 => isa.run(Sized::<$V, 1>(self)),
                        2 => isa.run(Sized::<$V, 2>(self)),
                        3 => isa.run(Sized::<$V, 3>(self)),
                        4 => isa.run(Sized::<$V, 4>(self)),
                        5 => isa.run(Sized::<$V, 5>(self)),
                        6 => isa.run(Sized::<$V, 6>(self)),
                        7 => isa.run(Sized::<$V, 7>(self)),
                        8 => isa.run(Sized::<$V, 8>(self)),
                        _ => unreachable!("a tile of {rows} rows"),
                    },)*
                    _ => unreachable!("a panel of {vectors} vectors"),
                }
            };
        }
        sized!(1 2 3 4)
    }
}

/// [`Micro`] with its size known to the compiler, so that the sums stay in registers.
struct Sized<const V: usize, const R: usize>(Micro);

impl<const V: usize, const R: usize> WithSimd for Sized<V, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Micro {
            k,
            a,
            w,
            sum,
            fresh,
        } = self.0;
        let lanes = S::F32_LANES;
        let mut acc = [[simd.splat_f32s(0.0); V]; R];
        // SAFETY: by the contract of `Micro::run`.
        unsafe {
            if !fresh {
                for (r, row) in acc.iter_mut().enumerate() {
                    for (v, value) in row.iter_mut().enumerate() {
                        *value = load::<S>(sum.add((r * V + v) * lanes));
                    }
                }
            }
            let (mut a, step, stride, mut w) = (a.ptr, a.column, a.row, w);
            for _ in 0..k {
                let mut b = [simd.splat_f32s(0.0); V];
                for (v, value) in b.iter_mut().enumerate() {
                    *value = load::<S>(w.add(v * lanes));
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let x = simd.splat_f32s(*a.add(r * stride));
                    for (value, &b) in row.iter_mut().zip(&b) {
                        *value = fma(simd, x, b, *value);
                    }
                }
                a = a.wrapping_add(step);
                w = w.wrapping_add(V * lanes);
            }
            for (r, row) in acc.iter().enumerate() {
                for (v, &value) in row.iter().enumerate() {
                    store::<S>(sum.add((r * V + v) * lanes), value);
                }
            }
        }
    }
}

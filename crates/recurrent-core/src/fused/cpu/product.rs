//! Matrix products in panels: the one product kernel behind every step and every weight gradient.
//!
//! `out[m, n] = Σ_k a[m, k]·w[k, n]`. The columns of w are grouped into *panels* of a few vectors
//! each, stored as `[panel][k][vector][lane]`, so that a tile of some rows by one panel is summed up
//! in registers while the panel streams by once. For gates a panel holds the same units of every
//! gate: when its tile is done, the gates of those units are complete and can be applied at once.
//!
//! Weights that are used at every step are packed once ([`Panels::pack`]); those that are used once
//! are packed a block at a time on the way ([`Weights::Native`]).

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::buffer::Buffer;
use super::simd::{Either, First, Isa, Lanes, fma, load, store};
use super::transpose::{BLOCK, Block};
use super::view::View;

/// Most rows of a register tile.
pub const MAX_TILE_ROWS: usize = 8;

/// Rows of a register tile that is `vectors` wide: as many as the accumulators of the tile, a row of
/// weights and one broadcast value fit into the registers.
fn tile_rows(isa: Isa, vectors: usize) -> usize {
    ((isa.registers() - 1) / vectors - 1).clamp(1, MAX_TILE_ROWS)
}

/// Most vectors side by side in a panel.
pub const MAX_VECTORS: usize = 4;

/// Steps of k between two visits of the same tile: a block of a panel of four vectors of 16 lanes is
/// then 32 KiB, and stays in the nearest cache while all rows go by (measured: 128 gives 125 to 130
/// GFLOP/s on a core where 256 gives 85 to 95).
const K_BLOCK: usize = 128;

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

    /// Columns with those that fill up the last panel.
    pub fn padded(&self) -> usize {
        self.panels() * self.width()
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

    /// The vectors of some panels, as (panel, vector), in the order in which a row has them.
    pub fn along_row(&self, panels: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let (start, count, vectors, gated) = (panels.start, panels.len(), self.vectors, self.gated);
        (0..count * vectors).map(move |index| match gated {
            true => (start + index % count, index / count),
            false => (start + index / vectors, index % vectors),
        })
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

/// A range forwards at even steps and backwards at odd ones: what a step has read last is still in the
/// cache, and is what the next one reads first.
pub fn to_and_fro(range: Range<usize>, step: usize) -> impl Iterator<Item = usize> {
    let (start, end) = (range.start, range.end);
    range.map(move |index| match step % 2 {
        0 => index,
        _ => start + end - 1 - index,
    })
}

/// Part `share` of `count` things cut into `shares`.
pub fn part(count: usize, share: usize, shares: usize) -> Range<usize> {
    count * share / shares..count * (share + 1) / shares
}

/// Weights packed once.
#[derive(Debug)]
pub struct Panels {
    values: Buffer,
    /// Values of a panel.
    panel: usize,
}

/// Panels somewhere in memory.
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    /// The first panel: `[k][vector][lane]`.
    pub ptr: *const f32,
    /// Distance between panels.
    pub panel: usize,
}

impl Panels {
    /// Room for weights of `k` rows.
    pub fn new(k: usize, columns: &Columns) -> Self {
        let panel = k * columns.width();
        Self {
            values: Buffer::new(columns.panels() * panel),
            panel,
        }
    }

    /// What a product reads.
    pub fn weights(&self) -> Weights {
        Weights::Packed(Packed {
            ptr: self.values.as_ptr(),
            panel: self.panel,
        })
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
        isa: Isa,
        values: *mut f32,
        k: usize,
        weights: View,
        columns: &Columns,
        panels: Range<usize>,
    ) {
        // A few rows, along all of them: more rows at a time are more than a processor fetches ahead.
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
    /// [`pack`](Self::pack) with the rows of `weights`, one per column of gates, in the order in which
    /// the tiles of those gates have them: by panel, then vector, then lane. Rows for lanes that do
    /// not exist are zero.
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
        // Some columns of a transposed matrix are rows, which are read along all of them.
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

/// Rows that are packed at a time.
pub const PACK_ROWS: usize = 16;

/// Where a product reads its weights.
#[derive(Debug, Clone, Copy)]
pub enum Weights {
    /// Packed, for the columns that the product is given.
    Packed(Packed),
    /// A plain matrix `[k, n]`, packed on the way.
    Native(View),
}

/// Rows `rows` of one panel: `[k][vector][lane]`, zero where there is no column.
///
/// # Safety
/// The rows and columns are readable, `target` has room for `rows.len()·width` values of its own.
unsafe fn pack_block(
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
    /// Columns that exist.
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
                // A transposed matrix: along k its values are neighbours.
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

/// Memory that one share of a product works in.
#[derive(Debug)]
pub struct Scratch {
    tile: Buffer,
    block: Buffer,
}

impl Scratch {
    /// For products of at most `rows` rows.
    pub fn new(rows: usize, lanes: usize) -> Self {
        Self {
            tile: Buffer::new(rows * MAX_VECTORS * lanes),
            block: Buffer::new(K_BLOCK * MAX_VECTORS * lanes),
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
pub struct Term {
    /// `[rows, k]`
    pub a: View,
    /// Columns of a, rows of w.
    pub k: usize,
    /// How the columns of a lie; `None`: one after the other.
    pub pieces: Option<Pieces>,
    /// Which row of a each row is; null: they follow each other.
    pub order: *const usize,
    /// Whether a is too large to stay in a cache: its rows are then asked for ahead.
    pub far: bool,
    /// `[k, n]`
    pub weights: Weights,
}

impl Term {
    /// A product of plain matrices.
    pub fn new(a: View, k: usize, weights: Weights) -> Self {
        Self {
            a,
            k,
            pieces: None,
            order: core::ptr::null(),
            far: false,
            weights,
        }
    }
}

/// Columns of a matrix that lie in pieces: `len` of them together, then those from `distance` on.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    /// Columns of a piece.
    pub len: usize,
    /// From a piece to the next.
    pub distance: usize,
}

impl Pieces {
    /// Most columns that are visited at a time: whole pieces.
    fn block(pieces: Option<Self>) -> usize {
        pieces.map_or(K_BLOCK, |Self { len, .. }| K_BLOCK / len * len)
    }

    /// Where a column begins, at the start of a piece.
    fn column(pieces: Option<Self>, a: View, column: usize) -> View {
        match pieces {
            None => a.from_column(column),
            Some(Self { len, distance }) => a.from_column(column / len * distance),
        }
    }

    /// (columns of a piece, what leads from the end of one to the next)
    fn jump(pieces: Option<Self>, k: usize) -> (usize, usize) {
        pieces.map_or((k, 0), |Self { len, distance }| (len, distance - len))
    }
}

/// Where a product sums up, and from what.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// The tile of panel p is at `ptr + p·panel`.
    pub ptr: *mut f32,
    /// Distance between panels.
    pub panel: usize,
    /// What the sum begins with.
    pub begin: Begin,
}

/// What a sum begins with.
#[derive(Debug, Clone, Copy)]
pub enum Begin {
    /// 0
    Zero,
    /// A row, the same for all: `[panel][vector][lane]`.
    Row(*const f32),
    /// What is there.
    There,
}

/// Sums up the given panels of `Σ a·w` and hands each, with all its rows, to `finish`.
///
/// # Arguments
/// * `terms` - the products that are added up; at least one
/// * `panels` - which panels, in any order; see [`to_and_fro`]
/// * `finish` - called with a panel and its tile, in order of the panels
///
/// # Safety
/// For each term, `a` is readable as `[rows, k]`, in its order, the weights as `[k, n]` with the columns of
/// `columns`. `scratch` was made for as many rows.
pub unsafe fn product(
    isa: Isa,
    scratch: &mut Scratch,
    rows: usize,
    terms: &[Term],
    columns: &Columns,
    panels: impl IntoIterator<Item = usize>,
    finish: impl FnMut(usize, Tile),
) {
    debug_assert!(scratch.tile.len() >= rows * columns.width());
    let sums = Sums {
        ptr: scratch.tile.as_mut_ptr(),
        panel: 0,
        begin: Begin::Zero,
    };
    // SAFETY: by the contract of this function; one tile after the other, in the same place.
    unsafe { product_into(isa, scratch, rows, terms, columns, panels, sums, finish) };
}

/// [`product`] whose tiles stay where they are summed up.
///
/// # Safety
/// As [`product`]; the given panels of `sums` have room for the rows and are the caller's own, and
/// what they begin with is there.
#[allow(clippy::too_many_arguments)] // a product and where it goes
pub unsafe fn product_into(
    isa: Isa,
    scratch: &mut Scratch,
    rows: usize,
    terms: &[Term],
    columns: &Columns,
    panels: impl IntoIterator<Item = usize>,
    sums: Sums,
    mut finish: impl FnMut(usize, Tile),
) {
    let width = columns.width();
    let tallest = tile_rows(isa, columns.vectors);
    let tiles = rows.div_ceil(tallest);
    for panel in panels {
        let target = sums.ptr.wrapping_add(panel * sums.panel);
        // What the next term or block begins with, and the distance between its rows.
        let (mut from, mut from_row) = match sums.begin {
            Begin::Zero => (core::ptr::null(), 0),
            Begin::Row(row) => (row.wrapping_add(panel * width), 0),
            Begin::There => (target.cast_const(), width),
        };
        for term in terms {
            let (piece, jump) = Pieces::jump(term.pieces, term.k);
            if let (1, Weights::Packed(packed)) = (rows, term.weights) {
                let row = OneRow {
                    k: term.k,
                    // SAFETY: an order has an entry per row.
                    a: match unsafe { term.order.as_ref() } {
                        Some(&row) => term.a.from_row(row),
                        None => term.a,
                    },
                    piece,
                    jump,
                    w: packed.ptr.wrapping_add(panel * packed.panel),
                    from,
                    sum: target,
                };
                // SAFETY: the panel is inside the packed weights, the tile has room for a row.
                unsafe { row.run(isa, columns.vectors) };
                (from, from_row) = (target, width);
                continue;
            }
            let longest = Pieces::block(term.pieces);
            let mut start = 0;
            while start < term.k {
                let block = start..(start + longest).min(term.k);
                let mut ahead = core::ptr::null();
                // SAFETY: the panel is inside the packed weights, which have k rows; a block that is
                // packed on the way has at most K_BLOCK rows.
                let w = unsafe {
                    match term.weights {
                        Weights::Packed(packed) => {
                            let offset = panel * packed.panel + block.start * width;
                            let w = packed.ptr.add(offset);
                            // What follows in memory is what is read next.
                            ahead = w.wrapping_add(block.len() * width);
                            w
                        }
                        Weights::Native(weights) => {
                            let target = scratch.block.as_mut_ptr();
                            pack_block(isa, target, weights, columns, panel, block.clone());
                            target.cast_const()
                        }
                    }
                };
                // As equal tiles as possible: a last tile of one row would cost nearly as much as a
                // full one. The first `larger` tiles have a row more than the others.
                let (height, larger) = (rows / tiles, rows % tiles);
                let mut row = 0;
                for (count, height) in [(larger, height + 1), (tiles - larger, height)] {
                    if count == 0 {
                        continue;
                    }
                    let micro = Micro {
                        tiles: count,
                        k: block.len(),
                        a: Pieces::column(term.pieces, term.a, block.start),
                        order: term.order,
                        far: term.far,
                        row,
                        piece,
                        jump,
                        w,
                        from: from.wrapping_add(row * from_row),
                        from_row,
                        sum: target.wrapping_add(row * width),
                        ahead: if row == 0 { ahead } else { core::ptr::null() },
                    };
                    // SAFETY: the rows are inside a and the tile, the block inside k.
                    unsafe { micro.run(isa, columns.vectors, height) };
                    row += count * height;
                }
                (from, from_row) = (target, width);
                start = block.end;
            }
        }
        let tile = Tile {
            values: target,
            stride: width,
        };
        finish(panel, tile);
    }
}

/// What a tile is added to when it is written.
#[derive(Debug, Clone, Copy)]
pub enum Onto {
    /// Nothing.
    Fresh,
    /// What is there.
    Sum,
    /// A row, the same for all: `[n]`.
    Row(*const f32),
}

/// Writes a tile to a row-major matrix.
///
/// # Safety
/// The columns of the panel in the rows of `out` are the caller's own, initialised for
/// [`Onto::Sum`]; a row that is added is readable there.
#[allow(clippy::too_many_arguments)] // a tile and where it goes
pub unsafe fn write_tile(
    isa: Isa,
    tile: Tile,
    columns: &Columns,
    panel: usize,
    rows: usize,
    out: *mut f32,
    stride: usize,
    onto: Onto,
) {
    debug_assert_eq!(columns.lanes, isa.lanes());
    for vector in 0..columns.vectors {
        let range = columns.of(panel, vector);
        if range.is_empty() {
            continue;
        }
        let write = WriteVector {
            rows,
            count: range.len(),
            tile: Tile {
                values: tile.values.wrapping_add(vector * columns.lanes),
                stride: tile.stride,
            },
            out: out.wrapping_add(range.start),
            stride,
            onto: match onto {
                Onto::Row(row) => Onto::Row(row.wrapping_add(range.start)),
                other => other,
            },
        };
        isa.run(write);
    }
}

/// One vector of columns of a tile.
struct WriteVector {
    rows: usize,
    count: usize,
    tile: Tile,
    out: *mut f32,
    stride: usize,
    onto: Onto,
}

impl WithSimd for WriteVector {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = Either::<S>::new(simd, self.count);
        // SAFETY: by the contract of `write_tile`; a tile has whole vectors.
        unsafe {
            let row = match self.onto {
                Onto::Row(row) => lanes.load(simd, row),
                _ => simd.splat_f32s(0.0),
            };
            let sum = matches!(self.onto, Onto::Sum);
            for b in 0..self.rows {
                let target = self.out.add(b * self.stride);
                let value = load::<S>(self.tile.values.add(b * self.tile.stride));
                let before = if sum { lanes.load(simd, target) } else { row };
                lanes.store(simd, target, simd.add_f32s(before, value));
            }
        }
    }
}

/// Register tiles over one block of k: `sum[r, v] = from[r, v] + Σ_k a[r, k]·w[k, v]`.
#[derive(Clone, Copy)]
struct Micro {
    /// Tiles on top of each other, all of the same height.
    tiles: usize,
    k: usize,
    a: View,
    /// As in [`Term`].
    order: *const usize,
    /// As in [`Term`].
    far: bool,
    /// The first row.
    row: usize,
    /// Columns of a that lie together, and what leads from their end to the next.
    piece: usize,
    jump: usize,
    w: *const f32,
    /// What the sum begins with, null: 0; and the distance between its rows.
    from: *const f32,
    from_row: usize,
    sum: *mut f32,
    /// Weights that are read next, to be fetched a line per step of k; null: none.
    ahead: *const f32,
}

/// f32 values in a cache line.
const LINE: usize = 16;

/// Lines of a row in a block.
const ROW_LINES: usize = K_BLOCK / LINE;

/// Asks for some values, to be in the nearest cache.
#[inline(always)]
pub fn fetch(values: *const f32, count: usize) {
    for line in (0..count).step_by(LINE) {
        let ptr = values.wrapping_add(line);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch of any address does nothing but fill caches.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(ptr.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = ptr;
    }
}

/// Asks for the cache line at `ptr`, which need not be readable.
#[inline(always)]
pub fn prefetch(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address does nothing but fill caches.
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
    unsafe fn run(self, isa: Isa, vectors: usize, rows: usize) {
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

/// [`Micro`] with its size known to the compiler, so that the sums stay in registers.
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
            // One block ahead, no further.
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
                            // A line of a row of the next tile: as many as the tile has, in turn.
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

/// A row times a panel: `sum[v] = from[v] + Σ_k a[k]·w[k, v]`. Nothing is read twice, so there is nothing to
/// block. Adds up in the same order as [`Micro`]: whether a row is alone may depend on the number of
/// threads, and what it adds up to must not.
#[derive(Clone, Copy)]
struct OneRow {
    k: usize,
    /// Only its first row.
    a: View,
    /// As in [`Micro`].
    piece: usize,
    jump: usize,
    w: *const f32,
    /// What the sum begins with; null: 0.
    from: *const f32,
    sum: *mut f32,
}

impl OneRow {
    /// # Safety
    /// `a` is readable as `[1, k]`, `w` as `[k, vectors·lanes]`, `from` as the sum, and `sum` is the
    /// caller's own `[vectors·lanes]`.
    unsafe fn run(self, isa: Isa, vectors: usize) {
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

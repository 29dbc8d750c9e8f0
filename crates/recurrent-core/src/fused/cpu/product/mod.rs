//! Matrix products on packed panels: the one product kernel used for every step and every weight gradient.
//!
//! `out[m, n] = Σ_k a[m, k]·w[k, n]`. The columns of w are grouped into *panels* of a few vectors
//! each, stored as `[panel][k][vector][lane]`, so that a register tile of some rows by one panel is
//! accumulated while the panel is read once. For gates, a panel holds the same units of every
//! gate: when its tile is done, the gates of those units are complete and can be applied at once.
//!
//! Weights that are used at every step are packed once ([`Panels::pack`]). Weights that are used once
//! are packed block by block during the product ([`Weights::Native`]).

mod columns;
mod micro;
mod panels;

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::buffer::Buffer;
use super::simd::{Either, Isa, Lanes, load};
use super::view::{Rows, View};

pub use columns::{Columns, MAX_VECTORS, part, serpentine};
pub use micro::{fetch, prefetch};
pub use panels::{PACK_ROWS, Packed, Panels, Weights};

use micro::{K_BLOCK, Micro, OneRow, tile_rows};
use panels::pack_block;

/// Scratch memory for one share of a product.
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

/// A finished tile: the sums of some rows and one panel.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// `[rows][vector][lane]`
    pub values: *const f32,
    /// Row stride.
    pub stride: usize,
}

/// One term of a product: `a·w` with k columns of a.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// `[rows, k]`
    pub a: View,
    /// Number of columns of a and rows of w.
    pub k: usize,
    /// Layout of the columns of a; `None`: contiguous.
    pub pieces: Option<Pieces>,
    /// Gather order: for each row, its row of a; null: consecutive rows.
    pub order: *const usize,
    /// Whether a is too large for the caches; its rows are then prefetched.
    pub far: bool,
    /// `[k, n]`
    pub weights: Weights,
}

impl Term {
    /// A product of contiguous matrices.
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

/// Columns of a matrix in pieces: `len` contiguous columns, and a stride of `distance` to the next piece.
#[derive(Debug, Clone, Copy)]
pub struct Pieces {
    /// Columns per piece.
    pub len: usize,
    /// Stride between pieces.
    pub distance: usize,
}

impl Pieces {
    /// Maximum number of columns per block: a whole number of pieces.
    fn block(pieces: Option<Self>) -> usize {
        pieces.map_or(K_BLOCK, |Self { len, .. }| K_BLOCK / len * len)
    }

    /// The matrix starting at a column that is the first of a piece.
    fn column(pieces: Option<Self>, a: View, column: usize) -> View {
        match pieces {
            None => a.from_column(column),
            Some(Self { len, distance }) => a.from_column(column / len * distance),
        }
    }

    /// (columns of a piece, jump from the end of one piece to the next)
    fn jump(pieces: Option<Self>, k: usize) -> (usize, usize) {
        pieces.map_or((k, 0), |Self { len, distance }| (len, distance - len))
    }
}

/// Destination and initial value of a sum.
#[derive(Debug, Clone, Copy)]
pub struct Sums {
    /// The tile of panel p is at `ptr + p·panel`.
    pub ptr: *mut f32,
    /// Panel stride.
    pub panel: usize,
    /// Initial value of the sum.
    pub begin: Begin,
}

/// Initial value of a sum.
#[derive(Debug, Clone, Copy)]
pub enum Begin {
    /// 0
    Zero,
    /// A row, broadcast to all rows: `[panel][vector][lane]`.
    Row(*const f32),
    /// The contents of the destination.
    There,
}

/// A product `Σ a·w` of some rows, computed panel by panel.
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// The instruction set.
    pub isa: Isa,
    /// Number of rows of each a.
    pub rows: usize,
    /// The terms that are summed; at least one.
    pub terms: &'a [Term],
    /// How the columns of each w are grouped.
    pub columns: &'a Columns,
}

impl Product<'_> {
    /// Computes the given panels and passes each, with all its rows, to `finish`.
    ///
    /// # Arguments
    /// * `panels` - which panels, in any order; see [`serpentine`]
    /// * `finish` - called with a panel and its tile, in order of the panels
    ///
    /// # Safety
    /// For each term, `a` is readable as `[rows, k]`, in its gather order, the weights as `[k, n]` with
    /// the columns of `columns`. `scratch` was made for at least this many rows.
    pub unsafe fn each_tile(
        &self,
        scratch: &mut Scratch,
        panels: impl IntoIterator<Item = usize>,
        finish: impl FnMut(usize, Tile),
    ) {
        debug_assert!(scratch.tile.len() >= self.rows * self.columns.width());
        let sums = Sums {
            ptr: scratch.tile.as_mut_ptr(),
            panel: 0,
            begin: Begin::Zero,
        };
        // SAFETY: by the contract of this function; the tiles use the same memory one after the other.
        unsafe { self.sum_into(scratch, panels, sums, finish) };
    }

    /// [`each_tile`](Self::each_tile) that writes the tiles to a row-major matrix.
    ///
    /// # Safety
    /// As there; the columns of the panels in the rows of `out` are the caller's own, initialised for
    /// [`Onto::Sum`]; a row that is added is readable there.
    pub unsafe fn write(
        &self,
        scratch: &mut Scratch,
        panels: impl IntoIterator<Item = usize>,
        out: Rows,
        onto: Onto,
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            self.each_tile(scratch, panels, |panel, tile| {
                self.write_tile(panel, tile, out, onto);
            });
        }
    }

    /// [`each_tile`](Self::each_tile) that accumulates the tiles in their destination.
    ///
    /// # Safety
    /// As there; the given panels of `sums` have room for the rows and are the caller's own, and the
    /// memory that `begin` refers to is readable and initialised.
    pub unsafe fn sum_into(
        &self,
        scratch: &mut Scratch,
        panels: impl IntoIterator<Item = usize>,
        sums: Sums,
        mut finish: impl FnMut(usize, Tile),
    ) {
        let width = self.columns.width();
        for panel in panels {
            let target = sums.ptr.wrapping_add(panel * sums.panel);
            // Initial value for the next term or block, and its row stride.
            let mut from = match sums.begin {
                Begin::Zero => (core::ptr::null(), 0),
                Begin::Row(row) => (row.wrapping_add(panel * width), 0),
                Begin::There => (target.cast_const(), width),
            };
            for term in self.terms {
                // SAFETY: by the contract of this function.
                unsafe {
                    match (self.rows, term.weights) {
                        (1, Weights::Packed(packed)) => {
                            self.add_row(term, packed, panel, from, target);
                            from = (target, width);
                        }
                        _ => from = self.add_blocks(scratch, term, panel, from, target),
                    }
                }
            }
            let tile = Tile {
                values: target,
                stride: width,
            };
            finish(panel, tile);
        }
    }

    /// Adds a term of one row and packed weights to a tile.
    ///
    /// # Arguments
    /// * `from` - initial value of the sum, and its row stride
    ///
    /// # Safety
    /// As [`sum_into`](Self::sum_into), for this panel.
    unsafe fn add_row(
        &self,
        term: &Term,
        packed: Packed,
        panel: usize,
        from: (*const f32, usize),
        target: *mut f32,
    ) {
        let (piece, jump) = Pieces::jump(term.pieces, term.k);
        let row = OneRow {
            k: term.k,
            // SAFETY: a gather order has an entry per row.
            a: match unsafe { term.order.as_ref() } {
                Some(&row) => term.a.from_row(row),
                None => term.a,
            },
            piece,
            jump,
            w: packed.ptr.wrapping_add(panel * packed.panel),
            from: from.0,
            sum: target,
        };
        // SAFETY: the panel is inside the packed weights, the tile has room for a row.
        unsafe { row.run(self.isa, self.columns.vectors) };
    }

    /// Adds a term to a tile, one block of k at a time. Returns the initial value for the next term.
    ///
    /// # Arguments
    /// * `from` - initial value of the sum, and its row stride
    ///
    /// # Safety
    /// As [`sum_into`](Self::sum_into), for this panel.
    unsafe fn add_blocks(
        &self,
        scratch: &mut Scratch,
        term: &Term,
        panel: usize,
        mut from: (*const f32, usize),
        target: *mut f32,
    ) -> (*const f32, usize) {
        let width = self.columns.width();
        let longest = Pieces::block(term.pieces);
        let mut start = 0;
        while start < term.k {
            let block = start..(start + longest).min(term.k);
            let mut ahead = core::ptr::null();
            // SAFETY: the panel is inside the packed weights, which have k rows; a block that is
            // packed during the product has at most K_BLOCK rows.
            let w = unsafe {
                match term.weights {
                    Weights::Packed(packed) => {
                        let offset = panel * packed.panel + block.start * width;
                        let w = packed.ptr.add(offset);
                        // The block that follows in memory is read next.
                        ahead = w.wrapping_add(block.len() * width);
                        w
                    }
                    Weights::Native(weights) => {
                        let target = scratch.block.as_mut_ptr();
                        pack_block(
                            self.isa,
                            target,
                            weights,
                            self.columns,
                            panel,
                            block.clone(),
                        );
                        target.cast_const()
                    }
                }
            };
            let block = KBlock {
                rows: block,
                w,
                ahead,
            };
            // SAFETY: the block is inside k; the rest by the contract of this function.
            unsafe { self.add_block(term, block, from, target) };
            from = (target, width);
            start += longest;
        }
        from
    }

    /// Adds one block of k to all rows of a tile.
    ///
    /// # Safety
    /// As [`sum_into`](Self::sum_into); the block is inside k.
    unsafe fn add_block(
        &self,
        term: &Term,
        block: KBlock,
        (from, from_row): (*const f32, usize),
        target: *mut f32,
    ) {
        let (rows, width) = (self.rows, self.columns.width());
        let (piece, jump) = Pieces::jump(term.pieces, term.k);
        // Tiles of nearly equal height: a last tile of one row would cost nearly as much as a full one.
        // The first `larger` tiles have one more row than the others.
        let tiles = rows.div_ceil(tile_rows(self.isa, self.columns.vectors));
        let (height, larger) = (rows / tiles, rows % tiles);
        let mut row = 0;
        for (count, height) in [(larger, height + 1), (tiles - larger, height)] {
            if count == 0 {
                continue;
            }
            let micro = Micro {
                tiles: count,
                k: block.rows.len(),
                a: Pieces::column(term.pieces, term.a, block.rows.start),
                order: term.order,
                far: term.far,
                row,
                piece,
                jump,
                w: block.w,
                from: from.wrapping_add(row * from_row),
                from_row,
                sum: target.wrapping_add(row * width),
                ahead: if row == 0 {
                    block.ahead
                } else {
                    core::ptr::null()
                },
            };
            // SAFETY: the rows are inside a and the tile, the block inside k.
            unsafe { micro.run(self.isa, self.columns.vectors, height) };
            row += count * height;
        }
    }

    /// Writes a tile to a row-major matrix.
    ///
    /// # Safety
    /// As [`write`](Self::write), for this panel.
    pub unsafe fn write_tile(&self, panel: usize, tile: Tile, out: Rows, onto: Onto) {
        let columns = self.columns;
        debug_assert_eq!(columns.lanes, self.isa.lanes());
        for vector in 0..columns.vectors {
            let range = columns.of(panel, vector);
            if range.is_empty() {
                continue;
            }
            let write = WriteVector {
                rows: self.rows,
                count: range.len(),
                tile: Tile {
                    values: tile.values.wrapping_add(vector * columns.lanes),
                    stride: tile.stride,
                },
                out: out.ptr.wrapping_add(range.start),
                stride: out.stride,
                onto: match onto {
                    Onto::Row(row) => Onto::Row(row.wrapping_add(range.start)),
                    other => other,
                },
            };
            self.isa.run(write);
        }
    }
}

/// Some rows of the weights of a panel.
struct KBlock {
    /// The range of k.
    rows: Range<usize>,
    w: *const f32,
    /// Weights that are read next; null: unknown.
    ahead: *const f32,
}

/// What is added to a tile when it is written.
#[derive(Debug, Clone, Copy)]
pub enum Onto {
    /// Nothing.
    Fresh,
    /// The contents of the destination.
    Sum,
    /// A row, broadcast to all rows: `[n]`.
    Row(*const f32),
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
        // SAFETY: by the contract of `Product::write_tile`; a tile has whole vectors.
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

//! Memory layout of gate buffers.
//!
//! There are two layouts. *Row-major*, with all units of a gate before the next gate, is the layout of
//! matrices from outside, and of the result of a row times a matrix in row-major order. All other
//! buffers use *tiles*, `[panel][row][gate][lane]`: a product accumulates its tiles in place, a step
//! finds all gates of some units next to each other, and the panels of ∂z are the packed weights of the
//! products that give ∂W and ∂R. Rows of thousands of values would otherwise be written and read one
//! cache line at a time, each on a different page.

use alloc::vec::Vec;

use crate::fused::cpu::product::{Columns, Packed, Pieces};
use crate::fused::cpu::view::{GateRows, View};

/// Size and strides of a gate buffer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout {
    tiled: bool,
    /// Number of values of the buffer.
    pub size: usize,
    /// Row stride.
    pub row: usize,
    /// Gate stride.
    pub gate: usize,
    /// Panel stride.
    pub panel: usize,
}

impl Layout {
    /// Row-major layout.
    pub fn row_major(columns: &Columns, units: usize, rows: usize) -> Self {
        let width = columns.vectors * units;
        Self {
            tiled: false,
            size: rows * width,
            row: width,
            gate: units,
            panel: columns.lanes,
        }
    }

    /// Tiled layout.
    pub fn tiles(columns: &Columns, rows: usize) -> Self {
        let width = columns.width();
        // An odd number of rows: panels whose stride is a multiple of many pages would map to the same
        // cache sets.
        let panel = (rows | 1) * width;
        Self {
            tiled: true,
            size: columns.panels() * panel,
            row: width,
            gate: columns.lanes,
            panel,
        }
    }

    /// Whether the layout is tiled.
    pub fn is_tiled(&self) -> bool {
        self.tiled
    }

    /// The rows of a buffer, starting at `row`.
    pub fn rows(&self, buffer: *mut f32, row: usize) -> GateRows {
        GateRows {
            ptr: buffer.wrapping_add(row * self.row),
            row: self.row,
            gate: self.gate,
            panel: self.panel,
        }
    }

    /// The rows of a buffer, starting at `row`, as the left factor of a product.
    pub fn factor(&self, buffer: *mut f32, row: usize) -> (View, Option<Pieces>) {
        let view = View {
            ptr: buffer.wrapping_add(row * self.row),
            row: self.row,
            column: 1,
        };
        let pieces = Pieces {
            len: self.row,
            distance: self.panel,
        };
        (view, self.tiled.then_some(pieces))
    }

    /// All tiles of a buffer as the packed right factor of a product: rows of the buffer are rows of the
    /// factor.
    pub fn packed(&self, buffer: *const f32) -> Packed {
        debug_assert!(self.tiled);
        Packed {
            ptr: buffer,
            panel: self.panel,
        }
    }

    /// Clears the padding of the last panel: gates are written without it, but products read it.
    pub fn clear_padding(&self, columns: &Columns, buffer: &mut [f32]) {
        let last = columns.panels() - 1;
        if self.tiled && columns.of(last, 0).len() < columns.lanes {
            buffer[last * self.panel..].fill(0.0);
        }
    }
}

/// A row of gates in the order of tiles: `[panel][gate][lane]`, zero in the padding.
pub fn row_of_tiles(columns: &Columns, row: Option<&[f32]>) -> Vec<f32> {
    let mut tiles = alloc::vec![0.0; columns.padded()];
    let Some(row) = row else { return tiles };
    for panel in 0..columns.panels() {
        for vector in 0..columns.vectors {
            let from = columns.of(panel, vector);
            let start = (panel * columns.vectors + vector) * columns.lanes;
            tiles[start..start + from.len()].copy_from_slice(&row[from]);
        }
    }
    tiles
}

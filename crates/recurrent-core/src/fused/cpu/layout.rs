//! Where a buffer has the gates of its rows.
//!
//! Row by row, all of a gate before the next, is how a matrix from outside has them, and what a row
//! times a matrix in its own order gives. Everything else is in *tiles*, `[panel][row][gate][lane]`:
//! a product sums up its tiles where they stay, a step finds all gates of some units together, and the
//! panels of ∂z are the packed weights of the products that give ∂W and ∂R. Rows of thousands of values
//! are otherwise written and read a cache line at a time, each on another page.

use alloc::vec::Vec;

use crate::fused::cpu::pointwise::GateRows;
use crate::fused::cpu::product::{Columns, Packed, Pieces};
use crate::fused::cpu::view::View;

/// Where a buffer has the gates of its rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Layout {
    tiled: bool,
    /// Values of the buffer.
    pub size: usize,
    /// Distance between rows.
    pub row: usize,
    /// Distance between gates.
    pub gate: usize,
    /// Distance between panels.
    pub panel: usize,
    /// Columns of a row, those among them that fill up a panel.
    pub columns: usize,
}

impl Layout {
    /// Row by row.
    pub fn row_major(columns: &Columns, units: usize, rows: usize) -> Self {
        let width = columns.vectors * units;
        Self {
            tiled: false,
            size: rows * width,
            row: width,
            gate: units,
            panel: columns.lanes,
            columns: width,
        }
    }

    /// In tiles.
    pub fn tiles(columns: &Columns, rows: usize) -> Self {
        let width = columns.width();
        // An odd number of rows: panels at a distance of many pages would share their cache sets.
        let panel = (rows | 1) * width;
        Self {
            tiled: true,
            size: columns.panels() * panel,
            row: width,
            gate: columns.lanes,
            panel,
            columns: columns.padded(),
        }
    }

    /// Whether the gates are in tiles.
    pub fn is_tiled(&self) -> bool {
        self.tiled
    }

    /// The rows of a buffer from a row on.
    pub fn rows(&self, buffer: *mut f32, row: usize) -> GateRows {
        GateRows {
            ptr: buffer.wrapping_add(row * self.row),
            row: self.row,
            gate: self.gate,
            panel: self.panel,
        }
    }

    /// The rows of a buffer from a row on, as the left factor of a product.
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

    /// All tiles of a buffer as the packed right factor of a product: a row of it is a row there.
    pub fn packed(&self, buffer: *const f32) -> Packed {
        debug_assert!(self.tiled);
        Packed {
            ptr: buffer,
            panel: self.panel,
        }
    }

    /// Sets what fills up the last panel to zero: gates are written without it, products read it.
    pub fn clear_padding(&self, columns: &Columns, buffer: &mut [f32]) {
        let last = columns.panels() - 1;
        if self.tiled && columns.of(last, 0).len() < columns.lanes {
            buffer[last * self.panel..].fill(0.0);
        }
    }
}

/// A row of gates as the rows of tiles begin: `[panel][gate][lane]`, zero where there is no column.
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

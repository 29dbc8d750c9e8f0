//! Shared by the forwards of all families: the input's part of the pre-activations.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Crew, Matrix};
use crate::fused::cpu::product::{Begin, Onto, Product, Sums, Term};
use crate::fused::cpu::rows::RowTimes;
use crate::fused::cpu::view::{GateRows, Rows, View};

/// Number of input rows that are projected at a time, chosen so that their pre-activations stay in the
/// cache until their steps have run.
const CHUNK_ROWS: usize = 256;

/// Size in bytes of the recurrent weights above which they are not packed for a single sequence. Packing
/// costs as much as some steps, and for weights beyond the caches reading eight rows in parallel is as
/// fast as reading one panel (measured: packed takes 0.9 of the time at 16 MiB, 1.2 at 64 MiB).
const PACK_BELOW: usize = 24 << 20;

/// Minimum number of steps of a single sequence for which its recurrent weights are packed.
const PACK_FROM: usize = 8;

/// Minimum number of steps of a single sequence for which its recurrent weights are packed for the
/// backward. There, packing also transposes the weights, which costs more than in the forward.
pub const PACK_BACK_FROM: usize = 32;

/// Whether the weights of a single sequence are read in row-major order, without packing.
///
/// # Arguments
/// * `weights` - size of the recurrent weights in bytes
pub fn reads_rows(steps: usize, weights: usize) -> bool {
    steps < PACK_FROM || weights > PACK_BELOW
}

/// Splits the steps into pieces of at most [`CHUNK_ROWS`] rows, but at least one step.
pub fn chunks(counts: &[usize]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut start, mut rows) = (0, 0);
    for (step, &count) in counts.iter().enumerate() {
        if step > start && rows + count > CHUNK_ROWS {
            chunks.push(start..step);
            (start, rows) = (step, 0);
        }
        rows += count;
    }
    chunks.push(start..counts.len());
    chunks
}

/// The product of W and the input rows starting at a given row.
///
/// # Arguments
/// * `order` - gather order: for each row, its row of the input; `None`: consecutive rows
pub fn input_term(
    matrix: &Matrix,
    input: &[f32],
    d_input: usize,
    order: &Option<Arc<[usize]>>,
    row: usize,
) -> Term {
    let x = View::rows(input, d_input);
    match order {
        Some(order) => Term {
            order: order[row..].as_ptr(),
            ..matrix.term(x)
        },
        None => matrix.term(x.from_row(row)),
    }
}

/// `x·W + b` of some rows of the input, for all gates.
#[derive(Debug, Clone, Copy)]
pub struct Projection<'a> {
    /// W
    pub matrix: &'a Matrix,
    /// x
    pub term: Term,
    /// Rows of x.
    pub rows: usize,
    /// Destination.
    pub target: GateRows,
    /// Whether the destination is in tiles.
    pub tiled: bool,
    /// Whether a single row is multiplied with W in its row-major order.
    pub by_rows: bool,
    /// b; null: 0
    pub bias: *const f32,
    /// b in the order of tiles, if the destination is in tiles.
    pub bias_tiles: *const f32,
}

impl Projection<'_> {
    /// # Safety
    /// x and W have these sizes; this share's columns of the target are its own.
    pub unsafe fn run(&self, crew: &Crew<'_>, share: usize) {
        let columns = &self.matrix.columns;
        let panels = crew.panels(columns, share);
        if self.by_rows && self.rows == 1 {
            // SAFETY: by the contract of this function.
            unsafe { self.row(crew, panels) };
            return;
        }
        let terms = [self.term];
        let product = Product {
            isa: crew.isa,
            rows: self.rows,
            terms: &terms,
            columns,
        };
        // SAFETY: by the contract of this function; the scratch of this share.
        unsafe {
            let scratch = crew.scratch(share);
            if self.tiled {
                let begin = match self.bias_tiles.is_null() {
                    true => Begin::Zero,
                    false => Begin::Row(self.bias_tiles),
                };
                let sums = Sums {
                    ptr: self.target.ptr,
                    panel: self.target.panel,
                    begin,
                };
                product.sum_into(scratch, panels, sums, |_, _| ());
                return;
            }
            let onto = match self.bias.is_null() {
                true => Onto::Fresh,
                false => Onto::Row(self.bias),
            };
            let out = Rows {
                ptr: self.target.ptr,
                stride: self.target.row,
            };
            product.write(scratch, panels, out, onto);
        }
    }

    /// Multiplies one row with W in its row-major order.
    ///
    /// # Safety
    /// As [`run`](Self::run), for these panels.
    unsafe fn row(&self, crew: &Crew<'_>, panels: Range<usize>) {
        // SAFETY: a gather order has an entry per row.
        let row = unsafe { self.term.order.as_ref() }.copied().unwrap_or(0);
        let target = self.target.ptr;
        for columns in self.matrix.columns.ranges(panels) {
            let start = columns.start;
            let times = RowTimes {
                k: self.term.k,
                a: self.term.a.from_row(row).ptr,
                w: self.matrix.view,
                columns: columns.clone(),
                out: target,
                back: false,
            };
            // SAFETY: by the contract of this function.
            unsafe {
                match self.bias.is_null() {
                    true => core::ptr::write_bytes(target.add(start), 0, columns.len()),
                    false => {
                        let bias = self.bias.add(start);
                        core::ptr::copy_nonoverlapping(bias, target.add(start), columns.len());
                    }
                }
                times.run(crew.isa);
            }
        }
    }
}

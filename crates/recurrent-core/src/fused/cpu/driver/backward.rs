//! Shared by the backwards of all families: products with transposed weights, and the factors of sums
//! over rows.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Crew, Matrix};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::{Columns, Onto, Pieces, Product, Term, serpentine};
use crate::fused::cpu::rows::RowTimesTransposed;
use crate::fused::cpu::transpose::Transpose;
use crate::fused::cpu::view::{Rows, View};

/// Number of rows of ∂x that are computed at a time.
pub const CHUNK_ROWS: usize = 256;

/// The left factor of a product with a transposed weight.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    /// The rows of the factor.
    pub a: View,
    /// Layout of its columns; `None`: contiguous.
    pub pieces: Option<Pieces>,
    /// Number of rows.
    pub rows: usize,
    /// Whether to start with the last columns of the product.
    pub back: bool,
}

/// A product with a transposed weight: `a·M`, where M is the transpose.
#[derive(Debug, Clone, Copy)]
pub struct Back<'a> {
    /// M, packed or in its own memory order.
    pub matrix: &'a Matrix,
    /// a
    pub left: Left,
    /// Destination: rows with all columns of M.
    pub out: *mut f32,
    /// What the product is added to.
    pub onto: Onto,
}

impl Back<'_> {
    /// # Safety
    /// a is readable for the rows; this share's columns of `out` are its own.
    pub unsafe fn run(&self, crew: &Crew<'_>, share: usize) {
        let (matrix, left) = (self.matrix, self.left);
        let columns = &matrix.columns;
        let panels = crew.panels(columns, share);
        let out = Rows {
            ptr: self.out,
            stride: columns.count(),
        };
        if !matrix.is_packed() {
            debug_assert!(left.pieces.is_none());
            for row in 0..left.rows {
                let times = RowTimesTransposed {
                    n: matrix.k,
                    a: left.a.from_row(row).ptr,
                    w: matrix.view.transposed(),
                    rows: columns.units(&panels),
                    out: out.from_row(row).ptr,
                    add: matches!(self.onto, Onto::Sum),
                    back: left.back,
                };
                // SAFETY: by the contract of this function.
                unsafe { times.run(crew.isa) };
            }
            return;
        }
        let terms = [Term {
            pieces: left.pieces,
            ..matrix.term(left.a)
        }];
        let product = Product {
            isa: crew.isa,
            rows: left.rows,
            terms: &terms,
            columns,
        };
        let panels = serpentine(panels, usize::from(left.back));
        // SAFETY: by the contract of this function; the scratch of this share.
        unsafe { product.write(crew.scratch(share), panels, out, self.onto) };
    }
}

/// ∂x = ∂z·Wᵀ of all rows.
#[derive(Debug, Clone, Copy)]
pub struct InputGradient<'a> {
    /// Wᵀ
    pub matrix: &'a Matrix,
    /// Layout of ∂z.
    pub layout: Layout,
    /// ∂z
    pub grad: *mut f32,
    /// ∂x
    pub out: *mut f32,
    /// Number of rows.
    pub rows: usize,
}

impl InputGradient<'_> {
    /// # Safety
    /// All rows of ∂z are complete; this share's rows of ∂x are its own.
    pub unsafe fn run(&self, crew: &Crew<'_>, share: usize) {
        let columns = &self.matrix.columns;
        let own = crew.rows(self.rows, share);
        let mut start = own.start;
        while start < own.end {
            let rows = CHUNK_ROWS.min(own.end - start);
            let (a, pieces) = self.layout.factor(self.grad, start);
            let terms = [Term {
                pieces,
                ..self.matrix.term(a)
            }];
            let product = Product {
                isa: crew.isa,
                rows,
                terms: &terms,
                columns,
            };
            let out = Rows {
                ptr: self.out,
                stride: columns.count(),
            };
            let panels = 0..columns.panels();
            // SAFETY: by the contract of this function; the scratch of this share.
            unsafe {
                let scratch = crew.scratch(share);
                product.write(scratch, panels, out.from_row(start), Onto::Fresh);
            }
            start += rows;
        }
    }
}

/// The states before each row, as consecutive pieces.
pub struct Before<'a>(Vec<(Cow<'a, [f32]>, usize)>);

impl<'a> Before<'a> {
    /// From the initial state and the states after each row.
    ///
    /// # Arguments
    /// * `counts`, `offsets` - number of rows of each step, and its first row
    pub fn new(
        counts: &[usize],
        offsets: &[usize],
        first: &'a [f32],
        after: &'a [f32],
        features: usize,
    ) -> Self {
        let (rows, batch) = (offsets[counts.len()], counts[0]);
        if rows == batch * counts.len() {
            // The states before a step are the first rows of the states after the previous step.
            let after = &after[..(rows - batch) * features];
            return Self(vec![
                (Cow::Borrowed(first), batch),
                (Cow::Borrowed(after), rows - batch),
            ]);
        }
        let mut gathered = Vec::with_capacity(rows * features);
        gathered.extend_from_slice(first);
        for (step, count) in counts.iter().enumerate().skip(1) {
            let start = offsets[step - 1] * features;
            gathered.extend_from_slice(&after[start..start + count * features]);
        }
        Self(vec![(Cow::Owned(gathered), rows)])
    }

    /// Each piece with its number of rows.
    pub fn pieces(&self) -> impl Iterator<Item = (&[f32], usize)> {
        self.0.iter().map(|(values, rows)| (&values[..], *rows))
    }
}

impl Crew<'_> {
    /// Transposes this share's columns of the left factor of a weight, which makes the axis of the sum
    /// over rows contiguous.
    ///
    /// # Arguments
    /// * `pieces` - matrices of `features` columns with consecutive rows, each with its number of
    ///   rows
    /// * `target` - `[features, rows]`
    ///
    /// # Safety
    /// The target has room for them, and no other thread touches this share's rows of it.
    pub unsafe fn transpose<'v>(
        &self,
        pieces: impl IntoIterator<Item = (&'v [f32], usize)>,
        features: usize,
        rows: usize,
        target: *mut f32,
        share: usize,
    ) {
        let own = self.rows(features, share);
        let mut row = 0;
        for (values, count) in pieces {
            let transpose = Transpose {
                source: View::rows(values, features).from_column(own.start),
                rows: count,
                columns: own.len(),
                target: target.wrapping_add(own.start * rows + row),
                stride: rows,
            };
            // SAFETY: by the contract of this function.
            unsafe { transpose.run(self.isa) };
            row += count;
        }
    }
}

/// Rows of a gate buffer for one vector of columns, indexed by column number.
pub fn column_rows(layout: &Layout, columns: &Columns, buffer: *mut f32, at: Place) -> Rows {
    let first = columns.of(at.panel, at.gate).start;
    let rows = layout.rows(buffer, 0);
    Rows {
        ptr: rows.at(0, at.gate, at.panel).wrapping_sub(first),
        stride: rows.row,
    }
}

/// The position of a vector of columns in a gate buffer.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Panel index.
    pub panel: usize,
    /// Gate index.
    pub gate: usize,
}

/// The column ranges of the vectors of some gate panels.
pub fn vectors_of(
    columns: Columns,
    panels: Range<usize>,
) -> impl Iterator<Item = (Place, Range<usize>)> {
    panels.flat_map(move |panel| {
        (0..columns.vectors).map(move |gate| (Place { panel, gate }, columns.of(panel, gate)))
    })
}

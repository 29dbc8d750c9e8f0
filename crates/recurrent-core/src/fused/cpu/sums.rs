//! Sums over all rows of a call: what the gradients of weights are made of.

use super::product::{Columns, Onto, Packed, Scratch, Term, Weights, product, write_tile};
use super::simd::Isa;
use super::view::View;

/// Bytes of a above which it does not stay in a core's second-level cache (measured on one with 2 MiB:
/// asking ahead takes 0.7 to 0.85 of the time from 3 MiB on, 1.2 at 50 KiB).
const FAR_ABOVE: usize = 1 << 20;

/// The right factor of a sum over rows.
#[derive(Debug, Clone, Copy)]
pub enum Right {
    /// Row-major.
    Rows(*const f32),
    /// In panels of some columns.
    Panels(Packed, Columns),
}

/// `out[m, n] = Σ_rows aᵀ·d`, for one share of the columns: the gradient of a weight.
#[derive(Debug, Clone, Copy)]
pub struct Outer {
    /// aᵀ `[m, rows]`: a product reads it along the rows.
    pub a: *const f32,
    /// Features of a.
    pub m: usize,
    /// Rows of a and d.
    pub rows: usize,
    /// `[rows, n]`
    pub d: Right,
    /// Features of d.
    pub n: usize,
    /// `[m, n]`
    pub out: *mut f32,
    /// Distance between its rows.
    pub stride: usize,
    /// Whether to add to what is there.
    pub add: bool,
}

impl Outer {
    /// # Safety
    /// a and d are readable, the share's columns of `out` are the caller's own, and the scratch was
    /// made for m rows.
    pub unsafe fn run(self, isa: Isa, scratch: &mut Scratch, share: usize, workers: usize) {
        let Self {
            a,
            m,
            rows,
            d,
            n,
            out,
            stride,
            add,
        } = self;
        let onto = if add { Onto::Sum } else { Onto::Fresh };
        let view = |ptr: *const f32, row: usize| View {
            ptr,
            row,
            column: 1,
        };
        let (weights, columns) = match d {
            Right::Rows(d) => {
                let columns = Columns::plain(n, isa.lanes(), workers);
                (Weights::Native(view(d, n)), columns)
            }
            Right::Panels(packed, columns) => (Weights::Packed(packed), columns),
        };
        // All of a goes by for each panel of d.
        let term = Term {
            far: m * rows * size_of::<f32>() > FAR_ABOVE,
            ..Term::new(view(a, rows), rows, weights)
        };
        let panels = columns.share(share, workers);
        // SAFETY: by the contract of this function.
        unsafe {
            let write = |panel: usize, tile| {
                write_tile(isa, tile, &columns, panel, m, out, stride, onto);
            };
            product(isa, scratch, m, &[term], &columns, panels, write);
        }
    }
}

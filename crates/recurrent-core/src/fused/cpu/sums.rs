//! Sums over all rows of a call, from which the gradients of weights are computed.

use super::product::{Columns, Onto, Packed, Product, Scratch, Term, Weights};
use super::simd::Isa;
use super::view::{Rows, View};

/// Size of a in bytes above which it does not fit into a core's second-level cache (measured on one with
/// 2 MiB: prefetching takes 0.7 to 0.85 of the time from 3 MiB on, 1.2 at 50 KiB).
const FAR_ABOVE: usize = 1 << 20;

/// The right factor of a sum over rows.
#[derive(Debug, Clone, Copy)]
pub enum Right {
    /// Row-major.
    Rows(*const f32),
    /// In panels of the given columns.
    Panels(Packed, Columns),
}

/// `out[m, n] = Σ_rows aᵀ·d` for one share of the columns: the gradient of a weight.
#[derive(Debug, Clone, Copy)]
pub struct Outer {
    /// aᵀ `[m, rows]`: contiguous along the summed axis.
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
    /// Row stride of `out`.
    pub stride: usize,
    /// Whether to add to the contents of `out`.
    pub add: bool,
}

impl Outer {
    /// # Safety
    /// a and d are readable, the share's columns of `out` are the caller's own, and the scratch was
    /// made for m rows.
    pub unsafe fn run(self, isa: Isa, scratch: &mut Scratch, share: usize, shares: usize) {
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
                let columns = Columns::plain(n, isa.lanes(), shares);
                (Weights::Native(view(d, n)), columns)
            }
            Right::Panels(packed, columns) => (Weights::Packed(packed), columns),
        };
        // Every panel of d is multiplied with all of a.
        let term = Term {
            far: m * rows * size_of::<f32>() > FAR_ABOVE,
            ..Term::new(view(a, rows), rows, weights)
        };
        let terms = [term];
        let product = Product {
            isa,
            rows: m,
            terms: &terms,
            columns: &columns,
        };
        let panels = columns.share(share, shares);
        let out = Rows { ptr: out, stride };
        // SAFETY: by the contract of this function.
        unsafe { product.write(scratch, panels, out, onto) };
    }
}

//! The GRU over a whole sequence.
//!
//! Rows, steps and workers are as in the LSTM's recurrence (`recurrence/mod.rs`):
//! ```text
//! forward    for chunks of steps: x·W + b
//!            reset after:         h·R → r, z, n, h'                             a panel of units at a time
//!            reset before:        h·R_rz → r, z, r ⊙ h,   then   (r ⊙ h)·R_n → n, h'
//! backward   reset after:         ∂h += ∂u·Rᵀ → ∂a, ∂u of the step before
//!            reset before:        ∂h += ∂a_rz·R_rzᵀ → ∂a_n, ∂a_z,   then   ∂a_n·R_nᵀ → ∂a_r
//!            afterwards:          ∂R, ∂W, ∂x, ∂b as one product each over all steps
//! ```
//! The candidate's product is separate: r multiplies either its result or its left factor. Why the raw
//! pointers of the phases are sound: `fused/cpu/driver/mod.rs`.

mod backward;
mod forward;

use alloc::vec::Vec;

pub use backward::backward;
pub use forward::forward;

use super::buffer::Buffer;
use super::driver::{Group, Matrix, Work};
use super::layout::Layout;
use super::pointwise::{MaskTable, MaskValues};
use super::product::Columns;
use super::simd::Isa;
use super::view::{Rows, View};
use crate::equations::masks::Masks;
use crate::fused::problem::gru::{GATES, GruProblem};
use crate::fused::problem::{Part, Parts};

impl GruProblem {
    /// The amount of arithmetic of a call.
    fn work(&self) -> Work {
        Work {
            steps: self.counts.len(),
            per_step: 2 * self.batch_size() * self.width() * self.d_hidden,
            meetings: if self.reset_after { 1 } else { 2 },
        }
    }

    /// Number of threads that this problem justifies.
    pub fn workers(&self) -> usize {
        self.work().workers()
    }

    /// Size of R in bytes.
    fn recurrent_bytes(&self) -> usize {
        self.width() * self.d_hidden * size_of::<f32>()
    }

    /// The problem and tensors of a group: a call for its sequences only, with their initial states and
    /// masks.
    fn of_group<'a>(&self, group: &Group, parts: &Parts<&'a [f32]>) -> (Self, Parts<&'a [f32]>) {
        let mut parts = parts.clone();
        let masks = self.masks.iter().filter(|(_, per_step)| !**per_step);
        let masks = masks.map(|(place, _)| Part::Mask(place));
        for part in [Part::Hidden].into_iter().chain(masks) {
            if let Some(values) = parts.get_mut(part) {
                *values = &values[group.first * self.d_hidden..];
            }
        }
        let problem = Self {
            counts: group.counts.clone(),
            ..self.clone()
        };
        (problem, parts)
    }

    /// The masks of a call.
    fn mask_table(&self, parts: &Parts<&[f32]>) -> MaskTable {
        let mask = |place| {
            let values = parts.get(Part::Mask(place))?;
            Some(MaskValues {
                rows: Rows::read(values.as_ptr(), self.d_hidden),
                per_step: self.masks.get(place) == Some(&true),
            })
        };
        MaskTable::new(Masks::from_fn(mask), self.d_hidden)
    }
}

/// The tensors that the forward saves for the backward.
#[derive(Debug)]
pub struct Saved {
    /// The call that they belong to, and the number of lanes per vector; these determine the buffer sizes.
    made_for: Option<(GruProblem, Parts<()>, usize)>,
    /// Layout of the gates of all rows.
    layout: Layout,
    /// r, z and n `[N, 3H]`.
    gates: Buffer,
    /// `[N, H]`: u = h·R_n + b_hn, or r ⊙ h if the reset gate acts before the product.
    inner: Buffer,
}

/// What a derivative takes.
#[derive(Debug, Clone, Copy)]
pub struct Gradient<'a> {
    /// Of the forward.
    pub parts: &'a Parts<&'a [f32]>,
    /// Of the forward.
    pub saved: &'a Saved,
    /// Of the forward.
    pub output: &'a [f32],
    /// The gradient of the output, of the same layout.
    pub grad: &'a [f32],
    /// Whose gradients are asked for; masks have none.
    pub wanted: &'a Parts<()>,
}

/// The weights of a call, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// W
    Input,
    /// R; if the reset gate acts before the product, only its columns of r and z.
    Hidden,
    /// The columns of R for n, if the reset gate acts before the product.
    Candidate,
}

/// How products read the weights of a call.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Lanes per vector.
    lanes: usize,
    /// Number of shares of a product.
    sharers: usize,
    /// Whether R is packed.
    pack_hidden: bool,
    /// Whether W is packed.
    pack_input: bool,
    /// `Some` for the backward, whose weights are transposed; the value tells whether left factors are
    /// in tiles.
    back: Option<bool>,
}

impl Reading {
    /// All matrices, by [`Weight`].
    fn matrices(&self, problem: &GruProblem, parts: &Parts<&[f32]>) -> Vec<Option<Matrix>> {
        let (units, width) = (problem.d_hidden, problem.width());
        let input = View::rows(parts.of(Part::WeightInput), width);
        let hidden = View::rows(parts.of(Part::WeightHidden), width);
        let input = self.gates(input, problem.d_input, GATES, units);
        let input = input.packed(self.pack_input);
        let of_gates = if problem.reset_after {
            GATES
        } else {
            GATES - 1
        };
        let gates = self.gates(hidden, units, of_gates, units);
        let candidate = hidden.from_column(of_gates * units);
        let plain = Columns::plain(units, self.lanes, self.sharers);
        let candidate = match self.back {
            Some(_) => Matrix::new(candidate.transposed(), units, plain),
            None => Matrix::new(candidate, units, plain),
        };
        vec![
            Some(input),
            Some(gates.packed(self.pack_hidden)),
            (!problem.reset_after).then(|| candidate.packed(self.pack_hidden)),
        ]
    }

    /// The matrix of some gates of a weight with the given number of rows.
    fn gates(&self, view: View, rows: usize, gates: usize, units: usize) -> Matrix {
        let columns = Columns::gates(gates, units, self.lanes);
        match self.back {
            None => Matrix::new(view, rows, columns),
            Some(tiled) => {
                let plain = Columns::plain(rows, self.lanes, self.sharers);
                Matrix::new(view.transposed(), gates * units, plain)
                    .by_tile(tiled.then_some(columns))
            }
        }
    }
}

/// The values that determine the sizes of the saved tensors.
fn made_for(
    isa: Isa,
    problem: &GruProblem,
    parts: &Parts<&[f32]>,
) -> (GruProblem, Parts<()>, usize) {
    (problem.clone(), parts.clone().map(|_| ()), isa.lanes())
}

/// A vector of weights; null if it is absent.
fn vector(parts: &Parts<&[f32]>, part: Part) -> *const f32 {
    parts.get(part).map_or(core::ptr::null(), |v| v.as_ptr())
}

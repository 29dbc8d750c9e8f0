//! The GRU over a whole sequence.
//!
//! ```text
//! forward    x·W                                      all rows at once
//!            for each step:
//!   after      h·R → step → h'
//!   before     h·R_rz → open_gates → (r ⊙ h)·R_n → mix → h'
//! backward   for each step back:
//!   after      step_back → ∂(h·R) → ·Rᵀ = ∂h
//!   before     mix_back → ∂a_n·R_nᵀ → reset_back → ∂a_rz·R_rzᵀ = ∂h
//!            ∂R, ∂W, ∂x                               one product each over all rows
//!            gradients of biases                      sums over all rows
//! ```
//! where "after" and "before" say where the reset gate acts: a product and a kernel per step and direction, or
//! two of each. R is one tensor; where the reset gate acts before the product, its blocks of r and z and of
//! n are copied once per call to matrices of their own, and ∂R is put together from the gradients of the two.
//!
//! Saved for the backward are the activated gates of each row, see `pointwise/gru.rs`; nothing saved is
//! overwritten.

mod backward;
mod forward;

use alloc::vec::Vec;

use burn_cubecl::tensor::CubeTensor;

use super::CubeSequence;
use super::buffer::{Columns, copy_columns, empty, joined, len, nothing, reshaped, vector_size};
use super::pointwise::gru::{GruKind, GruScalarsLaunch};
use super::product::product;
use crate::equations::masks::{MaskPlace, Masks};
use crate::fused::problem::gru::GruProblem;
use crate::fused::problem::{Key, Part, Parts};

/// R as the products of a step need it.
#[allow(clippy::large_enum_variant)] // one per call
enum Recurrent {
    /// `[H, 3H]`, where the reset gate acts after the product.
    Whole(CubeTensor),
    /// The blocks of r and z `[H, 2H]` and of n `[H, H]`, where it acts before.
    Split {
        gates: CubeTensor,
        candidate: CubeTensor,
    },
}

impl Recurrent {
    fn new(weight: &CubeTensor, problem: &GruProblem) -> Self {
        if problem.reset_after {
            return Self::Whole(weight.clone());
        }
        let [gates, candidate] = columns(weight, problem.d_hidden);
        Self::Split { gates, candidate }
    }
}

/// The columns of r and z, and those of n, as matrices of their own.
fn columns(packed: &CubeTensor, d_hidden: usize) -> [CubeTensor; 2] {
    let rows = packed.meta.shape()[0];
    [(0, 2 * d_hidden), (2 * d_hidden, d_hidden)].map(|(start, count)| {
        let part = empty(packed, [rows, count]);
        let from = Columns {
            matrix: packed,
            start,
        };
        let to = Columns {
            matrix: &part,
            start: 0,
        };
        copy_columns(from, to, rows, count, false);
        part
    })
}

/// The inverse of [`columns`].
fn packed(gates: &CubeTensor, candidate: &CubeTensor, d_hidden: usize) -> CubeTensor {
    let rows = gates.meta.shape()[0];
    let packed = empty(gates, [rows, 3 * d_hidden]);
    for (part, start, count) in [
        (gates, 0, 2 * d_hidden),
        (candidate, 2 * d_hidden, d_hidden),
    ] {
        let from = Columns {
            matrix: part,
            start: 0,
        };
        let to = Columns {
            matrix: &packed,
            start,
        };
        copy_columns(from, to, rows, count, false);
    }
    packed
}

/// The product of the first rows of a matrix, into those of another.
fn rows_times(count: usize, left: &CubeTensor, right: &CubeTensor, into: &CubeTensor) {
    let rows = |matrix: &CubeTensor| {
        let columns = matrix.meta.shape()[1];
        reshaped(matrix.clone(), [count, columns])
    };
    product(rows(left), right.clone(), rows(into));
}

/// A call: what both directions need.
struct Call<'a> {
    problem: &'a GruProblem,
    parts: Parts<&'a CubeTensor>,
    kind: GruKind,
    recurrent: Recurrent,
    /// b, then b_hn.
    vectors: CubeTensor,
    /// All masks one after the other, and where each begins; in values.
    masks: CubeTensor,
    mask_starts: Masks<usize>,
    /// Width of vectors of units.
    lanes: usize,
    offsets: Vec<usize>,
}

impl<'a> Call<'a> {
    fn new(sequence: &Sequence<'a>, tensors: &'a [CubeTensor], save: bool) -> Self {
        let problem = sequence.problem;
        let parts = Parts::from_list(tensors.iter(), sequence.which.clone());
        let like = *parts.of(Part::Input);
        let list = |list: Vec<CubeTensor>| match list.is_empty() {
            true => nothing(like),
            false => joined(list),
        };
        let given = |part: Part| parts.get(part).map(|&tensor| tensor.clone());
        let vectors = [Part::Bias, Part::BiasHidden].into_iter();
        let mut masks = Vec::new();
        let mut end = 0;
        let mask_starts = Masks::from_fn(|place| {
            let mask = given(Part::Mask(place))?;
            let start = end;
            end += len(&mask);
            masks.push(mask);
            Some(start)
        });
        Self {
            kind: GruKind {
                bias: parts.has(Part::Bias),
                bias_hidden: parts.has(Part::BiasHidden),
                reset_after: problem.reset_after,
                masks: mask_starts.map(|_| ()),
                save,
            },
            recurrent: Recurrent::new(parts.of(Part::WeightHidden), problem),
            vectors: list(vectors.filter_map(given).collect()),
            masks: list(masks),
            mask_starts,
            lanes: vector_size(like, &[problem.d_hidden]),
            offsets: problem.offsets(),
            problem,
            parts,
        }
    }

    /// The scalars of a step.
    fn scalars(&self, step: usize) -> GruScalarsLaunch {
        let problem = self.problem;
        let row = self.offsets[step];
        let mask = |place: MaskPlace| {
            let &start = self.mask_starts.get(place)?;
            let first = match problem.masks.get(place) {
                Some(true) => row,
                _ => 0,
            };
            Some((start + first * problem.d_hidden) / self.lanes)
        };
        let previous_row = step.checked_sub(1).map_or(0, |step| self.offsets[step]);
        GruScalarsLaunch {
            units: (problem.d_hidden / self.lanes) as u32,
            rows: problem.counts[step] as u32,
            row: row as u32,
            saved_row: if self.kind.save { row as u32 } else { 0 },
            previous_row: previous_row as u32,
            is_first_step: u32::from(step == 0),
            masks: Masks::from_fn(mask).into(),
        }
    }
}

/// A call without its tensors.
pub struct Sequence<'a> {
    /// Sizes and options.
    pub problem: &'a GruProblem,
    /// Which tensors there are.
    pub which: &'a Parts<()>,
}

impl CubeSequence for Sequence<'_> {
    fn saved_shapes(&self) -> Vec<[usize; 2]> {
        let kind = GruKind {
            bias: false,
            bias_hidden: false,
            reset_after: self.problem.reset_after,
            masks: Masks::none(),
            save: true,
        };
        vec![[self.problem.rows(), kind.saved() * self.problem.d_hidden]]
    }

    fn differentiable(&self, tensor: usize) -> bool {
        let key = self.which.keys()[tensor];
        !matches!(key, Key::Part(Part::Mask(_)))
    }

    fn forward(&self, tensors: &[CubeTensor], save: bool) -> (CubeTensor, Vec<CubeTensor>) {
        let shapes = if save {
            self.saved_shapes()
        } else {
            Vec::new()
        };
        forward::forward(&Call::new(self, tensors, save), &shapes)
    }

    fn backward(
        &self,
        tensors: &[CubeTensor],
        saved: &[CubeTensor],
        output: &CubeTensor,
        grad: &CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let asked = self.which.chosen(wanted);
        let call = Call::new(self, tensors, true);
        let forward = backward::Forward {
            saved: &saved[0],
            output,
        };
        let mut grads = backward::backward(&call, forward, grad, &asked);
        let keys = self.which.keys().into_iter();
        keys.map(|key| grads.take(key)).collect()
    }
}

//! The LSTM family over a whole sequence.
//!
//! ```text
//! forward    x·W                                     all rows at once
//!            for each step:       h·R → step → c', h'
//! backward   for each step back:  step_back → ∂z → ∂z·Rᵀ = ∂h
//!            ∂R, ∂W, ∂x, ∂V, ∂P                      one product each over all rows
//!            gradients of vectors                    sums over all rows
//! ```
//! That is a product and a kernel per step, both ways. A projection adds one of each, full peepholes a product.
//! Small layers run all steps in one launch each way instead (`persistent`).
//!
//! Saved for the backward are the rows that `pointwise` describes, h before each row, with a projection what
//! it projected, with full peepholes c before each row, and what the rounds of a Mogrifier gave. No saved
//! tensor is overwritten.

mod backward;
mod buffers;
mod forward;
mod persistent;
mod rounds;

use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::CubeSequence;
use super::buffer::{arg, joined, nothing, vector_size, zeros};
use super::device::units_per_row;
use super::pointwise::{
    CallBuffersLaunch, Kind, NormKind, NormScalarsLaunch, SavedBuffersLaunch, StepScalarsLaunch,
};
use super::step::{Direction, step_rows};
use crate::equations::layer_norm::{EpsilonPlace, Normalizer, Variance};
use crate::equations::masks::{MaskPlace, Masks};
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Key, Part, Parts};

/// Masks in one buffer, and the first value of each.
struct PackedMasks {
    values: CubeTensor,
    starts: Masks<usize>,
}

impl PackedMasks {
    /// # Arguments
    /// * `masks` - whether each mask that is wanted has a row per step
    fn new(
        parts: &Parts<&CubeTensor>,
        problem: &LstmProblem,
        like: &CubeTensor,
        masks: &Masks<bool>,
    ) -> Self {
        let mut list = Vec::new();
        let mut end = 0;
        let starts = Masks::from_fn(|place| {
            let rows = match masks.get(place)? {
                true => problem.rows(),
                false => problem.batch_size(),
            };
            list.push((*parts.of(Part::Mask(place))).clone());
            let start = end;
            end += rows * problem.mask_features(place);
            Some(start)
        });
        let values = match list.is_empty() {
            true => nothing(like),
            false => joined(list),
        };
        Self { values, starts }
    }
}

/// The features that a kernel of a step computes: H of the cell, d_output of the projection.
struct Features {
    /// How many they are.
    size: usize,
    /// Width of their vectors.
    lanes: usize,
    /// The masks on them.
    masks: PackedMasks,
}

/// A call: what both directions need.
struct Call<'a> {
    problem: &'a LstmProblem,
    parts: Parts<&'a CubeTensor>,
    kind: Kind,
    vectors: CubeTensor,
    /// Of the kernels of the cell.
    cell: Features,
    /// Of the kernels of the projection; without one there is no mask on them.
    projected: Features,
    /// The masks of the projection.
    projected_masks: Masks<()>,
    offsets: Vec<usize>,
}

impl<'a> Call<'a> {
    /// # Arguments
    /// * `save` - whether a backward will follow, or this is one
    fn new(sequence: &Sequence<'a>, tensors: &'a [CubeTensor], save: bool) -> Self {
        let problem = sequence.problem;
        let parts = Parts::from_list(tensors.iter(), sequence.which.clone());
        let like = *parts.of(Part::Input);
        let projects = parts.has(Part::Projection);
        // With a projection, masks on h follow it.
        let masks = |projection: bool| {
            Masks::from_fn(|place| {
                let on_hidden = matches!(place, MaskPlace::Hidden | MaskPlace::UpdateHidden);
                let here = (projects && on_hidden) == projection;
                problem.masks.get(place).filter(|_| here).copied()
            })
        };
        let features = |size: usize, masks: &Masks<bool>| Features {
            size,
            lanes: vector_size(like, &[size]),
            masks: PackedMasks::new(&parts, problem, like, masks),
        };
        let (cell_masks, projected_masks) = (masks(false), masks(true));
        let cell = features(problem.d_hidden, &cell_masks);
        let mut kind = kind(problem, &parts, cell_masks.map(|_| ()), save);
        if kind.by_row() {
            kind.threads = units_per_row(like, cell.size / cell.lanes);
        }
        Self {
            vectors: vectors(&parts, &kind, like, problem.d_hidden),
            cell,
            projected: features(problem.d_output, &projected_masks),
            projected_masks: projected_masks.map(|_| ()),
            offsets: problem.offsets(),
            problem,
            parts,
            kind,
        }
    }

    /// The buffers that every step reads.
    fn buffers<N: Size>(&self, lanes: usize) -> CallBuffersLaunch<N> {
        CallBuffersLaunch {
            vectors: arg(&self.vectors, lanes),
            masks: arg(&self.cell.masks.values, lanes),
        }
    }

    /// What the backward reads of the forward.
    ///
    /// # Arguments
    /// * `rows` - the saved ones
    fn saved_buffers<N: Size>(&self, rows: &CubeTensor, lanes: usize) -> SavedBuffersLaunch<N> {
        SavedBuffersLaunch {
            saved: arg(rows, lanes),
            first_cell: arg(self.parts.of(Part::Cell), lanes),
        }
    }

    /// The scalars of a step.
    ///
    /// # Arguments
    /// * `lanes` - width of vectors
    fn scalars(
        &self,
        step: usize,
        direction: Direction,
        features: &Features,
        lanes: usize,
    ) -> StepScalarsLaunch {
        let problem = self.problem;
        let offset = self.offsets[step];
        let mask = |place: MaskPlace| {
            let &start = features.masks.starts.get(place)?;
            let rows = if problem.mask_per_step(place) {
                offset
            } else {
                0
            };
            Some((start + rows * features.size) / lanes)
        };
        StepScalarsLaunch {
            units: (features.size / lanes) as u32,
            rows: step_rows(&problem.counts, &self.offsets, step, direction),
            // With rounds x·W is a product per step.
            projected_row: if problem.rounds.is_empty() {
                offset as u32
            } else {
                0
            },
            saved_row: if self.kind.save { offset as u32 } else { 0 },
            masks: Masks::from_fn(mask).into(),
            clip: problem.clip,
            norm_hidden: norm_scalars(problem.norm_hidden, problem.width()),
            norm_cell: norm_scalars(problem.norm_cell, problem.d_hidden),
        }
    }
}

/// What the forward saves for the backward, of all rows.
struct Saved<'a> {
    /// The rows that `pointwise` describes.
    rows: &'a CubeTensor,
    /// h before each row.
    before: &'a CubeTensor,
    /// With a projection, what it projected.
    unprojected: Option<&'a CubeTensor>,
    /// With full peepholes, c before each row.
    cells_before: Option<&'a CubeTensor>,
    /// What the rounds gave.
    rounds: &'a [CubeTensor],
}

impl<'a> Saved<'a> {
    /// # Arguments
    /// * `tensors` - of the shapes of [`CubeSequence::saved_shapes`]
    fn of(call: &Call<'_>, tensors: &'a [CubeTensor]) -> Self {
        let [rows, before, others @ ..] = tensors else {
            panic!("got {} saved tensors, expected 2 at least", tensors.len());
        };
        let (unprojected, others) = others.split_at(usize::from(call.kind.projected));
        let (cells_before, rounds) = others.split_at(usize::from(call.kind.full));
        Self {
            rows,
            before,
            unprojected: unprojected.first(),
            cells_before: cells_before.first(),
            rounds,
        }
    }
}

/// What the kernels of a call are compiled for.
///
/// # Arguments
/// * `masks` - of the cell
fn kind(problem: &LstmProblem, parts: &Parts<&CubeTensor>, masks: Masks<()>, save: bool) -> Kind {
    let has = |part: Part| parts.has(part);
    let norm = |form: Option<Normalizer>, gain, shift| {
        form.map(|form| NormKind {
            outside: form.place == EpsilonPlace::OutsideRoot,
            gain: has(gain),
            shift: has(shift),
        })
    };
    let peepholes = [
        Part::PeepholeFirst,
        Part::PeepholeSecond,
        Part::PeepholeOutput,
    ];
    Kind {
        coupling: problem.coupling,
        bias: has(Part::Bias),
        peepholes: peepholes.into_iter().any(has),
        output_sees_new: problem.output_sees_new,
        full: has(Part::PeepholeFull),
        masks,
        clip: problem.clip.is_finite(),
        save,
        projected: has(Part::Projection),
        bias_hidden: has(Part::BiasHidden),
        norm_hidden: norm(
            problem.norm_hidden,
            Part::NormHiddenGain,
            Part::NormHiddenShift,
        ),
        norm_cell: norm(problem.norm_cell, Part::NormCellGain, Part::NormCellShift),
        carry_normalized: problem.carry_normalized,
        threads: 0,
    }
}

/// The scalars of a normalisation of rows of n values.
fn norm_scalars(norm: Option<Normalizer>, n: usize) -> NormScalarsLaunch {
    NormScalarsLaunch {
        epsilon: norm.map_or(0.0, |norm| norm.epsilon as f32),
        inverse_count: match norm.map(|norm| norm.variance) {
            Some(Variance::Unbiased) => 1.0 / (n as f32 - 1.0),
            _ => 1.0 / n as f32,
        },
    }
}

/// The vectors in the order of [`Kind`]; absent peepholes are zeros.
fn vectors(
    parts: &Parts<&CubeTensor>,
    kind: &Kind,
    like: &CubeTensor,
    d_hidden: usize,
) -> CubeTensor {
    let mut list: Vec<CubeTensor> = Vec::new();
    let given = |part: Part| parts.get(part).map(|&tensor| tensor.clone());
    list.extend(given(Part::Bias));
    if kind.peepholes {
        let mut gates = vec![Part::PeepholeFirst];
        gates.extend((kind.mixing_gates() == 2).then_some(Part::PeepholeSecond));
        gates.push(Part::PeepholeOutput);
        for part in gates {
            list.push(given(part).unwrap_or_else(|| zeros(like, [1, d_hidden])));
        }
    }
    list.extend(
        [
            Part::BiasHidden,
            Part::NormHiddenGain,
            Part::NormHiddenShift,
            Part::NormCellGain,
            Part::NormCellShift,
        ]
        .into_iter()
        .filter_map(given),
    );
    match list.is_empty() {
        true => nothing(like),
        false => joined(list),
    }
}

/// A call without its tensors.
pub struct Sequence<'a> {
    /// Sizes and options.
    pub problem: &'a LstmProblem,
    /// Which tensors there are.
    pub which: &'a Parts<()>,
}

impl CubeSequence for Sequence<'_> {
    fn saved_shapes(&self) -> Vec<[usize; 2]> {
        let problem = self.problem;
        let rows = problem.rows();
        // How wide the saved rows are depends on these alone.
        let mut pieces = problem.coupling.gates() + 1;
        pieces += usize::from(problem.norm_cell.is_some());
        if problem.norm_hidden.is_some() {
            pieces += problem.coupling.gates();
        }
        let mut shapes = vec![[rows, pieces * problem.d_hidden], [rows, problem.d_output]];
        for part in [Part::Projection, Part::PeepholeFull] {
            if self.which.has(part) {
                shapes.push([rows, problem.d_hidden]);
            }
        }
        let (d_input, d_output) = (problem.d_input, problem.d_output);
        shapes.extend(rounds::saved_shapes(
            problem.rounds.len(),
            rows,
            d_input,
            d_output,
        ));
        shapes
    }

    fn differentiable(&self, tensor: usize) -> bool {
        let key = self.which.keys()[tensor];
        !matches!(key, Key::Part(Part::Mask(_)))
    }

    fn forward(&self, tensors: &[CubeTensor], save: bool) -> (CubeTensor, Vec<CubeTensor>) {
        let shapes = save.then(|| self.saved_shapes()).unwrap_or_default();
        forward::forward(&Call::new(self, tensors, save), &shapes)
    }

    fn backward(
        &self,
        tensors: &[CubeTensor],
        saved: &[CubeTensor],
        _output: &CubeTensor,
        grad: &CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let keys = self.which.keys();
        let mut asked = Parts::default();
        for (&key, wanted) in keys.iter().zip(wanted) {
            asked.set(key, wanted.then_some(()));
        }
        let call = Call::new(self, tensors, true);
        let mut grads = backward::backward(&call, saved, grad, &asked);
        keys.into_iter().map(|key| grads.take(key)).collect()
    }
}

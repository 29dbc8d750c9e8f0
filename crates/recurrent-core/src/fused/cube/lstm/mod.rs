//! The LSTM family over a whole sequence.
//!
//! ```text
//! forward    x·W                                     all rows at once
//!            for each step:       h·R → step → c', h'
//! backward   for each step back:  step_back → ∂z → ∂z·Rᵀ = ∂h
//!            ∂R, ∂W, ∂x, ∂V, ∂P                      one product each over all rows
//!            gradients of vectors                    sums over all rows
//! ```
//! Small layers run all steps in one launch each way instead (`persistent`). Otherwise that is a product
//! and a kernel per step, both ways. A projection adds one of each, full peepholes a product.
//!
//! Kept for the backward are the tape, h before each row, with a projection what it projected, with full
//! peepholes c before each row, and what the rounds of a Mogrifier gave; nothing kept is overwritten.

mod backward;
mod forward;
mod persistent;
mod rounds;

use alloc::vec::Vec;

use burn_cubecl::tensor::CubeTensor;

use super::CubeSequence;
use super::buffer::{joined, nothing, vector_size, zeros};
use super::device::sharing;
use super::pointwise::{AtLaunch, Kind, MaskKinds, NormKind};
use crate::equations::layer_norm::{EpsilonPlace, Normalizer, Variance};
use crate::fused::problem::lstm::Problem;
use crate::fused::problem::{Key, Part, Parts};

/// All masks; those on h come last, since they belong to the projection where there is one.
const MASKS: [Part; 5] = [
    Part::MaskCandidate,
    Part::MaskCell,
    Part::UpdateCell,
    Part::MaskHidden,
    Part::UpdateHidden,
];

/// Masks one after the other, and where each begins; in values.
struct Packed {
    values: CubeTensor,
    starts: Parts<usize>,
}

/// A call: what both directions need.
struct Call<'a> {
    problem: &'a Problem,
    parts: Parts<&'a CubeTensor>,
    kind: Kind,
    /// Masks of the projection; none without one.
    masked: MaskKinds,
    vectors: CubeTensor,
    masks: Packed,
    /// Masks of the projection.
    masks_projected: Packed,
    /// Width of vectors of units, and of features of h.
    lanes: usize,
    lanes_projected: usize,
    offsets: Vec<usize>,
}

impl<'a> Call<'a> {
    fn new(sequence: &Sequence<'a>, tensors: &'a [CubeTensor], keep: bool) -> Self {
        let problem = sequence.problem;
        let parts = Parts::from_list(tensors.iter(), sequence.which.clone());
        let like = *parts.of(Part::Input);
        let (d_hidden, d_output) = (problem.d_hidden, problem.d_output);
        let projected = parts.has(Part::Projection);
        let lanes = vector_size(like, &[d_hidden]);
        let lanes_projected = vector_size(like, &[d_output]);
        let has = |part: Part| parts.has(part);
        let norm = |form: Option<Normalizer>, gain, shift| {
            form.map(|form| NormKind {
                outside: form.place == EpsilonPlace::OutsideRoot,
                gain: has(gain),
                shift: has(shift),
            })
        };
        let on_hidden = |projection: bool, part: Part| has(part) && projection == projected;
        let masks = |projection: bool| MaskKinds {
            candidate: !projection && has(Part::MaskCandidate),
            cell: !projection && has(Part::MaskCell),
            update_cell: !projection && has(Part::UpdateCell),
            hidden: on_hidden(projection, Part::MaskHidden),
            update_hidden: on_hidden(projection, Part::UpdateHidden),
        };
        let peepholes = [
            Part::PeepholeFirst,
            Part::PeepholeSecond,
            Part::PeepholeOutput,
        ];
        let mut kind = Kind {
            coupling: problem.coupling,
            bias: has(Part::Bias),
            peepholes: peepholes.into_iter().any(has),
            output_sees_new: problem.output_sees_new,
            full: has(Part::PeepholeFull),
            masks: masks(false),
            clip: problem.clip.is_finite(),
            keep,
            projected,
            bias_hidden: has(Part::BiasHidden),
            norm_hidden: norm(
                problem.norm_hidden,
                Part::NormHiddenGain,
                Part::NormHiddenShift,
            ),
            norm_cell: norm(problem.norm_cell, Part::NormCellGain, Part::NormCellShift),
            carry_normalized: problem.carry_normalized,
            threads: 0,
        };
        if kind.by_row() {
            kind.threads = sharing(like, d_hidden / lanes);
        }
        let masked = masks(true);
        Self {
            vectors: vectors(&parts, &kind, like, d_hidden),
            masks: pack(
                &parts,
                problem,
                like,
                &MASKS[..if projected { 3 } else { 5 }],
            ),
            masks_projected: pack(
                &parts,
                problem,
                like,
                &MASKS[if projected { 3 } else { 5 }..],
            ),
            offsets: problem.offsets(),
            problem,
            parts,
            kind,
            masked,
            lanes,
            lanes_projected,
        }
    }

    /// Where a step is, for the kernels of the cell.
    fn at(&self, step: usize, other: usize, tape_row: usize) -> AtLaunch {
        self.place(
            step,
            other,
            tape_row,
            self.problem.d_hidden,
            self.lanes,
            &self.masks,
        )
    }

    /// Where a step is, for the kernels of the projection.
    fn at_projected(&self, step: usize, other: usize) -> AtLaunch {
        let (size, lanes) = (self.problem.d_output, self.lanes_projected);
        self.place(step, other, 0, size, lanes, &self.masks_projected)
    }

    /// # Arguments
    /// * `other` - the first row of the step that it is tied to
    fn place(
        &self,
        step: usize,
        other: usize,
        tape_row: usize,
        size: usize,
        lanes: usize,
        masks: &Packed,
    ) -> AtLaunch {
        let problem = self.problem;
        let offset = self.offsets[step];
        let mask = |part: Part| {
            let start = masks.starts.get(part).copied().unwrap_or(0);
            let row = if problem.per_step.has(part) {
                offset
            } else {
                0
            };
            ((start + row * size) / lanes) as u32
        };
        let share = |norm: Option<Normalizer>, n: usize| match norm.map(|norm| norm.variance) {
            Some(Variance::Unbiased) => 1.0 / (n as f32 - 1.0),
            _ => 1.0 / n as f32,
        };
        let epsilon = |norm: Option<Normalizer>| norm.map_or(0.0, |norm| norm.epsilon as f32);
        let next_rows = problem.counts.get(step + 1).copied().unwrap_or(0);
        AtLaunch::new(
            (size / lanes) as u32,
            problem.counts[step] as u32,
            offset as u32,
            if problem.rounds.is_empty() {
                offset as u32
            } else {
                0
            },
            tape_row as u32,
            other as u32,
            next_rows as u32,
            u32::from(step == 0),
            mask(Part::MaskCandidate),
            mask(Part::MaskCell),
            mask(Part::MaskHidden),
            mask(Part::UpdateCell),
            mask(Part::UpdateHidden),
            problem.clip,
            epsilon(problem.norm_hidden),
            share(problem.norm_hidden, problem.width()),
            epsilon(problem.norm_cell),
            share(problem.norm_cell, problem.d_hidden),
        )
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
        gates.extend((kind.shares() == 2).then_some(Part::PeepholeSecond));
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

fn pack(
    parts: &Parts<&CubeTensor>,
    problem: &Problem,
    like: &CubeTensor,
    which: &[Part],
) -> Packed {
    let mut starts = Parts::default();
    let (mut list, mut start) = (Vec::new(), 0);
    for &part in which {
        let Some(&mask) = parts.get(part) else {
            continue;
        };
        starts.set(part, start);
        let rows = match problem.per_step.has(part) {
            true => problem.rows(),
            false => problem.batch_size(),
        };
        let features = match part {
            Part::MaskHidden | Part::UpdateHidden => problem.d_output,
            _ => problem.d_hidden,
        };
        start += rows * features;
        list.push(mask.clone());
    }
    let values = match list.is_empty() {
        true => nothing(like),
        false => joined(list),
    };
    Packed { values, starts }
}

/// A call without its tensors.
pub struct Sequence<'a> {
    /// Sizes and options.
    pub problem: &'a Problem,
    /// Which tensors there are.
    pub which: &'a Parts<()>,
}

impl CubeSequence for Sequence<'_> {
    fn kept(&self) -> Vec<[usize; 2]> {
        let problem = self.problem;
        let rows = problem.rows();
        // What the tape holds depends on these alone.
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
        shapes.extend(rounds::kept(problem.rounds.len(), rows, d_input, d_output));
        shapes
    }

    fn differentiable(&self, tensor: usize) -> bool {
        let key = self.which.keys()[tensor];
        !MASKS.map(Key::Part).contains(&key)
    }

    fn forward(&self, tensors: &[CubeTensor], keep: bool) -> (CubeTensor, Vec<CubeTensor>) {
        let shapes = if keep { self.kept() } else { Vec::new() };
        forward::forward(&Call::new(self, tensors, keep), &shapes)
    }

    fn backward(
        &self,
        tensors: &[CubeTensor],
        kept: &[CubeTensor],
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
        let mut grads = backward::backward(&call, kept, grad, &asked);
        keys.into_iter().map(|key| grads.take(key)).collect()
    }
}

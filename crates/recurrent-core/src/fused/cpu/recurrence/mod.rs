//! The recurrence of the LSTM family over a whole sequence.
//!
//! One call runs all steps of one layer and direction. Rows are the steps of all sequences in
//! running order: step t has `counts[t]` rows, at most as many as the previous step, and row b of a step
//! continues row b of the previous step. The workers split the hidden units (or the rows, if a
//! normalisation needs complete rows), with one barrier per step:
//! ```text
//! forward    for chunks of steps: x·W + b           W read once, results stay in the cache
//!            for each step:       h·R + ↑ → gates → c', h'      a panel of units at a time
//! backward   for each step back:  ∂h = ∂z·Rᵀ → ∂z of the step before
//!            afterwards:          ∂R, ∂W, ∂x, ∂b as one product each over all steps
//! ```
//! The forward of a training step saves the activated gates and the cells; saved tensors are never
//! overwritten. Gates and their gradients are in tiles (`fused/cpu/layout.rs`). Why the raw pointers of
//! the phases are sound: `fused/cpu/driver/mod.rs`.

mod backward;
mod forward;
mod rounds;
mod weights;

use alloc::vec::Vec;

pub use backward::backward;
pub use forward::forward;

use rounds::SavedRound;

use super::buffer::Buffer;
use super::driver::{Group, Work, stays_cached};
use super::layout::Layout;
use super::pointwise::{Kind, MaskTable, MaskValues, PeepholeRows};
use super::simd::Isa;
use super::view::Rows;
use crate::equations::masks::Masks;
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Part, Parts};

impl LstmProblem {
    fn kind(&self, parts: &Parts<&[f32]>) -> Kind {
        let peepholes = [
            Part::PeepholeFirst,
            Part::PeepholeSecond,
            Part::PeepholeOutput,
        ];
        Kind {
            coupling: self.coupling,
            peephole: peepholes.iter().any(|&part| parts.has(part)),
            masked: !self.masks.is_none(),
        }
    }

    /// Number of weights of the Mogrifier's rounds.
    fn round_weights(&self) -> usize {
        let both = self.d_input + self.d_output;
        let of_round = |rank: &Option<usize>| match rank {
            Some(rank) => rank * both,
            None => self.d_input * self.d_output,
        };
        self.rounds.iter().map(of_round).sum()
    }

    /// The amount of arithmetic of a call.
    fn work(&self) -> Work {
        let weights = self.width() * self.d_output + self.round_weights();
        Work {
            steps: self.counts.len(),
            per_step: 2 * self.batch_size() * weights,
            meetings: 1,
        }
    }

    /// The problem and tensors of a group: a call for its sequences only, with their initial states and
    /// masks.
    fn of_group<'a>(&self, group: &Group, parts: &Parts<&'a [f32]>) -> (Self, Parts<&'a [f32]>) {
        let mut parts = parts.clone();
        let mut from = |part: Part, features: usize| {
            if let Some(values) = parts.get_mut(part) {
                *values = &values[group.first * features..];
            }
        };
        from(Part::Cell, self.d_hidden);
        from(Part::Hidden, self.d_output);
        for (place, &per_step) in self.masks.iter() {
            if !per_step {
                from(Part::Mask(place), self.mask_features(place));
            }
        }
        let problem = Self {
            counts: group.counts.clone(),
            ..self.clone()
        };
        (problem, parts)
    }

    /// Number of threads that this problem justifies.
    pub fn workers(&self) -> usize {
        self.work().workers()
    }

    /// Size in bytes of the weights that are read at every step.
    fn step_weights(&self) -> usize {
        let mut values = self.width() * self.d_output + self.round_weights();
        if self.d_output != self.d_hidden {
            values += self.d_hidden * self.d_output;
        }
        if !self.rounds.is_empty() {
            values += self.width() * self.d_input;
        }
        values * size_of::<f32>()
    }

    /// Whether `x·W` is computed in each step instead of beforehand, which avoids storing it.
    ///
    /// Independent of the number of threads, because the choice affects the order of a sum.
    fn projects_in_step(&self) -> bool {
        let weight_input = self.width() * self.d_input * size_of::<f32>();
        let weights = self.step_weights() + weight_input;
        !self.rounds.is_empty()
            || self.norm_input.is_none() && stays_cached(self.batch_size(), weights)
    }
}

/// The tensors that the forward saves for the backward.
#[derive(Debug)]
pub struct Saved {
    /// The call that they belong to; it determines the buffer sizes. None in inference.
    made_for: Option<MadeFor>,
    /// Layout of the gates of all rows.
    layout: Layout,
    /// Activated gates `[N, G·H]`.
    gates: Buffer,
    /// c' `[N, H]`; empty if the output contains it.
    cells: Buffer,
    /// x·W + b_x `[N, G·H]`, with LN_x.
    preact_input: Buffer,
    /// Statistics of its rows.
    stats_input: Buffer,
    /// h·R + b_h `[N, G·H]`, with LN_h.
    preact_hidden: Buffer,
    /// Statistics of its rows.
    stats_hidden: Buffer,
    /// c̃ `[N, H]`, with LN_c.
    raw: Buffer,
    /// n `[N, H]`, with LN_c.
    normalized: Buffer,
    /// Statistics of c̃'s rows.
    stats_cell: Buffer,
    /// o ⊙ tanh(n) `[N, H]`, with a projection.
    unprojected: Buffer,
    /// The results of each round of the Mogrifier.
    rounds: Vec<SavedRound>,
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

/// What the sizes of saved tensors depend on.
#[derive(Debug, PartialEq)]
struct MadeFor {
    problem: LstmProblem,
    which: Parts<()>,
    lanes: usize,
}

impl MadeFor {
    fn new(isa: Isa, problem: &LstmProblem, parts: &Parts<&[f32]>) -> Self {
        Self {
            problem: problem.clone(),
            which: parts.clone().map(|_| ()),
            lanes: isa.lanes(),
        }
    }
}

/// The arguments of pointwise operations that are the same for all steps.
struct Pointwise {
    kind: Kind,
    peepholes: PeepholeRows,
    masks: MaskTable,
    /// The weights of absent peepholes.
    _zeros: Vec<f32>,
}

// SAFETY: the memory behind the pointers is only read.
unsafe impl Sync for Pointwise {}

impl Pointwise {
    fn new(problem: &LstmProblem, parts: &Parts<&[f32]>) -> Self {
        let kind = problem.kind(parts);
        let size = problem.d_hidden.max(problem.d_output);
        let zeros = alloc::vec![0.0; if kind.peephole { size } else { 0 }];
        let or_zeros = |part| parts.get(part).map_or(zeros.as_ptr(), |v| v.as_ptr());
        // If only one of the gates has a peephole, the others read zeros.
        let output = or_zeros(Part::PeepholeOutput);
        let (output_previous, output_new) = match problem.output_sees_new {
            true => (zeros.as_ptr(), output),
            false => (output, zeros.as_ptr()),
        };
        let mask = |place| {
            let values = parts.get(Part::Mask(place))?;
            Some(MaskValues {
                rows: Rows::read(values.as_ptr(), problem.mask_features(place)),
                per_step: problem.mask_per_step(place),
            })
        };
        Self {
            kind,
            peepholes: PeepholeRows {
                mixing: [
                    or_zeros(Part::PeepholeFirst),
                    or_zeros(Part::PeepholeSecond),
                ],
                output_previous,
                output_new,
            },
            masks: MaskTable::new(Masks::from_fn(mask), size),
            _zeros: zeros,
        }
    }

    /// The masks of the pointwise operations at the step whose first row is `offset`; with a projection,
    /// those on h act after it.
    fn masks(&self, offset: usize, projected: bool) -> Masks<Rows> {
        let masks = self.masks.at(offset);
        if !projected {
            return masks;
        }
        Masks {
            hidden: None,
            update_hidden: None,
            ..masks
        }
    }
}

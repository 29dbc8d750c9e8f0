//! The buffers of a backward.

use alloc::vec::Vec;

use super::super::Gradient;
use super::super::rounds::{RoundRows, SavedRound};
use super::plan::Plan;
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Key, Part, Parts, RoundPart};

/// Buffers that a backward writes in addition to the wanted gradients.
pub struct Buffers {
    hidden: Vec<f32>,
    cell: Vec<f32>,
    preact: Buffer,
    product: Buffer,
    input: Buffer,
    projected: Buffer,
    unprojected: Buffer,
    normalized: Buffer,
    through: Buffer,
    raw: Buffer,
    rounds: Vec<SavedRound>,
    between: [Buffer; 2],
}

/// The addresses of these buffers.
#[derive(Debug, Clone)]
pub struct Pointers {
    /// `[B, d_output]`: ∂h' from later steps.
    pub hidden: *mut f32,
    /// `[B, H]`: ∂c' from later steps.
    pub cell: *mut f32,
    /// `[N, G·H]`: ∂z
    pub preact: *mut f32,
    /// `[N, G·H]`: ∂(h·R + b_h), with LN_h.
    pub product: *mut f32,
    /// `[N, G·H]`: ∂(x·W + b_x), which is ∂z without LN_x.
    pub input: *mut f32,
    /// `[N, d_output]`: ∂(h̃·P), with a projection.
    pub projected: *mut f32,
    /// `[B, H]`: ∂h̃, with a projection.
    pub unprojected: *mut f32,
    /// `[N, H]`: ∂n, with LN_c.
    pub normalized: *mut f32,
    /// `[B, H]`: the part of ∂c̃ through LN_c.
    pub through: *mut f32,
    /// `[B, H]`: the part of ∂c̃ that bypasses LN_c.
    pub raw: *mut f32,
    /// Per round: ∂p, in place of s, and the gradient of u·L.
    pub rounds: Vec<RoundRows>,
    /// `[B, I]` and `[B, d_output]`: ∂x and ∂h between the rounds of a step.
    pub between: [*mut f32; 2],
}

impl Buffers {
    pub fn new(plan: &Plan, problem: &LstmProblem, call: &Gradient<'_>) -> Self {
        let (rows, batch) = (problem.rows(), problem.batch_size());
        let (units, d_output) = (problem.d_hidden, problem.d_output);
        let projected = call.parts.has(Part::Projection);
        let normed_cell = problem.norm_cell.is_some();
        let mogrified = !problem.rounds.is_empty();
        let room = |wanted: bool, size: usize| Buffer::new(if wanted { size } else { 0 });
        let gates = |wanted: bool| {
            let mut buffer = room(wanted, plan.layout.size);
            if wanted {
                plan.layout.clear_padding(&plan.columns, &mut buffer);
            }
            buffer
        };
        let (_, last) = call.grad.split_at(rows * d_output);
        let (last_hidden, last) = last.split_at(batch * d_output);
        Self {
            hidden: last_hidden.to_vec(),
            cell: last[..batch * units].to_vec(),
            preact: gates(true),
            product: gates(problem.norm_hidden.is_some()),
            input: gates(problem.norm_input.is_some()),
            projected: room(projected, rows * d_output),
            unprojected: room(projected, batch * units),
            normalized: room(normed_cell, rows * units),
            through: room(normed_cell, batch * units),
            raw: room(normed_cell, batch * units),
            rounds: SavedRound::for_rows(problem, rows),
            between: [problem.d_input, d_output].map(|size| room(mogrified, batch * size)),
        }
    }

    /// The addresses of the buffers.
    pub fn pointers(&mut self, problem: &LstmProblem) -> Pointers {
        let preact = self.preact.as_mut_ptr();
        Pointers {
            hidden: self.hidden.as_mut_ptr(),
            cell: self.cell.as_mut_ptr(),
            preact,
            product: self.product.as_mut_ptr(),
            input: match problem.norm_input {
                Some(_) => self.input.as_mut_ptr(),
                None => preact,
            },
            projected: self.projected.as_mut_ptr(),
            unprojected: self.unprojected.as_mut_ptr(),
            normalized: self.normalized.as_mut_ptr(),
            through: self.through.as_mut_ptr(),
            raw: self.raw.as_mut_ptr(),
            rounds: self.rounds.iter_mut().map(RoundRows::new).collect(),
            between: self.between.each_mut().map(|buffer| buffer.as_mut_ptr()),
        }
    }

    /// The gradients of the initial h and c.
    pub fn into_states(self) -> [Vec<f32>; 2] {
        [self.hidden, self.cell]
    }
}

impl Pointers {
    /// The addresses for sequences starting at `first`. Only buffers with one row per sequence are
    /// shifted; rows of other buffers are addressed by step.
    pub fn of_group(&self, problem: &LstmProblem, first: usize) -> Self {
        let own = |buffer: *mut f32, size: usize| buffer.wrapping_add(first * size);
        let (units, d_output) = (problem.d_hidden, problem.d_output);
        let [grad_x, grad_h] = self.between;
        Self {
            between: [own(grad_x, problem.d_input), own(grad_h, d_output)],
            hidden: own(self.hidden, d_output),
            cell: own(self.cell, units),
            unprojected: own(self.unprojected, units),
            through: own(self.through, units),
            raw: own(self.raw, units),
            ..self.clone()
        }
    }
}

/// Number of features of the left factor of a weight; `None` if its gradient is a sum of rows.
pub fn features(problem: &LstmProblem, key: Key) -> Option<usize> {
    match key {
        Key::Part(Part::WeightInput) => Some(problem.d_input),
        Key::Part(Part::WeightHidden) => Some(problem.d_output),
        Key::Part(Part::PeepholeFull | Part::Projection) => Some(problem.d_hidden),
        Key::Round(round, RoundPart::Matrix) => Some(problem.round_shape(round).0),
        Key::Round(round, RoundPart::Right) => Some(problem.rounds[round].unwrap_or(0)),
        _ => None,
    }
}

/// The wanted gradients, except those of the initial state; masks have none.
pub struct Targets {
    grads: Parts<Vec<f32>>,
    /// The addresses of the gradients.
    pub at: Parts<*mut f32>,
    /// The left factor of each wanted weight, transposed: `[features, N]`.
    pub factors: Vec<(Key, *mut f32)>,
    _factors: Vec<Buffer>,
}

impl Targets {
    /// Allocates them.
    pub fn new(problem: &LstmProblem, call: &Gradient<'_>) -> Self {
        let mut grads = Parts::default();
        for key in call.wanted.keys() {
            if let Key::Part(Part::Cell | Part::Hidden | Part::Mask(_)) = key {
                continue;
            }
            let summed = features(problem, key).is_none() && key != Part::Input.into();
            let room = |values: &&[f32]| match summed {
                true => vec![0.0; values.len()],
                false => unset(values.len()),
            };
            grads.set(key, call.parts.get(key).map(room));
        }
        if grads.has(Part::ForgetBias) && !grads.has(Part::Bias) {
            // The gradient of b_f is computed from that of b.
            grads.set(Part::Bias, Some(vec![0.0; problem.width()]));
        }
        let mut at = Parts::default();
        let (mut factors, mut buffers) = (Vec::new(), Vec::new());
        for key in grads.keys() {
            at.set(key, grads.get_mut(key).map(Vec::as_mut_ptr));
            if let Some(features) = features(problem, key) {
                let mut buffer = Buffer::new(features * problem.rows());
                factors.push((key, buffer.as_mut_ptr()));
                buffers.push(buffer);
            }
        }
        Self {
            grads,
            at,
            factors,
            _factors: buffers,
        }
    }

    /// Returns the gradients.
    pub fn into_grads(mut self, problem: &LstmProblem, wanted: &Parts<()>) -> Parts<Vec<f32>> {
        let bias = self.grads.take(Part::Bias);
        if let (Some(of_bias), Some(of_forget)) = (&bias, self.grads.get_mut(Part::ForgetBias)) {
            for (block, sign) in problem.forget_blocks() {
                let from = of_bias.chunks_exact(problem.d_hidden).nth(block);
                for (to, from) in of_forget.iter_mut().zip(from.into_iter().flatten()) {
                    *to += sign * from;
                }
            }
        }
        let bias = bias.filter(|_| wanted.has(Part::Bias));
        self.grads.set(Part::Bias, bias);
        self.grads
    }
}

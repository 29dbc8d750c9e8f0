//! The buffers of a forward.

use alloc::vec::Vec;

use super::super::rounds::{RoundRows, SavedRound};
use super::super::{MadeFor, Saved};
use super::plan::Plan;
use crate::fused::cpu::buffer::Buffer;
use crate::fused::cpu::layout::row_of_tiles;
use crate::fused::cpu::rows::STATS;
use crate::fused::cpu::simd::Isa;
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Part, Parts};

/// Buffers that a forward writes in addition to its output.
pub struct Buffers {
    /// The tensors saved for the backward; without a backward only buffers for one step.
    pub saved: Saved,
    /// Pre-activations of a chunk, or of a step, if the gates are not saved.
    ring: Buffer,
    /// Per share a row of gates that is written but never read.
    unread: Buffer,
}

impl Buffers {
    pub fn new(isa: Isa, plan: &Plan, problem: &LstmProblem, parts: &Parts<&[f32]>) -> Self {
        let (rows, batch) = (problem.rows(), problem.batch_size());
        let (units, save) = (problem.d_hidden, plan.save);
        let room = |wanted: bool, size: usize| Buffer::new(if wanted { size } else { 0 });
        let each_row = |wanted: bool, size: usize| room(wanted, size * plan.saved_rows(problem));
        let (normed, kind) = (problem.norm_cell.is_some(), problem.kind(parts));
        let normed_input = problem.norm_input.is_some();
        let stats_rows = if save { rows } else { plan.most };
        let saved = Saved {
            made_for: save.then(|| MadeFor::new(isa, problem, parts)),
            layout: plan.gates,
            gates: room(save, plan.gates.size),
            cells: match (plan.all_cells, parts.has(Part::PeepholeFull)) {
                (true, _) => room(!problem.histories, rows * units),
                // Double buffer: all of c is read while c' is written panel by panel.
                (false, full) => room(full, 2 * batch * units),
            },
            preact_input: room(normed_input, plan.gates.size),
            stats_input: room(normed_input, stats_rows * STATS),
            preact_hidden: room(problem.norm_hidden.is_some(), plan.products.size),
            stats_hidden: each_row(problem.norm_hidden.is_some(), STATS),
            raw: each_row(normed || kind.peephole && kind.masked, units),
            normalized: each_row(normed, units),
            stats_cell: each_row(normed, STATS),
            unprojected: each_row(parts.has(Part::Projection), units),
            rounds: SavedRound::for_rows(problem, plan.saved_rows(problem)),
        };
        let sharers = plan.shares().max(plan.groups.len());
        Self {
            saved,
            ring: room(!save, plan.gates.size),
            unread: room(!save, sharers * problem.width()),
        }
    }

    /// The addresses of the buffers.
    ///
    /// # Arguments
    /// * `output` - the output of the call
    pub fn pointers(&mut self, problem: &LstmProblem, output: *mut f32) -> Pointers {
        let saved = &mut self.saved;
        let last_hidden = output.wrapping_add(problem.rows() * problem.d_output);
        Pointers {
            output,
            last_hidden,
            last_cell: last_hidden.wrapping_add(problem.batch_size() * problem.d_output),
            cells: match problem.histories {
                true => output.wrapping_add(problem.cells_start()),
                false => saved.cells.as_mut_ptr(),
            },
            ring: self.ring.as_mut_ptr(),
            unread: self.unread.as_mut_ptr(),
            gates: saved.gates.as_mut_ptr(),
            preact_input: saved.preact_input.as_mut_ptr(),
            stats_input: saved.stats_input.as_mut_ptr(),
            preact_hidden: saved.preact_hidden.as_mut_ptr(),
            stats_hidden: saved.stats_hidden.as_mut_ptr(),
            raw: saved.raw.as_mut_ptr(),
            normalized: saved.normalized.as_mut_ptr(),
            stats_cell: saved.stats_cell.as_mut_ptr(),
            unprojected: saved.unprojected.as_mut_ptr(),
            rounds: saved.rounds.iter_mut().map(RoundRows::new).collect(),
        }
    }
}

/// The addresses of the output and the buffers.
#[derive(Debug, Clone)]
pub struct Pointers {
    /// h' of all rows.
    pub output: *mut f32,
    /// The final h' of each sequence.
    pub last_hidden: *mut f32,
    /// The final c' of each sequence.
    pub last_cell: *mut f32,
    /// c', see [`Plan::all_cells`].
    pub cells: *mut f32,
    /// Pre-activations, if the gates are not saved.
    pub ring: *mut f32,
    /// Gates that are never read.
    pub unread: *mut f32,
    /// Activated gates.
    pub gates: *mut f32,
    /// x·W, then x·W + b_x, in the layout of the gates.
    pub preact_input: *mut f32,
    pub stats_input: *mut f32,
    pub preact_hidden: *mut f32,
    pub stats_hidden: *mut f32,
    pub raw: *mut f32,
    pub normalized: *mut f32,
    pub stats_cell: *mut f32,
    pub unprojected: *mut f32,
    pub rounds: Vec<RoundRows>,
}

impl Pointers {
    /// The addresses for sequences starting at `first`. Buffers saved for all steps are addressed by row
    /// of the call; other buffers have one row per sequence.
    ///
    /// # Arguments
    /// * `index` - index of the group
    pub fn of_group(&self, plan: &Plan, problem: &LstmProblem, first: usize, index: usize) -> Self {
        let units = problem.d_hidden;
        let own = |buffer: *mut f32, size: usize| match plan.save {
            true => buffer,
            false => buffer.wrapping_add(first * size),
        };
        let rounds = self.rounds.iter().enumerate().map(|(round, rows)| {
            let to = problem.round_shape(round).1;
            RoundRows {
                value: own(rows.value, to),
                gate: own(rows.gate, to),
                inner: own(rows.inner, problem.rounds[round].unwrap_or(0)),
            }
        });
        Self {
            rounds: rounds.collect(),
            last_cell: self.last_cell.wrapping_add(first * units),
            ring: own(self.ring, plan.gates.row),
            preact_hidden: own(self.preact_hidden, plan.products.row),
            stats_hidden: own(self.stats_hidden, STATS),
            raw: own(self.raw, units),
            normalized: own(self.normalized, units),
            stats_cell: own(self.stats_cell, STATS),
            unprojected: own(self.unprojected, units),
            unread: self.unread.wrapping_add(index * problem.width()),
            ..self.clone()
        }
    }
}

/// The vectors that are added to products, in the form that the phases read.
#[derive(Debug)]
pub struct Biases {
    /// b with b_f; zeros if it is absent and `x·W` is part of each step.
    pub row: Vec<f32>,
    /// Whether there is a bias.
    pub any: bool,
    /// The same, or the bias of a chunk, in the order of tiles.
    pub tiles: Vec<f32>,
    /// The sum of LN_x's shift and b.
    pub after_norm: Option<Vec<f32>>,
}

impl Biases {
    pub fn new(plan: &Plan, problem: &LstmProblem, parts: &Parts<&[f32]>) -> Self {
        let forget = parts.get(Part::ForgetBias);
        let any = parts.has(Part::Bias) || forget.is_some();
        let zeros = || {
            vec![
                0.0;
                if plan.in_step || any {
                    problem.width()
                } else {
                    0
                }
            ]
        };
        let mut row = parts
            .get(Part::Bias)
            .map_or_else(zeros, |bias| bias.to_vec());
        for (block, sign) in problem.forget_blocks() {
            let block = row.chunks_exact_mut(problem.d_hidden).nth(block);
            for (b, b_f) in block
                .into_iter()
                .flatten()
                .zip(forget.into_iter().copied().flatten())
            {
                *b += sign * b_f;
            }
        }
        let bias = any.then_some(&row[..]);
        let normed = problem.norm_input.is_some();
        Self {
            tiles: match plan.gates.is_tiled() && !normed {
                true => row_of_tiles(&plan.columns, bias),
                false => Vec::new(),
            },
            after_norm: normed
                .then(|| match (parts.get(Part::NormInputShift).copied(), bias) {
                    (Some(shift), Some(bias)) => {
                        Some(shift.iter().zip(bias).map(|(a, b)| a + b).collect())
                    }
                    (shift, bias) => shift.or(bias).map(<[f32]>::to_vec),
                })
                .flatten(),
            any,
            row,
        }
    }
}

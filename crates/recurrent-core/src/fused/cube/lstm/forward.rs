//! The loop over steps, forward.

use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::buffers::State;
use super::persistent::Persistent;
use super::rounds::Rounds;
use super::{Call, Saved};
use crate::fused::cube::buffer::{arg, copy, empty, flat as flattened, nothing, reshaped};
use crate::fused::cube::device::{cubes, elementwise};
use crate::fused::cube::pointwise::{HiddenBuffersLaunch, StateBuffersLaunch, project, step};
use crate::fused::cube::product::{product, times};
use crate::fused::cube::step::Direction;
use crate::fused::problem::Part;

/// The projection of a step.
struct Projection<'a> {
    matrix: &'a CubeTensor,
    /// What it projects `[B, H]`, and gives `[B, d_output]`.
    from: CubeTensor,
    to: CubeTensor,
    /// What it projects of all rows, or nothing.
    saved: CubeTensor,
    /// In place of the output, which the kernel of the cell does not write.
    unused: CubeTensor,
}

impl Projection<'_> {
    /// The buffers of the kernel of the cell.
    fn buffers<N: Size>(&self, state: &State, lanes: usize) -> StateBuffersLaunch<N> {
        StateBuffersLaunch {
            hidden: HiddenBuffersLaunch {
                state: arg(&self.from, lanes),
                out: arg(&self.unused, lanes),
                saved: arg(&self.saved, lanes),
            },
            ..state.buffers(lanes)
        }
    }
}

/// Runs all steps: the output (h of all rows, then the last h and c of each sequence), and what is
/// saved, of the given shapes.
pub fn forward(call: &Call<'_>, shapes: &[[usize; 2]]) -> (CubeTensor, Vec<CubeTensor>) {
    let (problem, parts) = (call.problem, &call.parts);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (d_hidden, d_output) = (problem.d_hidden, problem.d_output);
    let like = *parts.of(Part::Input);
    let tensors: Vec<CubeTensor> = shapes.iter().map(|&shape| empty(like, shape)).collect();
    let forward = Forward::new(call, &tensors);
    let State {
        cell,
        hidden,
        flat,
        before,
        ..
    } = &forward.state;
    copy(parts.of(Part::Cell), 0, cell, 0, batch * d_hidden);
    let first = parts.of(Part::Hidden);
    copy(first, 0, hidden, 0, batch * d_output);
    if call.kind.save {
        copy(first, 0, before, 0, batch * d_output);
    }
    // Either all steps are in one launch, or none is.
    match Persistent::new(call) {
        Some(persistent) => persistent.forward(call, &forward.projected, &forward.state),
        None => (0..problem.counts.len()).for_each(|step| forward.step(step)),
    }
    // Rows that have ended were left alone.
    copy(hidden, 0, flat, rows * d_output, batch * d_output);
    copy(cell, 0, flat, (rows + batch) * d_output, batch * d_hidden);
    let flat = flattened(flat.clone());
    (flat, tensors)
}

/// A forward: what its steps read and write.
struct Forward<'a> {
    call: &'a Call<'a>,
    /// x·W of all rows; of one step with rounds.
    projected: CubeTensor,
    state: State,
    /// c before each row.
    cells_before: CubeTensor,
    /// h·R of a step `[B, G·H]`, and c·V.
    recurrent: CubeTensor,
    peeped: CubeTensor,
    projection: Option<Projection<'a>>,
    rounds: Option<Rounds<'a>>,
}

impl<'a> Forward<'a> {
    /// # Arguments
    /// * `tensors` - where to save what the backward needs
    fn new(call: &'a Call<'a>, tensors: &[CubeTensor]) -> Self {
        let (problem, parts, kind) = (call.problem, &call.parts, call.kind);
        let (batch, d_hidden, d_output) =
            (problem.batch_size(), problem.d_hidden, problem.d_output);
        let like = *parts.of(Part::Input);
        let saved = kind.save.then(|| Saved::of(call, tensors));
        let or_nothing = |tensor: Option<&CubeTensor>| match tensor {
            Some(tensor) => tensor.clone(),
            None => nothing(like),
        };
        let rounds = Rounds::new(call, saved.as_ref().map_or(&[], |saved| saved.rounds));
        let projected = match (&rounds, parts.get(Part::WeightInput)) {
            // A product per step, in one buffer.
            (Some(rounds), _) => rounds.projected.clone(),
            (None, Some(&weight)) => times(like.clone(), weight.clone()),
            (None, None) => like.clone(),
        };
        let state = State {
            cell: empty(like, [batch, d_hidden]),
            hidden: empty(like, [batch, d_output]),
            flat: empty(like, [1, problem.output_len()]),
            rows: match &saved {
                Some(saved) => saved.rows.clone(),
                None if kind.by_row() => empty(like, [batch, kind.saved_pieces() * d_hidden]),
                None => nothing(like),
            },
            before: or_nothing(saved.as_ref().map(|saved| saved.before)),
        };
        Self {
            projected,
            state,
            cells_before: or_nothing(saved.as_ref().and_then(|saved| saved.cells_before)),
            recurrent: empty(like, [batch, problem.width()]),
            peeped: match kind.full {
                true => empty(like, [batch, problem.width()]),
                false => nothing(like),
            },
            projection: parts.get(Part::Projection).map(|&matrix| Projection {
                matrix,
                from: empty(like, [batch, d_hidden]),
                to: empty(like, [batch, d_output]),
                saved: or_nothing(saved.as_ref().and_then(|saved| saved.unprojected)),
                unused: nothing(like),
            }),
            rounds,
            call,
        }
    }

    /// One step.
    fn step(&self, step: usize) {
        let problem = self.call.problem;
        let (count, d_hidden) = (problem.counts[step], problem.d_hidden);
        self.products(step);
        self.cell(step);
        if problem.histories {
            let at = problem.cells_start() + self.call.offsets[step] * d_hidden;
            copy(&self.state.cell, 0, &self.state.flat, at, count * d_hidden);
        }
        if let Some(projection) = &self.projection {
            self.project(projection, step);
        }
    }

    /// h·R and c·V, after the rounds.
    fn products(&self, step: usize) {
        let (call, problem) = (self.call, self.call.problem);
        let (count, width) = (problem.counts[step], problem.width());
        let hidden = match &self.rounds {
            Some(rounds) => rounds.run(call, step, &self.state.hidden),
            None => self.state.hidden.clone(),
        };
        product(
            reshaped(hidden, [count, problem.d_output]),
            (*call.parts.of(Part::WeightHidden)).clone(),
            reshaped(self.recurrent.clone(), [count, width]),
        );
        if call.kind.full {
            product(
                reshaped(self.state.cell.clone(), [count, problem.d_hidden]),
                (*call.parts.of(Part::PeepholeFull)).clone(),
                reshaped(self.peeped.clone(), [count, width]),
            );
        }
    }

    /// From pre-activations to c' and h'.
    fn cell(&self, step: usize) {
        let (call, problem, kind) = (self.call, self.call.problem, self.call.kind);
        let like = &self.recurrent;
        let lanes = call.cell.lanes;
        let count = problem.counts[step];
        let (cubes, units) = cubes(like, count, problem.d_hidden / lanes, kind.threads);
        step::launch(
            &like.client,
            cubes,
            units,
            lanes,
            arg(&self.projected, lanes),
            arg(&self.recurrent, lanes),
            arg(&self.peeped, lanes),
            call.buffers(lanes),
            match &self.projection {
                Some(projection) => projection.buffers(&self.state, lanes),
                None => self.state.buffers(lanes),
            },
            arg(&self.cells_before, lanes),
            call.scalars(step, Direction::Forward, &call.cell, lanes),
            kind,
        );
    }

    /// The projection, and the masks on h after it.
    fn project(&self, projection: &Projection<'_>, step: usize) {
        let (call, problem) = (self.call, self.call.problem);
        let (count, d_output) = (problem.counts[step], problem.d_output);
        let Projection {
            matrix, from, to, ..
        } = projection;
        product(
            reshaped(from.clone(), [count, problem.d_hidden]),
            (*matrix).clone(),
            reshaped(to.clone(), [count, d_output]),
        );
        let lanes = call.projected.lanes;
        let (cubes, units) = elementwise(to, count * d_output / lanes);
        project::launch(
            &to.client,
            cubes,
            units,
            lanes,
            arg(to, lanes),
            arg(&call.projected.masks.values, lanes),
            self.state.hidden_buffers(lanes),
            call.scalars(step, Direction::Forward, &call.projected, lanes),
            call.projected_masks,
            call.kind.save,
        );
    }
}

//! The loop over steps, forward.

use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::{Call, Recurrent, rows_times};
use crate::fused::cube::buffer::{arg, copy, empty, flat as flattened, nothing};
use crate::fused::cube::device::elementwise;
use crate::fused::cube::pointwise::gru::{
    GruCallBuffersLaunch, GruStateBuffersLaunch, mix, open_gates, step,
};
use crate::fused::cube::product::times;
use crate::fused::problem::Part;

/// What all steps read and write.
struct Steps<'a, 'c> {
    call: &'a Call<'c>,
    /// x·W of all rows.
    projected: CubeTensor,
    /// h, the running state.
    hidden: CubeTensor,
    /// The output.
    out: CubeTensor,
    /// The saved rows; of the reset gate before the product, a scratch where nothing is saved.
    saved: CubeTensor,
    /// h·R, or h·R_rz.
    from_hidden: CubeTensor,
    /// r ⊙ h and (r ⊙ h)·R_n, where the reset gate acts before the product.
    reset_hidden: CubeTensor,
    from_reset: CubeTensor,
}

impl Steps<'_, '_> {
    fn given<N: Size>(&self) -> GruCallBuffersLaunch<N> {
        let lanes = self.call.lanes;
        GruCallBuffersLaunch {
            projected: arg(&self.projected, lanes),
            vectors: arg(&self.call.vectors, lanes),
            masks: arg(&self.call.masks, lanes),
        }
    }

    fn state<N: Size>(&self) -> GruStateBuffersLaunch<N> {
        let lanes = self.call.lanes;
        GruStateBuffersLaunch {
            hidden: arg(&self.hidden, lanes),
            out: arg(&self.out, lanes),
            saved: arg(&self.saved, lanes),
        }
    }

    fn run(&self, index: usize) {
        let (call, kind, lanes) = (self.call, self.call.kind, self.call.lanes);
        let count = call.problem.counts[index];
        let client = &self.out.client;
        let (cubes, units) = elementwise(&self.out, count * call.problem.d_hidden / lanes);
        match &call.recurrent {
            Recurrent::Whole(weight) => {
                rows_times(count, &self.hidden, weight, &self.from_hidden);
                step::launch(
                    client,
                    cubes,
                    units,
                    lanes,
                    arg(&self.from_hidden, lanes),
                    self.given(),
                    self.state(),
                    call.scalars(index),
                    kind,
                );
            }
            Recurrent::Split { gates, candidate } => {
                rows_times(count, &self.hidden, gates, &self.from_hidden);
                open_gates::launch(
                    client,
                    cubes.clone(),
                    units,
                    lanes,
                    arg(&self.from_hidden, lanes),
                    self.given(),
                    self.state(),
                    arg(&self.reset_hidden, lanes),
                    call.scalars(index),
                    kind,
                );
                rows_times(count, &self.reset_hidden, candidate, &self.from_reset);
                mix::launch(
                    client,
                    cubes,
                    units,
                    lanes,
                    arg(&self.from_reset, lanes),
                    self.given(),
                    self.state(),
                    call.scalars(index),
                    kind,
                );
            }
        }
    }
}

/// Runs all steps: the output (h' of all rows, then the last h' of each sequence), and what is saved, of
/// the given shapes.
pub fn forward(call: &Call<'_>, shapes: &[[usize; 2]]) -> (CubeTensor, Vec<CubeTensor>) {
    let problem = call.problem;
    let (rows, batch, d_hidden) = (problem.rows(), problem.batch_size(), problem.d_hidden);
    let like = *call.parts.of(Part::Input);
    let weight = *call.parts.of(Part::WeightInput);
    let split = matches!(call.recurrent, Recurrent::Split { .. });
    let if_split = |features: usize| match split {
        true => empty(like, [batch, features]),
        false => nothing(like),
    };

    let saved: Vec<CubeTensor> = shapes.iter().map(|&shape| empty(like, shape)).collect();
    let steps = Steps {
        call,
        projected: times(like.clone(), weight.clone()),
        hidden: empty(like, [batch, d_hidden]),
        out: empty(like, [1, problem.output_len()]),
        saved: match saved.first() {
            Some(saved) => saved.clone(),
            None => if_split(call.kind.saved() * d_hidden),
        },
        from_hidden: match split {
            true => empty(like, [batch, 2 * d_hidden]),
            false => empty(like, [batch, 3 * d_hidden]),
        },
        reset_hidden: if_split(d_hidden),
        from_reset: if_split(d_hidden),
    };
    let (hidden, out) = (&steps.hidden, &steps.out);
    copy(call.parts.of(Part::Hidden), 0, hidden, 0, batch * d_hidden);
    for index in 0..problem.counts.len() {
        steps.run(index);
    }

    // Rows that have ended were left alone.
    copy(hidden, 0, out, rows * d_hidden, batch * d_hidden);
    (flattened(steps.out), saved)
}

//! The loop over steps and layers, forward.

use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::{Call, LayerCall, LayerStep, SAVED_TENSORS, Saved};
use crate::fused::cube::buffer::{
    Columns, arg, copy, copy_columns, copy_rows, empty, flat as flattened, nothing, reshaped,
};
use crate::fused::cube::device::elementwise;
use crate::fused::cube::pointwise::adaptive::{SeenBuffersLaunch, adapt, advance, scale};
use crate::fused::cube::product::{product, times};
use crate::fused::cube::step::Direction;
use crate::fused::problem::adaptive::StatePart;

/// Buffers of one step of a layer.
struct Buffers {
    /// x·W_a of all rows, in the first layer.
    projected: CubeTensor,
    /// What the adaptation cell sees.
    seen: CubeTensor,
    /// The same times W_a and R_a.
    preact: CubeTensor,
    /// z'
    z: CubeTensor,
    /// z'·P
    unsquashed: CubeTensor,
    /// p, where it is not saved.
    policy: CubeTensor,
    /// x ⊙ p_x and h ⊙ p_h.
    scaled: CubeTensor,
    /// a and b.
    from: CubeTensor,
}

impl Buffers {
    fn new(call: &Call<'_>, layer: &LayerCall<'_>) -> Self {
        let (sizes, batch) = (layer.sizes, call.problem.batch_size());
        let buffer = |rows: usize, features: usize| empty(call.input, [rows, features]);
        let projected = layer.from_input.clone();
        Self {
            projected: match projected {
                Some(weight) => times(call.input.clone(), weight),
                None => nothing(call.input),
            },
            seen: buffer(batch, layer.seen.size),
            preact: buffer(batch, 4 * sizes.d_adapt),
            z: buffer(batch, sizes.d_adapt),
            unsquashed: buffer(batch, sizes.policy()),
            policy: buffer(batch, sizes.policy()),
            scaled: buffer(2 * batch, layer.d_pair),
            from: buffer(2 * batch, 4 * sizes.d_hidden),
        }
    }
}

/// What the forward of a call computes with.
struct Forward<'a> {
    call: &'a Call<'a>,
    /// Of each layer.
    buffers: Vec<Buffers>,
    /// Saved tensors of each layer, or none.
    saved: Vec<CubeTensor>,
    /// In place of saved tensors, and of what a layer above sees where there is none. No kernel is given one
    /// buffer twice.
    unused: Vec<CubeTensor>,
    unused_above: [CubeTensor; 2],
    /// The running states.
    states: CubeTensor,
    /// The output.
    flat: CubeTensor,
}

/// Runs all steps of all layers: the output (y of all rows, then the last states of each sequence), and
/// what is saved, of the given shapes.
pub fn forward(call: &Call<'_>, shapes: &[[usize; 2]]) -> (CubeTensor, Vec<CubeTensor>) {
    let problem = call.problem;
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (d_output, state_size) = (problem.d_output(), problem.state_size());
    let like = call.input;
    let layers = call.layers.iter();
    let forward = Forward {
        call,
        buffers: layers.map(|layer| Buffers::new(call, layer)).collect(),
        saved: shapes.iter().map(|&shape| empty(like, shape)).collect(),
        unused: (0..SAVED_TENSORS).map(|_| nothing(like)).collect(),
        unused_above: [nothing(like), nothing(like)],
        states: empty(like, [batch, state_size]),
        flat: empty(like, [1, problem.output_len()]),
    };
    copy(call.states, 0, &forward.states, 0, batch * state_size);
    for (index, buffers) in forward.buffers.iter().enumerate() {
        see_first(call, index, &buffers.seen);
        if !forward.saved.is_empty() {
            see_first(call, index, forward.saved(index).seen());
        }
    }
    for step in 0..problem.counts.len() {
        for layer in 0..call.layers.len() {
            forward.run(LayerStep { step, layer });
        }
    }
    // Rows that have ended were left alone.
    let Forward {
        states,
        flat,
        saved,
        ..
    } = forward;
    copy(&states, 0, &flat, rows * d_output, batch * state_size);
    (flattened(flat), saved)
}

impl Forward<'_> {
    /// What is saved of a layer: nothing, or all of it.
    fn saved(&self, layer: usize) -> Saved<'_> {
        match self.saved.is_empty() {
            true => Saved::of(&self.unused, 0),
            false => Saved::of(&self.saved, layer),
        }
    }

    /// The rows that adaptation cells see, where a layer writes its states.
    fn seen<N: Size>(&self, layer: usize) -> SeenBuffersLaunch<N> {
        let above = self.call.above(layer);
        let saved_above = above.filter(|_| !self.saved.is_empty());
        let arg = |tensor: &CubeTensor| arg(tensor, self.call.lanes);
        SeenBuffersLaunch {
            own: arg(&self.buffers[layer].seen),
            own_rows: arg(self.saved(layer).seen()),
            above: arg(above.map_or(&self.unused_above[0], |above| &self.buffers[above].seen)),
            above_rows: arg(match saved_above {
                Some(above) => self.saved(above).seen(),
                None => &self.unused_above[1],
            }),
        }
    }

    /// A layer at a step.
    fn run(&self, at: LayerStep) {
        let Self {
            call, states, flat, ..
        } = self;
        let LayerStep { step, layer: index } = at;
        let layer = &call.layers[index];
        let LayerCall {
            sizes, kind, seen, ..
        } = layer;
        let (buffers, saved) = (&self.buffers[index], self.saved(index));
        let (count, lanes) = (call.problem.counts[step], call.lanes);
        let client = &flat.client;
        let launch = |features: usize| elementwise(flat, count * features / lanes);
        let arg = |tensor: &CubeTensor| arg(tensor, lanes);

        product(
            reshaped(buffers.seen.clone(), [count, seen.size]),
            layer.from_seen.clone(),
            reshaped(buffers.preact.clone(), [count, 4 * sizes.d_adapt]),
        );
        let (cubes, units) = launch(sizes.d_adapt);
        adapt::launch(
            client,
            cubes,
            units,
            lanes,
            arg(&buffers.projected),
            arg(&buffers.preact),
            arg(call.biases),
            arg(&call.masks),
            arg(states),
            arg(&buffers.z),
            arg(saved.z()),
            arg(saved.adapt_rows()),
            self.seen(index),
            call.scalars(at, Direction::Forward),
            *kind,
        );

        product(
            reshaped(buffers.z.clone(), [count, sizes.d_adapt]),
            layer.policy.clone(),
            reshaped(buffers.unsquashed.clone(), [count, sizes.policy()]),
        );
        let policy = if kind.save {
            saved.policy()
        } else {
            &buffers.policy
        };
        let [scaled_input, scaled_hidden] = saved.scaled();
        let (cubes, units) = launch(sizes.policy());
        scale::launch(
            client,
            cubes,
            units,
            lanes,
            arg(&buffers.unsquashed),
            arg(call.input),
            arg(states),
            arg(policy),
            arg(&buffers.scaled),
            arg(scaled_input),
            arg(scaled_hidden),
            call.scalars(at, Direction::Forward),
            *kind,
        );

        product(
            reshaped(buffers.scaled.clone(), [2, count, layer.d_pair]),
            layer.pair.clone(),
            reshaped(buffers.from.clone(), [2, count, 4 * sizes.d_hidden]),
        );
        let (cubes, units) = launch(sizes.d_hidden);
        advance::launch(
            client,
            cubes,
            units,
            lanes,
            arg(&buffers.from),
            arg(policy),
            arg(call.biases),
            arg(&call.masks),
            arg(states),
            arg(flat),
            arg(saved.rows()),
            self.seen(index),
            call.scalars(at, Direction::Forward),
            *kind,
        );

        for part in StatePart::ALL {
            if let Some(to) = call.history(flat, at, part) {
                let from = call.state_rows(states, index, part);
                copy_rows(from, to, count, to.stride, false);
            }
        }
    }
}

/// What a layer sees of the first states; x and z_below of layers above the first come at the step.
fn see_first(call: &Call<'_>, index: usize, to: &CubeTensor) {
    let problem = call.problem;
    let LayerCall { sizes, seen, .. } = &call.layers[index];
    let mut parts = vec![
        (index, StatePart::Hidden, sizes.d_hidden, seen.hidden),
        (index, StatePart::Z, sizes.d_adapt, seen.z),
    ];
    if index == 0 && call.layers.len() > 1 {
        let below = problem.below(index);
        parts.push((below, StatePart::Z, problem.d_below(index), seen.below));
    }
    for (layer, part, features, start) in parts {
        let from = Columns {
            matrix: call.states,
            start: problem.state_part(layer, part),
        };
        let to = Columns { matrix: to, start };
        copy_columns(from, to, problem.batch_size(), features, false);
    }
}

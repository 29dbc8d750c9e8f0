//! The loop over steps and layers, forward.

use alloc::vec::Vec;

use burn_cubecl::tensor::CubeTensor;

use super::{Call, KEPT, Kept, LayerCall};
use crate::fused::cube::buffer::{
    Columns, arg, copy, copy_columns, copy_rows, empty, flat as flattened, nothing, reshaped,
};
use crate::fused::cube::device::elementwise;
use crate::fused::cube::pointwise::adaptive::{adapt, advance, scale};
use crate::fused::cube::product::{product, times};
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
    /// p, where it is not kept.
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

/// Runs all steps of all layers: the output (y of all rows, then the last states of each sequence), and
/// what is kept, of the given shapes.
pub fn forward(call: &Call<'_>, kept: &[[usize; 2]]) -> (CubeTensor, Vec<CubeTensor>) {
    let problem = call.problem;
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (d_output, state_size) = (problem.d_output(), problem.state_size());
    let like = call.input;
    let kept: Vec<CubeTensor> = kept.iter().map(|&shape| empty(like, shape)).collect();
    // A layer keeps nothing, or all of it. No kernel is given one buffer twice.
    let unused: Vec<CubeTensor> = (0..KEPT).map(|_| nothing(like)).collect();
    let unused_above = [nothing(like), nothing(like)];
    let kept_of = |layer: usize| match kept.is_empty() {
        true => Kept::of(&unused, 0),
        false => Kept::of(&kept, layer),
    };
    let buffers: Vec<Buffers> = (call.layers.iter())
        .map(|layer| Buffers::new(call, layer))
        .collect();
    let flat = empty(like, [1, problem.output_len()]);
    let states = empty(like, [batch, state_size]);
    copy(call.states, 0, &states, 0, batch * state_size);
    for (index, buffers) in buffers.iter().enumerate() {
        see_first(call, index, &buffers.seen);
        if !kept.is_empty() {
            see_first(call, index, kept_of(index).seen());
        }
    }

    for step in 0..problem.counts.len() {
        for index in 0..call.layers.len() {
            let above = call.above(index);
            let above = (
                above.map_or(&unused_above[0], |above| &buffers[above].seen),
                match above.filter(|_| !kept.is_empty()) {
                    Some(above) => kept_of(above).seen(),
                    None => &unused_above[1],
                },
            );
            run(
                call,
                step,
                index,
                &buffers[index],
                &kept_of(index),
                above,
                &states,
                &flat,
            );
        }
    }

    // Rows that have ended were left alone.
    copy(&states, 0, &flat, rows * d_output, batch * state_size);
    (flattened(flat), kept)
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

/// A layer at a step.
///
/// # Arguments
/// * `above` - what the layer above sees, of the step and of all rows
#[allow(clippy::too_many_arguments)] // what a step is made of
fn run(
    call: &Call<'_>,
    step: usize,
    index: usize,
    buffers: &Buffers,
    kept: &Kept<'_>,
    above: (&CubeTensor, &CubeTensor),
    states: &CubeTensor,
    flat: &CubeTensor,
) {
    let LayerCall {
        sizes, kind, seen, ..
    } = &call.layers[index];
    let layer = &call.layers[index];
    let (count, lanes) = (call.problem.counts[step], call.lanes);
    let next = call.offsets[step + 1];
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
        arg(kept.z()),
        arg(kept.adapt_tape()),
        arg(&buffers.seen),
        arg(kept.seen()),
        arg(above.0),
        arg(above.1),
        call.at(step, index, next),
        *kind,
    );

    product(
        reshaped(buffers.z.clone(), [count, sizes.d_adapt]),
        layer.policy.clone(),
        reshaped(buffers.unsquashed.clone(), [count, sizes.policy()]),
    );
    let policy = if kind.keep {
        kept.policy()
    } else {
        &buffers.policy
    };
    let [scaled_input, scaled_hidden] = kept.scaled();
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
        call.at(step, index, next),
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
        arg(kept.tape()),
        arg(&buffers.seen),
        arg(kept.seen()),
        arg(above.0),
        arg(above.1),
        call.at(step, index, next),
        *kind,
    );

    for part in StatePart::ALL {
        if let Some(to) = call.history(flat, step, index, part) {
            let from = call.state_rows(states, index, part);
            copy_rows(from, to, count, to.stride, false);
        }
    }
}

//! The loop over steps and layers, backward, and the gradients that are products and sums over all rows.

use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::{Call, LayerCall, LayerStep, Saved};
use crate::fused::cube::buffer::{
    Columns, RowsOf, arg, copy, copy_columns, copy_rows, empty, joined, nothing, reshaped,
    sum_rows, transposed,
};
use crate::fused::cube::device::elementwise;
use crate::fused::cube::pointwise::adaptive::{
    LayerSavedLaunch, SeenGradsLaunch, adapt_back, advance_back, scale_back,
};
use crate::fused::cube::product::{product, times};
use crate::fused::cube::step::Direction;
use crate::fused::problem::adaptive::{BIASES, INPUT, STATES, StatePart, Weight, weight_index};

/// Gradients of a layer on the way back, of a step unless they are said to be of all rows; and its
/// weights, transposed.
struct Grads {
    /// ∂a and ∂b.
    from: CubeTensor,
    /// ∂(x ⊙ p_x) and ∂(h ⊙ p_h).
    scaled: CubeTensor,
    /// ∂p_i, ∂p_g and ∂p_b.
    parts: CubeTensor,
    /// ∂(z'·P)
    unsquashed: CubeTensor,
    /// ∂z' through P.
    through: CubeTensor,
    /// ∂q
    preact: CubeTensor,
    /// ∂ of what the adaptation cell saw.
    seen: CubeTensor,
    /// ∂a of all rows.
    from_input: CubeTensor,
    /// ∂b of all rows.
    from_hidden: CubeTensor,
    /// Of all rows; its sum is the gradient of the bias.
    bias: CubeTensor,
    /// ∂(z'·P) of all rows.
    policy: CubeTensor,
    /// ∂q of all rows.
    adapt: CubeTensor,
    /// W and R.
    pair_back: CubeTensor,
    /// P
    policy_back: CubeTensor,
    /// W_a without the rows of x, and R_a.
    seen_back: CubeTensor,
}

impl Grads {
    fn new(call: &Call<'_>, layer: &LayerCall<'_>) -> Self {
        let (rows, batch) = (call.problem.rows(), call.problem.batch_size());
        let LayerCall { sizes, kind, .. } = layer;
        let (width, adapt_width) = (4 * sizes.d_hidden, 4 * sizes.d_adapt);
        let buffer = |rows: usize, features: usize| empty(call.input, [rows, features]);
        Self {
            from: buffer(2 * batch, width),
            scaled: buffer(2 * batch, layer.d_pair),
            parts: buffer(batch, kind.parts() * width),
            unsquashed: buffer(batch, sizes.policy()),
            through: buffer(batch, sizes.d_adapt),
            preact: buffer(batch, adapt_width),
            seen: buffer(batch, layer.seen.size),
            from_input: buffer(rows, width),
            from_hidden: buffer(rows, width),
            bias: match kind.bias {
                true => buffer(rows, width),
                false => nothing(call.input),
            },
            policy: buffer(rows, sizes.policy()),
            adapt: buffer(rows, adapt_width),
            pair_back: transposed(&layer.pair),
            policy_back: transposed(layer.policy),
            seen_back: transposed(&layer.from_seen),
        }
    }
}

/// What the backward of a call computes with.
struct Backward<'a> {
    call: &'a Call<'a>,
    /// Of each layer.
    layers: Vec<Grads>,
    /// Saved by the forward.
    saved: &'a [CubeTensor],
    /// ∂ of the output.
    grad: &'a CubeTensor,
    /// ∂ of the states of all layers.
    states: CubeTensor,
    /// ∂x of all rows, as far as it comes from W.
    input: CubeTensor,
}

/// The gradients of a call.
///
/// # Arguments
/// * `saved` - by the forward
/// * `grad` - of the output, of its layout
/// * `wanted` - whose gradients are asked for
pub fn backward(
    call: &Call<'_>,
    saved: &[CubeTensor],
    grad: &CubeTensor,
    wanted: &[bool],
) -> Vec<Option<CubeTensor>> {
    let problem = call.problem;
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let like = call.input;
    let layers = call.layers.iter();
    let backward = Backward {
        call,
        layers: layers.map(|layer| Grads::new(call, layer)).collect(),
        saved,
        grad,
        states: empty(like, [batch, problem.state_size()]),
        input: empty(like, [rows, problem.layers[0].d_input]),
    };
    // A sequence that ends earlier begins with the gradient of its last state, since nothing has
    // written its rows by then.
    let first = rows * problem.d_output();
    let states = batch * problem.state_size();
    copy(grad, first, &backward.states, 0, states);
    for step in (0..problem.counts.len()).rev() {
        for layer in (0..call.layers.len()).rev() {
            backward.run(LayerStep { step, layer });
        }
    }
    let Backward {
        layers,
        states: grad_states,
        input: grad_input,
        ..
    } = backward;
    see_first_back(call, &layers, &grad_states);

    let mut grads: Vec<Option<CubeTensor>> = wanted.iter().map(|_| None).collect();
    let mut set = |index: usize, grad: &dyn Fn() -> CubeTensor| {
        if wanted[index] {
            grads[index] = Some(grad());
        }
    };
    set(INPUT, &|| {
        let weight = call.layers[0].from_input.as_ref();
        let weight = transposed(weight.expect("the first layer's weights of x"));
        let adapted = times(layers[0].adapt.clone(), weight);
        burn_cubecl::ops::numeric::add(grad_input.clone(), adapted)
    });
    set(STATES, &|| grad_states.clone());
    set(BIASES, &|| {
        let of_layer = |(grads, layer): (&Grads, &LayerCall<'_>)| {
            let bias = layer.kind.bias.then(|| sum_rows(grads.bias.clone()));
            [Some(sum_rows(grads.adapt.clone())), bias]
        };
        let sums = layers.iter().zip(&call.layers).flat_map(of_layer);
        joined(sums.flatten().collect())
    });
    for (index, (grads, layer)) in layers.iter().zip(&call.layers).enumerate() {
        let saved = Saved::of(saved, index);
        let at = |weight: Weight| weight_index(index, weight);
        let [scaled_input, scaled_hidden] = saved.scaled();
        let (input, hidden) = (&grads.from_input, &grads.from_hidden);
        for (weight, from, grad) in [
            (Weight::Input, scaled_input, input),
            (Weight::Hidden, scaled_hidden, hidden),
            (Weight::Policy, saved.z(), &grads.policy),
        ] {
            set(at(weight), &|| times(transposed(from), grad.clone()));
        }
        let adapting = [Weight::AdaptInput, Weight::AdaptHidden].map(at);
        if adapting.iter().any(|&index| wanted[index]) {
            // Of W_a without the rows of x, and of R_a below them.
            let both = times(transposed(saved.seen()), grads.adapt.clone());
            let width = 4 * layer.sizes.d_adapt;
            let count = layer.seen.z * width;
            set(adapting[0], &|| {
                let split = layer.sizes.d_input * usize::from(layer.kind.first);
                let grad = empty(like, [split + layer.seen.z, width]);
                if layer.kind.first {
                    let from_input = times(transposed(call.input), grads.adapt.clone());
                    copy(&from_input, 0, &grad, 0, split * width);
                }
                copy(&both, 0, &grad, split * width, count);
                grad
            });
            set(adapting[1], &|| {
                let grad = empty(like, [layer.sizes.d_adapt, width]);
                copy(&both, count, &grad, 0, layer.sizes.d_adapt * width);
                grad
            });
        }
    }
    grads
}

/// What the first step has seen of the first states.
fn see_first_back(call: &Call<'_>, layers: &[Grads], grad_states: &CubeTensor) {
    let problem = call.problem;
    let pass = |matrix: &CubeTensor, from: usize, to: usize, features: usize, add: bool| {
        let from = Columns {
            matrix,
            start: from,
        };
        let to = Columns {
            matrix: grad_states,
            start: to,
        };
        copy_columns(from, to, problem.batch_size(), features, add);
    };
    for (index, (grads, layer)) in layers.iter().zip(&call.layers).enumerate() {
        let LayerCall { sizes, seen, .. } = layer;
        let part = |part| problem.state_part(index, part);
        let (hidden, z) = (part(StatePart::Hidden), part(StatePart::Z));
        pass(&grads.seen, seen.hidden, hidden, sizes.d_hidden, true);
        // What had been there went into the last step of each sequence.
        pass(&grads.seen, seen.z, z, sizes.d_adapt, false);
    }
    if layers.len() > 1 {
        let below = call.layers[0].seen.below;
        let z = problem.state_part(problem.below(0), StatePart::Z);
        pass(&layers[0].seen, below, z, problem.d_below(0), true);
    }
}

impl Backward<'_> {
    /// The gradients of what adaptation cells saw of a layer's states.
    fn seen<N: Size>(&self, layer: usize) -> SeenGradsLaunch<N> {
        let above = self.call.above(layer).unwrap_or(layer);
        SeenGradsLaunch {
            own: arg(&self.layers[layer].seen, self.call.lanes),
            above: arg(&self.layers[above].seen, self.call.lanes),
        }
    }

    /// # Arguments
    /// * `rows` - the saved ones of a cell
    fn saved_rows<N: Size>(&self, rows: &CubeTensor) -> LayerSavedLaunch<N> {
        LayerSavedLaunch {
            rows: arg(rows, self.call.lanes),
            first_states: arg(self.call.states, self.call.lanes),
        }
    }

    /// Back through a layer at a step.
    fn run(&self, at: LayerStep) {
        let Self { call, grad, .. } = self;
        let LayerStep { step, layer: index } = at;
        let LayerCall {
            sizes,
            kind,
            seen,
            d_pair,
            ..
        } = &call.layers[index];
        let (grads, saved) = (&self.layers[index], Saved::of(self.saved, index));
        let (count, lanes) = (call.problem.counts[step], call.lanes);
        let (width, adapt_width) = (4 * sizes.d_hidden, 4 * sizes.d_adapt);
        let client = &grad.client;
        let launch = |features: usize| elementwise(grad, count * features / lanes);
        let arg = |tensor: &CubeTensor| arg(tensor, lanes);
        // What parts of the state have as outputs of the call.
        let add_given = |part: StatePart, to: RowsOf<'_>| {
            if let Some(from) = call.history(grad, at, part) {
                copy_rows(from, to, count, from.stride, true);
            }
        };
        for part in [StatePart::Cell, StatePart::Hidden, StatePart::AdaptCell] {
            add_given(part, call.state_rows(&self.states, index, part));
        }

        let (cubes, units) = launch(sizes.d_hidden);
        advance_back::launch(
            client,
            cubes,
            units,
            lanes,
            arg(grad),
            self.seen(index),
            self.saved_rows(saved.rows()),
            arg(saved.policy()),
            arg(call.biases),
            arg(&call.masks),
            arg(&self.states),
            arg(&grads.from),
            arg(&grads.from_input),
            arg(&grads.from_hidden),
            arg(&grads.parts),
            arg(&grads.bias),
            call.scalars(at, Direction::Backward),
            *kind,
        );
        product(
            reshaped(grads.from.clone(), [2, count, width]),
            grads.pair_back.clone(),
            reshaped(grads.scaled.clone(), [2, count, *d_pair]),
        );

        let (cubes, units) = launch(sizes.policy());
        scale_back::launch(
            client,
            cubes,
            units,
            lanes,
            arg(&grads.scaled),
            arg(&grads.parts),
            arg(saved.policy()),
            arg(call.input),
            arg(saved.seen()),
            arg(&self.states),
            arg(&self.input),
            arg(&grads.unsquashed),
            arg(&grads.policy),
            call.scalars(at, Direction::Backward),
            *kind,
        );
        product(
            reshaped(grads.unsquashed.clone(), [count, sizes.policy()]),
            grads.policy_back.clone(),
            reshaped(grads.through.clone(), [count, sizes.d_adapt]),
        );
        // The kernel reads ∂z' of the states at the last step of a sequence only.
        let through = Columns {
            matrix: &grads.through,
            start: 0,
        };
        add_given(StatePart::Z, through.into());

        let (cubes, units) = launch(sizes.d_adapt);
        adapt_back::launch(
            client,
            cubes,
            units,
            lanes,
            arg(&grads.through),
            self.seen(index),
            self.saved_rows(saved.adapt_rows()),
            arg(&call.masks),
            arg(&self.states),
            arg(&grads.preact),
            arg(&grads.adapt),
            call.scalars(at, Direction::Backward),
            *kind,
        );
        product(
            reshaped(grads.preact.clone(), [count, adapt_width]),
            grads.seen_back.clone(),
            reshaped(grads.seen.clone(), [count, seen.size]),
        );
    }
}

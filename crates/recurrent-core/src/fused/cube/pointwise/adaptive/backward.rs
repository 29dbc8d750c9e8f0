//! The kernels of a step, backward.
//!
//! One matrix holds the gradients of the states, from the last step to the first. A step writes only its own
//! rows: those of the sequences that have ended before keep the gradients of their last states.

use super::*;

/// From activated gates, which become the gradients of their pre-activations, to ∂c.
///
/// # Arguments
/// * `grad_h` - ∂h̃
/// * `carried` - ∂c'
/// * the others - as forward
#[cube]
fn cell_back<N: Size>(
    gates: &mut Array<Vector<f32, N>>,
    c: Vector<f32, N>,
    grad_h: Vector<f32, N>,
    carried: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    starts: &MaskStarts,
    index: usize,
    bound: f32,
    #[comptime] form: CellForm,
) -> Vector<f32, N> {
    let (i, f) = (gates[0], gates[1]);
    let (g, o) = (gates[2], gates[3]);
    let cell = cell_unit::<N>(i, f, g, c, masks, starts, index, form);
    let squashed = tanh::<N>(bounded::<N>(cell.unbounded, bound, form.clip));
    let mut grad_c = Vector::<f32, N>::new(0.0f32);
    let mut grad = carried;
    if comptime![form.masks.update_cell.is_some()] {
        let update = masks[starts.update_cell as usize + index];
        grad_c = one_minus::<N>(update) * carried;
        grad *= update;
    }
    grad += grad_h * o * tanh_slope::<N>(squashed);
    let back = cell_unit_back::<N>(&cell, grad, bound, masks, starts, index, form);
    gates[0] = back.first;
    gates[1] = back.second;
    gates[2] = back.candidate;
    gates[3] = grad_h * squashed * sigmoid_slope::<N>(o);
    grad_c + back.previous
}

/// The saved gates of a unit.
///
/// # Arguments
/// * `start` - where the unit's first gate is saved
#[cube]
fn saved_gates<N: Size>(
    rows: &[Vector<f32, N>],
    start: usize,
    units: usize,
) -> Array<Vector<f32, N>> {
    let mut gates = Array::<Vector<f32, N>>::new(GATES);
    #[unroll]
    for gate in 0..GATES {
        gates[gate] = rows[start + gate * units];
    }
    gates
}

/// The cell of a unit before the step.
///
/// # Arguments
/// * `at_state` - where it is in the states
/// * `pieces` - of a saved row
#[cube]
fn previous_cell<N: Size>(
    saved: &LayerSaved<N>,
    scalars: &LayerScalars,
    at_state: usize,
    b: usize,
    units: usize,
    unit: usize,
    #[comptime] pieces: usize,
) -> Vector<f32, N> {
    if scalars.rows.is_first_step == 1 {
        saved.first_states[at_state]
    } else {
        let row = scalars.rows.neighbour as usize + b;
        saved.rows[row * units * pieces + GATES * units + unit]
    }
}

/// The derivative of [`advance`](super::advance).
///
/// # Arguments
/// * `grad_out` - ∂y of all rows, in the top layer
/// * `policy`, `biases`, `masks` - of the forward
/// * `grad_states` - ∂ of the states of all layers `[B, ·]`
/// * `left` - ∂a and ∂b, for the product of pairs `[2, B, 4H]`
/// * `grad_input`, `grad_hidden` - the same of all rows `[N, 4H]`
/// * `grad_parts` - ∂p_i, ∂p_g, ∂p_b `[B, 4H]` each, side by side
/// * `grad_bias` - whose sum over rows is the gradient of the bias `[N, 4H]`
#[cube(launch)]
pub fn advance_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_seen: &SeenGrads<N>,
    saved: &LayerSaved<N>,
    policy: &[Vector<f32, N>],
    biases: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    grad_states: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    grad_input: &mut [Vector<f32, N>],
    grad_hidden: &mut [Vector<f32, N>],
    grad_parts: &mut [Vector<f32, N>],
    grad_bias: &mut [Vector<f32, N>],
    scalars: &LayerScalars,
    #[comptime] kind: LayerKind,
) {
    let units = scalars.sizes.hidden as usize;
    let (b, unit, row) = own_unit(scalars, units);
    let at_c = b * scalars.states.size as usize + scalars.states.cell as usize + unit;
    let on_mask = b * scalars.masks.size as usize + unit;

    let mut carried = grad_states[at_c + units];
    if b < scalars.rows.next_count as usize {
        carried +=
            grad_seen.own[b * scalars.seen.size as usize + scalars.seen.hidden as usize + unit];
    }
    if comptime![!kind.top] {
        carried += grad_seen.above[b * scalars.seen.above_size as usize + unit];
    }
    // ∂h̃ = v ⊙ (m ⊙ ∂h' + ∂y); past zoneout ∂h = (1 − v) ⊙ (∂h' + ∂y)
    let starts = &scalars.masks.starts;
    let mut grad_h = masked::<N>(carried, masks, starts.hidden, on_mask, kind.masks.hidden);
    if comptime![kind.top] {
        let grad_y = grad_out[row * units + unit];
        grad_h += grad_y;
        carried += grad_y;
    }
    if comptime![kind.masks.update_hidden.is_some()] {
        let update = masks[starts.update_hidden as usize + on_mask];
        grad_h *= update;
        grad_states[at_c + units] = one_minus::<N>(update) * carried;
    }

    let saved_row = row * units * SAVED + unit;
    let mut gates = saved_gates::<N>(&saved.rows, saved_row, units);
    let c = previous_cell::<N>(saved, scalars, at_c, b, units, unit, SAVED);
    let grad_c = grad_states[at_c];
    let (bound, form) = (scalars.clip, comptime![kind.cell()]);
    grad_states[at_c] = cell_back::<N>(
        &mut gates, c, grad_h, grad_c, masks, starts, on_mask, bound, form,
    );

    let on_policy = row * scalars.sizes.policy as usize;
    let width = GATES * units;
    let on_parts = b * width * comptime![kind.parts()];
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        let grad = gates[gate];
        let grad_a = grad * policy[on_policy + scalars.policy.preact_input as usize + j];
        let grad_b = grad * policy[on_policy + scalars.policy.preact_hidden as usize + j];
        left[b * width + j] = grad_a;
        left[(scalars.rows.count as usize + b) * width + j] = grad_b;
        grad_input[row * width + j] = grad_a;
        grad_hidden[row * width + j] = grad_b;
        grad_parts[on_parts + j] = grad * saved.rows[saved_row + (GATES + 1 + gate) * units];
        grad_parts[on_parts + width + j] =
            grad * saved.rows[saved_row + (2 * GATES + 1 + gate) * units];
        if comptime![kind.bias] {
            let bias = biases[scalars.biases as usize + scalars.sizes.adapt as usize * GATES + j];
            grad_parts[on_parts + 2 * width + j] = grad * bias;
            grad_bias[row * width + j] =
                grad * policy[on_policy + scalars.policy.preact_bias as usize + j];
        }
    }
}

/// ∂ of a part of p at a unit of p, where the part has it.
#[cube]
fn part<N: Size>(
    grad_parts: &[Vector<f32, N>],
    on_part: usize,
    start: usize,
    width: usize,
    unit: usize,
) -> Vector<f32, N> {
    let mut grad = Vector::<f32, N>::new(0.0f32);
    if unit >= start && unit < start + width {
        grad = grad_parts[on_part + unit - start];
    }
    grad
}

/// The derivative of [`scale`](super::scale). A feature of p may be in more than one part of it, if parts
/// overlap.
///
/// # Arguments
/// * `grad_scaled` - ∂(x ⊙ p_x) and ∂(h ⊙ p_h) `[2, B, K]`
/// * `grad_parts` - of [`advance_back`]
/// * `policy` - of the forward
/// * `input` - x of all rows `[N, I]`, in the first layer
/// * `seen_rows` - what the layer has seen: h, and x in layers above the first
/// * `grad_states` - as in [`advance_back`]
/// * `grad_input` - ∂x of all rows `[N, I]`, in the first layer, as far as it comes from W
/// * `left` - ∂(z'·P), for the product with Pᵀ `[B, ·]`
/// * `grad_policy` - the same of all rows
#[cube(launch)]
pub fn scale_back<N: Size>(
    grad_scaled: &[Vector<f32, N>],
    grad_parts: &[Vector<f32, N>],
    policy: &[Vector<f32, N>],
    input: &[Vector<f32, N>],
    seen_rows: &[Vector<f32, N>],
    grad_states: &mut [Vector<f32, N>],
    grad_input: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    grad_policy: &mut [Vector<f32, N>],
    scalars: &LayerScalars,
    #[comptime] kind: LayerKind,
) {
    let units = scalars.sizes.policy as usize;
    let (b, unit, row) = own_unit(scalars, units);
    let p = policy[row * units + unit];
    let (inputs, hiddens, pair) = (
        scalars.sizes.input as usize,
        scalars.sizes.hidden as usize,
        scalars.sizes.pair as usize,
    );
    let on_seen = row * scalars.seen.size as usize;
    let on_states = b * scalars.states.size as usize;

    let mut grad_p = Vector::<f32, N>::new(0.0f32);
    if unit < inputs {
        let grad = grad_scaled[b * pair + unit];
        if comptime![kind.first] {
            grad_p += grad * input[row * inputs + unit];
            grad_input[row * inputs + unit] = grad * p;
        } else {
            grad_p += grad * seen_rows[on_seen + unit];
            grad_states[on_states + scalars.states.hidden_below as usize + unit] += grad * p;
        }
    } else if unit < inputs + hiddens {
        let unit = unit - inputs;
        let grad = grad_scaled[(scalars.rows.count as usize + b) * pair + unit];
        grad_p += grad * seen_rows[on_seen + scalars.seen.hidden as usize + unit];
        let at_h = on_states + (scalars.states.cell + scalars.sizes.hidden) as usize + unit;
        let mut grad_h = grad * p;
        // Zoneout has left there what passes it by.
        if comptime![kind.masks.update_hidden.is_some()] {
            grad_h += grad_states[at_h];
        }
        grad_states[at_h] = grad_h;
    }
    let width = GATES * hiddens;
    let on_parts = b * width * comptime![kind.parts()];
    let (starts_i, starts_g) = (
        scalars.policy.preact_input as usize,
        scalars.policy.preact_hidden as usize,
    );
    grad_p += part::<N>(grad_parts, on_parts, starts_i, width, unit);
    grad_p += part::<N>(grad_parts, on_parts + width, starts_g, width, unit);
    if comptime![kind.bias] {
        let starts_b = scalars.policy.preact_bias as usize;
        grad_p += part::<N>(grad_parts, on_parts + 2 * width, starts_b, width, unit);
    }
    let grad = grad_p * tanh_slope::<N>(p);
    left[b * units + unit] = grad;
    grad_policy[row * units + unit] = grad;
}

/// The derivative of [`adapt`](super::adapt).
///
/// # Arguments
/// * `through` - ∂z' through the policy `[B, A]`
/// * `left` - ∂q, for the product with W_aᵀ and R_aᵀ `[B, 4A]`
/// * `grad_preact` - the same of all rows
/// * the others - as in [`advance_back`]; above the top layer is the first, at the step after
#[cube(launch)]
pub fn adapt_back<N: Size>(
    through: &[Vector<f32, N>],
    grad_seen: &SeenGrads<N>,
    saved: &LayerSaved<N>,
    masks: &[Vector<f32, N>],
    grad_states: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    grad_preact: &mut [Vector<f32, N>],
    scalars: &LayerScalars,
    #[comptime] kind: LayerKind,
) {
    let units = scalars.sizes.adapt as usize;
    let (b, unit, row) = own_unit(scalars, units);
    let at_m = b * scalars.states.size as usize
        + (scalars.states.cell + 2 * scalars.sizes.hidden) as usize
        + unit;
    let on_above =
        b * scalars.seen.above_size as usize + scalars.seen.above_z_below as usize + unit;

    let mut grad_z = through[b * units + unit];
    if b < scalars.rows.next_count as usize {
        grad_z += grad_seen.own[b * scalars.seen.size as usize
            + (scalars.seen.size - scalars.sizes.adapt) as usize
            + unit];
        if comptime![kind.stacked && kind.top] {
            grad_z += grad_seen.above[on_above];
        }
    } else {
        // The last step of the sequence.
        grad_z += grad_states[at_m + units];
    }
    if comptime![kind.stacked && !kind.top] {
        grad_z += grad_seen.above[on_above];
    }
    let starts = &scalars.masks.starts;
    let on_mask = b * scalars.masks.adapt_size as usize + unit;
    let grad_z = masked::<N>(grad_z, masks, starts.adapt, on_mask, kind.masks.adapt);

    let saved_row = row * units * ADAPT_SAVED + unit;
    let mut gates = saved_gates::<N>(&saved.rows, saved_row, units);
    let m = previous_cell::<N>(saved, scalars, at_m, b, units, unit, ADAPT_SAVED);
    let grad_m = grad_states[at_m];
    let (bound, form) = (scalars.clip_adapt, comptime![kind.adapt_cell()]);
    grad_states[at_m] = cell_back::<N>(
        &mut gates, m, grad_z, grad_m, masks, starts, 0usize, bound, form,
    );
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        left[b * GATES * units + j] = gates[gate];
        grad_preact[row * GATES * units + j] = gates[gate];
    }
}

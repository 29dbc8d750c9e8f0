//! The kernels of a step, backward.
//!
//! The gradients of the states live in one matrix from the last step to the first. A step writes only
//! the rows that it has, so that what a longer sequence passes on and what the last state of a shorter
//! one brings in do not meet.

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
    at: &LayerAt,
    unit: usize,
    bound: f32,
    #[comptime] clip: bool,
    #[comptime] masked: MaskKinds,
) -> Vector<f32, N> {
    let (i, f) = (gates[0], gates[1]);
    let (g, o) = (gates[2], gates[3]);
    let raw = unbounded::<N>(i, f, g, c, masks, at, unit, masked);
    let squashed = tanh::<N>(bounded::<N>(raw, bound, clip));
    let mut grad_c = Vector::<f32, N>::new(0.0f32);
    let mut grad = carried;
    if comptime![masked.update_cell] {
        let update = masks[at.update_cell as usize + unit];
        grad_c = one_minus::<N>(update) * carried;
        grad *= update;
    }
    grad += grad_h * o * tanh_slope::<N>(squashed);
    if comptime![clip] {
        let zero = Vector::new(0.0f32);
        grad = select_many(raw.abs().greater_than(&Vector::new(bound)), zero, grad);
    }
    if comptime![masked.cell] {
        grad *= masks[at.mask_cell as usize + unit];
    }
    let mut masked_g = g;
    let mut grad_g = grad * i;
    if comptime![masked.candidate] {
        let mask = masks[at.mask_candidate as usize + unit];
        masked_g *= mask;
        grad_g *= mask;
    }
    gates[0] = grad * masked_g * sigmoid_slope::<N>(i);
    gates[1] = grad * c * sigmoid_slope::<N>(f);
    gates[2] = grad_g * tanh_slope::<N>(g);
    gates[3] = grad_h * squashed * sigmoid_slope::<N>(o);
    grad_c + grad * f
}

/// The derivative of [`advance`](super::advance).
///
/// # Arguments
/// * `grad_out` - ∂y of all rows, in the top layer
/// * `grad_seen`, `grad_above` - ∂ of what this layer saw at the step after, of what the layer above
///   saw at this one `[B, ·]`
/// * `tape`, `policy`, `biases`, `masks` - of the forward
/// * `first_states` - those before the first step
/// * `grad_states` - ∂ of the states of all layers `[B, ·]`
/// * `left` - ∂a and ∂b, for the product of pairs `[2, B, 4H]`
/// * `grad_input`, `grad_hidden` - the same of all rows `[N, 4H]`
/// * `grad_parts` - ∂p_i, ∂p_g, ∂p_b `[B, 4H]` each, side by side
/// * `grad_bias` - whose sum over rows is the gradient of the bias `[N, 4H]`
#[cube(launch)]
pub fn advance_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_seen: &[Vector<f32, N>],
    grad_above: &[Vector<f32, N>],
    tape: &[Vector<f32, N>],
    policy: &[Vector<f32, N>],
    biases: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    first_states: &[Vector<f32, N>],
    grad_states: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    grad_input: &mut [Vector<f32, N>],
    grad_hidden: &mut [Vector<f32, N>],
    grad_parts: &mut [Vector<f32, N>],
    grad_bias: &mut [Vector<f32, N>],
    at: &LayerAt,
    #[comptime] kind: LayerKind,
) {
    let units = at.hidden as usize;
    let (b, unit, row) = place(at, units);
    let at_c = b * at.states as usize + at.state as usize + unit;
    let on_mask = b * at.mask_size as usize + unit;

    let mut carried = grad_states[at_c + units];
    if b < at.next_rows as usize {
        carried += grad_seen[b * at.seen as usize + at.seen_hidden as usize + unit];
    }
    if comptime![!kind.top] {
        carried += grad_above[b * at.above as usize + unit];
    }
    // ∂h̃ = v ⊙ (m ⊙ ∂h' + ∂y); past zoneout ∂h = (1 − v) ⊙ (∂h' + ∂y)
    let mut grad_h = carried;
    if comptime![kind.masks.hidden] {
        grad_h *= masks[at.mask_hidden as usize + on_mask];
    }
    if comptime![kind.top] {
        let grad_y = grad_out[row * units + unit];
        grad_h += grad_y;
        carried += grad_y;
    }
    if comptime![kind.masks.update_hidden] {
        let update = masks[at.update_hidden as usize + on_mask];
        grad_h *= update;
        grad_states[at_c + units] = one_minus::<N>(update) * carried;
    }

    let on_tape = row * units * TAPE + unit;
    let mut gates = Array::<Vector<f32, N>>::new(GATES);
    #[unroll]
    for gate in 0..GATES {
        gates[gate] = tape[on_tape + gate * units];
    }
    let c = if at.first == 1 {
        first_states[at_c]
    } else {
        tape[(at.other_row as usize + b) * units * TAPE + GATES * units + unit]
    };
    let grad_c = grad_states[at_c];
    grad_states[at_c] = cell_back::<N>(
        &mut gates, c, grad_h, grad_c, masks, at, on_mask, at.clip, kind.clip, kind.masks,
    );

    let on_policy = row * at.policy as usize;
    let width = GATES * units;
    let on_parts = b * width * comptime![kind.parts()];
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        let grad = gates[gate];
        let grad_a = grad * policy[on_policy + at.preact_input as usize + j];
        let grad_b = grad * policy[on_policy + at.preact_hidden as usize + j];
        left[b * width + j] = grad_a;
        left[(at.rows as usize + b) * width + j] = grad_b;
        grad_input[row * width + j] = grad_a;
        grad_hidden[row * width + j] = grad_b;
        grad_parts[on_parts + j] = grad * tape[on_tape + (GATES + 1 + gate) * units];
        grad_parts[on_parts + width + j] = grad * tape[on_tape + (2 * GATES + 1 + gate) * units];
        if comptime![kind.bias] {
            let bias = biases[at.biases as usize + at.adapt as usize * GATES + j];
            grad_parts[on_parts + 2 * width + j] = grad * bias;
            grad_bias[row * width + j] = grad * policy[on_policy + at.preact_bias as usize + j];
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
    at: &LayerAt,
    #[comptime] kind: LayerKind,
) {
    let units = at.policy as usize;
    let (b, unit, row) = place(at, units);
    let p = policy[row * units + unit];
    let (inputs, hiddens, pair) = (at.input as usize, at.hidden as usize, at.pair as usize);
    let on_seen = row * at.seen as usize;
    let on_states = b * at.states as usize;

    let mut grad_p = Vector::<f32, N>::new(0.0f32);
    if unit < inputs {
        let grad = grad_scaled[b * pair + unit];
        if comptime![kind.first] {
            grad_p += grad * input[row * inputs + unit];
            grad_input[row * inputs + unit] = grad * p;
        } else {
            grad_p += grad * seen_rows[on_seen + unit];
            grad_states[on_states + at.state_below as usize + unit] += grad * p;
        }
    } else if unit < inputs + hiddens {
        let unit = unit - inputs;
        let grad = grad_scaled[(at.rows as usize + b) * pair + unit];
        grad_p += grad * seen_rows[on_seen + at.seen_hidden as usize + unit];
        let at_h = on_states + (at.state + at.hidden) as usize + unit;
        let mut grad_h = grad * p;
        // Zoneout has left there what passes it by.
        if comptime![kind.masks.update_hidden] {
            grad_h += grad_states[at_h];
        }
        grad_states[at_h] = grad_h;
    }
    let width = GATES * hiddens;
    let on_parts = b * width * comptime![kind.parts()];
    let (starts_i, starts_g) = (at.preact_input as usize, at.preact_hidden as usize);
    grad_p += part::<N>(grad_parts, on_parts, starts_i, width, unit);
    grad_p += part::<N>(grad_parts, on_parts + width, starts_g, width, unit);
    if comptime![kind.bias] {
        let starts_b = at.preact_bias as usize;
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
    grad_seen: &[Vector<f32, N>],
    grad_above: &[Vector<f32, N>],
    tape: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    first_states: &[Vector<f32, N>],
    grad_states: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    grad_preact: &mut [Vector<f32, N>],
    at: &LayerAt,
    #[comptime] kind: LayerKind,
) {
    let units = at.adapt as usize;
    let (b, unit, row) = place(at, units);
    let at_m = b * at.states as usize + (at.state + 2 * at.hidden) as usize + unit;
    let on_above = b * at.above as usize + at.above_below as usize + unit;

    let mut grad_z = through[b * units + unit];
    if b < at.next_rows as usize {
        grad_z += grad_seen[b * at.seen as usize + (at.seen - at.adapt) as usize + unit];
        if comptime![kind.stacked && kind.top] {
            grad_z += grad_above[on_above];
        }
    } else {
        // The last step of the sequence.
        grad_z += grad_states[at_m + units];
    }
    if comptime![kind.stacked && !kind.top] {
        grad_z += grad_above[on_above];
    }
    if comptime![kind.mask_adapt] {
        grad_z *= masks[at.mask_adapt as usize + b * at.mask_adapt_size as usize + unit];
    }

    let on_tape = row * units * ADAPT_TAPE + unit;
    let mut gates = Array::<Vector<f32, N>>::new(GATES);
    #[unroll]
    for gate in 0..GATES {
        gates[gate] = tape[on_tape + gate * units];
    }
    let m = if at.first == 1 {
        first_states[at_m]
    } else {
        tape[(at.other_row as usize + b) * units * ADAPT_TAPE + GATES * units + unit]
    };
    let grad_m = grad_states[at_m];
    grad_states[at_m] = cell_back::<N>(
        &mut gates,
        m,
        grad_z,
        grad_m,
        masks,
        at,
        0,
        at.clip_adapt,
        kind.clip_adapt,
        comptime![MaskKinds::default()],
    );
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        left[b * GATES * units + j] = gates[gate];
        grad_preact[row * GATES * units + j] = gates[gate];
    }
}

//! The kernels of a step, forward.

use super::*;

/// From the pre-activations of an LSTM, which become activated gates, to `(c', h̃)`: all but the masks
/// on h.
///
/// # Arguments
/// * `unit` - among those of a mask
#[cube]
fn cell<N: Size>(
    gates: &mut Array<Vector<f32, N>>,
    c: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    at: &LayerAt,
    unit: usize,
    bound: f32,
    #[comptime] clip: bool,
    #[comptime] masked: MaskKinds,
) -> (Vector<f32, N>, Vector<f32, N>) {
    let i = sigmoid::<N>(gates[0]);
    let f = sigmoid::<N>(gates[1]);
    let g = tanh::<N>(gates[2]);
    let o = sigmoid::<N>(gates[3]);
    gates[0] = i;
    gates[1] = f;
    gates[2] = g;
    gates[3] = o;
    let raw = unbounded::<N>(i, f, g, c, masks, at, unit, masked);
    let raw = bounded::<N>(raw, bound, clip);
    let mut next = raw;
    if comptime![masked.update_cell] {
        next = zoneout::<N>(masks[at.update_cell as usize + unit], raw, c);
    }
    (next, o * tanh::<N>(raw))
}

/// The adaptation cell.
///
/// # Arguments
/// * `projected` - x·W_a of all rows `[N, 4A]`, in the first layer
/// * `product` - what the cell sees times W_a and R_a `[B, 4A]`
/// * `biases`, `masks` - of all layers
/// * `states` - of all layers `[B, ·]`
/// * `left` - z', for the product with P `[B, A]`
/// * `z_rows`, `tape` - z' and the tape of all rows, if `keep`
/// * `seen`, `above` - what this layer sees at the next step, what the layer above sees `[B, ·]`
/// * `seen_rows`, `above_rows` - the same of all rows, if `keep`
#[cube(launch)]
pub fn adapt<N: Size>(
    projected: &[Vector<f32, N>],
    product: &[Vector<f32, N>],
    biases: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    states: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    z_rows: &mut [Vector<f32, N>],
    tape: &mut [Vector<f32, N>],
    seen: &mut [Vector<f32, N>],
    seen_rows: &mut [Vector<f32, N>],
    above: &mut [Vector<f32, N>],
    above_rows: &mut [Vector<f32, N>],
    at: &LayerAt,
    #[comptime] kind: LayerKind,
) {
    let units = at.adapt as usize;
    let (b, unit, row) = place(at, units);
    let mut gates = Array::<Vector<f32, N>>::new(GATES);
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        gates[gate] = product[b * GATES * units + j] + biases[at.biases as usize + j];
        if comptime![kind.first] {
            gates[gate] += projected[row * GATES * units + j];
        }
    }
    let at_m = b * at.states as usize + (at.state + 2 * at.hidden) as usize + unit;
    let (m, h) = cell::<N>(
        &mut gates,
        states[at_m],
        masks,
        at,
        0,
        at.clip_adapt,
        kind.clip_adapt,
        comptime![MaskKinds::default()],
    );
    let mut z = h;
    if comptime![kind.mask_adapt] {
        z *= masks[at.mask_adapt as usize + b * at.mask_adapt_size as usize + unit];
    }
    states[at_m] = m;
    states[at_m + units] = z;
    left[b * units + unit] = z;

    let on_seen = (at.seen - at.adapt) as usize + unit;
    seen[b * at.seen as usize + on_seen] = z;
    let on_above = at.above_below as usize + unit;
    if comptime![kind.stacked] {
        above[b * at.above as usize + on_above] = z;
    }
    if comptime![kind.keep] {
        z_rows[row * units + unit] = z;
        let on_tape = row * units * ADAPT_TAPE + unit;
        #[unroll]
        for gate in 0..GATES {
            tape[on_tape + gate * units] = gates[gate];
        }
        tape[on_tape + GATES * units] = m;
        if b < at.next_rows as usize {
            let next = at.other_row as usize + b;
            seen_rows[next * at.seen as usize + on_seen] = z;
            if comptime![kind.stacked && kind.top] {
                above_rows[next * at.above as usize + on_above] = z;
            }
        }
        if comptime![kind.stacked && !kind.top] {
            above_rows[row * at.above as usize + on_above] = z;
        }
    }
}

/// The policy, and what it scales before W and R.
///
/// # Arguments
/// * `product` - z'·P `[B, ·]`
/// * `input` - x of all rows `[N, I]`, in the first layer
/// * `states` - of all layers `[B, ·]`: the h of this layer, the h' of the layer below
/// * `policy` - p `[N, ·]`, or of one step
/// * `left` - x ⊙ p_x and h ⊙ p_h, for the product of pairs `[2, B, K]`
/// * `scaled_input`, `scaled_hidden` - the same of all rows `[N, I]`, `[N, H]`, if `keep`
#[cube(launch)]
pub fn scale<N: Size>(
    product: &[Vector<f32, N>],
    input: &[Vector<f32, N>],
    states: &[Vector<f32, N>],
    policy: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    scaled_input: &mut [Vector<f32, N>],
    scaled_hidden: &mut [Vector<f32, N>],
    at: &LayerAt,
    #[comptime] kind: LayerKind,
) {
    let units = at.policy as usize;
    let (b, unit, row) = place(at, units);
    let p = tanh::<N>(product[b * units + unit]);
    policy[(at.kept_row as usize + b) * units + unit] = p;

    // p_x and p_h are the first features of p.
    let (inputs, hiddens, pair) = (at.input as usize, at.hidden as usize, at.pair as usize);
    let on_states = b * at.states as usize;
    let zero = Vector::new(0.0f32);
    if unit < inputs {
        let x = if comptime![kind.first] {
            input[row * inputs + unit]
        } else {
            states[on_states + at.state_below as usize + unit]
        };
        let value = x * p;
        left[b * pair + unit] = value;
        // Rows of zeros of R are multiplied with something, which must be a number.
        if unit >= hiddens {
            left[(at.rows as usize + b) * pair + unit] = zero;
        }
        if comptime![kind.keep] {
            scaled_input[row * inputs + unit] = value;
        }
    } else if unit < inputs + hiddens {
        let unit = unit - inputs;
        let value = states[on_states + (at.state + at.hidden) as usize + unit] * p;
        left[(at.rows as usize + b) * pair + unit] = value;
        if unit >= inputs {
            left[b * pair + unit] = zero;
        }
        if comptime![kind.keep] {
            scaled_hidden[row * hiddens + unit] = value;
        }
    }
}

/// The cell.
///
/// # Arguments
/// * `from` - a and b `[2, B, 4H]`
/// * `policy`, `biases`, `masks`, `states` - as before
/// * `out` - y of all rows `[N, H]`, in the top layer
/// * `tape` - of all rows, if `keep`
/// * `seen`, `above`, `seen_rows`, `above_rows` - as in [`adapt`]; nothing is above the top layer
#[cube(launch)]
pub fn advance<N: Size>(
    from: &[Vector<f32, N>],
    policy: &[Vector<f32, N>],
    biases: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    states: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    tape: &mut [Vector<f32, N>],
    seen: &mut [Vector<f32, N>],
    seen_rows: &mut [Vector<f32, N>],
    above: &mut [Vector<f32, N>],
    above_rows: &mut [Vector<f32, N>],
    at: &LayerAt,
    #[comptime] kind: LayerKind,
) {
    let units = at.hidden as usize;
    let (b, unit, row) = place(at, units);
    let on_policy = (at.kept_row as usize + b) * at.policy as usize;
    let on_tape = row * units * TAPE + unit;
    let mut gates = Array::<Vector<f32, N>>::new(GATES);
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        let from_input = from[b * GATES * units + j];
        let from_hidden = from[(at.rows as usize + b) * GATES * units + j];
        let mut z = from_input * policy[on_policy + at.preact_input as usize + j]
            + from_hidden * policy[on_policy + at.preact_hidden as usize + j];
        if comptime![kind.bias] {
            let bias = biases[at.biases as usize + at.adapt as usize * GATES + j];
            z += bias * policy[on_policy + at.preact_bias as usize + j];
        }
        gates[gate] = z;
        if comptime![kind.keep] {
            tape[on_tape + (GATES + 1 + gate) * units] = from_input;
            tape[on_tape + (2 * GATES + 1 + gate) * units] = from_hidden;
        }
    }
    let at_c = b * at.states as usize + at.state as usize + unit;
    let on_mask = b * at.mask_size as usize + unit;
    let (c, h) = cell::<N>(
        &mut gates,
        states[at_c],
        masks,
        at,
        on_mask,
        at.clip,
        kind.clip,
        kind.masks,
    );
    // The output is h' without its dropout.
    let mut y = h;
    let mut next = h;
    if comptime![kind.masks.hidden] {
        next *= masks[at.mask_hidden as usize + on_mask];
    }
    if comptime![kind.masks.update_hidden] {
        let update = masks[at.update_hidden as usize + on_mask];
        let before = states[at_c + units];
        y = zoneout::<N>(update, y, before);
        next = zoneout::<N>(update, next, before);
    }
    states[at_c] = c;
    states[at_c + units] = next;

    let on_seen = at.seen_hidden as usize + unit;
    seen[b * at.seen as usize + on_seen] = next;
    if comptime![kind.top] {
        out[row * units + unit] = y;
    } else {
        above[b * at.above as usize + unit] = next;
    }
    if comptime![kind.keep] {
        #[unroll]
        for gate in 0..GATES {
            tape[on_tape + gate * units] = gates[gate];
        }
        tape[on_tape + GATES * units] = c;
        if b < at.next_rows as usize {
            seen_rows[(at.other_row as usize + b) * at.seen as usize + on_seen] = next;
        }
        if comptime![!kind.top] {
            above_rows[row * at.above as usize + unit] = next;
        }
    }
}

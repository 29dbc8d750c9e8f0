//! The kernels of a step, forward.

use super::*;

/// From the pre-activations of a cell, which become activated gates, to `(c', h̃)`: all but the masks
/// on h.
///
/// # Arguments
/// * `starts`, `index` - where the masks of the step begin, the unit within one
#[cube]
fn cell<N: Size>(
    gates: &mut Array<Vector<f32, N>>,
    c: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    starts: &MaskStarts,
    index: usize,
    bound: f32,
    #[comptime] form: CellForm,
) -> (Vector<f32, N>, Vector<f32, N>) {
    let i = sigmoid::<N>(gates[0]);
    let f = sigmoid::<N>(gates[1]);
    let g = tanh::<N>(gates[2]);
    let o = sigmoid::<N>(gates[3]);
    gates[0] = i;
    gates[1] = f;
    gates[2] = g;
    gates[3] = o;
    let cell = cell_unit::<N>(i, f, g, c, masks, starts, index, form);
    let raw = bounded::<N>(cell.unbounded, bound, form.clip);
    let start = starts.update_cell;
    let next = updated::<N>(raw, c, masks, start, index, form.masks.update_cell);
    (next, o * tanh::<N>(raw))
}

/// Saves the activated gates and the new cell of a unit.
///
/// # Arguments
/// * `start` - where the unit's first gate is saved
#[cube]
fn save_cell<N: Size>(
    gates: &Array<Vector<f32, N>>,
    next: Vector<f32, N>,
    rows: &mut [Vector<f32, N>],
    start: usize,
    units: usize,
) {
    #[unroll]
    for gate in 0..GATES {
        rows[start + gate * units] = gates[gate];
    }
    rows[start + GATES * units] = next;
}

/// The adaptation cell.
///
/// # Arguments
/// * `projected` - x·W_a of all rows `[N, 4A]`, in the first layer
/// * `product` - what the cell sees times W_a and R_a `[B, 4A]`
/// * `biases`, `masks` - of all layers
/// * `states` - of all layers `[B, ·]`
/// * `left` - z', for the product with P `[B, A]`
/// * `z_rows`, `saved` - z' of all rows, and the saved rows of this cell, if there are any
#[cube(launch)]
pub fn adapt<N: Size>(
    projected: &[Vector<f32, N>],
    product: &[Vector<f32, N>],
    biases: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    states: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    z_rows: &mut [Vector<f32, N>],
    saved: &mut [Vector<f32, N>],
    seen: &mut SeenBuffers<N>,
    scalars: &LayerScalars,
    #[comptime] kind: LayerKind,
) {
    let units = scalars.sizes.adapt as usize;
    let (b, unit, row) = own_unit(scalars, units);
    let mut gates = Array::<Vector<f32, N>>::new(GATES);
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        gates[gate] = product[b * GATES * units + j] + biases[scalars.biases as usize + j];
        if comptime![kind.first] {
            gates[gate] += projected[row * GATES * units + j];
        }
    }
    let at_m = b * scalars.states.size as usize
        + (scalars.states.cell + 2 * scalars.sizes.hidden) as usize
        + unit;
    let (starts, form) = (&scalars.masks.starts, comptime![kind.adapt_cell()]);
    let (before, bound) = (states[at_m], scalars.clip_adapt);
    let (m, h) = cell::<N>(&mut gates, before, masks, starts, 0usize, bound, form);
    let on_mask = b * scalars.masks.adapt_size as usize + unit;
    let z = masked::<N>(h, masks, starts.adapt, on_mask, kind.masks.adapt);
    states[at_m] = m;
    states[at_m + units] = z;
    left[b * units + unit] = z;

    let on_seen = (scalars.seen.size - scalars.sizes.adapt) as usize + unit;
    seen.own[b * scalars.seen.size as usize + on_seen] = z;
    let on_above = scalars.seen.above_z_below as usize + unit;
    if comptime![kind.stacked] {
        seen.above[b * scalars.seen.above_size as usize + on_above] = z;
    }
    if comptime![kind.save] {
        z_rows[row * units + unit] = z;
        let saved_row = row * units * ADAPT_SAVED + unit;
        save_cell::<N>(&gates, m, saved, saved_row, units);
        if b < scalars.rows.next_count as usize {
            let next = scalars.rows.neighbour as usize + b;
            seen.own_rows[next * scalars.seen.size as usize + on_seen] = z;
            if comptime![kind.stacked && kind.top] {
                seen.above_rows[next * scalars.seen.above_size as usize + on_above] = z;
            }
        }
        if comptime![kind.stacked && !kind.top] {
            seen.above_rows[row * scalars.seen.above_size as usize + on_above] = z;
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
/// * `scaled_input`, `scaled_hidden` - the same of all rows `[N, I]`, `[N, H]`, if they are saved
#[cube(launch)]
pub fn scale<N: Size>(
    product: &[Vector<f32, N>],
    input: &[Vector<f32, N>],
    states: &[Vector<f32, N>],
    policy: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    scaled_input: &mut [Vector<f32, N>],
    scaled_hidden: &mut [Vector<f32, N>],
    scalars: &LayerScalars,
    #[comptime] kind: LayerKind,
) {
    let units = scalars.sizes.policy as usize;
    let (b, unit, row) = own_unit(scalars, units);
    let p = tanh::<N>(product[b * units + unit]);
    policy[(scalars.saved_row as usize + b) * units + unit] = p;

    // p_x and p_h are the first features of p.
    let (inputs, hiddens, pair) = (
        scalars.sizes.input as usize,
        scalars.sizes.hidden as usize,
        scalars.sizes.pair as usize,
    );
    let on_states = b * scalars.states.size as usize;
    let zero = Vector::new(0.0f32);
    if unit < inputs {
        let x = if comptime![kind.first] {
            input[row * inputs + unit]
        } else {
            states[on_states + scalars.states.hidden_below as usize + unit]
        };
        let value = x * p;
        left[b * pair + unit] = value;
        // Rows of zeros of R are multiplied with something, which must be a number.
        if unit >= hiddens {
            left[(scalars.rows.count as usize + b) * pair + unit] = zero;
        }
        if comptime![kind.save] {
            scaled_input[row * inputs + unit] = value;
        }
    } else if unit < inputs + hiddens {
        let unit = unit - inputs;
        let value =
            states[on_states + (scalars.states.cell + scalars.sizes.hidden) as usize + unit] * p;
        left[(scalars.rows.count as usize + b) * pair + unit] = value;
        if unit >= inputs {
            left[b * pair + unit] = zero;
        }
        if comptime![kind.save] {
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
/// * `saved` - the saved rows of this cell, if there are any
/// * `seen` - nothing is above the top layer
#[cube(launch)]
pub fn advance<N: Size>(
    from: &[Vector<f32, N>],
    policy: &[Vector<f32, N>],
    biases: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    states: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    saved: &mut [Vector<f32, N>],
    seen: &mut SeenBuffers<N>,
    scalars: &LayerScalars,
    #[comptime] kind: LayerKind,
) {
    let units = scalars.sizes.hidden as usize;
    let (b, unit, row) = own_unit(scalars, units);
    let on_policy = (scalars.saved_row as usize + b) * scalars.sizes.policy as usize;
    let saved_row = row * units * SAVED + unit;
    let mut gates = Array::<Vector<f32, N>>::new(GATES);
    #[unroll]
    for gate in 0..GATES {
        let j = gate * units + unit;
        let from_input = from[b * GATES * units + j];
        let from_hidden = from[(scalars.rows.count as usize + b) * GATES * units + j];
        let mut z = from_input * policy[on_policy + scalars.policy.preact_input as usize + j]
            + from_hidden * policy[on_policy + scalars.policy.preact_hidden as usize + j];
        if comptime![kind.bias] {
            let bias = biases[scalars.biases as usize + scalars.sizes.adapt as usize * GATES + j];
            z += bias * policy[on_policy + scalars.policy.preact_bias as usize + j];
        }
        gates[gate] = z;
        if comptime![kind.save] {
            saved[saved_row + (GATES + 1 + gate) * units] = from_input;
            saved[saved_row + (2 * GATES + 1 + gate) * units] = from_hidden;
        }
    }
    let at_c = b * scalars.states.size as usize + scalars.states.cell as usize + unit;
    let on_mask = b * scalars.masks.size as usize + unit;
    let (starts, form) = (&scalars.masks.starts, comptime![kind.cell()]);
    let (before, bound) = (states[at_c], scalars.clip);
    let (c, h) = cell::<N>(&mut gates, before, masks, starts, on_mask, bound, form);
    // The output is h' without its dropout.
    let dropped = masked::<N>(h, masks, starts.hidden, on_mask, kind.masks.hidden);
    let (before, start) = (states[at_c + units], starts.update_hidden);
    let zoneout = kind.masks.update_hidden;
    let y = updated::<N>(h, before, masks, start, on_mask, zoneout);
    let next = updated::<N>(dropped, before, masks, start, on_mask, zoneout);
    states[at_c] = c;
    states[at_c + units] = next;

    let on_seen = scalars.seen.hidden as usize + unit;
    seen.own[b * scalars.seen.size as usize + on_seen] = next;
    if comptime![kind.top] {
        out[row * units + unit] = y;
    } else {
        seen.above[b * scalars.seen.above_size as usize + unit] = next;
    }
    if comptime![kind.save] {
        save_cell::<N>(&gates, c, saved, saved_row, units);
        if b < scalars.rows.next_count as usize {
            seen.own_rows
                [(scalars.rows.neighbour as usize + b) * scalars.seen.size as usize + on_seen] =
                next;
        }
        if comptime![!kind.top] {
            seen.above_rows[row * scalars.seen.above_size as usize + unit] = next;
        }
    }
}

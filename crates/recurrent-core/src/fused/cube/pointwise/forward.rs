//! One step, forward.

use super::layer_norm::{Statistics, across, normalized, statistics, with_gain_and_shift};
use super::*;

/// A step of all its rows.
///
/// # Arguments
/// * `projected` - x·W `[N, G·H]`
/// * `recurrent`, `peeped` - h·R, and c·V with full peepholes `[B, G·H]`
/// * `cells_before` - c before each row, for the gradient of V
#[cube(launch)]
pub fn step<N: Size>(
    projected: &[Vector<f32, N>],
    recurrent: &[Vector<f32, N>],
    peeped: &[Vector<f32, N>],
    call: &CallBuffers<N>,
    state: &mut StateBuffers<N>,
    cells_before: &mut [Vector<f32, N>],
    scalars: &StepScalars,
    #[comptime] kind: Kind,
) {
    let own = own(scalars.units as usize, kind.threads);
    let (b, units) = (own.row, own.units);
    if b >= scalars.rows.count as usize {
        terminate!();
    }
    let gates = comptime![kind.gates()];
    let row = (scalars.rows.first as usize + b) * units;
    let saved_row = (scalars.saved_row as usize + b) * units * comptime![kind.saved_pieces()];
    let product_at = saved_row + comptime![kind.product_at()] * units;

    // LN_h of h·R + b_h.
    let norm_hidden = comptime![kind.row_norm_hidden()];
    let of_hidden = if comptime![kind.norm_hidden.is_some()] {
        let mut sum = 0.0f32;
        let mut unit = own.first;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                let mut z = recurrent[b * units * gates + gate * units + unit];
                if comptime![kind.bias_hidden] {
                    z += call.vectors[(comptime![kind.bias_hidden_at()] + gate) * units + unit];
                }
                state.saved[product_at + gate * units + unit] = z;
                sum += across::<N>(z);
            }
            unit += own.stride;
        }
        statistics::<N>(
            sum,
            &state.saved,
            product_at,
            &own,
            &scalars.norm_hidden,
            norm_hidden,
        )
    } else {
        Statistics::none()
    };

    let mut raw_sum = 0.0f32;
    let mut unit = own.first;
    while unit < units {
        // What comes from h, at this unit.
        let mut z = Array::<Vector<f32, N>>::new(gates);
        #[unroll]
        for gate in 0..gates {
            let j = gate * units + unit;
            if comptime![kind.norm_hidden.is_some()] {
                let x = normalized::<N>(state.saved[product_at + j], &of_hidden);
                z[gate] = with_gain_and_shift::<N>(x, &call.vectors, j, units, norm_hidden);
            } else {
                z[gate] = recurrent[b * units * gates + j];
            }
            if comptime![kind.full] {
                z[gate] += peeped[b * units * gates + j];
            }
        }
        if comptime![kind.full && kind.save] {
            cells_before[row + unit] = state.cell[b * units + unit];
        }
        raw_sum += unit_forward::<N>(&mut z, projected, call, state, scalars, b, unit, kind);
        unit += own.stride;
    }

    // LN_c, and what follows it.
    if comptime![kind.norm_cell.is_some()] {
        let raw_at = saved_row + comptime![kind.raw_at()] * units;
        let norm = comptime![kind.row_norm_cell()];
        let of_cell = statistics::<N>(
            raw_sum,
            &state.saved,
            raw_at,
            &own,
            &scalars.norm_cell,
            norm,
        );
        let mut unit = own.first;
        while unit < units {
            let raw = state.saved[raw_at + unit];
            let n = normalized::<N>(raw, &of_cell);
            let n = with_gain_and_shift::<N>(n, &call.vectors, unit, units, norm);
            let carried = if comptime![kind.carry_normalized] {
                n
            } else {
                raw
            };
            let o_at = saved_row + comptime![kind.mixing_gates() + 1] * units + unit;
            let o = sigmoid::<N>(state.saved[o_at]);
            state.saved[o_at] = o;
            advance::<N>(&call.masks, state, scalars, b, unit, o, n, carried, kind);
            unit += own.stride;
        }
    }
}

/// A unit of a step, from what comes from h: the whole of it, or with LN_c up to c̃.
///
/// # Arguments
/// * `z` - what each gate has from h
///
/// # Returns
/// The sum over c̃, with LN_c.
#[cube]
pub fn unit_forward<N: Size>(
    z: &mut Array<Vector<f32, N>>,
    projected: &[Vector<f32, N>],
    call: &CallBuffers<N>,
    state: &mut StateBuffers<N>,
    scalars: &StepScalars,
    b: usize,
    unit: usize,
    #[comptime] kind: Kind,
) -> f32 {
    let units = scalars.units as usize;
    let gates = comptime![kind.gates()];
    let mixing = comptime![kind.mixing_gates()];
    let i = b * units + unit;
    let saved_row = (scalars.saved_row as usize + b) * units * comptime![kind.saved_pieces()];
    let c = state.cell[i];
    #[unroll]
    for gate in 0..gates {
        let j = gate * units + unit;
        z[gate] += projected[(scalars.projected_row as usize + b) * units * gates + j];
        if comptime![kind.bias] {
            z[gate] += call.vectors[j];
        }
    }
    let mut z_output = z[comptime![mixing + 1]];
    if comptime![kind.peepholes] {
        #[unroll]
        for gate in 0..mixing {
            let v = call.vectors[(comptime![kind.peepholes_at()] + gate) * units + unit];
            z[gate] += v * c;
        }
        if comptime![!kind.output_sees_new] {
            let v = call.vectors[comptime![kind.peepholes_at() + mixing] * units + unit];
            z_output += v * c;
        }
    }
    let first = sigmoid::<N>(z[0]);
    let second = if comptime![mixing == 2] {
        sigmoid::<N>(z[1])
    } else {
        first
    };
    let candidate = tanh::<N>(z[mixing]);
    if comptime![kind.save] {
        state.saved[saved_row + unit] = first;
        if comptime![mixing == 2] {
            state.saved[saved_row + units + unit] = second;
        }
        state.saved[saved_row + mixing * units + unit] = candidate;
    }
    let form = comptime![kind.cell()];
    let (masks, starts) = (&call.masks, &scalars.masks);
    let cell = cell_unit::<N>(first, second, candidate, c, masks, starts, i, form);
    let raw = bounded::<N>(cell.unbounded, scalars.clip, kind.clip);
    if comptime![kind.peepholes && kind.output_sees_new] {
        let v = call.vectors[comptime![kind.peepholes_at() + mixing] * units + unit];
        z_output += v * raw;
    }
    let mut sum = 0.0f32;
    if comptime![kind.norm_cell.is_some()] {
        // n needs the whole row: the output gate waits as a pre-activation.
        state.saved[saved_row + (mixing + 1) * units + unit] = z_output;
        state.saved[saved_row + comptime![kind.raw_at()] * units + unit] = raw;
        sum = across::<N>(raw);
    } else {
        let o = sigmoid::<N>(z_output);
        if comptime![kind.save] {
            state.saved[saved_row + (mixing + 1) * units + unit] = o;
        }
        advance::<N>(&call.masks, state, scalars, b, unit, o, raw, raw, kind);
    }
    sum
}

/// From o, n and the carried cell to the next state.
#[cube]
fn advance<N: Size>(
    masks: &[Vector<f32, N>],
    state: &mut StateBuffers<N>,
    scalars: &StepScalars,
    b: usize,
    unit: usize,
    o: Vector<f32, N>,
    n: Vector<f32, N>,
    carried: Vector<f32, N>,
    #[comptime] kind: Kind,
) {
    let units = scalars.units as usize;
    let i = b * units + unit;
    let start = scalars.masks.update_cell;
    let old = state.cell[i];
    let next = updated::<N>(carried, old, masks, start, i, kind.masks.update_cell);
    state.cell[i] = next;
    if comptime![kind.save] {
        let saved_row = (scalars.saved_row as usize + b) * units * comptime![kind.saved_pieces()];
        state.saved[saved_row + comptime![kind.gates()] * units + unit] = next;
    }
    let h = o * tanh::<N>(n);
    if comptime![kind.projected] {
        // Masks and the output follow the projection.
        state.hidden.state[i] = h;
        if comptime![kind.save] {
            let row = scalars.rows.first as usize + b;
            state.hidden.saved[row * units + unit] = h;
        }
    } else {
        let hidden = &mut state.hidden;
        write_hidden::<N>(h, masks, hidden, scalars, b, unit, kind.masks, kind.save);
    }
}

/// From h̃ through its masks to h', and h' to where it is read. Here `units` is the size of h.
#[cube]
fn write_hidden<N: Size>(
    h: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    hidden: &mut HiddenBuffers<N>,
    scalars: &StepScalars,
    b: usize,
    unit: usize,
    #[comptime] which: Masks<()>,
    #[comptime] save: bool,
) {
    let (units, rows) = (scalars.units as usize, &scalars.rows);
    let i = b * units + unit;
    let h = masked::<N>(h, masks, scalars.masks.hidden, i, which.hidden);
    let start = scalars.masks.update_hidden;
    let old = hidden.state[i];
    let h = updated::<N>(h, old, masks, start, i, which.update_hidden);
    hidden.state[i] = h;
    hidden.out[(rows.first as usize + b) * units + unit] = h;
    if comptime![save] {
        if b < rows.next_count as usize {
            hidden.saved[(rows.neighbour as usize + b) * units + unit] = h;
        }
    }
}

/// What follows the projection: masks on h, the output. Here `units` is the size of h.
///
/// # Arguments
/// * `product` - what the projection gave `[B, d_output]`
/// * `masks` - of the projection
#[cube(launch)]
pub fn project<N: Size>(
    product: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    hidden: &mut HiddenBuffers<N>,
    scalars: &StepScalars,
    #[comptime] which: Masks<()>,
    #[comptime] save: bool,
) {
    let own = own(scalars.units as usize, 0usize);
    if own.row >= scalars.rows.count as usize {
        terminate!();
    }
    let h = product[own.row * own.units + own.first];
    write_hidden::<N>(h, masks, hidden, scalars, own.row, own.first, which, save);
}

//! One step, forward.

use super::rows::{across, inverse_deviation, total};
use super::*;

/// A step of all its rows.
///
/// # Arguments
/// * `projected` - x·W `[N, G·H]`
/// * `recurrent`, `peeped` - h·R, and c·V with full peepholes `[B, G·H]`
/// * `vectors`, `masks` - of the call, each kind after the other
/// * `cell`, `hidden` - the running state `[B, H]`; with a projection `hidden` takes what it projects
/// * `out` - the output; not with a projection
/// * `tape` - see the module
/// * `before` - h before each row, for the gradient of R; not with a projection
/// * `cells_before` - c before each row, for the gradient of V
#[cube(launch)]
pub fn step<N: Size>(
    projected: &[Vector<f32, N>],
    recurrent: &[Vector<f32, N>],
    peeped: &[Vector<f32, N>],
    vectors: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    cell: &mut [Vector<f32, N>],
    hidden: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    tape: &mut [Vector<f32, N>],
    before: &mut [Vector<f32, N>],
    cells_before: &mut [Vector<f32, N>],
    at: &At,
    #[comptime] kind: Kind,
) {
    let units = at.units as usize;
    let (b, start, stride) = own(units, kind.threads);
    if b >= at.rows as usize {
        terminate!();
    }
    let gates = comptime![kind.gates()];
    let row = (at.row as usize + b) * units;
    let on_tape = (at.tape_row as usize + b) * units * comptime![kind.tape()];

    // LN_h of h·R + b_h.
    let mut mean = 0.0f32;
    let mut inverse = 1.0f32;
    if comptime![kind.norm_hidden.is_some()] {
        let mut sum = 0.0f32;
        let mut unit = start;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                let mut z = recurrent[b * units * gates + gate * units + unit];
                if comptime![kind.bias_hidden] {
                    z += vectors[(comptime![kind.bias_hidden_at()] + gate) * units + unit];
                }
                tape[on_tape + (comptime![kind.product_at()] + gate) * units + unit] = z;
                sum += across::<N>(z);
            }
            unit += stride;
        }
        let values = (units * gates * N::value()) as f32;
        mean = total(sum, kind.threads) / values;
        let mut squares = 0.0f32;
        let mut unit = start;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                let z = tape[on_tape + (comptime![kind.product_at()] + gate) * units + unit];
                let centred = z - Vector::new(mean);
                squares += across::<N>(centred * centred);
            }
            unit += stride;
        }
        let squares = total(squares, kind.threads);
        let outside = comptime![kind.norm_hidden.is_some_and(|norm| norm.outside)];
        inverse = inverse_deviation(squares, at.share_hidden, at.epsilon_hidden, outside);
    }

    let mut raw_sum = 0.0f32;
    let mut unit = start;
    while unit < units {
        let i = b * units + unit;
        // What comes from h, at this unit.
        let mut z = Array::<Vector<f32, N>>::new(gates);
        #[unroll]
        for gate in 0..gates {
            let j = gate * units + unit;
            if comptime![kind.norm_hidden.is_some()] {
                let x = tape[on_tape + comptime![kind.product_at()] * units + j];
                let mut y = (x - Vector::new(mean)) * Vector::new(inverse);
                if comptime![kind.norm_hidden.is_some_and(|norm| norm.gain)] {
                    y *= vectors[comptime![kind.gain_hidden_at()] * units + j];
                }
                if comptime![kind.norm_hidden.is_some_and(|norm| norm.shift)] {
                    y += vectors[comptime![kind.shift_hidden_at()] * units + j];
                }
                z[gate] = y;
            } else {
                z[gate] = recurrent[b * units * gates + j];
            }
            if comptime![kind.full] {
                z[gate] += peeped[b * units * gates + j];
            }
        }
        if comptime![kind.full && kind.keep] {
            cells_before[row + unit] = cell[i];
        }
        raw_sum += unit_forward::<N>(
            &mut z, projected, vectors, masks, cell, hidden, out, tape, before, at, b, unit, kind,
        );
        unit += stride;
    }

    // LN_c, and what follows it.
    if comptime![kind.norm_cell.is_some()] {
        let raw_at = on_tape + comptime![kind.raw_at()] * units;
        let values = (units * N::value()) as f32;
        let mean = total(raw_sum, kind.threads) / values;
        let mut squares = 0.0f32;
        let mut unit = start;
        while unit < units {
            let centred = tape[raw_at + unit] - Vector::new(mean);
            squares += across::<N>(centred * centred);
            unit += stride;
        }
        let squares = total(squares, kind.threads);
        let outside = comptime![kind.norm_cell.is_some_and(|norm| norm.outside)];
        let inverse = inverse_deviation(squares, at.share_cell, at.epsilon_cell, outside);
        let mut unit = start;
        while unit < units {
            let raw = tape[raw_at + unit];
            let mut n = (raw - Vector::new(mean)) * Vector::new(inverse);
            if comptime![kind.norm_cell.is_some_and(|norm| norm.gain)] {
                n *= vectors[comptime![kind.gain_cell_at()] * units + unit];
            }
            if comptime![kind.norm_cell.is_some_and(|norm| norm.shift)] {
                n += vectors[comptime![kind.shift_cell_at()] * units + unit];
            }
            let carried = if comptime![kind.carry_normalized] {
                n
            } else {
                raw
            };
            let o_at = on_tape + comptime![kind.shares() + 1] * units + unit;
            let o = sigmoid::<N>(tape[o_at]);
            tape[o_at] = o;
            let c = cell[b * units + unit];
            advance::<N>(
                masks, cell, hidden, out, tape, before, at, b, unit, o, n, carried, c, kind,
            );
            unit += stride;
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
    vectors: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    cell: &mut [Vector<f32, N>],
    hidden: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    tape: &mut [Vector<f32, N>],
    before: &mut [Vector<f32, N>],
    at: &At,
    b: usize,
    unit: usize,
    #[comptime] kind: Kind,
) -> f32 {
    let units = at.units as usize;
    let gates = comptime![kind.gates()];
    let shares = comptime![kind.shares()];
    let i = b * units + unit;
    let on_tape = (at.tape_row as usize + b) * units * comptime![kind.tape()];
    let c = cell[i];
    #[unroll]
    for gate in 0..gates {
        let j = gate * units + unit;
        z[gate] += projected[(at.projected_row as usize + b) * units * gates + j];
        if comptime![kind.bias] {
            z[gate] += vectors[j];
        }
    }
    let mut z_output = z[comptime![shares + 1]];
    if comptime![kind.peepholes] {
        #[unroll]
        for share in 0..shares {
            let v = vectors[(comptime![kind.peepholes_at()] + share) * units + unit];
            z[share] += v * c;
        }
        if comptime![!kind.output_sees_new] {
            let v = vectors[comptime![kind.peepholes_at() + shares] * units + unit];
            z_output += v * c;
        }
    }
    let a = sigmoid::<N>(z[0]);
    let second = if comptime![shares == 2] {
        sigmoid::<N>(z[1])
    } else {
        a
    };
    let candidate = tanh::<N>(z[shares]);
    if comptime![kind.keep] {
        tape[on_tape + unit] = a;
        if comptime![shares == 2] {
            tape[on_tape + units + unit] = second;
        }
        tape[on_tape + shares * units + unit] = candidate;
    }
    let mut g = candidate;
    if comptime![kind.masks.candidate] {
        g *= masks[at.mask_candidate as usize + i];
    }
    let input = input_gate::<N>(a, second, kind.coupling);
    let forget = forget_gate::<N>(a, second, kind.coupling);
    let mut raw = forget * c + input * g;
    if comptime![kind.masks.cell] {
        raw *= masks[at.mask_cell as usize + i];
    }
    let raw = bounded::<N>(raw, at.clip, kind.clip);
    if comptime![kind.peepholes && kind.output_sees_new] {
        let v = vectors[comptime![kind.peepholes_at() + shares] * units + unit];
        z_output += v * raw;
    }
    let mut sum = 0.0f32;
    if comptime![kind.norm_cell.is_some()] {
        // n needs the whole row: the output gate waits as a pre-activation.
        tape[on_tape + (shares + 1) * units + unit] = z_output;
        tape[on_tape + comptime![kind.raw_at()] * units + unit] = raw;
        sum = across::<N>(raw);
    } else {
        let o = sigmoid::<N>(z_output);
        if comptime![kind.keep] {
            tape[on_tape + (shares + 1) * units + unit] = o;
        }
        advance::<N>(
            masks, cell, hidden, out, tape, before, at, b, unit, o, raw, raw, c, kind,
        );
    }
    sum
}

/// From o, n and the carried cell to the next state.
#[cube]
fn advance<N: Size>(
    masks: &[Vector<f32, N>],
    cell: &mut [Vector<f32, N>],
    hidden: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    tape: &mut [Vector<f32, N>],
    before: &mut [Vector<f32, N>],
    at: &At,
    b: usize,
    unit: usize,
    o: Vector<f32, N>,
    n: Vector<f32, N>,
    carried: Vector<f32, N>,
    c: Vector<f32, N>,
    #[comptime] kind: Kind,
) {
    let units = at.units as usize;
    let i = b * units + unit;
    let row = at.row as usize + b;
    let mut next = carried;
    if comptime![kind.masks.update_cell] {
        next = zoneout::<N>(masks[at.update_cell as usize + i], carried, c);
    }
    cell[i] = next;
    if comptime![kind.keep] {
        let on_tape = (at.tape_row as usize + b) * units * comptime![kind.tape()];
        tape[on_tape + comptime![kind.gates()] * units + unit] = next;
    }
    let mut h = o * tanh::<N>(n);
    if comptime![kind.projected] {
        // Masks and the output follow the projection.
        hidden[i] = h;
        if comptime![kind.keep] {
            before[row * units + unit] = h;
        }
    } else {
        if comptime![kind.masks.hidden] {
            h *= masks[at.mask_hidden as usize + i];
        }
        if comptime![kind.masks.update_hidden] {
            h = zoneout::<N>(masks[at.update_hidden as usize + i], h, hidden[i]);
        }
        hidden[i] = h;
        out[row * units + unit] = h;
        if comptime![kind.keep] {
            if b < at.next_rows as usize {
                before[(at.other_row as usize + b) * units + unit] = h;
            }
        }
    }
}

/// What follows the projection: masks on h, the output. Here H is the size of h.
///
/// # Arguments
/// * `product` - what the projection gave `[B, d_output]`
/// * the others - as in [`step`]
#[cube(launch)]
pub fn project<N: Size>(
    product: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    hidden: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    before: &mut [Vector<f32, N>],
    at: &At,
    #[comptime] masked: MaskKinds,
    #[comptime] keep: bool,
) {
    let units = at.units as usize;
    let (b, unit, _) = own(units, 0usize);
    if b >= at.rows as usize {
        terminate!();
    }
    let i = b * units + unit;
    let mut h = product[i];
    if comptime![masked.hidden] {
        h *= masks[at.mask_hidden as usize + i];
    }
    if comptime![masked.update_hidden] {
        h = zoneout::<N>(masks[at.update_hidden as usize + i], h, hidden[i]);
    }
    hidden[i] = h;
    out[(at.row as usize + b) * units + unit] = h;
    if comptime![keep] {
        if b < at.next_rows as usize {
            before[(at.other_row as usize + b) * units + unit] = h;
        }
    }
}

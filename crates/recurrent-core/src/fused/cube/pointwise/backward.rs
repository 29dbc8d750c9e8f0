//! One step, backward.

use super::layer_norm::{
    Statistics, across, grad_statistics, norm_back, normalized, own_sum, statistics, with_gain,
    with_gain_and_shift,
};
use super::*;

/// The derivative of [`step`](super::step).
///
/// # Arguments
/// * `grad_out` - ∂ of the output; not with a projection
/// * `grad_hidden` - ∂h' from later steps `[B, H]`; with a projection, all of ∂h̃
/// * `through` - ∂c' through full peepholes, from later steps `[B, H]`
/// * `grad_product` - ∂(h·R + b_h) of all rows, with LN_h
/// * `left_full` - ∂z for the product with Vᵀ, where `left` of `grads` is not ∂z
#[cube(launch)]
pub fn step_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_hidden: &[Vector<f32, N>],
    through: &[Vector<f32, N>],
    forward: &SavedBuffers<N>,
    call: &CallBuffers<N>,
    grads: &mut GradBuffers<N>,
    grad_product: &mut [Vector<f32, N>],
    left_full: &mut [Vector<f32, N>],
    scalars: &StepScalars,
    #[comptime] kind: Kind,
) {
    let own = own(scalars.units as usize, kind.threads);
    let (b, units) = (own.row, own.units);
    if b >= scalars.rows.count as usize {
        terminate!();
    }
    let gates = comptime![kind.gates()];
    let mixing = comptime![kind.mixing_gates()];
    let row = (scalars.rows.first as usize + b) * units;
    let saved_row = row * comptime![kind.saved_pieces()];
    let raw_at = saved_row + comptime![kind.raw_at()] * units;
    let product_at = saved_row + comptime![kind.product_at()] * units;
    let on_products = row * comptime![kind.products()];

    // The statistics of LN_c once more.
    let norm_cell = comptime![kind.row_norm_cell()];
    let of_cell = if comptime![kind.norm_cell.is_some()] {
        let sum = own_sum::<N>(&forward.saved, raw_at, &own, norm_cell);
        let scalars = &scalars.norm_cell;
        statistics::<N>(sum, &forward.saved, raw_at, &own, scalars, norm_cell)
    } else {
        Statistics::none()
    };

    // From ∂h' and ∂c' to ∂z_o, ∂n and what passes by it; without LN_c to all of ∂z.
    let mut grad_sum = 0.0f32;
    let mut grad_along = 0.0f32;
    let mut unit = own.first;
    while unit < units {
        let grad_h = grad_hidden[b * units + unit];
        let (sum, along) = unit_back::<N>(
            grad_out, grad_h, through, forward, call, grads, scalars, b, unit, &of_cell, kind,
        );
        grad_sum += sum;
        grad_along += along;
        unit += own.stride;
    }

    if comptime![kind.norm_cell.is_some()] {
        let of_grads = grad_statistics::<N>(
            grad_sum,
            grad_along,
            &of_cell,
            &own,
            &scalars.norm_cell,
            norm_cell,
        );
        let mut unit = own.first;
        while unit < units {
            let cell = saved_unit::<N>(forward, &call.masks, scalars, b, unit, kind);
            let at_cell = on_products + comptime![kind.products_cell_at()] * units + unit;
            let grad = grads.products[at_cell + units];
            let grad = with_gain::<N>(grad, &call.vectors, unit, units, norm_cell);
            let grad = norm_back::<N>(grad, forward.saved[raw_at + unit], &of_cell, &of_grads);
            let grad_raw = grads.preact[row * gates + mixing * units + unit] + grad;
            let grad_c = grads.cell[b * units + unit];
            gates_back::<N>(&cell, grad_raw, grad_c, call, grads, scalars, b, unit, kind);
            if comptime![kind.norm_hidden.is_none()] {
                let o_at = (mixing + 1) * units + unit;
                grads.left[b * units * gates + o_at] = grads.preact[row * gates + o_at];
            }
            unit += own.stride;
        }
    }

    // Back through LN_h.
    if comptime![kind.norm_hidden.is_some()] {
        let norm = comptime![kind.row_norm_hidden()];
        let saved = &forward.saved;
        let sum = own_sum::<N>(saved, product_at, &own, norm);
        let of_hidden = statistics::<N>(sum, saved, product_at, &own, &scalars.norm_hidden, norm);
        let mut grad_sum = 0.0f32;
        let mut grad_along = 0.0f32;
        let mut unit = own.first;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                let j = gate * units + unit;
                let centred = saved[product_at + j] - Vector::new(of_hidden.mean);
                let grad = grads.preact[row * gates + j];
                let grad = with_gain::<N>(grad, &call.vectors, j, units, norm);
                grad_sum += across::<N>(grad);
                grad_along += across::<N>(grad * centred);
            }
            unit += own.stride;
        }
        let of_grads = grad_statistics::<N>(
            grad_sum,
            grad_along,
            &of_hidden,
            &own,
            &scalars.norm_hidden,
            norm,
        );
        let mut unit = own.first;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                let j = gate * units + unit;
                let x = saved[product_at + j];
                let centred = x - Vector::new(of_hidden.mean);
                let grad_z = grads.preact[row * gates + j];
                let at_hidden = on_products + comptime![kind.products_hidden_at()] * units;
                grads.products[at_hidden + j] =
                    grad_z * centred * Vector::new(of_hidden.inverse_deviation);
                let grad = with_gain::<N>(grad_z, &call.vectors, j, units, norm);
                let grad = norm_back::<N>(grad, x, &of_hidden, &of_grads);
                grad_product[row * gates + j] = grad;
                grads.left[b * units * gates + j] = grad;
                if comptime![kind.full] {
                    left_full[b * units * gates + j] = grad_z;
                }
            }
            unit += own.stride;
        }
    }
}

/// A unit of the cell from what the forward has saved.
#[cube]
fn saved_unit<N: Size>(
    forward: &SavedBuffers<N>,
    masks: &[Vector<f32, N>],
    scalars: &StepScalars,
    b: usize,
    unit: usize,
    #[comptime] kind: Kind,
) -> CellUnit<N> {
    let (units, rows) = (scalars.units as usize, &scalars.rows);
    let mixing = comptime![kind.mixing_gates()];
    let pieces = units * comptime![kind.saved_pieces()];
    let saved_row = (rows.first as usize + b) * pieces;
    let i = b * units + unit;
    let first = forward.saved[saved_row + unit];
    let second = if comptime![mixing == 2] {
        forward.saved[saved_row + units + unit]
    } else {
        first
    };
    let candidate = forward.saved[saved_row + mixing * units + unit];
    let previous_row = (rows.neighbour as usize + b) * pieces;
    let c = if rows.is_first_step == 1 {
        forward.first_cell[i]
    } else {
        forward.saved[previous_row + comptime![kind.gates()] * units + unit]
    };
    let form = comptime![kind.cell()];
    cell_unit::<N>(first, second, candidate, c, masks, &scalars.masks, i, form)
}

/// A unit of a step backward: the whole of it, or with LN_c down to ∂n.
///
/// # Arguments
/// * `grad_h` - ∂h' from later steps
/// * `of_cell` - the statistics of LN_c
///
/// # Returns
/// With LN_c, the sums over the vector of `∂n ⊙ gain` and of that times `c̃ − μ`.
#[cube]
pub fn unit_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_h: Vector<f32, N>,
    through: &[Vector<f32, N>],
    forward: &SavedBuffers<N>,
    call: &CallBuffers<N>,
    grads: &mut GradBuffers<N>,
    scalars: &StepScalars,
    b: usize,
    unit: usize,
    of_cell: &Statistics,
    #[comptime] kind: Kind,
) -> (f32, f32) {
    let units = scalars.units as usize;
    let gates = comptime![kind.gates()];
    let mixing = comptime![kind.mixing_gates()];
    let row = (scalars.rows.first as usize + b) * units;
    let saved_row = row * comptime![kind.saved_pieces()];
    let raw_at = saved_row + comptime![kind.raw_at()] * units;
    let on_products = row * comptime![kind.products()];
    let mut grad_sum = 0.0f32;
    let mut grad_along = 0.0f32;
    let i = b * units + unit;
    let mut grad_h = grad_h;
    if comptime![!kind.projected] {
        let direct = &mut grads.direct;
        let (masks, which) = (&call.masks, kind.masks);
        grad_h = hidden_back::<N>(grad_h, grad_out, masks, direct, scalars, b, unit, which);
    }
    let mut carried = grads.cell[i];
    if comptime![kind.full] {
        carried += through[i];
    }
    let mut grad_c = Vector::<f32, N>::new(0.0f32);
    if comptime![kind.masks.update_cell.is_some()] {
        let update = call.masks[scalars.masks.update_cell as usize + i];
        grad_c = one_minus::<N>(update) * carried;
        carried *= update;
    }

    let cell = saved_unit::<N>(forward, &call.masks, scalars, b, unit, kind);
    let o = forward.saved[saved_row + (mixing + 1) * units + unit];
    let raw = bounded::<N>(cell.unbounded, scalars.clip, kind.clip);

    let norm = comptime![kind.row_norm_cell()];
    let mut n = raw;
    let mut hat = raw;
    if comptime![kind.norm_cell.is_some()] {
        hat = normalized::<N>(forward.saved[raw_at + unit], of_cell);
        n = with_gain_and_shift::<N>(hat, &call.vectors, unit, units, norm);
    }
    let squashed = tanh::<N>(n);
    let grad_o = grad_h * squashed * sigmoid_slope::<N>(o);
    grads.preact[row * gates + (mixing + 1) * units + unit] = grad_o;
    let mut grad_n = grad_h * o * tanh_slope::<N>(squashed);
    let mut grad_raw = carried;
    if comptime![kind.carry_normalized] {
        grad_n += carried;
        grad_raw = Vector::new(0.0f32);
    }
    if comptime![kind.peepholes] {
        let v = call.vectors[comptime![kind.peepholes_at() + mixing] * units + unit];
        let product = on_products + mixing * units + unit;
        if comptime![kind.output_sees_new] {
            grad_raw += grad_o * v;
            grads.products[product] = grad_o * raw;
        } else {
            grad_c += grad_o * v;
            grads.products[product] = grad_o * cell.previous;
        }
    }

    if comptime![kind.norm_cell.is_some()] {
        let at_cell = on_products + comptime![kind.products_cell_at()] * units + unit;
        grads.products[at_cell] = grad_n * hat;
        grads.products[at_cell + units] = grad_n;
        let grad = with_gain::<N>(grad_n, &call.vectors, unit, units, norm);
        grad_sum = across::<N>(grad);
        let centred = forward.saved[raw_at + unit] - Vector::new(of_cell.mean);
        grad_along = across::<N>(grad * centred);
        // ∂c̃ past LN_c and ∂c past c̃ wait where ∂z_g and ∂c will be.
        grads.preact[row * gates + mixing * units + unit] = grad_raw;
        grads.cell[i] = grad_c;
    } else {
        let grad_raw = grad_raw + grad_n;
        gates_back::<N>(&cell, grad_raw, grad_c, call, grads, scalars, b, unit, kind);
        if comptime![kind.norm_hidden.is_none()] {
            grads.left[b * units * gates + (mixing + 1) * units + unit] = grad_o;
        }
    }
    (grad_sum, grad_along)
}

/// From ∂c̃ to ∂z of all gates but o, and ∂c.
///
/// # Arguments
/// * `grad_c` - ∂c past c̃
#[cube]
fn gates_back<N: Size>(
    cell: &CellUnit<N>,
    grad_raw: Vector<f32, N>,
    grad_c: Vector<f32, N>,
    call: &CallBuffers<N>,
    grads: &mut GradBuffers<N>,
    scalars: &StepScalars,
    b: usize,
    unit: usize,
    #[comptime] kind: Kind,
) {
    let units = scalars.units as usize;
    let gates = comptime![kind.gates()];
    let mixing = comptime![kind.mixing_gates()];
    let i = b * units + unit;
    let row = (scalars.rows.first as usize + b) * units;
    let form = comptime![kind.cell()];
    let (masks, starts) = (&call.masks, &scalars.masks);
    let back = cell_unit_back::<N>(cell, grad_raw, scalars.clip, masks, starts, i, form);
    let mut grad_c = grad_c + back.previous;
    let mut grad_z = Array::<Vector<f32, N>>::new(comptime![mixing + 1]);
    grad_z[0] = back.first;
    if comptime![mixing == 2] {
        grad_z[1] = back.second;
    }
    grad_z[mixing] = back.candidate;
    #[unroll]
    for gate in 0..comptime![mixing + 1] {
        let j = gate * units + unit;
        grads.preact[row * gates + j] = grad_z[gate];
        if comptime![kind.norm_hidden.is_none()] {
            grads.left[b * units * gates + j] = grad_z[gate];
        }
    }
    if comptime![kind.peepholes] {
        #[unroll]
        for gate in 0..mixing {
            let grad = grad_z[gate];
            grad_c += grad * call.vectors[(comptime![kind.peepholes_at()] + gate) * units + unit];
            grads.products[row * comptime![kind.products()] + gate * units + unit] =
                grad * cell.previous;
        }
    }
    grads.cell[i] = grad_c;
}

/// ∂h̃ from ∂h' of later steps: with that of the output, through the masks on h. Here `units` is the size
/// of h.
#[cube]
fn hidden_back<N: Size>(
    grad_hidden: Vector<f32, N>,
    grad_out: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    direct: &mut [Vector<f32, N>],
    scalars: &StepScalars,
    b: usize,
    unit: usize,
    #[comptime] which: Masks<()>,
) -> Vector<f32, N> {
    let units = scalars.units as usize;
    let i = b * units + unit;
    let mut grad = grad_hidden + grad_out[(scalars.rows.first as usize + b) * units + unit];
    if comptime![which.update_hidden.is_some()] {
        grad += direct[i];
        let update = masks[scalars.masks.update_hidden as usize + i];
        direct[i] = one_minus::<N>(update) * grad;
        grad *= update;
    }
    masked::<N>(grad, masks, scalars.masks.hidden, i, which.hidden)
}

/// The derivative of [`project`](super::project): from ∂h' to the gradient of the product. Here `units` is
/// the size of h.
///
/// # Arguments
/// * `grad_out`, `grad_hidden` - as in [`step_back`]
/// * `masks` - of the projection
/// * `direct` - ∂h' past zoneout, to the next call
/// * `grad_product` - of all rows `[N, d_output]`
/// * `left` - the same for the product with Pᵀ `[B, d_output]`
#[cube(launch)]
pub fn project_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_hidden: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    direct: &mut [Vector<f32, N>],
    grad_product: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    scalars: &StepScalars,
    #[comptime] which: Masks<()>,
) {
    let own = own(scalars.units as usize, 0usize);
    let (b, units, unit) = (own.row, own.units, own.first);
    if b >= scalars.rows.count as usize {
        terminate!();
    }
    let i = b * units + unit;
    let grad = grad_hidden[i];
    let grad = hidden_back::<N>(grad, grad_out, masks, direct, scalars, b, unit, which);
    grad_product[(scalars.rows.first as usize + b) * units + unit] = grad;
    left[i] = grad;
}

//! One step, backward.

use super::rows::{across, inverse_deviation, slope, total};
use super::*;

/// The derivative of [`step`](super::step).
///
/// # Arguments
/// * `grad_out` - ∂ of the output; not with a projection
/// * `grad_hidden` - ∂h' from later steps `[B, H]`; with a projection, all of ∂h̃
/// * `through` - ∂c' through full peepholes, from later steps `[B, H]`
/// * `tape`, `first_cell`, `vectors`, `masks` - of the forward
/// * `direct` - ∂h' past zoneout `[B, H]`, to the next call
/// * `grad_cell` - ∂c' on entry, ∂c on return `[B, H]`
/// * `grad_preact` - ∂z of all rows `[N, G·H]`
/// * `grad_product` - ∂(h·R + b_h) of all rows, with LN_h
/// * `left` - the left side of the next product with Rᵀ `[B, G·H]`: ∂z, or ∂(h·R + b_h)
/// * `left_full` - ∂z for the product with Vᵀ, where `left` is not ∂z
/// * `products` - whose sums over rows are gradients of vectors
#[cube(launch)]
pub fn step_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_hidden: &[Vector<f32, N>],
    through: &[Vector<f32, N>],
    tape: &[Vector<f32, N>],
    first_cell: &[Vector<f32, N>],
    vectors: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    direct: &mut [Vector<f32, N>],
    grad_cell: &mut [Vector<f32, N>],
    grad_preact: &mut [Vector<f32, N>],
    grad_product: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    left_full: &mut [Vector<f32, N>],
    products: &mut [Vector<f32, N>],
    at: &At,
    #[comptime] kind: Kind,
) {
    let units = at.units as usize;
    let (b, start, stride) = own(units, kind.threads);
    if b >= at.rows as usize {
        terminate!();
    }
    let gates = comptime![kind.gates()];
    let shares = comptime![kind.shares()];
    let row = (at.row as usize + b) * units;
    let on_tape = row * comptime![kind.tape()];
    let raw_at = on_tape + comptime![kind.raw_at()] * units;
    let product_at = on_tape + comptime![kind.product_at()] * units;
    let on_products = row * comptime![kind.products()];
    let values = (units * N::value()) as f32;

    // The statistics of LN_c once more.
    let mut mean = 0.0f32;
    let mut inverse = 1.0f32;
    let mut steepness = 0.0f32;
    if comptime![kind.norm_cell.is_some()] {
        let mut sum = 0.0f32;
        let mut unit = start;
        while unit < units {
            sum += across::<N>(tape[raw_at + unit]);
            unit += stride;
        }
        mean = total(sum, kind.threads) / values;
        let mut squares = 0.0f32;
        let mut unit = start;
        while unit < units {
            let centred = tape[raw_at + unit] - Vector::new(mean);
            squares += across::<N>(centred * centred);
            unit += stride;
        }
        let squares = total(squares, kind.threads);
        let outside = comptime![kind.norm_cell.is_some_and(|norm| norm.outside)];
        inverse = inverse_deviation(squares, at.share_cell, at.epsilon_cell, outside);
        steepness = slope(squares, at.share_cell, at.epsilon_cell, outside);
    }

    // From ∂h' and ∂c' to ∂z_o, ∂n and what passes by it; without LN_c to all of ∂z.
    let mut grad_sum = 0.0f32;
    let mut grad_along = 0.0f32;
    let mut unit = start;
    while unit < units {
        let (sum, along) = unit_back::<N>(
            grad_out,
            grad_hidden[b * units + unit],
            through,
            tape,
            first_cell,
            vectors,
            masks,
            direct,
            grad_cell,
            grad_preact,
            left,
            products,
            at,
            b,
            unit,
            mean,
            inverse,
            kind,
        );
        grad_sum += sum;
        grad_along += along;
        unit += stride;
    }

    if comptime![kind.norm_cell.is_some()] {
        let grad_mean = total(grad_sum, kind.threads) / values;
        let along = total(grad_along, kind.threads) * steepness;
        let mut unit = start;
        while unit < units {
            let i = b * units + unit;
            let a = tape[on_tape + unit];
            let second = if comptime![shares == 2] {
                tape[on_tape + units + unit]
            } else {
                a
            };
            let candidate = tape[on_tape + shares * units + unit];
            let previous = (at.other_row as usize + b) * units * comptime![kind.tape()];
            let c = if at.first == 1 {
                first_cell[i]
            } else {
                tape[previous + comptime![gates] * units + unit]
            };
            let mut g = candidate;
            if comptime![kind.masks.candidate] {
                g *= masks[at.mask_candidate as usize + i];
            }
            let input = input_gate::<N>(a, second, kind.coupling);
            let forget = forget_gate::<N>(a, second, kind.coupling);
            let mut unbounded = forget * c + input * g;
            if comptime![kind.masks.cell] {
                unbounded *= masks[at.mask_cell as usize + i];
            }
            let at_cell = on_products + comptime![kind.products_cell_at()] * units + unit;
            let mut grad = products[at_cell + units];
            if comptime![kind.norm_cell.is_some_and(|norm| norm.gain)] {
                grad *= vectors[comptime![kind.gain_cell_at()] * units + unit];
            }
            let centred = tape[raw_at + unit] - Vector::new(mean);
            let grad = (grad - Vector::new(grad_mean)) * Vector::new(inverse)
                - centred * Vector::new(along);
            let grad_raw = grad_preact[row * gates + shares * units + unit] + grad;
            let grad_c = grad_cell[i];
            gates_back::<N>(
                vectors,
                masks,
                grad_cell,
                grad_preact,
                left,
                products,
                at,
                b,
                unit,
                a,
                second,
                candidate,
                g,
                c,
                unbounded,
                grad_raw,
                grad_c,
                kind,
            );
            if comptime![kind.norm_hidden.is_none()] {
                let o_at = (shares + 1) * units + unit;
                left[b * units * gates + o_at] = grad_preact[row * gates + o_at];
            }
            unit += stride;
        }
    }

    // Back through LN_h.
    if comptime![kind.norm_hidden.is_some()] {
        let values = (units * gates * N::value()) as f32;
        let mut sum = 0.0f32;
        let mut unit = start;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                sum += across::<N>(tape[product_at + gate * units + unit]);
            }
            unit += stride;
        }
        let mean = total(sum, kind.threads) / values;
        let mut squares = 0.0f32;
        let mut grad_sum = 0.0f32;
        let mut grad_along = 0.0f32;
        let mut unit = start;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                let j = gate * units + unit;
                let centred = tape[product_at + j] - Vector::new(mean);
                squares += across::<N>(centred * centred);
                let mut grad = grad_preact[row * gates + j];
                if comptime![kind.norm_hidden.is_some_and(|norm| norm.gain)] {
                    grad *= vectors[comptime![kind.gain_hidden_at()] * units + j];
                }
                grad_sum += across::<N>(grad);
                grad_along += across::<N>(grad * centred);
            }
            unit += stride;
        }
        let squares = total(squares, kind.threads);
        let grad_mean = total(grad_sum, kind.threads) / values;
        let outside = comptime![kind.norm_hidden.is_some_and(|norm| norm.outside)];
        let inverse = inverse_deviation(squares, at.share_hidden, at.epsilon_hidden, outside);
        let along = total(grad_along, kind.threads)
            * slope(squares, at.share_hidden, at.epsilon_hidden, outside);
        let mut unit = start;
        while unit < units {
            #[unroll]
            for gate in 0..gates {
                let j = gate * units + unit;
                let centred = tape[product_at + j] - Vector::new(mean);
                let grad_z = grad_preact[row * gates + j];
                let at_hidden = on_products + comptime![kind.products_hidden_at()] * units;
                products[at_hidden + j] = grad_z * centred * Vector::new(inverse);
                let mut grad = grad_z;
                if comptime![kind.norm_hidden.is_some_and(|norm| norm.gain)] {
                    grad *= vectors[comptime![kind.gain_hidden_at()] * units + j];
                }
                let grad = (grad - Vector::new(grad_mean)) * Vector::new(inverse)
                    - centred * Vector::new(along);
                grad_product[row * gates + j] = grad;
                left[b * units * gates + j] = grad;
                if comptime![kind.full] {
                    left_full[b * units * gates + j] = grad_z;
                }
            }
            unit += stride;
        }
    }
}

/// A unit of a step backward: the whole of it, or with LN_c down to ∂n.
///
/// # Arguments
/// * `grad_h` - ∂h' from later steps
/// * `mean`, `inverse` - of LN_c
///
/// # Returns
/// With LN_c, the sums over the vector of `∂n ⊙ gain` and of that times `c̃ − μ`.
#[cube]
pub fn unit_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_h: Vector<f32, N>,
    through: &[Vector<f32, N>],
    tape: &[Vector<f32, N>],
    first_cell: &[Vector<f32, N>],
    vectors: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    direct: &mut [Vector<f32, N>],
    grad_cell: &mut [Vector<f32, N>],
    grad_preact: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    products: &mut [Vector<f32, N>],
    at: &At,
    b: usize,
    unit: usize,
    mean: f32,
    inverse: f32,
    #[comptime] kind: Kind,
) -> (f32, f32) {
    let units = at.units as usize;
    let gates = comptime![kind.gates()];
    let shares = comptime![kind.shares()];
    let row = (at.row as usize + b) * units;
    let on_tape = row * comptime![kind.tape()];
    let raw_at = on_tape + comptime![kind.raw_at()] * units;
    let on_products = row * comptime![kind.products()];
    let mut grad_sum = 0.0f32;
    let mut grad_along = 0.0f32;
    let i = b * units + unit;
    let mut grad_h = grad_h;
    if comptime![!kind.projected] {
        grad_h += grad_out[row + unit];
        if comptime![kind.masks.update_hidden] {
            grad_h += direct[i];
            let update = masks[at.update_hidden as usize + i];
            direct[i] = one_minus::<N>(update) * grad_h;
            grad_h *= update;
        }
        if comptime![kind.masks.hidden] {
            grad_h *= masks[at.mask_hidden as usize + i];
        }
    }
    let mut carried = grad_cell[i];
    if comptime![kind.full] {
        carried += through[i];
    }
    let mut grad_c = Vector::<f32, N>::new(0.0f32);
    if comptime![kind.masks.update_cell] {
        let update = masks[at.update_cell as usize + i];
        grad_c = one_minus::<N>(update) * carried;
        carried *= update;
    }

    let a = tape[on_tape + unit];
    let second = if comptime![shares == 2] {
        tape[on_tape + units + unit]
    } else {
        a
    };
    let candidate = tape[on_tape + shares * units + unit];
    let o = tape[on_tape + (shares + 1) * units + unit];
    let previous = (at.other_row as usize + b) * units * comptime![kind.tape()];
    let c = if at.first == 1 {
        first_cell[i]
    } else {
        tape[previous + comptime![gates] * units + unit]
    };
    let mut g = candidate;
    if comptime![kind.masks.candidate] {
        g *= masks[at.mask_candidate as usize + i];
    }
    let input = input_gate::<N>(a, second, kind.coupling);
    let forget = forget_gate::<N>(a, second, kind.coupling);
    let mut unbounded = forget * c + input * g;
    if comptime![kind.masks.cell] {
        unbounded *= masks[at.mask_cell as usize + i];
    }
    let raw = bounded::<N>(unbounded, at.clip, kind.clip);

    let mut normalized = raw;
    let mut hat = raw;
    let mut gain = Vector::<f32, N>::new(1.0f32);
    if comptime![kind.norm_cell.is_some()] {
        hat = (tape[raw_at + unit] - Vector::new(mean)) * Vector::new(inverse);
        normalized = hat;
        if comptime![kind.norm_cell.is_some_and(|norm| norm.gain)] {
            gain = vectors[comptime![kind.gain_cell_at()] * units + unit];
            normalized *= gain;
        }
        if comptime![kind.norm_cell.is_some_and(|norm| norm.shift)] {
            normalized += vectors[comptime![kind.shift_cell_at()] * units + unit];
        }
    }
    let squashed = tanh::<N>(normalized);
    let grad_o = grad_h * squashed * sigmoid_slope::<N>(o);
    grad_preact[row * gates + (shares + 1) * units + unit] = grad_o;
    let mut grad_normalized = grad_h * o * tanh_slope::<N>(squashed);
    let mut grad_raw = carried;
    if comptime![kind.carry_normalized] {
        grad_normalized += carried;
        grad_raw = Vector::new(0.0f32);
    }
    if comptime![kind.peepholes] {
        let v = vectors[comptime![kind.peepholes_at() + shares] * units + unit];
        let product = on_products + shares * units + unit;
        if comptime![kind.output_sees_new] {
            grad_raw += grad_o * v;
            products[product] = grad_o * raw;
        } else {
            grad_c += grad_o * v;
            products[product] = grad_o * c;
        }
    }

    if comptime![kind.norm_cell.is_some()] {
        let at_cell = on_products + comptime![kind.products_cell_at()] * units + unit;
        products[at_cell] = grad_normalized * hat;
        products[at_cell + units] = grad_normalized;
        let grad = grad_normalized * gain;
        grad_sum = across::<N>(grad);
        grad_along = across::<N>(grad * (tape[raw_at + unit] - Vector::new(mean)));
        // ∂c̃ past LN_c and ∂c past c̃ wait where ∂z_g and ∂c will be.
        grad_preact[row * gates + shares * units + unit] = grad_raw;
        grad_cell[i] = grad_c;
    } else {
        gates_back::<N>(
            vectors,
            masks,
            grad_cell,
            grad_preact,
            left,
            products,
            at,
            b,
            unit,
            a,
            second,
            candidate,
            g,
            c,
            unbounded,
            grad_raw + grad_normalized,
            grad_c,
            kind,
        );
        if comptime![kind.norm_hidden.is_none()] {
            left[b * units * gates + (shares + 1) * units + unit] = grad_o;
        }
    }
    (grad_sum, grad_along)
}

/// From ∂c̃ to ∂z of all gates but o, and ∂c.
#[cube]
fn gates_back<N: Size>(
    vectors: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    grad_cell: &mut [Vector<f32, N>],
    grad_preact: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    products: &mut [Vector<f32, N>],
    at: &At,
    b: usize,
    unit: usize,
    a: Vector<f32, N>,
    second: Vector<f32, N>,
    candidate: Vector<f32, N>,
    g: Vector<f32, N>,
    c: Vector<f32, N>,
    unbounded: Vector<f32, N>,
    grad_raw: Vector<f32, N>,
    grad_c: Vector<f32, N>,
    #[comptime] kind: Kind,
) {
    let units = at.units as usize;
    let gates = comptime![kind.gates()];
    let shares = comptime![kind.shares()];
    let i = b * units + unit;
    let row = (at.row as usize + b) * units;
    let mut grad = grad_raw;
    if comptime![kind.clip] {
        let bound = Vector::new(at.clip);
        let zero = Vector::new(0.0f32);
        grad = select_many(unbounded.abs().greater_than(&bound), zero, grad);
    }
    if comptime![kind.masks.cell] {
        grad *= masks[at.mask_cell as usize + i];
    }
    let input = input_gate::<N>(a, second, kind.coupling);
    let forget = forget_gate::<N>(a, second, kind.coupling);
    let mut grad_g = grad * input;
    if comptime![kind.masks.candidate] {
        grad_g *= masks[at.mask_candidate as usize + i];
    }
    let grad_g = grad_g * tanh_slope::<N>(candidate);
    let mut grad_c = grad_c + grad * forget;
    let grad_input = grad * g;
    let grad_forget = grad * c;
    let grad_a =
        first_share::<N>(a, second, grad_input, grad_forget, kind.coupling) * sigmoid_slope::<N>(a);
    grad_preact[row * gates + unit] = grad_a;
    grad_preact[row * gates + shares * units + unit] = grad_g;
    if comptime![kind.norm_hidden.is_none()] {
        left[b * units * gates + unit] = grad_a;
        left[b * units * gates + shares * units + unit] = grad_g;
    }
    if comptime![kind.peepholes] {
        grad_c += grad_a * vectors[comptime![kind.peepholes_at()] * units + unit];
        products[row * comptime![kind.products()] + unit] = grad_a * c;
    }
    if comptime![shares == 2] {
        let grad_b = second_share::<N>(a, second, grad_input, grad_forget, kind.coupling)
            * sigmoid_slope::<N>(second);
        grad_preact[row * gates + units + unit] = grad_b;
        if comptime![kind.norm_hidden.is_none()] {
            left[b * units * gates + units + unit] = grad_b;
        }
        if comptime![kind.peepholes] {
            grad_c += grad_b * vectors[comptime![kind.peepholes_at() + 1] * units + unit];
            products[row * comptime![kind.products()] + units + unit] = grad_b * c;
        }
    }
    grad_cell[i] = grad_c;
}

/// The derivative of [`project`](super::project): from ∂h' to the gradient of the product. Here H is
/// the size of h.
///
/// # Arguments
/// * `grad_product` - of all rows `[N, d_output]`
/// * `left` - the same for the product with Pᵀ `[B, d_output]`
/// * the others - as in [`step_back`]
#[cube(launch)]
pub fn project_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    grad_hidden: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    direct: &mut [Vector<f32, N>],
    grad_product: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    at: &At,
    #[comptime] masked: MaskKinds,
) {
    let units = at.units as usize;
    let (b, unit, _) = own(units, 0usize);
    if b >= at.rows as usize {
        terminate!();
    }
    let i = b * units + unit;
    let row = (at.row as usize + b) * units;
    let mut grad = grad_hidden[i] + grad_out[row + unit];
    if comptime![masked.update_hidden] {
        grad += direct[i];
        let update = masks[at.update_hidden as usize + i];
        direct[i] = one_minus::<N>(update) * grad;
        grad *= update;
    }
    if comptime![masked.hidden] {
        grad *= masks[at.mask_hidden as usize + i];
    }
    grad_product[row + unit] = grad;
    left[i] = grad;
}

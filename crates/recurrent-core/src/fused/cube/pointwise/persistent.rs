//! All steps in one launch, for small H: a cube takes one sequence from start to end, with R in its
//! shared memory and a unit for each hidden unit.
//!
//! The steps of a sequence are then the iterations of a loop, and the units of the cube meet twice in
//! each: nobody overwrites h before all have multiplied with it, and nobody reads it before it is there.
//! The arithmetic of a unit is that of the kernels of one step. Vectors are of one value.

use super::backward::unit_back;
use super::forward::unit_forward;
use super::*;

/// Where step t of sequence b is.
///
/// # Arguments
/// * `steps` - steps of the longest sequence
/// * `starts` - the first row of each step, and the number of rows
/// * `at` - where the masks begin
#[cube]
fn place(
    t: usize,
    steps: usize,
    starts: &[u32],
    at: &At,
    #[comptime] per_step: MaskKinds,
    #[comptime] back: bool,
) -> At {
    let row = starts[t];
    let mut next_rows = 0u32;
    if t + 1 < steps {
        next_rows = starts[t + 2] - starts[t + 1];
    }
    let mut other_row = starts[t + 1];
    let mut first = 0u32;
    if comptime![back] {
        other_row = 0u32;
        if t > 0 {
            other_row = starts[t - 1];
        } else {
            first = 1u32;
        }
    }
    let offset = row * at.units;
    let mut mask_candidate = at.mask_candidate;
    if comptime![per_step.candidate] {
        mask_candidate += offset;
    }
    let mut mask_cell = at.mask_cell;
    if comptime![per_step.cell] {
        mask_cell += offset;
    }
    let mut mask_hidden = at.mask_hidden;
    if comptime![per_step.hidden] {
        mask_hidden += offset;
    }
    let mut update_cell = at.update_cell;
    if comptime![per_step.update_cell] {
        update_cell += offset;
    }
    let mut update_hidden = at.update_hidden;
    if comptime![per_step.update_hidden] {
        update_hidden += offset;
    }
    At {
        units: at.units,
        rows: at.rows,
        row,
        projected_row: row,
        tape_row: row,
        other_row,
        next_rows,
        first,
        mask_candidate,
        mask_cell,
        mask_hidden,
        update_cell,
        update_hidden,
        clip: at.clip,
        epsilon_hidden: at.epsilon_hidden,
        share_hidden: at.share_hidden,
        epsilon_cell: at.epsilon_cell,
        share_cell: at.share_cell,
    }
}

/// All steps of all sequences, forward.
///
/// # Arguments
/// * `weight` - R `[H, G·H]`
/// * `starts` - the first row of each step, the number of rows, then the steps of each sequence
/// * the others - as in [`step`](super::step), without a projection, normalisation or full peepholes
#[cube(launch)]
pub fn steps<N: Size>(
    projected: &[Vector<f32, N>],
    weight: &[f32],
    starts: &[u32],
    vectors: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    cell: &mut [Vector<f32, N>],
    hidden: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    tape: &mut [Vector<f32, N>],
    before: &mut [Vector<f32, N>],
    at: &At,
    steps: u32,
    #[comptime] kind: Kind,
    #[comptime] per_step: MaskKinds,
    #[comptime] d_hidden: usize,
) {
    let units = at.units as usize;
    let steps = steps as usize;
    let (b, unit) = (CUBE_POS, UNIT_POS as usize);
    if b >= at.rows as usize {
        terminate!();
    }
    let gates = comptime![kind.gates()];
    let width = units * gates;
    let mut on_chip = Shared::<[f32]>::new_slice(comptime![d_hidden * kind.gates() * d_hidden]);
    let mut h = Shared::<[f32]>::new_slice(d_hidden);
    let mut index = unit;
    while index < units * width {
        on_chip[index] = weight[index];
        index += CUBE_DIM as usize;
    }
    let i = b * units + unit;
    if unit < units {
        h[unit] = hidden[i].extract(0usize);
    }
    sync_cube();
    let length = starts[steps + 1 + b] as usize;
    for t in 0..length {
        let here = place(t, steps, starts, at, per_step, false);
        if unit < units {
            let mut z = Array::<Vector<f32, N>>::new(gates);
            #[unroll]
            for gate in 0..gates {
                let mut sum = 0.0f32;
                for k in 0..units {
                    sum += h[k] * on_chip[k * width + gate * units + unit];
                }
                z[gate] = Vector::new(sum);
            }
            unit_forward::<N>(
                &mut z, projected, vectors, masks, cell, hidden, out, tape, before, &here, b, unit,
                kind,
            );
        }
        sync_cube();
        if unit < units {
            h[unit] = hidden[i].extract(0usize);
        }
        sync_cube();
    }
}

/// All steps of all sequences, backward.
///
/// # Arguments
/// * `weight`, `starts` - as in [`steps`]
/// * `grad_hidden` - ∂h' of the last step on entry, ∂h_0 on return but for `direct`
/// * the others - as in [`step_back`](super::step_back)
#[cube(launch)]
pub fn steps_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    weight: &[f32],
    starts: &[u32],
    tape: &[Vector<f32, N>],
    first_cell: &[Vector<f32, N>],
    vectors: &[Vector<f32, N>],
    masks: &[Vector<f32, N>],
    grad_hidden: &mut [Vector<f32, N>],
    direct: &mut [Vector<f32, N>],
    grad_cell: &mut [Vector<f32, N>],
    grad_preact: &mut [Vector<f32, N>],
    left: &mut [Vector<f32, N>],
    products: &mut [Vector<f32, N>],
    at: &At,
    steps: u32,
    #[comptime] kind: Kind,
    #[comptime] per_step: MaskKinds,
    #[comptime] d_hidden: usize,
) {
    let units = at.units as usize;
    let steps = steps as usize;
    let (b, unit) = (CUBE_POS, UNIT_POS as usize);
    if b >= at.rows as usize {
        terminate!();
    }
    let gates = comptime![kind.gates()];
    let width = units * gates;
    // Rᵀ: units next to each other then read values next to each other.
    let mut on_chip = Shared::<[f32]>::new_slice(comptime![d_hidden * kind.gates() * d_hidden]);
    let mut z = Shared::<[f32]>::new_slice(comptime![d_hidden * kind.gates()]);
    let mut index = unit;
    while index < units * width {
        on_chip[(index % width) * units + index / width] = weight[index];
        index += CUBE_DIM as usize;
    }
    sync_cube();
    let i = b * units + unit;
    let length = starts[steps + 1 + b] as usize;
    for back in 0..length {
        let here = place(length - 1 - back, steps, starts, at, per_step, true);
        if unit < units {
            // Without full peepholes nothing is read as `through`.
            unit_back::<N>(
                grad_out,
                grad_hidden[i],
                grad_out,
                tape,
                first_cell,
                vectors,
                masks,
                direct,
                grad_cell,
                grad_preact,
                left,
                products,
                &here,
                b,
                unit,
                0.0f32,
                1.0f32,
                kind,
            );
            #[unroll]
            for gate in 0..gates {
                let j = gate * units + unit;
                z[j] = left[b * width + j].extract(0usize);
            }
        }
        sync_cube();
        if unit < units {
            let mut sum = 0.0f32;
            for j in 0..width {
                sum += z[j] * on_chip[j * units + unit];
            }
            grad_hidden[i] = Vector::new(sum);
        }
        sync_cube();
    }
}

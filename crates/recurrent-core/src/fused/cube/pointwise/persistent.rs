//! All steps in one launch, for small H: a cube takes one sequence from start to end, with R in its
//! shared memory and a unit for each hidden unit.
//!
//! The steps of a sequence are then the iterations of a loop, with two barriers of the cube in each: the
//! first before h is overwritten, since all units multiply with it, the second before it is read.
//! The arithmetic of a unit is that of the kernels of one step. Vectors are of one value.

use super::backward::unit_back;
use super::forward::unit_forward;
use super::layer_norm::Statistics;
use super::masks::mask_starts;
use super::*;

/// The scalars of step t.
///
/// # Arguments
/// * `steps` - steps of the longest sequence
/// * `starts` - the first row of each step, and the number of rows
/// * `first` - the scalars of the first step
/// * `masks` - whether each mask that there is has a row per step
#[cube]
fn scalars_at(
    t: usize,
    steps: usize,
    starts: &[u32],
    first: &StepScalars,
    #[comptime] masks: Masks<bool>,
    #[comptime] back: bool,
) -> StepScalars {
    let row = starts[t];
    let mut next_count = 0u32;
    if t + 1 < steps {
        next_count = starts[t + 2] - starts[t + 1];
    }
    let mut neighbour = starts[t + 1];
    let mut is_first_step = 0u32;
    if comptime![back] {
        neighbour = 0u32;
        if t > 0 {
            neighbour = starts[t - 1];
        } else {
            is_first_step = 1u32;
        }
    }
    StepScalars {
        units: first.units,
        rows: StepRows {
            count: first.rows.count,
            first: row,
            neighbour,
            next_count,
            is_first_step,
        },
        projected_row: row,
        saved_row: row,
        masks: mask_starts(&first.masks, row * first.units, masks),
        clip: first.clip,
        norm_hidden: NormScalars {
            epsilon: first.norm_hidden.epsilon,
            inverse_count: first.norm_hidden.inverse_count,
        },
        norm_cell: NormScalars {
            epsilon: first.norm_cell.epsilon,
            inverse_count: first.norm_cell.inverse_count,
        },
    }
}

/// All steps of all sequences, forward.
///
/// # Arguments
/// * `weight` - R `[H, G·H]`
/// * `starts` - the first row of each step, the number of rows, then the steps of each sequence
/// * `first` - the scalars of the first step
/// * `steps` - of the longest sequence
/// * `masks` - whether each mask that there is has a row per step
/// * the others - as in [`step`](super::step), without a projection, normalisation or full peepholes
#[cube(launch)]
pub fn steps<N: Size>(
    projected: &[Vector<f32, N>],
    weight: &[f32],
    starts: &[u32],
    call: &CallBuffers<N>,
    state: &mut StateBuffers<N>,
    first: &StepScalars,
    steps: u32,
    #[comptime] kind: Kind,
    #[comptime] masks: Masks<bool>,
    #[comptime] d_hidden: usize,
) {
    let units = first.units as usize;
    let steps = steps as usize;
    let (b, unit) = (CUBE_POS, UNIT_POS as usize);
    if b >= first.rows.count as usize {
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
        h[unit] = state.hidden.state[i].extract(0usize);
    }
    sync_cube();
    let length = starts[steps + 1 + b] as usize;
    for t in 0..length {
        let here = scalars_at(t, steps, starts, first, masks, false);
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
            unit_forward::<N>(&mut z, projected, call, state, &here, b, unit, kind);
        }
        sync_cube();
        if unit < units {
            h[unit] = state.hidden.state[i].extract(0usize);
        }
        sync_cube();
    }
}

/// All steps of all sequences, backward.
///
/// # Arguments
/// * `weight`, `starts`, `first`, `steps`, `masks` - as in [`steps`]
/// * `grad_hidden` - ∂h' of the last step on entry, ∂h_0 on return but for `direct` of `grads`
/// * the others - as in [`step_back`](super::step_back)
#[cube(launch)]
pub fn steps_back<N: Size>(
    grad_out: &[Vector<f32, N>],
    weight: &[f32],
    starts: &[u32],
    forward: &SavedBuffers<N>,
    call: &CallBuffers<N>,
    grad_hidden: &mut [Vector<f32, N>],
    grads: &mut GradBuffers<N>,
    first: &StepScalars,
    steps: u32,
    #[comptime] kind: Kind,
    #[comptime] masks: Masks<bool>,
    #[comptime] d_hidden: usize,
) {
    let units = first.units as usize;
    let steps = steps as usize;
    let (b, unit) = (CUBE_POS, UNIT_POS as usize);
    if b >= first.rows.count as usize {
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
        let here = scalars_at(length - 1 - back, steps, starts, first, masks, true);
        if unit < units {
            // Without full peepholes nothing is read as `through`.
            let (through, grad_h) = (grad_out, grad_hidden[i]);
            let none = Statistics::none();
            unit_back::<N>(
                grad_out, grad_h, through, forward, call, grads, &here, b, unit, &none, kind,
            );
            #[unroll]
            for gate in 0..gates {
                let j = gate * units + unit;
                z[j] = grads.left[b * width + j].extract(0usize);
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

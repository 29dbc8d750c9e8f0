//! Masks in kernels: which there are is known when a kernel is compiled, where they begin when it runs.

use super::*;
use crate::equations::masks::MaskPlace;

/// Where the masks of a step begin in the buffer of all masks, in vectors; 0 for those that there are not.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct MaskStarts {
    /// m_g
    pub candidate: u32,
    /// m_c
    pub cell: u32,
    /// m_h
    pub hidden: u32,
    /// u
    pub update_cell: u32,
    /// v
    pub update_hidden: u32,
    /// On z of an adaptation cell.
    pub adapt: u32,
}

impl From<Masks<usize>> for MaskStartsLaunch {
    fn from(starts: Masks<usize>) -> Self {
        let start = |place: MaskPlace| starts.get(place).map_or(0, |&start| start as u32);
        Self {
            candidate: start(MaskPlace::Candidate),
            cell: start(MaskPlace::Cell),
            hidden: start(MaskPlace::Hidden),
            update_cell: start(MaskPlace::UpdateCell),
            update_hidden: start(MaskPlace::UpdateHidden),
            adapt: start(MaskPlace::Adapt),
        }
    }
}

/// `start`, or with a row per step where the step begins.
#[cube]
fn start_at(start: u32, step_start: u32, #[comptime] per_step: Option<bool>) -> u32 {
    if comptime![per_step == Some(true)] {
        start + step_start
    } else {
        start
    }
}

/// Where the masks of a step begin.
///
/// # Arguments
/// * `first` - the same of the first step
/// * `step_start` - vectors of the rows before the step
/// * `masks` - whether each mask that there is has a row per step
#[cube]
pub fn mask_starts(
    first: &MaskStarts,
    step_start: u32,
    #[comptime] masks: Masks<bool>,
) -> MaskStarts {
    MaskStarts {
        candidate: start_at(first.candidate, step_start, masks.candidate),
        cell: start_at(first.cell, step_start, masks.cell),
        hidden: start_at(first.hidden, step_start, masks.hidden),
        update_cell: start_at(first.update_cell, step_start, masks.update_cell),
        update_hidden: start_at(first.update_hidden, step_start, masks.update_hidden),
        adapt: start_at(first.adapt, step_start, masks.adapt),
    }
}

/// x times its mask, where there is one.
///
/// # Arguments
/// * `start` - where the mask begins
/// * `index` - of the unit within the mask
#[cube]
pub fn masked<N: Size>(
    x: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    start: u32,
    index: usize,
    #[comptime] mask: Option<()>,
) -> Vector<f32, N> {
    // In a variable: otherwise CubeCL fuses the product with a sum that follows, which rounds differently.
    let mut y = x;
    if comptime![mask.is_some()] {
        y *= masks[start as usize + index];
    }
    y
}

/// Zoneout, `u ⊙ new + (1 − u) ⊙ old`, where there is its mask u; new otherwise.
///
/// # Arguments
/// * `start`, `index` - as in [`masked`]
#[cube]
pub fn updated<N: Size>(
    new: Vector<f32, N>,
    old: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    start: u32,
    index: usize,
    #[comptime] mask: Option<()>,
) -> Vector<f32, N> {
    if comptime![mask.is_some()] {
        let update = masks[start as usize + index];
        update * new + one_minus::<N>(update) * old
    } else {
        new
    }
}

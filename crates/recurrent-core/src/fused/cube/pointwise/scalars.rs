//! The numbers that a kernel is given of a step.

use super::*;

/// The rows of a step.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct StepRows {
    /// How many they are.
    pub count: u32,
    /// The first of them among the rows of all steps.
    pub first: u32,
    /// The first row of the neighbouring step: forward the next one, backward the previous one.
    pub neighbour: u32,
    /// Rows of the next step.
    pub next_count: u32,
    /// 1 for the first step, whose previous state is the initial one.
    pub is_first_step: u32,
}

/// A normalisation.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct NormScalars {
    /// ε
    pub epsilon: f32,
    /// 1/k: what the sum of squares is multiplied with to give the variance.
    pub inverse_count: f32,
}

/// A step of the LSTM family.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct StepScalars {
    /// Vectors of H.
    pub units: u32,
    /// Its rows.
    pub rows: StepRows,
    /// Its first row in what comes from the input.
    pub projected_row: u32,
    /// Its first row among the saved ones.
    pub saved_row: u32,
    /// Where its masks begin.
    pub masks: MaskStarts,
    /// Bound of |c̃|.
    pub clip: f32,
    /// LN_h
    pub norm_hidden: NormScalars,
    /// LN_c
    pub norm_cell: NormScalars,
}

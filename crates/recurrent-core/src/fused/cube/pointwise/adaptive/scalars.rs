//! The numbers that a kernel is given of a layer at a step. Features are counted in vectors.

use super::*;

/// Features of a layer.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct LayerSizes {
    /// I
    pub input: u32,
    /// H
    pub hidden: u32,
    /// A
    pub adapt: u32,
    /// Of p.
    pub policy: u32,
    /// K
    pub pair: u32,
}

/// A row of the states of all layers.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct StatesRow {
    /// All features.
    pub size: u32,
    /// Where the layer's c begins; h, m and z follow.
    pub cell: u32,
    /// Where the h of the layer below begins.
    pub hidden_below: u32,
}

/// A row of p.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct PolicyRow {
    /// Where p_i begins.
    pub preact_input: u32,
    /// Where p_g begins.
    pub preact_hidden: u32,
    /// Where p_b begins.
    pub preact_bias: u32,
}

/// A row of what a layer sees, and one of what the layer above sees, or of the top layer the first one.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct SeenRow {
    /// All features of the layer's row; z is the last of them.
    pub size: u32,
    /// Where h is in there.
    pub hidden: u32,
    /// All features of the other row; x is the first of them in a layer above.
    pub above_size: u32,
    /// Where z_below is in there.
    pub above_z_below: u32,
}

/// The masks of a layer.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct LayerMasks {
    /// Where those of the step begin.
    pub starts: MaskStarts,
    /// Features of a mask of all layers' cells.
    pub size: u32,
    /// The same of the adaptation cells.
    pub adapt_size: u32,
}

/// A layer at a step.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct LayerScalars {
    /// Rows of the step.
    pub rows: StepRows,
    /// Its first row among the saved ones.
    pub saved_row: u32,
    /// Features of the layer.
    pub sizes: LayerSizes,
    /// Where its states are.
    pub states: StatesRow,
    /// Where b_a begins in the biases; b follows.
    pub biases: u32,
    /// Where the parts of p are.
    pub policy: PolicyRow,
    /// Where states are in what is seen.
    pub seen: SeenRow,
    /// Masks.
    pub masks: LayerMasks,
    /// Bound of |c̃|.
    pub clip: f32,
    /// The same of the adaptation cell.
    pub clip_adapt: f32,
}

//! Buffers that kernels of the LSTM family are given together.

use alloc::boxed::Box;

use super::*;

/// What a call gives to each of its steps.
#[derive(CubeLaunch, CubeType)]
pub struct CallBuffers<N: Size> {
    /// The vectors of the call, in the order of [`Kind`].
    pub vectors: Box<[Vector<f32, N>]>,
    /// All masks, one after the other.
    pub masks: Box<[Vector<f32, N>]>,
}

/// Where a step writes h'.
#[derive(CubeLaunch, CubeType)]
pub struct HiddenBuffers<N: Size> {
    /// h, the running state `[B, d_output]`; of the cell's kernel with a projection, what it projects
    /// `[B, H]`.
    pub state: Box<[Vector<f32, N>]>,
    /// The output; not of the cell's kernel with a projection.
    pub out: Box<[Vector<f32, N>]>,
    /// h before each row, for the gradient of R; of the cell's kernel with a projection, what it projects,
    /// for the gradient of P.
    pub saved: Box<[Vector<f32, N>]>,
}

/// What a step of the cell writes.
#[derive(CubeLaunch, CubeType)]
pub struct StateBuffers<N: Size> {
    /// c, the running state `[B, H]`.
    pub cell: Box<[Vector<f32, N>]>,
    /// The saved rows, see the module.
    pub saved: Box<[Vector<f32, N>]>,
    /// h
    pub hidden: HiddenBuffers<N>,
}

/// What the backward reads of the forward.
#[derive(CubeLaunch, CubeType)]
pub struct SavedBuffers<N: Size> {
    /// The saved rows, see the module.
    pub saved: Box<[Vector<f32, N>]>,
    /// c_0 `[B, H]`
    pub first_cell: Box<[Vector<f32, N>]>,
}

/// What a step backward of the cell writes.
#[derive(CubeLaunch, CubeType)]
pub struct GradBuffers<N: Size> {
    /// ∂h' past zoneout `[B, H]`, to the next call.
    pub direct: Box<[Vector<f32, N>]>,
    /// ∂c' on entry, ∂c on return `[B, H]`.
    pub cell: Box<[Vector<f32, N>]>,
    /// ∂z of all rows `[N, G·H]`.
    pub preact: Box<[Vector<f32, N>]>,
    /// The left side of the next product with Rᵀ `[B, G·H]`: ∂z, or with LN_h ∂(h·R + b_h).
    pub left: Box<[Vector<f32, N>]>,
    /// Whose sums over rows are gradients of vectors.
    pub products: Box<[Vector<f32, N>]>,
}

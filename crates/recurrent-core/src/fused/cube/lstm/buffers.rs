//! The buffers that the steps write, step by step or in one launch.

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use crate::fused::cube::buffer::arg;
use crate::fused::cube::pointwise::{GradBuffersLaunch, HiddenBuffersLaunch, StateBuffersLaunch};

/// What the steps write.
pub struct State {
    /// c of the sequences that still run.
    pub cell: CubeTensor,
    /// h of them.
    pub hidden: CubeTensor,
    /// The output.
    pub flat: CubeTensor,
    /// The saved rows; in inference with a normalisation those of one step, for the second half of it.
    pub rows: CubeTensor,
    /// h before each row.
    pub before: CubeTensor,
}

impl State {
    /// The buffers of a kernel of the cell without a projection.
    pub fn buffers<N: Size>(&self, lanes: usize) -> StateBuffersLaunch<N> {
        StateBuffersLaunch {
            cell: arg(&self.cell, lanes),
            saved: arg(&self.rows, lanes),
            hidden: self.hidden_buffers(lanes),
        }
    }

    /// Those of h.
    pub fn hidden_buffers<N: Size>(&self, lanes: usize) -> HiddenBuffersLaunch<N> {
        HiddenBuffersLaunch {
            state: arg(&self.hidden, lanes),
            out: arg(&self.flat, lanes),
            saved: arg(&self.before, lanes),
        }
    }
}

/// What the steps of the cell write.
pub struct Grads {
    /// ∂h past zoneout `[B, d_output]`.
    pub direct: CubeTensor,
    /// ∂c `[B, H]`
    pub cell: CubeTensor,
    /// ∂z of all rows `[N, G·H]`.
    pub preact: CubeTensor,
    /// The left side of a step's product with Rᵀ `[B, G·H]`.
    pub left: CubeTensor,
    /// Whose sums over rows are gradients of vectors.
    pub products: CubeTensor,
}

impl Grads {
    /// The buffers of the kernel of the cell.
    pub fn buffers<N: Size>(&self, lanes: usize) -> GradBuffersLaunch<N> {
        GradBuffersLaunch {
            direct: arg(&self.direct, lanes),
            cell: arg(&self.cell, lanes),
            preact: arg(&self.preact, lanes),
            left: arg(&self.left, lanes),
            products: arg(&self.products, lanes),
        }
    }
}

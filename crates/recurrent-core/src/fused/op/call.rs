//! The tensors of a call in running order.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::tensor::{Int, Tensor, TensorData};

use crate::equations::masks::Masks;
use crate::fused::device::{Target, target};
use crate::fused::problem::Precision;

/// A mask in running order.
#[derive(Debug, Clone)]
pub struct FusedMask {
    /// `[N, features]` with `per_step`, `[B, features]` otherwise.
    pub rows: Tensor<2>,
    /// Whether there are separate rows for each step.
    pub per_step: bool,
}

/// The masks of a call in running order.
pub type FusedMasks = Masks<FusedMask>;

/// The rows of the input of a call.
#[derive(Debug, Clone)]
pub struct FusedRows {
    /// `[T, B, d_input]` or `[1, N, d_input]`; with a gather order, the rows may be split over the first
    /// two axes in any way.
    pub rows: Tensor<3>,
    /// Gather order: for each row in running order, its index in `rows`. `None`: the rows are in running
    /// order. Set only in inference on a CPU, where it saves a copy of the input.
    pub order: Option<Arc<[usize]>>,
}

impl FusedRows {
    /// The rows in running order, `[N, d_input]`.
    pub fn in_running_order(self) -> Tensor<2> {
        let [steps, rows, features] = self.rows.dims();
        let all = self.rows.reshape([steps * rows, features]);
        let Some(order) = self.order else {
            return all;
        };
        let indices: Vec<i64> = order.iter().map(|&row| row as i64).collect();
        let indices = TensorData::new(indices, [order.len()]);
        let device = all.device();
        let indices: Tensor<1, Int> = Tensor::from_data(indices, &device);
        all.select(0, indices)
    }

    /// The rows in running order, in a tensor of any shape. On backends with slices it is cheaper to
    /// copy them during preparation than in a separate operation.
    pub(super) fn for_kernel(self) -> burn::backend::DispatchTensor {
        match target(&self.rows.device()) {
            Some(Target::Cpu) if self.order.is_none() => self.rows.into_dispatch(),
            _ => self.in_running_order().into_dispatch(),
        }
    }
}

impl From<Tensor<2>> for FusedRows {
    fn from(rows: Tensor<2>) -> Self {
        Self {
            rows: rows.unsqueeze_dim(0),
            order: None,
        }
    }
}

/// All steps of a call. Rows are in running order: step t has `counts[t]` rows, at most as many as the
/// previous step, and row b of a step continues row b of the previous step.
#[derive(Debug, Clone)]
pub struct FusedCall {
    /// The input.
    pub rows: FusedRows,
    /// The tensors of the initial state, in running order.
    pub state: Vec<Tensor<2>>,
    /// Number of rows of each step.
    pub counts: Vec<usize>,
    /// Masks.
    pub masks: FusedMasks,
    /// The precision in which recurrent weights are read in inference.
    pub precision: Precision,
    /// Whether to return the states after all steps.
    pub histories: bool,
}

/// The results of a kernel, in running order.
#[derive(Debug, Clone)]
pub struct FusedOutput {
    /// `[T, B, d_output]` if all steps have the same number of rows, `[1, N, d_output]` otherwise.
    pub output: Tensor<3>,
    /// The state after the last step of each sequence, with the same tensors as the call's.
    pub state: Vec<Tensor<2>>,
    /// The states after all steps, one tensor per tensor of the state, shaped like the output; empty if
    /// they were not requested.
    pub histories: Vec<Tensor<3>>,
}

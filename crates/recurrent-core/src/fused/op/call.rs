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
    /// Whether each step has rows of its own.
    pub per_step: bool,
}

/// The masks of a call in running order.
pub type FusedMasks = Masks<FusedMask>;

/// The rows of the input of a call.
#[derive(Debug, Clone)]
pub struct FusedRows {
    /// `[T, B, d_input]` or `[1, N, d_input]`; with an order, all rows in two axes of any lengths.
    pub rows: Tensor<3>,
    /// Which of them each row in running order is; none: they are in running order. There is one only
    /// in inference on a CPU, where it saves a copy of the input.
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

    /// The same, of any shape: where tensors are slices of memory, it costs less to copy them there than
    /// in an operation of its own.
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

/// All steps of a call. Rows are in running order: step t has `counts[t]` of them, never more than the
/// step before, and row b of a step continues row b of the step before.
#[derive(Debug, Clone)]
pub struct FusedCall {
    /// The input.
    pub rows: FusedRows,
    /// The tensors of the initial state, in running order.
    pub state: Vec<Tensor<2>>,
    /// Rows of each step.
    pub counts: Vec<usize>,
    /// Masks.
    pub masks: FusedMasks,
    /// How exactly recurrent weights are read in inference.
    pub precision: Precision,
    /// Whether the states after all steps are asked for.
    pub histories: bool,
}

/// What a kernel gives, in running order.
#[derive(Debug, Clone)]
pub struct FusedOutput {
    /// `[T, B, d_output]` where all steps have as many rows, `[1, N, d_output]` otherwise.
    pub output: Tensor<3>,
    /// The tensors of the state after the last step of each sequence, as those of the call.
    pub state: Vec<Tensor<2>>,
    /// The states after all steps, one tensor per tensor of the state, shaped as the output is; none where
    /// they were not asked for.
    pub histories: Vec<Tensor<3>>,
}

//! The state that a cell carries from one step to the next.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use burn::nn::LstmState;
use burn::tensor::{Int, Tensor};

/// A recurrent state: one or more tensors `[batch_size, features]` that share the batch axis.
///
/// A cell author lists the tensors. Reordering, slicing and detaching are generic over that list, so
/// the loops over time are independent of the number of parts.
pub trait State: Send + Clone {
    /// The tensors of the state, in a fixed order.
    fn into_tensors(self) -> Vec<Tensor<2>>;

    /// Inverse of [`into_tensors`](Self::into_tensors).
    ///
    /// # Panics
    /// If the number of tensors is not what `into_tensors` returns.
    #[track_caller]
    fn from_tensors(tensors: Vec<Tensor<2>>) -> Self;

    /// Applies `f` to each tensor.
    fn map(self, f: impl FnMut(Tensor<2>) -> Tensor<2>) -> Self {
        Self::from_tensors(self.into_tensors().into_iter().map(f).collect())
    }

    /// The rows `range` of each tensor.
    fn rows(self, range: Range<usize>) -> Self {
        self.map(|tensor| {
            let [_, features] = tensor.dims();
            tensor.slice([range.clone(), 0..features])
        })
    }

    /// Picks rows by index.
    fn select(self, indices: &Tensor<1, Int>) -> Self {
        self.map(|tensor| tensor.select(0, indices.clone()))
    }

    /// Stacks the rows of several states on top of each other.
    ///
    /// # Panics
    /// If `parts` is empty.
    fn cat(parts: Vec<Self>) -> Self {
        let mut columns: Vec<Vec<Tensor<2>>> = Vec::new();
        for part in parts {
            for (index, tensor) in part.into_tensors().into_iter().enumerate() {
                if columns.len() <= index {
                    columns.push(vec![]);
                }
                columns[index].push(tensor);
            }
        }
        Self::from_tensors(columns.into_iter().map(|c| Tensor::cat(c, 0)).collect())
    }

    /// The same values, detached from the autodiff graph: truncated backpropagation through time.
    fn detach(self) -> Self {
        self.map(Tensor::detach)
    }
}

impl State for LstmState<2> {
    fn into_tensors(self) -> Vec<Tensor<2>> {
        vec![self.cell, self.hidden]
    }

    fn from_tensors(tensors: Vec<Tensor<2>>) -> Self {
        let [cell, hidden] = match <[_; 2]>::try_from(tensors) {
            Ok(tensors) => tensors,
            Err(got) => panic!("an LSTM state has 2 tensors, got {}", got.len()),
        };
        // Not `LstmState::new`: with a projection the two sizes differ, which it rejects in debug.
        LstmState { cell, hidden }
    }
}

/// The state of a GRU: the hidden state only.
#[derive(Debug, Clone)]
pub struct GruState {
    /// h `[batch_size, d_hidden]`
    pub hidden: Tensor<2>,
}

impl State for GruState {
    fn into_tensors(self) -> Vec<Tensor<2>> {
        vec![self.hidden]
    }

    fn from_tensors(tensors: Vec<Tensor<2>>) -> Self {
        match <[_; 1]>::try_from(tensors) {
            Ok([hidden]) => GruState { hidden },
            Err(got) => panic!("a GRU state has 1 tensor, got {}", got.len()),
        }
    }
}

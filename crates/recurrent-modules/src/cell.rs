//! The interface of a cell with parameters, as layers, directions and lengths use it.

use core::fmt::Debug;

use burn::module::Module;
use burn::tensor::Tensor;
use recurrent_core::equations::dropout::StepMasks;
use recurrent_core::{Step, sequence};

/// A recurrent cell with parameters.
///
/// Implement it (and [`Step`] for its weights) to get layers, directions, lengths, dropout between
/// layers and masks from [`Stack`](crate::Stack).
pub trait Cell: Module + Debug {
    /// The same cell on plain tensors, without `Param`s.
    type Step: Step;

    /// The weights for one call; clones share storage.
    fn bind(&self) -> Self::Step;

    /// Features of one input step.
    fn d_input(&self) -> usize;

    /// Units of the cell.
    fn d_hidden(&self) -> usize;

    /// Features of the output.
    fn d_output(&self) -> usize {
        self.d_hidden()
    }

    /// Number of layers that the cell contains: 1, except for the aLSTM, whose layers advance together. The
    /// state has the same parts for each layer, one layer after the other.
    fn layers(&self) -> usize {
        1
    }

    /// Probability of zeroing the hidden states of adaptation cells, one mask per sequence; only
    /// the aLSTM has such cells.
    fn dropout_adapt(&self) -> f64 {
        0.0
    }
}

/// The state of a cell.
pub type StateOf<C> = <<C as Cell>::Step as Step>::State;

/// One step of a bare cell, without dropout; `None` starts from zeros.
#[track_caller]
pub(crate) fn step<C: Cell>(
    cell: &C,
    input: Tensor<2>,
    state: Option<StateOf<C>>,
    masks: &StepMasks,
) -> (Tensor<2>, StateOf<C>) {
    let weights = cell.bind();
    let state = state.unwrap_or_else(|| {
        sequence::initial_state(&weights, input.dims()[0], &input.device(), input.dtype())
    });
    weights.step_once(input, state, masks)
}

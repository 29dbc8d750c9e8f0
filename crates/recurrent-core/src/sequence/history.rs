//! Runs that also return the states of all steps.

use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::{SequenceOptions, SequenceOutput, run_padded};
use crate::cell::Step;

/// The states after all steps of a run, by part.
#[derive(Debug, Clone)]
pub struct History {
    /// Name and values of each part of the state, in the order of [`Step::state_parts`]:
    /// `[seq_length, batch_size, ·]`, at the time index of the input, zero past each length.
    pub parts: Vec<(&'static str, Tensor<3>)>,
}

impl History {
    /// One part by name: for the LSTM `cell` or `hidden`.
    ///
    /// # Panics
    /// If the state has no such part.
    #[track_caller]
    pub fn part(&self, name: &str) -> Tensor<3> {
        match self.parts.iter().find(|(other, _)| *other == name) {
            Some((_, values)) => values.clone(),
            None => {
                let names: Vec<_> = self.parts.iter().map(|(name, _)| name).collect();
                panic!("the state has no part `{name}`, its parts are {names:?}")
            }
        }
    }

    /// Applies `f` to each part.
    pub fn map(self, f: impl Fn(Tensor<3>) -> Tensor<3>) -> Self {
        let parts = self.parts.into_iter();
        Self {
            parts: parts.map(|(name, values)| (name, f(values))).collect(),
        }
    }
}

/// Like [`run`](super::run), and also returns the state after each step: `s_t`, t = 1..=T. It uses the
/// same kernels, which compute these states anyway.
///
/// # Gradients
/// As [`run`](super::run), and through the returned states.
///
/// # Panics
/// As [`run`](super::run).
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_core::cell::{Preactivation, Transition, lstm::LstmStep};
/// use recurrent_core::{SequenceOptions, sequence};
///
/// let device = Device::flex();
/// let cell = LstmStep {
///     preact: Preactivation::plain(
///         Tensor::ones([3, 4 * 2], &device),
///         Tensor::ones([2, 4 * 2], &device),
///         None,
///     ),
///     transition: Transition::default(),
/// };
/// let input = Tensor::<3>::ones([5, 1, 3], &device);          // [T, B, I]
/// let options = SequenceOptions::default();
/// let (run, history) = sequence::run_recorded(&cell, input, None, &options);
/// assert_eq!(history.part("cell").dims(), [5, 1, 2]);
/// assert_eq!(history.part("hidden").into_data(), run.output.into_data());
/// ```
#[track_caller]
pub fn run_recorded<C: Step>(
    cell: &C,
    input: Tensor<3>,
    state: Option<C::State>,
    options: &SequenceOptions<'_>,
) -> (SequenceOutput<C::State>, History) {
    let parts = cell.state_parts();
    let (output, histories) = run_padded(cell, input, state, options, true);
    assert!(
        histories.len() == parts.len(),
        "the kernel of the cell gives the histories of {} parts of the state, expected {}",
        histories.len(),
        parts.len(),
    );
    let names = parts.into_iter().map(|(name, _)| name);
    let parts = names.zip(histories).collect();
    (output, History { parts })
}

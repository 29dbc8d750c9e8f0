//! All states of a run, for those who ask.

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::{SequenceOptions, SequenceOutput, run_padded};
use crate::cell::Step;
use crate::state::State;

/// The states after every step of a run, part by part.
#[derive(Debug, Clone)]
pub struct History {
    /// Name and values of each part of the state, in the order of
    /// [`Step::state_parts`]: `[seq_length, batch_size, ·]` at the time of their input, zero past
    /// each length.
    pub parts: Vec<(&'static str, Tensor<3>)>,
}

impl History {
    /// One part by its name: for the LSTM `cell` or `hidden`.
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

/// [`run`](super::run) that also keeps the state after every step: `s_t`, t = 1..=T. Runs step by
/// step, whatever the strategy.
///
/// # Gradients
/// As [`run`](super::run), and through the kept states.
///
/// # Panics
/// As [`run`](super::run).
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_core::cell::{Preactivation, Transition, lstm::LstmCell};
/// use recurrent_core::{SequenceOptions, sequence};
///
/// let device = Device::flex();
/// let cell = LstmCell {
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
    let mut steps: Vec<Vec<Tensor<2>>> = vec![Vec::new(); parts.len()];
    let mut record = |state: &C::State| {
        for (list, tensor) in steps.iter_mut().zip(state.clone().into_tensors()) {
            list.push(tensor);
        }
    };
    let (output, plan) = run_padded(cell, input, state, options, Some(&mut record));
    if plan.is_empty() {
        let [seq_length, batch_size] = plan.shape();
        let (device, dtype) = (output.output.device(), output.output.dtype());
        let zeros = |(name, features)| {
            let shape = [seq_length, batch_size, features];
            (name, Tensor::zeros(shape, (&device, dtype)))
        };
        let parts = parts.into_iter().map(zeros).collect();
        return (output, History { parts });
    }
    let parts = parts.into_iter().zip(steps);
    let parts = parts
        .map(|((name, _), steps)| (name, plan.unpack(Tensor::cat(steps, 0))))
        .collect();
    (output, History { parts })
}

//! Level 3 with parameters: one layer in one or both directions.

use alloc::vec;
use alloc::vec::Vec;

use burn::module::Module;
use burn::tensor::Tensor;
use recurrent_core::cell::drop_weights;
use recurrent_core::{
    Direction, History, Lengths, Masks, Precision, SequenceOptions, Step, Strategy, sequence,
};

use crate::cells::{Cell, StateOf};

/// A cell run over time, with a second one for the backward direction where there is one.
///
/// Graves & Schmidhuber, Framewise phoneme classification with bidirectional LSTM, 2005.
#[derive(Module, Debug)]
pub struct Layer<C: Cell> {
    /// The cell of the first direction.
    pub forward: C,
    /// The cell of the backward direction.
    pub backward: Option<C>,
}

/// How one cell is run over padded (`D` = 3) or packed (`D` = 2) sequences.
///
/// Not a closure: closures do not pass on their caller's location.
pub(crate) trait RunCell<const D: usize> {
    #[track_caller]
    fn run<C: Step>(
        &mut self,
        cell: &C,
        input: Tensor<D>,
        state: Option<C::State>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<D>, C::State);
}

/// Padded sequences.
pub(crate) struct Padded;

/// Padded sequences, keeping all states.
pub(crate) struct Recorded(pub Vec<History>);

/// Packed rows.
pub(crate) struct Packed;

impl RunCell<3> for Padded {
    #[track_caller]
    fn run<C: Step>(
        &mut self,
        cell: &C,
        input: Tensor<3>,
        state: Option<C::State>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<3>, C::State) {
        let run = sequence::run(cell, input, state, options);
        (run.output, run.state)
    }
}

impl RunCell<3> for Recorded {
    #[track_caller]
    fn run<C: Step>(
        &mut self,
        cell: &C,
        input: Tensor<3>,
        state: Option<C::State>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<3>, C::State) {
        let (run, history) = sequence::run_recorded(cell, input, state, options);
        self.0.push(history);
        (run.output, run.state)
    }
}

impl RunCell<2> for Packed {
    #[track_caller]
    fn run<C: Step>(
        &mut self,
        cell: &C,
        input: Tensor<2>,
        state: Option<C::State>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<2>, C::State) {
        let run = sequence::run_packed(cell, input, state, options);
        (run.rows, run.state)
    }
}

/// How a stack runs all its layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Whether the only direction runs from the last step to the first.
    pub reverse: bool,
    /// By kernels or step by step.
    pub strategy: Strategy,
    /// How exactly recurrent weights are read in inference.
    pub precision: Precision,
}

/// One direction's share of a call.
struct Pass<'a, C: Cell> {
    cell: &'a C,
    direction: Direction,
}

impl<C: Cell> Layer<C> {
    /// 1, or 2 with a backward direction.
    pub fn directions(&self) -> usize {
        if self.backward.is_some() { 2 } else { 1 }
    }

    /// Features of the output, all directions together.
    pub fn d_output(&self) -> usize {
        self.forward.d_output() * self.directions()
    }

    /// The cells in state order.
    pub fn cells(&self) -> impl Iterator<Item = &C> {
        core::iter::once(&self.forward).chain(&self.backward)
    }

    /// Runs the directions over time-major or packed sequences and joins their features.
    ///
    /// # Arguments
    /// * `input` - `[seq_length, batch_size, d_input]`, or packed `[rows, d_input]`
    /// * `states` - one per direction, or none for zeros
    /// * `masks` - one per direction, or none
    /// * `how` - what the stack says of all its layers
    /// * `run` - runs one cell
    #[track_caller]
    pub(crate) fn run<const D: usize>(
        &self,
        input: Tensor<D>,
        states: Option<Vec<StateOf<C>>>,
        lengths: Option<&Lengths>,
        masks: &[Masks],
        how: How,
        run: &mut impl RunCell<D>,
    ) -> (Tensor<D>, Vec<StateOf<C>>) {
        let first = if how.reverse {
            Direction::Backward
        } else {
            Direction::Forward
        };
        let mut passes = vec![Pass {
            cell: &self.forward,
            direction: first,
        }];
        passes.extend(self.backward.as_ref().map(|cell| Pass {
            cell,
            direction: Direction::Backward,
        }));

        let mut states = states.map(Vec::into_iter);
        let mut outputs = Vec::with_capacity(2);
        let mut finals = Vec::with_capacity(2);
        for (index, pass) in passes.iter().enumerate() {
            let mut cell = pass.cell.bind();
            let masks = masks.get(index).map(|masks| {
                drop_weights(&mut cell, &masks.weights);
                Masks {
                    weights: vec![],
                    ..masks.clone()
                }
            });
            let options = SequenceOptions {
                direction: pass.direction,
                lengths,
                masks: masks.as_ref(),
                strategy: how.strategy,
                precision: how.precision,
            };
            let state = states.as_mut().and_then(Iterator::next);
            let (output, state) = run.run(&cell, input.clone(), state, &options);
            outputs.push(output);
            finals.push(state);
        }
        let output = if outputs.len() == 1 {
            outputs.remove(0)
        } else {
            Tensor::cat(outputs, D - 1)
        };
        (output, finals)
    }
}

//! Level 3 with parameters: one layer in one or both directions.

use alloc::vec;
use alloc::vec::Vec;

use burn::module::Module;
use burn::tensor::Tensor;
use recurrent_core::{
    Direction, History, Lengths, Masks, Precision, SequenceOptions, Step, Strategy, sequence,
};

use crate::cell::Cell;

/// A cell run over time, with a second cell for the backward direction if the layer is bidirectional.
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
/// A trait instead of a closure, because closures do not propagate `#[track_caller]`.
pub(crate) trait RunCell<const D: usize>: Send {
    /// A second runner, for running the other direction concurrently.
    fn twin(&self) -> Self
    where
        Self: Sized;

    /// Takes over the histories of a second runner.
    fn join(&mut self, twin: Self)
    where
        Self: Sized;

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
    fn twin(&self) -> Self {
        Self
    }

    fn join(&mut self, _: Self) {}

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
    fn twin(&self) -> Self {
        Self(Vec::new())
    }

    fn join(&mut self, twin: Self) {
        self.0.extend(twin.0);
    }

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
    fn twin(&self) -> Self {
        Self
    }

    fn join(&mut self, _: Self) {}

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
struct Pass<'a, C: Step> {
    cell: C,
    direction: Direction,
    masks: Option<Masks>,
    state: Option<C::State>,
    lengths: Option<&'a Lengths>,
    how: How,
}

impl<C: Step> Pass<'_, C> {
    #[track_caller]
    fn run<const D: usize>(
        self,
        input: Tensor<D>,
        run: &mut impl RunCell<D>,
    ) -> (Tensor<D>, C::State) {
        let options = SequenceOptions {
            direction: self.direction,
            lengths: self.lengths,
            masks: self.masks.as_ref(),
            strategy: self.how.strategy,
            precision: self.how.precision,
        };
        run.run(&self.cell, input, self.state, &options)
    }

    /// Whether running both directions concurrently is faster.
    #[track_caller]
    fn worth_pairing<const D: usize>(&self, input: &Tensor<D>) -> bool {
        let dims = input.dims();
        let (seq_length, batch_size) = match (D, self.lengths) {
            (3, None) => (dims[0], dims[1]),
            // The run reports invalid lengths, with the location of the caller.
            (3, Some(lengths)) if lengths.as_slice().len() != dims[1] => return false,
            (3, Some(lengths)) if lengths.max() > dims[0] => return false,
            (_, Some(lengths)) => (lengths.max(), lengths.as_slice().len()),
            _ => return false,
        };
        sequence::worth_pairing(
            &self.cell,
            seq_length,
            batch_size,
            self.how.strategy,
            &input.device(),
            input.dtype(),
        )
    }
}

/// A layer on plain tensors, without `Param`s, for one call.
pub(crate) struct BoundLayer<S> {
    forward: S,
    backward: Option<S>,
}

impl<C: Cell> Layer<C> {
    /// The weights for one call; clones share storage.
    pub(crate) fn bind(&self) -> BoundLayer<C::Step> {
        BoundLayer {
            forward: self.forward.bind(),
            backward: self.backward.as_ref().map(Cell::bind),
        }
    }

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
}

impl<S: Step> BoundLayer<S> {
    /// The cells in state order.
    pub fn cells(&self) -> impl Iterator<Item = &S> {
        core::iter::once(&self.forward).chain(&self.backward)
    }

    /// The cells in state order.
    pub fn cells_mut(&mut self) -> impl Iterator<Item = &mut S> {
        core::iter::once(&mut self.forward).chain(&mut self.backward)
    }

    /// The cell of the first direction.
    pub fn first(&self) -> &S {
        &self.forward
    }

    /// The only cell of a layer of one direction.
    pub fn into_forward(self) -> S {
        self.forward
    }

    /// Runs the directions over time-major or packed sequences and joins their features.
    ///
    /// # Arguments
    /// * `input` - `[seq_length, batch_size, d_input]`, or packed `[rows, d_input]`
    /// * `states` - one per direction, or none for zeros
    /// * `masks` - one per direction, or none; those on weights have been applied
    /// * `how` - the options of all layers of the stack
    /// * `run` - runs one cell
    #[track_caller]
    pub fn run<const D: usize>(
        self,
        input: Tensor<D>,
        states: Option<Vec<S::State>>,
        lengths: Option<&Lengths>,
        masks: &[Masks],
        how: How,
        run: &mut impl RunCell<D>,
    ) -> (Tensor<D>, Vec<S::State>) {
        let first = if how.reverse {
            Direction::Backward
        } else {
            Direction::Forward
        };
        let mut states = states.map(Vec::into_iter);
        let mut masks = masks.iter();
        let mut pass = |cell: S, direction: Direction| Pass {
            cell,
            direction,
            masks: masks.next().cloned(),
            state: states.as_mut().and_then(Iterator::next),
            lengths,
            how,
        };
        let forward = pass(self.forward, first);
        let Some(backward) = self.backward else {
            let (output, state) = forward.run(input, run);
            return (output, vec![state]);
        };
        let backward = pass(backward, Direction::Backward);
        // States, masks and weights were checked before, since a panic in a closure would not report the caller's
        // location.
        let ((first, first_state), (second, second_state)) =
            if forward.worth_pairing(&input) && backward.worth_pairing(&input) {
                let mut twin = run.twin();
                let both = sequence::pair(
                    || forward.run(input.clone(), run),
                    || backward.run(input.clone(), &mut twin),
                );
                run.join(twin);
                both
            } else {
                (forward.run(input.clone(), run), backward.run(input, run))
            };
        let mut shape: [usize; D] = first.dims();
        shape[D - 1] += second.dims()[D - 1];
        let output = match shape.contains(&0) {
            true => sequence::zeros_in_place_of(&[first, second], shape),
            false => Tensor::cat(vec![first, second], D - 1),
        };
        (output, vec![first_state, second_state])
    }
}

//! States by name, for cells whose state is no pair.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use recurrent_core::Step;
use recurrent_core::equations::dropout::StepMasks;
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_modules::{
    Cell, LstmState, NamedState, RecurrentState, Stack, StackConfig, StackState, State,
};

use crate::support::*;

/// A running sum and nothing else.
#[derive(Clone)]
struct Sum(Tensor<2>);

impl State for Sum {
    fn into_tensors(self) -> Vec<Tensor<2>> {
        vec![self.0]
    }

    fn from_tensors(tensors: Vec<Tensor<2>>) -> Self {
        let [sum] = tensors.try_into().expect("one tensor");
        Self(sum)
    }
}

#[derive(Module, Debug)]
struct SumCell {
    size: usize,
}

struct SumStep(usize);

impl Step for SumStep {
    type State = Sum;

    fn d_input(&self) -> usize {
        self.0
    }

    fn d_hidden(&self) -> usize {
        self.0
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        vec![("sum", self.0)]
    }

    fn step(&self, x: Tensor<2>, state: Sum, _: &StepMasks) -> (Tensor<2>, Sum) {
        let sum = state.0 + x;
        (sum.clone(), Sum(sum))
    }
}

impl Cell for SumCell {
    type Step = SumStep;

    fn bind(&self) -> SumStep {
        SumStep(self.size)
    }

    fn d_input(&self) -> usize {
        self.size
    }

    fn d_hidden(&self) -> usize {
        self.size
    }
}

/// Three layers in two directions, one tensor each.
fn stack() -> Stack<SumCell> {
    StackConfig::new(I, 4 * I)
        .with_num_layers(3)
        .with_layer_sizes(Some(vec![I, 2 * I, 4 * I]))
        .with_bidirectional(true)
        .try_init_with(|d_input, _| Ok(SumCell { size: d_input }))
        .expect("a valid config")
}

fn random_state(stack: &Stack<SumCell>, device: &Device) -> StackState<Sum> {
    let mut offset = 0.0;
    let cells = stack
        .initial_state(B, device)
        .cells
        .into_iter()
        .map(|state| {
            offset += 1.0;
            state.map(|part| tensor(part.dims(), offset, device))
        });
    StackState {
        cells: cells.collect(),
    }
}

#[test]
fn every_tensor_is_kept() {
    let (device, stack) = (device(), stack());
    let state = random_state(&stack, &device);
    let named = stack.named_state(state.clone());
    assert_eq!(named.cells.len(), 6);
    for (named, own) in named.cells.iter().zip(&state.cells) {
        let parts: Vec<_> = named.iter().collect();
        assert_eq!(parts.len(), 1);
        assert_eq!(parts[0].0, "sum");
        assert_eq!(values(parts[0].1), values(&own.0));
    }
    let back = stack.typed_state(named);
    let x = tensor([B, T, I], 0.5, &device);
    let (got, _) = stack.forward(x.clone(), Some(back));
    let (expected, _) = stack.forward(x, Some(state));
    assert_eq!(values(&got), values(&expected));
}

#[test]
fn parts_by_name() {
    let device = device();
    let pair = |offset| LstmState {
        cell: tensor([B, H], offset, &device),
        hidden: tensor([B, H - 1], offset + 0.5, &device),
    };
    let typed = StackState {
        cells: vec![pair(1.0), pair(2.0)],
    };
    let mut state = RecurrentState::from(typed.clone());
    for (named, own) in state.cells.iter().zip(&typed.cells) {
        assert_eq!(values(&named.part("cell")), values(&own.cell));
        let hidden = named.get("hidden").expect("an LSTM's");
        assert_eq!(values(hidden), values(&own.hidden));
        assert!(named.get("sum").is_none());
    }
    let last: &NamedState = state.last();
    assert_eq!(values(&last.part("cell")), values(&typed.last().cell));

    *state.cells[0].get_mut("cell").expect("an LSTM's") = tensor([B, H], 9.0, &device);
    let doubled = state.map(|part| part * 2.0).into_lstm();
    let expected = [tensor([B, H], 9.0, &device), typed.cells[1].cell.clone()];
    for (got, expected) in doubled.cells.iter().zip(expected) {
        assert_close(&got.cell, &(expected * 2.0));
    }
    assert_close(
        &doubled.cells[0].hidden,
        &(typed.cells[0].hidden.clone() * 2.0),
    );
}

#[test]
fn detached_states_have_no_history() {
    let device = autodiff();
    let leaf = tensor([B, H], 1.0, &device).require_grad();
    let state = RecurrentState::from(StackState::from(LstmState {
        cell: leaf.clone() * 2.0,
        hidden: leaf.clone() * 3.0,
    }));
    let sum = |state: RecurrentState| {
        let state = state.into_lstm();
        (state.last().cell.clone() + state.last().hidden.clone()).sum()
    };
    let attached = sum(state.clone()).backward();
    assert_eq!(
        values(&leaf.grad(&attached).expect("a gradient")),
        vec![5.0; B * H]
    );
    // The leaf on its own is all that is left.
    let detached = (sum(state.detach()) + leaf.clone().sum()).backward();
    assert_eq!(
        values(&leaf.grad(&detached).expect("a gradient")),
        vec![1.0; B * H]
    );
}

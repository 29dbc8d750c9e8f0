//! Runs over packed rows: the same as over the padded batch, and no row more than there are steps.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor};
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::{Preactivation, Transition};
use recurrent_core::equations::dropout::StepMasks;
use recurrent_core::eval::compare::values;
use recurrent_core::{
    Direction, Lengths, LstmState, Mask, Masks, Packing, SequenceOptions, State, Step, Strategy,
    sequence,
};

const T: usize = 5;
const B: usize = 4;
const I: usize = 3;
const H: usize = 2;
const LENGTHS: [usize; B] = [2, 5, 1, 2];

/// `sin` of a running number.
fn tensor<const D: usize>(shape: [usize; D], offset: f32, device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    let list: Vec<f32> = (0..count)
        .map(|k| (1.7 * k as f32 + offset).sin())
        .collect();
    Tensor::<1>::from_floats(list.as_slice(), device).reshape(shape)
}

/// Adds up its input, and notes the rows it is given.
struct Counter {
    projected: RefCell<Vec<usize>>,
    stepped: RefCell<Vec<usize>>,
}

#[derive(Clone)]
struct Sum(Tensor<2>);

impl State for Sum {
    fn into_tensors(self) -> Vec<Tensor<2>> {
        vec![self.0]
    }

    fn from_tensors(mut tensors: Vec<Tensor<2>>) -> Self {
        Self(tensors.remove(0))
    }
}

impl Step for Counter {
    type State = Sum;

    fn d_input(&self) -> usize {
        I
    }

    fn d_hidden(&self) -> usize {
        I
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        vec![("sum", I)]
    }

    fn project(&self, input: Tensor<2>) -> Tensor<2> {
        self.projected.borrow_mut().push(input.dims()[0]);
        input
    }

    fn step(&self, x: Tensor<2>, state: Sum, _: &StepMasks) -> (Tensor<2>, Sum) {
        self.stepped.borrow_mut().push(x.dims()[0]);
        let sum = state.0 + x;
        (sum.clone(), Sum(sum))
    }
}

#[test]
fn padding_costs_nothing() {
    let device = Device::flex();
    let input = tensor([T, B, I], 0.0, &device);
    let lengths = Lengths::new(LENGTHS, T).unwrap();
    let counter = || Counter {
        projected: RefCell::default(),
        stepped: RefCell::default(),
    };
    for direction in [Direction::Forward, Direction::Backward] {
        let whole = SequenceOptions {
            direction,
            ..SequenceOptions::default()
        };
        let ragged = SequenceOptions {
            lengths: Some(&lengths),
            ..whole
        };

        let cell = counter();
        sequence::run(&cell, input.clone(), None, &whole);
        assert_eq!(*cell.projected.borrow(), [T * B]);
        assert_eq!(*cell.stepped.borrow(), [B; T]);

        let cell = counter();
        sequence::run(&cell, input.clone(), None, &ragged);
        assert_eq!(*cell.projected.borrow(), [10]);
        assert_eq!(*cell.stepped.borrow(), [4, 3, 1, 1, 1]);

        let cell = counter();
        let rows = Packing::new(&lengths, T, &device).pack(input.clone());
        sequence::run_packed(&cell, rows, None, &ragged);
        assert_eq!(*cell.projected.borrow(), [10]);
        assert_eq!(*cell.stepped.borrow(), [4, 3, 1, 1, 1]);
    }
}

/// Values, states and gradients agree with those of the padded batch, with masks in batch order.
#[test]
fn packed_is_padded() {
    let device = Device::flex().autodiff();
    let lengths = Lengths::new(LENGTHS, T).unwrap();
    let packing = Packing::new(&lengths, T, &device);
    assert_eq!(packing.batch_sizes(), [4, 3, 1, 1, 1]);
    assert_eq!(packing.sorted_indices(), [1, 0, 3, 2]);
    let masks = Masks {
        hidden: Some(Mask::PerStep(tensor([T, B, H], 0.3, &device))),
        cell: Some(Mask::PerSequence(tensor([B, H], 0.4, &device))),
        ..Masks::none()
    };
    for direction in [Direction::Forward, Direction::Backward] {
        for (masks, strategy) in [
            (None, Strategy::Composed),
            (Some(&masks), Strategy::Composed),
            (None, Strategy::Fused),
            (Some(&masks), Strategy::Fused),
        ] {
            let options = SequenceOptions {
                direction,
                lengths: Some(&lengths),
                masks,
                strategy,
                precision: Default::default(),
            };
            let run = |packed: bool| {
                let leaf = |tensor: Tensor<2>| tensor.require_grad();
                let weight = leaf(tensor([I, 4 * H], 0.5, &device));
                let recurrent = leaf(tensor([H, 4 * H], 0.6, &device));
                let cell = LstmStep {
                    preact: Preactivation::plain(weight.clone(), recurrent.clone(), None),
                    transition: Transition::default(),
                };
                let input = tensor([T, B, I], 0.1, &device).require_grad();
                let state = LstmState {
                    cell: leaf(tensor([B, H], 0.7, &device)),
                    hidden: leaf(tensor([B, H], 0.8, &device)),
                };
                let (output, last) = if packed {
                    let rows = packing.pack(input.clone());
                    let run = sequence::run_packed(&cell, rows, Some(state.clone()), &options);
                    (packing.unpack(run.rows), run.state)
                } else {
                    let run = sequence::run(&cell, input.clone(), Some(state.clone()), &options);
                    (run.output, run.state)
                };
                let loss = (output.clone() * tensor([T, B, H], 0.9, &device)).sum()
                    + (last.cell.clone() * tensor([B, H], 1.0, &device)).sum()
                    + (last.hidden.clone() * tensor([B, H], 1.1, &device)).sum();
                let grads = loss.backward();
                let mut results = vec![values(&output), values(&last.cell), values(&last.hidden)];
                results.push(values(&input.grad(&grads).expect("a gradient")));
                for leaf in [weight, recurrent, state.cell, state.hidden] {
                    results.push(values(&leaf.grad(&grads).expect("a gradient")));
                }
                results
            };
            let (got, expected) = (run(true), run(false));
            for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!(expected.iter().any(|&v| v != 0.0), "{index} is zero");
                for (got, expected) in got.iter().zip(expected) {
                    let difference = (got - expected).abs();
                    assert!(
                        difference < 1e-6,
                        "{direction:?}, {index}: {got} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn history_is_the_steps() {
    let device = Device::flex();
    let cell = LstmStep {
        preact: Preactivation::plain(
            tensor([I, 4 * H], 0.5, &device),
            tensor([H, 4 * H], 0.6, &device),
            None,
        ),
        transition: Transition::default(),
    };
    let input = tensor([T, B, I], 0.1, &device);
    let lengths = Lengths::new(LENGTHS, T).unwrap();
    for (direction, lengths) in [
        (Direction::Forward, None),
        (Direction::Backward, None),
        (Direction::Forward, Some(&lengths)),
        (Direction::Backward, Some(&lengths)),
    ] {
        let options = SequenceOptions {
            direction,
            lengths,
            ..SequenceOptions::default()
        };
        let (run, history) = sequence::run_recorded(&cell, input.clone(), None, &options);
        assert_eq!(values(&history.part("hidden")), values(&run.output));
        let cells = values(&history.part("cell"));
        for row in 0..B {
            let length = lengths.map_or(T, |list| list.as_slice()[row]);
            let mut state = cell.initial_state(1, &device);
            for step in 0..length {
                let time = match direction {
                    Direction::Forward => step,
                    Direction::Backward => length - 1 - step,
                };
                let x = input.clone().slice([time..time + 1, row..row + 1, 0..I]);
                state = cell
                    .step_once(x.reshape([1, I]), state, &StepMasks::default())
                    .1;
                let got = &cells[(time * B + row) * H..][..H];
                for (got, expected) in got.iter().zip(values(&state.cell)) {
                    assert!(
                        (got - expected).abs() < 1e-6,
                        "{direction:?}, {time}, {row}"
                    );
                }
            }
            for time in length..T {
                assert_eq!(cells[(time * B + row) * H..][..H], [0.0; H]);
            }
        }
    }
}

#[test]
#[should_panic(expected = "got 9 packed rows, expected as many as the lengths have steps: 10")]
fn missing_rows() {
    run_rows(9, true);
}

#[test]
#[should_panic(expected = "packed rows need lengths, got None")]
fn missing_lengths() {
    run_rows(10, false);
}

fn run_rows(rows: usize, with_lengths: bool) {
    let device = Device::flex();
    let lengths = Lengths::new(LENGTHS, T).unwrap();
    let options = SequenceOptions {
        lengths: with_lengths.then_some(&lengths),
        ..SequenceOptions::default()
    };
    let cell = Counter {
        projected: RefCell::default(),
        stepped: RefCell::default(),
    };
    sequence::run_packed(&cell, tensor([rows, I], 0.0, &device), None, &options);
}

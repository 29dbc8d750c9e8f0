//! Identities of a run, on each cell, with few options and with all of them.

use burn::nn::LstmState;
use burn::tensor::{DType, Device, Tensor};
use recurrent_core::equations::dropout::Mask;
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_core::eval::problems::SMALL;
use recurrent_core::{Direction, Masks, SequenceOptions, SequenceOutput, Strategy};

use crate::common::devices;
use crate::network::{NamedGradients, Network, Run, outcome};
use crate::options::{FEW_AND_ALL, Kind, options};
use crate::setup::{Outcome, Setup, permute};

const LENGTHS: [usize; 3] = [2, 5, 3];

/// Every cell with few options and with all, on "odd sizes" and on each device.
fn cases(direction: Direction, lengths: Option<&[usize]>) -> Vec<(String, Setup, Kind, Device)> {
    let mut cases = vec![];
    for name in FEW_AND_ALL {
        let options = options(name);
        let setup = Setup::new(&SMALL[0], &options, direction, lengths.map(<[_]>::to_vec));
        for &kind in options.cells {
            for (device_name, device) in devices(DType::F32) {
                let label = format!("{}; {kind:?} on {device_name}", setup.name);
                cases.push((label, setup.clone(), kind, device));
            }
        }
    }
    cases
}

fn every_case() -> Vec<(String, Setup, Kind, Device)> {
    let mut all = vec![];
    for direction in [Direction::Forward, Direction::Backward] {
        all.extend(cases(direction, None));
        all.extend(cases(direction, Some(&LENGTHS)));
    }
    all
}

fn steps() -> usize {
    SMALL[0].dims.seq_length
}

#[track_caller]
fn assert_same(label: &str, got: &Outcome, expected: &Outcome, tolerance: Tolerance) {
    for ((part, got), (_, expected)) in got.parts().into_iter().zip(expected.parts()) {
        close(&format!("{label}: {part}"), got, expected, tolerance).unwrap();
    }
}

#[track_caller]
fn assert_close(label: &str, got: &Outcome, expected: &Outcome) {
    assert_same(label, got, expected, Tolerance::values(DType::F32, steps()));
}

#[track_caller]
fn assert_gradients_close(label: &str, got: &NamedGradients, expected: &NamedGradients) {
    for ((name, got), (_, expected)) in got.iter().zip(expected) {
        let label = format!("{label}: gradient of {name}");
        let (Some(got), Some(expected)) = (got, expected) else {
            panic!("{label}: none arrived");
        };
        close(
            &label,
            got,
            expected,
            Tolerance::gradients(DType::F32, steps()),
        )
        .unwrap();
    }
}

/// To the last bit.
const EQUAL: Tolerance = Tolerance(0.0);

#[test]
fn padding_content_changes_nothing() {
    for direction in [Direction::Forward, Direction::Backward] {
        for (label, mut setup, kind, device) in cases(direction, Some(&LENGTHS)) {
            let clean = Network::new(&setup, kind, &device);
            let expected = outcome(&clean.run());
            let gradients = clean.backward();
            for content in [0.0, 1e30, f64::INFINITY, f64::NAN] {
                let label = format!("{label}; {content} in the padding");
                let mut x = setup.x.clone();
                setup.fill_padding(&mut x, content);
                setup.x = x;
                // What would be the loss of padded outputs must not matter either.
                let mut cotangent = setup.cotangents[0].clone();
                setup.fill_padding(&mut cotangent, 7.0);
                setup.cotangents[0] = cotangent;

                let network = Network::new(&setup, kind, &device);
                assert_same(&label, &outcome(&network.run()), &expected, EQUAL);
                let got = network.backward();
                assert_eq!(got, gradients, "{label}: gradients");
                let (name, Some(slope)) = &got[0] else {
                    panic!("{label}: no gradient of x");
                };
                let mut zeroed = slope.clone();
                setup.fill_padding(&mut zeroed, 0.0);
                assert_eq!(
                    (*name, &zeroed),
                    ("x", slope),
                    "{label}: gradient in the padding"
                );
            }
        }
    }
}

#[test]
fn the_same_call_gives_the_same_bits() {
    for (label, setup, kind, device) in every_case() {
        let network = Network::new(&setup, kind, &device);
        let first = (outcome(&network.run()), network.backward());
        let second = (outcome(&network.run()), network.backward());
        assert_same(&label, &second.0, &first.0, EQUAL);
        assert_eq!(second.1, first.1, "{label}");
    }
}

/// Two graphs on the same leaves alive at once, then both derivatives: neither disturbs the other.
#[test]
fn two_backwards_from_two_forwards() {
    for (label, setup, kind, device) in every_case() {
        let network = Network::new(&setup, kind, &device);
        let expected = network.backward();
        let first = network.loss(&network.run());
        let second = network.loss(&network.run()) * 2.0;
        let doubled = network.gradients(&second.backward());
        let single = network.gradients(&first.backward());
        assert_eq!(single, expected, "{label}: first");
        let halved: NamedGradients = doubled
            .into_iter()
            .map(|(name, grad)| {
                (
                    name,
                    grad.map(|grad| grad.iter().map(|g| g / 2.0).collect()),
                )
            })
            .collect();
        assert_eq!(halved, expected, "{label}: second");
    }
}

#[test]
fn gradients_do_not_depend_on_who_else_is_tracked() {
    for direction in [Direction::Forward, Direction::Backward] {
        for (label, setup, kind, device) in cases(direction, Some(&LENGTHS)) {
            let all = Network::new(&setup, kind, &device).backward();
            for (name, expected) in &all {
                let alone =
                    Network::tracking(&setup, kind, &device, DType::F32, |other| other == *name);
                for (other, got) in alone.backward() {
                    let wanted = expected.as_ref().filter(|_| other == *name);
                    assert_eq!(got.as_ref(), wanted, "{label}: {name} alone; {other}");
                }
            }
        }
    }
}

/// The same tensor with its values stored in another order.
fn strided<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    let stored = tensor.swap_dims(0, 1);
    // Written out in the swapped order, so that swapping back leaves strides behind.
    let copy = Tensor::from_data(stored.to_data(), &stored.device());
    copy.swap_dims(0, 1)
}

#[test]
fn strides_do_not_matter() {
    for (label, setup, kind, device) in every_case() {
        let network = Network::new(&setup, kind, &device);
        let expected = outcome(&network.run());
        let LstmState { cell, hidden } = network.state();
        let state = LstmState {
            cell: strided(cell),
            hidden: strided(hidden),
        };
        let input = strided(network.input());
        assert_eq!(values(&input), values(&network.input()));
        let got = network.run_with(input, Some(state));
        assert_close(&label, &outcome(&got), &expected);

        // And the gradient goes through a swap.
        let swapped = network.input().swap_dims(0, 1).swap_dims(0, 1);
        let run = network.run_with(swapped, Some(network.state()));
        let gradients = network.gradients(&network.loss(&run).backward());
        assert_gradients_close(&label, &gradients, &network.backward());
    }
}

#[test]
fn permuting_the_batch_permutes_the_result() {
    for (label, setup, kind, device) in every_case() {
        let expected = outcome(&Network::new(&setup, kind, &device).run());
        for order in [[1, 2, 0], [2, 0, 1], [1, 0, 2]] {
            let permuted = setup.permuted(&order);
            let got = outcome(&Network::new(&permuted, kind, &device).run());
            let expected = Outcome {
                output: permute(&expected.output, &order, setup.d_output),
                hidden: permute(&expected.hidden, &order, setup.d_output),
                cell: permute(&expected.cell, &order, setup.dims.d_hidden),
            };
            assert_close(&format!("{label}; {order:?}"), &got, &expected);
        }
    }
}

/// Steps `from..to` of every mask.
fn cut(masks: &Masks, from: usize, to: usize) -> Masks {
    map_masks(masks, |mask| {
        let [_, batch_size, features] = mask.dims();
        mask.slice([from..to, 0..batch_size, 0..features])
    })
}

fn map_masks(masks: &Masks, f: impl Fn(Tensor<3>) -> Tensor<3>) -> Masks {
    masks.map(|mask| match mask {
        Mask::PerStep(mask) => Mask::PerStep(f(mask.clone())),
        whole => whole.clone(),
    })
}

fn piece(network: &Network, setup: &Setup, from: usize, to: usize, state: LstmState<2>) -> Run {
    let input = network.input();
    let [_, batch_size, d_input] = input.dims();
    let input = input.slice([from..to, 0..batch_size, 0..d_input]);
    let masks = cut(&network.masks, from, to);
    let options = SequenceOptions {
        direction: setup.direction,
        lengths: None,
        masks: Some(&masks),
        strategy: Strategy::Composed,
        precision: Default::default(),
    };
    network.run_options(input, Some(state), &options)
}

#[test]
fn cutting_anywhere_changes_nothing() {
    for direction in [Direction::Forward, Direction::Backward] {
        for (label, setup, kind, device) in cases(direction, None) {
            let network = Network::new(&setup, kind, &device);
            let expected = outcome(&network.run());
            let gradients = network.backward();
            for at in 1..steps() {
                let run = |from, to, state| piece(&network, &setup, from, to, state);
                let (early, late, last) = match direction {
                    Direction::Forward => {
                        let early = run(0, at, network.state());
                        let late = run(at, steps(), early.state.clone());
                        (early.output, late.output, late.state)
                    }
                    Direction::Backward => {
                        let late = run(at, steps(), network.state());
                        let early = run(0, at, late.state.clone());
                        (early.output, late.output, early.state)
                    }
                };
                let joined = SequenceOutput {
                    output: Tensor::cat(vec![early, late], 0),
                    state: last,
                };
                let label = format!("{label}; cut at {at}");
                assert_close(&label, &outcome(&joined), &expected);
                let got = network.gradients(&network.loss(&joined).backward());
                assert_gradients_close(&label, &got, &gradients);
            }
        }
    }
}

#[test]
fn a_sequence_is_a_fold_of_steps() {
    for direction in [Direction::Forward, Direction::Backward] {
        for (label, setup, kind, device) in cases(direction, None) {
            let network = Network::new(&setup, kind, &device);
            let input = network.input();
            let [_, batch_size, d_input] = input.dims();
            let mut times: Vec<usize> = (0..steps()).collect();
            if direction == Direction::Backward {
                times.reverse();
            }
            let mut outputs = vec![];
            let mut state = network.state();
            for &time in &times {
                let x = input
                    .clone()
                    .slice([time..time + 1, 0..batch_size, 0..d_input])
                    .reshape([batch_size, d_input]);
                let (output, next) = network.step_once(x, state, &network.masks.at(time));
                outputs.push(output);
                state = next;
            }
            if direction == Direction::Backward {
                outputs.reverse();
            }
            let folded = SequenceOutput {
                output: Tensor::stack(outputs, 0),
                state,
            };
            assert_close(&label, &outcome(&folded), &outcome(&network.run()));
            let got = network.gradients(&network.loss(&folded).backward());
            assert_gradients_close(&label, &got, &network.backward());
        }
    }
}

#[test]
fn backward_is_flip_forward_flip() {
    for (label, setup, kind, device) in cases(Direction::Backward, None) {
        let network = Network::new(&setup, kind, &device);
        let expected = outcome(&network.run());
        let masks = map_masks(&cut(&network.masks, 0, steps()), |mask| mask.flip([0]));
        let options = SequenceOptions {
            direction: Direction::Forward,
            lengths: None,
            masks: Some(&masks),
            strategy: Strategy::Composed,
            precision: Default::default(),
        };
        let run = network.run_options(network.input().flip([0]), Some(network.state()), &options);
        let flipped = SequenceOutput {
            output: run.output.flip([0]),
            state: run.state,
        };
        assert_close(&label, &outcome(&flipped), &expected);
        let forward = Setup::new(&SMALL[0], &setup.options, Direction::Forward, None);
        let other = outcome(&Network::new(&forward, kind, &device).run());
        let tolerance = Tolerance::values(DType::F32, steps());
        assert!(
            close("output", &other.output, &expected.output, tolerance).is_err(),
            "{label}: the direction makes no difference"
        );
    }
}

#[test]
fn full_lengths_are_no_lengths() {
    for direction in [Direction::Forward, Direction::Backward] {
        let full = [steps(); 3];
        let with = cases(direction, Some(&full));
        for ((label, setup, kind, device), (_, plain, ..)) in
            with.into_iter().zip(cases(direction, None))
        {
            let expected = Network::new(&plain, kind, &device);
            let network = Network::new(&setup, kind, &device);
            assert_close(&label, &outcome(&network.run()), &outcome(&expected.run()));
            assert_gradients_close(&label, &network.backward(), &expected.backward());
        }
    }
}

/// In the dtype of the input, too, when that is not the device's own.
#[test]
fn no_state_is_the_zero_state() {
    for dtype in [DType::F32, DType::F64] {
        for lengths in [None, Some(LENGTHS.to_vec())] {
            let mut setup = Setup::new(
                &SMALL[0],
                &options("projection"),
                Direction::Forward,
                lengths,
            );
            setup.hidden.fill(0.0);
            setup.cell.fill(0.0);
            for (_, device) in devices(dtype) {
                let network = Network::tracking(&setup, Kind::Packed, &device, dtype, |_| true);
                let run = network.run_with(network.input(), None);
                assert_eq!(run.output.dtype(), dtype);
                assert_eq!(run.state.cell.dtype(), dtype);
                let expected = outcome(&network.run());
                assert_same(&setup.name, &outcome(&run), &expected, EQUAL);
            }
        }
    }
}

/// Inference gives what training gives: on a device without autodiff, the same bits.
#[test]
fn inference_is_training() {
    for direction in [Direction::Forward, Direction::Backward] {
        for lengths in [None, Some(LENGTHS.to_vec())] {
            for name in FEW_AND_ALL {
                let options = options(name);
                let setup = Setup::new(&SMALL[0], &options, direction, lengths.clone());
                for &kind in options.cells {
                    let run = |device: &Device, tracked: bool| {
                        Network::tracking(&setup, kind, device, DType::F32, |_| tracked).run()
                    };
                    let training = outcome(&run(&Device::flex().autodiff(), true));
                    let inference = outcome(&run(&Device::flex(), false));
                    let label = format!("{}; {kind:?}", setup.name);
                    assert_same(&label, &inference, &training, EQUAL);
                }
            }
        }
    }
}

//! Calls that do not fit: the text names what, what it got and what it expected.

use burn::nn::LstmState;
use burn::tensor::{Device, Tensor};
use recurrent_core::eval::problems::SMALL;
use recurrent_core::{Direction, Lengths, LengthsError, Mask, Masks, SequenceOptions};

use crate::network::Network;
use crate::options::{Kind, options};
use crate::setup::Setup;

fn device() -> Device {
    Device::flex().autodiff()
}

/// B = 3, T = 5, I = 7, H = 11, projected to 6.
fn network() -> Network {
    let setup = Setup::new(&SMALL[0], &options("projection"), Direction::Forward, None);
    Network::new(&setup, Kind::Packed, &device())
}

fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::zeros(shape, &device())
}

fn state(batch_size: usize, cell: usize, hidden: usize) -> LstmState<2> {
    LstmState {
        cell: zeros([batch_size, cell]),
        hidden: zeros([batch_size, hidden]),
    }
}

fn run_input(shape: [usize; 3]) {
    network().run_options(zeros(shape), None, &SequenceOptions::default());
}

fn run_state(state: LstmState<2>) {
    network().run_options(zeros([5, 3, 7]), Some(state), &SequenceOptions::default());
}

fn run_masks(masks: Masks) {
    let options = SequenceOptions {
        masks: Some(&masks),
        ..SequenceOptions::default()
    };
    network().run_options(zeros([5, 3, 7]), None, &options);
}

fn run_lengths(lengths: &[usize], seq_length: usize) {
    let lengths = Lengths::new(lengths, seq_length).expect("lengths");
    let options = SequenceOptions {
        lengths: Some(&lengths),
        ..SequenceOptions::default()
    };
    network().run_options(zeros([5, 3, 7]), None, &options);
}

#[test]
fn what_fits_runs() {
    run_input([5, 3, 7]);
    run_state(state(3, 11, 6));
    run_masks(Masks {
        hidden: Some(Mask::PerSequence(zeros([3, 6]))),
        cell: Some(Mask::PerStep(zeros([5, 3, 11]))),
        ..Masks::none()
    });
    run_lengths(&[5, 1, 2], 5);
}

#[test]
#[should_panic(expected = "input has inconsistent d_input: got 8, expected 7")]
fn wrong_d_input() {
    run_input([5, 3, 8]);
}

#[test]
fn no_steps() {
    run_input([0, 3, 7]);
}

#[test]
fn no_sequences() {
    run_input([5, 0, 7]);
}

#[test]
#[should_panic(
    expected = "state `cell` has shape [2, 11], expected [batch_size, features] = [3, 11]"
)]
fn state_of_another_batch() {
    run_state(state(2, 11, 6));
}

#[test]
#[should_panic(
    expected = "state `cell` has shape [3, 6], expected [batch_size, features] = [3, 11]"
)]
fn cell_of_another_size() {
    run_state(state(3, 6, 6));
}

#[test]
#[should_panic(
    expected = "state `hidden` has shape [3, 11], expected [batch_size, features] = [3, 6]"
)]
fn hidden_of_another_size() {
    run_state(state(3, 11, 11));
}

#[test]
#[should_panic(
    expected = "mask `cell` has shape [2, 11], expected [batch_size, features] = [3, 11]"
)]
fn mask_of_another_batch() {
    run_masks(Masks {
        cell: Some(Mask::PerSequence(zeros([2, 11]))),
        ..Masks::none()
    });
}

#[test]
#[should_panic(
    expected = "mask `hidden` has shape [3, 11], expected [batch_size, features] = [3, 6]"
)]
fn mask_on_the_unprojected_hidden() {
    run_masks(Masks {
        hidden: Some(Mask::PerSequence(zeros([3, 11]))),
        ..Masks::none()
    });
}

#[test]
#[should_panic(
    expected = "mask `candidate` has shape [4, 3, 11], expected [seq_length, batch_size, features] = [5, 3, 11]"
)]
fn mask_of_too_few_steps() {
    run_masks(Masks {
        candidate: Some(Mask::PerStep(zeros([4, 3, 11]))),
        ..Masks::none()
    });
}

#[test]
#[should_panic(
    expected = "mask `update_cell` has shape [5, 3, 6], expected [seq_length, batch_size, features] = [5, 3, 11]"
)]
fn update_mask_of_another_size() {
    run_masks(Masks {
        update_cell: Some(Mask::PerStep(zeros([5, 3, 6]))),
        ..Masks::none()
    });
}

#[test]
#[should_panic(expected = "got 2 lengths, expected one per sequence: batch_size = 3")]
fn too_few_lengths() {
    run_lengths(&[5, 2], 5);
}

#[test]
#[should_panic(expected = "got 4 lengths, expected one per sequence: batch_size = 3")]
fn too_many_lengths() {
    run_lengths(&[5, 2, 1, 1], 5);
}

/// Checked against a longer input than the one that runs.
#[test]
#[should_panic(expected = "longest length is 9, expected at most seq_length = 5")]
fn lengths_of_another_input() {
    run_lengths(&[5, 9, 1], 9);
}

#[test]
#[should_panic(expected = "input has inconsistent d_input: got 6, expected 7")]
fn step_with_wrong_d_input() {
    network().step_once(zeros([3, 6]), state(3, 11, 6), &Masks::none().at(0));
}

#[test]
#[should_panic(
    expected = "state `cell` has shape [2, 11], expected [batch_size, features] = [3, 11]"
)]
fn step_with_state_of_another_batch() {
    network().step_once(zeros([3, 7]), state(2, 11, 6), &Masks::none().at(0));
}

#[test]
fn lengths_that_are_none_zero_or_too_long() {
    for list in [vec![], vec![0], vec![2, 0]] {
        let lengths = Lengths::new(list.clone(), 4).expect("lengths");
        assert_eq!(lengths.as_slice(), list);
    }
    let too_long = LengthsError::TooLong {
        index: 2,
        got: 5,
        seq_length: 4,
    };
    assert_eq!(Lengths::new([4, 1, 5], 4), Err(too_long.clone()));
    assert_eq!(
        too_long.to_string(),
        "length of sequence 2 is 5, expected at most seq_length = 4"
    );
    let lengths = Lengths::new([4, 1, 3], 4).expect("lengths");
    assert_eq!((lengths.max(), lengths.total()), (4, 8));
    assert_eq!(lengths.as_slice(), [4, 1, 3]);
}

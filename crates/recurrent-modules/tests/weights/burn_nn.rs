//! `burn::nn::Lstm` and `BiLstm`, module to module.

use burn::nn::{BiLstmConfig, LstmConfig as TheirConfig};
use burn::tensor::Tensor;
use recurrent_modules::import::burn_nn;
use recurrent_modules::{LstmConfig, LstmState};

use crate::support::{device, random};

fn differ<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

#[test]
fn lstm_both_ways() {
    for (bias, reverse, batch_first) in [
        (true, false, true),
        (false, true, false),
        (true, true, true),
    ] {
        let theirs = TheirConfig::new(5, 7, bias)
            .with_reverse(reverse)
            .with_batch_first(batch_first)
            .with_clip(Some(0.2))
            .init(&device());
        let ours = burn_nn::from_lstm(&theirs, &device()).expect("converts");
        let back = burn_nn::to_lstm(&ours, &device()).expect("converts");
        let x: Tensor<3> = random([4, 6, 5]);
        let batch = if batch_first { 4 } else { 6 };
        let state = LstmState {
            cell: random([batch, 7]),
            hidden: random([batch, 7]),
        };
        let (expected, end) = theirs.forward(x.clone(), Some(state.clone()));
        let (got, our_end) = ours.forward(x.clone(), Some(state.clone().into()));
        let (again, _) = back.forward(x, Some(state));
        assert!(differ(got, expected.clone()) < 1e-6, "output");
        assert!(differ(our_end.last().cell.clone(), end.cell) < 1e-6, "cell");
        assert!(differ(again, expected) < 1e-6, "and back");
    }
}

#[test]
fn coupled_gates() {
    let theirs = TheirConfig::new(5, 7, true)
        .with_input_forget(true)
        .init(&device());
    let ours = burn_nn::from_coupled(&theirs, &device()).expect("converts");
    let x: Tensor<3> = random([4, 6, 5]);
    let (expected, _) = theirs.forward(x.clone(), None);
    let (got, _) = ours.forward(x, None);
    assert!(differ(got, expected) < 1e-6);
    let error = burn_nn::from_lstm(&theirs, &device()).expect_err("refused");
    assert!(error.to_string().contains("from_coupled"), "{error}");
}

#[test]
fn both_directions_both_ways() {
    let theirs = BiLstmConfig::new(5, 7, true).init(&device());
    let ours = burn_nn::from_bilstm(&theirs, &device()).expect("converts");
    let back = burn_nn::to_bilstm(&ours, &device()).expect("converts");
    let x: Tensor<3> = random([4, 6, 5]);
    let (expected, _) = theirs.forward(x.clone(), None);
    let (got, _) = ours.forward(x.clone(), None);
    let (again, _) = back.forward(x, None);
    assert!(differ(got, expected.clone()) < 1e-6);
    assert!(differ(again, expected) < 1e-6);
}

#[test]
fn what_burn_nn_cannot_hold() {
    let stacked = LstmConfig::new(5, 7).with_num_layers(2).init(&device());
    let error = burn_nn::to_lstm(&stacked, &device()).expect_err("refused");
    assert!(error.to_string().contains("one layer, got 2"), "{error}");
    let one_way = LstmConfig::new(5, 7).init(&device());
    let error = burn_nn::to_bilstm(&one_way, &device()).expect_err("refused");
    assert!(error.to_string().contains("to_lstm"), "{error}");

    let other = TheirConfig::new(5, 7, true)
        .with_gate_activation(burn::nn::activation::ActivationConfig::Relu)
        .init(&device());
    let error = burn_nn::from_lstm(&other, &device()).expect_err("refused");
    assert!(error.to_string().contains("activations"), "{error}");
}

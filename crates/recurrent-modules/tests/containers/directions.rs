//! Both directions of a layer that is small enough to run them at the same time.

use burn::tensor::{Device, Tensor};
use recurrent_core::eval::compare::values;
use recurrent_core::{Strategy, sequence};
use recurrent_modules::cells::Cell;
use recurrent_modules::{ForwardOptions, Lengths, Lstm, LstmConfig, StackState};

use crate::support::tensor;

const I: usize = 40;
const H: usize = 48;
const T: usize = 200;

/// Output, final states and the gradients of the input and of all weights, bit by bit.
fn everything(models: &[&Lstm], x: &Tensor<3>, lengths: Option<&Lengths>) -> Vec<Vec<f64>> {
    let x = x.clone().require_grad();
    let options = ForwardOptions {
        lengths,
        ..ForwardOptions::default()
    };
    let runs: Vec<(Tensor<3>, StackState)> = models
        .iter()
        .map(|lstm| lstm.forward_with(x.clone(), None, options))
        .collect();
    let outputs = runs.iter().map(|(output, _)| output.clone()).collect();
    let output: Tensor<3> = Tensor::cat(outputs, 2);
    let weights = tensor(output.dims(), 0.4, &x.device());
    let gradients = (output.clone() * weights).sum().backward();
    let mut all = vec![values(&output)];
    for cell in runs.iter().flat_map(|(_, state)| &state.cells) {
        all.extend([values(&cell.cell), values(&cell.hidden)]);
    }
    all.push(values(
        &x.grad(&gradients).expect("a gradient of the input"),
    ));
    for lstm in models {
        for cell in lstm.layers[0].cells() {
            for weight in [&cell.gates.weight_input, &cell.gates.weight_hidden] {
                all.push(values(
                    &weight
                        .val()
                        .grad(&gradients)
                        .expect("a gradient of a weight"),
                ));
            }
        }
    }
    all
}

#[test]
fn both_at_once_are_one_after_the_other() {
    let device = Device::flex().autodiff();
    let config = LstmConfig::new(I, H);
    let both = config.clone().with_bidirectional(true).init(&device);
    let mut forward = config.clone().init(&device);
    forward.layers[0].forward = both.layers[0].forward.clone();
    let mut backward = config.with_reverse(true).init(&device);
    backward.layers[0].forward = both.layers[0].backward.clone().expect("two directions");

    for lengths in [None, Some([T, 150, 3])] {
        let batch = lengths.map_or(1, |lengths| lengths.len());
        let lengths = lengths.map(|lengths| Lengths::new(lengths, T).expect("lengths"));
        let x = tensor([batch, T, I], 0.1, &device);
        let cell = both.layers[0].forward.bind();
        let paired = sequence::worth_pairing(&cell, T, batch, Strategy::Auto, &device, x.dtype());
        let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        assert_eq!(paired, several, "this is about directions at the same time");
        let got = everything(&[&both], &x, lengths.as_ref());
        let expected = everything(&[&forward, &backward], &x, lengths.as_ref());
        assert!(got == expected);
        let histories = |models: &[&Lstm]| -> Vec<Vec<f64>> {
            let options = ForwardOptions {
                lengths: lengths.as_ref(),
                ..ForwardOptions::default()
            };
            let of = |lstm: &&Lstm| lstm.forward_histories(x.clone(), None, options).2;
            let parts = models.iter().flat_map(of).flat_map(|history| history.parts);
            parts.map(|(_, part)| values(&part)).collect()
        };
        assert!(histories(&[&both]) == histories(&[&forward, &backward]));
    }
}

//! Recurrent weights in bf16: close to f32 where they are used, the same bits everywhere else.

use burn::tensor::{Device, Distribution, Tensor};
use recurrent_core::cell::lstm::LstmCell;
use recurrent_core::cell::{Preactivation, Transition};
use recurrent_core::equations::layer_norm::{Norm, Normalizer};
use recurrent_core::{Direction, LstmState, Precision, SequenceOptions, sequence};

fn random<const D: usize>(shape: [usize; D], bound: f64, device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-bound, bound), device)
}

fn cell(d_input: usize, d_hidden: usize, device: &Device) -> LstmCell {
    let bound = (1.0 / d_hidden as f64).sqrt();
    LstmCell {
        preact: Preactivation::plain(
            random([d_input, 4 * d_hidden], bound, device),
            random([d_hidden, 4 * d_hidden], bound, device),
            Some(random([4 * d_hidden], bound, device)),
        ),
        transition: Transition::default(),
    }
}

/// Outputs and final cell.
fn run(cell: &LstmCell, input: &Tensor<3>, precision: Precision) -> Vec<f32> {
    let [_, batch, _] = input.dims();
    let d_hidden = cell.preact.width() / 4;
    let device = input.device();
    let state = LstmState::new(
        Tensor::full([batch, d_hidden], 0.3, &device),
        Tensor::full([batch, d_hidden], -0.2, &device),
    );
    let options = SequenceOptions {
        direction: Direction::Backward,
        precision,
        ..SequenceOptions::default()
    };
    let run = sequence::run(cell, input.clone(), Some(state), &options);
    let mut values: Vec<f32> = run.output.into_data().try_to_vec().expect("f32");
    let cell: Vec<f32> = run.state.cell.into_data().try_to_vec().expect("f32");
    values.extend(cell);
    values
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn one_sequence_is_close() {
    let device = Device::flex();
    // 4·H² values are more than 1 MiB; units fill no whole pair of vectors of any instruction set.
    for d_hidden in [259, 300, 512] {
        let mut cell = cell(5, d_hidden, &device);
        for normed in [false, true] {
            cell.preact.norm_hidden = normed.then_some(Norm {
                normalizer: Normalizer::STANDARD,
                gain: None,
                shift: None,
            });
            let input = random([9, 1, 5], 1.0, &device);
            let exact = run(&cell, &input, Precision::F32);
            let rounded = run(&cell, &input, Precision::Bf16);
            let difference = largest_difference(&exact, &rounded);
            // A weight is off by up to 2⁻⁹ of itself, a sum of H of them by √H times less than all
            // of them together; h is below 1 and the weights below 1/√H.
            assert!(difference > 0.0, "H = {d_hidden}: nothing was rounded");
            // LN_h magnifies: small sums of much the same values are brought to unit variance.
            let bound = if normed { 5e-2 } else { 2e-3 };
            assert!(
                difference < bound,
                "H = {d_hidden}, LN {normed}: {difference}"
            );
        }
    }
}

#[test]
fn nothing_else_changes() {
    let device = Device::flex();
    for (d_hidden, batch, steps) in [(64, 1, 5), (300, 2, 5), (300, 1, 1)] {
        let cell = cell(5, d_hidden, &device);
        let input = random([steps, batch, 5], 1.0, &device);
        assert_eq!(
            run(&cell, &input, Precision::F32),
            run(&cell, &input, Precision::Bf16),
            "H = {d_hidden}, B = {batch}, T = {steps}",
        );
    }
    // With a backward to follow.
    let device = Device::flex().autodiff();
    let cell = cell(5, 300, &device);
    let input = random([5, 1, 5], 1.0, &device).require_grad();
    assert_eq!(
        run(&cell, &input, Precision::F32),
        run(&cell, &input, Precision::Bf16)
    );
}

//! Recurrent weights in bf16: close to f32 where they are used, the same bits everywhere else.

#[allow(dead_code)] // what the other tests take from it
mod common;

use burn::tensor::{DType, Device, Tensor};
use common::{Random, tensor};
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::{Preactivation, Transition};
use recurrent_core::equations::layer_norm::{NormWeights, Normalizer};
use recurrent_core::{Direction, LstmState, Precision, SequenceOptions, sequence};

fn uniform<const D: usize>(
    random: &mut Random,
    shape: [usize; D],
    bound: f64,
    device: &Device,
) -> Tensor<D> {
    let values = random.values(shape.iter().product(), bound);
    tensor(&values, shape, device, DType::F32)
}

fn cell(random: &mut Random, d_input: usize, d_hidden: usize, device: &Device) -> LstmStep {
    let bound = (1.0 / d_hidden as f64).sqrt();
    LstmStep {
        preact: Preactivation::plain(
            uniform(random, [d_input, 4 * d_hidden], bound, device),
            uniform(random, [d_hidden, 4 * d_hidden], bound, device),
            Some(uniform(random, [4 * d_hidden], bound, device)),
        ),
        transition: Transition::default(),
    }
}

/// Outputs and final cell.
fn run(cell: &LstmStep, input: &Tensor<3>, precision: Precision) -> Vec<f32> {
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

/// Root of the mean square of `a - b`.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let squares: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (squares / a.len() as f32).sqrt()
}

#[test]
fn one_sequence_is_close() {
    let device = Device::flex();
    let mut random = Random::new(41);
    // 4·H² values are more than 1 MiB; units fill no whole pair of vectors of any instruction set.
    for d_hidden in [259, 300, 512] {
        let mut cell = cell(&mut random, 5, d_hidden, &device);
        for normed in [false, true] {
            cell.preact.norm_hidden = normed.then_some(NormWeights {
                normalizer: Normalizer::STANDARD,
                gain: None,
                shift: None,
            });
            let input = uniform(&mut random, [9, 1, 5], 1.0, &device);
            let exact = run(&cell, &input, Precision::F32);
            let rounded = run(&cell, &input, Precision::Bf16);
            let distance = distance(&exact, &rounded);
            // A weight is off by up to 2⁻⁹ of itself, a sum of H of them by √H times less than all
            // of them together; h is below 1 and the weights below 1/√H.
            assert!(distance > 0.0, "H = {d_hidden}: nothing was rounded");
            // LN_h magnifies: small sums of much the same values are brought to unit variance.
            let bound = if normed { 6e-3 } else { 4e-5 };
            assert!(distance < bound, "H = {d_hidden}, LN {normed}: {distance}");
        }
    }
}

#[test]
fn nothing_else_changes() {
    let device = Device::flex();
    let mut random = Random::new(42);
    for (d_hidden, batch, steps) in [(64, 1, 5), (300, 2, 5), (300, 1, 1)] {
        let cell = cell(&mut random, 5, d_hidden, &device);
        let input = uniform(&mut random, [steps, batch, 5], 1.0, &device);
        assert_eq!(
            run(&cell, &input, Precision::F32),
            run(&cell, &input, Precision::Bf16),
            "H = {d_hidden}, B = {batch}, T = {steps}",
        );
    }
    // With a backward to follow.
    let device = Device::flex().autodiff();
    let cell = cell(&mut random, 5, 300, &device);
    let input = uniform(&mut random, [5, 1, 5], 1.0, &device).require_grad();
    assert_eq!(
        run(&cell, &input, Precision::F32),
        run(&cell, &input, Precision::Bf16)
    );
}

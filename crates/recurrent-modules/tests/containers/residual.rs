//! Residual connections: x_{l+1} = dropout(y_l + x_l) from the second layer on.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_modules::{ForwardOptions, Lstm, LstmConfig, StackMasks};

use crate::support::*;

fn config(bidirectional: bool) -> LstmConfig {
    LstmConfig::new(I, H)
        .with_num_layers(3)
        .with_bidirectional(bidirectional)
        .with_residual(true)
}

/// Sets every parameter to zero.
struct Zero;

impl ModuleMapper for Zero {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.zeros_like())
    }
}

/// With zero weights g = 0, so c and h stay zero: what is left is the connection.
#[test]
fn layers_without_output_are_the_identity() {
    let device = device();
    for bidirectional in [false, true] {
        let mut lstm = config(bidirectional).init(&device);
        let input = tensor([B, T, I], 0.0, &device);
        let (first, _) = layer(&lstm, 0).forward(input.clone(), None);
        for index in [1, 2] {
            lstm.layers[index] = lstm.layers[index].clone().map(&mut Zero);
        }
        let (output, _) = lstm.forward(input.clone(), None);
        assert_eq!(values(&output), values(&first));
        lstm.residual = false;
        let (output, _) = lstm.forward(input, None);
        assert!(values(&output).iter().all(|&v| v == 0.0));
    }
}

/// One layer as a stack of its own.
fn layer(lstm: &Lstm, index: usize) -> Lstm {
    let mut one = lstm.clone();
    one.layers = vec![lstm.layers[index].clone()];
    one.residual = false;
    one
}

#[test]
fn composition_by_hand() {
    let device = device();
    for bidirectional in [false, true] {
        let lstm = config(bidirectional).init(&device);
        let width = lstm.d_output();
        let mask = |offset: f32| tensor([T, B, width], offset, &device);
        let masks = StackMasks {
            between: vec![Some(mask(0.2)), Some(mask(0.9))],
            ..StackMasks::default()
        };
        let options = ForwardOptions {
            masks: Some(&masks),
            ..ForwardOptions::default()
        };
        let input = tensor([B, T, I], 0.0, &device);
        let run = |index: usize, x: Tensor<3>| layer(&lstm, index).forward(x, None).0;
        let x1 = run(0, input.clone()) * mask(0.2).swap_dims(0, 1);
        let x2 = (run(1, x1.clone()) + x1) * mask(0.9).swap_dims(0, 1);
        let expected = run(2, x2.clone()) + x2;
        let (output, _) = lstm.forward_with(input, None, options);
        assert_close(&output, &expected);
    }
}

#[test]
fn step_is_forward() {
    let device = device();
    let lstm = config(false).init(&device);
    let input = tensor([B, T, I], 0.0, &device);
    let mut state = state(3, H, &device);
    let (output, _) = lstm.forward(input.clone(), Some(state.clone()));
    for t in 0..T {
        let x = input.clone().slice([0..B, t..t + 1, 0..I]).reshape([B, I]);
        let (y, next) = lstm.step(x, Some(state));
        let expected = output.clone().slice([0..B, t..t + 1, 0..H]).reshape([B, H]);
        assert_close(&y, &expected);
        state = next;
    }
}

#[test]
fn sizes_must_agree() {
    let device = device();
    let sizes = LstmConfig::stacked(I, [8, H]).with_residual(true);
    for config in [sizes.clone(), sizes.clone().with_bidirectional(true)] {
        let factor = if config.bidirectional { 2 } else { 1 };
        let error = config.validate().expect_err("unequal sizes").to_string();
        for part in [
            "residual".to_string(),
            format!("{} input features", 8 * factor),
            format!("{} output features", H * factor),
        ] {
            assert!(error.contains(&part), "`{error}` does not say `{part}`");
        }
        assert!(config.try_init(&device).is_err());
    }
    // A projection makes them agree.
    let projected = sizes.with_d_proj(Some(4)).init(&device);
    let (output, _) = projected.forward(tensor([B, T, I], 0.0, &device), None);
    assert_eq!(output.dims(), [B, T, 4]);

    let error = LstmConfig::new(I, H).with_residual(true).validate();
    let error = error.expect_err("one layer").to_string();
    assert!(error.contains("there is only one"), "{error}");
}

//! Sizes and numbers that the tests share.

use burn::tensor::{Device, Tensor};
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_modules::{LstmState, StackState};

pub const T: usize = 5;
pub const B: usize = 3;
pub const I: usize = 7;
pub const H: usize = 11;

pub fn autodiff() -> Device {
    device().autodiff()
}

/// `sin` of a running number.
pub fn tensor<const D: usize>(shape: [usize; D], offset: f32, device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    let list: Vec<f32> = (0..count)
        .map(|k| (1.7 * k as f32 + offset).sin())
        .collect();
    Tensor::<1>::from_floats(list.as_slice(), device).reshape(shape)
}

/// A state of `count` cells.
pub fn state(count: usize, d_hidden: usize, device: &Device) -> StackState {
    let part = |offset: f32| tensor([B, d_hidden], offset, device);
    let cells = (0..count).map(|index| LstmState {
        cell: part(0.3 + index as f32),
        hidden: part(0.6 + index as f32),
    });
    StackState {
        cells: cells.collect(),
    }
}

#[track_caller]
pub fn assert_close<const D: usize>(got: &Tensor<D>, expected: &Tensor<D>) {
    assert_eq!(got.dims(), expected.dims());
    assert_lists_close(&values(got), &values(expected));
}

#[track_caller]
pub fn assert_lists_close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let allowed = 1e-5 * expected.abs().max(1.0);
        assert!(
            (got - expected).abs() <= allowed,
            "[{index}]: got {got}, expected {expected}"
        );
    }
}

//! Comparison within a given tolerance; the error names the worst element.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use burn::tensor::{DType, Tensor};

/// Largest allowed `max|a − b| / max(max|b|, 1e-3)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance(pub f64);

impl Tolerance {
    /// For outputs and states after `seq_length` steps.
    ///
    /// f32: 5e-6 up to 20 steps (largest value seen in f32 runs of the originals: 7e-7), then
    /// proportional to T. It is tight on purpose: in a layer normalisation, an ε of 1e-5 instead of 1e-6
    /// changes results by only 1e-5. f64: 1e-12.
    pub fn values(dtype: DType, seq_length: usize) -> Self {
        Self(Self::unit(dtype) * 5e-6 * Self::growth(seq_length))
    }

    /// For gradients: ten times that of values.
    pub fn gradients(dtype: DType, seq_length: usize) -> Self {
        Self(Self::values(dtype, seq_length).0 * 10.0)
    }

    fn growth(seq_length: usize) -> f64 {
        (seq_length as f64 / 20.0).max(1.0)
    }

    /// Unit roundoff of `dtype`, relative to that of f32.
    fn unit(dtype: DType) -> f64 {
        match dtype {
            DType::F64 => 2e-7,
            DType::F32 | DType::Flex32 => 1.0,
            DType::F16 => 8192.0,
            DType::BF16 => 65536.0,
            other => panic!("no tolerance for {other:?}: not a float"),
        }
    }
}

/// Compares values; the error text names the worst element.
///
/// # Errors
/// If the lengths differ, a value on either side is not finite, or the difference is beyond the
/// tolerance.
pub fn close(
    name: &str,
    got: &[f64],
    expected: &[f64],
    tolerance: Tolerance,
) -> Result<f64, String> {
    if got.len() != expected.len() {
        return Err(format!(
            "{name}: got {} values, expected {}",
            got.len(),
            expected.len()
        ));
    }
    let scale = expected.iter().fold(1e-3, |max: f64, b| max.max(b.abs()));
    let mut worst = (0, 0.0);
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        let difference = (a - b).abs();
        if !a.is_finite() || !b.is_finite() {
            return Err(format!("{name}[{index}]: got {a}, expected {b}"));
        }
        if difference > worst.1 {
            worst = (index, difference);
        }
    }
    let error = worst.1 / scale;
    if error > tolerance.0 {
        let index = worst.0;
        return Err(format!(
            "{name}[{index}]: got {}, expected {}; error {error:.2e} of the largest value, \
             allowed {:.2e}",
            got[index], expected[index], tolerance.0
        ));
    }
    Ok(error)
}

/// All values of a tensor, as f64.
pub fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor
        .to_data()
        .convert::<f64>()
        .try_to_vec::<f64>()
        .expect("f64 data")
}

/// Panics unless the tensor is [`close`] to the expected values.
#[track_caller]
pub fn assert_close<const D: usize>(
    name: &str,
    got: &Tensor<D>,
    expected: &[f64],
    tolerance: Tolerance,
) {
    if let Err(message) = close(name, &values(got), expected, tolerance) {
        panic!("{message}");
    }
}

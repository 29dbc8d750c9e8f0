//! What the tests of this crate share: seeded values, tensors from f64, slopes in f64.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recurrent_core::eval::device::chosen;

/// The devices that compute in `dtype`; in f32 the one that was asked for, if one was. Burn's ndarray evaluates σ in f32 whatever the dtype, so
/// f64 is flex alone.
pub fn devices(dtype: DType) -> Vec<(String, Device)> {
    let mut devices = vec![("flex".to_string(), Device::flex().autodiff())];
    if dtype == DType::F32 {
        if let Some((name, device)) = chosen() {
            return vec![(name, device.autodiff())];
        }
        #[allow(deprecated)] // still a second opinion
        let ndarray = Device::ndarray();
        devices.push(("ndarray".to_string(), ndarray.autodiff()));
    }
    devices
}

/// Seeded values; each call goes on where the last one ended.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// `count` values, uniform in ±`bound`.
    pub fn values(&mut self, count: usize, bound: f64) -> Vec<f64> {
        (0..count)
            .map(|_| self.0.random_range(-bound..bound))
            .collect()
    }

    /// `count` values, each 0 with the given probability and `kept` otherwise.
    pub fn mask(&mut self, count: usize, prob: f64, kept: f64) -> Vec<f64> {
        (0..count)
            .map(|_| if self.0.random_bool(prob) { 0.0 } else { kept })
            .collect()
    }
}

/// A tensor of the given dtype from f64 values.
#[track_caller]
pub fn tensor<const D: usize>(
    values: &[f64],
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype))
}

/// Central differences of `f` at `x`. Their own error is about 1e-9 for values and slopes near 1.
pub fn slopes(x: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut x = x.to_vec();
    (0..x.len())
        .map(|k| {
            let middle = x[k];
            let step = 1e-5 * middle.abs().max(0.1);
            x[k] = middle + step;
            let above = f(&x);
            x[k] = middle - step;
            let below = f(&x);
            x[k] = middle;
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// `Σ a·b`
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "sizes of a scalar product");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

//! Layer normalisation in the forms that LSTM code uses.
//!
//! ```text
//! μ = mean(x)      s² = Σ(x − μ)² / n   (biased)    or   / (n − 1)   (unbiased)
//! x̂ = (x − μ) / √(s² + ε)   (inside the root)   or   (x − μ) / (s + ε)   (outside)
//! y = gain ⊙ x̂ + shift
//! ```
//! over the last axis of `[rows, n]`; gain and shift are `[n]`.
//!
//! | form | variance | ε | place |
//! |---|---|---|---|
//! | [`Normalizer::STANDARD`] (`torch.nn.LayerNorm`, Burn) | biased | 1e-5 | inside |
//! | [`Normalizer::LSTMS_PTH`] (lstms.pth `LayerNorm`) | unbiased | 1e-6 | inside |
//! | [`Normalizer::BRADBURY`] (lstms.pth `BradburyLayerNorm`) | unbiased | 1e-6 | outside |
//! | [`Normalizer::BA`] (lstms.pth `BaLayerNorm`) | biased | 1e-5 | outside |
//!
//! **Source.** Ba, Kiros & Hinton, Layer Normalization, arXiv:1607.06450, equations 2 to 4 (which
//! have no ε and divide by n).

use burn::serde::{Deserialize, Serialize};
use burn::tensor::Tensor;

/// What the sum of squares is divided by.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(crate = "burn::serde")]
pub enum Variance {
    /// n
    Biased,
    /// n − 1; needs at least two features.
    Unbiased,
}

/// Where ε is added.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(crate = "burn::serde")]
pub enum EpsilonPlace {
    /// `√(s² + ε)`
    InsideRoot,
    /// `s + ε`
    OutsideRoot,
}

/// One form of the normaliser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalizer {
    /// Divisor of the variance.
    pub variance: Variance,
    /// ε, in units of the variance (inside the root) or of the deviation (outside).
    pub epsilon: f64,
    /// Where ε is added.
    pub place: EpsilonPlace,
}

impl Normalizer {
    /// Biased variance, ε = 1e-5 inside the root.
    pub const STANDARD: Self = Self {
        variance: Variance::Biased,
        epsilon: 1e-5,
        place: EpsilonPlace::InsideRoot,
    };
    /// `LayerNorm` of lstms.pth.
    pub const LSTMS_PTH: Self = Self {
        variance: Variance::Unbiased,
        epsilon: 1e-6,
        place: EpsilonPlace::InsideRoot,
    };
    /// `BradburyLayerNorm` of lstms.pth.
    pub const BRADBURY: Self = Self {
        variance: Variance::Unbiased,
        epsilon: 1e-6,
        place: EpsilonPlace::OutsideRoot,
    };
    /// `BaLayerNorm` of lstms.pth.
    pub const BA: Self = Self {
        variance: Variance::Biased,
        epsilon: 1e-5,
        place: EpsilonPlace::OutsideRoot,
    };

    /// `x̂`: zero mean and unit variance over the last axis.
    ///
    /// # Shapes
    /// - x, output `[rows, n]`
    pub fn normalize(&self, x: Tensor<2>) -> Tensor<2> {
        let (centred, root) = self.centre(x);
        centred / self.deviation(root)
    }

    /// `x − μ` and the root `[rows, 1]`: `√(s² + ε)` inside, `s` outside.
    fn centre(&self, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let mean = x.clone().mean_dim(1);
        let centred = x - mean;
        let divisor = self.divisor(centred.dims()[1]);
        // Not `/ divisor`: autodiff rounds the slope of a division by a scalar to f32, also in f64.
        let variance = centred.clone().square().sum_dim(1) * divisor.recip();
        let root = match self.place {
            EpsilonPlace::InsideRoot => variance.add_scalar(self.epsilon).sqrt(),
            // The slope of √ at 0 is infinite: a constant row would give 0·∞ = NaN backwards.
            // The clamp passes no gradient there and is far below ε.
            EpsilonPlace::OutsideRoot => variance.clamp_min(f32::MIN_POSITIVE).sqrt(),
        };
        (centred, root)
    }

    /// What `x − μ` is divided by.
    fn deviation(&self, root: Tensor<2>) -> Tensor<2> {
        match self.place {
            EpsilonPlace::InsideRoot => root,
            EpsilonPlace::OutsideRoot => root.add_scalar(self.epsilon),
        }
    }

    fn divisor(&self, features: usize) -> f64 {
        match self.variance {
            Variance::Biased => features as f64,
            Variance::Unbiased => features as f64 - 1.0,
        }
    }

    /// Derivative of [`normalize`](Self::normalize): from `∂L/∂x̂` to `∂L/∂x`.
    ///
    /// ```text
    /// d = √(s² + ε) or s + ε        k = n or n − 1        s̃ = d (inside) or s (outside)
    /// ∂L/∂x = (δ − mean(δ) − x̂ · Σ(δ ⊙ x̂) · d / (k · s̃)) / d
    /// ```
    pub fn backward(&self, x: Tensor<2>, grad: Tensor<2>) -> Tensor<2> {
        let (centred, root) = self.centre(x);
        let deviation = self.deviation(root.clone());
        let divisor = self.divisor(centred.dims()[1]);
        let normal = centred / deviation.clone();
        let along = (grad.clone() * normal.clone()).sum_dim(1);
        let mean = grad.clone().mean_dim(1);
        let ratio = deviation.clone() / root.mul_scalar(divisor);
        (grad - mean - normal * along * ratio) / deviation
    }
}

/// A normaliser with its learnable gain and shift, each `[n]`.
#[derive(Debug, Clone)]
pub struct NormWeights {
    /// The form.
    pub normalizer: Normalizer,
    /// Multiplies x̂.
    pub gain: Option<Tensor<1>>,
    /// Added after the gain.
    pub shift: Option<Tensor<1>>,
}

impl NormWeights {
    /// `gain ⊙ x̂ + shift`
    ///
    /// # Shapes
    /// - x, output `[rows, n]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut y = self.normalizer.normalize(x);
        if let Some(gain) = &self.gain {
            y = y * gain.clone().unsqueeze();
        }
        if let Some(shift) = &self.shift {
            y = y + shift.clone().unsqueeze();
        }
        y
    }
}

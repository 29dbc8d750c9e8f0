//! Layer normalisation with its parameters. Forms and equations:
//! [`recurrent_core::equations::layer_norm`].

use alloc::format;

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
use recurrent_core::equations::layer_norm as form;
pub use recurrent_core::equations::layer_norm::{EpsilonPlace, Variance};

use crate::error::{InvalidConfig, check_positive, check_size, or_panic};
use crate::init::{check_vector_initializer, uniform_by};

/// Configuration of a normalisation.
///
/// The default is `torch.nn.LayerNorm`'s and Burn's: biased variance, ε = 1e-5 inside the root.
#[derive(Config, Debug, PartialEq)]
pub struct NormConfig {
    /// Whether the variance is divided by n or n − 1.
    #[config(default = "Variance::Biased")]
    pub variance: Variance,
    /// ε; in units of the variance (inside the root) or of the deviation (outside).
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Where ε is added.
    #[config(default = "EpsilonPlace::InsideRoot")]
    pub place: EpsilonPlace,
    /// Whether there are a gain and a shift.
    #[config(default = true)]
    pub learnable: bool,
    /// Initial gain; ones by default.
    pub gain_initializer: Option<Initializer>,
    /// Initial shift; zeros by default.
    pub shift_initializer: Option<Initializer>,
}

impl NormConfig {
    /// `LayerNorm` of lstms.pth: unbiased variance, ε = 1e-6 inside the root.
    pub fn lstms_pth() -> Self {
        Self::from_normalizer(form::Normalizer::LSTMS_PTH)
    }

    /// `BradburyLayerNorm` of lstms.pth: unbiased variance, ε = 1e-6 outside the root.
    pub fn bradbury() -> Self {
        Self::from_normalizer(form::Normalizer::BRADBURY)
    }

    /// `BaLayerNorm` of lstms.pth: biased variance, ε = 1e-5 outside the root. The original starts
    /// with gain 0, so that its first output is 0; here the gain starts at 1.
    pub fn ba() -> Self {
        Self::from_normalizer(form::Normalizer::BA)
    }

    fn from_normalizer(normalizer: form::Normalizer) -> Self {
        Self::new()
            .with_variance(normalizer.variance)
            .with_epsilon(normalizer.epsilon)
            .with_place(normalizer.place)
    }

    /// The form of a normalisation; initial values are left at their defaults.
    pub(crate) fn of(norm: &Norm) -> Self {
        Self::from_normalizer(norm.normalizer).with_learnable(norm.gain.is_some())
    }

    /// Initialises gain and shift from U(−1/√n, 1/√n), where n is the width, as in lstms.pth.
    pub fn with_uniform_start(self, features: usize) -> Self {
        self.with_gain_initializer(Some(uniform_by(features)))
            .with_shift_initializer(Some(uniform_by(features)))
    }

    /// # Errors
    /// If ε is not positive and finite, or a gain or shift initializer is orthogonal.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.validate_at("")
    }

    /// `path` is the prefix of each field's name.
    fn validate_at(&self, path: &str) -> Result<(), InvalidConfig> {
        let check = |name: &str, initializer: &Option<Initializer>| {
            check_vector_initializer(&format!("{path}{name}"), initializer)
        };
        check_positive(&format!("{path}epsilon"), self.epsilon)?;
        check("gain_initializer", &self.gain_initializer)?;
        check("shift_initializer", &self.shift_initializer)
    }

    /// Checks the config against the number of features.
    pub(crate) fn validate_for(&self, field: &str, features: usize) -> Result<(), InvalidConfig> {
        self.validate_at(&format!("{field}."))?;
        self.validate_features(field, features)
    }

    fn validate_features(&self, field: &str, features: usize) -> Result<(), InvalidConfig> {
        check_size(field, features)?;
        if self.variance == Variance::Unbiased && features < 2 {
            return Err(InvalidConfig::contradiction(
                field,
                "d_hidden",
                "the unbiased variance of 1 feature divides by 0, expected at least 2 features",
            ));
        }
        Ok(())
    }

    /// # Errors
    /// As [`validate`](Self::validate); also with the unbiased variance over fewer than 2 features.
    pub fn try_init(&self, features: usize, device: &Device) -> Result<Norm, InvalidConfig> {
        self.validate()?;
        self.validate_features("features", features)?;
        let vector = |initializer: &Option<Initializer>, default: Initializer| {
            self.learnable.then(|| {
                initializer.clone().unwrap_or(default).init_with(
                    [features],
                    Some(features),
                    Some(features),
                    device,
                )
            })
        };
        Ok(Norm {
            gain: vector(&self.gain_initializer, Initializer::Ones),
            shift: vector(&self.shift_initializer, Initializer::Zeros),
            normalizer: form::Normalizer {
                variance: self.variance,
                epsilon: self.epsilon,
                place: self.place,
            },
        })
    }

    /// # Panics
    /// If [`try_init`](Self::try_init) returns an error.
    #[track_caller]
    pub fn init(&self, features: usize, device: &Device) -> Norm {
        or_panic("NormConfig", self.try_init(features, device))
    }
}

/// Normalises rows: `gain ⊙ x̂ + shift`. Created with [`NormConfig`].
#[derive(Module, Debug)]
pub struct Norm {
    /// Gain `[n]`.
    pub gain: Option<Param<Tensor<1>>>,
    /// Shift `[n]`.
    pub shift: Option<Param<Tensor<1>>>,
    /// The form.
    #[module(skip)]
    pub normalizer: form::Normalizer,
}

impl Norm {
    /// # Shapes
    /// - x, output `[rows, n]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.bind().forward(x)
    }

    /// The weights for one call.
    pub(crate) fn bind(&self) -> form::NormWeights {
        form::NormWeights {
            normalizer: self.normalizer,
            gain: self.gain.as_ref().map(Param::val),
            shift: self.shift.as_ref().map(Param::val),
        }
    }
}

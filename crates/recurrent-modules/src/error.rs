//! Errors of a configuration.

use alloc::string::{String, ToString};
use core::fmt::{self, Display};

use thiserror::Error;

/// A configuration that cannot be built. Reported before any tensor is created.
#[derive(Clone, PartialEq, Eq, Error)]
pub enum InvalidConfig {
    /// A field holds a value outside its range.
    #[error("config field `{field}` is {got}, expected {expected}")]
    Value {
        /// The field, with its path where it is nested.
        field: String,
        /// Its value.
        got: String,
        /// What was expected.
        expected: String,
    },
    /// Two fields contradict each other.
    #[error("config fields `{first}` and `{second}` contradict each other: {reason}")]
    Contradiction {
        /// One field.
        first: String,
        /// The other.
        second: String,
        /// Why they cannot be combined.
        reason: String,
    },
}

/// The text of the error: what `unwrap` prints.
impl fmt::Debug for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl InvalidConfig {
    /// A value outside its range.
    pub fn value(field: impl Into<String>, got: impl Display, expected: impl Into<String>) -> Self {
        Self::Value {
            field: field.into(),
            got: got.to_string(),
            expected: expected.into(),
        }
    }

    /// Two fields that cannot be combined.
    pub fn contradiction(
        first: impl Into<String>,
        second: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Contradiction {
            first: first.into(),
            second: second.into(),
            reason: reason.into(),
        }
    }

    /// Rejects an option that has no meaning for a variant.
    ///
    /// # Errors
    /// If the field is set.
    pub fn refuse(
        set: bool,
        field: impl Into<String>,
        variant: impl Into<String>,
        reason: impl Into<String>,
    ) -> Result<(), Self> {
        match set {
            true => Err(Self::contradiction(field, variant, reason)),
            false => Ok(()),
        }
    }
}

/// A size must be at least 1.
pub(crate) fn check_size(field: &str, got: usize) -> Result<(), InvalidConfig> {
    if got == 0 {
        return Err(InvalidConfig::value(field, got, "at least 1"));
    }
    Ok(())
}

/// A probability of zeroing must be in [0, 1); NaN is not.
pub(crate) fn check_prob(field: &str, got: f64) -> Result<(), InvalidConfig> {
    if !(0.0..1.0).contains(&got) {
        return Err(InvalidConfig::value(field, got, "a probability in [0, 1)"));
    }
    Ok(())
}

/// A bound must be a positive finite number.
pub(crate) fn check_positive(field: &str, got: f64) -> Result<(), InvalidConfig> {
    if !(got > 0.0 && got.is_finite()) {
        return Err(InvalidConfig::value(
            field,
            got,
            "a finite number greater than 0",
        ));
    }
    Ok(())
}

/// A value must be finite.
pub(crate) fn check_finite(field: &str, got: f64) -> Result<(), InvalidConfig> {
    if !got.is_finite() {
        return Err(InvalidConfig::value(field, got, "a finite number"));
    }
    Ok(())
}

/// Unwraps the result of a checked constructor; panics with the text of the error.
#[track_caller]
pub(crate) fn or_panic<T>(name: &str, result: Result<T, InvalidConfig>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{name}: {error}"),
    }
}

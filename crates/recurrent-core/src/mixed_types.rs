//! The error of a call with more than one type of numbers.

use alloc::string::String;
use core::fmt;

use burn::tensor::DType;
use thiserror::Error;

/// A tensor of a call whose type of numbers is not that of the others.
#[derive(Clone, PartialEq, Eq, Error)]
#[error("{tensor} has type {got:?}, expected {expected:?}, the type of the {reference}")]
pub struct MixedTypes {
    /// The tensor.
    pub tensor: String,
    /// Its type.
    pub got: DType,
    /// The type of the call.
    pub expected: DType,
    /// What has that type: the weights or the input.
    pub reference: &'static str,
}

/// The text of the error: what `unwrap` prints.
impl fmt::Debug for MixedTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

//! The error of a call that mixes element types.

use alloc::string::String;
use core::fmt;

use burn::tensor::DType;
use thiserror::Error;

/// A tensor of a call whose element type differs from that of the others.
#[derive(Clone, PartialEq, Eq, Error)]
#[error("{tensor} has type {got:?}, expected {expected:?}, the type of the {reference}")]
pub struct MixedTypes {
    /// The tensor.
    pub tensor: String,
    /// Its type.
    pub got: DType,
    /// The type of the call.
    pub expected: DType,
    /// What defines the expected type: the weights or the input.
    pub reference: &'static str,
}

/// The error's text, so that `unwrap` prints it.
impl fmt::Debug for MixedTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

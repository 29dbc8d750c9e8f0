//! The weights of a cell by name, for generic checks.

use core::fmt::{Arguments, Display};

use burn::tensor::{DType, Device, Tensor};

use crate::equations::layer_norm::NormWeights;

/// A weight of a cell.
#[derive(Debug, Clone, Copy)]
pub enum Weight<'a> {
    /// A bias, a gain, a diagonal peephole.
    Vector(&'a Tensor<1>),
    /// A matrix.
    Matrix(&'a Tensor<2>),
}

impl Weight<'_> {
    /// The element type.
    pub fn dtype(self) -> DType {
        match self {
            Self::Vector(tensor) => tensor.dtype(),
            Self::Matrix(tensor) => tensor.dtype(),
        }
    }

    /// The device.
    pub fn device(self) -> Device {
        match self {
            Self::Vector(tensor) => tensor.device(),
            Self::Matrix(tensor) => tensor.device(),
        }
    }
}

impl<'a> From<&'a Tensor<1>> for Weight<'a> {
    fn from(tensor: &'a Tensor<1>) -> Self {
        Self::Vector(tensor)
    }
}

impl<'a> From<&'a Tensor<2>> for Weight<'a> {
    fn from(tensor: &'a Tensor<2>) -> Self {
        Self::Matrix(tensor)
    }
}

/// Callback that gets the name and the tensor of a weight. The name is formatted only if it is used.
pub type VisitWeight<'a> = dyn FnMut(Arguments<'_>, Weight<'_>) + 'a;

/// Visits an optional weight.
pub(super) fn visit_some<'a, T>(
    prefix: &dyn Display,
    name: &str,
    weight: &'a Option<T>,
    visit: &mut VisitWeight<'_>,
) where
    Weight<'a>: From<&'a T>,
{
    if let Some(weight) = weight {
        visit(format_args!("{prefix}{name}"), weight.into());
    }
}

/// Visits the weights of an optional normalisation.
pub(super) fn visit_norm(
    prefix: &dyn Display,
    name: &str,
    norm: &Option<NormWeights>,
    visit: &mut VisitWeight<'_>,
) {
    if let Some(norm) = norm {
        visit_some(&format_args!("{prefix}{name}."), "gain", &norm.gain, visit);
        visit_some(
            &format_args!("{prefix}{name}."),
            "shift",
            &norm.shift,
            visit,
        );
    }
}

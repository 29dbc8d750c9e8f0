//! The weights of a cell by name, for checks that no cell has to write itself.

use core::fmt::{Arguments, Display};

use burn::tensor::{DType, Device, Tensor};

use crate::equations::layer_norm::Norm;

/// A weight of a cell.
#[derive(Debug, Clone, Copy)]
pub enum Weight<'a> {
    /// A bias, a gain, a diagonal peephole.
    Vector(&'a Tensor<1>),
    /// A matrix.
    Matrix(&'a Tensor<2>),
}

impl Weight<'_> {
    /// Its type of numbers.
    pub fn dtype(self) -> DType {
        match self {
            Self::Vector(tensor) => tensor.dtype(),
            Self::Matrix(tensor) => tensor.dtype(),
        }
    }

    /// Its device.
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

/// Is called with the name of a weight and the weight. A name is formatted only where it is needed.
pub type VisitWeight<'a> = dyn FnMut(Arguments<'_>, Weight<'_>) + 'a;

/// Visits a weight that may be absent.
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

/// Visits the weights of a normalisation that may be absent.
pub(super) fn visit_norm(
    prefix: &dyn Display,
    name: &str,
    norm: &Option<Norm>,
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

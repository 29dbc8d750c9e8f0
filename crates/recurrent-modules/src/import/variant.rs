//! Reading and writing the weights of a variant chosen at run time. The paths are those of the
//! variant's own module, so its files can also be loaded without the enum.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::{ImportError, Mapping, Tensors, load_mapping, parameters, shapes};
use crate::recurrent::{Recurrent, by_variant, map_variant};

impl Recurrent {
    /// The model with the weights of a file, by a table of the variant's paths.
    pub(crate) fn with_weights(
        self,
        mapping: &Mapping,
        file: &Tensors,
    ) -> Result<Self, ImportError> {
        Ok(map_variant!(self, stack => load_mapping(mapping, stack, file)?))
    }

    /// Parameters by path.
    pub(crate) fn parameters(&self) -> BTreeMap<String, Tensor<2>> {
        by_variant!(Recurrent: self, |stack| parameters(stack))
    }

    /// Path and shape of each parameter.
    pub(crate) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        by_variant!(Recurrent: self, |stack| shapes(stack))
    }

    /// The parameters with Burn's identities of them.
    pub(crate) fn tensors(&self) -> Tensors {
        by_variant!(Recurrent: self, |stack| Tensors::of(stack))
    }
}

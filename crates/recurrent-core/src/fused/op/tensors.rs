//! The tensors of a call, by name.

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;

use super::{FusedMasks, FusedRows};
use crate::fused::problem::{Axes, Key, Part, Parts};

/// The tensors of a call by name, with the shapes of all tensors except weights.
#[derive(Default)]
pub struct Tensors {
    pub tensors: Parts<DispatchTensor>,
    pub shapes: Parts<Axes>,
}

impl Tensors {
    /// Sets a weight, if it is present.
    pub fn set<const D: usize>(&mut self, key: impl Into<Key>, tensor: Option<Tensor<D>>) {
        self.tensors.set(key, tensor.map(Tensor::into_dispatch));
    }

    /// Sets a tensor that is not a weight.
    pub fn set_of_call(&mut self, part: Part, tensor: Tensor<2>) {
        self.shapes.set(part, Axes::from(tensor.dims()));
        self.set(part, Some(tensor));
    }

    /// Sets the rows of the input.
    ///
    /// # Arguments
    /// * `ordered` - whether the kernel gathers the rows by their order
    pub fn set_rows(&mut self, rows: FusedRows, ordered: bool) {
        let [first, second, features] = rows.rows.dims();
        let shape: Axes = [first * second, features].into();
        let rows = match ordered {
            true => rows.rows.into_dispatch(),
            false => rows.for_kernel(),
        };
        self.shapes.set(Part::Input, shape);
        self.tensors.set(Part::Input, rows);
    }

    /// Sets the masks of a call.
    pub fn set_masks(&mut self, masks: &FusedMasks) {
        for (place, mask) in masks.iter() {
            self.set_of_call(Part::Mask(place), mask.rows.clone());
        }
    }
}

//! Checks and masks of a call of a stack, before its first layer runs.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::{DType, Device, Tensor, TensorCreationOptions};
use recurrent_core::cell::{VisitWeight, drop_weights, weight_type};
use recurrent_core::sequence::{CallType, MixedTypes, or_panic};
use recurrent_core::{Mask, Masks, Step};

use super::Stack;
use crate::cell::{Cell, StateOf};
use crate::layer::{BoundLayer, Layer};
use crate::masks::{RecurrentDropout, StackMasks, bernoulli};
use crate::state::StackState;

/// A checked call.
pub(crate) struct Call<'a, S: Step> {
    /// The weights, masks on them applied.
    pub layers: Vec<BoundLayer<S>>,
    /// The given states, per layer and direction.
    pub states: Option<Vec<Vec<S::State>>>,
    /// Given by the caller, sampled, or expectations; masks on weights have been applied.
    pub masks: Cow<'a, StackMasks>,
}

/// The data type of a call of these layers.
pub(crate) fn call_type<S: Step>(
    layers: &[BoundLayer<S>],
    input: DType,
) -> Result<CallType, MixedTypes> {
    CallType::of(input, |visit| visit_weights(layers, visit))
}

fn visit_weights<S: Step>(layers: &[BoundLayer<S>], visit: &mut VisitWeight<'_>) {
    for (index, layer) in layers.iter().enumerate() {
        for (direction, cell) in ["forward", "backward"].iter().zip(layer.cells()) {
            cell.visit_weights(&mut |name, weight| {
                visit(format_args!("layers[{index}].{direction}.{name}"), weight);
            });
        }
    }
}

impl<C: Cell> Stack<C> {
    /// The weights of all layers for one call.
    pub(crate) fn bind(&self) -> Vec<BoundLayer<C::Step>> {
        self.layers.iter().map(Layer::bind).collect()
    }

    /// Checks a call except for its lengths, and samples its masks if none are given. Errors are reported
    /// before anything is computed.
    ///
    /// # Arguments
    /// * `input` - has the right number of features
    #[track_caller]
    pub(crate) fn prepare<'a, const D: usize>(
        &self,
        input: &Tensor<D>,
        seq_length: usize,
        batch_size: usize,
        state: Option<StackState<StateOf<C>>>,
        masks: Option<&'a StackMasks>,
    ) -> Call<'a, C::Step> {
        // Not `map`, because a closure does not propagate `#[track_caller]`.
        let mut states = None;
        if let Some(state) = state {
            states = Some(self.per_layer(state));
        }
        let mut layers = self.bind();
        let call = or_panic(call_type(&layers, input.dtype()));
        if let Some(states) = &states {
            let cells = layers.iter().flat_map(|layer| layer.cells());
            for (cell, state) in cells.zip(states.iter().flatten()) {
                cell.check_state(state, batch_size);
                call.check_state(cell, state);
            }
        }
        let masks = match masks {
            Some(masks) => {
                self.check_masks(&layers, call, masks, seq_length, batch_size);
                Cow::Borrowed(masks)
            }
            None => {
                let device = input.device();
                Cow::Owned(self.masks_of_call(&mut layers, seq_length, batch_size, &device, call))
            }
        };
        let cells = layers.iter_mut().flat_map(|layer| layer.cells_mut());
        for (cell, masks) in cells.zip(&masks.weights) {
            drop_weights(cell, masks);
        }
        Call {
            layers,
            states,
            masks,
        }
    }

    /// Samples the masks of one training call, in the data type of the weights.
    pub fn sample_masks(
        &self,
        seq_length: usize,
        batch_size: usize,
        device: &Device,
    ) -> StackMasks {
        self.sample(&mut self.bind(), seq_length, batch_size, device)
    }

    fn sample(
        &self,
        layers: &mut [BoundLayer<C::Step>],
        seq_length: usize,
        batch_size: usize,
        device: &Device,
    ) -> StackMasks {
        let modules = self.layers.iter().flat_map(Layer::cells);
        let bound = layers.iter_mut().flat_map(|layer| layer.cells_mut());
        let (mut cells, mut weights) = (vec![], vec![]);
        for (module, bound) in modules.zip(bound) {
            let sizes = bound.mask_sizes();
            let options = options_of(bound, device);
            let masks = self.recurrent_dropout.sample(
                seq_length,
                batch_size,
                sizes.cell,
                sizes.hidden,
                options.clone(),
            );
            let keep = 1.0 - module.dropout_adapt();
            let adapt = (keep < 1.0).then(|| {
                let shape = [batch_size, sizes.adapt];
                Mask::PerSequence(bernoulli(shape, keep, 1.0 / keep, &options))
            });
            cells.push(Masks { adapt, ..masks });
            let keep = 1.0 - self.weight_drop;
            if keep < 1.0 {
                let on_weight = |weight: &mut Tensor<2>| {
                    let options = (device, weight.dtype()).into();
                    bernoulli(weight.dims(), keep, 1.0 / keep, &options)
                };
                weights.push(
                    bound
                        .recurrent_weights()
                        .into_iter()
                        .map(on_weight)
                        .collect(),
                );
            }
        }
        let keep = 1.0 - self.dropout;
        let below = layers.len() - 1;
        let between = self.layers[..below]
            .iter()
            .zip(&*layers)
            .map(|(layer, bound)| {
                (keep < 1.0).then(|| {
                    let shape = [seq_length, batch_size, layer.d_output()];
                    let options = options_of(bound.first(), device);
                    bernoulli(shape, keep, 1.0 / keep, &options)
                })
            })
            .collect();
        StackMasks {
            cells,
            weights,
            between,
        }
    }

    /// Whether any kind of dropout is configured.
    fn has_dropout(&self) -> bool {
        self.dropout > 0.0
            || self.weight_drop > 0.0
            || self.recurrent_dropout != RecurrentDropout::None
            || (self.layers.iter().flat_map(Layer::cells)).any(|cell| cell.dropout_adapt() > 0.0)
    }

    /// The masks of a call: sampled in training, the expectation otherwise.
    fn masks_of_call(
        &self,
        layers: &mut [BoundLayer<C::Step>],
        seq_length: usize,
        batch_size: usize,
        device: &Device,
        call: CallType,
    ) -> StackMasks {
        if !self.has_dropout() || seq_length == 0 || batch_size == 0 {
            return StackMasks::default();
        }
        // Both conditions, as in Burn's Dropout: the device must support a backward, and the flag says whether this
        // module is trained.
        if self.training.is_enabled()
            && let Some(device) = autodiff_device(layers, device)
        {
            return self.sample(layers, seq_length, batch_size, &device);
        }
        let expectation = |cell: &C::Step| {
            let sizes = cell.mask_sizes();
            let options = (device, call.dtype);
            self.recurrent_dropout
                .expectation(batch_size, sizes.cell, sizes.hidden, options)
        };
        StackMasks {
            cells: layers
                .iter()
                .flat_map(|layer| layer.cells())
                .map(expectation)
                .collect(),
            weights: vec![],
            between: vec![],
        }
    }

    #[track_caller]
    fn check_masks(
        &self,
        layers: &[BoundLayer<C::Step>],
        call: CallType,
        masks: &StackMasks,
        seq_length: usize,
        batch_size: usize,
    ) {
        let expected = self.layers.len() * self.directions();
        let got = masks.cells.len();
        assert!(
            got == 0 || got == expected,
            "got masks for {got} cells, expected layers × directions = {expected} (or 0 for none)",
        );
        let got = masks.weights.len();
        assert!(
            got == 0 || got == expected,
            "got masks on the weights of {got} cells, expected layers × directions = {expected} (or 0 for \
             none)",
        );
        let (got, expected) = (masks.between.len(), self.layers.len() - 1);
        assert!(
            got == 0 || got == expected,
            "got {got} masks between layers, expected {expected} (or 0 for none)",
        );
        let cells = layers.iter().flat_map(|layer| layer.cells());
        for (cell, masks) in cells.zip(&masks.cells) {
            masks.check(seq_length, batch_size, cell.mask_sizes());
            call.check_masks(masks.types());
        }
        for (index, mask) in masks.between.iter().enumerate() {
            let Some(mask) = mask else { continue };
            let features = self.layers[index].d_output();
            let [steps, rows, columns] = mask.dims();
            assert!(
                steps >= seq_length && [rows, columns] == [batch_size, features],
                "mask `between` after layer {index} has shape {:?}, expected \
                 [seq_length, batch_size, features] = [{seq_length}, {batch_size}, {features}]",
                mask.dims(),
            );
            let name = format_args!("mask `between` after layer {index}");
            or_panic(call.check(name, mask.dtype()));
        }
    }
}

/// The device and the data type of a cell's masks.
fn options_of<S: Step>(cell: &S, device: &Device) -> TensorCreationOptions {
    match weight_type(cell) {
        Some(dtype) => (device, dtype).into(),
        None => device.into(),
    }
}

/// The autodiff device of a call: that of the input or of a weight.
fn autodiff_device<S: Step>(layers: &[BoundLayer<S>], input: &Device) -> Option<Device> {
    let mut found = Some(input.clone()).filter(Device::is_autodiff);
    visit_weights(layers, &mut |_, weight| {
        if found.is_none() {
            found = Some(weight.device()).filter(Device::is_autodiff);
        }
    });
    found
}

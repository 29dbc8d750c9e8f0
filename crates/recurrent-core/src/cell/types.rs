//! One element type per call, for input, state, weights and masks.
//!
//! There are no implicit conversions. If everything is f32, a kernel may run; with any other common type
//! the composed scan runs; mixed types are an error before anything is computed.

use alloc::string::ToString;
use core::fmt::Arguments;

use burn::tensor::DType;

use super::{Step, VisitWeight};
use crate::mixed_types::MixedTypes;
use crate::state::State;

/// The element type of a call: that of the weights, or of the input if the cell lists no weights.
#[derive(Debug, Clone, Copy)]
pub struct CallType {
    /// The type.
    pub dtype: DType,
    reference: &'static str,
}

impl CallType {
    /// The type of a call with an input of type `input`.
    ///
    /// # Arguments
    /// * `weights` - visits all weights, as [`Step::visit_weights`]
    ///
    /// # Errors
    /// If a weight or the input differs in type from the first weight.
    pub fn of(
        input: DType,
        weights: impl FnOnce(&mut VisitWeight<'_>),
    ) -> Result<Self, MixedTypes> {
        let mut first: Option<Self> = None;
        let mut mixed = Ok(());
        weights(&mut |name, weight| {
            let dtype = weight.dtype();
            let first = first.get_or_insert(Self {
                dtype,
                reference: "other weights",
            });
            if mixed.is_ok() {
                mixed = first.check(format_args!("weight `{name}`"), dtype);
            }
        });
        mixed?;
        let Some(Self { dtype, .. }) = first else {
            return Ok(Self {
                dtype: input,
                reference: "input",
            });
        };
        let call = Self {
            dtype,
            reference: "weights",
        };
        call.check(format_args!("input"), input)?;
        Ok(call)
    }

    /// The type of a call of one cell.
    ///
    /// # Panics
    /// If [`of`](Self::of) returns an error.
    #[track_caller]
    pub(crate) fn of_cell<C: Step + ?Sized>(cell: &C, input: DType) -> Self {
        or_panic(Self::of(input, |visit| cell.visit_weights(visit)))
    }

    /// Checks a tensor of the call.
    ///
    /// # Errors
    /// If it has a different type.
    pub fn check(&self, tensor: Arguments<'_>, got: DType) -> Result<(), MixedTypes> {
        if got == self.dtype {
            return Ok(());
        }
        Err(MixedTypes {
            tensor: tensor.to_string(),
            got,
            expected: self.dtype,
            reference: self.reference,
        })
    }

    /// Checks the tensors of a state.
    ///
    /// # Panics
    /// If one has a different type.
    #[track_caller]
    pub fn check_state<C: Step + ?Sized>(&self, cell: &C, state: &C::State) {
        let tensors = state.clone().into_tensors();
        for (tensor, (name, _)) in tensors.iter().zip(cell.state_parts()) {
            or_panic(self.check(format_args!("state `{name}`"), tensor.dtype()));
        }
    }

    /// Checks the types of masks, given by name.
    ///
    /// # Panics
    /// If one has a different type.
    #[track_caller]
    pub fn check_masks(&self, masks: impl IntoIterator<Item = (&'static str, DType)>) {
        for (name, dtype) in masks {
            or_panic(self.check(format_args!("mask `{name}`"), dtype));
        }
    }
}

/// # Panics
/// If types are mixed, with the text of the error.
#[track_caller]
pub fn or_panic<T>(result: Result<T, MixedTypes>) -> T {
    match result {
        Ok(value) => value,
        Err(mixed) => panic!("{mixed}"),
    }
}

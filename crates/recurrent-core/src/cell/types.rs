//! One type of numbers per call: input, state, weights and masks.
//!
//! Nothing is converted behind a caller's back. Where all are f32 a kernel may run; where all are of
//! another type the composed scan does; a mixture is an error before anything is computed.

use alloc::string::ToString;
use core::fmt::Arguments;

use burn::tensor::DType;

use super::{Step, VisitWeight};
use crate::mixed_types::MixedTypes;
use crate::state::State;

/// The type of numbers of a call: that of the weights, or of the input where a cell lists no weights.
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
    /// If a weight has another type than the first one, or the input has.
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

    /// That of a call of one cell.
    ///
    /// # Panics
    /// Where [`of`](Self::of) gives an error.
    #[track_caller]
    pub(crate) fn of_cell<C: Step + ?Sized>(cell: &C, input: DType) -> Self {
        or_panic(Self::of(input, |visit| cell.visit_weights(visit)))
    }

    /// Checks a tensor of the call.
    ///
    /// # Errors
    /// If it has another type.
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
    /// If one has another type.
    #[track_caller]
    pub fn check_state<C: Step + ?Sized>(&self, cell: &C, state: &C::State) {
        let tensors = state.clone().into_tensors();
        for (tensor, (name, _)) in tensors.iter().zip(cell.state_parts()) {
            or_panic(self.check(format_args!("state `{name}`"), tensor.dtype()));
        }
    }

    /// Checks masks by name and type.
    ///
    /// # Panics
    /// If one has another type.
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

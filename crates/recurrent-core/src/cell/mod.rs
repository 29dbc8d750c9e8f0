//! Level 2: affine maps + equations = one step, on borrowed weights.
//!
//! A cell struct holds weight tensors (clones share storage) for one call. The loop over time, lengths
//! and direction are written against the trait [`Step`] only, so a new cell supports all of them
//! without code of its own.

pub mod adaptive;
mod affine;
pub mod cifg;
mod empty;
pub mod gru;
mod lower;
pub mod lstm;
pub mod mogrifier;
pub mod peephole;
mod preactivation;
pub mod slow;
mod transition;
mod types;
pub mod ur;
mod weights;

use alloc::vec::Vec;

use burn::tensor::{DType, Device, Tensor};

pub use affine::Affine;
pub use empty::zeros_in_place_of;
pub(crate) use empty::{empty_output, empty_output_of};
pub use preactivation::Preactivation;
pub use transition::Transition;
pub use types::{CallType, or_panic};
pub use weights::{VisitWeight, Weight};

use crate::equations::dropout::{MaskSizes, StepMasks};
use crate::fused::problem::{FusedSpec, Unfused};
use crate::state::State;

/// Weight drop: multiplies each recurrent weight with its mask, `R' = M ⊙ R`.
///
/// DropConnect on the recurrent weights, the same for all steps of a run (Merity et al.,
/// arXiv:1708.02182, section 2). A mask holds 0 or 1/(1 − p), and gradients flow through it to the
/// weight.
///
/// # Arguments
/// * `masks` - one per entry of [`Step::recurrent_weights`], of the same shape; empty: no change
///
/// # Panics
/// If the number of masks is wrong, or a mask differs from its weight in shape or element type.
#[track_caller]
pub fn drop_weights<C: Step>(cell: &mut C, masks: &[Tensor<2>]) {
    if masks.is_empty() {
        return;
    }
    let weights = cell.recurrent_weights();
    assert!(
        masks.len() == weights.len(),
        "got {} masks `weights`, expected one per recurrent weight of the cell: {} (or 0 for none)",
        masks.len(),
        weights.len(),
    );
    for (index, (weight, mask)) in weights.into_iter().zip(masks).enumerate() {
        assert!(
            mask.dims() == weight.dims(),
            "mask `weights[{index}]` has shape {:?}, expected that of the recurrent weight, {:?}",
            mask.dims(),
            weight.dims(),
        );
        assert!(
            mask.dtype() == weight.dtype(),
            "mask `weights[{index}]` has type {:?}, expected that of the recurrent weight, {:?}",
            mask.dtype(),
            weight.dtype(),
        );
        *weight = weight.clone() * mask.clone();
    }
}

/// The element type of a cell's first weight.
pub fn weight_type<C: Step + ?Sized>(cell: &C) -> Option<DType> {
    let mut dtype = None;
    cell.visit_weights(&mut |_, weight| {
        dtype.get_or_insert(weight.dtype());
    });
    dtype
}

/// The size methods that all cells with packed gates and a transition share; `gates` is the number of
/// gate blocks.
macro_rules! packed_sizes {
    (|$cell:ident| $gates:expr) => {
        fn d_input(&self) -> usize {
            self.preact.d_input()
        }

        fn d_hidden(&self) -> usize {
            let $cell = self;
            $cell.preact.width() / $gates
        }

        fn d_output(&self) -> usize {
            self.transition.d_output(self.d_hidden())
        }

        fn state_parts(&self) -> alloc::vec::Vec<(&'static str, usize)> {
            self.transition.state_parts(self.d_hidden())
        }

        fn recurrent_weights(&mut self) -> alloc::vec::Vec<&mut burn::tensor::Tensor<2>> {
            alloc::vec![&mut self.preact.hidden.weight]
        }
    };
}
use packed_sizes;

/// One step of a recurrent cell: `(y_t, s_t) = step(x_t, s_{t−1})`.
///
/// # Example
/// A leaky average `s_t = a·s_{t−1} + (1 − a)·x_t` that runs over sequences of unequal length:
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_core::{
///     Lengths, LstmState, SequenceOptions, State, Step, equations::dropout::StepMasks, sequence,
/// };
///
/// #[derive(Clone)]
/// struct Mean(Tensor<2>);
/// impl State for Mean {
///     fn into_tensors(self) -> Vec<Tensor<2>> {
///         vec![self.0]
///     }
///     fn from_tensors(mut tensors: Vec<Tensor<2>>) -> Self {
///         Mean(tensors.remove(0))
///     }
/// }
///
/// struct Leaky { size: usize, keep: f64 }
/// impl Step for Leaky {
///     type State = Mean;
///     fn d_input(&self) -> usize { self.size }
///     fn d_hidden(&self) -> usize { self.size }
///     fn state_parts(&self) -> Vec<(&'static str, usize)> { vec![("mean", self.size)] }
///     fn step(&self, x: Tensor<2>, s: Mean, _: &StepMasks) -> (Tensor<2>, Mean) {
///         let s = s.0 * self.keep + x * (1.0 - self.keep);
///         (s.clone(), Mean(s))
///     }
/// }
///
/// let device = Device::flex();
/// let input = Tensor::<3>::ones([4, 2, 3], &device);      // [T, B, I]
/// let lengths = Lengths::new([4, 1], 4).unwrap();
/// let options = SequenceOptions { lengths: Some(&lengths), ..Default::default() };
/// let run = sequence::run(&Leaky { size: 3, keep: 0.5 }, input, None, &options);
/// let last: Vec<f32> = run.state.0.into_data().try_to_vec().unwrap();
/// assert_eq!(last, [0.9375, 0.9375, 0.9375, 0.5, 0.5, 0.5]);
/// ```
pub trait Step: Send {
    /// The state carried from step to step.
    type State: State;

    /// I: features of one input step.
    fn d_input(&self) -> usize;

    /// H: units of the cell.
    fn d_hidden(&self) -> usize;

    /// Features of the output: H, or the size of the projection.
    fn d_output(&self) -> usize {
        self.d_hidden()
    }

    /// Name and number of features of each tensor of the state, in the order of [`State::into_tensors`].
    fn state_parts(&self) -> Vec<(&'static str, usize)>;

    /// Features of the masks of a call; those of one cell by default.
    fn mask_sizes(&self) -> MaskSizes {
        MaskSizes::of(self.d_hidden(), self.d_output())
    }

    /// Calls `visit` with the name and the tensor of each weight.
    ///
    /// A run checks that all weights have the element type of the input; the zero state has the type of
    /// the first weight. The default visits none: a run then checks only the state and the masks, and
    /// zeros have the default type of the device.
    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        let _ = visit;
    }

    /// The zero state, in the element type of the weights.
    fn initial_state(&self, batch_size: usize, device: &Device) -> Self::State {
        let dtype = weight_type(self);
        let zeros = |(_, features)| match dtype {
            Some(dtype) => Tensor::zeros([batch_size, features], (device, dtype)),
            None => Tensor::zeros([batch_size, features], device),
        };
        State::from_tensors(self.state_parts().into_iter().map(zeros).collect())
    }

    /// Checks a state passed by the caller.
    ///
    /// # Panics
    /// If the tensors of the state are not those of [`state_parts`](Self::state_parts), each
    /// `[batch_size, features]`.
    #[track_caller]
    fn check_state(&self, state: &Self::State, batch_size: usize) {
        let (tensors, parts) = (state.clone().into_tensors(), self.state_parts());
        assert!(
            tensors.len() == parts.len(),
            "state has {} tensors, expected {}",
            tensors.len(),
            parts.len(),
        );
        for (tensor, (name, features)) in tensors.iter().zip(parts) {
            let got = tensor.dims();
            assert!(
                got == [batch_size, features],
                "state `{name}` has shape {got:?}, expected [batch_size, features] = \
                 [{batch_size}, {features}]",
            );
        }
    }

    /// Checks the arguments of one step.
    ///
    /// # Panics
    /// If `input` is not `[batch_size, d_input]`, the state has a different batch size or wrong sizes,
    /// input, state, weights and masks do not share one element type, or a mask is given for a place that
    /// the cell does not have.
    #[track_caller]
    fn check_step(&self, input: &Tensor<2>, state: &Self::State, masks: &StepMasks) {
        let [batch_size, features] = input.dims();
        assert!(
            features == self.d_input(),
            "input has inconsistent d_input: got {features}, expected {}",
            self.d_input(),
        );
        self.check_state(state, batch_size);
        let call = CallType::of_cell(self, input.dtype());
        call.check_state(self, state);
        masks.check_places(self.mask_sizes());
        call.check_masks(masks.types());
    }

    /// The recurrent weight matrices, to which weight drop applies. Empty by default.
    fn recurrent_weights(&mut self) -> Vec<&mut Tensor<2>> {
        Vec::new()
    }

    /// The part of a step that depends on the input only, for all steps at once; by default the input
    /// itself.
    ///
    /// # Shapes
    /// - input `[rows, d_input]`, where the rows are the steps of all sequences
    /// - output `[rows, any]`, passed to [`step`](Self::step) one step at a time
    fn project(&self, input: Tensor<2>) -> Tensor<2> {
        input
    }

    /// One step.
    ///
    /// # Shapes
    /// - projected `[batch_size, ·]`: one step of the result of [`project`](Self::project)
    /// - output `[batch_size, d_output]`
    fn step(
        &self,
        projected: Tensor<2>,
        state: Self::State,
        masks: &StepMasks,
    ) -> (Tensor<2>, Self::State);

    /// The cell as data for a fused kernel, if a kernel supports the cell and its options; not supported
    /// by default. The check of the device and the element type is made elsewhere.
    ///
    /// # Errors
    /// The reason why no kernel supports the cell.
    fn lower(&self) -> Result<FusedSpec, Unfused> {
        Err(Unfused::Cell("cells of this kind"))
    }

    /// One step from the raw input: [`project`](Self::project), then [`step`](Self::step). An empty batch
    /// skips both and returns the state unchanged.
    ///
    /// # Panics
    /// As [`check_step`](Self::check_step).
    #[track_caller]
    fn step_once(
        &self,
        input: Tensor<2>,
        state: Self::State,
        masks: &StepMasks,
    ) -> (Tensor<2>, Self::State) {
        self.check_step(&input, &state, masks);
        if input.dims()[0] == 0 {
            let output = empty_output(self, &input, &state, [0, self.d_output()]);
            return (output, state);
        }
        self.step(self.project(input), state, masks)
    }
}

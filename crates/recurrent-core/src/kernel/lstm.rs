//! The kernel of the LSTM family as an operation on tensors.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use burn::backend::DispatchTensor;
use burn::nn::LstmState;
use burn::tensor::Tensor;

use super::contract::{self, Kept, SequenceKernel};
use super::cpu::parts::{Key, Part, Parts, RoundPart};
use super::cpu::pointwise::Coupling;
use super::cpu::recurrence::{Problem, Tape, backward, forward};
use super::cpu::simd::Isa;
use crate::cell::mogrifier::{Round, RoundMatrix};
use crate::cell::{Preactivation, Transition};
use crate::equations::cifg;
use crate::kernel::{Precision, Target, target};
use crate::sequence::{FusedOutput, FusedRun};

impl From<cifg::Coupling> for Coupling {
    fn from(coupling: cifg::Coupling) -> Self {
        match coupling {
            cifg::Coupling::Independent => Self::Independent,
            cifg::Coupling::InputFromForget => Self::InputFromForget,
            cifg::Coupling::ForgetFromInput => Self::ForgetFromInput,
            cifg::Coupling::CappedInput => Self::CappedInput,
        }
    }
}

/// Peepholes of a cell.
#[derive(Debug, Clone, Default)]
pub struct Peepholes {
    /// v of the gates with weights, in packed order, each `[H]`.
    pub shares: [Option<Tensor<1>>; 2],
    /// v_o `[H]`
    pub output: Option<Tensor<1>>,
    /// Whether the output gate sees c̃ (or c).
    pub output_sees_new: bool,
    /// V of all gates on c `[H, G·H]`.
    pub full: Option<Tensor<2>>,
}

/// What a cell of the family has beside its pre-activations and its transition.
#[derive(Debug, Clone)]
pub struct Variant {
    /// How i and f follow from the gates.
    pub coupling: Coupling,
    /// Peepholes.
    pub peepholes: Peepholes,
    /// `[G·H]`, added to the pre-activations.
    pub extra_bias: Option<Tensor<1>>,
    /// Rounds of the Mogrifier.
    pub rounds: Vec<Round>,
}

impl Variant {
    /// Nothing more.
    pub fn new(coupling: impl Into<Coupling>) -> Self {
        Self {
            coupling: coupling.into(),
            peepholes: Peepholes::default(),
            extra_bias: None,
            rounds: Vec::new(),
        }
    }
}

/// Runs a cell of the LSTM family.
///
/// # Panics
/// If a tensor has another shape than the input, the state and the cell's sizes ask for.
#[track_caller]
pub fn run(
    call: FusedRun<'_, LstmState<2>>,
    preact: &Preactivation,
    transition: &Transition,
    variant: Variant,
) -> FusedOutput<LstmState<2>> {
    let Variant {
        coupling,
        peepholes,
        extra_bias,
        rounds,
    } = variant;
    let d_hidden = preact.width() / coupling.gates();
    let d_output = transition.d_output(d_hidden);
    let mut parts = CallParts::default();
    let norm_hidden = preact.norm_hidden.as_ref();
    // Without LN_h, its bias is one among the others.
    let (inner_bias, outer_bias) = match norm_hidden {
        Some(_) => (preact.hidden.bias.clone(), None),
        None => (None, preact.hidden.bias.clone()),
    };
    let outer_bias = sum(outer_bias, extra_bias);
    // LN_x is part of the kernel on a CPU, and comes before it elsewhere.
    let on_cpu = target(&call.rows.rows.device()) == Some(Target::Cpu);
    let norm_input = preact.norm_input.as_ref().filter(|_| on_cpu);
    let order = match rounds.is_empty() {
        true => call.rows.order.clone(),
        // Each round reads the rows of a step.
        false => None,
    };
    if preact.norm_input.is_some() && !on_cpu {
        let projected = preact.from_input(call.rows.in_running_order());
        let projected = match outer_bias {
            Some(bias) => projected + bias.unsqueeze(),
            None => projected,
        };
        parts.set(Part::Input, Some(projected));
    } else {
        let (inner, outer) = match norm_input {
            Some(_) => (preact.input.bias.clone(), None),
            None => (None, preact.input.bias.clone()),
        };
        let [first, second, features] = call.rows.rows.dims();
        parts
            .shapes
            .set(Part::Input, alloc::vec![first * second, features]);
        let rows = match order {
            Some(_) => call.rows.rows.into_dispatch(),
            None => call.rows.for_kernel(),
        };
        parts.tensors.set(Part::Input, rows);
        parts.set(Part::WeightInput, Some(preact.input.weight.clone()));
        let bias = sum(sum(preact.bias.clone(), outer), outer_bias);
        parts.set(Part::Bias, bias);
        parts.set(Part::BiasInput, inner);
    }
    parts.set(Part::WeightHidden, Some(preact.hidden.weight.clone()));
    parts.set(Part::BiasHidden, inner_bias);
    parts.set(Part::Cell, Some(call.state.cell));
    parts.set(Part::Hidden, Some(call.state.hidden));
    let [first, second] = peepholes.shares;
    parts.set(Part::PeepholeFirst, first);
    parts.set(Part::PeepholeSecond, second);
    parts.set(Part::PeepholeOutput, peepholes.output);
    parts.set(Part::PeepholeFull, peepholes.full);
    parts.set(Part::Projection, transition.projection.clone());
    let mut ranks = Vec::with_capacity(rounds.len());
    for (index, round) in rounds.into_iter().enumerate() {
        let (matrix, right) = match round.matrix {
            RoundMatrix::Full(matrix) => (matrix, None),
            RoundMatrix::LowRank(left, right) => (left, Some(right)),
        };
        ranks.push(right.is_some().then(|| matrix.dims()[1]));
        let key = |part| Key::Round(index, part);
        parts.set(key(RoundPart::Matrix), Some(matrix));
        parts.set(key(RoundPart::Right), right);
        parts.set(key(RoundPart::Bias), round.bias);
    }
    let norm_cell = transition.norm_cell.as_ref();
    for (norm, gain, shift) in [
        (norm_input, Part::NormInputGain, Part::NormInputShift),
        (norm_hidden, Part::NormHiddenGain, Part::NormHiddenShift),
        (norm_cell, Part::NormCellGain, Part::NormCellShift),
    ] {
        if let Some(norm) = norm {
            parts.set(gain, norm.gain.clone());
            parts.set(shift, norm.shift.clone());
        }
    }

    let mut per_step = Parts::default();
    let masks = call.masks;
    for (part, mask) in [
        (Part::MaskCandidate, masks.candidate),
        (Part::MaskCell, masks.cell),
        (Part::MaskHidden, masks.hidden),
        (Part::UpdateCell, masks.update_cell),
        (Part::UpdateHidden, masks.update_hidden),
    ] {
        if let Some(mask) = mask {
            per_step.set(part, mask.per_step.then_some(()));
            parts.set(part, Some(mask.rows));
        }
    }

    let problem = Problem {
        d_input: preact.d_input(),
        d_hidden,
        d_output,
        coupling,
        counts: call.counts.to_vec(),
        order,
        clip: transition.clip.map_or(f32::INFINITY, |clip| clip as f32),
        norm_input: norm_input.map(|norm| norm.normalizer),
        norm_hidden: norm_hidden.map(|norm| norm.normalizer),
        norm_cell: norm_cell.map(|norm| norm.normalizer),
        carry_normalized: transition.carry_normalized,
        output_sees_new: peepholes.output_sees_new,
        per_step,
        histories: call.histories,
        halves: call.precision == Precision::Bf16,
        rounds: ranks,
    };
    problem.check_shapes(&parts.shapes);
    let batch = problem.batch_size();
    let cells_start = problem.cells_start();
    let output_shape = contract::sequence_shape(call.counts, d_output);
    let (tensors, which) = parts.tensors.into_list();
    let kernel = Arc::new(LstmKernel { problem, which });
    let flat = contract::run(tensors, kernel);

    let state_size = batch * (d_output + d_hidden);
    let (output, states) = contract::output_and_rest(&flat, output_shape, state_size);
    let cell = contract::piece(&states, batch * d_output, [batch, d_hidden]);
    let hidden = contract::piece(&states, 0, [batch, d_output]);
    let state = LstmState {
        cell: contract::owned(cell),
        hidden: contract::owned(hidden),
    };
    let histories = match call.histories {
        true => {
            let shape = contract::sequence_shape(call.counts, d_hidden);
            let cells = contract::owned(contract::piece(&flat, cells_start, shape));
            vec![cells, output.clone()]
        }
        false => Vec::new(),
    };
    FusedOutput {
        output,
        state,
        histories,
    }
}

fn sum(a: Option<Tensor<1>>, b: Option<Tensor<1>>) -> Option<Tensor<1>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

/// The tensors of a call with their shapes.
#[derive(Default)]
struct CallParts {
    tensors: Parts<DispatchTensor>,
    shapes: Parts<Vec<usize>>,
}

impl CallParts {
    fn set<const D: usize>(&mut self, key: impl Into<Key>, tensor: Option<Tensor<D>>) {
        let key = key.into();
        let shape = tensor.as_ref().map(|tensor| tensor.dims().to_vec());
        self.shapes.set(key, shape);
        self.tensors.set(key, tensor.map(Tensor::into_dispatch));
    }
}

/// A call of the recurrence: the problem, and which tensors it comes with.
#[derive(Debug)]
pub(super) struct LstmKernel {
    pub(super) problem: Problem,
    pub(super) which: Parts<()>,
}

impl LstmKernel {
    fn parts<'a>(&self, tensors: &[&'a [f32]]) -> Parts<&'a [f32]> {
        Parts::from_list(tensors.iter().copied(), self.which.clone())
    }
}

impl SequenceKernel for LstmKernel {
    #[cfg(feature = "cube")]
    fn output_len(&self) -> usize {
        self.problem.output_len()
    }

    fn forward(&self, tensors: &[&[f32]], keep: bool) -> (Vec<f32>, Option<Kept>) {
        let parts = self.parts(tensors);
        let members = self.problem.members();
        let (output, tape) = forward(Isa::best(), members, &self.problem, &parts, keep);
        (output, tape.map(|tape| Box::new(tape) as Kept))
    }

    fn backward(
        &self,
        tensors: &[&[f32]],
        kept: &Kept,
        output: &[f32],
        grad: &[f32],
        wanted: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let parts = self.parts(tensors);
        let tape: &Tape = kept.downcast_ref().expect("the tape of this kernel");
        let keys = self.which.keys();
        let mut asked = Parts::default();
        for (&key, wanted) in keys.iter().zip(wanted) {
            asked.set(key, wanted.then_some(()));
        }
        let members = self.problem.members();
        let mut grads = backward(
            Isa::best(),
            members,
            &self.problem,
            &parts,
            tape,
            output,
            grad,
            &asked,
        );
        keys.into_iter().map(|key| grads.take(key)).collect()
    }

    #[cfg(feature = "cube")]
    fn cube(&self) -> Option<&dyn super::cube::CubeSequence> {
        Some(self)
    }
}

//! The kernel of the LSTM family as an operation on tensors.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

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
use crate::equations::layer_norm::Norm;
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
    let mut parts = Parts::default();
    let norm_hidden = preact.norm_hidden.as_ref();
    // Without LN_h, its bias is one among the others.
    let (inner_bias, outer_bias) = match norm_hidden {
        Some(_) => (preact.hidden.bias.clone(), None),
        None => (None, preact.hidden.bias.clone()),
    };
    let outer_bias = sum(outer_bias, extra_bias);
    // LN_x is part of the kernel on a CPU, and comes before it elsewhere.
    let norm_input = preact.norm_input.as_ref();
    let on_cpu = target(&call.rows.rows.device()) == Some(Target::Cpu);
    let apart = norm_input.is_some() && (!on_cpu || !rounds.is_empty());
    // What reads the input but x·W needs its rows in running order.
    let order = match apart || !rounds.is_empty() {
        true => None,
        false => call.rows.order.clone(),
    };
    if apart {
        let projected = project(preact, call.rows.in_running_order());
        let projected = match outer_bias {
            Some(bias) => projected + bias.unsqueeze(),
            None => projected,
        };
        set(&mut parts, Part::Input, Some(projected));
    } else {
        let (inner, outer) = match norm_input {
            Some(_) => (preact.input.bias.clone(), None),
            None => (None, preact.input.bias.clone()),
        };
        let bias = sum(sum(preact.bias.clone(), outer), outer_bias);
        let rows = match order {
            Some(_) => call.rows.rows.into_dispatch(),
            None => call.rows.for_kernel(),
        };
        parts.set(Part::Input, Some(rows));
        set(
            &mut parts,
            Part::WeightInput,
            Some(preact.input.weight.clone()),
        );
        set(&mut parts, Part::Bias, bias);
        set(&mut parts, Part::BiasInput, inner);
    }
    set(
        &mut parts,
        Part::WeightHidden,
        Some(preact.hidden.weight.clone()),
    );
    set(&mut parts, Part::BiasHidden, inner_bias);
    set(&mut parts, Part::Cell, Some(call.state.cell));
    set(&mut parts, Part::Hidden, Some(call.state.hidden));
    let [first, second] = peepholes.shares;
    set(&mut parts, Part::PeepholeFirst, first);
    set(&mut parts, Part::PeepholeSecond, second);
    set(&mut parts, Part::PeepholeOutput, peepholes.output);
    set(&mut parts, Part::PeepholeFull, peepholes.full);
    set(&mut parts, Part::Projection, transition.projection.clone());
    let mut ranks = Vec::with_capacity(rounds.len());
    for (index, round) in rounds.into_iter().enumerate() {
        let (matrix, right) = match round.matrix {
            RoundMatrix::Full(matrix) => (matrix, None),
            RoundMatrix::LowRank(left, right) => (left, Some(right)),
        };
        ranks.push(right.is_some().then(|| matrix.dims()[1]));
        let key = |part| Key::Round(index, part);
        set(&mut parts, key(RoundPart::Matrix), Some(matrix));
        set(&mut parts, key(RoundPart::Right), right);
        set(&mut parts, key(RoundPart::Bias), round.bias);
    }
    let weights = |norm: Option<&Norm>| {
        norm.map_or((None, None), |norm| (norm.gain.clone(), norm.shift.clone()))
    };
    if let Some(norm) = norm_input.filter(|_| !apart) {
        set(&mut parts, Part::NormInputGain, norm.gain.clone());
        set(&mut parts, Part::NormInputShift, norm.shift.clone());
    }
    let (gain, shift) = weights(norm_hidden);
    set(&mut parts, Part::NormHiddenGain, gain);
    set(&mut parts, Part::NormHiddenShift, shift);
    let norm_cell = transition.norm_cell.as_ref();
    let (gain, shift) = weights(norm_cell);
    set(&mut parts, Part::NormCellGain, gain);
    set(&mut parts, Part::NormCellShift, shift);

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
            set(&mut parts, part, Some(mask.rows));
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
        norm_input: norm_input.filter(|_| !apart).map(|norm| norm.normalizer),
        norm_hidden: norm_hidden.map(|norm| norm.normalizer),
        norm_cell: norm_cell.map(|norm| norm.normalizer),
        carry_normalized: transition.carry_normalized,
        output_sees_new: peepholes.output_sees_new,
        per_step,
        histories: call.histories,
        halves: call.precision == Precision::Bf16,
        rounds: ranks,
    };
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let cells_start = problem.cells_start();
    let output_shape = contract::sequence_shape(call.counts, d_output);
    let (tensors, which) = parts.into_list();
    let kernel = Arc::new(LstmKernel { problem, which });
    let flat = contract::run(tensors, kernel);

    let hidden_start = rows * d_output;
    let cell_start = hidden_start + batch * d_output;
    let state = LstmState {
        cell: contract::piece(&flat, cell_start, [batch, d_hidden]),
        hidden: contract::piece(&flat, hidden_start, [batch, d_output]),
    };
    let output = contract::piece(&flat, 0, output_shape);
    let histories = match call.histories {
        true => {
            let shape = contract::sequence_shape(call.counts, d_hidden);
            vec![contract::piece(&flat, cells_start, shape), output.clone()]
        }
        false => Vec::new(),
    };
    FusedOutput {
        output,
        state,
        histories,
    }
}

/// `LN_x(x·W + b_x) + b`, the normalisation as one operation.
fn project(preact: &Preactivation, x: Tensor<2>) -> Tensor<2> {
    let product = preact.input.forward(x);
    let normalized = match &preact.norm_input {
        Some(norm) => super::norm::normalize(norm, product),
        None => product,
    };
    match &preact.bias {
        Some(bias) => normalized + bias.clone().unsqueeze(),
        None => normalized,
    }
}

fn sum(a: Option<Tensor<1>>, b: Option<Tensor<1>>) -> Option<Tensor<1>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

fn set<const D: usize>(
    parts: &mut Parts<burn::backend::DispatchTensor>,
    key: impl Into<Key>,
    tensor: Option<Tensor<D>>,
) {
    parts.set(key, tensor.map(Tensor::into_dispatch));
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

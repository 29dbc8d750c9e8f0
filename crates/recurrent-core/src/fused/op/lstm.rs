//! A call of the LSTM family as an operation on tensors.

use alloc::vec;
use alloc::vec::Vec;

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;

use super::tensors::Tensors;
use super::{FusedCall, FusedMasks, FusedOutput, FusedRows};
use crate::equations::layer_norm::NormWeights;
use crate::fused::device::{Target, target};
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{
    Coupling, ForgetBias, Key, LstmSpec, Part, Parts, Precision, RoundPart, RoundSpec,
};
use crate::gates::Gate;

/// Runs a cell of the LSTM family.
///
/// # Panics
/// If a tensor does not have the shape that the input, the state and the cell's sizes imply.
#[track_caller]
pub fn run(spec: LstmSpec, call: FusedCall) -> FusedOutput {
    let (problem, tensors) = bind(spec, call);
    let (batch, histories) = (problem.batch_size(), problem.histories);
    let (d_hidden, d_output) = (problem.d_hidden, problem.d_output);
    let cells_start = problem.cells_start();
    let output_shape = super::sequence_shape(&problem.counts, d_output);
    let cells_shape = super::sequence_shape(&problem.counts, d_hidden);
    let (tensors, which) = tensors.into_list();
    let flat = super::run_problem(tensors, super::Problem::Lstm { problem, which });

    let state_size = batch * (d_output + d_hidden);
    let (output, states) = super::output_and_rest(&flat, output_shape, state_size);
    let cell = super::piece(&states, batch * d_output, [batch, d_hidden]);
    let hidden = super::piece(&states, 0, [batch, d_output]);
    let state = vec![super::owned(cell), super::owned(hidden)];
    let histories = match histories {
        true => {
            let cells = super::owned(super::piece(&flat, cells_start, cells_shape));
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

/// The problem and the tensors of a spec and a call, checked against each other.
#[track_caller]
fn bind(spec: LstmSpec, call: FusedCall) -> (LstmProblem, Parts<DispatchTensor>) {
    let FusedCall {
        rows,
        state,
        counts,
        masks,
        precision,
        histories,
    } = call;
    spec.check();
    let whole = spec.problem(counts);
    // Mogrifier rounds read the rows of a step in running order.
    let order = rows.order.clone().filter(|_| spec.rounds.is_empty());
    // On a CPU, LN_x is part of the kernel; elsewhere it is applied before it.
    let on_cpu = target(&rows.rows.device()) == Some(Target::Cpu);
    let mut tensors = Tensors::default();
    tensors.set_weights(spec, rows, order.is_some(), on_cpu);
    tensors.set_state(state);
    // Only the aLSTM has an adaptation cell.
    let masks = FusedMasks {
        adapt: None,
        ..masks
    };
    tensors.set_masks(&masks);
    let problem = LstmProblem {
        order,
        norm_input: whole.norm_input.filter(|_| on_cpu),
        masks: masks.map(|mask| mask.per_step),
        histories,
        bf16: precision == Precision::Bf16,
        ..whole
    };
    problem.check_call(&tensors.tensors, &tensors.shapes);
    (problem, tensors.tensors)
}

impl Tensors {
    /// x and all weights.
    ///
    /// # Arguments
    /// * `ordered` - whether the kernel gathers the rows by their order
    fn set_weights(&mut self, spec: LstmSpec, rows: FusedRows, ordered: bool, on_cpu: bool) {
        // Without LN_h, b_h is added together with the other biases.
        let (inner, outer) = match &spec.norm_hidden {
            Some(_) => (spec.bias_hidden, None),
            None => (None, spec.bias_hidden),
        };
        // A kernel adds it to b. Not if b is a sum of other vectors, since the order of summation
        // affects the result.
        let outer = match on_cpu && outer.is_none() {
            true => {
                self.set(Part::ForgetBias, spec.forget_bias.map(|forget| forget.bias));
                None
            }
            false => sum(outer, forget_bias(spec.coupling, spec.forget_bias)),
        };
        let input = InputSpec {
            weight: spec.weight_input,
            bias: spec.bias_input,
            norm: spec.norm_input,
            outer: (spec.bias, outer),
        };
        match input.norm.is_some() && !on_cpu {
            true => self.set_of_call(Part::Input, input.projected(rows)),
            false => self.set_input(input, rows, ordered),
        }
        self.set(Part::WeightHidden, Some(spec.weight_hidden));
        self.set(Part::BiasHidden, inner);
        let [first, second] = spec.peepholes.mixing;
        self.set(Part::PeepholeFirst, first);
        self.set(Part::PeepholeSecond, second);
        self.set(Part::PeepholeOutput, spec.peepholes.output);
        self.set(Part::PeepholeFull, spec.peepholes.full);
        self.set(Part::Projection, spec.projection);
        for (index, round) in spec.rounds.into_iter().enumerate() {
            let RoundSpec {
                matrix,
                right,
                bias,
            } = round;
            let key = |part| Key::Round(index, part);
            self.set(key(RoundPart::Matrix), Some(matrix));
            self.set(key(RoundPart::Right), right);
            self.set(key(RoundPart::Bias), bias);
        }
        self.set_norm(
            spec.norm_hidden,
            Part::NormHiddenGain,
            Part::NormHiddenShift,
        );
        self.set_norm(spec.norm_cell, Part::NormCellGain, Part::NormCellShift);
    }

    /// Sets x with W, its biases and its normalisation.
    fn set_input(&mut self, input: InputSpec, rows: FusedRows, ordered: bool) {
        let (inside, beside) = match &input.norm {
            Some(_) => (input.bias, None),
            None => (None, input.bias),
        };
        self.set_rows(rows, ordered);
        self.set(Part::WeightInput, Some(input.weight));
        let (bias, outer) = input.outer;
        self.set(Part::Bias, sum(sum(bias, beside), outer));
        self.set(Part::BiasInput, inside);
        self.set_norm(input.norm, Part::NormInputGain, Part::NormInputShift);
    }

    fn set_norm(&mut self, norm: Option<NormWeights>, gain: Part, shift: Part) {
        if let Some(norm) = norm {
            self.set(gain, norm.gain);
            self.set(shift, norm.shift);
        }
    }

    /// # Panics
    /// If the state is not (c, h).
    #[track_caller]
    fn set_state(&mut self, state: Vec<Tensor<2>>) {
        let [cell, hidden] = match <[_; 2]>::try_from(state) {
            Ok(state) => state,
            Err(got) => panic!("state has {} tensors, expected c and h", got.len()),
        };
        self.set_of_call(Part::Cell, cell);
        self.set_of_call(Part::Hidden, hidden);
    }
}

/// The operations on x that do not depend on the state.
struct InputSpec {
    /// W
    weight: Tensor<2>,
    /// b_x
    bias: Option<Tensor<1>>,
    /// LN_x
    norm: Option<NormWeights>,
    /// What is added after it: b, and what follows it. Two, since the order of sums is part of the result.
    outer: (Option<Tensor<1>>, Option<Tensor<1>>),
}

impl InputSpec {
    /// `LN_x(x·W + b_x) + b`, by tensor operations.
    fn projected(self, rows: FusedRows) -> Tensor<2> {
        let product = plus(rows.in_running_order().matmul(self.weight), self.bias);
        let product = match self.norm {
            Some(norm) => norm.forward(product),
            None => product,
        };
        let (bias, outer) = self.outer;
        plus(plus(product, bias), outer)
    }
}

/// The forget bias as a vector that is added to packed pre-activations: `[G·H]`.
fn forget_bias(coupling: Coupling, bias: Option<ForgetBias>) -> Option<Tensor<1>> {
    let ForgetBias { bias, tied } = bias?;
    let blocks = coupling.layout().gates().iter();
    let blocks = blocks.map(|gate| match gate {
        Gate::Forget => bias.clone(),
        Gate::Refine if tied => bias.clone().neg(),
        _ => bias.zeros_like(),
    });
    Some(Tensor::cat(blocks.collect(), 0))
}

fn plus(rows: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        Some(bias) => rows + bias.unsqueeze(),
        None => rows,
    }
}

fn sum(a: Option<Tensor<1>>, b: Option<Tensor<1>>) -> Option<Tensor<1>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

//! The adaptive LSTM backward.
//!
//! The gradients of the states are in one matrix, which is updated from the last step to the first. A
//! step writes only the rows that it has. The gradient that a longer sequence passes back and the
//! gradient of the final state of a shorter one are therefore in different rows.

mod grads;
mod steps;
mod sums;

use alloc::vec::Vec;
use core::ops::Range;

use grads::{LayerGrads, Pointers};

use super::{Factor, LayerMasks, Reading, Saved, bias_tiles, index};
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::driver::{
    Crew, Direction, Matrix, PerShare, Run, Schedule, WeightSet, one_span,
};
use crate::fused::cpu::product::{Columns, Product, Term};
use crate::fused::cpu::rows::AddRows;
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::Expected;
use crate::fused::problem::adaptive::{
    AdaptiveProblem, BIASES, INPUT, Layer, STATES, StatePart, Tensors, Weight, weight_index,
};

/// Arguments of a backward.
#[derive(Debug, Clone, Copy)]
pub struct Gradient<'a> {
    /// The tensors of the forward.
    pub tensors: Tensors<'a>,
    /// The saved tensors of the forward.
    pub saved: &'a Saved,
    /// The output of the forward.
    pub output: &'a [f32],
    /// The gradient of the output, in the same layout.
    pub grad: &'a [f32],
    /// Which tensors need a gradient, in the order of the tensors; masks have none.
    pub wanted: &'a [bool],
}

/// The gradients of a call.
///
/// # Arguments
/// * `workers` - number of threads that share the work, including the caller's
///
/// # Returns
/// The gradient of each wanted tensor, of its own shape.
///
/// # Panics
/// If the number of tensors or the size of one does not match the problem, or the saved tensors belong
/// to a different call.
#[track_caller]
pub fn backward(
    isa: Isa,
    workers: usize,
    problem: &AdaptiveProblem,
    call: Gradient<'_>,
) -> Vec<Option<Vec<f32>>> {
    check(isa, problem, &call);
    let Gradient { tensors, saved, .. } = call;
    let workers = workers.max(1);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (grad_output, last) = call.grad.split_at(rows * problem.d_output());
    let mut grad_states = last[..batch * problem.state_size()].to_vec();
    let mut grads = room_for_grads(problem, &call);
    let targets: Vec<_> = grads
        .iter_mut()
        .map(|grad| grad.as_mut().map(Vec::as_mut_ptr))
        .collect();

    let layers = 0..problem.layers.len();
    let room = |index: usize| {
        let layout = saved.layers[index].layout;
        LayerGrads::new(isa, problem, layout, index, call.wanted)
    };
    let mut buffers: Vec<_> = layers.map(room).collect();
    let pointers: Vec<_> = buffers.iter_mut().map(LayerGrads::pointers).collect();
    let most = |size: fn(&Layer) -> usize| problem.layers.iter().map(size).max().unwrap_or(0);
    let mut grad_hidden = Buffer::new(batch * most(|layer| layer.d_hidden));

    let reading = Reading {
        lanes: isa.lanes(),
        workers,
        pack: problem.counts.len() > 1,
        back: true,
    };
    let weights = WeightSet::new(reading.matrices(problem, tensors));
    let each = problem.work().shares_each(workers);
    let seen = (0..problem.layers.len()).map(|layer| problem.d_seen(layer));
    let tallest = seen.max().unwrap_or(0);
    let tallest = tallest.max(batch).max(most(|layer| layer.d_adapt));
    let scratch = PerShare::scratch(isa, workers * each, tallest);
    let run = Backward {
        crew: Crew::new(isa, workers, each, &scratch),
        problem,
        tensors,
        saved,
        offsets: &problem.offsets(),
        weights: &weights,
        masks: LayerMasks::new(problem, tensors),
        output: call.output,
        grad: call.grad,
        grad_output,
        targets: &targets,
        grad_states: grad_states.as_mut_ptr(),
        layers: &pointers,
        grad_hidden: grad_hidden.as_mut_ptr(),
        biases: &bias_tiles(isa, problem, tensors),
    };
    let schedule = Schedule {
        workers,
        shares: workers * each,
        direction: Direction::Backward,
        spans: one_span(problem.counts.len()),
    };
    // SAFETY: the buffers were made for this call and these shares, and nothing else uses them.
    unsafe { schedule.together(&run) };
    grads[STATES] = call.wanted[STATES].then_some(grad_states);
    grads
}

/// # Panics
/// As [`backward`].
#[track_caller]
fn check(isa: Isa, problem: &AdaptiveProblem, call: &Gradient<'_>) {
    let Gradient { tensors, saved, .. } = call;
    problem.check_slices(*tensors);
    assert!(
        saved.made_for.0 == *problem && saved.made_for.1 == isa.lanes(),
        "the saved tensors of a backward are those of another call"
    );
    assert!(
        call.wanted.len() == tensors.0.len(),
        "asked for {} gradients, expected one answer per tensor: {}",
        call.wanted.len(),
        tensors.0.len(),
    );
    let size = problem.output_len();
    for (name, values) in [
        ("output", call.output),
        ("gradient of the output", call.grad),
    ] {
        Expected::new("[output, states, histories]", [size]).check_len(name, values.len());
    }
}

/// Allocates the wanted gradients, except that of the states.
fn room_for_grads(problem: &AdaptiveProblem, call: &Gradient<'_>) -> Vec<Option<Vec<f32>>> {
    let masks = weight_index(problem.layers.len(), Weight::AdaptInput);
    let policies: Vec<_> = (0..problem.layers.len())
        .map(|layer| weight_index(layer, Weight::Policy))
        .collect();
    let room = |index: usize| {
        let len = call.tensors.0[index].len();
        let own = call.wanted[index] && index < masks && index != STATES;
        own.then(|| match policies.contains(&index) || index == BIASES {
            true => vec![0.0; len], // accumulated
            false => unset(len),
        })
    };
    (0..call.wanted.len()).map(room).collect()
}

/// The work of all workers between two barriers; the indices are a step and a layer.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Packs the transposed weights.
    Pack,
    /// The gradient that the previously processed layer passes back, then ∂z, ∂a and ∂b.
    Main(usize, usize),
    /// Through W and R, and through the scaling by the policy.
    Scaled(usize, usize),
    /// Through the policy, then ∂q.
    Adapt(usize, usize),
    /// The gradient that the first layer of the first step passes back.
    Initial,
    /// Transposes the left factors of the weights, so that a product reads them along the rows.
    Transpose,
    /// All sums over rows, except those of P.
    Sums,
    /// The sums of P for the columns of a part of the policy, which may overlap with those of another
    /// part.
    PolicySums(usize),
}

struct Backward<'a> {
    crew: Crew<'a>,
    problem: &'a AdaptiveProblem,
    tensors: Tensors<'a>,
    saved: &'a Saved,
    offsets: &'a [usize],
    weights: &'a WeightSet,
    masks: LayerMasks<'a>,
    output: &'a [f32],
    grad: &'a [f32],
    grad_output: &'a [f32],
    targets: &'a [Option<*mut f32>],
    /// `[B, Σ(2H + 2A)]`
    grad_states: *mut f32,
    layers: &'a [Pointers],
    /// `[B, H]`: ∂h̃ of a step.
    grad_hidden: *mut f32,
    /// b of each layer, in the order of tiles.
    biases: &'a [Vec<f32>],
}

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`driver/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Backward<'_> {}

impl Run for Backward<'_> {
    type Phase = Phase;

    fn packing(&self) -> Option<Phase> {
        self.weights.is_packed().then_some(Phase::Pack)
    }

    fn steps(&self, steps: Range<usize>) -> impl Iterator<Item = Phase> {
        let layers = self.problem.layers.len();
        let initial = (steps.start == 0).then_some(Phase::Initial);
        let of_layer = |step, layer| {
            [
                Phase::Main(step, layer),
                Phase::Scaled(step, layer),
                Phase::Adapt(step, layer),
            ]
        };
        let of_step = move |step| {
            (0..layers)
                .rev()
                .flat_map(move |layer| of_layer(step, layer))
        };
        steps.rev().flat_map(of_step).chain(initial)
    }

    fn after(&self) -> impl Iterator<Item = Phase> {
        let policies = (0..Factor::POLICY.len()).map(Phase::PolicySums);
        [Phase::Transpose, Phase::Sums].into_iter().chain(policies)
    }

    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => self.weights.pack(self.crew.isa, share, self.crew.shares),
                Phase::Main(step, layer) => {
                    let share = self.crew.serpentine(share, step);
                    // The columns of ∂h that are passed back are the columns that are read here.
                    if layer + 1 < self.problem.layers.len() {
                        self.pass_back(step, layer + 1, share);
                    } else if step + 1 < self.problem.counts.len() {
                        self.pass_back(step + 1, 0, share);
                    }
                    self.main(step, layer, share);
                }
                Phase::Scaled(step, layer) => self.scaled(step, layer, share),
                Phase::Adapt(step, layer) => self.adapt(step, layer, share),
                Phase::Initial => self.pass_back(0, 0, share),
                Phase::Transpose => self.transpose(share),
                Phase::Sums => self.sums(share),
                Phase::PolicySums(part) => self.policy_sums(part, share),
            }
        }
    }
}

impl<'a> Backward<'a> {
    /// A matrix of a layer, transposed.
    fn weight(&self, layer: usize, factor: Factor) -> &'a Matrix {
        self.weights.get(index(layer, factor))
    }

    /// The column structure of a layer's gates in tiles.
    fn gates(&self, layer: usize) -> Columns {
        let d_hidden = self.problem.layers[layer].d_hidden;
        Columns::gates(4, d_hidden, self.crew.isa.lanes())
    }

    /// The product of the given terms with a matrix, for the rows of a step.
    fn product<'t>(&self, step: usize, terms: &'t [Term], matrix: &'t Matrix) -> Product<'t> {
        Product {
            isa: self.crew.isa,
            rows: self.problem.counts[step],
            terms,
            columns: &matrix.columns,
        }
    }

    /// A step's rows of a saved tensor, which has all rows.
    fn rows_saved(&self, values: &[f32], step: usize, size: usize) -> Rows {
        Rows::read(values.as_ptr(), size).from_row(self.offsets[step])
    }

    /// A step's rows of a buffer that has all rows.
    fn rows_of(&self, ptr: *mut f32, step: usize, stride: usize) -> Rows {
        Rows { ptr, stride }.from_row(self.offsets[step])
    }

    /// The gradient of a part of a layer's state.
    fn grad_state(&self, layer: usize, part: StatePart) -> Rows {
        let start = self.problem.state_part(layer, part);
        Rows {
            ptr: self.grad_states.wrapping_add(start),
            stride: self.problem.state_size(),
        }
    }

    /// A part of a layer's initial state.
    fn first(&self, layer: usize, part: StatePart) -> Rows {
        let start = self.problem.state_part(layer, part);
        let states = self.tensors.0[STATES].as_ptr();
        Rows::read(states.wrapping_add(start), self.problem.state_size())
    }

    /// A part of a layer's state after each row.
    fn states(&self, layer: usize, part: StatePart) -> Rows {
        let saved = &self.saved.layers[layer];
        let is_output = self.problem.is_output(layer, part);
        let values: &[f32] = match (self.problem.history(layer, part), part) {
            (Some(start), _) => &self.output[start..],
            (None, StatePart::Cell) => &saved.cells,
            (None, StatePart::Hidden) if is_output => self.output,
            (None, StatePart::Hidden) => &saved.hidden,
            (None, StatePart::AdaptCell) => &saved.adapt_cells,
            (None, StatePart::Z) => &saved.z,
        };
        Rows::read(values.as_ptr(), self.problem.part_size(layer, part))
    }

    /// Adds the gradient that comes from outside to a part of a layer's state after a step, if that part
    /// is an output of the call.
    ///
    /// # Safety
    /// Nothing else writes these units of the part's gradient at the same time.
    unsafe fn add_given(&self, step: usize, layer: usize, part: StatePart, units: Range<usize>) {
        let Some(start) = self.problem.history(layer, part) else {
            return;
        };
        let size = self.problem.part_size(layer, part);
        let add = AddRows {
            rows: self.problem.counts[step],
            columns: units,
            from: self.rows_saved(&self.grad[start..], step, size),
            to: self.grad_state(layer, part),
        };
        // SAFETY: `from` has a row of this part per row of the call and is only read; `to` has one per
        // sequence, of which the contract of this function leaves these units to the caller.
        unsafe { add.run(self.crew.isa) };
    }

    /// A part of a layer's state before a step.
    fn before(&self, step: usize, layer: usize, part: StatePart) -> Rows {
        match step {
            0 => self.first(layer, part),
            _ => self.states(layer, part).from_row(self.offsets[step - 1]),
        }
    }

    /// The input of a layer, for all rows.
    fn input(&self, layer: usize) -> Rows {
        match layer {
            0 => {
                let x = self.tensors.0[INPUT].as_ptr();
                Rows::read(x, self.problem.layers[0].d_input)
            }
            _ => self.states(layer - 1, StatePart::Hidden),
        }
    }

    /// Destination of the gradient of a layer's input at a step; `Rows::NONE` if it is not needed.
    fn grad_input(&self, step: usize, layer: usize) -> Rows {
        match (layer, self.targets[INPUT]) {
            (0, None) => Rows::NONE,
            (0, Some(target)) => self.rows_of(target, step, self.problem.layers[0].d_input),
            _ => self.grad_state(layer - 1, StatePart::Hidden),
        }
    }
}

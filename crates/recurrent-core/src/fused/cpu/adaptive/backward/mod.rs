//! The adaptive LSTM backward.
//!
//! The gradients of the states live in one matrix from the last step to the first. A step writes only
//! the rows that it has, so that what a longer sequence passes on and what the last state of a
//! shorter one brings in do not meet.

mod grads;
mod weights;

use alloc::vec::Vec;
use core::ops::Range;

use grads::{LayerGrads, Pointers};

use super::forward::NO_PEEPHOLES;
use super::ops::{CarryBack, MixBack, ScaleBack};
use super::{
    FACTORS, Factor, MaskTable, Matrix, Tape, bias_tiles, kind, matrices, pack, pack_targets,
    tile_of, view,
};
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::pointwise::{Backward, Half, Rows};
use crate::fused::cpu::product::{Onto, Scratch, Term, product, write_tile};
use crate::fused::cpu::recurrence::{PerWorker, scratch};
use crate::fused::cpu::rows::AddRows;
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::team;
use crate::fused::problem::Expected;
use crate::fused::problem::adaptive::{
    BIASES, INPUT, Layer, Problem, STATES, StatePart, Tensors, Weight, weight_index,
};

/// The gradients of a call.
///
/// # Arguments
/// * `workers` - threads to share the work, the caller among them
/// * `tensors`, `tape`, `out` - of the forward
/// * `grad` - the gradient of `out`, of the same layout
/// * `wanted` - whose gradients are asked for, in the order of the tensors; masks have none
///
/// # Returns
/// The gradient of each wanted tensor, of its own shape.
///
/// # Panics
/// If the number of tensors or the size of one is another than the problem says, or the tape is another
/// call's.
#[track_caller]
#[allow(clippy::too_many_arguments)] // what a derivative takes
pub fn backward(
    isa: Isa,
    workers: usize,
    problem: &Problem,
    tensors: Tensors<'_>,
    tape: &Tape,
    out: &[f32],
    grad: &[f32],
    wanted: &[bool],
) -> Vec<Option<Vec<f32>>> {
    problem.check_slices(tensors);
    assert!(
        tape.made_for.0 == *problem && tape.made_for.1 == isa.lanes(),
        "the saved tensors of a backward are those of another call"
    );
    assert!(
        wanted.len() == tensors.0.len(),
        "asked for {} gradients, expected one answer per tensor: {}",
        wanted.len(),
        tensors.0.len(),
    );
    let workers = workers.max(1);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let size = problem.output_len();
    for (name, values) in [("output", out), ("gradient of the output", grad)] {
        Expected::new("[output, states, histories]", [size]).check_len(name, values.len());
    }
    let (grad_output, last) = grad.split_at(rows * problem.d_output());
    let last = &last[..batch * problem.state_size()];
    let offsets = problem.offsets();
    let mut grad_states = last.to_vec();

    let summed = weight_index(problem.layers.len(), Weight::AdaptInput);
    let policies: Vec<_> = (0..problem.layers.len())
        .map(|layer| weight_index(layer, Weight::Policy))
        .collect();
    let mut grads: Vec<Option<Vec<f32>>> = (0..wanted.len())
        .map(|index| {
            let len = tensors.0[index].len();
            let own = wanted[index] && index < summed && index != STATES;
            own.then(|| match policies.contains(&index) || index == BIASES {
                true => vec![0.0; len], // summed up
                false => unset(len),
            })
        })
        .collect();
    let targets: Vec<_> = grads
        .iter_mut()
        .map(|grad| grad.as_mut().map(Vec::as_mut_ptr))
        .collect();

    let room = |(index, _): (usize, &Layer)| {
        LayerGrads::new(isa, problem, tape.layers[index].layout, index, wanted)
    };
    let mut buffers: Vec<_> = problem.layers.iter().enumerate().map(room).collect();
    let pointers: Vec<_> = buffers.iter_mut().map(LayerGrads::pointers).collect();
    let most = |size: fn(&Layer) -> usize| problem.layers.iter().map(size).max().unwrap_or(0);
    let mut grad_hidden = Buffer::new(batch * most(|layer| layer.d_hidden));
    let biases = bias_tiles(isa, problem, tensors);

    let seen = (0..problem.layers.len()).map(|layer| problem.d_seen(layer));
    let tallest = seen.max().unwrap_or(0);
    let tallest = tallest.max(batch).max(most(|layer| layer.d_adapt));
    let mut matrices = matrices(isa, workers, problem, tensors, true);
    let pack_into = pack_targets(&mut matrices);
    let run = Run {
        isa,
        workers,
        problem,
        tensors,
        tape,
        offsets: &offsets,
        matrices: &matrices,
        pack_into: &pack_into,
        masks: MaskTable::new(problem, tensors),
        scratch: scratch(workers, tallest, isa),
        out,
        grad,
        grad_output,
        targets: &targets,
        grad_states: grad_states.as_mut_ptr(),
        layers: &pointers,
        grad_hidden: grad_hidden.as_mut_ptr(),
        biases: &biases,
    };
    let phases = run.phases();
    team::run(workers, workers, phases.len(), &|phase, share| {
        // SAFETY: the phases are run in order, each share once, with all shares of a phase done
        // before the next begins.
        unsafe { run.work(phases[phase], share) }
    });
    grads[STATES] = wanted[STATES].then_some(grad_states);
    grads
}

/// What all workers do between two meetings, at a step and a layer.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Transposed weights into panels.
    Pack,
    /// What the layer after this one on the way passes back, then ∂z, ∂a and ∂b.
    Main(usize, usize),
    /// Back through W, R and what the policy scales.
    Scaled(usize, usize),
    /// Back through the policy, then ∂q.
    Adapt(usize, usize),
    /// What the first layer of the first step passes back.
    Initial,
    /// What the weights are multiplied with, transposed: a product reads it along the rows.
    Transpose,
    /// All sums over rows, but those of P.
    Sums,
    /// Those of the columns of P for a part of the policy, which may overlap with those of another.
    PolicySums(usize),
}

struct Run<'a> {
    isa: Isa,
    workers: usize,
    problem: &'a Problem,
    tensors: Tensors<'a>,
    tape: &'a Tape,
    offsets: &'a [usize],
    matrices: &'a [[Matrix; FACTORS]],
    pack_into: &'a [Option<*mut f32>],
    masks: MaskTable<'a>,
    scratch: PerWorker<Scratch>,
    out: &'a [f32],
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
// (`recurrence/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    fn phases(&self) -> Vec<Phase> {
        let (steps, layers) = (self.problem.counts.len(), self.problem.layers.len());
        let mut phases = Vec::with_capacity(3 * steps * layers + 9);
        if self.pack_into.iter().any(Option::is_some) {
            phases.push(Phase::Pack);
        }
        for step in (0..steps).rev() {
            for layer in (0..layers).rev() {
                phases.push(Phase::Main(step, layer));
                phases.push(Phase::Scaled(step, layer));
                phases.push(Phase::Adapt(step, layer));
            }
        }
        phases.extend([Phase::Initial, Phase::Transpose, Phase::Sums]);
        phases.extend((0..Factor::POLICY.len()).map(Phase::PolicySums));
        phases
    }

    /// # Safety
    /// Phases run in order, each share once, all shares of a phase before the next.
    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => pack(self.isa, self.workers, self.matrices, self.pack_into, share),
                Phase::Main(step, layer) => {
                    // The columns of ∂h that are passed back are those that are read here.
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

    /// A step's rows of values of all rows.
    fn saved(&self, values: &[f32], step: usize, size: usize) -> Rows {
        Rows::read(values.as_ptr(), size).from_row(self.offsets[step])
    }

    /// A step's rows of a buffer of all rows.
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
        let tape = &self.tape.layers[layer];
        let is_output = self.problem.is_output(layer, part);
        let values: &[f32] = match (self.problem.history(layer, part), part) {
            (Some(start), _) => &self.out[start..],
            (None, StatePart::Cell) => &tape.cells,
            (None, StatePart::Hidden) if is_output => self.out,
            (None, StatePart::Hidden) => &tape.hidden,
            (None, StatePart::AdaptCell) => &tape.adapt_cells,
            (None, StatePart::Z) => &tape.z,
        };
        Rows::read(values.as_ptr(), self.problem.part_size(layer, part))
    }

    /// Adds the gradient that a part of a layer's state after a step has as an output of the call, if it
    /// is one.
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
            from: self.saved(&self.grad[start..], step, size),
            to: self.grad_state(layer, part),
        };
        // SAFETY: `from` has a row of this part per row of the call and is only read; `to` has one per
        // sequence, of which the contract of this function leaves these units to the caller.
        unsafe { add.run(self.isa) };
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

    /// Where the gradient of a layer's input at a step goes; none: nowhere.
    fn grad_input(&self, step: usize, layer: usize) -> Rows {
        match (layer, self.targets[INPUT]) {
            (0, None) => Rows::NONE,
            (0, Some(target)) => self.rows_of(target, step, self.problem.layers[0].d_input),
            _ => self.grad_state(layer - 1, StatePart::Hidden),
        }
    }

    /// The main cell's gates of a step backward.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn main(&self, step: usize, layer: usize, share: usize) {
        let sizes = &self.problem.layers[layer];
        let (rows, d_hidden) = (self.problem.counts[step], sizes.d_hidden);
        let offset = self.offsets[step];
        // The columns of ∂h that this share has passed back, which begin with a vector.
        let columns = &self.matrices[layer][Factor::Hidden as usize].columns;
        let units = columns.units(&columns.share(share, self.workers));
        let columns = self.gates(layer);
        let panels = match units.is_empty() {
            true => 0..0,
            false => units.start / columns.lanes..units.end.div_ceil(columns.lanes),
        };
        let mask = |mask| {
            let rows = self.masks.get(mask, layer, offset);
            rows.unwrap_or(Rows::NONE)
        };
        let tape = &self.tape.layers[layer];
        let grads = &self.layers[layer];
        let grad_hidden = Rows {
            ptr: self.grad_hidden,
            stride: d_hidden,
        };
        let carry = CarryBack {
            rows,
            units: units.clone(),
            grad_hidden: self.grad_state(layer, StatePart::Hidden),
            grad_output: match layer + 1 == self.problem.layers.len() {
                true => self.saved(self.grad_output, step, d_hidden),
                false => Rows::NONE,
            },
            mask: mask(MaskPlace::Hidden),
            update: mask(MaskPlace::UpdateHidden),
            grad: grad_hidden,
        };
        let tiles = |buffer: *const f32| tape.layout.rows(buffer.cast_mut(), offset);
        let backward = Backward {
            rows,
            units: units.clone(),
            gates: tiles(tape.gates.as_ptr()),
            cell: self.before(step, layer, StatePart::Cell),
            normalized: Rows::NONE,
            carry_normalized: false,
            grad_hidden,
            grad_output: Rows::NONE,
            grad_cell: self.grad_state(layer, StatePart::Cell),
            grad_normalized: Rows::NONE,
            grad_raw: Rows::NONE,
            grad_preact: tiles(grads.preact),
            masks: self.masks.inside(layer, offset, false),
            peepholes: NO_PEEPHOLES,
            clip: sizes.clip,
        };
        // SAFETY: this share's own units, of which ∂h' and ∂c' are complete.
        unsafe {
            for part in [StatePart::Cell, StatePart::Hidden] {
                self.add_given(step, layer, part, units.clone());
            }
            carry.run(self.isa);
            backward.run(self.isa, kind(self.masks.masked), Half::Both);
            for panel in panels {
                let read = |buffer: &Buffer| tile_of(tiles(buffer.as_ptr()), panel).cast_const();
                let write = |buffer: *mut f32| tile_of(tiles(buffer), panel);
                let mix = MixBack {
                    rows,
                    width: columns.width(),
                    grad: write(grads.preact).cast_const(),
                    from: tape.from.each_ref().map(read),
                    policy: tape.policy_gates.each_ref().map(read),
                    bias: match sizes.bias {
                        true => self.biases[layer].as_ptr().add(panel * columns.width()),
                        false => core::ptr::null(),
                    },
                    grad_from: grads.from.map(write),
                    grad_policy: grads.policy_gates.map(write),
                };
                mix.run(self.isa);
            }
        }
    }

    /// What the scaled input and hidden state pass back.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn scaled(&self, step: usize, layer: usize, share: usize) {
        let sizes = &self.problem.layers[layer];
        let (tape, own) = (&self.tape.layers[layer], &self.layers[layer]);
        let (rows, offset) = (self.problem.counts[step], self.offsets[step]);
        let features = [sizes.d_input, sizes.d_hidden];
        let values = [
            self.input(layer).from_row(self.offsets[step]),
            self.before(step, layer, StatePart::Hidden),
        ];
        let grads = [
            // The rows of x get their first part here, those of the layer below have theirs.
            (self.grad_input(step, layer), layer > 0),
            // Zoneout has left the direct part there.
            (
                self.grad_state(layer, StatePart::Hidden),
                self.problem.has(MaskPlace::UpdateHidden),
            ),
        ];
        for (which, factor) in [Factor::Input, Factor::Hidden].into_iter().enumerate() {
            let matrix = &self.matrices[layer][factor as usize];
            let columns = &matrix.columns;
            let panels = columns.share(share, self.workers);
            let (from, pieces) = tape.layout.factor(own.from[which], offset);
            let policy = self.saved(&tape.policy_scales[which], step, features[which]);
            let (grad, add) = grads[which];
            // SAFETY: ∂a and ∂b are complete; the scratch and the columns of this share.
            unsafe {
                let scratch = self.scratch.of(share);
                let finish = |panel: usize, tile| {
                    let back = ScaleBack {
                        rows,
                        columns: columns.units(&(panel..panel + 1)),
                        tile,
                        value: values[which],
                        policy,
                        grad_policy: self.rows_of(own.policy_scales[which], step, features[which]),
                        grad,
                        add,
                    };
                    back.run(self.isa);
                };
                let terms = [Term {
                    pieces,
                    ..matrix.term(from)
                }];
                product(self.isa, scratch, rows, &terms, columns, panels, finish);
            }
        }
    }

    /// The adaptation cell's gates of a step backward.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn adapt(&self, step: usize, layer: usize, share: usize) {
        let sizes = &self.problem.layers[layer];
        let (rows, d_adapt) = (self.problem.counts[step], sizes.d_adapt);
        let matrices = &self.matrices[layer];
        let columns = &matrices[Factor::PolicyInput as usize].columns;
        let panels = columns.share(share, self.workers);
        let grad_z = self.grad_state(layer, StatePart::Z);
        let grads = &self.layers[layer];
        let [grad_x, grad_h] = [(0, sizes.d_input), (1, sizes.d_hidden)].map(|(which, size)| {
            let rows = self.rows_of(grads.policy_scales[which], step, size);
            (view(rows), None)
        });
        let layout = &self.tape.layers[layer].layout;
        let [grad_i, grad_g, grad_b] =
            (grads.policy_gates).map(|grad| layout.factor(grad, self.offsets[step]));
        let lefts = [grad_x, grad_h, grad_i, grad_g, grad_b];
        let terms: [Term; 5] = core::array::from_fn(|part| {
            let (a, pieces) = lefts[part];
            let matrix = &matrices[Factor::POLICY[part] as usize];
            Term {
                pieces,
                ..matrix.term(a)
            }
        });
        // p_b comes last.
        let terms = &terms[..if sizes.bias { 5 } else { 4 }];
        let backward = Backward {
            rows,
            units: columns.units(&panels),
            gates: self
                .saved(&self.tape.layers[layer].adapt_gates, step, 4 * d_adapt)
                .gates(d_adapt, self.isa),
            cell: self.before(step, layer, StatePart::AdaptCell),
            normalized: Rows::NONE,
            carry_normalized: false,
            grad_hidden: grad_z,
            grad_output: Rows::NONE,
            grad_cell: self.grad_state(layer, StatePart::AdaptCell),
            grad_normalized: Rows::NONE,
            grad_raw: Rows::NONE,
            grad_preact: self
                .rows_of(grads.adapt, step, 4 * d_adapt)
                .gates(d_adapt, self.isa),
            masks: self.masks.adapt(layer, self.offsets[step]),
            peepholes: NO_PEEPHOLES,
            clip: sizes.clip_adapt,
        };
        // SAFETY: ∂(z'·P) is complete, and so is what later steps pass to ∂z' and ∂m'; the scratch and
        // the units of this share.
        unsafe {
            for part in [StatePart::AdaptCell, StatePart::Z] {
                self.add_given(step, layer, part, columns.units(&panels));
            }
            let scratch = self.scratch.of(share);
            let write = |panel: usize, tile| {
                let Rows { ptr, stride } = grad_z;
                let onto = Onto::Sum;
                write_tile(self.isa, tile, columns, panel, rows, ptr, stride, onto);
            };
            product(self.isa, scratch, rows, terms, columns, panels, write);
            let kind = kind(self.problem.has(MaskPlace::Adapt));
            backward.run(self.isa, kind, Half::Both);
        }
    }

    /// From ∂q to ∂x, ∂h, ∂z and ∂z_below, for this share's columns of each.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn pass_back(&self, step: usize, layer: usize, share: usize) {
        let rows = self.problem.counts[step];
        let width = 4 * self.problem.layers[layer].d_adapt;
        let grad = view(self.rows_of(self.layers[layer].adapt, step, width));
        let below = self.problem.below(layer);
        let results = [
            (Factor::AdaptInput, self.grad_input(step, layer), Onto::Sum),
            (
                Factor::AdaptHidden,
                self.grad_state(layer, StatePart::Hidden),
                Onto::Sum,
            ),
            (
                Factor::AdaptRecurrent,
                self.grad_state(layer, StatePart::Z),
                Onto::Fresh,
            ),
            // Of the step before where this is the first layer: its own ∂z is there already.
            (
                Factor::AdaptBelow,
                self.grad_state(below, StatePart::Z),
                Onto::Sum,
            ),
        ];
        for (factor, out, onto) in results {
            if out.is_none() {
                continue;
            }
            let matrix = &self.matrices[layer][factor as usize];
            let columns = &matrix.columns;
            let panels = columns.share(share, self.workers);
            // SAFETY: ∂q is complete; the scratch and the columns of this share.
            unsafe {
                let scratch = self.scratch.of(share);
                let write = |panel: usize, tile| {
                    let Rows { ptr, stride } = out;
                    write_tile(self.isa, tile, columns, panel, rows, ptr, stride, onto);
                };
                let terms = [matrix.term(grad)];
                product(self.isa, scratch, rows, &terms, columns, panels, write);
            }
        }
    }
}

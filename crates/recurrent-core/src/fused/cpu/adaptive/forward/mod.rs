//! The adaptive LSTM forward.

mod buffers;
mod steps;

use alloc::vec::Vec;
use core::ops::Range;

use buffers::{Place, Tracks};

use super::{Factor, LayerMasks, Reading, Saved, SavedLayer, Track, bias_tiles, index};
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::driver::{
    Crew, Direction, Matrix, PerShare, Run, Schedule, WeightSet, one_span,
};
use crate::fused::cpu::product::{Product, Term};
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::adaptive::{AdaptiveProblem, INPUT, STATES, StatePart, Tensors};

/// Runs all steps of all layers.
///
/// # Arguments
/// * `workers` - number of threads that share the work, including the caller's
/// * `tensors` - contiguous, with the shapes given at [`Tensors`]
/// * `save` - whether to save tensors for the backward
///
/// # Returns
/// `[N·H | B·Σ(2H + 2A)]`: the output of all rows, then the final states of each sequence; with histories
/// also the states after all rows, one part `[N·H]` or `[N·A]` after the other.
///
/// # Panics
/// If the number of tensors or the size of one does not match the problem.
#[track_caller]
pub fn forward(
    isa: Isa,
    workers: usize,
    problem: &AdaptiveProblem,
    tensors: Tensors<'_>,
    save: bool,
) -> (Vec<f32>, Option<Saved>) {
    problem.check_slices(tensors);
    let workers = workers.max(1);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let mut out = unset(problem.output_len());
    let output = out.as_mut_ptr();

    let layers = 0..problem.layers.len();
    let mut saved: Vec<_> = layers
        .map(|index| SavedLayer::new(isa, problem, index, save))
        .collect();
    let place = |index| Place {
        problem,
        index,
        save,
        output,
    };
    let tracks = saved.iter_mut().enumerate();
    let tracks: Vec<_> = tracks
        .map(|(index, saved)| place(index).tracks(saved))
        .collect();
    // Room for y of a layer whose h' is masked, if y is not the output.
    let widest = problem.layers.iter().map(|layer| layer.d_hidden).max();
    let mut unmasked = Buffer::new(match problem.has(MaskPlace::Hidden) {
        true => batch * widest.unwrap_or(0),
        false => 0,
    });

    let reading = Reading {
        lanes: isa.lanes(),
        workers,
        pack: problem.counts.len() > 1,
        back: false,
    };
    let weights = WeightSet::new(reading.matrices(problem, tensors));
    let each = problem.work().shares_each(workers);
    let scratch = PerShare::scratch(isa, workers * each, batch);
    let run = Forward {
        crew: Crew::new(isa, workers, each, &scratch),
        problem,
        tensors,
        offsets: &problem.offsets(),
        weights: &weights,
        tracks: &tracks,
        biases: &bias_tiles(isa, problem, tensors),
        masks: LayerMasks::new(problem, tensors),
        unmasked: unmasked.as_mut_ptr(),
    };
    let schedule = Schedule {
        workers,
        shares: workers * each,
        direction: Direction::Forward,
        spans: one_span(problem.counts.len()),
    };
    // SAFETY: the buffers were made for this call and these shares, and nothing else uses them; the final
    // states follow the output.
    unsafe {
        schedule.together(&run);
        run.last_states(output.add(rows * problem.d_output()));
    }
    let saved = save.then(|| Saved {
        made_for: (problem.clone(), isa.lanes()),
        layers: saved,
    });
    (out, saved)
}

/// The work of all workers between two barriers; the indices are a step and a layer.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Packs the weights.
    Pack,
    /// The adaptation cell.
    Adapt(usize, usize),
    /// The policy, and the values that it scales.
    Policy(usize, usize),
    /// The cell.
    Main(usize, usize),
}

struct Forward<'a> {
    crew: Crew<'a>,
    problem: &'a AdaptiveProblem,
    tensors: Tensors<'a>,
    offsets: &'a [usize],
    weights: &'a WeightSet,
    tracks: &'a [Tracks],
    /// b of each layer, in the order of tiles.
    biases: &'a [Vec<f32>],
    masks: LayerMasks<'a>,
    unmasked: *mut f32,
}

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`driver/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Forward<'_> {}

impl Run for Forward<'_> {
    type Phase = Phase;

    fn packing(&self) -> Option<Phase> {
        self.weights.is_packed().then_some(Phase::Pack)
    }

    fn steps(&self, steps: Range<usize>) -> impl Iterator<Item = Phase> {
        let layers = self.problem.layers.len();
        let of_layer = |step, layer| {
            [
                Phase::Adapt(step, layer),
                Phase::Policy(step, layer),
                Phase::Main(step, layer),
            ]
        };
        steps.flat_map(move |step| (0..layers).flat_map(move |layer| of_layer(step, layer)))
    }

    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => self.weights.pack(self.crew.isa, share, self.crew.shares),
                Phase::Adapt(step, layer) => self.adapt(step, layer, share),
                Phase::Policy(step, layer) => self.policy(step, layer, share),
                Phase::Main(step, layer) => {
                    self.main(step, layer, self.crew.serpentine(share, step));
                }
            }
        }
    }
}

impl<'a> Forward<'a> {
    /// A matrix of a layer.
    fn weight(&self, layer: usize, factor: Factor) -> &'a Matrix {
        self.weights.get(index(layer, factor))
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

    /// A quantity after a step.
    fn after(&self, track: Track, step: usize) -> Rows {
        track.at(self.offsets[step])
    }

    /// The destination of a part of a layer's state.
    fn state(&self, layer: usize, part: StatePart) -> Track {
        let tracks = &self.tracks[layer];
        match part {
            StatePart::Cell => tracks.cells,
            StatePart::Hidden => tracks.hidden,
            StatePart::AdaptCell => tracks.adapt_cells,
            StatePart::Z => tracks.z,
        }
    }

    /// A part of a layer's state before a step.
    fn before(&self, step: usize, layer: usize, part: StatePart) -> Rows {
        match step {
            0 => {
                let states = self.tensors.0[STATES].as_ptr();
                let first = self.problem.state_part(layer, part);
                Rows::read(states.wrapping_add(first), self.problem.state_size())
            }
            _ => self.after(self.state(layer, part), step - 1),
        }
    }

    /// The input of a layer at a step.
    fn input(&self, step: usize, layer: usize) -> Rows {
        match layer {
            0 => {
                let d_input = self.problem.layers[0].d_input;
                let x = Rows::read(self.tensors.0[INPUT].as_ptr(), d_input);
                x.from_row(self.offsets[step])
            }
            _ => self.after(self.tracks[layer - 1].hidden, step),
        }
    }

    /// z_below; arbitrary rows if the layer has none.
    fn below(&self, step: usize, layer: usize) -> Rows {
        let below = self.problem.below(layer);
        match layer {
            0 => self.before(step, below, StatePart::Z),
            _ => self.after(self.tracks[below].z, step),
        }
    }

    /// Copies the final states of each sequence, unless they were computed in place.
    ///
    /// # Safety
    /// All steps are done; `last` has room for the states of each sequence.
    unsafe fn last_states(&self, last: *mut f32) {
        let state = self.problem.state_size();
        for layer in 0..self.problem.layers.len() {
            for part in StatePart::ALL {
                let size = self.problem.part_size(layer, part);
                let track = self.state(layer, part);
                if !track.all {
                    continue;
                }
                let start = self.problem.state_part(layer, part);
                for b in 0..self.problem.batch_size() {
                    let rows = self.after(track, self.problem.last_step(b));
                    // SAFETY: by the contract of this function; the rows are in another buffer.
                    unsafe {
                        let target = last.add(b * state + start);
                        target.copy_from_nonoverlapping(rows.from_row(b).ptr, size);
                    }
                }
            }
        }
    }
}

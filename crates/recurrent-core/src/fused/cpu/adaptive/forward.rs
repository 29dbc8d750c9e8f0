//! The adaptive LSTM forward.

use alloc::vec::Vec;
use core::ops::Range;

use super::ops::{Carry, Mix, Scale};
use super::{
    FACTORS, Factor, LayerTape, MaskTable, Matrix, Tape, Tiles, Track, bias_tiles, kind, matrices,
    pack, pack_targets, tile_of, view,
};
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::pointwise::{Forward, Half, PeepholeRows, Rows};
use crate::fused::cpu::product::{Columns, Scratch, product, product_into, to_and_fro};
use crate::fused::cpu::recurrence::{PerWorker, scratch};
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::team;
use crate::fused::problem::adaptive::{BIASES, INPUT, Layer, Problem, STATES, StatePart, Tensors};

/// Runs all steps of all layers.
///
/// # Arguments
/// * `workers` - threads to share the work, the caller among them
/// * `tensors` - contiguous, of the shapes that [`Tensors`] names
/// * `keep` - whether to keep what the backward needs
///
/// # Returns
/// `[N·H | B·Σ(2H + 2A)]`: the output of all rows, then the last states of each sequence; with histories
/// also the states after all rows, a part `[N·H]` or `[N·A]` after the other.
///
/// # Panics
/// If the number of tensors or the size of one is another than the problem says.
#[track_caller]
pub fn forward(
    isa: Isa,
    workers: usize,
    problem: &Problem,
    tensors: Tensors<'_>,
    keep: bool,
) -> (Vec<f32>, Option<Tape>) {
    problem.check_slices(tensors);
    let workers = workers.max(1);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (d_output, state) = (problem.d_output(), problem.state_size());
    let mut out = unset(problem.output_len());
    let output = out.as_mut_ptr();
    let last = output.wrapping_add(rows * d_output);
    let offsets = problem.offsets();
    let masked = problem.has(MaskPlace::Hidden);

    let mut tape = Tape {
        made_for: (problem.clone(), isa.lanes()),
        layers: Vec::with_capacity(problem.layers.len()),
    };
    let mut tracks = Vec::with_capacity(problem.layers.len());
    for (index, layer) in problem.layers.iter().enumerate() {
        let mut kept = LayerTape::new(isa, problem, index, keep);
        let Layer {
            d_input,
            d_hidden,
            d_adapt,
            ..
        } = *layer;
        let track = |buffer: &mut Buffer, stride: usize| {
            let ptr = buffer.as_mut_ptr();
            let rows = Rows { ptr, stride };
            Track { rows, all: keep }
        };
        let rows_of_both = |buffers: &mut [Buffer; 2]| {
            let [input, hidden] = buffers;
            [track(input, d_input), track(hidden, d_hidden)]
        };
        let layout = kept.layout;
        let tiles = |buffer: &mut Buffer| Tiles {
            ptr: buffer.as_mut_ptr(),
            layout,
            all: keep,
        };
        // Without a tape the last states are where the states live.
        let start = problem.state_start(index);
        let in_place = |offset: usize| Track {
            rows: Rows {
                ptr: last.wrapping_add(start + offset),
                stride: state,
            },
            all: false,
        };
        let top = index + 1 == problem.layers.len();
        let of_output = Track {
            rows: Rows {
                ptr: output,
                stride: d_output,
            },
            all: true,
        };
        let given_out = |part: StatePart, stride: usize| {
            let ptr = output.wrapping_add(problem.history(index, part)?);
            let rows = Rows { ptr, stride };
            Some(Track { rows, all: true })
        };
        let of_state = |part, buffer: &mut Buffer, stride: usize, offset: usize| {
            let own = |buffer| match keep {
                true => track(buffer, stride),
                false => in_place(offset),
            };
            given_out(part, stride).unwrap_or_else(|| own(buffer))
        };
        let hidden = match top && !masked {
            true => of_output,
            false => of_state(StatePart::Hidden, &mut kept.hidden, d_hidden, d_hidden),
        };
        tracks.push(Tracks {
            adapt_gates: track(&mut kept.adapt_gates, 4 * d_adapt),
            adapt_cells: of_state(
                StatePart::AdaptCell,
                &mut kept.adapt_cells,
                d_adapt,
                2 * d_hidden,
            ),
            z: given_out(StatePart::Z, d_adapt).unwrap_or_else(|| Track {
                all: true,
                ..track(&mut kept.z, d_adapt)
            }),
            policy_scales: rows_of_both(&mut kept.policy_scales),
            policy_gates: kept.policy_gates.each_mut().map(tiles),
            scaled: rows_of_both(&mut kept.scaled),
            from: kept.from.each_mut().map(tiles),
            gates: tiles(&mut kept.gates),
            cells: of_state(StatePart::Cell, &mut kept.cells, d_hidden, 0),
            output: if top { Some(of_output) } else { None },
            hidden,
        });
        tape.layers.push(kept);
    }
    // y of a layer whose h' is masked, where it is not the output.
    let widest = problem.layers.iter().map(|layer| layer.d_hidden).max();
    let mut unmasked = Buffer::new(if masked {
        batch * widest.unwrap_or(0)
    } else {
        0
    });

    let biases = bias_tiles(isa, problem, tensors);
    let mut matrices = matrices(isa, workers, problem, tensors, false);
    let targets = pack_targets(&mut matrices);
    let run = Run {
        isa,
        workers,
        problem,
        tensors,
        offsets: &offsets,
        matrices: &matrices,
        targets: &targets,
        tracks: &tracks,
        biases: &biases,
        masks: MaskTable::new(problem, tensors),
        scratch: scratch(workers, batch, isa),
        unmasked: unmasked.as_mut_ptr(),
    };
    let phases = run.phases();
    team::run(workers, workers, phases.len(), &|phase, share| {
        // SAFETY: the phases are run in order, each share once, with all shares of a phase done
        // before the next begins.
        unsafe { run.work(phases[phase], share) }
    });
    // SAFETY: all steps are done, and `last` has a row of states per sequence.
    unsafe { run.gather(last) };
    (out, keep.then_some(tape))
}

impl LayerTape {
    /// Room for all rows, or for what one step needs.
    fn new(isa: Isa, problem: &Problem, index: usize, keep: bool) -> Self {
        let layer = &problem.layers[index];
        let rows = if keep {
            problem.rows()
        } else {
            problem.batch_size()
        };
        let kept = |wanted: bool, size: usize| Buffer::new(if wanted { rows * size } else { 0 });
        let of_state = |wanted: bool, size: usize| kept(wanted && !problem.histories, size);
        let is_output = problem.is_output(index, StatePart::Hidden);
        let (d_input, units) = (layer.d_input, layer.d_hidden);
        let layout = Layout::tiles(&Columns::gates(4, units, isa.lanes()), rows);
        let tiles = || Buffer::new(layout.size);
        let of_bias = if layer.bias {
            tiles()
        } else {
            Buffer::default()
        };
        Self {
            layout,
            adapt_gates: kept(true, 4 * layer.d_adapt),
            adapt_cells: of_state(keep, layer.d_adapt),
            // All rows in any case: the workers read z while they write z'.
            z: Buffer::new(match problem.histories {
                true => 0,
                false => problem.rows() * layer.d_adapt,
            }),
            policy_scales: [kept(true, d_input), kept(true, units)],
            policy_gates: [tiles(), tiles(), of_bias],
            scaled: [kept(true, d_input), kept(true, units)],
            from: [tiles(), tiles()],
            gates: tiles(),
            cells: of_state(keep, units),
            hidden: of_state(keep && !is_output, units),
        }
    }
}

/// Where the quantities of a layer are.
struct Tracks {
    adapt_gates: Track,
    adapt_cells: Track,
    z: Track,
    policy_scales: [Track; 2],
    policy_gates: [Tiles; 3],
    scaled: [Track; 2],
    from: [Tiles; 2],
    gates: Tiles,
    cells: Track,
    /// y, of the top layer.
    output: Option<Track>,
    hidden: Track,
}

/// What all workers do between two meetings, at a step and a layer.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Weights into panels.
    Pack,
    /// The adaptation cell.
    Adapt(usize, usize),
    /// The policy, and what it scales.
    Policy(usize, usize),
    /// The cell.
    Main(usize, usize),
}

struct Run<'a> {
    isa: Isa,
    workers: usize,
    problem: &'a Problem,
    tensors: Tensors<'a>,
    offsets: &'a [usize],
    matrices: &'a [[Matrix; FACTORS]],
    targets: &'a [Option<*mut f32>],
    tracks: &'a [Tracks],
    /// b of each layer, in the order of tiles.
    biases: &'a [Vec<f32>],
    masks: MaskTable<'a>,
    scratch: PerWorker<Scratch>,
    unmasked: *mut f32,
}

// SAFETY: the pointers lead to tensors and buffers that outlive the run and have the sizes of the problem;
// within a phase each share writes rows or columns of its own, and reads what earlier phases wrote
// (`recurrence/mod.rs`, "Why the pointers are sound").
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    fn phases(&self) -> Vec<Phase> {
        let (steps, layers) = (self.problem.counts.len(), self.problem.layers.len());
        let mut phases = Vec::with_capacity(3 * steps * layers + 1);
        if self.targets.iter().any(Option::is_some) {
            phases.push(Phase::Pack);
        }
        for step in 0..steps {
            for layer in 0..layers {
                phases.extend([
                    Phase::Adapt(step, layer),
                    Phase::Policy(step, layer),
                    Phase::Main(step, layer),
                ]);
            }
        }
        phases
    }

    /// # Safety
    /// Phases run in order, each share once, all shares of a phase before the next.
    unsafe fn work(&self, phase: Phase, share: usize) {
        // SAFETY: by the contract of this function.
        unsafe {
            match phase {
                Phase::Pack => pack(self.isa, self.workers, self.matrices, self.targets, share),
                Phase::Adapt(step, layer) => self.adapt(step, layer, share),
                Phase::Policy(step, layer) => self.policy(step, layer, share),
                Phase::Main(step, layer) => self.main(step, layer, share),
            }
        }
    }

    /// A quantity after a step.
    fn after(&self, track: Track, step: usize) -> Rows {
        track.at(self.offsets[step])
    }

    /// Where a part of a layer's state is.
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

    /// z_below; any rows where there is none.
    fn below(&self, step: usize, layer: usize) -> Rows {
        let below = self.problem.below(layer);
        match layer {
            0 => self.before(step, below, StatePart::Z),
            _ => self.after(self.tracks[below].z, step),
        }
    }

    /// The adaptation cell of a step.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn adapt(&self, step: usize, layer: usize, share: usize) {
        let rows = self.problem.counts[step];
        let tracks = &self.tracks[layer];
        let hidden = self.before(step, layer, StatePart::Hidden);
        let z = self.before(step, layer, StatePart::Z);
        let matrices = &self.matrices[layer];
        let term = |factor: Factor, rows: Rows| matrices[factor as usize].term(view(rows));
        let terms = [
            term(Factor::AdaptInput, self.input(step, layer)),
            term(Factor::AdaptHidden, hidden),
            term(Factor::AdaptBelow, self.below(step, layer)),
            term(Factor::AdaptRecurrent, z),
        ];
        let columns = &matrices[Factor::AdaptInput as usize].columns;
        let bias = self.tensors.0[BIASES].as_ptr();
        let bias = bias.wrapping_add(self.problem.bias_start(layer));
        let Layer {
            d_adapt,
            clip_adapt,
            ..
        } = self.problem.layers[layer];
        let forward = Forward {
            rows,
            units: 0..0,
            tile: None,
            preact: Rows::read(bias, 0).gates(d_adapt, self.isa),
            gates: self
                .after(tracks.adapt_gates, step)
                .gates(d_adapt, self.isa),
            cell: self.before(step, layer, StatePart::AdaptCell),
            cell_next: self.after(tracks.adapt_cells, step),
            raw: Rows::NONE,
            normalized: Rows::NONE,
            carry_normalized: false,
            hidden: z,
            hidden_next: self.after(tracks.z, step),
            masks: self.masks.adapt(layer, self.offsets[step]),
            peepholes: NO_PEEPHOLES,
            clip: clip_adapt,
        };
        let kind = kind(self.problem.has(MaskPlace::Adapt));
        let panels = columns.share(share, self.workers);
        // SAFETY: the scratch and the units of this share; the phases before are complete. z is
        // read by all shares, and z' is elsewhere.
        unsafe {
            let scratch = self.scratch.of(share);
            let finish = |panel: usize, tile| {
                let forward = Forward {
                    units: columns.units(&(panel..panel + 1)),
                    tile: Some(tile),
                    ..forward.clone()
                };
                forward.run(self.isa, kind, Half::Both);
            };
            product(self.isa, scratch, rows, &terms, columns, panels, finish);
        }
    }

    /// The policy of a step, and what it scales.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn policy(&self, step: usize, layer: usize, share: usize) {
        let rows = self.problem.counts[step];
        let tracks = &self.tracks[layer];
        let z = view(self.after(tracks.z, step));
        let values = [
            (Factor::PolicyInput, self.input(step, layer)),
            (
                Factor::PolicyHidden,
                self.before(step, layer, StatePart::Hidden),
            ),
        ];
        for (which, (factor, values)) in values.into_iter().enumerate() {
            let matrix = &self.matrices[layer][factor as usize];
            let columns = &matrix.columns;
            let panels = columns.share(share, self.workers);
            // SAFETY: the scratch and the columns of this share; z' is complete.
            unsafe {
                let scratch = self.scratch.of(share);
                let finish = |panel: usize, tile| {
                    let scale = Scale {
                        rows,
                        columns: columns.units(&(panel..panel + 1)),
                        tile,
                        policy: self.after(tracks.policy_scales[which], step),
                        values,
                        scaled: self.after(tracks.scaled[which], step),
                    };
                    scale.run(self.isa);
                };
                let terms = [matrix.term(z)];
                product(self.isa, scratch, rows, &terms, columns, panels, finish);
            }
        }
    }

    /// The main cell of a step.
    ///
    /// # Safety
    /// As [`work`](Self::work), whose phase it is.
    unsafe fn main(&self, step: usize, layer: usize, share: usize) {
        let rows = self.problem.counts[step];
        let tracks = &self.tracks[layer];
        let sizes = &self.problem.layers[layer];
        let d_hidden = sizes.d_hidden;
        let offset = self.offsets[step];
        let hidden = self.before(step, layer, StatePart::Hidden);
        let mask = self.masks.get(MaskPlace::Hidden, layer, offset);
        let output = match (tracks.output, mask) {
            (Some(output), _) => self.after(output, step),
            (None, None) => self.after(tracks.hidden, step),
            (None, Some(_)) => Rows {
                ptr: self.unmasked,
                stride: d_hidden,
            },
        };
        let gates = tracks.gates.at(offset);
        let forward = |units| Forward {
            rows,
            units,
            tile: None,
            preact: gates,
            gates,
            cell: self.before(step, layer, StatePart::Cell),
            cell_next: self.after(tracks.cells, step),
            raw: Rows::NONE,
            normalized: Rows::NONE,
            carry_normalized: false,
            hidden,
            hidden_next: output,
            masks: self.masks.inside(layer, offset, true),
            peepholes: NO_PEEPHOLES,
            clip: sizes.clip,
        };
        let carry = |units, mask| Carry {
            rows,
            units,
            output,
            mask,
            update: self
                .masks
                .get(MaskPlace::UpdateHidden, layer, offset)
                .unwrap_or(Rows::NONE),
            hidden,
            hidden_next: self.after(tracks.hidden, step),
        };
        let kind = kind(self.masks.masked);
        let columns = &self.matrices[layer][Factor::Hidden as usize].columns;
        let width = columns.width();
        let panels = columns.share(share, self.workers);
        let z = view(self.after(tracks.z, step));
        let scaled = tracks.scaled.map(|track| view(self.after(track, step)));
        let [p_i, p_g, p_b] = tracks.policy_gates;
        let products = [
            (Factor::PolicyFromInput, z, p_i),
            (Factor::PolicyFromHidden, z, p_g),
            (Factor::Input, scaled[0], tracks.from[0]),
            (Factor::Hidden, scaled[1], tracks.from[1]),
            (Factor::PolicyBias, z, p_b),
        ];
        let products = &products[..if sizes.bias { 5 } else { 4 }];
        let bias = self.biases[layer].as_ptr();
        let run = |panels: Range<usize>| {
            let units = columns.units(&panels);
            // SAFETY: the scratch and the units of this share; x ⊙ p_x, h ⊙ p_h and z' are complete.
            // h and c are read at this share's own units only, before they are written.
            unsafe {
                let scratch = self.scratch.of(share);
                for panel in to_and_fro(panels.clone(), step) {
                    for &(factor, a, tiles) in products {
                        let terms = [self.matrices[layer][factor as usize].term(a)];
                        let sums = tiles.sums(offset);
                        let (isa, one) = (self.isa, [panel]);
                        product_into(isa, scratch, rows, &terms, columns, one, sums, |_, _| ());
                    }
                }
                for panel in panels {
                    let tile = |tiles: Tiles| tile_of(tiles.at(offset), panel);
                    let mix = Mix {
                        rows,
                        width,
                        policy: [p_i, p_g, p_b].map(tile),
                        from: tracks.from.map(tile).map(|from| from.cast_const()),
                        bias: match sizes.bias {
                            true => bias.add(panel * width),
                            false => core::ptr::null(),
                        },
                        preact: tile(tracks.gates),
                    };
                    mix.run(self.isa);
                }
                forward(units.clone()).run(self.isa, kind, Half::Both);
                if let Some(mask) = mask {
                    carry(units, mask).run(self.isa);
                }
            }
        };
        if rows == 1 {
            // The gates of one sequence's panel are one chain of operations; those of all its panels
            // overlap.
            run(panels);
        } else {
            for panel in to_and_fro(panels, step) {
                run(panel..panel + 1);
            }
        }
    }

    /// The last states of each sequence, as far as they are not where they belong already.
    ///
    /// # Safety
    /// All steps are done; `last` has room for the states of each sequence.
    unsafe fn gather(&self, last: *mut f32) {
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

/// What absent peepholes read: nothing.
pub(super) const NO_PEEPHOLES: PeepholeRows = PeepholeRows {
    shares: [core::ptr::null(); 2],
    output_previous: core::ptr::null(),
    output_new: core::ptr::null(),
};

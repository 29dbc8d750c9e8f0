//! The buffers of a forward: the saved tensors, and the destination of each quantity.

use super::super::{SavedLayer, Tiles, Track};
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::buffer::Buffer;
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::simd::Isa;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::adaptive::{AdaptiveProblem, StatePart};

impl SavedLayer {
    /// Allocates rows for all steps, or for one step.
    pub fn new(isa: Isa, problem: &AdaptiveProblem, index: usize, save: bool) -> Self {
        let layer = &problem.layers[index];
        let rows = match save {
            true => problem.rows(),
            false => problem.batch_size(),
        };
        let room = |wanted: bool, size: usize| Buffer::new(if wanted { rows * size } else { 0 });
        let of_state = |wanted: bool, size: usize| room(wanted && !problem.histories, size);
        let is_output = problem.is_output(index, StatePart::Hidden);
        let (d_input, units) = (layer.d_input, layer.d_hidden);
        let layout = Layout::tiles(&Columns::gates(4, units, isa.lanes()), rows);
        let tiles = || Buffer::new(layout.size);
        let of_bias = match layer.bias {
            true => tiles(),
            false => Buffer::default(),
        };
        Self {
            layout,
            adapt_gates: room(true, 4 * layer.d_adapt),
            adapt_cells: of_state(save, layer.d_adapt),
            // Always all rows: the workers read z while they write z'.
            z: Buffer::new(match problem.histories {
                true => 0,
                false => problem.rows() * layer.d_adapt,
            }),
            policy_scales: [room(true, d_input), room(true, units)],
            policy_gates: [tiles(), tiles(), of_bias],
            scaled: [room(true, d_input), room(true, units)],
            from: [tiles(), tiles()],
            gates: tiles(),
            cells: of_state(save, units),
            hidden: of_state(save && !is_output, units),
        }
    }
}

/// The destinations of the quantities of a layer.
pub struct Tracks {
    pub adapt_gates: Track,
    pub adapt_cells: Track,
    pub z: Track,
    pub policy_scales: [Track; 2],
    pub policy_gates: [Tiles; 3],
    pub scaled: [Track; 2],
    pub from: [Tiles; 2],
    pub gates: Tiles,
    pub cells: Track,
    /// y; top layer only.
    pub output: Option<Track>,
    pub hidden: Track,
}

/// The context in which a layer's destinations are chosen.
pub struct Place<'a> {
    pub problem: &'a AdaptiveProblem,
    /// The layer.
    pub index: usize,
    /// Whether tensors are saved for a backward.
    pub save: bool,
    /// The output: y of all rows, and the states after it.
    pub output: *mut f32,
}

impl Place<'_> {
    /// The destinations of the quantities of the layer.
    pub fn tracks(&self, saved: &mut SavedLayer) -> Tracks {
        let (problem, save) = (self.problem, self.save);
        let layer = &problem.layers[self.index];
        let (d_hidden, d_adapt) = (layer.d_hidden, layer.d_adapt);
        let track = |buffer: &mut Buffer, stride: usize| {
            let ptr = buffer.as_mut_ptr();
            let rows = Rows { ptr, stride };
            Track { rows, all: save }
        };
        let rows_of_both = |buffers: &mut [Buffer; 2]| {
            let [input, hidden] = buffers;
            [track(input, layer.d_input), track(hidden, d_hidden)]
        };
        let layout = saved.layout;
        let tiles = |buffer: &mut Buffer| Tiles {
            ptr: buffer.as_mut_ptr(),
            layout,
            all: save,
        };
        let top = self.index + 1 == problem.layers.len();
        let of_output = Track {
            rows: Rows {
                ptr: self.output,
                stride: problem.d_output(),
            },
            all: true,
        };
        let z = Track {
            all: true,
            ..track(&mut saved.z, d_adapt)
        };
        let masked = problem.has(MaskPlace::Hidden);
        Tracks {
            adapt_gates: track(&mut saved.adapt_gates, 4 * d_adapt),
            adapt_cells: self.of_state(StatePart::AdaptCell, &mut saved.adapt_cells),
            z: self.given_out(StatePart::Z).unwrap_or(z),
            policy_scales: rows_of_both(&mut saved.policy_scales),
            policy_gates: saved.policy_gates.each_mut().map(tiles),
            scaled: rows_of_both(&mut saved.scaled),
            from: saved.from.each_mut().map(tiles),
            gates: tiles(&mut saved.gates),
            cells: self.of_state(StatePart::Cell, &mut saved.cells),
            output: top.then_some(of_output),
            hidden: match top && !masked {
                true => of_output,
                false => self.of_state(StatePart::Hidden, &mut saved.hidden),
            },
        }
    }

    /// The destination of a part of the state after each step: the output, if it contains that part;
    /// otherwise the saved buffer, or the memory of the final states.
    fn of_state(&self, part: StatePart, buffer: &mut Buffer) -> Track {
        let problem = self.problem;
        let own = match self.save {
            true => Track {
                rows: Rows {
                    ptr: buffer.as_mut_ptr(),
                    stride: problem.part_size(self.index, part),
                },
                all: true,
            },
            false => {
                let last = self
                    .output
                    .wrapping_add(problem.rows() * problem.d_output());
                Track {
                    rows: Rows {
                        ptr: last.wrapping_add(problem.state_part(self.index, part)),
                        stride: problem.state_size(),
                    },
                    all: false,
                }
            }
        };
        self.given_out(part).unwrap_or(own)
    }

    /// The position in the output of a part of the state after each step, if the output contains it.
    fn given_out(&self, part: StatePart) -> Option<Track> {
        let start = self.problem.history(self.index, part)?;
        let rows = Rows {
            ptr: self.output.wrapping_add(start),
            stride: self.problem.part_size(self.index, part),
        };
        Some(Track { rows, all: true })
    }
}

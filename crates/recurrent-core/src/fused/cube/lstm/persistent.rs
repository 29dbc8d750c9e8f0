//! All steps in one launch, where R fits into the shared memory of a cube.

use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::Call;
use crate::fused::cube::buffer::arg;
use crate::fused::cube::device::{by_rows, is_processor};
use crate::fused::cube::pointwise::{MaskKinds, steps, steps_back};
use crate::fused::problem::Part;

/// Units of a cube come in multiples of this: what runs together on most GPUs.
const TOGETHER: usize = 32;

/// A call whose steps run in one launch.
pub struct Persistent {
    /// The first row of each step, the number of rows, then the steps of each sequence.
    starts: BufferArg,
    per_step: MaskKinds,
    threads: usize,
}

impl Persistent {
    /// None where a step needs or gives more than the kernel has, R is too large, there is one step only, or units
    /// are threads of the machine.
    pub fn new(call: &Call<'_>) -> Option<Self> {
        let (problem, kind) = (call.problem, call.kind);
        let (d_hidden, width) = (problem.d_hidden, problem.width());
        let more = kind.by_row() || kind.projected || kind.full || !problem.rounds.is_empty();
        if more || problem.histories || problem.counts.len() < 2 {
            return None;
        }
        let like = *call.parts.of(Part::Input);
        if is_processor(like) {
            return None;
        }
        let hardware = &like.client.properties().hardware;
        let needed = (d_hidden * width + width.max(d_hidden)) * size_of::<f32>();
        let threads = d_hidden.next_multiple_of(TOGETHER);
        if needed > hardware.max_shared_memory_size
            || threads > hardware.max_units_per_cube as usize
        {
            return None;
        }
        let mut starts: Vec<u32> = call.offsets.iter().map(|&row| row as u32).collect();
        let steps_of = |b: usize| problem.counts.partition_point(|&count| count > b);
        starts.extend((0..problem.batch_size()).map(|b| steps_of(b) as u32));
        let handle = like.client.create_from_slice(u32::as_bytes(&starts));
        let has = |part: Part| problem.per_step.has(part);
        Some(Self {
            // SAFETY: the buffer has just been made of these values.
            starts: unsafe { BufferArg::from_raw_parts(handle, starts.len()) },
            per_step: MaskKinds {
                candidate: has(Part::MaskCandidate),
                cell: has(Part::MaskCell),
                hidden: has(Part::MaskHidden),
                update_cell: has(Part::UpdateCell),
                update_hidden: has(Part::UpdateHidden),
            },
            threads,
        })
    }

    /// The buffers are those of [`steps`](crate::fused::cube::pointwise::steps).
    pub fn forward(
        self,
        call: &Call<'_>,
        projected: &CubeTensor,
        [cell, hidden, out, tape, before]: [&CubeTensor; 5],
    ) {
        let problem = call.problem;
        let (cubes, units) = by_rows(problem.batch_size(), self.threads);
        steps::launch(
            &projected.client,
            cubes,
            units,
            1,
            arg(projected, 1),
            arg(call.parts.of(Part::WeightHidden), 1),
            self.starts,
            arg(&call.vectors, 1),
            arg(&call.masks.values, 1),
            arg(cell, 1),
            arg(hidden, 1),
            arg(out, 1),
            arg(tape, 1),
            arg(before, 1),
            call.place(0, 0, 0, problem.d_hidden, 1, &call.masks),
            problem.counts.len() as u32,
            call.kind,
            self.per_step,
            problem.d_hidden,
        );
    }

    /// The buffers are those of [`steps_back`](crate::fused::cube::pointwise::steps_back).
    pub fn backward(
        self,
        call: &Call<'_>,
        [grad_out, tape]: [&CubeTensor; 2],
        [grad_hidden, direct, grad_cell, grad_preact, left, products]: [&CubeTensor; 6],
    ) {
        let problem = call.problem;
        let (cubes, units) = by_rows(problem.batch_size(), self.threads);
        steps_back::launch(
            &grad_out.client,
            cubes,
            units,
            1,
            arg(grad_out, 1),
            arg(call.parts.of(Part::WeightHidden), 1),
            self.starts,
            arg(tape, 1),
            arg(call.parts.of(Part::Cell), 1),
            arg(&call.vectors, 1),
            arg(&call.masks.values, 1),
            arg(grad_hidden, 1),
            arg(direct, 1),
            arg(grad_cell, 1),
            arg(grad_preact, 1),
            arg(left, 1),
            arg(products, 1),
            call.place(0, 0, 0, problem.d_hidden, 1, &call.masks),
            problem.counts.len() as u32,
            call.kind,
            self.per_step,
            problem.d_hidden,
        );
    }
}

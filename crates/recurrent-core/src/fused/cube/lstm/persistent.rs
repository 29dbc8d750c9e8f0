//! All steps in one launch, where R fits into the shared memory of a cube.

use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::Call;
use super::buffers::{Grads, State};
use crate::fused::cube::buffer::arg;
use crate::fused::cube::device::{by_rows, is_processor};
use crate::fused::cube::pointwise::{steps, steps_back};
use crate::fused::cube::step::Direction;
use crate::fused::problem::Part;

/// Units of a cube come in multiples of this: a warp of most GPUs.
const TOGETHER: usize = 32;

/// A call whose steps run in one launch.
pub struct Persistent {
    /// The first row of each step, the number of rows, then the steps of each sequence.
    starts: BufferArg,
    threads: usize,
}

impl Persistent {
    /// None where the kernel lacks an option of the call, R is too large for shared memory, there is one step
    /// only, or units are threads of the operating system.
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
        Some(Self {
            // SAFETY: the buffer has just been made of these values.
            starts: unsafe { BufferArg::from_raw_parts(handle, starts.len()) },
            threads,
        })
    }

    /// All steps forward.
    pub fn forward(self, call: &Call<'_>, projected: &CubeTensor, state: &State) {
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
            call.buffers(1),
            state.buffers(1),
            call.scalars(0, Direction::Forward, &call.cell, 1),
            problem.counts.len() as u32,
            call.kind,
            problem.masks,
            problem.d_hidden,
        );
    }

    /// All steps backward.
    ///
    /// # Arguments
    /// * `grad_out` - of the output
    /// * `rows` - the saved ones
    /// * `grad_hidden` - ∂h of the last steps on entry, ∂h_0 on return but for what zoneout passes on
    pub fn backward(
        self,
        call: &Call<'_>,
        grad_out: &CubeTensor,
        rows: &CubeTensor,
        grad_hidden: &CubeTensor,
        grads: &Grads,
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
            call.saved_buffers(rows, 1),
            call.buffers(1),
            arg(grad_hidden, 1),
            grads.buffers(1),
            call.scalars(0, Direction::Backward, &call.cell, 1),
            problem.counts.len() as u32,
            call.kind,
            problem.masks,
            problem.d_hidden,
        );
    }
}

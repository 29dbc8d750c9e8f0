//! The decisions that a backward makes before it allocates buffers, and its buffers.

use alloc::vec::Vec;

use super::super::{Gradient, Reading};
use crate::fused::cpu::buffer::{Buffer, unset};
use crate::fused::cpu::driver::{CHUNK_ROWS, Group, PACK_BACK_FROM};
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::simd::Isa;
use crate::fused::problem::gru::{GATES, GruProblem};
use crate::fused::problem::{Key, Part, Parts};

/// How a backward runs.
pub struct Plan {
    pub workers: usize,
    /// Number of shares per worker.
    pub each: usize,
    /// The first row of each step.
    pub offsets: Vec<usize>,
    /// Groups of sequences; empty if the workers share the units.
    pub groups: Vec<Group>,
    /// Columns of the gates.
    pub columns: Columns,
    /// Layout of the gates and of ∂(x·W).
    pub layout: Layout,
    /// Columns of the gates in the first product with R, and of its gradient.
    pub product_columns: Columns,
    pub product_layout: Layout,
    /// How the steps read R.
    pub steps: Reading,
    /// Whether W is read more than once.
    pub pack_input: bool,
}

impl Plan {
    pub fn new(isa: Isa, workers: usize, problem: &GruProblem, call: &Gradient<'_>) -> Self {
        let (batch, rows) = (problem.batch_size(), problem.rows());
        let offsets = problem.offsets();
        let bytes = problem.recurrent_bytes();
        let groups = Group::cut(workers, &problem.counts, &offsets, bytes);
        let (layout, lanes) = (call.saved.layout, isa.lanes());
        let tiled = layout.is_tiled();
        let units = problem.d_hidden;
        let gates = if problem.reset_after {
            GATES
        } else {
            GATES - 1
        };
        let product_columns = Columns::gates(gates, units, lanes);
        Self {
            workers,
            each: problem.work().shares_each(workers),
            columns: Columns::gates(GATES, units, lanes),
            product_layout: match tiled {
                true => Layout::tiles(&product_columns, rows),
                false => Layout::row_major(&product_columns, units, rows),
            },
            product_columns,
            steps: Reading {
                lanes,
                // The products of the steps are shared by all workers, or done by one.
                sharers: if groups.is_empty() { workers } else { 1 },
                pack_hidden: batch > 1 || problem.counts.len() >= PACK_BACK_FROM,
                pack_input: false,
                back: Some(tiled),
            },
            pack_input: (rows > CHUNK_ROWS || tiled) && call.wanted.has(Part::Input),
            layout,
            offsets,
            groups,
        }
    }

    /// How the weights are read when all workers work together.
    pub fn shared_weights(&self) -> Reading {
        Reading {
            pack_input: self.pack_input,
            pack_hidden: self.steps.pack_hidden && self.groups.is_empty(),
            ..self.steps
        }
    }
}

/// Buffers that a backward writes in addition to the wanted gradients.
pub struct Buffers {
    pub preact: Buffer,
    pub product: Buffer,
    pub candidate: Buffer,
    pub inner: Buffer,
}

/// The addresses of these buffers.
#[derive(Clone, Copy)]
pub struct Pointers {
    /// `[B, H]`: ∂h' from later steps.
    pub hidden: *mut f32,
    /// `[N, 3H]`: ∂(x·W + b)
    pub preact: *mut f32,
    /// `[N, 3H]`: ∂(h·R + b_hn); `[N, 2H]` if the reset gate acts before the product.
    pub product: *mut f32,
    /// `[N, H]`: ∂((r ⊙ h)·R_n), if the reset gate acts before the product.
    pub candidate: *mut f32,
    /// `[B, H]`: ∂(r ⊙ h), if the reset gate acts before the product.
    pub inner: *mut f32,
}

impl Buffers {
    pub fn new(plan: &Plan, problem: &GruProblem) -> Self {
        let gates = |layout: &Layout, columns: &Columns| {
            let mut buffer = Buffer::new(layout.size);
            layout.clear_padding(columns, &mut buffer);
            buffer
        };
        let halves = |rows: usize| match problem.reset_after {
            true => Buffer::default(),
            false => Buffer::new(rows * problem.d_hidden),
        };
        Self {
            preact: gates(&plan.layout, &plan.columns),
            product: gates(&plan.product_layout, &plan.product_columns),
            candidate: halves(problem.rows()),
            inner: halves(problem.batch_size()),
        }
    }

    pub fn pointers(&mut self, hidden: *mut f32) -> Pointers {
        Pointers {
            hidden,
            preact: self.preact.as_mut_ptr(),
            product: self.product.as_mut_ptr(),
            candidate: self.candidate.as_mut_ptr(),
            inner: self.inner.as_mut_ptr(),
        }
    }
}

/// The wanted gradients, except that of the initial state, and the transposed left factors of the wanted
/// weights.
pub struct Targets {
    pub grads: Parts<Vec<f32>>,
    /// x `[I, N]`
    pub input: Buffer,
    /// h before each row `[H, N]`
    pub hidden: Buffer,
    /// r ⊙ h `[H, N]`, if the reset gate acts before the product.
    pub inner: Buffer,
}

/// The addresses of these buffers.
pub struct TargetPointers {
    pub grads: Parts<*mut f32>,
    pub input: *mut f32,
    pub hidden: *mut f32,
    pub inner: *mut f32,
}

impl Targets {
    pub fn new(problem: &GruProblem, call: &Gradient<'_>) -> Self {
        let mut grads = Parts::default();
        for key in call.wanted.keys() {
            let room = |values: &&[f32]| match key {
                Key::Part(Part::Bias | Part::BiasHidden) => vec![0.0; values.len()], // accumulated
                _ => unset(values.len()),
            };
            if let Key::Part(Part::Hidden | Part::Mask(_)) = key {
                continue;
            }
            grads.set(key, call.parts.get(key).map(room));
        }
        let rows = problem.rows();
        let factor =
            |wanted: bool, features: usize| Buffer::new(if wanted { rows * features } else { 0 });
        let of_hidden = grads.has(Part::WeightHidden);
        Self {
            input: factor(grads.has(Part::WeightInput), problem.d_input),
            hidden: factor(of_hidden, problem.d_hidden),
            inner: factor(of_hidden && !problem.reset_after, problem.d_hidden),
            grads,
        }
    }

    pub fn pointers(&mut self) -> TargetPointers {
        let mut grads = Parts::default();
        for key in self.grads.keys() {
            grads.set(key, self.grads.get_mut(key).map(Vec::as_mut_ptr));
        }
        TargetPointers {
            grads,
            input: self.input.as_mut_ptr(),
            hidden: self.hidden.as_mut_ptr(),
            inner: self.inner.as_mut_ptr(),
        }
    }
}

//! The loop over steps, backward, and the gradients that are products and sums over all rows.

use burn_cubecl::tensor::CubeTensor;

use super::buffers::Grads;
use super::persistent::Persistent;
use super::rounds::RoundsBack;
use super::{Call, Saved};
use crate::fused::cube::buffer::{
    RowsOf, arg, copy, copy_rows, empty, nothing, piece, reshaped, sum_rows, transposed, zeros,
};
use crate::fused::cube::device::{cubes, elementwise};
use crate::fused::cube::pointwise::{GradBuffersLaunch, project_back, step_back};
use crate::fused::cube::product::{product, times};
use crate::fused::cube::step::Direction;
use crate::fused::problem::{Part, Parts};

/// The projection, backward.
struct Projection {
    /// Pᵀ
    matrix: CubeTensor,
    /// ∂ of what it gave, of all rows and of a step.
    grad: CubeTensor,
    left: CubeTensor,
    /// ∂ of what it projected, of a step.
    from: CubeTensor,
    /// In place of ∂h past zoneout, which the kernel of the cell does not write.
    unused: CubeTensor,
}

/// The gradients of a call.
///
/// # Arguments
/// * `tensors` - saved by the forward
/// * `grad` - of the output, of its layout
/// * `wanted` - whose gradients are asked for
pub fn backward(
    call: &Call<'_>,
    tensors: &[CubeTensor],
    grad: &CubeTensor,
    wanted: &Parts<()>,
) -> Parts<CubeTensor> {
    let backward = Backward::new(call, Saved::of(call, tensors), grad);
    match Persistent::new(call) {
        Some(persistent) => {
            let (rows, hidden) = (backward.saved.rows, &backward.hidden);
            persistent.backward(call, grad, rows, hidden, &backward.grads);
        }
        None => {
            for step in (0..call.problem.counts.len()).rev() {
                backward.step(step);
            }
        }
    }
    backward.gradients(wanted)
}

/// A backward: what its steps read and write.
struct Backward<'a> {
    call: &'a Call<'a>,
    saved: Saved<'a>,
    /// The gradient of the output.
    given: &'a CubeTensor,
    /// ∂h' from later steps `[B, d_output]`.
    hidden: CubeTensor,
    /// ∂c through full peepholes `[B, H]`.
    through: CubeTensor,
    grads: Grads,
    /// With LN_h, ∂(h·R + b_h) of all rows `[N, G·H]`.
    product: CubeTensor,
    /// With it and full peepholes, ∂z of a step `[B, G·H]`.
    left_full: CubeTensor,
    /// Rᵀ
    weight_hidden: CubeTensor,
    /// Vᵀ
    peephole_full: Option<CubeTensor>,
    projection: Option<Projection>,
    rounds: Option<RoundsBack<'a>>,
}

impl<'a> Backward<'a> {
    fn new(call: &'a Call<'a>, saved: Saved<'a>, given: &'a CubeTensor) -> Self {
        let (problem, parts, kind) = (call.problem, &call.parts, call.kind);
        let (rows, batch) = (problem.rows(), problem.batch_size());
        let (d_hidden, d_output, width) = (problem.d_hidden, problem.d_output, problem.width());
        let like = *parts.of(Part::Input);
        let some = |is: bool, shape: [usize; 2]| match is {
            true => empty(like, shape),
            false => nothing(like),
        };
        let zeroed = |is: bool, shape: [usize; 2]| match is {
            true => zeros(like, shape),
            false => nothing(like),
        };
        // What later steps pass back; a sequence that ends earlier begins with the gradient of its last
        // state, since nothing has written its rows by then.
        let hidden = empty(like, [batch, d_output]);
        let cell = empty(like, [batch, d_hidden]);
        copy(given, rows * d_output, &hidden, 0, batch * d_output);
        let cells = (rows + batch) * d_output;
        copy(given, cells, &cell, 0, batch * d_hidden);
        let normed = kind.norm_hidden.is_some();
        Self {
            hidden,
            through: zeroed(kind.full, [batch, d_hidden]),
            grads: Grads {
                direct: zeroed(problem.masks.update_hidden.is_some(), [batch, d_output]),
                cell,
                preact: empty(like, [rows, width]),
                left: empty(like, [batch, width]),
                products: some(kind.products() > 0, [rows, kind.products() * d_hidden]),
            },
            product: some(normed, [rows, width]),
            left_full: some(normed && kind.full, [batch, width]),
            weight_hidden: transposed(parts.of(Part::WeightHidden)),
            peephole_full: parts.get(Part::PeepholeFull).map(|&v| transposed(v)),
            projection: parts.get(Part::Projection).map(|&matrix| Projection {
                matrix: transposed(matrix),
                grad: empty(like, [rows, d_output]),
                left: empty(like, [batch, d_output]),
                from: empty(like, [batch, d_hidden]),
                unused: nothing(like),
            }),
            rounds: RoundsBack::new(call, saved.rounds, saved.before),
            call,
            saved,
            given,
        }
    }

    /// One step back.
    fn step(&self, step: usize) {
        let (call, problem) = (self.call, self.call.problem);
        let (count, d_hidden) = (problem.counts[step], problem.d_hidden);
        if let Some(projection) = &self.projection {
            self.project_back(projection, step);
        }
        if problem.histories {
            let rows_at = |tensor, start| RowsOf {
                tensor,
                start,
                stride: d_hidden,
            };
            let start = problem.cells_start() + call.offsets[step] * d_hidden;
            let (from, to) = (rows_at(self.given, start), rows_at(&self.grads.cell, 0));
            copy_rows(from, to, count, d_hidden, true);
        }
        self.cell_back(step);
        self.pass_back(step);
    }

    /// Back through the projection and the masks on h.
    fn project_back(&self, projection: &Projection, step: usize) {
        let (call, problem) = (self.call, self.call.problem);
        let (count, d_output) = (problem.counts[step], problem.d_output);
        let like = self.given;
        let lanes = call.projected.lanes;
        let (cubes, units) = elementwise(like, count * d_output / lanes);
        project_back::launch(
            &like.client,
            cubes,
            units,
            lanes,
            arg(self.given, lanes),
            arg(&self.hidden, lanes),
            arg(&call.projected.masks.values, lanes),
            arg(&self.grads.direct, lanes),
            arg(&projection.grad, lanes),
            arg(&projection.left, lanes),
            call.scalars(step, Direction::Backward, &call.projected, lanes),
            call.projected_masks,
        );
        product(
            reshaped(projection.left.clone(), [count, d_output]),
            projection.matrix.clone(),
            reshaped(projection.from.clone(), [count, problem.d_hidden]),
        );
    }

    /// Back through the cell.
    fn cell_back(&self, step: usize) {
        let (call, problem, kind) = (self.call, self.call.problem, self.call.kind);
        let (count, like) = (problem.counts[step], self.given);
        let lanes = call.cell.lanes;
        let (cubes, units) = cubes(like, count, problem.d_hidden / lanes, kind.threads);
        // With a projection the kernel of the cell gets all of ∂h̃ from it.
        let (cell_grad, buffers) = match &self.projection {
            Some(projection) => {
                let buffers = GradBuffersLaunch {
                    direct: arg(&projection.unused, lanes),
                    ..self.grads.buffers(lanes)
                };
                (&projection.from, buffers)
            }
            None => (&self.hidden, self.grads.buffers(lanes)),
        };
        step_back::launch(
            &like.client,
            cubes,
            units,
            lanes,
            arg(self.given, lanes),
            arg(cell_grad, lanes),
            arg(&self.through, lanes),
            call.saved_buffers(self.saved.rows, lanes),
            call.buffers(lanes),
            buffers,
            arg(&self.product, lanes),
            arg(&self.left_full, lanes),
            call.scalars(step, Direction::Backward, &call.cell, lanes),
            kind,
        );
    }

    /// From ∂z of a step to ∂h, and to ∂c through full peepholes.
    fn pass_back(&self, step: usize) {
        let problem = self.call.problem;
        let (count, width) = (problem.counts[step], problem.width());
        let left = &self.grads.left;
        product(
            reshaped(left.clone(), [count, width]),
            self.weight_hidden.clone(),
            reshaped(self.hidden.clone(), [count, problem.d_output]),
        );
        if let Some(rounds) = &self.rounds {
            rounds.run(self.call, step, left, &self.hidden);
        }
        if let Some(matrix) = &self.peephole_full {
            let left = match self.call.kind.norm_hidden {
                Some(_) => &self.left_full,
                None => left,
            };
            product(
                reshaped(left.clone(), [count, width]),
                matrix.clone(),
                reshaped(self.through.clone(), [count, problem.d_hidden]),
            );
        }
    }

    /// The gradients after all steps.
    fn gradients(&self, wanted: &Parts<()>) -> Parts<CubeTensor> {
        let parts = &self.call.parts;
        let mut grads = Parts::default();
        let mut set = |part: Part, grad: &dyn Fn() -> CubeTensor| {
            if wanted.has(part) && parts.has(part) {
                grads.set(part, grad());
            }
        };
        self.of_states(&mut set);
        self.of_matrices(&mut set);
        self.of_vectors(wanted, &mut set);
        if let Some(rounds) = &self.rounds {
            rounds.gradients(wanted, &mut grads);
        }
        grads
    }

    /// Those of the initial state.
    fn of_states(&self, set: &mut SetGradient<'_>) {
        let added =
            |a: &CubeTensor, b: &CubeTensor| burn_cubecl::ops::numeric::add(a.clone(), b.clone());
        set(
            Part::Hidden,
            &|| match self.call.problem.masks.update_hidden {
                Some(_) => added(&self.hidden, &self.grads.direct),
                None => self.hidden.clone(),
            },
        );
        set(Part::Cell, &|| match self.call.kind.full {
            true => added(&self.grads.cell, &self.through),
            false => self.grads.cell.clone(),
        });
    }

    /// ∂ of h·R + b_h of all rows.
    fn recurrent(&self) -> &CubeTensor {
        match self.call.kind.norm_hidden {
            Some(_) => &self.product,
            None => &self.grads.preact,
        }
    }

    /// Those of the input and the matrices: products over all rows.
    fn of_matrices(&self, set: &mut SetGradient<'_>) {
        let (parts, preact) = (&self.call.parts, &self.grads.preact);
        // What W and R multiply.
        let (x, h) = match &self.rounds {
            Some(rounds) => rounds.last(),
            None => (*parts.of(Part::Input), self.saved.before),
        };
        if self.rounds.is_none() {
            set(Part::Input, &|| match parts.get(Part::WeightInput) {
                Some(&weight) => times(preact.clone(), transposed(weight)),
                None => preact.clone(),
            });
        }
        set(Part::WeightInput, &|| times(transposed(x), preact.clone()));
        set(Part::WeightHidden, &|| {
            times(transposed(h), self.recurrent().clone())
        });
        if let Some(cells) = self.saved.cells_before {
            set(Part::PeepholeFull, &|| {
                times(transposed(cells), preact.clone())
            });
        }
        if let (Some(projection), Some(unprojected)) = (&self.projection, self.saved.unprojected) {
            set(Part::Projection, &|| {
                times(transposed(unprojected), projection.grad.clone())
            });
        }
    }

    /// Those of vectors: sums over all rows.
    fn of_vectors(&self, wanted: &Parts<()>, set: &mut SetGradient<'_>) {
        let (kind, d_hidden) = (self.call.kind, self.call.problem.d_hidden);
        set(Part::BiasHidden, &|| sum_rows(self.recurrent().clone()));
        if wanted.has(Part::Bias) || wanted.has(Part::NormHiddenShift) {
            let sum = sum_rows(self.grads.preact.clone());
            set(Part::Bias, &|| sum.clone());
            set(Part::NormHiddenShift, &|| sum.clone());
        }
        let hidden_at = kind.products_hidden_at();
        let cell_at = kind.products_cell_at();
        let vectors = [
            (Part::PeepholeFirst, 0, 1),
            (Part::PeepholeSecond, 1, 1),
            (Part::PeepholeOutput, kind.mixing_gates(), 1),
            (Part::NormHiddenGain, hidden_at, kind.gates()),
            (Part::NormCellGain, cell_at, 1),
            (Part::NormCellShift, cell_at + 1, 1),
        ];
        if vectors.iter().any(|&(part, ..)| wanted.has(part)) {
            let sums = sum_rows(self.grads.products.clone());
            for (part, start, pieces) in vectors {
                set(part, &|| piece(&sums, start * d_hidden, pieces * d_hidden));
            }
        }
    }
}

/// Sets the gradient of a part, if it is asked for: computes it only then.
type SetGradient<'f> = dyn FnMut(Part, &dyn Fn() -> CubeTensor) + 'f;

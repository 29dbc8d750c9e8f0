//! The rounds of the Mogrifier, which gate x and h by each other before a step.
//!
//! x of a step then depends on the state, so that x·W is a product per step. A round is a product (two
//! of low rank) and a kernel, both ways. Round r gates x where r is even, h where it is odd; its product
//! is with the other of the two as the previous round has changed it.

use alloc::vec::Vec;

use burn_cubecl::tensor::CubeTensor;

use super::Call;
use crate::fused::cube::buffer::{
    arg, empty, nothing, reshaped, sum_rows, transposed, vector_size,
};
use crate::fused::cube::device::elementwise;
use crate::fused::cube::pointwise::rounds::RoundScalarsLaunch;
use crate::fused::cube::pointwise::{accumulate, round, round_back};
use crate::fused::cube::product::{product, times};
use crate::fused::problem::{Key, Part, Parts, RoundPart};

/// What the forward of a round saves of all rows: σ, and what the round gave.
const SAVED: usize = 2;

/// The shapes of what the rounds save.
pub fn saved_shapes(
    rounds: usize,
    rows: usize,
    d_input: usize,
    d_output: usize,
) -> Vec<[usize; 2]> {
    let each = |round| [rows, if round % 2 == 0 { d_input } else { d_output }];
    (0..rounds).flat_map(|round| [each(round); SAVED]).collect()
}

/// The matrix of a round, and its right factor.
struct Matrix<'a> {
    left: &'a CubeTensor,
    right: Option<&'a CubeTensor>,
    bias: Option<&'a CubeTensor>,
    /// Features before and after.
    from: usize,
    to: usize,
    /// Width of vectors of `to`.
    lanes: usize,
}

impl<'a> Matrix<'a> {
    fn all(call: &Call<'a>) -> Vec<Self> {
        let problem = call.problem;
        let each = |index: usize| {
            let part = |part| call.parts.get(Key::Round(index, part)).copied();
            let left = *call.parts.of(Key::Round(index, RoundPart::Matrix));
            let (from, to) = match index % 2 {
                0 => (problem.d_output, problem.d_input),
                _ => (problem.d_input, problem.d_output),
            };
            Matrix {
                left,
                right: part(RoundPart::Right),
                bias: part(RoundPart::Bias),
                from,
                to,
                lanes: vector_size(left, &[to]),
            }
        };
        (0..problem.rounds.len()).map(each).collect()
    }
}

/// Columns of the left factor.
fn rank(matrix: &Matrix<'_>) -> usize {
    matrix.left.meta.shape()[1]
}

/// The rounds forward.
pub struct Rounds<'a> {
    matrices: Vec<Matrix<'a>>,
    /// What each round gives at a step `[B, to]`.
    given: Vec<CubeTensor>,
    /// The products `[B, to]`, and the inner ones of low rank.
    products: Vec<CubeTensor>,
    inner: Vec<CubeTensor>,
    saved: Vec<CubeTensor>,
    unused: [CubeTensor; 3],
    /// x·W of a step `[B, G·H]`.
    pub projected: CubeTensor,
}

impl<'a> Rounds<'a> {
    /// None without rounds.
    pub fn new(call: &Call<'a>, saved: &[CubeTensor]) -> Option<Self> {
        let matrices = Matrix::all(call);
        let like = matrices.first()?.left;
        let batch = call.problem.batch_size();
        let buffer = |size: usize| empty(like, [batch, size]);
        Some(Self {
            given: matrices.iter().map(|matrix| buffer(matrix.to)).collect(),
            products: matrices.iter().map(|matrix| buffer(matrix.to)).collect(),
            inner: matrices.iter().map(|matrix| buffer(rank(matrix))).collect(),
            saved: saved.to_vec(),
            unused: [nothing(like), nothing(like), nothing(like)],
            projected: buffer(call.problem.width()),
            matrices,
        })
    }

    /// Runs the rounds of a step and x·W: gives the h that R multiplies.
    pub fn run(&self, call: &Call<'_>, step: usize, hidden: &CubeTensor) -> CubeTensor {
        let problem = call.problem;
        let (count, offset) = (problem.counts[step], call.offsets[step]);
        let input = *call.parts.of(Part::Input);
        for (index, matrix) in self.matrices.iter().enumerate() {
            let other = match index {
                0 => hidden,
                _ => &self.given[index - 1],
            };
            let other = reshaped(other.clone(), [count, matrix.from]);
            let result = reshaped(self.products[index].clone(), [count, matrix.to]);
            match matrix.right {
                None => product(other, matrix.left.clone(), result),
                Some(right) => {
                    let inner = reshaped(self.inner[index].clone(), [count, rank(matrix)]);
                    product(other, matrix.left.clone(), inner.clone());
                    product(inner, right.clone(), result);
                }
            }
            let (value, value_row) = match index {
                0 => (input, offset),
                1 => (hidden, 0),
                _ => (&self.given[index - 2], 0),
            };
            let (gates, values) = match self.saved.is_empty() {
                true => (&self.unused[0], &self.unused[1]),
                false => (&self.saved[SAVED * index], &self.saved[SAVED * index + 1]),
            };
            let lanes = matrix.lanes;
            let (cubes, units) = elementwise(input, count * matrix.to / lanes);
            round::launch(
                &input.client,
                cubes,
                units,
                lanes,
                arg(&self.products[index], lanes),
                arg(matrix.bias.unwrap_or(&self.unused[2]), lanes),
                arg(value, lanes),
                arg(&self.given[index], lanes),
                arg(gates, lanes),
                arg(values, lanes),
                RoundScalarsLaunch {
                    units: (matrix.to / lanes) as u32,
                    rows: count as u32,
                    row: offset as u32,
                    value_row: value_row as u32,
                },
                matrix.bias.is_some(),
                call.kind.save,
            );
        }
        let last = self.matrices.len() - 1;
        let x = &self.given[last - last % 2];
        product(
            reshaped(x.clone(), [count, problem.d_input]),
            (*call.parts.of(Part::WeightInput)).clone(),
            reshaped(self.projected.clone(), [count, problem.width()]),
        );
        match last {
            0 => hidden.clone(),
            _ => self.given[last - 1 + last % 2].clone(),
        }
    }
}

/// The rounds backward.
pub struct RoundsBack<'a> {
    matrices: Vec<Matrix<'a>>,
    saved: &'a [CubeTensor],
    /// h before each row.
    before: &'a CubeTensor,
    /// ∂x `[B, I]`, of all rows `[N, I]`.
    grad_x: CubeTensor,
    grad_input: CubeTensor,
    /// ∂p of all rows, of a step, and its product with the transposed matrix.
    grad_products: Vec<CubeTensor>,
    left: Vec<CubeTensor>,
    inner: Vec<CubeTensor>,
    pending: Vec<CubeTensor>,
    weight_input: CubeTensor,
    unused: [CubeTensor; 2],
}

impl<'a> RoundsBack<'a> {
    /// None without rounds.
    ///
    /// # Arguments
    /// * `saved` - of the rounds
    pub fn new(call: &Call<'a>, saved: &'a [CubeTensor], before: &'a CubeTensor) -> Option<Self> {
        let matrices = Matrix::all(call);
        let like = matrices.first()?.left;
        let problem = call.problem;
        let (rows, batch) = (problem.rows(), problem.batch_size());
        let each = |count: usize, size: fn(&Matrix<'_>) -> usize| {
            let made = matrices.iter().map(|m| empty(like, [count, size(m)]));
            made.collect::<Vec<_>>()
        };
        Some(Self {
            grad_x: empty(like, [batch, problem.d_input]),
            grad_input: empty(like, [rows, problem.d_input]),
            grad_products: each(rows, |matrix| matrix.to),
            left: each(batch, |matrix| matrix.to),
            inner: each(batch, rank),
            pending: each(batch, |matrix| matrix.from),
            weight_input: transposed(call.parts.of(Part::WeightInput)),
            unused: [nothing(like), nothing(like)],
            matrices,
            saved,
            before,
        })
    }

    /// Back through the rounds of a step.
    ///
    /// # Arguments
    /// * `grad_preact` - ∂z of the step `[B, G·H]`
    /// * `grad_hidden` - ∂ of the h that R multiplies on entry, of h on return `[B, d_output]`
    pub fn run(
        &self,
        call: &Call<'_>,
        step: usize,
        grad_preact: &CubeTensor,
        grad_hidden: &CubeTensor,
    ) {
        let problem = call.problem;
        let (count, offset) = (problem.counts[step], call.offsets[step]);
        let input = *call.parts.of(Part::Input);
        product(
            reshaped(grad_preact.clone(), [count, problem.width()]),
            self.weight_input.clone(),
            reshaped(self.grad_x.clone(), [count, problem.d_input]),
        );
        let last = self.matrices.len() - 1;
        for (index, matrix) in self.matrices.iter().enumerate().rev() {
            let grad = match index % 2 {
                0 => &self.grad_x,
                _ => grad_hidden,
            };
            let pending = match index == last {
                true => &self.unused[0],
                false => &self.pending[index + 1],
            };
            let lanes = matrix.lanes;
            let (cubes, units) = elementwise(input, count * matrix.to / lanes);
            round_back::launch(
                &input.client,
                cubes,
                units,
                lanes,
                arg(pending, lanes),
                arg(&self.saved[SAVED * index], lanes),
                arg(self.value_before(call, index), lanes),
                arg(grad, lanes),
                arg(&self.grad_products[index], lanes),
                arg(&self.left[index], lanes),
                arg(
                    if index == 0 {
                        &self.grad_input
                    } else {
                        &self.unused[1]
                    },
                    lanes,
                ),
                RoundScalarsLaunch {
                    units: (matrix.to / lanes) as u32,
                    rows: count as u32,
                    row: offset as u32,
                    value_row: offset as u32,
                },
                index != last,
                index == 0,
            );
            let left = reshaped(self.left[index].clone(), [count, matrix.to]);
            let result = reshaped(self.pending[index].clone(), [count, matrix.from]);
            let back = transposed(matrix.left);
            match matrix.right {
                None => product(left, back, result),
                Some(right) => {
                    let inner = reshaped(self.inner[index].clone(), [count, rank(matrix)]);
                    product(left, transposed(right), inner.clone());
                    product(inner, back, result);
                }
            }
        }
        let lanes = call.projected.lanes;
        let vectors = count * problem.d_output / lanes;
        let (cubes, units) = elementwise(input, vectors);
        accumulate::launch(
            &input.client,
            cubes,
            units,
            lanes,
            arg(&self.pending[0], lanes),
            arg(grad_hidden, lanes),
            vectors as u32,
        );
    }

    /// What round `index` gates, of all rows.
    fn value_before<'s>(&'s self, call: &Call<'s>, index: usize) -> &'s CubeTensor {
        match index {
            0 => call.parts.of(Part::Input),
            1 => self.before,
            _ => &self.saved[SAVED * (index - 2) + 1],
        }
    }

    /// What the product of round `index` is with, of all rows.
    fn other_before(&self, index: usize) -> &CubeTensor {
        match index {
            0 => self.before,
            _ => &self.saved[SAVED * (index - 1) + 1],
        }
    }

    /// The x and h of all rows that W and R multiply.
    pub fn last(&self) -> (&CubeTensor, &CubeTensor) {
        let last = self.matrices.len() - 1;
        let value = |index: usize| &self.saved[SAVED * index + 1];
        match last {
            0 => (value(0), self.before),
            _ => (value(last - last % 2), value(last - 1 + last % 2)),
        }
    }

    /// The gradients of the input and of the rounds' weights.
    pub fn gradients(&self, wanted: &Parts<()>, grads: &mut Parts<CubeTensor>) {
        if wanted.has(Part::Input) {
            grads.set(Part::Input, self.grad_input.clone());
        }
        for (index, matrix) in self.matrices.iter().enumerate() {
            let all = &self.grad_products[index];
            let other = transposed(self.other_before(index));
            let mut set = |part: RoundPart, grad: &dyn Fn() -> CubeTensor| {
                let key = Key::Round(index, part);
                if wanted.has(key) {
                    grads.set(key, grad());
                }
            };
            match matrix.right {
                None => set(RoundPart::Matrix, &|| times(other.clone(), all.clone())),
                Some(right) => {
                    set(RoundPart::Matrix, &|| {
                        let through = times(all.clone(), transposed(right));
                        times(other.clone(), through)
                    });
                    set(RoundPart::Right, &|| {
                        // Not saved: one product of all rows gives it once more.
                        let inner = times(self.other_before(index).clone(), matrix.left.clone());
                        times(transposed(&inner), all.clone())
                    });
                }
            }
            if matrix.bias.is_some() {
                set(RoundPart::Bias, &|| sum_rows(all.clone()));
            }
        }
    }
}

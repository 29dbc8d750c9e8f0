//! The loop over steps, backward, and the gradients that are products and sums over all rows.

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::add;
use burn_cubecl::tensor::CubeTensor;

use super::{Call, Recurrent, columns, packed, rows_times};
use crate::fused::cube::buffer::{arg, copy, empty, piece, sum_rows, transposed, zeros};
use crate::fused::cube::device::elementwise;
use crate::fused::cube::pointwise::gru::{
    GruGivenBuffersLaunch, GruGradBuffersLaunch, GruSavedBuffersLaunch, mix_back, reset_back,
    step_back,
};
use crate::fused::cube::product::times;
use crate::fused::problem::{Part, Parts};

/// What the forward gave and saved.
pub struct Forward<'a> {
    /// The saved rows.
    pub saved: &'a CubeTensor,
    /// The output.
    pub output: &'a CubeTensor,
}

/// What all steps read and write.
struct Steps<'a, 'c> {
    call: &'a Call<'c>,
    forward: Forward<'a>,
    /// Of the output.
    grad: &'a CubeTensor,
    /// ∂h' from the product of the step after.
    hidden: CubeTensor,
    /// ∂h' that came through no product.
    direct: CubeTensor,
    /// ∂a of all rows.
    preact: CubeTensor,
    /// The left side of the product with Rᵀ, or R_rzᵀ.
    left: CubeTensor,
    /// h before each row.
    before: CubeTensor,
    recurrent: RecurrentBack,
}

/// What depends on where the reset gate acts.
#[allow(clippy::large_enum_variant)] // one per call
enum RecurrentBack {
    After {
        /// Rᵀ
        weight: CubeTensor,
        /// ∂(h·R) of all rows, b_hn included.
        product: CubeTensor,
    },
    Before {
        /// R_rzᵀ
        gates: CubeTensor,
        /// R_nᵀ
        candidate: CubeTensor,
        /// ∂a_n, the left side of the product with R_nᵀ.
        left: CubeTensor,
        /// ∂(r ⊙ h)
        grad_reset: CubeTensor,
        /// r ⊙ h of all rows.
        reset_hidden: CubeTensor,
    },
}

impl Steps<'_, '_> {
    fn given<N: Size>(&self) -> GruGivenBuffersLaunch<N> {
        let lanes = self.call.lanes;
        GruGivenBuffersLaunch {
            out: arg(self.grad, lanes),
            hidden: arg(&self.hidden, lanes),
        }
    }

    fn saved<N: Size>(&self) -> GruSavedBuffersLaunch<N> {
        let lanes = self.call.lanes;
        GruSavedBuffersLaunch {
            saved: arg(self.forward.saved, lanes),
            out: arg(self.forward.output, lanes),
            first_hidden: arg(self.call.parts.of(Part::Hidden), lanes),
            masks: arg(&self.call.masks, lanes),
        }
    }

    fn grads<N: Size>(&self) -> GruGradBuffersLaunch<N> {
        let lanes = self.call.lanes;
        GruGradBuffersLaunch {
            direct: arg(&self.direct, lanes),
            preact: arg(&self.preact, lanes),
            left: arg(&self.left, lanes),
            before: arg(&self.before, lanes),
        }
    }

    fn run(&self, index: usize) {
        let (call, kind, lanes) = (self.call, self.call.kind, self.call.lanes);
        let count = call.problem.counts[index];
        let client = &self.grad.client;
        let (cubes, units) = elementwise(self.grad, count * call.problem.d_hidden / lanes);
        match &self.recurrent {
            RecurrentBack::After { weight, product } => {
                step_back::launch(
                    client,
                    cubes,
                    units,
                    lanes,
                    self.given(),
                    self.saved(),
                    self.grads(),
                    arg(product, lanes),
                    call.scalars(index),
                    kind,
                );
                rows_times(count, &self.left, weight, &self.hidden);
            }
            RecurrentBack::Before {
                gates,
                candidate,
                left,
                grad_reset,
                reset_hidden,
            } => {
                mix_back::launch(
                    client,
                    cubes.clone(),
                    units,
                    lanes,
                    self.given(),
                    self.saved(),
                    self.grads(),
                    arg(left, lanes),
                    call.scalars(index),
                    kind,
                );
                rows_times(count, left, candidate, grad_reset);
                reset_back::launch(
                    client,
                    cubes,
                    units,
                    lanes,
                    arg(grad_reset, lanes),
                    arg(self.forward.saved, lanes),
                    self.grads(),
                    arg(reset_hidden, lanes),
                    call.scalars(index),
                    kind,
                );
                rows_times(count, &self.left, gates, &self.hidden);
            }
        }
    }

    /// ∂R
    fn weight_hidden(&self) -> CubeTensor {
        let before = transposed(&self.before);
        match &self.recurrent {
            RecurrentBack::After { product, .. } => times(before, product.clone()),
            RecurrentBack::Before { reset_hidden, .. } => {
                let d_hidden = self.call.problem.d_hidden;
                let [gates, candidate] = columns(&self.preact, d_hidden);
                let gates = times(before, gates);
                let candidate = times(transposed(reset_hidden), candidate);
                packed(&gates, &candidate, d_hidden)
            }
        }
    }
}

/// The gradients of a call.
///
/// # Arguments
/// * `grad` - of the output, of its layout
/// * `wanted` - whose gradients are asked for
pub fn backward(
    call: &Call<'_>,
    forward: Forward<'_>,
    grad: &CubeTensor,
    wanted: &Parts<()>,
) -> Parts<CubeTensor> {
    let (problem, parts) = (call.problem, &call.parts);
    let (rows, batch, d_hidden) = (problem.rows(), problem.batch_size(), problem.d_hidden);
    let width = problem.width();
    let like = *parts.of(Part::Input);

    let (recurrent, left) = match &call.recurrent {
        Recurrent::Whole(weight) => {
            let recurrent = RecurrentBack::After {
                weight: transposed(weight),
                product: empty(like, [rows, width]),
            };
            (recurrent, width)
        }
        Recurrent::Split { gates, candidate } => {
            let recurrent = RecurrentBack::Before {
                gates: transposed(gates),
                candidate: transposed(candidate),
                left: empty(like, [batch, d_hidden]),
                grad_reset: empty(like, [batch, d_hidden]),
                reset_hidden: empty(like, [rows, d_hidden]),
            };
            (recurrent, 2 * d_hidden)
        }
    };
    let steps = Steps {
        call,
        forward,
        grad,
        hidden: empty(like, [batch, d_hidden]),
        direct: zeros(like, [batch, d_hidden]),
        preact: empty(like, [rows, width]),
        left: empty(like, [batch, left]),
        before: empty(like, [rows, d_hidden]),
        recurrent,
    };
    // What later steps pass back; a sequence that ends earlier begins with the gradient of its last
    // state, since nothing has written its rows by then.
    copy(grad, rows * d_hidden, &steps.hidden, 0, batch * d_hidden);
    for index in (0..problem.counts.len()).rev() {
        steps.run(index);
    }

    let preact = &steps.preact;
    let mut grads = Parts::default();
    let mut set = |part: Part, grad: &dyn Fn() -> CubeTensor| {
        if wanted.has(part) && parts.has(part) {
            grads.set(part, grad());
        }
    };
    set(Part::Hidden, &|| {
        add(steps.hidden.clone(), steps.direct.clone())
    });
    set(Part::Input, &|| {
        let weight = parts.of(Part::WeightInput);
        times(preact.clone(), transposed(weight))
    });
    set(Part::WeightInput, &|| {
        times(transposed(like), preact.clone())
    });
    set(Part::WeightHidden, &|| steps.weight_hidden());
    set(Part::Bias, &|| sum_rows(preact.clone()));
    if let RecurrentBack::After { product, .. } = &steps.recurrent {
        set(Part::BiasHidden, &|| {
            piece(&sum_rows(product.clone()), 2 * d_hidden, d_hidden)
        });
    }
    grads
}

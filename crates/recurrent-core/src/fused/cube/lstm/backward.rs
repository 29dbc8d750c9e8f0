//! The loop over steps, backward, and the gradients that are products and sums over all rows.

use burn_cubecl::tensor::CubeTensor;

use super::Call;
use super::persistent::Persistent;
use super::rounds::RoundsBack;
use crate::fused::cube::buffer::{
    RowsOf, arg, copy, copy_rows, empty, nothing, piece, reshaped, sum_rows, transposed, zeros,
};
use crate::fused::cube::device::{cubes, elementwise};
use crate::fused::cube::pointwise::{project_back, step_back};
use crate::fused::cube::product::{product, times};
use crate::fused::problem::{Part, Parts};

/// The gradients of a call.
///
/// # Arguments
/// * `kept` - of the forward
/// * `grad` - of the output, of its layout
/// * `wanted` - whose gradients are asked for
pub fn backward(
    call: &Call<'_>,
    kept: &[CubeTensor],
    grad: &CubeTensor,
    wanted: &Parts<()>,
) -> Parts<CubeTensor> {
    let (problem, parts, kind) = (call.problem, &call.parts, call.kind);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (d_hidden, d_output, width) = (problem.d_hidden, problem.d_output, problem.width());
    let like = *parts.of(Part::Input);
    let client = &like.client;
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
    let grad_hidden = empty(like, [batch, d_output]);
    let grad_cell = empty(like, [batch, d_hidden]);
    copy(grad, rows * d_output, &grad_hidden, 0, batch * d_output);
    copy(
        grad,
        (rows + batch) * d_output,
        &grad_cell,
        0,
        batch * d_hidden,
    );
    let through = zeroed(kind.full, [batch, d_hidden]);
    let zoned = kind.masks.update_hidden || call.masked.update_hidden;
    let direct = zeroed(zoned, [batch, d_output]);
    let unused = nothing(like);

    let grad_preact = empty(like, [rows, width]);
    let normed = kind.norm_hidden.is_some();
    let grad_product = some(normed, [rows, width]);
    let left = empty(like, [batch, width]);
    let left_full = some(normed && kind.full, [batch, width]);
    let products = some(kind.products() > 0, [rows, kind.products() * d_hidden]);
    let weight_hidden = transposed(parts.of(Part::WeightHidden));
    let peephole_full = parts.get(Part::PeepholeFull).map(|&v| transposed(v));
    let projection = parts.get(Part::Projection).map(|&matrix| {
        let all = empty(like, [rows, d_output]);
        let left = empty(like, [batch, d_output]);
        (
            transposed(matrix),
            all,
            left,
            empty(like, [batch, d_hidden]),
        )
    });
    // With a projection the kernel of the cell gets all of ∂h̃ from it.
    let (cell_grad, cell_direct) = match &projection {
        Some((_, _, _, inner)) => (inner, &unused),
        None => (&grad_hidden, &direct),
    };

    let optional = usize::from(kind.projected) + usize::from(kind.full);
    let rounds = RoundsBack::new(call, &kept[2 + optional..], &kept[1]);

    let persistent = Persistent::new(call);
    let alone = match &persistent {
        Some(_) => &[][..],
        None => &problem.counts[..],
    };
    if let Some(persistent) = persistent {
        let grads = [
            &grad_hidden,
            &direct,
            &grad_cell,
            &grad_preact,
            &left,
            &products,
        ];
        persistent.backward(call, [grad, &kept[0]], grads);
    }
    for (index, &count) in alone.iter().enumerate().rev() {
        let previous = index.checked_sub(1).map_or(0, |step| call.offsets[step]);
        if let Some((matrix, all, left, inner)) = &projection {
            let lanes = call.lanes_projected;
            let (cubes, units) = elementwise(like, count * d_output / lanes);
            project_back::launch(
                client,
                cubes,
                units,
                lanes,
                arg(grad, lanes),
                arg(&grad_hidden, lanes),
                arg(&call.masks_projected.values, lanes),
                arg(&direct, lanes),
                arg(all, lanes),
                arg(left, lanes),
                call.at_projected(index, previous),
                call.masked,
            );
            product(
                reshaped(left.clone(), [count, d_output]),
                matrix.clone(),
                reshaped(inner.clone(), [count, d_hidden]),
            );
        }
        if problem.histories {
            let rows_at = |tensor, start| RowsOf {
                tensor,
                start,
                stride: d_hidden,
            };
            let start = problem.cells_start() + call.offsets[index] * d_hidden;
            let (from, to) = (rows_at(grad, start), rows_at(&grad_cell, 0));
            copy_rows(from, to, count, d_hidden, true);
        }
        let lanes = call.lanes;
        let (cubes, units) = cubes(like, count, d_hidden / lanes, kind.threads);
        step_back::launch(
            client,
            cubes,
            units,
            lanes,
            arg(grad, lanes),
            arg(cell_grad, lanes),
            arg(&through, lanes),
            arg(&kept[0], lanes),
            arg(parts.of(Part::Cell), lanes),
            arg(&call.vectors, lanes),
            arg(&call.masks.values, lanes),
            arg(cell_direct, lanes),
            arg(&grad_cell, lanes),
            arg(&grad_preact, lanes),
            arg(&grad_product, lanes),
            arg(&left, lanes),
            arg(&left_full, lanes),
            arg(&products, lanes),
            call.at(index, previous, 0),
            kind,
        );
        product(
            reshaped(left.clone(), [count, width]),
            weight_hidden.clone(),
            reshaped(grad_hidden.clone(), [count, d_output]),
        );
        if let Some(rounds) = &rounds {
            rounds.run(call, index, &left, &grad_hidden);
        }
        if let Some(matrix) = &peephole_full {
            let left = if normed { &left_full } else { &left };
            product(
                reshaped(left.clone(), [count, width]),
                matrix.clone(),
                reshaped(through.clone(), [count, d_hidden]),
            );
        }
    }

    let recurrent = if normed { &grad_product } else { &grad_preact };
    let mut grads = Parts::default();
    let mut set = |part: Part, grad: &dyn Fn() -> CubeTensor| {
        if wanted.has(part) && parts.has(part) {
            grads.set(part, grad());
        }
    };
    let added =
        |a: &CubeTensor, b: &CubeTensor| burn_cubecl::ops::numeric::add(a.clone(), b.clone());
    set(Part::Hidden, &|| match zoned {
        true => added(&grad_hidden, &direct),
        false => grad_hidden.clone(),
    });
    set(Part::Cell, &|| match kind.full {
        true => added(&grad_cell, &through),
        false => grad_cell.clone(),
    });
    // What W and R multiply.
    let (x, h) = match &rounds {
        Some(rounds) => rounds.last(),
        None => (like, &kept[1]),
    };
    if rounds.is_none() {
        set(Part::Input, &|| match parts.get(Part::WeightInput) {
            Some(&weight) => times(grad_preact.clone(), transposed(weight)),
            None => grad_preact.clone(),
        });
    }
    set(Part::WeightInput, &|| {
        times(transposed(x), grad_preact.clone())
    });
    set(Part::WeightHidden, &|| {
        times(transposed(h), recurrent.clone())
    });
    set(Part::BiasHidden, &|| sum_rows(recurrent.clone()));
    set(Part::PeepholeFull, &|| {
        times(transposed(&kept[1 + optional]), grad_preact.clone())
    });
    if let Some((_, all, _, _)) = &projection {
        set(Part::Projection, &|| {
            times(transposed(&kept[2]), all.clone())
        });
    }
    if wanted.has(Part::Bias) || wanted.has(Part::NormHiddenShift) {
        let sum = sum_rows(grad_preact.clone());
        set(Part::Bias, &|| sum.clone());
        set(Part::NormHiddenShift, &|| sum.clone());
    }
    let hidden_at = kind.products_hidden_at();
    let cell_at = kind.products_cell_at();
    let vectors = [
        (Part::PeepholeFirst, 0, 1),
        (Part::PeepholeSecond, 1, 1),
        (Part::PeepholeOutput, kind.shares(), 1),
        (Part::NormHiddenGain, hidden_at, kind.gates()),
        (Part::NormCellGain, cell_at, 1),
        (Part::NormCellShift, cell_at + 1, 1),
    ];
    if vectors.iter().any(|&(part, ..)| wanted.has(part)) {
        let sums = sum_rows(products);
        for (part, start, pieces) in vectors {
            set(part, &|| piece(&sums, start * d_hidden, pieces * d_hidden));
        }
    }
    if let Some(rounds) = &rounds {
        rounds.gradients(wanted, &mut grads);
    }
    grads
}

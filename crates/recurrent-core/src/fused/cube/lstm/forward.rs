//! The loop over steps, forward.

use alloc::vec::Vec;

use burn_cubecl::tensor::CubeTensor;

use super::Call;
use super::persistent::Persistent;
use super::rounds::Rounds;
use crate::fused::cube::buffer::{arg, copy, empty, flat as flattened, nothing, reshaped};
use crate::fused::cube::device::{cubes, elementwise};
use crate::fused::cube::pointwise::{project, step};
use crate::fused::cube::product::{product, times};
use crate::fused::problem::Part;

/// Runs all steps: the output (h of all rows, then the last h and c of each sequence), and what is
/// kept, of the given shapes.
pub fn forward(call: &Call<'_>, kept: &[[usize; 2]]) -> (CubeTensor, Vec<CubeTensor>) {
    let (problem, parts, kind) = (call.problem, &call.parts, call.kind);
    let (rows, batch) = (problem.rows(), problem.batch_size());
    let (d_hidden, d_output, width) = (problem.d_hidden, problem.d_output, problem.width());
    let like = *parts.of(Part::Input);
    let client = &like.client;

    let kept: Vec<CubeTensor> = kept.iter().map(|&shape| empty(like, shape)).collect();
    let optional = usize::from(kind.projected) + usize::from(kind.full);
    let rounds = Rounds::new(call, kept.get(2 + optional..).unwrap_or(&[]));
    let projected = match (&rounds, parts.get(Part::WeightInput)) {
        // A product per step, in one buffer.
        (Some(rounds), _) => rounds.projected.clone(),
        (None, Some(&weight)) => times(like.clone(), weight.clone()),
        (None, None) => like.clone(),
    };
    let flat = empty(like, [1, problem.output_len()]);
    let none = nothing(like);
    let (tape, before) = match &kept[..] {
        [tape, before, ..] => (tape.clone(), before.clone()),
        // Between the halves of a normalised row.
        _ if kind.by_row() => (empty(like, [batch, kind.tape() * d_hidden]), nothing(like)),
        _ => (nothing(like), nothing(like)),
    };
    let kept_if = |is: bool, index: usize| match is && kind.keep {
        true => kept[index].clone(),
        false => nothing(like),
    };
    let unprojected = kept_if(kind.projected, 2);
    let cells_before = kept_if(kind.full, 1 + optional);

    // The running state.
    let cell = empty(like, [batch, d_hidden]);
    let hidden = empty(like, [batch, d_output]);
    copy(parts.of(Part::Cell), 0, &cell, 0, batch * d_hidden);
    copy(parts.of(Part::Hidden), 0, &hidden, 0, batch * d_output);
    if kind.keep {
        copy(parts.of(Part::Hidden), 0, &before, 0, batch * d_output);
    }
    let recurrent = empty(like, [batch, width]);
    let peeped = match kind.full {
        true => empty(like, [batch, width]),
        false => none.clone(),
    };
    let projection = parts.get(Part::Projection).map(|&matrix| {
        let inner = empty(like, [batch, d_hidden]);
        let product = empty(like, [batch, d_output]);
        (matrix, inner, product)
    });
    // With a projection the kernel of the cell writes neither h nor the output.
    let (cell_hidden, cell_out, cell_before) = match &projection {
        Some((_, inner, _)) => (inner.clone(), nothing(like), unprojected),
        None => (hidden.clone(), flat.clone(), before.clone()),
    };

    let persistent = Persistent::new(call);
    // Either all steps are in one launch, or none is.
    let alone = match &persistent {
        Some(_) => &[][..],
        None => &problem.counts[..],
    };
    if let Some(persistent) = persistent {
        let state = [&cell, &hidden, &flat, &tape, &before];
        persistent.forward(call, &projected, state);
    }
    for (index, &count) in alone.iter().enumerate() {
        let seen = match &rounds {
            Some(rounds) => rounds.run(call, index, &hidden),
            None => hidden.clone(),
        };
        let left = reshaped(seen, [count, d_output]);
        let weight = parts.of(Part::WeightHidden);
        product(
            left,
            (*weight).clone(),
            reshaped(recurrent.clone(), [count, width]),
        );
        if kind.full {
            let left = reshaped(cell.clone(), [count, d_hidden]);
            let weight = (*parts.of(Part::PeepholeFull)).clone();
            product(left, weight, reshaped(peeped.clone(), [count, width]));
        }
        let next = call.offsets[index + 1];
        let tape_row = if kind.keep { call.offsets[index] } else { 0 };
        let lanes = call.lanes;
        let (cubes, units) = cubes(like, count, d_hidden / lanes, kind.threads);
        step::launch(
            client,
            cubes,
            units,
            lanes,
            arg(&projected, lanes),
            arg(&recurrent, lanes),
            arg(&peeped, lanes),
            arg(&call.vectors, lanes),
            arg(&call.masks.values, lanes),
            arg(&cell, lanes),
            arg(&cell_hidden, lanes),
            arg(&cell_out, lanes),
            arg(&tape, lanes),
            arg(&cell_before, lanes),
            arg(&cells_before, lanes),
            call.at(index, next, tape_row),
            kind,
        );
        if problem.histories {
            let at = problem.cells_start() + call.offsets[index] * d_hidden;
            copy(&cell, 0, &flat, at, count * d_hidden);
        }
        if let Some((matrix, inner, result)) = &projection {
            product(
                reshaped(inner.clone(), [count, d_hidden]),
                (*matrix).clone(),
                reshaped(result.clone(), [count, d_output]),
            );
            let lanes = call.lanes_projected;
            let (cubes, units) = elementwise(like, count * d_output / lanes);
            project::launch(
                client,
                cubes,
                units,
                lanes,
                arg(result, lanes),
                arg(&call.masks_projected.values, lanes),
                arg(&hidden, lanes),
                arg(&flat, lanes),
                arg(&before, lanes),
                call.at_projected(index, next),
                call.masked,
                kind.keep,
            );
        }
    }

    // Rows that have ended were left alone.
    copy(&hidden, 0, &flat, rows * d_output, batch * d_output);
    copy(&cell, 0, &flat, (rows + batch) * d_output, batch * d_hidden);
    (flattened(flat), kept)
}

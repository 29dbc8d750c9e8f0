//! The composed scan: a plain loop over [`Step`], differentiable by Burn's autodiff.
//!
//! It is the reference for the fused kernels. Its structure:
//! - the input projection of all steps is one product before the loop ([`Step::project`]);
//! - outputs are collected in a list and concatenated once: no `slice_assign` per step;
//! - the projected input is split into steps by recursive halving ([`split_rows`]): the derivative of a
//!   slice allocates a tensor as large as the source of the slice, so T slices of one tensor would move
//!   O(T²) memory in the backward pass; halving moves O(T log T).
//!
//! One part of a backward still takes O(T²): Burn's list of saved operands (`docs/architecture.md`).

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::plan::Plan;
use crate::cell::Step;
use crate::equations::dropout::Masks;
use crate::state::State;

/// Result of a scan.
pub(super) struct Scanned<S> {
    /// The outputs, packed in running order.
    pub rows: Tensor<2>,
    /// The state after the last step of each sequence, in batch order.
    pub state: S,
    /// The states after all steps, each part packed like the outputs; empty if they are not recorded.
    pub histories: Vec<Tensor<2>>,
}

/// Runs over packed rows in running order.
///
/// # Arguments
/// * `state` - in batch order
/// * `record` - whether to return the states after all steps
pub(super) fn scan<C: Step>(
    cell: &C,
    rows: Tensor<2>,
    state: C::State,
    masks: &Masks,
    plan: &Plan,
    record: bool,
) -> Scanned<C::State> {
    let counts = plan.counts();
    let projected = split_rows(cell.project(rows), &counts);
    let masks = plan.masks(masks);

    let mut state = plan.sort(state);
    let mut running = plan.batch_size();
    let mut outputs = Vec::with_capacity(counts.len());
    let mut histories: Vec<Vec<Tensor<2>>> = match record {
        true => vec![Vec::with_capacity(counts.len()); cell.state_parts().len()],
        false => Vec::new(),
    };
    // States of sequences that have ended, shortest first.
    let mut ended = Vec::new();
    for ((projected, count), masks) in projected.into_iter().zip(counts).zip(masks) {
        if count < running {
            ended.push(state.clone().rows(count..running));
            state = state.rows(0..count);
            running = count;
        }
        let (output, next) = cell.step(projected, state, &masks);
        if record {
            for (steps, part) in histories.iter_mut().zip(next.clone().into_tensors()) {
                steps.push(part);
            }
        }
        outputs.push(output);
        state = next;
    }

    let state = if ended.is_empty() {
        state
    } else {
        ended.push(state);
        ended.reverse();
        C::State::cat(ended)
    };
    let histories = histories.into_iter();
    Scanned {
        rows: Tensor::cat(outputs, 0),
        state: plan.unsort(state),
        histories: histories.map(|steps| Tensor::cat(steps, 0)).collect(),
    }
}

/// Splits `rows` into consecutive pieces with the given numbers of rows.
fn split_rows(rows: Tensor<2>, heights: &[usize]) -> Vec<Tensor<2>> {
    if let [_] = heights {
        return vec![rows];
    }
    let (left, right) = heights.split_at(heights.len() / 2);
    let [height, width] = rows.dims();
    let middle = left.iter().sum();
    let mut pieces = split_rows(rows.clone().slice([0..middle, 0..width]), left);
    pieces.extend(split_rows(rows.slice([middle..height, 0..width]), right));
    pieces
}

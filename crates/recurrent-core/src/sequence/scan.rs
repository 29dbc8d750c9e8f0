//! The composed scan: a plain loop over [`Step`], differentiable by Burn's autodiff.
//!
//! It is the reference for everything faster. What it takes care of:
//! - the input projection of all steps is one product before the loop ([`Step::project`]);
//! - outputs are collected in a list and concatenated once: no `slice_assign` per step;
//! - the projected input is cut into steps by halving ([`split_rows`]): the derivative of a slice
//!   fills a tensor as large as what was sliced, so T slices of one tensor would move O(T²)
//!   memory backwards; halving moves O(T log T).

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::plan::Plan;
use crate::cell::Step;
use crate::equations::dropout::Masks;
use crate::state::State;

/// Runs over packed rows in running order.
///
/// # Arguments
/// * `state` - in batch order, as the one returned
/// * `observe` - called with the state after each step, the rows that ran only
pub(super) fn scan<C: Step>(
    cell: &C,
    rows: Tensor<2>,
    state: C::State,
    masks: &Masks,
    plan: &Plan,
    observe: super::Observer<'_, C::State>,
) -> (Tensor<2>, C::State) {
    let counts = plan.counts();
    let projected = split_rows(cell.project(rows), &counts);
    let masks = plan.masks(masks);

    let mut state = plan.sort(state);
    let mut running = plan.batch_size();
    let mut outputs = Vec::with_capacity(counts.len());
    // States of sequences that have ended, shortest first.
    let mut ended = Vec::new();
    for ((projected, count), masks) in projected.into_iter().zip(counts).zip(masks) {
        if count < running {
            ended.push(state.clone().rows(count..running));
            state = state.rows(0..count);
            running = count;
        }
        let (output, next) = cell.step(projected, state, &masks);
        observe(&next);
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
    (Tensor::cat(outputs, 0), plan.unsort(state))
}

/// Cuts `rows` into consecutive pieces of the given heights.
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

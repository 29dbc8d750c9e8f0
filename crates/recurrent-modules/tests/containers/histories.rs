//! All states over time, on request.

use burn::tensor::Tensor;
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_modules::{ForwardOptions, GruConfig, Lengths, LstmConfig, Recurrent, Strategy};
use rstest::rstest;

use crate::support::*;

/// Against `step`, in both orders of the axes; the output is that of `forward`, to the bit.
#[rstest]
fn histories_are_the_states_of_step(
    #[values(true, false)] batch_first: bool,
    #[values(Strategy::Fused, Strategy::Composed)] strategy: Strategy,
) {
    let device = device();
    let lstm = LstmConfig::new(I, H)
        .with_num_layers(2)
        .with_batch_first(batch_first)
        .init(&device)
        .with_strategy(strategy);
    let input = tensor([T, B, I], 0.0, &device);
    let arrange = |tensor: Tensor<3>| match batch_first {
        true => tensor.swap_dims(0, 1),
        false => tensor,
    };
    let mut state = state(2, H, &device);
    let (output, last, histories) = lstm.forward_histories(
        arrange(input.clone()),
        Some(state.clone()),
        ForwardOptions::default(),
    );
    let (expected, _) = lstm.forward(arrange(input.clone()), Some(state.clone()));
    assert_eq!(values(&output), values(&expected));
    assert_eq!(histories.len(), 2);
    for t in 0..T {
        let x = input.clone().slice([t..t + 1, 0..B, 0..I]).reshape([B, I]);
        state = lstm.step(x, Some(state)).1;
        for (history, state) in histories.iter().zip(&state.cells) {
            let at = |name: &str| {
                let part = arrange(history.part(name));
                part.slice([t..t + 1, 0..B, 0..H]).reshape([B, H])
            };
            assert_close(&at("cell"), &state.cell);
            assert_close(&at("hidden"), &state.hidden);
        }
    }
    assert_close(&state.cells[0].cell, &last.cells[0].cell);
}

/// A GRU has one part, which is its output.
#[rstest]
fn a_gru_has_a_history_of_h(
    #[values(true, false)] reset_after: bool,
    #[values(Strategy::Auto, Strategy::Composed)] strategy: Strategy,
) {
    let device = device();
    let gru = GruConfig::new(I, H)
        .with_num_layers(2)
        .with_reset_after(reset_after)
        .init(&device)
        .with_strategy(strategy);
    let model = Recurrent::Gru(gru);
    let input = tensor([B, T, I], 0.0, &device);
    let mut state = model.initial_state(B, &device);
    let options = ForwardOptions::default();
    let (output, last, histories) =
        model.forward_histories(input.clone(), Some(state.clone()), options);
    assert_eq!(histories.len(), 2);
    for t in 0..T {
        let x = input.clone().narrow(1, t, 1).squeeze_dim::<2>(1);
        state = model.step(x, Some(state)).1;
        for (history, state) in histories.iter().zip(&state.cells) {
            let names: Vec<_> = history.parts.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, ["hidden"]);
            let at = history.part("hidden").narrow(1, t, 1).squeeze_dim::<2>(1);
            assert_close(&at, &state.part("hidden"));
        }
    }
    assert_eq!(values(&histories[1].part("hidden")), values(&output));
    assert_close(&state.last().part("hidden"), &last.last().part("hidden"));
}

/// Histories stay at the time of their input, and are zero past each length.
#[test]
fn directions_and_lengths() {
    let device = device();
    let lstm = LstmConfig::new(I, H).with_bidirectional(true).init(&device);
    let input = tensor([B, T, I], 0.0, &device);
    let list = [2, T, 3];
    let lengths = Lengths::new(list, T).expect("lengths");
    let options = ForwardOptions {
        lengths: Some(&lengths),
        ..ForwardOptions::default()
    };
    let (output, last, histories) = lstm.forward_histories(input, None, options);
    assert_eq!(histories.len(), 2);
    let hidden = histories.iter().map(|history| history.part("hidden"));
    assert_close(&Tensor::cat(hidden.collect(), 2), &output);
    for (direction, history) in histories.iter().enumerate() {
        let cells = history.part("cell");
        for (row, &length) in list.iter().enumerate() {
            let of = |t: usize| {
                let at = cells.clone().slice([row..row + 1, t..t + 1, 0..H]);
                values(&at)
            };
            let end = if direction == 0 { length - 1 } else { 0 };
            let expected = last.cells[direction].cell.clone();
            let expected = values(&expected.slice([row..row + 1, 0..H]));
            assert_eq!(of(end), expected);
            assert!((length..T).all(|t| of(t) == [0.0; H]));
        }
    }
}

#[test]
fn gradients_flow_through_histories() {
    let device = autodiff();
    let lstm = LstmConfig::new(I, H).init(&device);
    let gradient = |through_history: bool| {
        let input = tensor([B, T, I], 0.0, &device).require_grad();
        let (output, _, histories) =
            lstm.forward_histories(input.clone(), None, ForwardOptions::default());
        let hidden = match through_history {
            true => histories[0].part("hidden"),
            false => output,
        };
        let grads = (hidden * tensor([B, T, H], 0.5, &device)).sum().backward();
        values(&input.grad(&grads).expect("a gradient"))
    };
    let expected = gradient(false);
    assert!(expected.iter().all(|&v| v != 0.0));
    assert_lists_close(&gradient(true), &expected);
}

#[test]
#[should_panic(expected = "the state has no part `adapt`, its parts are [\"cell\", \"hidden\"]")]
fn parts_that_are_not_there() {
    let device = device();
    let lstm = LstmConfig::new(I, H).init(&device);
    let input = tensor([B, T, I], 0.0, &device);
    let (_, _, histories) = lstm.forward_histories(input, None, ForwardOptions::default());
    let _ = histories[0].part("adapt");
}

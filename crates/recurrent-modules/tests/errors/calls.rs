//! Calls that do not fit the module.

use burn::tensor::{Device, Tensor};
use recurrent_core::eval::device::device;
use recurrent_modules::{
    ForwardOptions, GruConfig, Lengths, LengthsError, LstmConfig, LstmState, Mask, Masks,
    Recurrent, RecurrentDropout, RecurrentState, StackMasks, StackState,
};

use crate::*;

fn ones(shape: [usize; 3], device: &Device) -> Tensor<3> {
    Tensor::ones(shape, device)
}

/// Each variant with two layers, on a plain and on a training device, with dropout and without.
fn modules() -> Vec<(Recurrent, Device)> {
    let mut list = vec![];
    for device in [device(), device().autodiff()] {
        for config in variants() {
            for kind in [
                RecurrentDropout::None,
                RecurrentDropout::Gal { prob: 0.5 },
                RecurrentDropout::Semeniuta { prob: 0.5 },
                RecurrentDropout::Zoneout {
                    hidden: 0.1,
                    cell: 0.2,
                },
            ] {
                let config = config
                    .clone()
                    .with_num_layers(2)
                    .with_recurrent_dropout(kind)
                    .with_dropout(0.5);
                list.push((config.init(&device), device.clone()));
            }
        }
    }
    list
}

#[test]
fn inputs_of_wrong_size() {
    for (module, device) in modules() {
        let forward = |shape| panic_text(|| module.forward(ones(shape, &device), None));
        assert_eq!(
            forward([B, T, I + 1]),
            format!(
                "input has inconsistent d_input: got {}, expected {I}",
                I + 1
            )
        );
        let text = panic_text(|| module.step(Tensor::ones([B, I - 1], &device), None));
        assert_eq!(
            text,
            format!(
                "input has inconsistent d_input: got {}, expected {I}",
                I - 1
            )
        );
    }
}

#[test]
fn states_of_wrong_size() {
    for (module, device) in modules() {
        let input = || ones([B, T, I], &device);
        let x = || Tensor::<2>::ones([B, I], &device);
        let check = |state: RecurrentState, parts: &[&str]| {
            let text = panic_text(|| module.forward(input(), Some(state.clone())));
            assert_says(&text, parts);
            let text = panic_text(|| module.step(x(), Some(state)));
            assert_says(&text, parts);
        };
        check(
            module.initial_state(B + 1, &device),
            &[
                "state `cell` has shape [4, 11]",
                "[batch_size, features] = [3, 11]",
            ],
        );
        let good = || module.initial_state(B, &device);
        let mut wrong = good();
        wrong.cells[1].parts[1].1 = Tensor::zeros([B, H - 1], &device);
        check(
            wrong,
            &[
                "state `hidden` has shape [3, 10]",
                "[batch_size, features] = [3, 11]",
            ],
        );
        let count = |cells: usize| {
            let state = good().cells.remove(0);
            check(
                RecurrentState {
                    cells: vec![state; cells],
                },
                &[&format!(
                    "state has {cells} cells, expected layers × directions = 2 × 1 = 2"
                )],
            );
        };
        count(0);
        count(1);
        count(3);
        // Parts of other names, in another order, and missing.
        let parts = |parts: &[&'static str], says: &str| {
            let mut state = good();
            let tensor = Tensor::zeros([B, H], &device);
            state.cells[1].parts = parts.iter().map(|name| (*name, tensor.clone())).collect();
            check(
                state,
                &[&format!(
                    "state of cell 1 has the parts {says}, expected [\"cell\", \"hidden\"]"
                )],
            );
        };
        parts(&["cell", "memory"], "[\"cell\", \"memory\"]");
        parts(&["hidden", "cell"], "[\"hidden\", \"cell\"]");
        parts(&["cell"], "[\"cell\"]");
        parts(
            &["cell", "hidden", "hidden"],
            "[\"cell\", \"hidden\", \"hidden\"]",
        );
        parts(&[], "[]");
        assert!(module.forward(input(), Some(good())).0.dims() == [B, T, H]);
    }
    let device = device();
    let both = LstmConfig::new(I, H).with_bidirectional(true).init(&device);
    let state: StackState<LstmState<2>> =
        StackState::from(both.initial_state(B, &device).cells.remove(0));
    let text = panic_text(|| both.forward(ones([B, T, I], &device), Some(state)));
    assert_says(
        &text,
        &["state has 1 cells, expected layers × directions = 1 × 2 = 2"],
    );
}

#[test]
fn lengths_that_do_not_fit() {
    assert_eq!(
        Lengths::new([2, 3, T + 1], T),
        Err(LengthsError::TooLong {
            index: 2,
            got: T + 1,
            seq_length: T
        })
    );
    let text = |list: &[usize]| Lengths::new(list, T).expect_err("an error").to_string();
    assert_eq!(
        text(&[6]),
        "length of sequence 0 is 6, expected at most seq_length = 5"
    );
    for (module, device) in modules() {
        let run = |lengths: Lengths| {
            let options = ForwardOptions {
                lengths: Some(&lengths),
                ..ForwardOptions::default()
            };
            panic_text(|| module.forward_with(ones([B, T, I], &device), None, options))
        };
        for list in [vec![T; B - 1], vec![T; B + 1], vec![]] {
            let got = list.len();
            assert_eq!(
                run(Lengths::new(list, T).expect("valid")),
                format!("got {got} lengths, expected one per sequence: batch_size = {B}")
            );
        }
        // Made for a longer input.
        assert_eq!(
            run(Lengths::new([T, T + 2, 1], T + 2).expect("valid")),
            format!(
                "longest length is {}, expected at most seq_length = {T}",
                T + 2
            )
        );
    }
}

fn cell_masks(masks: Masks, cells: usize) -> StackMasks {
    StackMasks {
        cells: vec![masks; cells],
        ..StackMasks::default()
    }
}

#[test]
fn masks_within_cells_of_wrong_shape() {
    for (module, device) in modules() {
        let per_sequence =
            |rows, columns| Some(Mask::PerSequence(Tensor::ones([rows, columns], &device)));
        let per_step = |shape| Some(Mask::PerStep(ones(shape, &device)));
        type Place = fn(&mut Masks) -> &mut Option<Mask>;
        let places: [(&str, Place); 5] = [
            ("hidden", |masks| &mut masks.hidden),
            ("cell", |masks| &mut masks.cell),
            ("candidate", |masks| &mut masks.candidate),
            ("update_hidden", |masks| &mut masks.update_hidden),
            ("update_cell", |masks| &mut masks.update_cell),
        ];
        for (name, place) in places {
            // The last three would broadcast.
            for (mask, got) in [
                (per_sequence(B + 1, H), "[4, 11]"),
                (per_sequence(B, H + 1), "[3, 12]"),
                (per_sequence(1, H), "[1, 11]"),
                (per_sequence(B, 1), "[3, 1]"),
                (per_step([T - 1, B, H]), "[4, 3, 11]"),
                (per_step([1, B, H]), "[1, 3, 11]"),
                (per_step([T, 1, H]), "[5, 1, 11]"),
                (per_step([T, B, 1]), "[5, 3, 1]"),
            ] {
                let mut masks = cell_masks(Masks::none(), 2);
                *place(&mut masks.cells[1]) = mask;
                let options = ForwardOptions {
                    masks: Some(&masks),
                    ..ForwardOptions::default()
                };
                let text =
                    panic_text(|| module.forward_with(ones([B, T, I], &device), None, options));
                assert_says(
                    &text,
                    &[
                        &format!("mask `{name}` has shape {got}, expected ["),
                        "[",
                        "11]",
                    ],
                );
            }
        }
        for cells in [1, 3] {
            let masks = cell_masks(Masks::none(), cells);
            let options = ForwardOptions {
                masks: Some(&masks),
                ..ForwardOptions::default()
            };
            let text = panic_text(|| module.forward_with(ones([B, T, I], &device), None, options));
            assert_says(
                &text,
                &[&format!(
                    "got masks for {cells} cells, expected layers × directions = 2"
                )],
            );
        }
    }
}

#[test]
fn masks_between_layers_of_wrong_shape() {
    for (module, device) in modules() {
        let forward = |between: Vec<Option<Tensor<3>>>, seq_length: usize| {
            let masks = StackMasks {
                between,
                ..StackMasks::default()
            };
            let options = ForwardOptions {
                masks: Some(&masks),
                ..ForwardOptions::default()
            };
            module
                .forward_with(ones([B, seq_length, I], &device), None, options)
                .0
        };
        for shape in [
            [T - 1, B, H],
            [1, B, H],
            [T, 1, H],
            [T, B, 1],
            [T, B + 1, H],
            [T, B, H + 1],
            [B, T, H],
        ] {
            let text = panic_text(|| forward(vec![Some(ones(shape, &device))], T));
            assert_eq!(
                text,
                format!(
                    "mask `between` after layer 0 has shape {shape:?}, expected \
                     [seq_length, batch_size, features] = [{T}, {B}, {H}]"
                )
            );
        }
        let two = vec![None, None];
        assert_says(
            &panic_text(|| forward(two, T)),
            &["got 2 masks between layers, expected 1"],
        );
        // A longer mask serves a shorter call, as within the cells: its first steps are read.
        let long = Tensor::cat(
            vec![ones([T, B, H], &device), ones([2, B, H], &device) * 9.0],
            0,
        );
        let got = forward(vec![Some(long)], T).into_data();
        let expected = forward(vec![Some(ones([T, B, H], &device))], T).into_data();
        assert_eq!(got, expected);
    }
}

#[test]
fn steps_beyond_a_mask() {
    for (module, device) in modules() {
        let step = |masks: &StackMasks, t: usize| {
            let x = Tensor::<2>::ones([B, I], &device);
            module.step_with(x, None, masks, t).0
        };
        let mut masks = cell_masks(Masks::none(), 2);
        masks.cells[1].candidate = Some(Mask::PerStep(ones([T, B, H], &device)));
        assert_eq!(step(&masks, T - 1).dims(), [B, H]);
        assert_says(
            &panic_text(|| step(&masks, T)),
            &["mask `candidate` has shape [5, 3, 11]", "= [6, 3, 11]"],
        );
        let masks = StackMasks {
            between: vec![Some(ones([T, B, H], &device))],
            ..StackMasks::default()
        };
        assert_eq!(step(&masks, T - 1).dims(), [B, H]);
        assert_says(
            &panic_text(|| step(&masks, T)),
            &[
                "mask `between` after layer 0 has shape [5, 3, 11]",
                "= [6, 3, 11]",
            ],
        );
        let masks = StackMasks {
            between: vec![Some(ones([T, 1, H], &device))],
            ..StackMasks::default()
        };
        assert_says(&panic_text(|| step(&masks, 0)), &["has shape [5, 1, 11]"]);
    }
}

#[test]
fn steps_of_two_directions() {
    for device in [device(), device().autodiff()] {
        for config in variants() {
            let module = config.with_bidirectional(true).init(&device);
            let x = || Tensor::<2>::ones([B, I], &device);
            let parts = [
                "step needs one direction, got a bidirectional stack",
                "use forward",
            ];
            assert_says(&panic_text(|| module.step(x(), None)), &parts);
            let text = panic_text(|| module.step_with(x(), None, &StackMasks::default(), 0));
            assert_says(&text, &parts);
        }
    }
}

/// A GRU names its one part of the state, and refuses masks on another.
#[test]
fn a_gru_has_a_hidden_state_alone() {
    for device in [device(), device().autodiff()] {
        let module = RecurrentConfig::Gru(GruConfig::new(I, H).with_num_layers(2)).init(&device);
        let x = || ones([B, T, I], &device);
        let row = || Tensor::<2>::ones([B, I], &device);
        let good = || module.initial_state(B, &device);
        let with_parts = |parts: &[&'static str]| {
            let mut state = good();
            let tensor = Tensor::zeros([B, H], &device);
            state.cells[1].parts = parts.iter().map(|name| (*name, tensor.clone())).collect();
            state
        };
        let mut narrow = good();
        narrow.cells[0].parts[0].1 = Tensor::zeros([B, H - 1], &device);
        for (state, says) in [
            (
                with_parts(&["cell", "hidden"]),
                "state of cell 1 has the parts [\"cell\", \"hidden\"], expected [\"hidden\"]",
            ),
            (
                with_parts(&[]),
                "state of cell 1 has the parts [], expected [\"hidden\"]",
            ),
            (narrow, "state `hidden` has shape [3, 10]"),
        ] {
            let text = panic_text(|| module.forward(x(), Some(state.clone())));
            assert_says(&text, &[says]);
            let text = panic_text(|| module.step(row(), Some(state)));
            assert_says(&text, &[says]);
        }
        // One that an LSTM's user would ask for.
        assert_says(
            &panic_text(|| good().last().part("cell")),
            &["the state has no part `cell`, its parts are [\"hidden\"]"],
        );
        assert_says(
            &panic_text(|| good().into_lstm()),
            &["state of cell 0 has the parts [\"hidden\"], expected [\"cell\", \"hidden\"]"],
        );

        type Place = fn(&mut Masks) -> &mut Option<Mask>;
        let places: [(&str, Place); 2] = [
            ("cell", |masks| &mut masks.cell),
            ("update_cell", |masks| &mut masks.update_cell),
        ];
        for (name, place) in places {
            let mut masks = cell_masks(Masks::none(), 2);
            *place(&mut masks.cells[1]) = Some(Mask::PerSequence(Tensor::ones([B, H], &device)));
            let options = ForwardOptions {
                masks: Some(&masks),
                ..ForwardOptions::default()
            };
            let says = format!(
                "got a mask `{name}`, expected none: the cell has no cell state, only a hidden state"
            );
            let text = panic_text(|| module.forward_with(x(), None, options));
            assert_says(&text, &[&says]);
            let text = panic_text(|| module.step_with(row(), None, &masks, 0));
            assert_says(&text, &[&says]);
        }
    }
}

#[test]
fn bare_cells_check_their_input() {
    let device = device();
    let gru = GruConfig::new(I, H).init_cell(&device);
    let text = panic_text(|| gru.step(Tensor::ones([B, I + 1], &device), None));
    assert_eq!(text, "input has inconsistent d_input: got 8, expected 7");
    let cell = LstmConfig::new(I, H).init_cell(&device);
    let text = panic_text(|| cell.step(Tensor::ones([B, I + 1], &device), None));
    assert_eq!(text, "input has inconsistent d_input: got 8, expected 7");
    let state = LstmState {
        cell: Tensor::zeros([B, H], &device),
        hidden: Tensor::zeros([B, H + 1], &device),
    };
    let text = panic_text(|| cell.step(Tensor::ones([B, I], &device), Some(state)));
    assert_says(&text, &["state `hidden` has shape [3, 12]", "= [3, 11]"]);
}

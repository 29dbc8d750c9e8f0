//! No sequences, no steps, sequences of length 0: outputs are empty or zero, and the final state is
//! the initial one, gradients included.

use burn::tensor::{Device, Tensor};
use recurrent_core::eval::compare::values;
use recurrent_modules::{
    ForwardOptions, Lengths, LstmConfig, LstmState, Mask, Masks, PackedSequence, Recurrent,
    RecurrentConfig, RecurrentDropout, RecurrentState, StackMasks, Strategy,
};

use crate::all_variants;
use crate::support::*;

/// Each variant in each container, run by kernels and step by step.
fn for_all(mut f: impl FnMut(&str, &Recurrent, bool, &Device)) {
    for device in devices() {
        for (variant, config) in all_variants() {
            let config = || config.clone();
            let two = match config() {
                // Its dropout is inside, and its layers are one cell.
                RecurrentConfig::AdaptiveLstm(c) => {
                    RecurrentConfig::AdaptiveLstm(c.with_bidirectional(true))
                }
                config => config
                    .with_num_layers(2)
                    .with_bidirectional(true)
                    .with_residual(true)
                    .with_dropout(0.5),
            };
            for (container, config) in [
                ("plain", config()),
                (
                    "projection, time-major, reverse",
                    projected(config())
                        .with_batch_first(false)
                        .with_reverse(true),
                ),
                (
                    "zoneout",
                    config().with_recurrent_dropout(zoneout(&config(), 0.2, 0.3)),
                ),
                ("bidirectional, two layers", two),
            ] {
                for strategy in [Strategy::Auto, Strategy::Composed] {
                    let module = build(&config, 11, &device).with_strategy(strategy);
                    let name = format!("{variant}, {container}, {strategy:?}, {device:?}");
                    f(&name, &module, config.batch_first, &device);
                }
            }
        }
    }
}

fn lengths<'a>(lengths: &'a Lengths) -> ForwardOptions<'a> {
    ForwardOptions {
        lengths: Some(lengths),
        ..ForwardOptions::default()
    }
}

fn shape(batch_first: bool, batch_size: usize, seq_length: usize, features: usize) -> [usize; 3] {
    match batch_first {
        true => [batch_size, seq_length, features],
        false => [seq_length, batch_size, features],
    }
}

/// Runs a call in which no sequence has a step.
fn check_idle(
    name: &str,
    module: &Recurrent,
    problem: &Problem,
    call: impl Fn(Tensor<3>, RecurrentState) -> Output,
) {
    let results = record(module, problem, &call);
    for (key, tensor) in named_state(&problem.state) {
        let name = format!("{name}: {key}");
        assert_same(&name, results.get(&key), &values(&tensor));
    }
    // The gradient of the initial state is that of the final one, the cotangent.
    for (index, (key, tensor)) in named_state(&problem.state).into_iter().enumerate() {
        let cotangent = Numbers::new(2000 + index as u64).list(tensor.shape().num_elements());
        let cotangent: Vec<f64> = cotangent.into_iter().map(f64::from).collect();
        // Where the batch is empty there may be no gradient.
        if !cotangent.is_empty() {
            let key = format!("grad.{key}");
            assert_same(&format!("{name}: {key}"), results.get(&key), &cotangent);
        }
    }
    let others = results
        .only(|key| key == "output" || key.starts_with("grad.") && !key.starts_with("grad.state."));
    for (key, list) in &others.0 {
        assert!(list.iter().all(|&v| v == 0.0), "{name}: {key} is not zero");
    }
}

#[test]
fn no_sequences_and_no_steps() {
    for_all(|name, module, batch_first, device| {
        for (batch_size, seq_length) in [(0, T), (B, 0), (0, 0)] {
            let name = format!("{name}, B = {batch_size}, T = {seq_length}");
            let problem = Problem::sized(module, batch_first, batch_size, seq_length, 12, device);
            check_idle(&name, module, &problem, |x, s| module.forward(x, Some(s)));
            let expected = shape(batch_first, batch_size, seq_length, module.d_output());
            let (output, state) = module.forward(problem.input.clone(), None);
            assert_eq!(output.dims(), expected, "{name}");
            let (got, given) = (named_state(&state), named_state(&problem.state));
            assert_eq!(got.len(), given.len(), "{name}");
            for ((part, got), (expected_part, expected)) in got.iter().zip(&given) {
                assert_eq!(
                    (part, got.dims()),
                    (expected_part, expected.dims()),
                    "{name}"
                );
                assert!(values(got).iter().all(|&v| v == 0.0), "{name}: {part}");
            }
            let list = Lengths::new(vec![0; batch_size], seq_length).unwrap();
            check_idle(&name, module, &problem, |x, s| {
                module.forward_with(x, Some(s), lengths(&list))
            });
            check_idle(&name, module, &problem, |x, s| {
                let options = ForwardOptions::default();
                let (output, state, histories) = module.forward_histories(x, Some(s), options);
                assert!(!histories.is_empty(), "{name}");
                for (_, part) in histories.iter().flat_map(|history| &history.parts) {
                    let [a, b, _] = part.dims();
                    let [c, d, _] = expected;
                    assert_eq!([a, b], [c, d], "{name}");
                }
                (output, state)
            });
        }
    });
}

#[test]
fn lengths_of_zero_only() {
    for_all(|name, module, batch_first, device| {
        let problem = Problem::new(module, batch_first, 12, device);
        let list = Lengths::new([0; B], T).unwrap();
        check_idle(name, module, &problem, |x, s| {
            module.forward_with(x, Some(s), lengths(&list))
        });
        check_idle(name, module, &problem, |x, s| {
            let (output, state, histories) = module.forward_histories(x, Some(s), lengths(&list));
            for (part, values_of) in histories.iter().flat_map(|history| &history.parts) {
                let zero = values(values_of).iter().all(|&v| v == 0.0);
                assert!(zero, "{name}: history of {part}");
            }
            (output, state)
        });
        check_idle(name, module, &problem, |x, s| {
            let packed = PackedSequence::pack(x, [0; B], batch_first, false).unwrap();
            assert_eq!(packed.data().dims(), [0, I]);
            assert_eq!(packed.sorted_indices(), [0, 1, 2]);
            let (packed, state) = module.forward_packed(&packed, Some(s));
            let (output, lengths) = packed.unpack(batch_first);
            assert_eq!(output.dims(), shape(batch_first, B, 0, module.d_output()));
            assert_eq!(lengths.as_slice(), [0; B]);
            (output, state)
        });
    });
}

#[test]
fn packed_batches_of_no_sequences() {
    for_all(|name, module, batch_first, device| {
        let input = Tensor::<3>::zeros(shape(batch_first, 0, T, I), device);
        let packed = PackedSequence::pack(input, [], batch_first, true).unwrap();
        let (packed, state) = module.forward_packed(&packed, None);
        assert_eq!(packed.data().dims(), [0, module.d_output()], "{name}");
        let mut parts = state.cells.iter().flat_map(|state| state.iter());
        assert!(parts.all(|(_, part)| part.dims()[0] == 0), "{name}");
        let (output, _) = packed.unpack(batch_first);
        let expected = shape(batch_first, 0, 0, module.d_output());
        assert_eq!(output.dims(), expected, "{name}");
    });
}

/// The rows 0 and 2 of a batch of three.
fn without_row_1<const D: usize>(tensor: Tensor<D>, axis: usize) -> Tensor<D> {
    let rows = Tensor::from_ints([0, 2], &tensor.device());
    tensor.select(axis, rows)
}

/// A sequence without steps changes nothing for the others, and passes its state on.
#[test]
fn one_length_of_zero() {
    for_all(|name, module, batch_first, device| {
        let problem = Problem::new(module, batch_first, 12, device);
        let axis = if batch_first { 0 } else { 1 };
        let others = Problem {
            input: without_row_1(problem.input.clone(), axis),
            state: problem.state.clone().map(|part| without_row_1(part, 0)),
        };
        // The state of the sequence without steps, in all rows of what is compared.
        let all = Lengths::new([2, 0, T], T).unwrap();
        let two = Lengths::new([2, T], T).unwrap();
        let masks = masks_of(module, device);
        let masks_of_two = StackMasks {
            cells: masks.cells.iter().map(cell_of_two).collect(),
            ..StackMasks::default()
        };
        let options = |lengths, masks| ForwardOptions {
            lengths: Some(lengths),
            masks: Some(masks),
        };
        let keep = |(output, state): Output| {
            let middle = output.clone().narrow(axis, 1, 1);
            assert!(values(&middle).iter().all(|&v| v == 0.0), "{name}: output");
            for ((part, got), (_, expected)) in
                named_state(&state).iter().zip(&named_state(&problem.state))
            {
                let row = |tensor: &Tensor<2>| values(&tensor.clone().narrow(0, 1, 1));
                assert_same(&format!("{name}: {part}"), &row(got), &row(expected));
            }
            let state = state.map(|part| without_row_1(part, 0));
            (without_row_1(output, axis), state)
        };
        // Gradients of leaves are of all rows on one side: those of the others are compared.
        let is_shared = |key: &str| key != "grad.input" && !key.starts_with("grad.state");
        let expected = record(module, &others, |x, s| {
            module.forward_with(x, Some(s), options(&two, &masks_of_two))
        });
        let got = record(module, &problem, |x, s| {
            keep(module.forward_with(x, Some(s), options(&all, &masks)))
        });
        got.only(is_shared)
            .assert_close(&expected.only(is_shared), name);
        let width = problem.input.dims()[2];
        let rows: Vec<usize> = (0..B * T)
            .filter(|row| match batch_first {
                true => row / T != 1,
                false => row % B != 1,
            })
            .collect();
        let chosen: Vec<f64> = rows
            .iter()
            .flat_map(|row| got.get("grad.input")[row * width..(row + 1) * width].to_vec())
            .collect();
        assert_list_close(name, &chosen, expected.get("grad.input"));

        let histories = record(module, &problem, |x, s| {
            let (output, state, _) = module.forward_histories(x, Some(s), options(&all, &masks));
            keep((output, state))
        });
        histories
            .only(is_shared)
            .assert_close(&expected.only(is_shared), name);
    });
}

/// With given states only, so that no mask is drawn.
#[test]
fn one_length_of_zero_packed() {
    for device in devices() {
        for (name, config) in all_variants() {
            let config = config.with_bidirectional(true);
            for strategy in [Strategy::Auto, Strategy::Composed] {
                let module = build(&config, 11, &device).with_strategy(strategy);
                let problem = Problem::new(&module, true, 12, &device);
                let list = Lengths::new([0, 2, T], T).unwrap();
                let expected = record(&module, &problem, |x, s| {
                    module.forward_with(x, Some(s), lengths(&list))
                });
                let got = record(&module, &problem, |x, s| {
                    let packed = PackedSequence::pack(x, [0, 2, T], true, false).unwrap();
                    assert_eq!(packed.sorted_indices(), [2, 1, 0]);
                    let (packed, state) = module.forward_packed(&packed, Some(s));
                    (packed.unpack(true).0, state)
                });
                got.assert_close(&expected, name);
            }
        }
    }
}

/// A Gal mask per cell where the variant has cells of known size, and none otherwise.
fn masks_of(module: &Recurrent, device: &Device) -> StackMasks {
    let mut numbers = Numbers::new(77);
    if matches!(module, Recurrent::AdaptiveLstm(_)) {
        return StackMasks::default();
    }
    let cells = cell_sizes(module).into_iter().map(|(d_hidden, d_output)| {
        let hidden = numbers.mask([B, d_output], 0.6, 1.25, device);
        let candidate = numbers.mask([T, B, d_hidden], 0.6, 1.25, device);
        Masks {
            hidden: Some(Mask::PerSequence(hidden)),
            candidate: Some(Mask::PerStep(candidate)),
            ..Masks::none()
        }
    });
    StackMasks {
        cells: cells.collect(),
        ..StackMasks::default()
    }
}

fn cell_of_two(masks: &Masks) -> Masks {
    let two = |mask: &Option<Mask>| {
        mask.clone().map(|mask| match mask {
            Mask::PerSequence(mask) => Mask::PerSequence(without_row_1(mask, 0)),
            Mask::PerStep(mask) => Mask::PerStep(without_row_1(mask, 1)),
        })
    };
    Masks {
        hidden: two(&masks.hidden),
        candidate: two(&masks.candidate),
        ..Masks::none()
    }
}

#[track_caller]
fn assert_list_close(name: &str, got: &[f64], expected: &[f64]) {
    if let Err(message) =
        recurrent_core::eval::compare::close(name, got, expected, gradient_tolerance())
    {
        panic!("{message}");
    }
}

#[test]
fn steps_of_no_sequences() {
    for device in devices() {
        for device in [device.clone(), device.without_autodiff()] {
            for (name, config) in all_variants() {
                for kind in [
                    RecurrentDropout::None,
                    RecurrentDropout::Gal { prob: 0.5 },
                    zoneout(&config, 0.5, 0.5),
                ] {
                    let config = config.clone().with_recurrent_dropout(kind);
                    for strategy in [Strategy::Auto, Strategy::Composed] {
                        let module = build(&config, 11, &device).with_strategy(strategy);
                        let x = || Tensor::<2>::zeros([0, I], &device);
                        let (y, state) = module.step(x(), None);
                        assert_eq!(y.dims(), [0, module.d_output()], "{name}");
                        let (y, state) = module.step(x(), Some(state));
                        assert_eq!(y.dims(), [0, module.d_output()], "{name}");
                        for (part, tensor) in named_state(&state) {
                            assert_eq!(tensor.dims()[0], 0, "{name}: {part}");
                            assert!(tensor.dims()[1] > 0, "{name}: {part}");
                        }
                    }
                }
            }
        }
    }
    let device = device_of_cells();
    let cell = LstmConfig::new(I, H).init_cell(&device);
    let (y, state) = cell.step(Tensor::zeros([0, I], &device), None);
    assert_eq!((y.dims(), state.cell.dims()), ([0, H], [0, H]));
    let cell = recurrent_modules::GruConfig::new(I, H).init_cell(&device);
    let (y, state) = cell.step(Tensor::zeros([0, I], &device), None);
    assert_eq!((y.dims(), state.hidden.dims()), ([0, H], [0, H]));
    let cell = recurrent_modules::AdaptiveLstmConfig::new(I, H).init_cell(&device);
    let policy = Tensor::zeros([0, cell.policy_size()], &device);
    let (y, state) = cell.step(Tensor::zeros([0, I], &device), policy, None);
    assert_eq!((y.dims(), state.cell.dims()), ([0, H], [0, H]));
}

fn device_of_cells() -> Device {
    recurrent_core::eval::device::device()
}

/// The output is where it would have been computed: a loss of it has a backward.
#[test]
fn plain_inputs_of_trained_modules() {
    let device = flex();
    for (name, config) in all_variants() {
        let module = build(&config, 11, &device);
        let plain = device.clone().without_autodiff();
        for shape in [[0, T, I], [B, 0, I]] {
            let (output, _) = module.forward(Tensor::zeros(shape, &plain), None);
            assert!(output.device().is_autodiff(), "{name}");
            output.sum().backward();
        }
    }
}

/// As Burn's own LSTM.
#[test]
fn shapes_are_those_of_burn_nn() {
    let device = device_of_cells();
    let theirs = burn::nn::LstmConfig::new(I, H, true).init(&device);
    let ours = LstmConfig::new(I, H).init(&device);
    for shape in [[0, T, I], [B, 0, I]] {
        let (expected, _): (_, LstmState<2>) = theirs.forward(Tensor::zeros(shape, &device), None);
        let (got, _) = ours.forward(Tensor::zeros(shape, &device), None);
        assert_eq!(got.dims(), expected.dims());
    }
}

//! Types of numbers: all tensors of a call have one, or the call panics before it computes anything.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_modules::{
    AdaptiveLstmConfig, ForwardOptions, LstmConfig, Mask, Masks, PackedSequence, Recurrent,
    RecurrentConfig, RecurrentDropout, StackMasks, Strategy, Unfused,
};

use crate::all_variants;
use crate::support::*;

/// Casts the parameters with an index that passes.
struct Cast<F> {
    dtype: DType,
    index: usize,
    chosen: F,
}

impl<F: Fn(usize) -> bool> ModuleMapper for Cast<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.index += 1;
        match (self.chosen)(self.index - 1) {
            true => {
                let value = param.val();
                let options = (&value.device(), self.dtype);
                Param::from_tensor(Tensor::from_data(value.to_data(), options))
            }
            false => param,
        }
    }
}

/// The module with some of its parameters cast, and how many it has.
fn cast<M: Module>(module: M, dtype: DType, chosen: impl Fn(usize) -> bool) -> (M, usize) {
    let mut cast = Cast {
        dtype,
        index: 0,
        chosen,
    };
    let module = module.map(&mut cast);
    (module, cast.index)
}

fn cast_all(module: Recurrent, dtype: DType) -> Recurrent {
    cast(module, dtype, |_| true).0
}

fn cast_problem(problem: &Problem, dtype: DType) -> Problem {
    Problem {
        input: problem.input.clone().cast(dtype),
        state: problem.state.clone().map(|part| part.cast(dtype)),
    }
}

const TYPES: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Devices with the types that they compute in.
fn devices_and_types() -> Vec<(Device, Vec<DType>)> {
    let mut list = vec![(flex(), TYPES.to_vec())];
    if let [_, ndarray] = &devices()[..] {
        list.push((ndarray.clone(), vec![DType::F32, DType::F64]));
    }
    list
}

fn panic_text<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("expected a panic"),
        Err(payload) => *payload.downcast::<String>().expect("a text"),
    }
}

/// A module, its input and its state of one type: everything runs, and has that type.
#[test]
fn one_type_runs() {
    for (device, types) in devices_and_types() {
        for (name, config) in all_variants() {
            let module = build(&config, 11, &device);
            let problem = Problem::new(&module, true, 12, &device);
            let expected = values(&module.forward(problem.input.clone(), None).0);
            for &dtype in &types {
                let name = format!("{name}, {dtype:?}, {device:?}");
                let module = cast_all(module.clone(), dtype);
                let problem = cast_problem(&problem, dtype);
                let x = || problem.input.clone();
                let step = || x().narrow(1, 0, 1).squeeze_dim::<2>(1);

                let unfused = module.unfused(&device, dtype);
                match dtype {
                    DType::F32 => assert!(!matches!(unfused, Some(Unfused::DType { .. }))),
                    got => assert_eq!(unfused, Some(Unfused::DType { got }), "{name}"),
                }

                let (output, state) = module.forward(x(), None);
                let tolerance = Tolerance::values(dtype.max(), T);
                if let Err(message) = close(&name, &values(&output), &expected, tolerance) {
                    panic!("{message}");
                }
                assert_eq!(output.dtype(), dtype, "{name}");
                for state in [state, module.initial_state(B, &device)] {
                    for (part, tensor) in named_state(&state) {
                        assert_eq!(tensor.dtype(), dtype, "{name}: {part}");
                    }
                }
                let (_, state) = module.forward(x(), Some(problem.state.clone()));
                let (output, state) = module.step(step(), Some(state));
                assert_eq!(output.dtype(), dtype, "{name}");
                assert_eq!(state.cells[0].parts[0].1.dtype(), dtype, "{name}");
                assert_eq!(module.step(step(), None).0.dtype(), dtype, "{name}");
                let packed = PackedSequence::pack(x(), [2, T, 0], true, false).unwrap();
                let (packed, _) = module.forward_packed(&packed, None);
                assert_eq!(packed.data().dtype(), dtype, "{name}");
                let options = ForwardOptions::default();
                let (output, _, histories) = module.forward_histories(x(), None, options);
                assert_eq!(output.dtype(), dtype, "{name}");
                assert_eq!(histories[0].parts[0].1.dtype(), dtype, "{name}");
                output.sum().backward();
            }
        }
    }
}

trait Widest {
    /// f32 is what is compared with.
    fn max(self) -> Self;
}

impl Widest for DType {
    fn max(self) -> Self {
        match self {
            DType::F64 => DType::F32,
            other => other,
        }
    }
}

/// Dropout of each kind, in training and in evaluation.
#[test]
fn masks_have_the_type_of_the_weights() {
    for (device, types) in devices_and_types() {
        for (name, config) in all_variants() {
            for kind in dropouts(&config, 0.3) {
                let config = config
                    .clone()
                    .with_recurrent_dropout(kind)
                    .with_weight_drop(0.2);
                let config = match config {
                    RecurrentConfig::AdaptiveLstm(c) => {
                        RecurrentConfig::AdaptiveLstm(c.with_dropout_adapt(0.4))
                    }
                    config => config.with_num_layers(2).with_dropout(0.5),
                };
                let module = build(&config, 11, &device);
                let problem = Problem::new(&module, true, 12, &device);
                for &dtype in &types {
                    let name = format!("{name}, {kind:?}, {dtype:?}, {device:?}");
                    let module = cast_all(module.clone(), dtype);
                    let x = problem.input.clone().cast(dtype);
                    let step = x.clone().narrow(1, 0, 1).squeeze_dim::<2>(1);
                    let masks = module.sample_masks(T, B, &device);
                    let cell = &masks.cells[0];
                    assert!(cell.types().all(|(_, got)| got == dtype), "{name}");
                    assert!(!masks.weights[0].is_empty(), "{name}");
                    let on_weights = masks.weights.iter().flatten();
                    assert!(on_weights.clone().all(|m| m.dtype() == dtype), "{name}");
                    for mask in masks.between.iter().flatten() {
                        assert_eq!(mask.dtype(), dtype, "{name}");
                        // The scale is that of the type, not that of f32.
                        let scale = Tensor::<1>::from_data([2.0_f64], (&device, dtype));
                        let scale = values(&scale)[0];
                        assert!(
                            values(mask).iter().all(|&v| v == 0.0 || v == scale),
                            "{name}"
                        );
                    }
                    let frozen = module.clone().freeze();
                    for module in [&module, &frozen] {
                        assert_eq!(module.forward(x.clone(), None).0.dtype(), dtype, "{name}");
                        assert_eq!(module.step(step.clone(), None).0.dtype(), dtype, "{name}");
                    }
                }
            }
        }
    }
}

/// In f64 the scale 1/(1 − p) of a mask has all of its digits.
#[test]
fn scales_are_rounded_once() {
    let device = flex();
    let config = LstmConfig::gal(I, H, 0.3);
    let (module, _) = cast(config.init(&device), DType::F64, |_| true);
    let masks = module.sample_masks(T, B, &device);
    let Some(Mask::PerSequence(mask)) = &masks.cells[0].hidden else {
        panic!("a mask per sequence")
    };
    let kept = values(mask).into_iter().find(|&v| v != 0.0);
    assert_eq!(kept, Some(1.0 / (1.0 - 0.3)));
}

fn every_call(module: &Recurrent, problem: &Problem) -> [String; 4] {
    let (x, s) = (|| problem.input.clone(), || Some(problem.state.clone()));
    let packed = PackedSequence::pack(x(), [T, 2, 1], true, false).unwrap();
    let options = ForwardOptions::default();
    let step = x().narrow(1, 0, 1).squeeze_dim::<2>(1);
    [
        panic_text(|| module.forward(x(), s())),
        panic_text(|| module.forward_packed(&packed, s())),
        panic_text(|| module.forward_histories(x(), s(), options)),
        panic_text(|| module.step(step, s())),
    ]
}

#[test]
fn mixed_inputs_and_states() {
    for (device, types) in devices_and_types() {
        for (name, config) in all_variants() {
            let built = build(&config, 11, &device);
            let problem = Problem::new(&built, true, 12, &device);
            for &weights in &types {
                for strategy in [Strategy::Auto, Strategy::Composed, Strategy::Fused] {
                    let module = cast_all(built.clone(), weights).with_strategy(strategy);
                    for other in types.iter().copied().filter(|&other| other != weights) {
                        let name = format!("{name}, {weights:?}, {other:?}, {strategy:?}");
                        let input = Problem {
                            input: problem.input.clone().cast(other),
                            ..cast_problem(&problem, weights)
                        };
                        let expected = format!(
                            "input has type {other:?}, expected {weights:?}, the type of the weights"
                        );
                        for text in every_call(&module, &input) {
                            assert_eq!(text, expected, "{name}");
                        }
                        let unfused = module.unfused(&device, other).expect("a reason");
                        assert_eq!(unfused.to_string(), expected, "{name}");
                        for place in 0..problem.state.cells[0].parts.len().min(2) {
                            let mut state = cast_problem(&problem, weights);
                            let (part, tensor) = &mut state.state.cells[0].parts[place];
                            *tensor = tensor.clone().cast(other);
                            let end = format!(
                                "{part}` has type {other:?}, expected {weights:?}, the type of \
                                 the weights"
                            );
                            for text in every_call(&module, &state) {
                                let ok = text.starts_with("state `") && text.ends_with(&end);
                                assert!(ok, "{name}: {text}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Each parameter by itself: none is forgotten in a cell's list of weights.
#[test]
fn mixed_weights() {
    let device = flex();
    for (name, config) in all_variants() {
        for config in [config.clone(), projected(config).with_bidirectional(true)] {
            let module = build(&config, 11, &device);
            let problem = Problem::new(&module, true, 12, &device);
            let (_, count) = cast(module.clone(), DType::F64, |_| false);
            for index in 0..count {
                let (module, _) = cast(module.clone(), DType::F64, |other| other == index);
                let text = panic_text(|| module.forward(problem.input.clone(), None));
                let says = |got, expected| {
                    text.starts_with("weight `layers[0].")
                        && text.ends_with(&format!(
                            "has type {got}, expected {expected}, the type of the other weights"
                        ))
                };
                // The first weight is what the others are compared with.
                assert!(
                    says("F64", "F32") || says("F32", "F64"),
                    "{name}, parameter {index}: {text}"
                );
                for dtype in [DType::F32, DType::F64] {
                    let unfused = module.unfused(&device, dtype).expect("a reason");
                    assert!(matches!(unfused, Unfused::Types(_)), "{name}: {unfused}");
                }
            }
            let all = cast_all(module, DType::F64);
            let input = problem.input.clone().cast(DType::F64);
            assert_eq!(all.forward(input, None).0.dtype(), DType::F64);
        }
    }
}

/// Nothing runs before the second layer's weights are looked at.
#[test]
fn mixed_layers() {
    let device = flex();
    let mut lstm = LstmConfig::new(I, H).with_num_layers(2).init(&device);
    lstm.layers[1] = cast(lstm.layers[1].clone(), DType::F16, |_| true).0;
    let text = panic_text(|| lstm.forward(Tensor::zeros([B, T, I], &device), None));
    assert_eq!(
        text,
        "weight `layers[1].forward.weight_input` has type F16, expected F32, the type of the other \
         weights"
    );
}

#[test]
fn mixed_masks() {
    let device = flex();
    for (name, config) in all_variants() {
        if matches!(config, RecurrentConfig::AdaptiveLstm(_)) {
            continue; // its masks hold all layers side by side: below
        }
        let config = config.with_num_layers(2);
        let built = build(&config, 11, &device);
        let problem = Problem::new(&built, true, 12, &device);
        for dtype in TYPES {
            let module = cast_all(built.clone(), dtype);
            let x = problem.input.clone().cast(dtype);
            for other in TYPES.into_iter().filter(|&other| other != dtype) {
                let says = |masks: &StackMasks, mask: &str| {
                    let text =
                        panic_text(|| module.forward_with(x.clone(), None, with_masks(masks)));
                    let expected = format!(
                        "mask `{mask} has type {other:?}, expected {dtype:?}, the type of the \
                         weights"
                    );
                    assert_eq!(text, expected, "{name}");
                    let step = x.clone().narrow(1, 0, 1).squeeze_dim::<2>(1);
                    let text = panic_text(|| module.step_with(step, None, masks, 0));
                    assert_eq!(text, expected, "{name}");
                };
                let one = |masks: Masks| StackMasks {
                    cells: vec![Masks::none(), masks],
                    ..StackMasks::default()
                };
                let rows = || Tensor::<2>::ones([B, H], (&device, other));
                let steps = || Tensor::<3>::ones([T, B, H], (&device, other));
                says(
                    &one(Masks {
                        hidden: Some(Mask::PerSequence(rows())),
                        ..Masks::none()
                    }),
                    "hidden`",
                );
                says(
                    &one(Masks {
                        candidate: Some(Mask::PerStep(steps())),
                        ..Masks::none()
                    }),
                    "candidate`",
                );
                if has_cell_state(&config) {
                    says(
                        &one(Masks {
                            update_cell: Some(Mask::PerStep(steps())),
                            ..Masks::none()
                        }),
                        "update_cell`",
                    );
                }
                says(
                    &StackMasks {
                        between: vec![Some(steps())],
                        ..StackMasks::default()
                    },
                    "between` after layer 0",
                );
                let mut weights = config
                    .clone()
                    .with_weight_drop(0.5)
                    .init(&device)
                    .sample_masks(T, B, &device);
                for mask in weights.weights.iter_mut().flatten() {
                    *mask = mask.clone().cast(other);
                }
                weights.between = vec![];
                let text =
                    panic_text(|| module.forward_with(x.clone(), None, with_masks(&weights)));
                assert_eq!(
                    text,
                    format!(
                        "mask `weights[0]` has type {other:?}, expected that of the recurrent \
                         weight, {dtype:?}"
                    ),
                    "{name}"
                );
            }
        }
    }
    let lstm = AdaptiveLstmConfig::new(I, H).with_d_adapt(4).init(&device);
    let mask = Tensor::<2>::ones([B, 4], (&device, DType::F64));
    let masks = StackMasks {
        cells: vec![Masks {
            adapt: Some(Mask::PerSequence(mask)),
            ..Masks::none()
        }],
        ..StackMasks::default()
    };
    let x = Tensor::<3>::ones([B, T, I], &device);
    let text = panic_text(|| lstm.forward_with(x, None, with_masks(&masks)));
    assert_eq!(
        text,
        "mask `adapt` has type F64, expected F32, the type of the weights"
    );
}

/// Bare cells have the same rule.
#[test]
fn bare_cells() {
    let device = recurrent_core::eval::device::device();
    let cell = LstmConfig::new(I, H).init_cell(&device);
    let (cell, _) = cast(cell, DType::F64, |_| true);
    let x = |dtype| Tensor::<2>::ones([B, I], (&device, dtype));
    assert_eq!(cell.step(x(DType::F64), None).0.dtype(), DType::F64);
    assert_eq!(
        panic_text(|| cell.step(x(DType::F32), None)),
        "input has type F32, expected F64, the type of the weights"
    );
    let cell = AdaptiveLstmConfig::new(I, H).init_cell(&device);
    let policy = |dtype| Tensor::<2>::ones([B, cell.policy_size()], (&device, dtype));
    let (y, _) = cell.step(x(DType::F32), policy(DType::F32), None);
    assert_eq!(y.dtype(), DType::F32);
    assert_eq!(
        panic_text(|| cell.step(x(DType::F32), policy(DType::F16), None)),
        "policy has type F16, expected F32, the type of the weights"
    );
    assert_eq!(
        panic_text(|| cell.step(x(DType::F64), policy(DType::F64), None)),
        "input has type F64, expected F32, the type of the weights"
    );
}

/// The rule for all kinds of dropout that a plain module takes its expectation of.
#[test]
fn zoneout_in_evaluation() {
    let device = recurrent_core::eval::device::device();
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let config = LstmConfig::new(I, H).with_recurrent_dropout(RecurrentDropout::Zoneout {
            hidden: 0.1,
            cell: 0.2,
        });
        let (lstm, _) = cast(config.init(&device), dtype, |_| true);
        let x = Tensor::<3>::ones([B, T, I], (&device, dtype));
        let (y, state) = lstm.forward(x.clone(), None);
        assert_eq!((y.dtype(), state.last().cell.dtype()), (dtype, dtype));
        let (y, _) = lstm.step(x.narrow(1, 0, 1).squeeze_dim(1), Some(state));
        assert_eq!(y.dtype(), dtype);
    }
}

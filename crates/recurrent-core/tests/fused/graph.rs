//! A fused run as a node of the graph: which gradients it gives, from which memory, how often.

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{DType, Device, Tensor};
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::{Preactivation, Transition};
use recurrent_core::eval::compare::values;
use recurrent_core::{LstmState, SequenceOptions, Strategy, sequence};
use rstest::rstest;

use crate::case::{Case, Results, dims};
use crate::common::{Random, devices};
use crate::kinds::{KINDS, Kind};
use crate::leaves::{Layout, Leaves};
use crate::options::{FEW_AND_ALL, option_sets};

/// A few cells with all that they can have.
fn full_cases() -> Vec<Case> {
    let odd = dims(3, 5, 7, 11);
    vec![
        Case::new(Kind::Lstm, "plain", odd),
        Case::new(Kind::Lstm, "everything without norms", odd).ragged(5),
        Case::new(Kind::Lstm, "everything with norms", odd).ragged(4),
        Case::new(Kind::Slow, "two biases", odd).backward(),
        Case::new(KINDS[6], "everything with norms", odd),
        Case::new(KINDS[10], "everything without norms", odd),
        Case::new(KINDS[15], "everything with norms", odd).backward(),
        Case::new(KINDS[22], "everything without norms", odd).ragged(4),
        Case::new(KINDS[24], "everything without norms", odd).ragged(4),
        Case::new(KINDS[25], "everything without norms", odd).backward(),
    ]
}

#[test]
fn each_parent_alone() {
    for case in full_cases() {
        for (_, device) in devices(DType::F32) {
            let all = case.fused(&device).gradients;
            for (name, expected) in &all {
                let only = |other: &str| other == name;
                let leaves = Leaves {
                    tracked: &only,
                    ..case.leaves(&device, DType::F32)
                };
                let gradients = case.results_on(&leaves, Strategy::Fused, false).gradients;
                for (other, got) in gradients {
                    let case = case.name();
                    if other == *name {
                        assert!(got.is_some(), "{case}: no gradient of {name}");
                        assert!(
                            got == *expected,
                            "{case}: {name} alone is not {name} with all"
                        );
                    } else {
                        assert!(got.is_none(), "{case}: {other} is not tracked");
                    }
                }
            }
        }
    }
}

#[rstest]
fn strided_tensors(#[values(Layout::Transposed, Layout::Sliced, Layout::Flipped)] layout: Layout) {
    for case in full_cases() {
        let expected = case.reference();
        for (device_name, device) in devices(DType::F32) {
            let leaves = case.laid_out(&device, layout);
            let got = case.results_on(&leaves, Strategy::Fused, false);
            let differences = case.differences(&got, &expected);
            assert!(
                differences.is_empty(),
                "{device_name}; {}; {layout:?}: {differences:?}",
                case.name()
            );
            // LN_x is Burn's, whose products of strided tensors round in another way.
            assert!(
                case.options.norms[0] || got == case.fused(&device),
                "{device_name}; {}: {layout:?} changes bits",
                case.name()
            );
        }
    }
}

/// The gradient of the output may lie in any order in memory.
#[test]
fn gradients_lie_as_they_may() {
    let [b, t, i, h] = [3, 5, 7, 11];
    let case = Case::new(Kind::Lstm, "plain", dims(b, t, i, h));
    for (device_name, device) in devices(DType::F32) {
        let leaves = case.leaves(&device, DType::F32);
        let draw = |random: &mut Random, count| random.values(count, 1.0);
        let weights: Tensor<3> = leaves.constant("weights", [t, b, h], draw);
        let gradients = |loss: &dyn Fn(Tensor<3>) -> Tensor<1>| {
            let outputs = case.run(&leaves, Strategy::Fused, false);
            leaves.gradients(&loss(outputs.output).backward())
        };
        let permuted = |axes: [isize; 3]| {
            // Weights of that order of axes next to each other, so that the product has it too.
            let weights = weights.clone().permute(axes);
            let weights = Tensor::<3>::from_data(weights.into_data(), &device);
            gradients(&move |output| (output.permute(axes) * weights.clone()).sum())
        };
        let expected = permuted([0, 1, 2]);
        let flipped = weights.clone().flip([0]);
        let flipped = gradients(&|output| (output.flip([0]) * flipped.clone()).sum());
        for (name, got) in [
            ("batch first", permuted([1, 0, 2])),
            ("features first", permuted([2, 0, 1])),
            ("flipped", flipped),
        ] {
            assert!(got == expected, "{device_name}: {name}");
        }
        // One number, seen everywhere.
        let all = |factor: Tensor<3>| {
            gradients(&move |output| (output * factor.clone().expand([t, b, h])).sum())
        };
        let ones: Tensor<3> = Tensor::ones([t, b, h], &device);
        assert!(
            all(ones) == all(Tensor::ones([1, 1, 1], &device)),
            "{device_name}: expanded"
        );
    }
}

/// The second call is the first, one after the other and interleaved.
#[test]
fn calls_do_not_disturb_each_other() {
    for case in full_cases() {
        for (_, device) in devices(DType::F32) {
            let expected = case.fused(&device);
            let leaves = case.leaves(&device, DType::F32);
            for _ in 0..2 {
                assert!(case.results_on(&leaves, Strategy::Fused, false) == expected);
            }

            let other = Case {
                lengths: None,
                ..case.clone()
            }
            .ragged(3);
            let other_expected = other.fused(&device);
            let first = case.run(&leaves, Strategy::Fused, false);
            let second = other.run(&leaves, Strategy::Fused, false);
            let grads = case.loss(&leaves, &first).backward();
            let other_grads = other.loss(&leaves, &second).backward();
            let got = Results {
                values: first.values(),
                gradients: leaves.gradients(&grads),
            };
            assert!(got == expected, "{}", case.name());
            let got = Results {
                values: second.values(),
                gradients: leaves.gradients(&other_grads),
            };
            assert!(got == other_expected, "{}", case.name());
        }
    }
}

/// Gradients add up where a weight is used by two runs.
#[test]
fn two_runs_in_one_graph() {
    let case = Case::new(Kind::Lstm, "everything with norms", dims(3, 5, 7, 11));
    for (_, device) in devices(DType::F32) {
        let once = case.fused(&device).gradients;
        let leaves = case.leaves(&device, DType::F32);
        let runs = [0, 1].map(|_| case.run(&leaves, Strategy::Fused, false));
        let [first, second] = runs.map(|run| case.loss(&leaves, &run));
        let twice = leaves.gradients(&(first + second).backward());
        for ((name, once), (_, twice)) in once.iter().zip(&twice) {
            let doubled = once.as_ref().map(|v| v.iter().map(|v| 2.0 * v).collect());
            assert_eq!(*twice, doubled, "{name}");
        }
    }
}

/// Without a state a run begins at zeros.
#[test]
fn no_state_is_zeros() {
    let [b, t, i, h] = [3, 5, 7, 11];
    for (_, device) in devices(DType::F32) {
        let case = Case::new(Kind::Lstm, "plain", dims(b, t, i, h));
        let leaves = case.leaves(&device, DType::F32);
        let cell = LstmStep {
            preact: Preactivation::plain(
                leaves.leaf("w", [i, 4 * h], 0.0, 1.0),
                leaves.leaf("r", [h, 4 * h], 0.0, 1.0),
                None,
            ),
            transition: Transition::default(),
        };
        let options = SequenceOptions {
            strategy: Strategy::Fused,
            ..SequenceOptions::default()
        };
        let zeros = LstmState {
            cell: Tensor::zeros([b, h], &device),
            hidden: Tensor::zeros([b, h], &device),
        };
        let run = |state| sequence::run(&cell, case.input(&leaves), state, &options);
        let (without, with) = (run(None), run(Some(zeros)));
        assert_eq!(values(&without.output), values(&with.output));
        assert_eq!(values(&without.state.cell), values(&with.state.cell));
    }
}

/// Inference does not keep what training keeps; the numbers are the same to the bit.
#[rstest]
fn inference_is_training(#[values(0, 1, 5, 6, 10, 13, 15, 22, 24, 25)] kind: usize) {
    let kind = KINDS[kind];
    let inference: Vec<Device> = devices(DType::F32)
        .into_iter()
        .map(|(_, device)| device.inner())
        .collect();
    for options in option_sets() {
        for case in [
            Case::new(kind, options.name, dims(5, 4, 7, 11)),
            Case::new(kind, options.name, dims(6, 3, 7, 33)).ragged(3),
            Case::new(kind, options.name, dims(1, 2, 9, 17)).backward(),
            Case::new(kind, options.name, dims(1, 12, 9, 17)),
            Case::new(kind, options.name, dims(1, 40, 9, 17)).backward(),
            Case::new(kind, options.name, dims(9, 6, 5, 20)).backward(),
        ] {
            if !kind.has(&case.options) {
                continue;
            }
            for ((_, training), inference) in devices(DType::F32).into_iter().zip(&inference) {
                let values = |device: &Device, tracked: bool, layout: Layout| {
                    let tracked = move |_: &str| tracked;
                    let leaves = Leaves {
                        tracked: &tracked,
                        ..case.laid_out(device, layout)
                    };
                    case.run(&leaves, Strategy::Fused, false).values()
                };
                let expected = values(&training, true, Layout::Plain);
                let plain = values(&training, false, Layout::Plain);
                assert!(plain == expected, "{}", case.name());
                // There the input is read as it lies.
                for layout in [Layout::Plain, Layout::Transposed, Layout::Flipped] {
                    // LN_x is Burn's, whose products of strided tensors round in another way.
                    if layout == Layout::Plain || !case.options.norms[0] {
                        let got = values(inference, false, layout);
                        assert!(got == expected, "{}, {layout:?}", case.name());
                    }
                }
            }
        }
    }
}

/// The same for weights that are too large to be packed.
#[rstest]
fn inference_is_training_with_large_weights(#[values(0, 24, 25)] kind: usize) {
    for name in FEW_AND_ALL {
        let case = Case::new(KINDS[kind], name, dims(1, 2, 9, 640));
        if !case.kind.has(&case.options) {
            continue;
        }
        let (_, training) = devices(DType::F32).swap_remove(0);
        let trained = case.run(&case.leaves(&training, DType::F32), Strategy::Fused, false);
        let leaves = Leaves {
            tracked: &|_| false,
            ..case.leaves(&training.clone().inner(), DType::F32)
        };
        let got = case.run(&leaves, Strategy::Fused, false);
        assert!(got.values() == trained.values(), "{name}");
    }
}

/// Values in the memory that a tensor on Flex keeps alive.
fn kept_alive<const D: usize>(tensor: &Tensor<D>) -> usize {
    match tensor.clone().into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.storage::<f32>().len(),
        other => panic!("a tensor of Flex, got {other:?}"),
    }
}

/// What a caller keeps of a call keeps nothing else: a state of a long sequence is as small as that of one
/// step.
#[rstest]
fn results_own_their_memory(
    #[values(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25
    )]
    kind: usize,
) {
    for name in ["plain", "projection"] {
        for dims in [dims(3, 50, 4, 9), dims(1, 1, 4, 9), dims(1, 30, 4, 9)] {
            let case = Case::new(KINDS[kind], name, dims);
            for case in [case.clone(), case.ragged(dims.seq_length)] {
                let device = Device::flex();
                let leaves = Leaves {
                    tracked: &|_| false,
                    ..case.leaves(&device, DType::F32)
                };
                let outputs = case.run(&leaves, Strategy::Fused, false);
                for (part, state) in &outputs.state {
                    let own = state.dims().iter().product::<usize>();
                    let kept = kept_alive(state);
                    assert_eq!(kept, own, "{}: final {part}", case.name());
                }
                let own = outputs.output.dims().iter().product::<usize>();
                let kept = kept_alive(&outputs.output);
                assert!(7 * kept <= 8 * own + 7, "{}: {kept} for {own}", case.name());
            }
        }
    }
}

//! The states of all steps: fused is composed, and asking for them changes nothing else.

use burn::tensor::{DType, Device};
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_core::sequence::target;
use recurrent_core::{Direction, Strategy, Target};
use rstest::rstest;

use crate::agreement::cases;
use crate::case::{Case, Outputs, Results, dims};
use crate::common::devices;
use crate::kinds::KINDS;
use crate::leaves::Leaves;
use crate::options::FEW_AND_ALL;

/// Cotangents on the output, the final state and every history together.
fn all(case: &Case, leaves: &Leaves<'_>, strategy: Strategy) -> Results {
    let outputs = case.run_recorded(leaves, strategy);
    let grads = case.loss(leaves, &outputs).backward();
    Results {
        values: outputs.values(),
        gradients: leaves.gradients(&grads),
    }
}

#[rstest]
fn every_option_set(
    #[values(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25
    )]
    kind: usize,
) {
    let mut failures = vec![];
    let reference = Device::flex().autodiff();
    // Other sizes, lengths and directions than where no history is asked for.
    for case in cases(KINDS[kind], 4 * kind + 7) {
        let leaves = case.leaves(&reference, DType::F64);
        let expected = all(&case, &leaves, Strategy::Composed);
        for (device_name, device) in devices(DType::F32) {
            if case.unfused(&device).is_some() {
                continue;
            }
            let got = all(&case, &case.leaves(&device, DType::F32), Strategy::Fused);
            let prefix = format!("{device_name}; {}", case.name());
            let differences = case.differences(&got, &expected);
            failures.extend(differences.iter().map(|text| format!("{prefix}: {text}")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The gradients of one history alone. Where nothing leads from a leaf to it, the composed scan has none
/// and a kernel zeros.
fn of_one(case: &Case, leaves: &Leaves<'_>, strategy: Strategy, index: usize) -> Results {
    let outputs = case.run_recorded(leaves, strategy);
    let grads = case.history_loss(leaves, &outputs, index).backward();
    Results {
        values: vec![],
        gradients: leaves.gradients(&grads),
    }
}

#[rstest]
fn one_history_alone(#[values(0, 1, 4, 6, 10, 14, 18, 20, 21, 22, 23, 24, 25)] kind: usize) {
    let reference = Device::flex().autodiff();
    for name in FEW_AND_ALL {
        let plain = Case::new(KINDS[kind], name, dims(3, 4, 7, 11));
        if !plain.kind.has(&plain.options) {
            continue;
        }
        for case in [plain.clone(), plain.ragged(4).backward()] {
            let parts = case.cell(&case.leaves(&reference, DType::F64)).parts();
            for (index, (part, _)) in parts.into_iter().enumerate() {
                let leaves = case.leaves(&reference, DType::F64);
                let expected = of_one(&case, &leaves, Strategy::Composed, index);
                let arrived = expected.gradients.iter().filter(|(_, grad)| grad.is_some());
                assert!(arrived.count() >= 4, "{}: too few gradients", case.name());
                for (device_name, device) in devices(DType::F32) {
                    if case.unfused(&device).is_some() {
                        continue;
                    }
                    let leaves = case.leaves(&device, DType::F32);
                    let got = of_one(&case, &leaves, Strategy::Fused, index);
                    for ((name, got), (_, expected)) in
                        got.gradients.iter().zip(&expected.gradients)
                    {
                        let what =
                            format!("{device_name}; {}; {part} {index}; {name}", case.name());
                        match (got, expected) {
                            (Some(got), Some(expected)) => {
                                let tolerance = Tolerance::gradients(DType::F32, 4);
                                close(&what, got, expected, tolerance).unwrap();
                            }
                            (Some(got), None) => {
                                assert!(got.iter().all(|&v| v == 0.0), "{what}: {got:?}");
                            }
                            (None, None) => {}
                            (None, Some(_)) => panic!("{what}: none arrived"),
                        }
                    }
                }
            }
        }
    }
}

/// Output and final state of two runs, bit by bit; up to rounding on devices of CubeCL, where small layers
/// run all steps in one launch unless the states are asked for.
fn same(case: &Case, device: &Device, recorded: &Outputs, plain: &Outputs) {
    let plain = plain.values();
    for ((part, got), (_, expected)) in recorded.values().iter().zip(&plain) {
        let what = format!("{}: {part}", case.name());
        if target(device) == Some(Target::Cube) {
            let tolerance = Tolerance::values(DType::F32, case.dims.seq_length);
            close(&what, got, expected, tolerance).unwrap();
        } else {
            assert_eq!(got, expected, "{what}");
        }
    }
}

/// Output and final state are those of a run that does not record, in training and in inference; so are
/// the histories of the two. Each sequence's history ends with its final state.
#[rstest]
fn nothing_else_changes(#[values(0, 1, 4, 6, 10, 14, 18, 20, 21, 22, 23, 24, 25)] kind: usize) {
    for name in FEW_AND_ALL {
        for dims in [dims(1, 9, 7, 11), dims(6, 9, 7, 33), dims(13, 3, 17, 16)] {
            let plain = Case::new(KINDS[kind], name, dims);
            if !plain.kind.has(&plain.options) {
                continue;
            }
            for case in [plain.clone(), plain.ragged(dims.seq_length).backward()] {
                for (_, device) in devices(DType::F32) {
                    if case.unfused(&device).is_some() {
                        continue;
                    }
                    let run = |device: &Device| {
                        // The inner device knows no leaves of a graph.
                        let on_graph = device.is_autodiff();
                        let leaves = Leaves {
                            tracked: &|_| on_graph,
                            ..case.leaves(device, DType::F32)
                        };
                        let recorded = case.run_recorded(&leaves, Strategy::Fused);
                        let plain = case.run(&leaves, Strategy::Fused, false);
                        same(&case, device, &recorded, &plain);
                        recorded
                    };
                    let (training, inference) = (run(&device), run(&device.clone().inner()));
                    same(&case, &device, &training, &inference);
                    ends(&case, &inference);
                }
            }
        }
    }
}

/// The last of each history is the final state, and padding is zero.
fn ends(case: &Case, outputs: &Outputs) {
    let (batch, steps) = (case.dims.batch_size, case.dims.seq_length);
    for ((part, history), (_, last)) in outputs.histories.iter().zip(&outputs.state) {
        let [_, _, features] = history.dims();
        let (history, last) = (values(history), values(last));
        for row in 0..batch {
            let length = case.lengths.as_ref().map_or(steps, |list| list[row]);
            let end = match case.direction {
                Direction::Forward => length - 1,
                Direction::Backward => 0,
            };
            let at = |step: usize| &history[(step * batch + row) * features..][..features];
            let last = &last[row * features..][..features];
            assert_eq!(at(end), last, "{}: {part}, row {row}", case.name());
            for step in length..steps {
                assert!(
                    at(step).iter().all(|&v| v == 0.0),
                    "{}: {part}",
                    case.name()
                );
            }
        }
    }
}

/// The strategy is not ignored: some last bit tells a kernel from the composed scan.
#[test]
fn fused_is_fused() {
    for (_, device) in devices(DType::F32) {
        let case = Case::new(KINDS[0], "plain", dims(6, 9, 7, 33));
        let results = |strategy| all(&case, &case.leaves(&device, DType::F32), strategy);
        let fused = results(Strategy::Fused);
        assert!(results(Strategy::Auto) == fused);
        assert!(results(Strategy::Composed) != fused);
    }
}

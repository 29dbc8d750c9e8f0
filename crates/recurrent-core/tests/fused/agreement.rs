//! Fused is composed, up to rounding.

use burn::tensor::DType;
use recurrent_core::eval::compare::{Tolerance, close};
use recurrent_core::sequence::target;
use recurrent_core::{Dims, Strategy, Target};
use rstest::rstest;

use crate::case::{Case, check_all, dims};
use crate::common::devices;
use crate::kinds::{KINDS, Kind};
use crate::leaves::Leaves;
use crate::options::{FEW_AND_ALL, option_sets};

/// Sizes on both sides of a vector's end, each with the others in turn: B of every kind of tile, one
/// step, one feature, one unit.
const SIZES: [Dims; 15] = [
    dims(1, 9, 7, 11),
    dims(2, 2, 17, 16),
    dims(5, 9, 1, 3),
    dims(6, 2, 70, 17),
    dims(7, 9, 7, 15),
    dims(13, 2, 17, 33),
    dims(2, 9, 70, 31),
    dims(5, 1, 7, 65),
    dims(6, 9, 17, 1),
    dims(7, 1, 1, 17),
    dims(1, 1, 70, 33),
    dims(1, 2, 17, 65),
    dims(13, 9, 7, 16),
    dims(6, 9, 7, 33),
    dims(2, 9, 1, 65),
];

/// Each option set with two sizes; direction and lengths go round with them.
pub fn cases(kind: Kind, first: usize) -> Vec<Case> {
    let sets = option_sets().into_iter().filter(|set| kind.has(set));
    let mut turn = first;
    let mut cases = vec![];
    for options in sets {
        let mut found = 0;
        while found < 2 {
            turn += 1;
            let dims = SIZES[turn % SIZES.len()];
            if options.cancels(&dims) || options.excluded(&dims).is_some() {
                continue;
            }
            found += 1;
            let mut case = Case::new(kind, options.name, dims);
            if turn.is_multiple_of(2) {
                // Some shorter than the input throughout.
                let longest =
                    dims.seq_length - usize::from(turn.is_multiple_of(4) && dims.seq_length > 2);
                case = case.ragged(longest);
            }
            if turn.is_multiple_of(3) {
                case = case.backward();
            }
            cases.push(case);
        }
    }
    cases
}

#[rstest]
fn every_option_set(
    #[values(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25
    )]
    kind: usize,
) {
    check_all(&cases(KINDS[kind], 4 * kind));
}

/// The list above covers what it should.
#[test]
fn all_sizes_are_used() {
    let all: Vec<Case> = (0..KINDS.len())
        .flat_map(|kind| cases(KINDS[kind], 4 * kind))
        .collect();
    for dims in SIZES {
        let with = all.iter().filter(|case| case.dims == dims);
        let (mut plain, mut ragged) = (0, 0);
        for case in with {
            *(match case.lengths {
                Some(_) => &mut ragged,
                None => &mut plain,
            }) += 1;
        }
        assert!(plain > 0 && ragged > 0, "{dims:?}: {plain}, {ragged}");
    }
    println!("{} cases", all.len());
}

/// Every size for the LSTM itself and the GRU, without options and with all.
#[rstest]
fn every_size(#[values(0, 24, 25)] kind: usize) {
    let kind = KINDS[kind];
    let mut all = vec![];
    for dims in SIZES {
        for name in FEW_AND_ALL {
            let case = Case::new(kind, name, dims);
            if kind.has(&case.options)
                && !case.options.cancels(&dims)
                && case.options.excluded(&dims).is_none()
            {
                all.push(case);
            }
        }
    }
    check_all(&all);
}

/// Sizes of which every feature is part of a vector, of two values and of four; x wider than h and
/// narrower. Of more sequences than one, with and without lengths.
#[rstest]
fn adaptive_in_vectors(#[values(20, 21, 22, 23)] kind: usize) {
    let mut all = vec![];
    for name in ["plain", "no bias", "everything without norms", "zoneout"] {
        for dims in [dims(3, 5, 6, 12), dims(5, 4, 24, 16), dims(4, 3, 8, 8)] {
            let case = Case::new(KINDS[kind], name, dims);
            all.push(case.clone());
            all.push(case.ragged(dims.seq_length).backward());
        }
    }
    check_all(&all);
}

#[test]
fn long() {
    let dims = dims(2, 300, 3, 11);
    check_all(&[
        Case::new(Kind::Lstm, "plain", dims),
        Case::new(Kind::Lstm, "everything without norms", dims).ragged(287),
        Case::new(KINDS[6], "plain", dims).backward(),
        Case::new(KINDS[19], "plain", dims),
        Case::new(KINDS[22], "plain", dims),
        Case::new(KINDS[24], "everything without norms", dims).ragged(287),
        Case::new(KINDS[25], "plain", dims).backward(),
    ]);
}

/// Sizes that take other paths through the kernels.
#[rstest]
// One sequence with weights too large to be packed, and the same with rows normalised.
#[case("plain", dims(1, 2, 9, 640))]
#[case("LN_h alone", dims(1, 2, 9, 640))]
#[case("projection", dims(1, 2, 9, 1100))]
// More columns than a block of k has.
#[case("plain", dims(3, 3, 300, 300))]
#[case("everything with norms", dims(3, 3, 260, 290))]
// More rows than a chunk of the input has; work enough for several threads.
#[case("plain", dims(10, 60, 5, 33))]
#[case("everything without norms", dims(10, 60, 5, 33))]
#[case("Ba et al.: bias outside, raw cell carried", dims(10, 60, 5, 33))]
// A chunk of one step.
#[case("plain", dims(300, 2, 5, 3))]
#[case("zoneout", dims(1, 1, 300, 70))]
fn large(#[case] name: &str, #[case] dims: Dims) {
    let case = Case::new(Kind::Lstm, name, dims);
    let mut all = vec![case.clone()];
    if dims.batch_size > 1 {
        all.push(case.ragged(dims.seq_length).backward());
    }
    check_all(&all);
}

/// The same sizes for the GRU.
#[rstest]
#[case("plain", dims(1, 2, 9, 640))]
#[case("plain", dims(3, 3, 300, 300))]
#[case("everything without norms", dims(10, 60, 5, 33))]
#[case("plain", dims(300, 2, 5, 3))]
#[case("zoneout", dims(1, 1, 300, 70))]
fn large_gru(#[case] name: &str, #[case] dims: Dims, #[values(24, 25)] kind: usize) {
    let case = Case::new(KINDS[kind], name, dims);
    let mut all = vec![case.clone()];
    if dims.batch_size > 1 {
        all.push(case.ragged(dims.seq_length).backward());
    }
    check_all(&all);
}

/// Full peepholes have a second recurrent matrix.
#[test]
fn large_with_full_peepholes() {
    check_all(&[
        Case::new(KINDS[10], "plain", dims(1, 2, 9, 640)),
        Case::new(KINDS[10], "plain", dims(3, 3, 40, 300)),
        Case::new(KINDS[10], "two biases", dims(10, 40, 5, 33)),
    ]);
}

/// Packed rows, against the padded batch step by step.
#[rstest]
fn packed_rows(#[values(0, 5, 6, 10, 15, 22, 24, 25)] kind: usize) {
    for name in FEW_AND_ALL {
        for (turn, dims) in [dims(5, 9, 7, 11), dims(6, 9, 7, 33), dims(13, 2, 17, 16)]
            .into_iter()
            .enumerate()
        {
            let mut case = Case::new(KINDS[kind], name, dims).ragged(dims.seq_length);
            if !case.kind.has(&case.options) {
                continue;
            }
            if turn % 2 == 1 {
                case = case.backward();
            }
            let expected = case.reference();
            for (device_name, device) in devices(DType::F32) {
                let leaves = case.leaves(&device, DType::F32);
                let got = case.results_on(&leaves, Strategy::Fused, true);
                // With all norms, software Vulkan's composed scan in f32 is 7.5e-6 off in one of these,
                // the kernel 1.6e-5.
                let factor = match target(&device) {
                    Some(Target::Cube) => 4.0,
                    _ => 1.0,
                };
                let differences = case.differences_within(&got, &expected, factor);
                assert!(
                    differences.is_empty(),
                    "{device_name}; {}: {differences:?}",
                    case.name()
                );
            }
        }
    }
}

/// The comparison must be able to fail: two gates swapped in the weights of the fused run.
#[rstest]
fn swapped_gates_are_noticed(#[values(0, 1, 4, 5, 6, 10, 13, 15, 24, 25)] kind: usize) {
    let kind = KINDS[kind];
    let (_, device) = devices(DType::F32).swap_remove(0);
    for name in FEW_AND_ALL {
        let case = Case::new(kind, name, dims(3, 5, 7, 11)).ragged(5);
        if !kind.has(&case.options) {
            continue;
        }
        let expected = case.reference();
        let units = case.dims.d_hidden;
        let gates = kind.gates();
        for first in 0..gates {
            for second in first + 1..gates {
                let swap = |name: &str, values: &mut Vec<f64>| {
                    if name != "weight_input" {
                        return;
                    }
                    for row in values.chunks_mut(gates * units) {
                        for unit in 0..units {
                            row.swap(first * units + unit, second * units + unit);
                        }
                    }
                };
                let leaves = Leaves {
                    alter: &swap,
                    ..case.leaves(&device, DType::F32)
                };
                let got = case.results_on(&leaves, Strategy::Fused, false);
                let differences = case.differences(&got, &expected);
                for part in [
                    "output",
                    "final hidden",
                    "final cell",
                    "gradient of weight_input",
                    "gradient of weight_hidden",
                    "gradient of x",
                    "gradient of hidden",
                    "gradient of cell",
                ] {
                    if part.ends_with("cell") && !kind.has_cell_state() {
                        continue;
                    }
                    assert!(
                        differences.iter().any(|text| text.starts_with(part)),
                        "{}: gates {first} and {second} swapped, {part} unchanged",
                        case.name()
                    );
                }
            }
        }
    }
}

/// The same of the aLSTM, whose weights have two gates swapped in turn.
#[test]
fn swapped_gates_of_the_adaptive_are_noticed() {
    let (_, device) = devices(DType::F32).swap_remove(0);
    let case = Case::new(KINDS[22], "plain", dims(3, 5, 7, 11)).ragged(5);
    let expected = case.reference();
    for layer in 0..2 {
        for part in ["adapt", "cell"] {
            for weight in ["weight_input", "weight_hidden"] {
                let altered = format!("layer_{layer}.{part}.{weight}");
                let units = 4 * layer + if part == "cell" { 11 } else { 10 };
                let swap = |name: &str, values: &mut Vec<f64>| {
                    if name == altered {
                        for row in values.chunks_mut(4 * units) {
                            (0..units).for_each(|unit| row.swap(unit, units + unit));
                        }
                    }
                };
                let leaves = Leaves {
                    alter: &swap,
                    ..case.leaves(&device, DType::F32)
                };
                let got = case.results_on(&leaves, Strategy::Fused, false);
                let differences = case.differences(&got, &expected);
                for part in [
                    "output",
                    "final main hidden",
                    "gradient of x",
                    "gradient of main",
                ] {
                    assert!(
                        differences.iter().any(|text| text.starts_with(part)),
                        "{altered} swapped, {part} unchanged"
                    );
                }
            }
        }
    }
}

/// Rounding apart, the f32 scan is as far from the f64 one as the kernel is: the reference is not
/// too kind.
#[test]
fn composed_in_f32_is_no_closer() {
    let case = Case::new(Kind::Lstm, "plain", dims(6, 9, 7, 33));
    let expected = case.reference();
    let (_, device) = devices(DType::F32).swap_remove(0);
    let leaves = case.leaves(&device, DType::F32);
    let composed = case.results_on(&leaves, Strategy::Composed, false);
    let fused = case.fused(&device);
    let error =
        |got: &[f64], expected: &[f64]| close("", got, expected, Tolerance(1.0)).expect("a number");
    for (((name, a), (_, b)), (_, expected)) in
        (fused.values.iter().zip(&composed.values)).zip(&expected.values)
    {
        let (fused, composed) = (error(a, expected), error(b, expected));
        assert!(
            fused < 4.0 * composed + 1e-7,
            "{name}: {fused:e} {composed:e}"
        );
    }
}

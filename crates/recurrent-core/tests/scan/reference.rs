//! Values and gradients against the oracle, for every problem × option set × cell × direction ×
//! lengths × device.

use burn::tensor::{DType, Device};
use recurrent_core::Direction;
use recurrent_core::eval::compare::{Tolerance, close};
use recurrent_core::eval::problems::{Problem, SMALL};
use rstest::rstest;

use crate::common::devices;
use crate::network::{Network, outcome};
use crate::options::{FEW_AND_ALL, Kind, length_lists, option_sets, options};
use crate::setup::{Outcome, Setup};

/// What a run should give. Without slopes, gradients are not compared.
struct Reference {
    outcome: Outcome,
    slopes: Option<Vec<(&'static str, Vec<f64>)>>,
    /// How good the slopes themselves are.
    slopes_error: f64,
}

impl Reference {
    fn new(setup: &Setup, dtype: DType) -> Self {
        let outcome = setup.expected();
        let values_only = |outcome| Self {
            outcome,
            slopes: None,
            slopes_error: 0.0,
        };
        if dtype == DType::F32 && setup.options.cancels(&setup.dims) {
            println!("gradients in f64 only: {}", setup.name);
            return values_only(outcome);
        }
        if setup.dims.seq_length <= 10 {
            return Self {
                outcome,
                slopes: Some(setup.slopes()),
                slopes_error: 1e-6,
            };
        }
        if !FEW_AND_ALL.contains(&setup.options.name) {
            println!("gradients on short problems only: {}", setup.name);
            return values_only(outcome);
        }
        // Slopes would take two long runs per number. Gradients in f64, which the short problems
        // check against slopes, stand in.
        let (_, device) = &devices(DType::F64)[0];
        let network =
            Network::tracking(setup, setup.options.cells[0], device, DType::F64, |_| true);
        let gradients = network.backward().into_iter();
        Self {
            outcome,
            slopes: Some(
                gradients
                    .map(|(name, got)| (name, got.expect("a gradient")))
                    .collect(),
            ),
            slopes_error: 0.0,
        }
    }
}

/// One cell on one device against the reference; pushes every difference.
fn check(
    setup: &Setup,
    reference: &Reference,
    kind: Kind,
    (device_name, device): &(String, Device),
    dtype: DType,
    failures: &mut Vec<String>,
) {
    let name = format!("{}; {kind:?} on {device_name} {dtype:?}", setup.name);
    let network = Network::tracking(setup, kind, device, dtype, |_| true);
    let run = network.run();
    let got = outcome(&run);
    let tolerance = Tolerance::values(dtype, setup.dims.seq_length);
    for ((part, got), (_, expected)) in got.parts().into_iter().zip(reference.outcome.parts()) {
        failures.extend(close(&format!("{name}: {part}"), got, expected, tolerance).err());
    }
    let mut zeroed = got.output.clone();
    setup.fill_padding(&mut zeroed, 0.0);
    if zeroed != got.output {
        failures.push(format!("{name}: output past a length is not zero"));
    }

    let Some(slopes) = &reference.slopes else {
        return;
    };
    let tolerance = Tolerance::gradients(dtype, setup.dims.seq_length);
    let tolerance = Tolerance(tolerance.0.max(reference.slopes_error));
    let gradients = network.gradients(&network.loss(&run).backward());
    assert_eq!(gradients.len(), slopes.len(), "{name}");
    for ((part, got), (other, expected)) in gradients.into_iter().zip(slopes) {
        assert_eq!(part, *other, "{name}");
        match got {
            Some(got) => {
                let part = format!("{name}: gradient of {part}");
                failures.extend(close(&part, &got, expected, tolerance).err());
            }
            None => failures.push(format!("{name}: {part} got no gradient")),
        }
    }
}

/// Every option set of one problem in one direction; returns how many runs were compared.
fn check_problem(problem: &Problem, direction: Direction, dtype: DType) -> usize {
    let (mut checked, mut failures) = (0, vec![]);
    let devices = devices(dtype);
    for options in option_sets() {
        if let Some(reason) = options.excluded(&problem.dims) {
            println!("skipped: {}; {}: {reason}", problem.name, options.name);
            continue;
        }
        for lengths in length_lists(problem) {
            let setup = Setup::new(problem, &options, direction, lengths);
            let reference = Reference::new(&setup, dtype);
            for &kind in options.cells {
                for device in &devices {
                    check(&setup, &reference, kind, device, dtype, &mut failures);
                    checked += 1;
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} differences in {checked} runs:\n{}",
        failures.len(),
        failures.join("\n")
    );
    checked
}

#[rstest]
fn values_and_gradients_are_those_of_the_oracle(
    #[values(0, 1, 2, 3, 4, 5)] problem: usize,
    #[values(Direction::Forward, Direction::Backward)] direction: Direction,
) {
    let problem = &SMALL[problem];
    let checked = check_problem(problem, direction, DType::F32);
    println!("{}; {direction:?}: {checked} runs", problem.name);
}

#[test]
fn every_problem_has_a_case() {
    assert_eq!(SMALL.len(), 6, "add the index to the cases above");
}

/// In f64 the tensor code and the oracle agree to rounding.
#[rstest]
fn in_f64_too(
    #[values(1, 2, 3, 4)] problem: usize,
    #[values(Direction::Forward, Direction::Backward)] direction: Direction,
) {
    let problem = &SMALL[problem];
    let checked = check_problem(problem, direction, DType::F64);
    println!("{}; {direction:?}: {checked} runs in f64", problem.name);
}

/// Every option acts: without it the oracle gives something else.
#[test]
fn options_change_the_result() {
    let mut unnoticed = vec![];
    for problem in &SMALL {
        for options in option_sets() {
            // Where there are few numbers, one option may hide behind another.
            let crowded = options.name.starts_with("everything") && problem.name != "odd sizes";
            if crowded || options.excluded(&problem.dims).is_some() {
                continue;
            }
            let setup = Setup::new(problem, &options, Direction::Forward, None);
            let mut without: Vec<(&str, Setup)> = vec![];
            let mut remove = |name, applies: bool, change: fn(&mut Setup)| {
                if applies {
                    let mut changed = setup.clone();
                    change(&mut changed);
                    without.push((name, changed));
                }
            };
            remove("bias", options.bias, |s| s.oracle.bias.clear());
            remove("inner biases", options.inner_biases, |s| {
                s.oracle.bias_input.clear();
                s.oracle.bias_hidden.clear();
            });
            remove("clip", options.clip.is_some(), |s| s.oracle.clip = None);
            remove("LN_x", options.norms[0], |s| s.oracle.norm_input = None);
            remove("LN_h", options.norms[1], |s| s.oracle.norm_hidden = None);
            remove("LN_c", options.norms[2], |s| s.oracle.norm_cell = None);
            for (index, mask) in setup.masks.iter().enumerate() {
                if mask.is_some() {
                    let mut changed = setup.clone();
                    changed.masks[index] = None;
                    without.push(("mask", changed));
                }
            }
            let with = setup.expected();
            for (option, changed) in without {
                let other = changed.expected();
                let same = with
                    .parts()
                    .into_iter()
                    .zip(other.parts())
                    .all(|((_, a), (_, b))| close("", a, b, Tolerance(1e-4)).is_ok());
                if same {
                    unnoticed.push(format!("{}: {option}", setup.name));
                }
            }
        }
    }
    assert!(unnoticed.is_empty(), "no effect:\n{}", unnoticed.join("\n"));
}

/// The comparison must be able to fail: gates swapped in the tensors, not in the oracle.
#[test]
fn swapped_gates_are_noticed() {
    let problem = &SMALL[0];
    let units = problem.dims.d_hidden;
    let device = &devices(DType::F32)[0];
    for name in FEW_AND_ALL {
        let options = options(name);
        let setup = Setup::new(problem, &options, Direction::Forward, Some(vec![2, 5, 3]));
        let reference = Reference::new(&setup, DType::F32);
        for (first, second) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
            let mut swapped = setup.clone();
            for row in swapped.oracle.weight_input.chunks_mut(4 * units) {
                for unit in 0..units {
                    row.swap(first * units + unit, second * units + unit);
                }
            }
            let mut failures = vec![];
            let kind = options.cells[0];
            check(
                &swapped,
                &reference,
                kind,
                device,
                DType::F32,
                &mut failures,
            );
            for part in [
                "output",
                "final hidden",
                "final cell",
                "gradient of weight_input",
            ] {
                assert!(
                    failures.iter().any(|failure| failure.contains(part)),
                    "{}: gates {first} and {second} swapped, {part} unchanged",
                    setup.name
                );
            }
        }
    }
}

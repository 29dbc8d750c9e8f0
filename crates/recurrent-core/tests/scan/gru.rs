//! The GRU in both forms: values and gradients against the oracle, identities, calls that do not fit.

use burn::tensor::{DType, Device, Tensor};
use recurrent_core::cell::gru::GruStep;
use recurrent_core::cell::{Affine, drop_weights};
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_core::eval::oracle::{GruOracle, OracleMasks};
use recurrent_core::eval::problems::{Problem, SMALL};
use recurrent_core::{
    Dims, Direction, GruState, Lengths, Mask, Masks, Packing, SequenceOptions, SequenceOutput,
    Step, Strategy, sequence,
};
use rstest::rstest;

use crate::common::{Random, devices, dot, slopes, tensor};
use crate::network::mask;
use crate::options::{Drop, length_lists};
use crate::setup::{MaskValues, away_from_zero};

/// Chosen for conditioning. Kept units are scaled by 1/(1 − p) at each step and fed back, so that over 70
/// steps some draws make gradients in the thousands; with one unit, some make a value the difference of
/// large ones. f32, or the slopes themselves, are off then.
const SEED: u64 = 22;

/// One set of options.
#[derive(Debug, Clone, Copy)]
struct Options {
    name: &'static str,
    bias: bool,
    hidden: Drop,
    candidate: Drop,
    update_hidden: Drop,
}

const fn options(name: &'static str, bias: bool, drops: [Drop; 3]) -> Options {
    let [hidden, candidate, update_hidden] = drops;
    Options {
        name,
        bias,
        hidden,
        candidate,
        update_hidden,
    }
}

const OPTIONS: [Options; 8] = {
    use Drop::{Expectation, None, PerSequence, PerStep, PerStepLonger};
    [
        options("plain", true, [None; 3]),
        options("no bias", false, [None; 3]),
        options("standard dropout", true, [PerStep, None, None]),
        options("Gal", true, [PerSequence, None, None]),
        options("Semeniuta", true, [None, PerStep, None]),
        options("zoneout", true, [None, None, PerStep]),
        options("zoneout in evaluation", true, [None, None, Expectation]),
        options("all masks", true, [PerSequence, PerStepLonger, PerStep]),
    ]
};

/// The numbers of one case.
#[derive(Debug, Clone)]
struct Setup {
    name: String,
    dims: Dims,
    direction: Direction,
    lengths: Option<Vec<usize>>,
    oracle: GruOracle,
    /// `[T, B, I]`
    x: Vec<f64>,
    /// `[B, H]`
    hidden: Vec<f64>,
    /// On h', n, and the share of the new h'.
    masks: [Option<MaskValues>; 3],
    /// Cotangent of the output and of the final state.
    cotangents: [Vec<f64>; 2],
}

/// Output `[T, B, H]` and final state.
type Outcome = [Vec<f64>; 2];

const PARTS: [&str; 2] = ["output", "final hidden"];

impl Setup {
    fn new(
        problem: &Problem,
        options: &Options,
        reset_after: bool,
        direction: Direction,
        lengths: Option<Vec<usize>>,
    ) -> Self {
        let dims = problem.dims;
        let Dims {
            batch_size: b,
            seq_length: t,
            d_input: i,
            d_hidden: h,
        } = dims;
        let random = &mut Random::new(SEED + (b + 10 * t + 100 * i + 1000 * h) as u64);
        let bound = |fan_in: usize| (3.0 / fan_in as f64).sqrt().min(1.5);
        let bias = |on: bool, count: usize, random: &mut Random| match on {
            true => random.values(count, 0.8),
            false => vec![],
        };
        let oracle = GruOracle {
            d_input: i,
            d_hidden: h,
            reset_after,
            weight_input: random.values(i * 3 * h, bound(i)),
            weight_hidden: random.values(h * 3 * h, bound(h)),
            bias: bias(options.bias, 3 * h, random),
            bias_candidate_hidden: bias(options.bias && reset_after, h, random),
        };
        let mut draw = |drop, kept| MaskValues::draw(drop, &dims, h, random, kept);
        let masks = [
            draw(options.hidden, 1.0 / 0.6),
            draw(options.candidate, 1.0 / 0.6),
            draw(options.update_hidden, 1.0),
        ];
        Self {
            name: format!(
                "{}; {}; reset after {reset_after}; {direction:?}; lengths {lengths:?}",
                problem.name, options.name
            ),
            dims,
            direction,
            lengths,
            oracle,
            x: away_from_zero(random, t * b * i),
            hidden: away_from_zero(random, b * h),
            masks,
            cotangents: [random.values(t * b * h, 1.0), random.values(b * h, 1.0)],
        }
    }

    fn length(&self, row: usize) -> usize {
        let lengths = self.lengths.as_ref();
        lengths.map_or(self.dims.seq_length, |list| list[row])
    }

    /// The oracle, one sequence after the other.
    fn expected(&self) -> Outcome {
        let Dims {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        } = self.dims;
        let mut output = vec![0.0; seq_length * batch_size * d_hidden];
        let mut last = vec![];
        for row in 0..batch_size {
            let mut times: Vec<usize> = (0..self.length(row)).collect();
            if self.direction == Direction::Backward {
                times.reverse();
            }
            let step = |&time: &usize| {
                let start = (time * batch_size + row) * d_input;
                let [hidden, candidate, update_hidden] = self
                    .masks
                    .each_ref()
                    .map(|mask| MaskValues::at(mask, time, row, batch_size));
                let masks = OracleMasks {
                    hidden,
                    candidate,
                    update_hidden,
                    ..OracleMasks::default()
                };
                (self.x[start..start + d_input].to_vec(), masks)
            };
            let (xs, masks): (Vec<_>, Vec<_>) = times.iter().map(step).unzip();
            let h = &self.hidden[row * d_hidden..(row + 1) * d_hidden];
            let traces = self.oracle.run(&xs, h, &masks);
            for (time, trace) in times.iter().zip(&traces) {
                let start = (time * batch_size + row) * d_hidden;
                output[start..start + d_hidden].copy_from_slice(&trace.hidden);
            }
            last.extend_from_slice(&traces.last().expect("at least one step").hidden);
        }
        [output, last]
    }

    fn loss(&self) -> f64 {
        let [output, last] = self.expected();
        dot(&output, &self.cotangents[0]) + dot(&last, &self.cotangents[1])
    }

    /// Slopes of the loss by name: input, initial state, every parameter.
    fn slopes(&self) -> Vec<(&'static str, Vec<f64>)> {
        let mut moved = self.clone();
        let mut all = vec![];
        let count = moved.leaves().len();
        for index in 0..count {
            let (name, start) = moved.leaves().swap_remove(index);
            let start = start.clone();
            let slope = slopes(&start, |values| {
                moved.leaves()[index].1.copy_from_slice(values);
                moved.loss()
            });
            moved.leaves()[index].1.copy_from_slice(&start);
            all.push((name, slope));
        }
        all
    }

    /// What has a gradient.
    fn leaves(&mut self) -> Vec<(&'static str, &mut Vec<f64>)> {
        let mut leaves = vec![("x", &mut self.x), ("hidden", &mut self.hidden)];
        leaves.extend(self.oracle.parameters_mut());
        leaves
    }

    fn network(&self, device: &Device, dtype: DType) -> Network {
        let flat = |(name, values): (&'static str, &mut Vec<f64>)| {
            let leaf = tensor(values, [values.len()], device, dtype);
            (
                name,
                if device.is_autodiff() {
                    leaf.require_grad()
                } else {
                    leaf
                },
            )
        };
        let [hidden, candidate, update_hidden] = self
            .masks
            .each_ref()
            .map(|values| mask(values, self.dims.batch_size, device, dtype));
        Network {
            setup: self.clone(),
            leaves: self.clone().leaves().into_iter().map(flat).collect(),
            masks: Masks {
                hidden,
                candidate,
                update_hidden,
                ..Masks::none()
            },
        }
    }
}

type Run = SequenceOutput<GruState>;

/// A case as tensors.
struct Network {
    setup: Setup,
    /// Flat, by the oracle's names.
    leaves: Vec<(&'static str, Tensor<1>)>,
    masks: Masks,
}

impl Network {
    fn find<const D: usize>(&self, name: &str, shape: [usize; D]) -> Option<Tensor<D>> {
        let leaf = self.leaves.iter().find(|(other, _)| *other == name)?;
        Some(leaf.1.clone().reshape(shape))
    }

    fn get<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.find(name, shape).expect("a leaf")
    }

    fn cell(&self) -> GruStep {
        let Dims {
            d_input, d_hidden, ..
        } = self.setup.dims;
        let weight_hidden = self.get("weight_hidden", [d_hidden, 3 * d_hidden]);
        GruStep {
            input: Affine {
                weight: self.get("weight_input", [d_input, 3 * d_hidden]),
                bias: self.find("bias", [3 * d_hidden]),
            },
            weight_hidden,
            bias_candidate_hidden: match self.setup.oracle.reset_after {
                true => self.find("bias_candidate_hidden", [d_hidden]),
                false => None,
            },
            reset_after: self.setup.oracle.reset_after,
        }
    }

    fn input(&self) -> Tensor<3> {
        let dims = &self.setup.dims;
        self.get("x", [dims.seq_length, dims.batch_size, dims.d_input])
    }

    fn state(&self) -> GruState {
        let dims = &self.setup.dims;
        GruState {
            hidden: self.get("hidden", [dims.batch_size, dims.d_hidden]),
        }
    }

    fn lengths(&self) -> Option<Lengths> {
        let list = self.setup.lengths.clone()?;
        Some(Lengths::new(list, self.setup.dims.seq_length).expect("lengths that fit"))
    }

    fn run(&self) -> Run {
        let lengths = self.lengths();
        let options = SequenceOptions {
            direction: self.setup.direction,
            lengths: lengths.as_ref(),
            masks: Some(&self.masks),
            strategy: Strategy::Composed,
            precision: Default::default(),
        };
        sequence::run(&self.cell(), self.input(), Some(self.state()), &options)
    }

    /// The gradients of the leaves, by name.
    fn gradients(&self, run: &Run) -> Vec<(&'static str, Vec<f64>)> {
        let [output, last] = &self.setup.cotangents;
        let (device, dtype) = (run.output.device(), run.output.dtype());
        let output = tensor(output, run.output.dims(), &device, dtype);
        let last = tensor(last, run.state.hidden.dims(), &device, dtype);
        let loss = (run.output.clone() * output).sum() + (run.state.hidden.clone() * last).sum();
        let grads = loss.backward();
        let leaves = self.leaves.iter();
        leaves
            .map(|(name, leaf)| {
                let grad = leaf.grad(&grads);
                let grad = grad.unwrap_or_else(|| panic!("{name} got no gradient"));
                (*name, values(&grad))
            })
            .collect()
    }
}

fn outcome(run: &Run) -> Outcome {
    [values(&run.output), values(&run.state.hidden)]
}

/// Differences of values, and of gradients where there are slopes.
fn differences(
    setup: &Setup,
    expected: &Outcome,
    slopes: &[(&'static str, Vec<f64>)],
    device: &Device,
    dtype: DType,
) -> Vec<String> {
    let (network, steps) = (setup.network(device, dtype), setup.dims.seq_length);
    let run = network.run();
    let tolerance = Tolerance::values(dtype, steps);
    let values = PARTS.iter().zip(outcome(&run)).zip(expected);
    let values = values.map(|((part, got), expected)| close(part, &got, expected, tolerance));
    let tolerance = Tolerance(Tolerance::gradients(dtype, steps).0.max(1e-6));
    let got = network.gradients(&run);
    assert!(slopes.is_empty() || slopes.len() == got.len());
    let gradients = got.iter().zip(slopes).map(|((part, got), (name, slope))| {
        assert_eq!(part, name);
        close(&format!("gradient of {part}"), got, slope, tolerance)
    });
    let all = values.chain(gradients);
    all.filter_map(|result| Some(format!("{}; {dtype:?}: {}", setup.name, result.err()?)))
        .collect()
}

#[rstest]
fn values_and_gradients_are_those_of_the_oracle(
    #[values(0, 1, 2, 3, 4, 5)] problem: usize,
    #[values(true, false)] reset_after: bool,
    #[values(Direction::Forward, Direction::Backward)] direction: Direction,
) {
    let (mut failures, mut checked) = (vec![], 0);
    let problem = &SMALL[problem];
    for options in &OPTIONS {
        for lengths in length_lists(problem) {
            let setup = Setup::new(problem, options, reset_after, direction, lengths);
            let (expected, slopes) = (setup.expected(), setup.slopes());
            for dtype in [DType::F32, DType::F64] {
                for (_, device) in devices(dtype) {
                    failures.extend(differences(&setup, &expected, &slopes, &device, dtype));
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
}

const LENGTHS: [usize; 3] = [2, 5, 3];

/// Both forms with few options and with all, on "odd sizes".
fn cases(direction: Direction, lengths: Option<&[usize]>) -> Vec<Setup> {
    let of = |reset_after: bool| {
        let lengths = || lengths.map(<[_]>::to_vec);
        [&OPTIONS[0], &OPTIONS[7]]
            .map(|options| Setup::new(&SMALL[0], options, reset_after, direction, lengths()))
    };
    [of(true), of(false)].concat()
}

/// The comparison must be able to fail: gates swapped, or the other form, in the tensors alone.
#[test]
fn swapped_gates_and_the_other_form_are_noticed() {
    for setup in cases(Direction::Forward, Some(&LENGTHS)) {
        let (expected, slopes) = (setup.expected(), setup.slopes());
        let (_, device) = &devices(DType::F32)[0];
        let fails = |changed: &Setup, what: &str| {
            let failures = differences(changed, &expected, &slopes, device, DType::F32);
            for part in ["output", "final hidden", "gradient of weight_hidden"] {
                assert!(
                    failures.iter().any(|failure| failure.contains(part)),
                    "{}: {what}, {part} unchanged",
                    setup.name
                );
            }
        };
        let units = setup.dims.d_hidden;
        for (first, second) in [(0, 1), (0, 2), (1, 2)] {
            let mut swapped = setup.clone();
            for row in swapped.oracle.weight_hidden.chunks_mut(3 * units) {
                for unit in 0..units {
                    row.swap(first * units + unit, second * units + unit);
                }
            }
            fails(&swapped, &format!("gates {first} and {second} swapped"));
        }
        let mut unbiased = setup.clone();
        unbiased.oracle.bias.fill(0.0);
        fails(&unbiased, "no bias");
        if setup.oracle.reset_after {
            // Summed into b_n, where it is not multiplied with r.
            let mut summed = setup.clone();
            let [bias, inner] = [
                &mut summed.oracle.bias[2 * units..],
                &mut summed.oracle.bias_candidate_hidden[..],
            ];
            for (bias, inner) in bias.iter_mut().zip(inner) {
                *bias += std::mem::take(inner);
            }
            fails(&summed, "biases summed");
        }
        for index in 0..3 {
            if setup.masks[index].is_some() {
                let mut changed = setup.clone();
                changed.masks[index] = None;
                fails(&changed, "a mask left out");
            }
        }
    }
    let [after, before] = [true, false].map(|reset_after| {
        let plain = &OPTIONS[1];
        Setup::new(&SMALL[0], plain, reset_after, Direction::Forward, None)
    });
    assert_eq!(after.oracle.weight_hidden, before.oracle.weight_hidden);
    let (expected, tolerance) = (after.expected(), Tolerance(1e-3));
    assert!(close("form", &before.expected()[0], &expected[0], tolerance).is_err());
}

#[test]
fn padding_content_changes_nothing() {
    for direction in [Direction::Forward, Direction::Backward] {
        for mut setup in cases(direction, Some(&LENGTHS)) {
            let device = &Device::flex().autodiff();
            let clean = setup.network(device, DType::F32);
            let run = clean.run();
            let (expected, gradients) = (outcome(&run), clean.gradients(&run));
            let Dims {
                batch_size,
                d_input,
                ..
            } = setup.dims;
            for (token, x) in setup.x.chunks_mut(d_input).enumerate() {
                if token / batch_size >= LENGTHS[token % batch_size] {
                    x.fill(f64::NAN);
                }
            }
            let network = setup.network(device, DType::F32);
            let run = network.run();
            assert_eq!(outcome(&run), expected, "{}", setup.name);
            assert_eq!(network.gradients(&run), gradients, "{}", setup.name);
        }
    }
}

#[test]
fn a_sequence_is_a_fold_of_steps() {
    for setup in cases(Direction::Forward, None) {
        let network = setup.network(&Device::flex().autodiff(), DType::F32);
        let (cell, mut state) = (network.cell(), network.state());
        let mut outputs = vec![];
        for time in 0..setup.dims.seq_length {
            let x = network.input().narrow(0, time, 1).squeeze_dim::<2>(0);
            let (output, next) = cell.step_once(x, state, &network.masks.at(time));
            assert_eq!(values(&output), values(&next.hidden));
            outputs.push(output);
            state = next;
        }
        let folded = SequenceOutput {
            output: Tensor::stack(outputs, 0),
            state,
        };
        let steps = setup.dims.seq_length;
        let whole = network.run();
        for (got, expected) in outcome(&folded).iter().zip(outcome(&whole)) {
            close(
                &setup.name,
                got,
                &expected,
                Tolerance::values(DType::F32, steps),
            )
            .unwrap();
        }
        let tolerance = Tolerance::gradients(DType::F32, steps);
        let expected = network.gradients(&whole);
        for ((name, got), (_, expected)) in network.gradients(&folded).iter().zip(expected) {
            close(
                &format!("{}: {name}", setup.name),
                got,
                &expected,
                tolerance,
            )
            .unwrap();
        }
    }
}

/// Packed rows, states after every step, and no state, which is the zero state.
#[test]
fn every_entry_point_gives_the_same() {
    for direction in [Direction::Forward, Direction::Backward] {
        for mut setup in cases(direction, Some(&LENGTHS)) {
            setup.hidden.fill(0.0);
            let network = setup.network(&Device::flex(), DType::F32);
            let expected = network.run();
            let lengths = network.lengths().expect("lengths");
            let options = SequenceOptions {
                direction,
                lengths: Some(&lengths),
                masks: Some(&network.masks),
                strategy: Strategy::Composed,
                ..SequenceOptions::default()
            };
            let (cell, input) = (network.cell(), network.input());
            let (run, history) = sequence::run_recorded(&cell, input.clone(), None, &options);
            assert_eq!(outcome(&run), outcome(&expected), "{}", setup.name);
            let hidden = values(&history.part("hidden"));
            assert_eq!(hidden, values(&expected.output), "{}", setup.name);

            let packing = Packing::new(&lengths, setup.dims.seq_length, &Device::flex());
            let packed = sequence::run_packed(&cell, packing.pack(input), None, &options);
            let run = SequenceOutput {
                output: packing.unpack(packed.rows),
                state: packed.state,
            };
            assert_eq!(outcome(&run), outcome(&expected), "{}", setup.name);
        }
    }
}

/// Weight drop multiplies R, one matrix in both forms.
#[test]
fn weight_drop_is_the_masked_weight() {
    for setup in cases(Direction::Forward, None) {
        let network = setup.network(&Device::flex(), DType::F32);
        let (mut cell, units) = (network.cell(), setup.dims.d_hidden);
        let mut random = Random::new(5);
        let drawn = random.mask(units * 3 * units, 0.5, 2.0);
        let mask = tensor(&drawn, [units, 3 * units], &Device::flex(), DType::F32);
        drop_weights(&mut cell, &[mask]);
        let options = SequenceOptions {
            masks: Some(&network.masks),
            ..SequenceOptions::default()
        };
        let run = sequence::run(&cell, network.input(), Some(network.state()), &options);

        let mut masked = setup.clone();
        for (weight, mask) in masked.oracle.weight_hidden.iter_mut().zip(&drawn) {
            *weight *= mask;
        }
        let tolerance = Tolerance::values(DType::F32, setup.dims.seq_length);
        for (got, expected) in outcome(&run).iter().zip(masked.expected()) {
            close(&setup.name, got, &expected, tolerance).unwrap();
        }
    }
}

// --- calls that do not fit: B = 3, T = 5, I = 7, H = 11

fn network() -> Network {
    cases(Direction::Forward, None)[0].network(&Device::flex(), DType::F32)
}

fn zeros<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::zeros(shape, &Device::flex())
}

fn run_masks(masks: Masks) {
    let options = SequenceOptions {
        masks: Some(&masks),
        ..SequenceOptions::default()
    };
    sequence::run(&network().cell(), zeros([5, 3, 7]), None, &options);
}

#[test]
#[should_panic(
    expected = "got a mask `cell`, expected none: the cell has no cell state, only a hidden state"
)]
fn a_mask_on_a_cell_state() {
    run_masks(Masks {
        cell: Some(Mask::PerSequence(zeros([3, 11]))),
        ..Masks::none()
    });
}

#[test]
#[should_panic(
    expected = "got a mask `update_cell`, expected none: the cell has no cell state, only a hidden state"
)]
fn a_zoneout_mask_on_a_cell_state() {
    run_masks(Masks {
        update_cell: Some(Mask::PerStep(zeros([5, 3, 11]))),
        ..Masks::none()
    });
}

#[test]
#[should_panic(expected = "got a mask `cell`, expected none")]
fn a_mask_on_a_cell_state_of_one_step() {
    let network = network();
    let masks = Masks {
        cell: Some(zeros([3, 11])),
        ..Masks::none()
    };
    let state = network.state();
    network.cell().step_once(zeros([3, 7]), state, &masks);
}

#[test]
#[should_panic(
    expected = "mask `candidate` has shape [3, 10], expected [batch_size, features] = [3, 11]"
)]
fn a_mask_of_another_size() {
    run_masks(Masks {
        candidate: Some(Mask::PerSequence(zeros([3, 10]))),
        ..Masks::none()
    });
}

#[test]
#[should_panic(
    expected = "state `hidden` has shape [2, 11], expected [batch_size, features] = [3, 11]"
)]
fn a_state_of_another_batch() {
    let state = GruState {
        hidden: zeros([2, 11]),
    };
    let options = SequenceOptions::default();
    sequence::run(&network().cell(), zeros([5, 3, 7]), Some(state), &options);
}

#[test]
#[should_panic(expected = "input has inconsistent d_input: got 8, expected 7")]
fn an_input_of_another_size() {
    let options = SequenceOptions::default();
    sequence::run(&network().cell(), zeros([5, 3, 8]), None, &options);
}

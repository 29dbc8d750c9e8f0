//! One case: a cell, options and sizes; run by any strategy, with all gradients.

use burn::tensor::{DType, Device, Tensor};
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_core::sequence::target;
use recurrent_core::{
    Dims, Direction, Lengths, Mask, Masks, Packing, SequenceOptions, Strategy, Target, Unfused,
};

use crate::common::Random;
use crate::kinds::{AnyCell, Kind, cell};
use crate::leaves::{Layout, Leaves};
use crate::options::{Drop, Options, options};

const SEED: u64 = 21;

/// What is computed, not how.
#[derive(Debug, Clone)]
pub struct Case {
    pub kind: Kind,
    pub options: Options,
    pub dims: Dims,
    pub direction: Direction,
    pub lengths: Option<Vec<usize>>,
}

/// Values and gradients by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    pub values: Vec<(String, Vec<f64>)>,
    pub gradients: Vec<(String, Option<Vec<f64>>)>,
}

/// Everything that a run gives, as tensors.
pub struct Outputs {
    /// `[T, B, d_output]`
    pub output: Tensor<3>,
    /// By name.
    pub state: Vec<(&'static str, Tensor<2>)>,
    /// The states of all steps by name, where they are recorded.
    pub histories: Vec<(&'static str, Tensor<3>)>,
}

impl Outputs {
    pub fn values(&self) -> Vec<(String, Vec<f64>)> {
        let output = ("output".to_string(), values(&self.output));
        let state = self.state.iter();
        let state = state.map(|(name, part)| (format!("final {name}"), values(part)));
        let histories = self.histories.iter();
        let histories = histories.map(|(name, part)| (format!("all {name}"), values(part)));
        let outputs = core::iter::once(output).chain(state);
        outputs.chain(histories).collect()
    }
}

/// Output, final state and histories.
type Given = (Tensor<3>, Vec<Tensor<2>>, Vec<(&'static str, Tensor<3>)>);

/// `[batch_size, seq_length, d_input, d_hidden]`
pub const fn dims(b: usize, t: usize, i: usize, h: usize) -> Dims {
    Dims {
        batch_size: b,
        seq_length: t,
        d_input: i,
        d_hidden: h,
    }
}

impl Case {
    /// Forward, without lengths.
    pub fn new(kind: Kind, name: &str, dims: Dims) -> Self {
        Self {
            kind,
            options: options(name),
            dims,
            direction: Direction::Forward,
            lengths: None,
        }
    }

    /// Lengths in no order, the longest being `longest`.
    pub fn ragged(mut self, longest: usize) -> Self {
        let length = |row: usize| match row {
            1 => longest,
            _ => (5 * row + 2) % longest + 1,
        };
        self.lengths = Some((0..self.dims.batch_size).map(length).collect());
        self
    }

    pub fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        self
    }

    pub fn name(&self) -> String {
        let Dims {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        } = self.dims;
        format!(
            "{:?}; {}; B {batch_size} T {seq_length} I {d_input} H {d_hidden}; {:?}; {:?}",
            self.kind, self.options.name, self.direction, self.lengths
        )
    }

    pub fn leaves<'a>(&self, device: &Device, dtype: DType) -> Leaves<'a> {
        Leaves::new(device, dtype, SEED)
    }

    pub fn cell(&self, leaves: &Leaves<'_>) -> Box<dyn AnyCell> {
        cell(self.kind, &self.options, &self.dims, leaves)
    }

    /// `[T, B, I]`
    pub fn input(&self, leaves: &Leaves<'_>) -> Tensor<3> {
        let Dims {
            batch_size,
            seq_length,
            d_input,
            ..
        } = self.dims;
        leaves.leaf("x", [seq_length, batch_size, d_input], 0.1, 1.0)
    }

    /// The initial state.
    pub fn state(&self, cell: &dyn AnyCell, leaves: &Leaves<'_>) -> Vec<Tensor<2>> {
        let parts = cell.parts().into_iter().enumerate();
        // Layers have parts of the same name.
        let part = |(index, (name, size)): (usize, (&str, usize))| {
            let name = match index {
                0 | 1 => name.to_string(),
                _ => format!("{name} {index}"),
            };
            leaves.leaf(&name, [self.dims.batch_size, size], 0.0, 1.0)
        };
        parts.map(part).collect()
    }

    pub fn masks(&self, cell: &dyn AnyCell, leaves: &Leaves<'_>) -> Masks {
        let Dims {
            batch_size,
            seq_length,
            ..
        } = self.dims;
        let mask = |drop: Drop, name: &str, features: usize, kept: f64| {
            let draw = |random: &mut Random, count| random.mask(count, 0.4, kept);
            let once = [batch_size, features];
            let steps = |more: usize| [seq_length + more, batch_size, features];
            match drop {
                Drop::None => None,
                Drop::PerSequence => Some(Mask::PerSequence(leaves.constant(name, once, draw))),
                Drop::PerStep => Some(Mask::PerStep(leaves.constant(name, steps(0), draw))),
                Drop::PerStepLonger => Some(Mask::PerStep(leaves.constant(name, steps(2), draw))),
                Drop::Expectation => {
                    let same = |_: &mut Random, count| vec![0.85; count];
                    Some(Mask::PerSequence(leaves.constant(name, once, same)))
                }
            }
        };
        let (options, sizes) = (&self.options, cell.masks());
        let on_cell_state = |drop: Drop| match sizes.has_cell_state {
            true => drop,
            false => Drop::None,
        };
        Masks {
            hidden: mask(options.hidden, "mask.hidden", sizes.hidden, 1.0 / 0.6),
            cell: mask(
                on_cell_state(options.cell),
                "mask.cell",
                sizes.cell,
                1.0 / 0.6,
            ),
            candidate: mask(options.candidate, "mask.candidate", sizes.cell, 1.0 / 0.6),
            update_hidden: mask(options.update_hidden, "mask.v", sizes.hidden, 1.0),
            update_cell: mask(
                on_cell_state(options.update_cell),
                "mask.u",
                sizes.cell,
                1.0,
            ),
            adapt: match sizes.adapt {
                0 => None,
                // Anew at each step where those on h' are not, and the other way round.
                features => match options.hidden {
                    Drop::None => None,
                    Drop::PerSequence => mask(Drop::PerStep, "mask.adapt", features, 1.0 / 0.6),
                    _ => mask(Drop::PerSequence, "mask.adapt", features, 1.0 / 0.6),
                },
            },
        }
    }

    /// One forward; with `packed`, on packed rows.
    pub fn run(&self, leaves: &Leaves<'_>, strategy: Strategy, packed: bool) -> Outputs {
        self.run_by(leaves, strategy, |cell, input, state, options| {
            let (output, state) = if packed {
                let lengths = options.lengths.expect("lengths of packed rows");
                let packing = Packing::new(lengths, self.dims.seq_length, &leaves.device);
                let (rows, state) = cell.run_packed(packing.pack(input), state, options);
                (packing.unpack(rows), state)
            } else {
                cell.run(input, state, options)
            };
            (output, state, vec![])
        })
    }

    /// One forward that records the states of all steps.
    pub fn run_recorded(&self, leaves: &Leaves<'_>, strategy: Strategy) -> Outputs {
        self.run_by(leaves, strategy, |cell, input, state, options| {
            cell.run_recorded(input, state, options)
        })
    }

    fn run_by(
        &self,
        leaves: &Leaves<'_>,
        strategy: Strategy,
        run: impl FnOnce(&dyn AnyCell, Tensor<3>, Vec<Tensor<2>>, &SequenceOptions<'_>) -> Given,
    ) -> Outputs {
        let cell = self.cell(leaves);
        let masks = self.masks(&*cell, leaves);
        let seq_length = self.dims.seq_length;
        let lengths = self
            .lengths
            .clone()
            .map(|list| Lengths::new(list, seq_length).expect("lengths that fit"));
        let options = SequenceOptions {
            direction: self.direction,
            lengths: lengths.as_ref(),
            masks: Some(&masks),
            strategy,
            precision: Default::default(),
        };
        let (input, state) = (self.input(leaves), self.state(&*cell, leaves));
        let (output, state, histories) = run(&*cell, input, state, &options);
        let names = cell.parts().into_iter().map(|(name, _)| name);
        Outputs {
            output,
            state: names.zip(state).collect(),
            histories,
        }
    }

    /// Random cotangents on the sequence, on every part of the final state and on every history, together.
    pub fn loss(&self, leaves: &Leaves<'_>, outputs: &Outputs) -> Tensor<1> {
        let draw = |random: &mut Random, count| random.values(count, 1.0);
        let output = &outputs.output;
        let cotangent = leaves.constant("cotangent.output", output.dims(), draw);
        let mut loss = (output.clone() * cotangent).sum();
        for (name, part) in &outputs.state {
            let cotangent = leaves.constant(&format!("cotangent.{name}"), part.dims(), draw);
            loss = loss + (part.clone() * cotangent).sum();
        }
        for index in 0..outputs.histories.len() {
            loss = loss + self.history_loss(leaves, outputs, index);
        }
        loss
    }

    /// A random cotangent on the states of all steps, of one part.
    pub fn history_loss(&self, leaves: &Leaves<'_>, outputs: &Outputs, index: usize) -> Tensor<1> {
        let draw = |random: &mut Random, count| random.values(count, 1.0);
        let (_, part) = &outputs.histories[index];
        // Layers have parts of the same name.
        let name = format!("cotangent.history {index}");
        (part.clone() * leaves.constant(&name, part.dims(), draw)).sum()
    }

    /// Forward and backward.
    pub fn results_on(&self, leaves: &Leaves<'_>, strategy: Strategy, packed: bool) -> Results {
        let outputs = self.run(leaves, strategy, packed);
        let grads = self.loss(leaves, &outputs).backward();
        Results {
            values: outputs.values(),
            gradients: leaves.gradients(&grads),
        }
    }

    /// By a kernel, in f32.
    pub fn fused(&self, device: &Device) -> Results {
        self.results_on(&self.leaves(device, DType::F32), Strategy::Fused, false)
    }

    /// Why there is no kernel on a device that runs only some: the CPU backends run all of these.
    pub fn unfused(&self, device: &Device) -> Option<Unfused> {
        if target(device) == Some(Target::Cpu) {
            return None;
        }
        let leaves = self.leaves(device, DType::F32);
        self.cell(&leaves).reason(device)
    }

    /// Step by step, in f64.
    pub fn reference(&self) -> Results {
        let device = Device::flex().autodiff();
        self.results_on(&self.leaves(&device, DType::F64), Strategy::Composed, false)
    }

    /// The same, with every leaf in another place in memory.
    pub fn laid_out<'a>(&self, device: &Device, layout: Layout) -> Leaves<'a> {
        Leaves {
            layout,
            ..self.leaves(device, DType::F32)
        }
    }

    /// What differs.
    pub fn differences(&self, got: &Results, expected: &Results) -> Vec<String> {
        self.differences_within(got, expected, 1.0)
    }

    /// What differs by more than `factor` times the tolerance.
    pub fn differences_within(
        &self,
        got: &Results,
        expected: &Results,
        factor: f64,
    ) -> Vec<String> {
        let within = |tolerance: Tolerance| Tolerance(factor * tolerance.0);
        let steps = self.dims.seq_length;
        let mut failures = vec![];
        for ((name, got), (other, expected)) in got.values.iter().zip(&expected.values) {
            assert_eq!(name, other);
            let tolerance = within(Tolerance::values(DType::F32, steps));
            failures.extend(close(name, got, expected, tolerance).err());
        }
        assert_eq!(got.gradients.len(), expected.gradients.len());
        for ((name, got), (other, expected)) in got.gradients.iter().zip(&expected.gradients) {
            assert_eq!(name, other);
            let name = format!("gradient of {name}");
            match (got, expected) {
                (Some(got), Some(expected)) => {
                    let tolerance = within(Tolerance::gradients(DType::F32, steps));
                    failures.extend(close(&name, got, expected, tolerance).err());
                }
                (None, None) => {}
                (got, _) => failures.push(format!(
                    "{name}: {} arrived",
                    if got.is_some() { "one" } else { "none" }
                )),
            }
        }
        failures
    }
}

/// Compares each case on each device; all failures together.
#[track_caller]
pub fn check_all(cases: &[Case]) {
    let mut failures = vec![];
    for case in cases {
        let expected = case.reference();
        let arrived = expected.gradients.iter().filter(|(_, grad)| grad.is_some());
        assert!(arrived.count() >= 4, "{}: too few gradients", case.name());
        for (device_name, device) in crate::common::devices(DType::F32) {
            if let Some(reason) = case.unfused(&device) {
                println!("skipped on {device_name}: {}: {reason}", case.name());
                continue;
            }
            // Vulkan lets an exponential function be off by 3 + 2|x| units in the last place, and
            // normalisations magnify that.
            let factor = match target(&device) {
                Some(Target::Cube) => 2.0,
                _ => 1.0,
            };
            let differences = case.differences_within(&case.fused(&device), &expected, factor);
            let prefix = format!("{device_name}; {}", case.name());
            failures.extend(differences.iter().map(|text| format!("{prefix}: {text}")));
        }
    }
    assert!(
        failures.is_empty(),
        "{} differences:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

//! The numbers of one case in f64: weights, input, states, masks, cotangents; and what the oracle
//! makes of them.

use recurrent_core::eval::oracle::{LstmOracle, OracleMasks};
use recurrent_core::eval::problems::Problem;
use recurrent_core::{Dims, Direction};

use crate::common::{Random, dot, slopes};
use crate::options::{Drop, Options};

/// Chosen for conditioning. With few units some draws make a lone value the difference of large
/// ones, normalise a row whose variance is about ε, or make a normalised recurrence chaotic over
/// 70 steps; then f32 is off however it is computed.
const SEED: u64 = 10;

/// One mask: `[rows, features]`, rows being sequences, or steps × sequences.
#[derive(Debug, Clone)]
pub struct MaskValues {
    pub values: Vec<f64>,
    pub per_step: bool,
    pub features: usize,
}

impl MaskValues {
    pub fn draw(
        drop: Drop,
        dims: &Dims,
        features: usize,
        random: &mut Random,
        kept: f64,
    ) -> Option<Self> {
        let sequences = dims.batch_size * features;
        let (mut values, per_step) = match drop {
            Drop::None => return None,
            Drop::PerSequence => (random.mask(sequences, 0.4, kept), false),
            Drop::PerStep => (random.mask(dims.seq_length * sequences, 0.4, kept), true),
            Drop::PerStepLonger => (
                random.mask((dims.seq_length + 2) * sequences, 0.4, kept),
                true,
            ),
            Drop::Expectation => (vec![0.85; sequences], false),
        };
        if drop != Drop::Expectation {
            // Both multipliers, whatever was drawn.
            (values[0], values[1]) = (0.0, kept);
        }
        Some(Self {
            values,
            per_step,
            features,
        })
    }

    pub fn at(mask: &Option<Self>, time: usize, row: usize, batch_size: usize) -> Vec<f64> {
        mask.as_ref().map_or(vec![], |mask| {
            let row = if mask.per_step {
                time * batch_size + row
            } else {
                row
            };
            mask.values[row * mask.features..(row + 1) * mask.features].to_vec()
        })
    }
}

/// Hidden, cell, candidate, update_hidden, update_cell.
pub type MaskSet = [Option<MaskValues>; 5];

/// The numbers of one case.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: String,
    pub dims: Dims,
    pub d_output: usize,
    pub options: Options,
    pub direction: Direction,
    pub lengths: Option<Vec<usize>>,
    pub oracle: LstmOracle,
    /// `[T, B, I]`
    pub x: Vec<f64>,
    /// `[B, d_output]`
    pub hidden: Vec<f64>,
    /// `[B, H]`
    pub cell: Vec<f64>,
    pub masks: MaskSet,
    /// Cotangent of the output, the final hidden and the final cell.
    pub cotangents: [Vec<f64>; 3],
}

/// What a run gives: output `[T, B, d_output]`, final hidden and cell.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub output: Vec<f64>,
    pub hidden: Vec<f64>,
    pub cell: Vec<f64>,
}

impl Outcome {
    pub fn parts(&self) -> [(&'static str, &Vec<f64>); 3] {
        [
            ("output", &self.output),
            ("final hidden", &self.hidden),
            ("final cell", &self.cell),
        ]
    }
}

impl Setup {
    pub fn new(
        problem: &Problem,
        options: &Options,
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
        let d_output = options.d_output(&dims);
        let random = &mut Random::new(SEED + (b + 10 * t + 100 * i + 1000 * h) as u64);
        let vector = |on: bool, count: usize, random: &mut Random| {
            if on {
                random.values(count, 0.5)
            } else {
                vec![]
            }
        };
        let norm = |on: bool, features: usize, random: &mut Random| {
            let form = options.form.filter(|_| on)?;
            let mut norm = form.oracle();
            if options.learnable {
                // Below 1: a normalised recurrence with more gain is chaotic over 70 steps.
                norm.gain = random
                    .values(features, 0.4)
                    .iter()
                    .map(|v| 0.7 + v)
                    .collect();
                norm.shift = random.values(features, 0.5);
            }
            Some(norm)
        };
        let bound = |fan_in: usize| (3.0 / fan_in as f64).sqrt().min(1.5);
        let oracle = LstmOracle {
            d_input: i,
            d_hidden: h,
            weight_input: random.values(i * 4 * h, bound(i)),
            weight_hidden: random.values(d_output * 4 * h, bound(d_output)),
            bias: vector(options.bias, 4 * h, random),
            bias_input: vector(options.inner_biases, 4 * h, random),
            bias_hidden: vector(options.inner_biases, 4 * h, random),
            norm_input: norm(options.norms[0], 4 * h, random),
            norm_hidden: norm(options.norms[1], 4 * h, random),
            norm_cell: norm(options.norms[2], h, random),
            carry_normalized: options.carry_normalized,
            clip: options.clip,
            projection: if options.project {
                random.values(h * d_output, bound(h))
            } else {
                vec![]
            },
        };
        let masks = [
            MaskValues::draw(options.hidden, &dims, d_output, random, 1.0 / 0.6),
            MaskValues::draw(options.cell, &dims, h, random, 1.0 / 0.6),
            MaskValues::draw(options.candidate, &dims, h, random, 1.0 / 0.6),
            MaskValues::draw(options.update_hidden, &dims, d_output, random, 1.0),
            MaskValues::draw(options.update_cell, &dims, h, random, 1.0),
        ];
        Self {
            name: format!(
                "{}; {}; {direction:?}; lengths {lengths:?}",
                problem.name, options.name
            ),
            dims,
            d_output,
            options: options.clone(),
            direction,
            lengths,
            oracle,
            x: away_from_zero(random, t * b * i),
            hidden: away_from_zero(random, b * d_output),
            cell: random.values(b * h, 1.0),
            masks,
            cotangents: [
                random.values(t * b * d_output, 1.0),
                random.values(b * d_output, 1.0),
                random.values(b * h, 1.0),
            ],
        }
    }

    /// The same case with the sequences of the batch in another order.
    pub fn permuted(&self, order: &[usize]) -> Self {
        let mut permuted = self.clone();
        permuted.lengths = self
            .lengths
            .as_ref()
            .map(|list| order.iter().map(|&k| list[k]).collect());
        permuted.x = permute(&self.x, order, self.dims.d_input);
        permuted.hidden = permute(&self.hidden, order, self.d_output);
        permuted.cell = permute(&self.cell, order, self.dims.d_hidden);
        for mask in permuted.masks.iter_mut().flatten() {
            mask.values = permute(&mask.values, order, mask.features);
        }
        permuted
    }

    /// Steps of one sequence.
    pub fn length(&self, row: usize) -> usize {
        self.lengths
            .as_ref()
            .map_or(self.dims.seq_length, |list| list[row])
    }

    /// Whether `time` is past the end of the sequence.
    pub fn is_padding(&self, time: usize, row: usize) -> bool {
        time >= self.length(row)
    }

    /// Puts `value` into the padding of a `[T, B, features]` list.
    pub fn fill_padding(&self, list: &mut [f64], value: f64) {
        let rows = self.dims.tokens();
        let features = list.len() / rows;
        for row in 0..rows {
            let (time, sequence) = (row / self.dims.batch_size, row % self.dims.batch_size);
            if self.is_padding(time, sequence) {
                list[row * features..(row + 1) * features].fill(value);
            }
        }
    }

    /// The oracle, one sequence after the other.
    pub fn expected(&self) -> Outcome {
        let Dims {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        } = self.dims;
        let size = self.d_output;
        let mut output = vec![0.0; seq_length * batch_size * size];
        let (mut hidden, mut cell) = (vec![], vec![]);
        for row in 0..batch_size {
            let mut times: Vec<usize> = (0..self.length(row)).collect();
            if self.direction == Direction::Backward {
                times.reverse();
            }
            let xs: Vec<Vec<f64>> = times
                .iter()
                .map(|time| {
                    let start = (time * batch_size + row) * d_input;
                    self.x[start..start + d_input].to_vec()
                })
                .collect();
            let masks: Vec<OracleMasks> = times
                .iter()
                .map(|&time| {
                    let [hidden, cell, candidate, update_hidden, update_cell] = self
                        .masks
                        .each_ref()
                        .map(|mask| MaskValues::at(mask, time, row, batch_size));
                    OracleMasks {
                        hidden,
                        cell,
                        candidate,
                        update_hidden,
                        update_cell,
                    }
                })
                .collect();
            let h = &self.hidden[row * size..(row + 1) * size];
            let c = &self.cell[row * d_hidden..(row + 1) * d_hidden];
            let traces = self.oracle.run(&xs, h, c, &masks);
            for (time, trace) in times.iter().zip(&traces) {
                let start = (time * batch_size + row) * size;
                output[start..start + size].copy_from_slice(&trace.hidden);
            }
            let last = traces.last().expect("at least one step");
            hidden.extend_from_slice(&last.hidden);
            cell.extend_from_slice(&last.cell);
        }
        Outcome {
            output,
            hidden,
            cell,
        }
    }

    fn loss(&self) -> f64 {
        let outcome = self.expected();
        outcome
            .parts()
            .iter()
            .zip(&self.cotangents)
            .map(|((_, values), cotangent)| dot(values, cotangent))
            .sum()
    }

    /// Slopes of the loss in f64: input, both initial states and every parameter, by name.
    pub fn slopes(&self) -> Vec<(&'static str, Vec<f64>)> {
        let mut moved = self.clone();
        let mut all = vec![];
        type Part = fn(&mut Setup) -> &mut Vec<f64>;
        let parts: [(&'static str, Part); 3] = [
            ("x", |setup| &mut setup.x),
            ("hidden", |setup| &mut setup.hidden),
            ("cell", |setup| &mut setup.cell),
        ];
        for (name, part) in parts {
            let start = part(&mut moved).clone();
            let slope = slopes(&start, |values| {
                part(&mut moved).copy_from_slice(values);
                moved.loss()
            });
            *part(&mut moved) = start;
            all.push((name, slope));
        }
        let count = moved.oracle.parameters_mut().len();
        for index in 0..count {
            let (name, values) = moved.oracle.parameters_mut().swap_remove(index);
            let start = values.clone();
            let slope = slopes(&start, |values| {
                moved.oracle.parameters_mut()[index]
                    .1
                    .copy_from_slice(values);
                moved.loss()
            });
            moved.oracle.parameters_mut()[index]
                .1
                .copy_from_slice(&start);
            all.push((name, slope));
        }
        all
    }
}

/// Reorders the sequences of `[steps, B, features]`.
pub fn permute(list: &[f64], order: &[usize], features: usize) -> Vec<f64> {
    list.chunks(order.len() * features)
        .flat_map(|step| {
            let rows = order
                .iter()
                .map(|&k| &step[k * features..(k + 1) * features]);
            rows.flatten().copied().collect::<Vec<_>>()
        })
        .collect()
}

/// Values with magnitudes in 0.3 to 1.
pub fn away_from_zero(random: &mut Random, count: usize) -> Vec<f64> {
    let shifted = |v: f64| v + 0.3 * v.signum();
    random.values(count, 0.7).into_iter().map(shifted).collect()
}

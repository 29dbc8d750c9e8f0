//! The numbers of one case in f64: options, weights, input, states, masks, cotangents; and what
//! the oracle makes of them.

use recurrent_core::eval::oracle::{LstmOracle, OracleMasks, OracleNorm};
use recurrent_core::eval::problems::Problem;
use recurrent_core::{Dims, Direction};

use crate::common::{Random, dot, slopes};

/// How a step is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `LstmCell`
    Packed,
    /// `SlowLstmCell`
    PerGate,
    /// `LayerNormLstmCell`
    LayerNorm,
}

use Kind::{LayerNorm, Packed, PerGate};

/// One of the four forms of `Normalizer`, by name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    Standard,
    LstmsPth,
    Bradbury,
    Ba,
}

impl Form {
    fn oracle(self) -> OracleNorm {
        let (unbiased, epsilon, inside_root) = match self {
            Form::Standard => (false, 1e-5, true),
            Form::LstmsPth => (true, 1e-6, true),
            Form::Bradbury => (true, 1e-6, false),
            Form::Ba => (false, 1e-5, false),
        };
        OracleNorm {
            unbiased,
            epsilon,
            inside_root,
            gain: vec![],
            shift: vec![],
        }
    }
}

/// Kind of one dropout mask.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Drop {
    #[default]
    None,
    PerSequence,
    PerStep,
    /// Per step, for more steps than the input has.
    PerStepLonger,
    /// The same share everywhere: zoneout in evaluation.
    Expectation,
}

/// One set of options, and the cells that have them.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub name: &'static str,
    pub cells: &'static [Kind],
    pub bias: bool,
    /// b_x and b_h, in and outside of normalisations.
    pub inner_biases: bool,
    pub clip: Option<f64>,
    pub project: bool,
    pub hidden: Drop,
    pub cell: Drop,
    pub candidate: Drop,
    pub update_hidden: Drop,
    pub update_cell: Drop,
    pub form: Option<Form>,
    /// LN_x, LN_h, LN_c
    pub norms: [bool; 3],
    pub learnable: bool,
    pub carry_normalized: bool,
}

const ALL: [bool; 3] = [true, true, true];

/// Chosen so that no problem with one unit ends in a lone value that is a difference of large ones.
const SEED: u64 = 12;

/// Bites for initial cells in ±1.
const CLIP: Option<f64> = Some(0.35);

/// Every option set.
pub fn option_sets() -> Vec<Options> {
    let lstm = |name| Options {
        name,
        cells: &[Packed, PerGate],
        bias: true,
        ..Options::default()
    };
    let norm = |name, form| Options {
        name,
        cells: &[LayerNorm],
        bias: true,
        form: Some(form),
        norms: ALL,
        learnable: true,
        ..Options::default()
    };
    let only = |name, norms| Options {
        norms,
        ..norm(name, Form::Standard)
    };
    vec![
        Options {
            cells: &[Packed, PerGate, LayerNorm],
            ..lstm("plain")
        },
        Options {
            bias: false,
            ..lstm("no bias")
        },
        Options {
            cells: &[PerGate, LayerNorm],
            bias: false,
            inner_biases: true,
            ..lstm("two biases")
        },
        Options {
            clip: CLIP,
            ..lstm("clip")
        },
        Options {
            project: true,
            ..lstm("projection")
        },
        Options {
            hidden: Drop::PerSequence,
            ..lstm("hidden mask per sequence (Gal)")
        },
        Options {
            hidden: Drop::PerStep,
            ..lstm("hidden mask per step")
        },
        Options {
            cell: Drop::PerSequence,
            ..lstm("cell mask per sequence (Moon)")
        },
        Options {
            candidate: Drop::PerStepLonger,
            ..lstm("candidate mask per step (Semeniuta)")
        },
        Options {
            update_hidden: Drop::PerStep,
            update_cell: Drop::PerStep,
            ..lstm("zoneout")
        },
        Options {
            update_hidden: Drop::Expectation,
            update_cell: Drop::Expectation,
            ..lstm("zoneout in evaluation")
        },
        Options {
            clip: CLIP,
            project: true,
            hidden: Drop::PerStep,
            cell: Drop::PerSequence,
            candidate: Drop::PerStep,
            update_hidden: Drop::PerSequence,
            update_cell: Drop::PerStep,
            ..lstm("everything without norms")
        },
        norm("Ba et al.: bias outside, raw cell carried", Form::Standard),
        Options {
            bias: false,
            inner_biases: true,
            carry_normalized: true,
            ..norm("lstms.pth: biases inside, normalised cell carried", Form::LstmsPth)
        },
        Options {
            carry_normalized: true,
            ..norm("bias outside, normalised cell carried", Form::Ba)
        },
        Options {
            bias: false,
            inner_biases: true,
            ..norm("biases inside, raw cell carried", Form::Bradbury)
        },
        Options {
            bias: false,
            learnable: false,
            ..norm("norms without gain, shift and bias", Form::Standard)
        },
        only("LN_x alone", [true, false, false]),
        only("LN_h alone", [false, true, false]),
        only("LN_c alone, raw cell carried", [false, false, true]),
        Options {
            carry_normalized: true,
            ..only("LN_c alone, normalised cell carried", [false, false, true])
        },
        Options {
            inner_biases: true,
            clip: CLIP,
            project: true,
            hidden: Drop::PerSequence,
            cell: Drop::PerStep,
            candidate: Drop::PerStep,
            update_hidden: Drop::PerStep,
            update_cell: Drop::Expectation,
            carry_normalized: true,
            ..norm("everything with norms", Form::LstmsPth)
        },
    ]
}

/// The option set of that name.
pub fn options(name: &str) -> Options {
    option_sets()
        .into_iter()
        .find(|options| options.name == name)
        .unwrap_or_else(|| panic!("no option set `{name}`"))
}

impl Options {
    /// Whether something is normalised that is one number times a vector. That gives ± the same
    /// whatever the number: the slope is what ε leaves of it, below the rounding of f32.
    pub fn cancels(&self, dims: &Dims) -> bool {
        let d_output = if self.project { dims.d_hidden.div_ceil(2) } else { dims.d_hidden };
        let [norm_input, norm_hidden, _] = self.norms;
        !self.inner_biases && (norm_input && dims.d_input == 1 || norm_hidden && d_output == 1)
    }

    /// Why the options have no meaning at these sizes, if they have none.
    pub fn excluded(&self, dims: &Dims) -> Option<&'static str> {
        let unbiased = matches!(self.form, Some(Form::LstmsPth | Form::Bradbury));
        (unbiased && self.norms[2] && dims.d_hidden == 1)
            .then_some("unbiased variance of one unit: 0 / 0")
    }
}

/// No lengths, and lists of unequal, unsorted ones; some shorter than the input throughout. Their
/// sorting permutations are not their own inverses where the batch allows it.
pub fn length_lists(problem: &Problem) -> Vec<Option<Vec<usize>>> {
    let lists: &[&[usize]] = match problem.name {
        "odd sizes" => &[&[1, 4, 2]],
        "one sequence" => &[&[3]],
        "one step" => &[&[1, 1]],
        "one unit" => &[&[1, 3], &[1, 2]],
        "one feature" => &[&[1, 3, 2, 1]],
        "long" => &[&[33, 70]],
        other => panic!("write lengths for the new problem `{other}`"),
    };
    let some = lists.iter().map(|list| Some(list.to_vec()));
    core::iter::once(None).chain(some).collect()
}

/// One mask: `[rows, features]`, rows being sequences, or steps × sequences.
#[derive(Debug, Clone)]
pub struct MaskValues {
    pub values: Vec<f64>,
    pub per_step: bool,
    pub features: usize,
}

impl MaskValues {
    fn draw(drop: Drop, dims: &Dims, features: usize, random: &mut Random, kept: f64) -> Option<Self> {
        let sequences = dims.batch_size * features;
        let (mut values, per_step) = match drop {
            Drop::None => return None,
            Drop::PerSequence => (random.mask(sequences, 0.4, kept), false),
            Drop::PerStep => (random.mask(dims.seq_length * sequences, 0.4, kept), true),
            Drop::PerStepLonger => (random.mask((dims.seq_length + 2) * sequences, 0.4, kept), true),
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

    fn at(mask: &Option<Self>, time: usize, row: usize, batch_size: usize) -> Vec<f64> {
        mask.as_ref().map_or(vec![], |mask| {
            let row = if mask.per_step { time * batch_size + row } else { row };
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
        // Smaller than H where H allows it.
        let d_output = if options.project { h.div_ceil(2) } else { h };
        let random = &mut Random::new(SEED + (b + 10 * t + 100 * i + 1000 * h) as u64);
        let vector = |on: bool, count: usize, random: &mut Random| {
            if on { random.values(count, 0.5) } else { vec![] }
        };
        let norm = |on: bool, features: usize, random: &mut Random| {
            let form = options.form.filter(|_| on)?;
            let mut norm = form.oracle();
            if options.learnable {
                // Below 1: a normalised recurrence with more gain is chaotic over 70 steps.
                norm.gain = random.values(features, 0.4).iter().map(|v| 0.7 + v).collect();
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
            projection: if options.project { random.values(h * d_output, bound(h)) } else { vec![] },
        };
        let masks = [
            MaskValues::draw(options.hidden, &dims, d_output, random, 1.0 / 0.6),
            MaskValues::draw(options.cell, &dims, h, random, 1.0 / 0.6),
            MaskValues::draw(options.candidate, &dims, h, random, 1.0 / 0.6),
            MaskValues::draw(options.update_hidden, &dims, d_output, random, 1.0),
            MaskValues::draw(options.update_cell, &dims, h, random, 1.0),
        ];
        Self {
            name: format!("{}; {}; {direction:?}; lengths {lengths:?}", problem.name, options.name),
            dims,
            d_output,
            options: options.clone(),
            direction,
            lengths,
            oracle,
            x: random.away_from_zero(t * b * i),
            hidden: random.away_from_zero(b * d_output),
            cell: random.values(b * h, 1.0),
            masks,
            cotangents: [
                random.values(t * b * d_output, 1.0),
                random.values(b * d_output, 1.0),
                random.values(b * h, 1.0),
            ],
        }
    }

    /// Steps of one sequence.
    pub fn length(&self, row: usize) -> usize {
        self.lengths.as_ref().map_or(self.dims.seq_length, |list| list[row])
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
                    let [hidden, cell, candidate, update_hidden, update_cell] =
                        self.masks.each_ref().map(|mask| MaskValues::at(mask, time, row, batch_size));
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
        let parts: [(&'static str, fn(&mut Setup) -> &mut Vec<f64>); 3] = [
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
                moved.oracle.parameters_mut()[index].1.copy_from_slice(values);
                moved.loss()
            });
            moved.oracle.parameters_mut()[index].1.copy_from_slice(&start);
            all.push((name, slope));
        }
        all
    }
}

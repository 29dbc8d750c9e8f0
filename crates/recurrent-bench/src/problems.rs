//! The problems on which speed is measured: one catalogue for the `speed` example, the benches
//! and, through its line protocol, the comparison with other libraries.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All outputs of a batch of sequences, off the autodiff device.
    Inference,
    /// Forward and backward pass with the gradients of the input and of all weights.
    Training,
    /// One step, the state carried from call to call, off the autodiff device.
    Step,
    /// Single steps with dropout, each output the next input, off the autodiff device: the protocol
    /// of lstms.pth.
    Feedback,
}

impl Mode {
    /// The modes that can be selected by name. [`Mode::Feedback`] needs as many inputs as units, and
    /// only the table of lstms.pth has it.
    pub const NAMED: [Self; 3] = [Self::Inference, Self::Training, Self::Step];

    /// The name on the command line, in tables and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Training => "training",
            Self::Step => "step",
            Self::Feedback => "feedback",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mode {
    type Err = ProblemError;

    fn from_str(text: &str) -> Result<Self, ProblemError> {
        let found = Self::NAMED.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| ProblemError::Mode {
            got: text.to_string(),
        })
    }
}

/// The sizes of a batch of sequences; written `B,T,I,H`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Shape {
    /// Sequences: B.
    #[serde(rename = "batch")]
    pub batch_size: usize,
    /// Steps of a sequence: T.
    #[serde(rename = "seq")]
    pub seq_length: usize,
    /// Features of one input step: I.
    pub d_input: usize,
    /// Units: H.
    pub d_hidden: usize,
}

impl Shape {
    /// The sizes in the order in which they are written.
    pub const fn new(
        batch_size: usize,
        seq_length: usize,
        d_input: usize,
        d_hidden: usize,
    ) -> Self {
        Self {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        } = self;
        write!(f, "{batch_size},{seq_length},{d_input},{d_hidden}")
    }
}

impl FromStr for Shape {
    type Err = ProblemError;

    fn from_str(text: &str) -> Result<Self, ProblemError> {
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        let &[batch_size, seq_length, d_input, d_hidden] = fields.as_slice() else {
            return Err(ProblemError::Count {
                text: text.to_string(),
                got: fields.len(),
            });
        };
        let size = |name, field: &str| match field.parse() {
            Ok(size) if size > 0 => Ok(size),
            _ => Err(ProblemError::Size {
                name,
                text: text.to_string(),
                got: field.to_string(),
            }),
        };
        Ok(Self {
            batch_size: size("B (sequences)", batch_size)?,
            seq_length: size("T (steps)", seq_length)?,
            d_input: size("I (input features)", d_input)?,
            d_hidden: size("H (units)", d_hidden)?,
        })
    }
}

/// A mode and the sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    /// What is timed.
    pub mode: Mode,
    /// The sizes.
    #[serde(flatten)]
    pub shape: Shape,
}

impl Problem {
    /// A problem of this mode; [`Mode::Step`] has one step, whatever the shape says, and the steps
    /// of [`Mode::Feedback`] are as many calls.
    pub const fn new(mode: Mode, shape: Shape) -> Self {
        let seq_length = match mode {
            Mode::Step => 1,
            Mode::Inference | Mode::Training | Mode::Feedback => shape.seq_length,
        };
        let shape = Shape {
            seq_length,
            ..shape
        };
        Self { mode, shape }
    }

    /// Multiplications and additions in the matrix products of a plain LSTM; the gates themselves
    /// are not counted. The backward pass has two products for each one of the forward pass.
    pub fn lstm_operations(&self) -> f64 {
        let Shape {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        } = self.shape;
        let rows = (batch_size * seq_length) as f64;
        let forward = 2.0 * rows * (4 * d_hidden) as f64 * (d_input + d_hidden) as f64;
        match self.mode {
            Mode::Inference | Mode::Step | Mode::Feedback => forward,
            Mode::Training => 3.0 * forward,
        }
    }

    /// Bytes of recurrent weights that all steps of a plain LSTM read, at four bytes a weight: for
    /// a batch of one, whose products are bound by memory; `None` for others.
    pub fn recurrent_weight_bytes(&self) -> Option<f64> {
        let Shape {
            batch_size,
            seq_length,
            d_hidden,
            ..
        } = self.shape;
        let once_per_step = batch_size == 1 && self.mode != Mode::Training;
        once_per_step.then(|| (seq_length * weight_bytes(d_hidden)) as f64)
    }
}

/// Bytes of the recurrent weights of a plain LSTM.
pub fn weight_bytes(d_hidden: usize) -> usize {
    4 * d_hidden * d_hidden * size_of::<f32>()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mode, self.shape)
    }
}

/// A problem on the command line or in a line of the protocol is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProblemError {
    /// There are not four sizes.
    #[error("the case `{text}` has {got} sizes; expected four, B,T,I,H, such as 32,50,128,128")]
    Count {
        /// The case as given.
        text: String,
        /// The number of sizes in it.
        got: usize,
    },
    /// One of the sizes is not a whole number above 0.
    #[error("{name} in the case `{text}` is `{got}`; expected a whole number of at least 1")]
    Size {
        /// Which size.
        name: &'static str,
        /// The case as given.
        text: String,
        /// The size as given.
        got: String,
    },
    /// The mode is not known.
    #[error("unknown mode `{got}`; known are: {}", Mode::NAMED.map(Mode::name).join(", "))]
    Mode {
        /// The mode as given.
        got: String,
    },
}

/// Sizes of the table in the README of lstms.pth: inputs and units.
pub const LSTMS_PTH_SIZES: [usize; 5] = [128, 256, 512, 1024, 2048];

/// Calls of one step in that table, whose batch is one sequence.
pub const LSTMS_PTH_STEPS: usize = 1000;

/// The cases of that table.
pub const LSTMS_PTH: [Shape; 5] = {
    let mut cases = [Shape::new(1, LSTMS_PTH_STEPS, 0, 0); 5];
    let mut index = 0;
    while index < cases.len() {
        cases[index].d_input = LSTMS_PTH_SIZES[index];
        cases[index].d_hidden = LSTMS_PTH_SIZES[index];
        index += 1;
    }
    cases
};

/// Inference: one sequence, shorter for larger models (bound by memory bandwidth), small and large
/// batches (bound by arithmetic), and the sizes of a word-level language model.
pub const INFERENCE: [Shape; 10] = [
    Shape::new(1, 1000, 128, 128),
    Shape::new(1, 1000, 256, 256),
    Shape::new(1, 500, 512, 512),
    Shape::new(1, 200, 1024, 1024),
    Shape::new(1, 100, 2048, 2048),
    Shape::new(8, 100, 256, 256),
    Shape::new(32, 50, 128, 128),
    Shape::new(32, 50, 512, 512),
    Shape::new(64, 35, 1024, 1024),
    Shape::new(20, 70, 400, 1150),
];

/// Training steps: the same kinds, and a long sequence of few features.
pub const TRAINING: [Shape; 7] = [
    Shape::new(1, 100, 128, 128),
    Shape::new(1, 100, 512, 512),
    Shape::new(10, 500, 10, 256),
    Shape::new(32, 50, 128, 128),
    Shape::new(32, 50, 512, 512),
    Shape::new(64, 35, 1024, 1024),
    Shape::new(20, 70, 400, 1150),
];

/// Single steps, as in streaming.
pub const STEP: [Shape; 2] = [Shape::new(1, 1, 128, 128), Shape::new(1, 1, 512, 512)];

/// Training steps on which all variants are compared.
pub const VARIANTS: [Shape; 2] = [Shape::new(32, 50, 256, 256), Shape::new(1, 100, 128, 128)];

/// The default cases of this mode.
pub const fn cases(mode: Mode) -> &'static [Shape] {
    match mode {
        Mode::Inference => &INFERENCE,
        Mode::Training => &TRAINING,
        Mode::Step => &STEP,
        Mode::Feedback => &LSTMS_PTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Shape>().unwrap_err().to_string()
    }

    #[test]
    fn a_case_reads_back_as_written() {
        let shape: Shape = "20,70, 400,1150".parse().unwrap();
        assert_eq!(shape, Shape::new(20, 70, 400, 1150));
        assert_eq!(shape.to_string().parse(), Ok(shape));
        for mode in Mode::NAMED {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
    }

    #[test]
    fn a_wrong_case_says_what_is_wrong() {
        assert_eq!(
            error("32,50,128"),
            "the case `32,50,128` has 3 sizes; expected four, B,T,I,H, such as 32,50,128,128"
        );
        assert_eq!(
            error("32,0,128,128"),
            "T (steps) in the case `32,0,128,128` is `0`; expected a whole number of at least 1"
        );
        assert!(error("32,50,128,x").contains("H (units)"));
        assert!(error("-1,50,128,1").contains("B (sequences)"));
        let mode = "train".parse::<Mode>().unwrap_err();
        assert_eq!(
            mode.to_string(),
            "unknown mode `train`; known are: inference, training, step"
        );
    }

    #[test]
    fn a_step_is_one_step() {
        let problem = Problem::new(Mode::Step, Shape::new(1, 50, 3, 5));
        assert_eq!(problem.to_string(), "step 1,1,3,5");
        for shape in STEP {
            assert_eq!(Problem::new(Mode::Step, shape).shape, shape);
        }
    }

    #[test]
    fn operations_and_bytes_are_those_of_the_products() {
        let problem = Problem::new(Mode::Inference, Shape::new(2, 3, 5, 7));
        // Six rows of 5 inputs and 7 hidden values into 4 × 7 gates.
        let forward = 2.0 * 6.0 * 28.0 * 12.0;
        assert_eq!(problem.lstm_operations(), forward);
        let training = Problem::new(Mode::Training, problem.shape);
        assert_eq!(training.lstm_operations(), 3.0 * forward);
        assert_eq!(problem.recurrent_weight_bytes(), None);
        let one = Problem::new(Mode::Inference, Shape::new(1, 3, 5, 7));
        assert_eq!(one.recurrent_weight_bytes(), Some(3.0 * 4.0 * 49.0 * 4.0));
    }

    #[test]
    fn the_json_names_are_short() {
        let problem = Problem::new(Mode::Training, Shape::new(2, 3, 5, 7));
        assert_eq!(
            serde_json::to_value(problem).unwrap(),
            serde_json::json!({
                "mode": "training", "batch": 2, "seq": 3, "d_input": 5, "d_hidden": 7
            })
        );
    }
}

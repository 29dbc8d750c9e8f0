//! One case per line of standard input, one line of JSON for each on standard output.
//!
//! A line is `MODE B T I H [MODEL]`, such as `inference 32 50 128 128` or
//! `training 32 50 256 256 GalLSTM`; without a model it is our plain LSTM. The answer is a
//! [`Row`] of one batch of calls, or `{"error": "…"}`. The first line of output contains the
//! machine, the version of Burn and the catalogue of [`problems`], so that a runner needs no list of its own. With this
//! protocol a runner can alternate between this library and others, round by round, without restarting them.
//!
//! The models of a case are kept for further lines of the same case, with their allocations and compiled kernels. A line
//! with another case drops them.

use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde_json::{Value, json};
use thiserror::Error;

use super::STRATEGY;
use super::clock::{self, Times};
use super::record::Row;
use super::subject::{LSTM, Subject, Workload, subjects};
use crate::cli::{ChoiceError, choose};
use crate::problems::{self, Mode, Problem, ProblemError, Shape};
use crate::report::Header;

/// A line is not a valid case.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// There are too few or too many words.
    #[error(
        "`{line}` has {got} words; expected `MODE B T I H` or `MODE B T I H MODEL`, \
         such as `inference 32 50 128 128`"
    )]
    Count {
        /// The line.
        line: String,
        /// The number of words in it.
        got: usize,
    },
    /// The mode or a size is wrong.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// There is no such model.
    #[error(transparent)]
    Model(#[from] ChoiceError),
}

/// The problem and the name of the model in a line.
fn parse(line: &str) -> Result<(Problem, &str), LineError> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (mode, sizes, model) = match words.as_slice() {
        [mode, b, t, i, h] => (mode, [*b, *t, *i, *h], LSTM),
        [mode, b, t, i, h, model] => (mode, [*b, *t, *i, *h], *model),
        _ => {
            return Err(LineError::Count {
                line: line.to_string(),
                got: words.len(),
            });
        }
    };
    let mode: Mode = mode.parse()?;
    let shape: Shape = sizes.join(",").parse()?;
    Ok((Problem::new(mode, shape), model))
}

/// What answers the lines.
#[derive(Debug)]
pub struct Server<'a> {
    /// Where the models run, without autodiff.
    pub device: &'a Device,
    /// Its name, as on the command line.
    pub device_name: &'a str,
    /// Of weights and inputs.
    pub seed: u64,
    /// The time one batch of calls may take; it has at least one call.
    pub budget: Duration,
}

/// A model that has been called before.
struct Running {
    subject: Subject,
    workload: Workload,
    first: f64,
}

impl Server<'_> {
    /// Answers all lines of `input`.
    ///
    /// # Errors
    /// Those of reading and writing; a line that is wrong is answered with what is wrong.
    pub fn run(&self, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
        let header = Header::gather(self.device_name);
        let hello = json!({
            "machine": header.machine,
            "burn": header.burn_version,
            "build": header.build,
            "git_commit": header.git_commit,
            "device": self.device_name,
            "cases": {
                "inference": listed(&problems::INFERENCE),
                "training": listed(&problems::TRAINING),
                "step": listed(&problems::STEP),
            },
            "variants": listed(&problems::VARIANTS),
        });
        answer(&mut output, &hello)?;
        let mut running: Vec<Running> = Vec::new();
        for line in input.lines() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let value = match self.time(&line, &mut running) {
                Ok(row) => serde_json::to_value(row)?,
                Err(error) => json!({"error": error.to_string()}),
            };
            answer(&mut output, &value)?;
        }
        Ok(())
    }

    fn time(&self, line: &str, running: &mut Vec<Running>) -> Result<Row, LineError> {
        let (problem, model) = parse(line)?;
        let known = subjects();
        let subject = *choose("model", &known, |s| s.name, &[model.to_string()])?[0];
        if running
            .iter()
            .any(|other| other.workload.problem() != problem)
        {
            running.clear();
        }
        let known = running.iter().position(|r| r.subject.name == subject.name);
        let place = known.unwrap_or_else(|| {
            let mut workload = Workload::new(subject, problem, self.seed, self.device);
            let first = clock::call(&mut workload);
            running.push(Running {
                subject,
                workload,
                first,
            });
            running.len() - 1
        });
        let Running {
            workload, first, ..
        } = &mut running[place];
        let times = batch(workload, *first, self.budget);
        Ok(Row {
            model: subject.name.to_string(),
            strategy: STRATEGY,
            device: self.device_name.to_string(),
            problem,
            ms_median: times.median().expect("a batch has a call"),
            ms_min: times.min().expect("a batch has a call"),
            ms_first: times.first,
            calls: times.calls.len(),
            context: None,
        })
    }
}

/// The sizes in the order in which a line has them.
fn listed(shapes: &[Shape]) -> Vec<[usize; 4]> {
    let sizes = |s: &Shape| [s.batch_size, s.seq_length, s.d_input, s.d_hidden];
    shapes.iter().map(sizes).collect()
}

/// A call to warm up, as the other library had the caches, then calls for `budget`.
fn batch(workload: &mut Workload, first: f64, budget: Duration) -> Times {
    let mut times = Times {
        first,
        calls: Vec::new(),
    };
    let start = Instant::now();
    let warm = clock::call(workload);
    loop {
        // A call that does not fit into the budget is not made twice.
        let last = Duration::from_secs_f64(times.calls.last().unwrap_or(&warm) * 1e-3);
        if !times.calls.is_empty() && start.elapsed() + last > budget {
            return times;
        }
        times.calls.push(clock::call(workload));
    }
}

fn answer(output: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(output, "{value}")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_case() {
        let (problem, model) = parse("training 2 3 5 7").unwrap();
        assert_eq!(
            problem,
            Problem::new(Mode::Training, Shape::new(2, 3, 5, 7))
        );
        assert_eq!(model, LSTM);
        assert_eq!(parse(" step 1 1 5 7  GalLSTM").unwrap().1, "GalLSTM");
        let error = parse("inference 2 3 5").unwrap_err().to_string();
        assert!(error.contains("has 4 words"), "{error}");
        let error = parse("inference 2 3 5 x").unwrap_err().to_string();
        assert!(error.contains("H (units)"), "{error}");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn every_line_has_an_answer() {
        let _alone = crate::tasks::speed::one_at_a_time();
        let device = Device::flex();
        let server = Server {
            device: &device,
            device_name: "flex",
            seed: 1,
            budget: Duration::from_millis(1),
        };
        let lines = "inference 1 2 3 4\n\ninference 1 2 3 4 burn::nn::Lstm\nwrong\n\
                     step 1 1 3 4 nothing\n";
        let mut output = Vec::new();
        server.run(lines.as_bytes(), &mut output).unwrap();
        let text = String::from_utf8(output).unwrap();
        let answers: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(answers.len(), 5, "{text}");
        assert!(answers[0]["machine"].is_object());
        assert_eq!(answers[0]["cases"]["step"][0], json!([1, 1, 128, 128]));
        assert_eq!(answers[1]["model"], LSTM);
        assert_eq!(answers[1]["mode"], "inference");
        assert!(answers[1]["ms_median"].as_f64().unwrap() > 0.0);
        assert_eq!(answers[2]["model"], "burn::nn::Lstm");
        assert!(answers[3]["error"].as_str().unwrap().contains("1 words"));
        assert!(answers[4]["error"].as_str().unwrap().contains("`nothing`"));
    }
}

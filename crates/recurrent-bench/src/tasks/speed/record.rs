//! The measurements as JSON and CSV.

use serde::Serialize;

use super::limits::{Matmul, Read};
use super::subject::{BURN_NN, LSTM, Subject, Workload};
use super::{Measured, STRATEGY};
use crate::lstms_pth::{PublishedSpeed, Readme};
use crate::problems::{Mode, Problem};
use crate::report::{Column, Header, Table};

/// The part of the experiment a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Section {
    /// The protocol of lstms.pth: single steps, each output the next input, dropout active.
    #[serde(rename = "table")]
    Table,
    /// The same number of steps as one sequence.
    #[serde(rename = "sequence")]
    Sequence,
    /// The cases of [`problems`](crate::problems).
    #[serde(rename = "grid")]
    Grid,
    /// Training steps of all variants.
    #[serde(rename = "variants")]
    Variants,
}

impl Section {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 4] = [Self::Table, Self::Sequence, Self::Grid, Self::Variants];

    /// The name on the command line and in the files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Sequence => "sequence",
            Self::Grid => "grid",
            Self::Variants => "variants",
        }
    }
}

/// Times of one model on one problem.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The name of the model.
    pub model: String,
    /// How the sequence was run.
    pub strategy: &'static str,
    /// The device, as on the command line.
    pub device: String,
    /// What was timed.
    #[serde(flatten)]
    pub problem: Problem,
    /// Median of the calls, in milliseconds.
    pub ms_median: f64,
    /// The shortest call.
    pub ms_min: f64,
    /// The first call.
    pub ms_first: f64,
    /// Calls of which this is the median.
    pub calls: usize,
    /// Values that depend on the other rows; absent in the line protocol.
    #[serde(flatten)]
    pub context: Option<Context>,
}

/// A row among the other rows of its case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Context {
    /// The part of the experiment.
    pub section: Section,
    /// The median of `burn::nn::Lstm` over that of this row.
    pub speedup: Option<f64>,
    /// Billions of multiplications and additions per second in the matrix products. Only for the plain
    /// LSTM, because the variants have other products and their counts would not be comparable.
    pub gflops: Option<f64>,
    /// Billions of bytes of recurrent weights read per second, for a batch of one.
    pub gbytes_per_s: Option<f64>,
    /// The largest difference between our LSTM and `burn::nn::Lstm` on this case.
    pub largest_difference: Option<f64>,
    /// In [`Section::Table`], the values of the README of lstms.pth for the model at this size.
    pub published: Option<PublishedSpeed>,
}

/// The rows of a case; those that were not timed (Ctrl-C) are left out.
pub fn rows(
    section: Section,
    device: &str,
    subjects: &[(Subject, Workload)],
    measured: &Measured,
    readme: &Readme,
) -> Vec<Row> {
    let timed = subjects.iter().zip(&measured.times);
    let mut baseline = timed.clone().filter(|((s, _), _)| s.name == BURN_NN);
    let baseline = baseline.next().and_then(|(_, times)| times.median());
    let row = |((subject, workload), times): (&(Subject, Workload), &super::Times)| {
        let (ms_median, ms_min) = (times.median()?, times.min()?);
        let problem = workload.problem();
        let plain = [LSTM, BURN_NN].contains(&subject.name);
        // Millions per millisecond are billions per second.
        let per_ms = |count: f64| count * 1e-6 / ms_median;
        Some(Row {
            model: subject.name.to_string(),
            strategy: STRATEGY,
            device: device.to_string(),
            problem,
            ms_median,
            ms_min,
            ms_first: times.first,
            calls: times.calls.len(),
            context: Some(Context {
                section,
                speedup: baseline.map(|baseline| baseline / ms_median),
                gflops: plain.then(|| per_ms(problem.lstm_operations())),
                gbytes_per_s: problem
                    .recurrent_weight_bytes()
                    .filter(|_| plain)
                    .map(per_ms),
                largest_difference: measured.largest_difference.filter(|_| plain),
                published: subject
                    .lstms_pth_name()
                    .filter(|_| section == Section::Table)
                    .and_then(|name| readme.speed(name, problem.shape.d_hidden)),
            }),
        })
    };
    timed.filter_map(row).collect()
}

/// What a run has measured.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// The version of Burn.
    pub burn: Option<&'a str>,
    /// Machine, time, command and versions; its fields are on the same level as the others, `machine`
    /// first.
    #[serde(flatten)]
    pub header: &'a Header,
    /// The fastest matrix product on the device.
    pub matmul: Option<Matmul>,
    /// The fastest reads of memory; empty on a device that is not the processor.
    pub reads: &'a [Read],
    /// The times.
    pub rows: &'a [Row],
}

impl Record<'_> {
    /// The record as JSON text.
    ///
    /// # Errors
    /// None that is known: numbers that are not finite become `null`.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// All rows as a table with one number per column, for CSV.
pub fn flat_table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        Column::text("section"),
        Column::text("model"),
        Column::text("strategy"),
        Column::text("device"),
        Column::text("mode"),
        Column::number("batch", 0),
        Column::number("seq", 0),
        Column::number("d_input", 0),
        Column::number("d_hidden", 0),
        Column::number("ms_median", 3),
        Column::number("ms_min", 3),
        Column::number("ms_first", 3),
        Column::number("calls", 0),
        Column::number("speedup", 2),
        Column::number("gflops", 1),
        Column::number("gbytes_per_s", 1),
        Column::number("largest_difference", 9),
        Column::number("published_nn_lstm_s", 3),
        Column::number("published_layer_s", 3),
        Column::number("published_speedup", 3),
    ]);
    for row in rows {
        let context = row.context.as_ref();
        let published = context.and_then(|context| context.published);
        let shape = row.problem.shape;
        table.push([
            context.map(|context| context.section.name()).into(),
            row.model.as_str().into(),
            row.strategy.into(),
            row.device.as_str().into(),
            row.problem.mode.name().into(),
            shape.batch_size.into(),
            shape.seq_length.into(),
            shape.d_input.into(),
            shape.d_hidden.into(),
            row.ms_median.into(),
            row.ms_min.into(),
            row.ms_first.into(),
            row.calls.into(),
            context.and_then(|context| context.speedup).into(),
            context.and_then(|context| context.gflops).into(),
            context.and_then(|context| context.gbytes_per_s).into(),
            context
                .and_then(|context| context.largest_difference)
                .into(),
            published.map(|times| times.nn_lstm_s).into(),
            published.map(|times| times.layer_s).into(),
            published.map(|times| times.speedup).into(),
        ]);
    }
    table
}

/// The sizes of all recurrent weights that a batch of one reads in these problems, each once.
pub fn sizes_to_read(problems: impl IntoIterator<Item = Problem>) -> Vec<usize> {
    let one = problems
        .into_iter()
        .filter(|problem| problem.shape.batch_size == 1 && problem.mode != Mode::Training);
    let mut sizes: Vec<usize> = one.map(|problem| problem.shape.d_hidden).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::problems::Shape;

    fn row(context: Option<Context>) -> Row {
        Row {
            model: LSTM.to_string(),
            strategy: STRATEGY,
            device: "flex".to_string(),
            problem: Problem::new(Mode::Inference, Shape::new(32, 50, 128, 128)),
            ms_median: 2.0,
            ms_min: 1.5,
            ms_first: 3.0,
            calls: 7,
            context,
        }
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let header = Header::gather("flex");
        let context = Context {
            section: Section::Grid,
            speedup: Some(4.0),
            gflops: Some(f64::NAN),
            gbytes_per_s: None,
            largest_difference: Some(1e-7),
            published: Some(PublishedSpeed {
                nn_lstm_s: 0.8,
                layer_s: 0.5,
                speedup: 1.6,
            }),
        };
        let rows = [row(Some(context))];
        let record = Record {
            burn: header.burn_version.as_deref(),
            header: &header,
            matmul: None,
            reads: &[],
            rows: &rows,
        };
        let read: Value = serde_json::from_str(&record.to_json().unwrap()).unwrap();
        assert!(read["machine"]["os"].is_string());
        assert_eq!(read["burn"], read["burn_version"]);
        assert_eq!(
            read["rows"][0],
            json!({
                "model": "lstm", "strategy": "auto", "device": "flex", "mode": "inference",
                "batch": 32, "seq": 50, "d_input": 128, "d_hidden": 128,
                "ms_median": 2.0, "ms_min": 1.5, "ms_first": 3.0, "calls": 7,
                "section": "grid", "speedup": 4.0, "gflops": null, "gbytes_per_s": null,
                "largest_difference": 1e-7,
                "published": {"nn_lstm_s": 0.8, "layer_s": 0.5, "speedup": 1.6}
            })
        );
    }

    #[test]
    fn a_row_alone_has_no_context() {
        let value = serde_json::to_value(row(None)).unwrap();
        assert!(value.get("section").is_none() && value.get("context").is_none());
    }

    #[test]
    fn the_csv_has_one_line_per_row() {
        let csv = flat_table(&[row(None), row(None)]).to_csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("lstm,auto,flex,inference,32,50,128,128,2,1.5,3,7"),
            "{csv}"
        );
    }

    #[test]
    fn each_size_is_read_once() {
        let problem =
            |mode, batch_size, size| Problem::new(mode, Shape::new(batch_size, 10, size, size));
        let problems = [
            problem(Mode::Step, 1, 512),
            problem(Mode::Inference, 1, 128),
            problem(Mode::Inference, 1, 512),
            problem(Mode::Inference, 32, 256),
            problem(Mode::Training, 1, 64),
        ];
        assert_eq!(sizes_to_read(problems), [128, 512]);
    }
}

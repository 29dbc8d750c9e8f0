//! The measurements as tables for the terminal and as a chart.

use super::limits::{Matmul, Read};
use super::record::{Row, Section};
use super::subject::{BURN_NN, LSTM};
use crate::chart::{Axis, BarChart};
use crate::problems::{Problem, Shape};
use crate::report::{Align, Cell, Column, Summary, Table};

/// The largest number of series that are distinguishable in one chart.
const MOST_SERIES: usize = 5;

fn of(rows: &[Row], section: Section) -> impl Iterator<Item = &Row> + Clone {
    rows.iter().filter(move |row| {
        let context = row.context.as_ref();
        context.is_some_and(|context| context.section == section)
    })
}

/// What `key` gives for the rows, each once, in order of appearance.
fn distinct<'a, K: PartialEq>(
    rows: impl Iterator<Item = &'a Row>,
    key: impl Fn(&'a Row) -> K,
) -> Vec<K> {
    let mut keys = Vec::new();
    for row in rows {
        let key = key(row);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn speedup(row: &Row) -> Option<f64> {
    row.context.as_ref()?.speedup
}

/// A number with three significant digits, or all digits before the point.
fn short(number: f64) -> String {
    let decimals = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else if number >= 1.0 {
        2
    } else {
        3
    };
    format!("{number:.decimals$}")
}

/// Models by problems: milliseconds and a ratio in each cell.
fn by_model(
    rows: &[Row],
    section: Section,
    title: impl Fn(&Problem) -> String,
    ratio: impl Fn(&Row) -> Option<f64>,
) -> Table {
    let problems = distinct(of(rows, section), |row| row.problem);
    let columns = problems
        .iter()
        .map(|problem| Column::text(title(problem)).align(Align::Right));
    let mut table = Table::new([Column::text("model")].into_iter().chain(columns));
    for model in distinct(of(rows, section), |row| row.model.as_str()) {
        let cells = problems.iter().map(|problem| {
            let mut of_model = of(rows, section).filter(|row| row.model == model);
            let Some(row) = of_model.find(|row| row.problem == *problem) else {
                return Cell::Missing;
            };
            match ratio(row) {
                Some(ratio) => format!("{} ms  {ratio:.2}×", short(row.ms_median)).into(),
                None => format!("{} ms", short(row.ms_median)).into(),
            }
        });
        table.push([Cell::from(model)].into_iter().chain(cells));
    }
    table
}

/// The table of lstms.pth, one line per size and model: the time of all steps, the speed-up over
/// `burn::nn::Lstm`, and the values of the README of lstms.pth.
pub fn lstms_pth(rows: &[Row]) -> Table {
    let mut table = Table::new([
        Column::number("size", 0),
        Column::number("steps", 0),
        Column::text("model"),
        Column::number("burn::nn::Lstm", 3).unit("s"),
        Column::number("model", 3).unit("s"),
        Column::number("speed-up", 3),
        Column::number("README: nn.LSTM", 3).unit("s"),
        Column::number("README: model", 3).unit("s"),
        Column::number("README: speed-up", 3),
    ]);
    for row in of(rows, Section::Table).filter(|row| row.model != BURN_NN) {
        let shape = row.problem.shape;
        let seconds = row.ms_median * 1e-3;
        let published = row.context.as_ref().and_then(|context| context.published);
        table.push([
            shape.d_hidden.into(),
            shape.seq_length.into(),
            row.model.as_str().into(),
            speedup(row).map(|speedup| speedup * seconds).into(),
            seconds.into(),
            speedup(row).into(),
            published.map(|times| times.nn_lstm_s).into(),
            published.map(|times| times.layer_s).into(),
            published.map(|times| times.speedup).into(),
        ]);
    }
    table
}

/// One sequence at the sizes of lstms.pth: milliseconds, and the speed-up over `burn::nn::Lstm`.
pub fn sequence(rows: &[Row]) -> Table {
    let title = |problem: &Problem| {
        let Shape {
            seq_length,
            d_hidden,
            ..
        } = problem.shape;
        format!("H = {d_hidden}, {seq_length} steps")
    };
    by_model(rows, Section::Sequence, title, speedup)
}

/// Training steps of the variants: milliseconds, and the ratio of the time to that of our LSTM.
pub fn variants(rows: &[Row]) -> Table {
    let ratio = |row: &Row| {
        let mut same = of(rows, Section::Variants).filter(|other| other.problem == row.problem);
        let plain = same.find(|other| other.model == LSTM)?;
        Some(row.ms_median / plain.ms_median)
    };
    by_model(
        rows,
        Section::Variants,
        |problem| problem.shape.to_string(),
        ratio,
    )
}

/// The grid, one line per model and case, compared with the limits of the machine.
pub fn grid(rows: &[Row], matmul: Option<Matmul>, reads: &[Read]) -> Table {
    let mut table = Table::new([
        Column::text("mode"),
        Column::text("B,T,I,H").align(Align::Right),
        Column::text("model"),
        Column::number("median", 3).unit("ms"),
        Column::number("min", 3).unit("ms"),
        Column::number("first", 1).unit("ms"),
        Column::number("speed-up", 2).unit("×"),
        Column::number("GFLOP/s", 1),
        Column::number("of matmul", 0).unit("%"),
        Column::number("GB/s", 1),
        Column::number("of read", 0).unit("%"),
        Column::text("difference").align(Align::Right),
    ]);
    for row in of(rows, Section::Grid) {
        let context = row.context.as_ref();
        let gflops = context.and_then(|context| context.gflops);
        let gbytes = context.and_then(|context| context.gbytes_per_s);
        let difference = context
            .and_then(|context| context.largest_difference)
            .filter(|_| row.model == LSTM);
        let d_hidden = row.problem.shape.d_hidden;
        let read = reads.iter().find(|read| read.d_hidden == d_hidden);
        let percent = |part: Option<f64>, whole: Option<f64>| Some(100.0 * part? / whole?);
        table.push([
            row.problem.mode.name().into(),
            row.problem.shape.to_string().into(),
            row.model.as_str().into(),
            row.ms_median.into(),
            row.ms_min.into(),
            row.ms_first.into(),
            speedup(row).into(),
            gflops.into(),
            percent(gflops, matmul.map(|matmul| matmul.gflops)).into(),
            gbytes.into(),
            percent(gbytes, read.map(|read| read.gbytes_per_s)).into(),
            difference
                .map(|difference| format!("{difference:.0e}"))
                .into(),
        ]);
    }
    table
}

/// The speed-up over `burn::nn::Lstm` on every case, of our LSTM and of the models `asked` for by
/// name, at most five; `None` if no such row was timed.
pub fn chart(rows: &[Row], asked: &[&str]) -> Option<BarChart> {
    let mut models: Vec<&str> = vec![LSTM];
    models.extend(asked.iter().filter(|name| ![LSTM, BURN_NN].contains(name)));
    models.retain(|model| rows.iter().any(|row| row.model == *model));
    models.truncate(MOST_SERIES);
    let charted = |row: &&Row| models.contains(&row.model.as_str()) && speedup(row).is_some();
    let problems = distinct(rows.iter().filter(charted), |row| row.problem);
    if problems.is_empty() {
        return None;
    }
    let labels: Vec<String> = problems.iter().map(Problem::to_string).collect();
    let axis = Axis::new("speed-up over burn::nn::Lstm").unit("times");
    let mut chart = BarChart::new("Speed of the LSTM against Burn's own", axis, labels)
        .line(BURN_NN, 1.0)
        .precision(2)
        .explanation("Bars: the median time of burn::nn::Lstm over that of the model.")
        .note("Cases: B,T,I,H (sequences, steps, input features, units).");
    for model in models {
        let bars = problems.iter().map(|problem| {
            let mut same = rows.iter().filter(|row| row.model == model);
            let row = same.find(|row| row.problem == *problem)?;
            Summary::of(&[speedup(row)?])
        });
        chart = chart.series(model, bars);
    }
    Some(chart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lstms_pth::PublishedSpeed;
    use crate::problems::Mode;
    use crate::tasks::speed::STRATEGY;
    use crate::tasks::speed::record::Context;

    fn row(section: Section, model: &str, size: usize, ms: f64, baseline: f64) -> Row {
        Row {
            model: model.to_string(),
            strategy: STRATEGY,
            device: "flex".to_string(),
            problem: Problem::new(Mode::Inference, Shape::new(1, 10, size, size)),
            ms_median: ms,
            ms_min: ms,
            ms_first: ms,
            calls: 3,
            context: Some(Context {
                section,
                speedup: Some(baseline / ms),
                gflops: Some(50.0),
                gbytes_per_s: None,
                largest_difference: Some(1e-7),
                published: None,
            }),
        }
    }

    #[test]
    fn the_table_of_lstms_pth_has_the_published_times() {
        let mut gal = row(Section::Table, "GalLSTM", 128, 500.0, 1500.0);
        let context = gal.context.as_mut().unwrap();
        context.published = Some(PublishedSpeed {
            nn_lstm_s: 0.669,
            layer_s: 0.696,
            speedup: 0.961,
        });
        let rows = [
            row(Section::Table, BURN_NN, 128, 1500.0, 1500.0),
            gal,
            row(Section::Sequence, LSTM, 128, 2.0, 8.0),
        ];
        let csv = lstms_pth(&rows).to_csv();
        let lines: Vec<&str> = csv.lines().skip(1).collect();
        assert_eq!(lines, ["128,10,GalLSTM,1.5,0.5,3,0.669,0.696,0.961"]);
    }

    #[test]
    fn the_sequences_have_the_steps_in_their_columns() {
        let rows = [
            row(Section::Sequence, BURN_NN, 128, 8.0, 8.0),
            row(Section::Sequence, LSTM, 128, 2.0, 8.0),
            row(Section::Sequence, BURN_NN, 256, 200.0, 200.0),
            row(Section::Table, LSTM, 512, 2.0, 8.0),
        ];
        let text = sequence(&rows).to_string();
        assert!(text.contains("H = 128, 10 steps"), "{text}");
        assert!(!text.contains("H = 512"), "{text}");
        assert!(text.contains("2.00 ms  4.00×"), "{text}");
        assert!(text.contains("200 ms  1.00×"), "{text}");
        // Our LSTM was not timed at 256.
        assert!(text.contains('–'), "{text}");
    }

    #[test]
    fn variants_are_compared_with_our_lstm() {
        let rows = [
            row(Section::Variants, LSTM, 8, 2.0, 8.0),
            row(Section::Variants, "GalLSTM", 8, 3.0, 8.0),
        ];
        let text = variants(&rows).to_string();
        assert!(text.contains("3.00 ms  1.50×"), "{text}");
    }

    #[test]
    fn the_grid_shows_the_share_of_the_machine() {
        let rows = [row(Section::Grid, LSTM, 8, 2.0, 8.0)];
        let matmul = Matmul {
            size: 512,
            gflops: 200.0,
        };
        let text = grid(&rows, Some(matmul), &[]).to_string();
        assert!(text.contains(" 25 "), "{text}");
        assert!(text.contains("1e-7"), "{text}");
    }

    #[test]
    fn the_chart_needs_a_row_beside_the_baseline() {
        let baseline = [row(Section::Grid, BURN_NN, 8, 8.0, 8.0)];
        assert!(chart(&baseline, &[]).is_none());
        let both = [baseline[0].clone(), row(Section::Grid, LSTM, 8, 2.0, 8.0)];
        let svg = chart(&both, &[]).unwrap().to_svg().unwrap();
        assert!(svg.contains("inference 1,10,8,8") && svg.contains("4.00"));
    }
}

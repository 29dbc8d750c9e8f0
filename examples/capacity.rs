//! The capacity table of lstms.pth, and the same task with a readout.
//!
//! `cargo run --release --example capacity` prints both tables and writes `results/capacity.json`,
//! `capacity.csv`, `capacity_readout.csv` and `capacity.svg`. See `--help` for the options.

use std::process::ExitCode;

use clap::Parser;
use recurrent_bench::chart::{Axis, BarChart};
use recurrent_bench::cli::{self, CommonArgs};
use recurrent_bench::device;
use recurrent_bench::error::{self, Error};
use recurrent_bench::files;
use recurrent_bench::lstms_pth::Readme;
use recurrent_bench::models::{MODELS, ModelSpec};
use recurrent_bench::progress::{Interrupt, Progress};
use recurrent_bench::report::{Cell, Column, Header, Report, Summary, Table};
use recurrent_bench::tasks::capacity::{
    OriginalErrors, Protocol, ReadoutErrors, Reference, original, with_readout,
};
use recurrent_modules::Strategy;
use serde::Serialize;

/// How well each model repeats the sum of ten random vectors.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Passes over the data in the original protocol.
    #[arg(long, default_value_t = Protocol::ORIGINAL.epochs)]
    epochs: usize,
    /// Passes over the data with a readout; 0 skips that table.
    #[arg(long, default_value_t = Protocol::READOUT.epochs)]
    readout_epochs: usize,
    /// How sequences are run: auto, composed (tensor operations) or fused (kernels; an error if
    /// there is none)
    #[arg(long, value_name = "NAME", value_parser = strategy, default_value = "auto")]
    strategy: Strategy,
}

fn strategy(text: &str) -> Result<Strategy, String> {
    match text {
        "auto" => Ok(Strategy::Auto),
        "composed" => Ok(Strategy::Composed),
        "fused" => Ok(Strategy::Fused),
        _ => Err("expected auto, composed or fused".to_string()),
    }
}

/// Both tasks, one model.
#[derive(Debug, Serialize)]
struct Outcome {
    model: &'static str,
    about: &'static str,
    original: Vec<OriginalErrors>,
    readout: Vec<ReadoutErrors>,
}

#[derive(Debug, Serialize)]
struct Experiment {
    seeds: Vec<u64>,
    strategy: Strategy,
    protocol: Protocol,
    readout_protocol: Protocol,
    models: Vec<Outcome>,
}

const SEEDS: usize = 3;

fn main() -> ExitCode {
    error::finish(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Error> {
    let models: Vec<&ModelSpec> = if args.common.models.is_empty() {
        MODELS.iter().filter(|model| model.of_lstms_pth).collect()
    } else {
        cli::choose("model", &MODELS, |model| model.name, &args.common.models)?
    };
    let reference = Reference::load().map_err(Error::other)?;
    let readme = Readme::load().map_err(Error::other)?;
    let out = args.common.prepare_out()?;
    let device = args.common.open_device()?;
    let seeds: Vec<u64> = args.common.seeds(SEEDS).collect();
    let interrupt = Interrupt::install()?;

    let mut experiment = Experiment {
        seeds: seeds.clone(),
        strategy: args.strategy,
        protocol: Protocol {
            epochs: args.epochs,
            ..Protocol::ORIGINAL
        },
        readout_protocol: Protocol {
            epochs: args.readout_epochs,
            ..Protocol::READOUT
        },
        models: Vec::new(),
    };
    let readout = args.readout_epochs > 0;
    let runs = models.len() * seeds.len() * if readout { 2 } else { 1 };
    let progress = args.common.progress(runs);
    for model in models {
        let outcome = run_model(model, &experiment, readout, &device, interrupt, &progress);
        experiment.models.push(outcome);
    }
    progress.finish();

    let table = original_table(&experiment, &reference, &readme);
    println!(
        "Capacity, protocol of lstms.pth: error on the training sequences, bare hidden state\n"
    );
    println!("{table}\n\n{ABOUT_READMES}\n");
    let header = Header::gather(device::describe(args.common.device, &device));
    Report {
        name: "capacity",
        header: &header,
        table: &table,
        experiment: &experiment,
    }
    .save(out)?;
    if readout {
        let table = readout_table(&experiment);
        println!("Capacity with a readout: error on test sequences, evaluation mode\n");
        println!("{table}\n");
        files::write_whole(&out.join("capacity_readout.csv"), table.to_csv().as_bytes())?;
    }
    let chart = out.join("capacity.svg");
    chart_of(&experiment, &reference).save(&chart)?;
    println!("Written to {}: capacity.json, .csv, .svg", out.display());
    Ok(())
}

fn run_model(
    model: &ModelSpec,
    experiment: &Experiment,
    readout: bool,
    device: &burn::tensor::Device,
    interrupt: Interrupt,
    progress: &Progress,
) -> Outcome {
    let mut outcome = Outcome {
        model: model.name,
        about: model.about,
        original: Vec::new(),
        readout: Vec::new(),
    };
    for &seed in &experiment.seeds {
        if interrupt.requested() {
            break;
        }
        progress.start(model.name, seed);
        let p = &experiment.protocol;
        let config = model.config(p.size, p.d_hidden, p.dropout);
        let errors = original(&config, p, experiment.strategy, seed, device);
        outcome.original.push(errors);
        progress.advance();
        if readout && !interrupt.requested() {
            let p = &experiment.readout_protocol;
            let config = model.config(p.size, p.d_hidden, p.dropout);
            let errors = with_readout(&config, p, experiment.strategy, seed, device);
            outcome.readout.push(errors);
            progress.advance();
        }
    }
    outcome
}

fn summary<T>(runs: &[T], value: impl Fn(&T) -> f64) -> Option<Summary> {
    Summary::of(&runs.iter().map(value).collect::<Vec<_>>())
}

/// The note below the first table.
const ABOUT_READMES: &str = "\
GalLSTM differs in the first README: its mask had no effect on the output that is measured, only on the
h carried to the next step, so its figure is close to that of nn.LSTM. In the later code the mask acts on
both. The later README repeats its rows for Gal, Moon and Semeniuta under the LayerNorm names.";

fn original_table(experiment: &Experiment, reference: &Reference, readme: &Readme) -> Table {
    let mut table = Table::new([
        Column::text("model"),
        Column::spread("dropout active", 3),
        Column::spread("evaluation", 3),
        Column::spread("original today, dropout active", 3),
        Column::spread("original today, evaluation", 3),
        Column::number("first README", 3),
        Column::number("later README", 3),
    ]);
    for outcome in &experiment.models {
        let (active, evaluation) = reference.today(outcome.model).unzip();
        table.push([
            outcome.model.into(),
            summary(&outcome.original, |run| run.dropout_active).into(),
            summary(&outcome.original, |run| run.evaluation).into(),
            active.into(),
            evaluation.into(),
            readme.first_capacity(outcome.model).into(),
            readme.later_capacity(outcome.model).into(),
        ]);
    }
    table
}

fn readout_table(experiment: &Experiment) -> Table {
    let mut table = Table::new([
        Column::text("model"),
        Column::spread("test", 4),
        Column::spread("training", 4),
        Column::text("what it is"),
    ]);
    for outcome in &experiment.models {
        table.push([
            outcome.model.into(),
            summary(&outcome.readout, |run| run.test).into(),
            summary(&outcome.readout, |run| run.train).into(),
            outcome.about.into(),
        ]);
    }
    table.push([
        "chance".into(),
        chance(experiment).into(),
        Cell::Missing,
        "the best constant prediction".into(),
    ]);
    table
}

/// Chance of each seed; the data do not depend on the model.
fn chance(experiment: &Experiment) -> Option<Summary> {
    let runs = experiment.models.iter().map(|outcome| &outcome.readout);
    summary(runs.max_by_key(|runs| runs.len())?, |run| run.chance)
}

fn chart_of(experiment: &Experiment, reference: &Reference) -> BarChart {
    let models = &experiment.models;
    let labels: Vec<String> = models.iter().map(|outcome| outcome.model.into()).collect();
    let active = models
        .iter()
        .map(|m| summary(&m.original, |run| run.dropout_active));
    let evaluation = models
        .iter()
        .map(|m| summary(&m.original, |run| run.evaluation));
    let today = models
        .iter()
        .map(|m| Some(reference.today(m.model)?.0.mean));
    let axis = Axis::new("mean smooth-L1 error per sequence (lower is better)").range(3.0, 5.0);
    let mut chart = BarChart::new(
        "Capacity: repeat the sum of ten random vectors",
        axis,
        labels,
    )
    .series("dropout active, as the original measures", active)
    .series("evaluation mode", evaluation)
    .markers("original code today, dropout active", today)
    .precision(2)
    .note("The axis starts at 3.");
    if let Some(error) = reference.saturated() {
        chart = chart.line("all outputs at 1", error);
    }
    chart
}

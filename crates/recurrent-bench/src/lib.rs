//! Infrastructure shared by the experiments of the recurrent crates.
//!
//! An experiment is an example of this crate, run with
//! `cargo run --release --example NAME -- OPTIONS`. All of them take the same basic options, run on
//! any compiled-in device, show their progress on the terminal and write the same kinds of files.
//!
//! - [`models`] and [`problems`]: the models, and the sizes on which speed is measured;
//! - [`lstms_pth`]: the tables that the README of lstms.pth publishes;
//! - [`tasks`]: the experiments themselves;
//! - [`cli`]: the options every experiment understands, and the choice of models by name;
//! - [`device`]: parsing `--device cuda:1` and opening the Burn device;
//! - [`progress`]: the progress bar, and stopping cleanly on Ctrl-C;
//! - [`report`]: the table of results on the terminal, as JSON and as CSV;
//! - [`chart`]: bar and line charts as SVG;
//! - [`files`]: atomic writing of files;
//! - [`error`]: one error type for an experiment's `main`, with its exit code.
//!
//! The main function of an experiment looks like this:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use clap::Parser;
//! use recurrent_bench::chart::{Axis, BarChart};
//! use recurrent_bench::cli::{self, CommonArgs};
//! use recurrent_bench::error::{self, Error};
//! use recurrent_bench::progress::Interrupt;
//! use recurrent_bench::report::{Column, Header, Report, Summary, Table};
//! use recurrent_bench::device;
//!
//! /// How much each model can hold.
//! #[derive(Debug, Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     common: CommonArgs,
//!     /// Training steps of every run.
//!     #[arg(long, default_value_t = 500)]
//!     steps: usize,
//! }
//!
//! const MODELS: [&str; 2] = ["lstm", "gru"];
//!
//! fn main() -> ExitCode {
//!     error::finish(run(&Args::parse()))
//! }
//!
//! fn run(args: &Args) -> Result<(), Error> {
//!     let models = cli::choose("model", &MODELS, |name| name, &args.common.models)?;
//!     let out = args.common.prepare_out()?;
//!     let device = args.common.open_device()?;
//!     let seeds = args.common.seeds(5);
//!     let interrupt = Interrupt::install()?;
//!
//!     let mut table = Table::new([Column::text("model"), Column::spread("accuracy", 1).unit("%")]);
//!     let mut labels = Vec::new();
//!     let mut bars = Vec::new();
//!     let progress = args.common.progress(models.len() * seeds.len());
//!     for model in models {
//!         let mut values = Vec::new();
//!         for seed in seeds.clone() {
//!             if interrupt.requested() {
//!                 break;
//!             }
//!             progress.start(model, seed);
//!             values.push(train(model, seed, args.steps, &device));
//!             progress.advance();
//!         }
//!         let summary = Summary::of(&values);
//!         table.push([(*model).into(), summary.clone().into()]);
//!         labels.push((*model).to_string());
//!         bars.push(summary);
//!     }
//!     progress.finish();
//!
//!     println!("{table}");
//!     let header = Header::gather(device::describe(args.common.device, &device));
//!     Report { name: "capacity", header: &header, table: &table, experiment: &args.steps }.save(out)?;
//!     BarChart::new("Capacity", Axis::new("accuracy").unit("%"), labels)
//!         .series("test", bars)
//!         .save(&out.join("capacity.svg"))?;
//!     Ok(())
//! }
//! # fn train(_: &str, _: u64, _: usize, _: &burn::tensor::Device) -> f64 { 0.0 }
//! ```

pub mod chart;
pub mod cli;
pub mod device;
pub mod error;
pub mod files;
pub mod lstms_pth;
pub mod models;
mod names;
pub mod problems;
pub mod progress;
pub mod report;
pub mod tasks;

/// Compiles and runs the code blocks of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Compiles the programs of `docs/known-issues.md`, and runs those that terminate.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/known-issues.md")]
struct KnownIssues;

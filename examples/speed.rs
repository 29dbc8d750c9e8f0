//! The speed of the models, compared with `burn::nn::Lstm` and with the limits of the machine.
//!
//! `cargo run --release --example speed` prints four tables (the table of lstms.pth, the same steps as one
//! sequence, a grid of cases, training steps of the variants) and writes `results/speed.json`,
//! `speed.csv` and `speed.svg`. See `--help` for the options and `docs/benchmarks.md` for the method.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use clap::Parser;
use recurrent_bench::cli::{self, CommonArgs};
use recurrent_bench::device;
use recurrent_bench::error::{self, Error};
use recurrent_bench::files;
use recurrent_bench::lstms_pth::Readme;
use recurrent_bench::problems::{self, Mode, Problem, Shape};
use recurrent_bench::progress::{Interrupt, Progress};
use recurrent_bench::report::Header;
use recurrent_bench::tasks::speed::clock::{Rounds, steps_within};
use recurrent_bench::tasks::speed::limits::{self, Matmul, Read};
use recurrent_bench::tasks::speed::record::{self, Record, Row, Section};
use recurrent_bench::tasks::speed::serve::Server;
use recurrent_bench::tasks::speed::subject::{BURN_NN, LSTM, Subject, Workload, subjects};
use recurrent_bench::tasks::speed::{clock, measure, tables, workloads};
use recurrent_modules::Precision;

/// The speed of the models, compared with burn::nn::Lstm and with the limits of the machine.
///
/// Names for --models: lstm (or nn.LSTM) is the plain LSTM, lstm-bf16 the same with recurrent weights
/// rounded to bf16 in inference, DropoutLSTM what the other experiments call LSTM; all other names are the
/// same there. burn::nn::Lstm is always included.
#[derive(Debug, Parser)]
#[command(mut_arg("seeds", |arg| arg.hide(true)))]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Parts to run, separated by commas: table (the protocol of lstms.pth, 1000 calls of one step,
    /// each output the next input), sequence (the same steps in one call), grid, variants [default:
    /// all; with --cases or --modes the grid]
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    sections: Vec<String>,
    /// Cases of the grid: sequences, steps, input features, units [default: a built-in list per mode]
    #[arg(long, value_name = "B,T,I,H", num_args = 1..)]
    cases: Vec<Shape>,
    /// Modes of the grid, separated by commas: inference, training, step [default: all; with --cases
    /// inference and training]
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    modes: Vec<Mode>,
    /// Sizes of table and sequence, separated by commas
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', default_values_t = problems::LSTMS_PTH_SIZES)]
    sizes: Vec<usize>,
    /// Steps in table and sequence [default: up to 1000, as many as the budget allows]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Seconds per row of a case for the timed rounds (at least 3 are made); with --serve, seconds of
    /// one answer
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    budget: f64,
    /// Exactly this many rounds per case, instead of --budget
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Write the JSON to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Read one case per line from standard input (`MODE B T I H [MODEL]`) and answer each with a line
    /// of JSON; nothing else is run or written
    #[arg(long)]
    serve: bool,
}

fn main() -> ExitCode {
    error::finish(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Error> {
    let plan = Plan::of(args)?;
    let device = args.common.open_device()?;
    if args.serve {
        let server = Server {
            device: &device,
            device_name: &args.common.device.to_string(),
            seed: args.common.seed,
            budget: plan.rounds.budget,
        };
        return server
            .run(io::stdin().lock(), io::stdout().lock())
            .map_err(Error::other);
    }
    let readme = Readme::load().map_err(Error::other)?;
    let out = args.common.prepare_out()?;
    let interrupt = Interrupt::install()?;

    let cases = plan.cases();
    let progress = args.common.progress(cases.len() + 1);
    progress.show("the machine");
    let limits = Limits::measure(&cases, args, &device);
    progress.advance();
    let session = Session {
        args,
        plan: &plan,
        device: &device,
        readme: &readme,
        interrupt,
        progress: &progress,
    };
    let mut rows: Vec<Row> = Vec::new();
    for case in cases {
        if interrupt.requested() {
            break;
        }
        rows.extend(session.time(case)?);
        progress.advance();
    }
    progress.finish();

    print_tables(&rows, &limits);
    let header = Header::gather(device::describe(args.common.device, &device));
    let json = Record {
        burn: header.burn_version.as_deref(),
        header: &header,
        matmul: Some(limits.matmul),
        reads: &limits.reads,
        rows: &rows,
    }
    .to_json()
    .map_err(Error::other)?;
    files::write_whole(&out.join("speed.json"), json.as_bytes())?;
    if let Some(file) = &args.json {
        files::write_whole(file, json.as_bytes())?;
    }
    let csv = record::flat_table(&rows).to_csv();
    files::write_whole(&out.join("speed.csv"), csv.as_bytes())?;
    let asked: Vec<&str> = plan
        .grid_models
        .iter()
        .map(|subject| subject.name)
        .collect();
    let mut written = "speed.json, .csv".to_string();
    if let Some(chart) = tables::chart(&rows, &asked) {
        chart.save(&out.join("speed.svg"))?;
        written.push_str(", .svg");
    }
    println!("Written to {}: {written}", out.display());
    Ok(())
}

/// The requested rows.
struct Plan {
    sections: Vec<Section>,
    /// Rows of the table of lstms.pth.
    table_models: Vec<Subject>,
    /// Rows of the sequences and of the variants.
    models: Vec<Subject>,
    /// Rows of the grid.
    grid_models: Vec<Subject>,
    grid: Vec<Problem>,
    sizes: Vec<usize>,
    rounds: Rounds,
}

/// One case and its section; the number of steps of the table is chosen when it runs.
#[derive(Clone, Copy)]
struct Case {
    section: Section,
    problem: Problem,
}

impl Plan {
    fn of(args: &Args) -> Result<Self, Error> {
        if args.common.seeds.is_some() {
            let text = "speed has no --seeds, as times do not depend on the seed; see --rounds";
            return Err(Error::other(text));
        }
        let budget = Duration::try_from_secs_f64(args.budget).map_err(|_| {
            let got = args.budget;
            Error::other(format!(
                "--budget is {got}; expected a number of seconds from 0 on"
            ))
        })?;
        for (option, value) in [
            ("--rounds", args.rounds),
            ("--steps", args.steps),
            ("--sizes", args.sizes.iter().copied().min()),
        ] {
            if value == Some(0) {
                return Err(Error::other(format!("{option} is 0; expected at least 1")));
            }
        }
        let only_grid = !(args.cases.is_empty() && args.modes.is_empty());
        let sections = match args.sections.as_slice() {
            [] if only_grid => vec![Section::Grid],
            asked => cli::choose("section", &Section::ALL, |section| section.name(), asked)?
                .into_iter()
                .copied()
                .collect(),
        };
        Ok(Self {
            sections,
            table_models: match args.common.models.as_slice() {
                [] => of_lstms_pth(),
                asked => chosen(asked, None)?,
            },
            models: chosen(&args.common.models, None)?,
            grid_models: chosen(&args.common.models, Some(LSTM))?,
            grid: grid(&args.modes, &args.cases),
            sizes: args.sizes.clone(),
            rounds: Rounds {
                exactly: args.rounds,
                budget,
            },
        })
    }

    /// All cases of the requested sections.
    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &section in &self.sections {
            let problems: Vec<Problem> = match section {
                Section::Table => self.lstms_pth(Mode::Feedback),
                Section::Sequence => self.lstms_pth(Mode::Inference),
                Section::Grid => self.grid.clone(),
                Section::Variants => problems::VARIANTS
                    .map(|shape| Problem::new(Mode::Training, shape))
                    .to_vec(),
            };
            cases.extend(
                problems
                    .into_iter()
                    .map(|problem| Case { section, problem }),
            );
        }
        cases
    }

    fn lstms_pth(&self, mode: Mode) -> Vec<Problem> {
        let shape = |size| Shape::new(1, problems::LSTMS_PTH_STEPS, size, size);
        let sizes = self.sizes.iter();
        sizes.map(|&size| Problem::new(mode, shape(size))).collect()
    }
}

fn grid(modes: &[Mode], cases: &[Shape]) -> Vec<Problem> {
    let modes = match modes {
        [] if cases.is_empty() => Mode::NAMED.to_vec(),
        [] => vec![Mode::Inference, Mode::Training],
        modes => modes.to_vec(),
    };
    let mut problems = Vec::new();
    for mode in modes {
        let shapes = match cases {
            [] => problems::cases(mode),
            cases => cases,
        };
        problems.extend(shapes.iter().map(|shape| Problem::new(mode, *shape)));
    }
    problems
}

/// The requested models (or the default one, or all), after the baseline.
fn chosen(asked: &[String], default: Option<&str>) -> Result<Vec<Subject>, Error> {
    let known = subjects();
    let asked: Vec<String> = match (asked, default) {
        ([], Some(default)) => vec![default.to_string()],
        (asked, _) => asked
            .iter()
            // The name in the other experiments.
            .map(|name| {
                if name.eq_ignore_ascii_case("nn.LSTM") {
                    LSTM
                } else {
                    name
                }
                .to_string()
            })
            .collect(),
    };
    let models = cli::choose("model", &known, |subject| subject.name, &asked)?;
    let baseline = known.iter().filter(|subject| subject.name == BURN_NN);
    let others = models.into_iter().filter(|subject| subject.name != BURN_NN);
    Ok(baseline.chain(others).copied().collect())
}

/// The models of lstms.pth, after the baseline.
fn of_lstms_pth() -> Vec<Subject> {
    let wanted = |subject: &Subject| subject.name == BURN_NN || subject.lstms_pth_name().is_some();
    subjects().into_iter().filter(wanted).collect()
}

/// The limits of the machine.
struct Limits {
    matmul: Matmul,
    reads: Vec<Read>,
}

impl Limits {
    fn measure(cases: &[Case], args: &Args, device: &Device) -> Self {
        let mut reads = Vec::new();
        // The read bandwidth is measured for host memory only.
        if args.common.device.backend().is_processor() {
            let grid = cases
                .iter()
                .filter(|case| case.section != Section::Variants);
            let sizes = record::sizes_to_read(grid.map(|case| case.problem));
            reads = sizes.into_iter().map(limits::read).collect();
        }
        Self {
            matmul: limits::matmul(device),
            reads,
        }
    }
}

struct Session<'a> {
    args: &'a Args,
    plan: &'a Plan,
    device: &'a Device,
    readme: &'a Readme,
    interrupt: Interrupt,
    progress: &'a Progress,
}

impl Session<'_> {
    fn time(&self, case: Case) -> Result<Vec<Row>, Error> {
        let Case { section, problem } = case;
        self.progress.show(format!("{}: {problem}", section.name()));
        let mut rows = match section {
            Section::Table => self.within_budget(&self.plan.table_models, problem),
            Section::Sequence => self.within_budget(&self.plan.models, problem),
            Section::Grid => self.workloads(&self.plan.grid_models, problem),
            Section::Variants => {
                // Training is in f32.
                let models = self.plan.models.iter().copied();
                let models: Vec<Subject> = models
                    .filter(|subject| subject.precision == Precision::F32)
                    .collect();
                self.workloads(&models, problem)
            }
        };
        let go_on = || !self.interrupt.requested();
        let measured = measure(&mut rows, &self.plan.rounds, go_on).map_err(Error::other)?;
        let device = self.args.common.device.to_string();
        Ok(record::rows(
            section,
            &device,
            &rows,
            &measured,
            self.readme,
        ))
    }

    fn workloads(&self, models: &[Subject], problem: Problem) -> Vec<(Subject, Workload)> {
        workloads(models, problem, self.args.common.seed, self.device)
    }

    /// Runs the models on as many steps as the budget allows, the same number for all.
    fn within_budget(&self, models: &[Subject], problem: Problem) -> Vec<(Subject, Workload)> {
        if let Some(seq_length) = self.args.steps {
            let shape = Shape {
                seq_length,
                ..problem.shape
            };
            return self.workloads(models, Problem::new(problem.mode, shape));
        }
        const TRIAL: usize = 5;
        let trial = Shape {
            seq_length: TRIAL,
            ..problem.shape
        };
        let mut rows = self.workloads(models, Problem::new(problem.mode, trial));
        let start = Instant::now();
        for (_, row) in &mut rows {
            clock::call(row);
        }
        // The first call includes allocations and is not representative.
        let warm: f64 = rows.iter_mut().map(|(_, row)| clock::call(row)).sum();
        let budget = self.plan.rounds.budget * rows.len() as u32;
        let seconds_per_step = warm * 1e-3 / TRIAL as f64;
        let left = budget.saturating_sub(start.elapsed());
        let steps = steps_within(left, seconds_per_step, problem.shape.seq_length);
        let seed = self.args.common.seed;
        rows.into_iter()
            .map(|(subject, row)| (subject, row.with_seq_length(steps, seed)))
            .collect()
    }
}

/// The heading of the table of lstms.pth.
const TABLE: &str = "\
Protocol of lstms.pth: calls of one step, one sequence, as many inputs (size) as units, each output the
next input, dropout 0.5 active where the model has it. Speed-up: time of burn::nn::Lstm over that of the
model; burn::nn::Lstm plays the part of torch's nn.LSTM, which has no dropout either. README: what
lstms.pth publishes for 1000 steps, on another machine.";

fn print_tables(rows: &[Row], limits: &Limits) {
    let has = |section| {
        rows.iter()
            .filter_map(|row| row.context.as_ref())
            .any(|context| context.section == section)
    };
    let Matmul { size, gflops } = limits.matmul;
    println!("Fastest matrix product: {gflops:.0} GFLOP/s, at {size} × {size} × {size}.");
    for read in &limits.reads {
        println!(
            "Fastest read of the recurrent weights at H = {}: {:.0} GB/s ({:.1} MB).",
            read.d_hidden,
            read.gbytes_per_s,
            read.bytes as f64 * 1e-6
        );
    }
    if has(Section::Table) {
        println!("\n{TABLE}\n");
        println!("{}", tables::lstms_pth(rows));
    }
    if has(Section::Sequence) {
        println!("\nInference, one sequence: time and speed-up over burn::nn::Lstm\n");
        println!("{}", tables::sequence(rows));
    }
    if has(Section::Grid) {
        println!("\nGrid: our LSTM against burn::nn::Lstm and the machine\n");
        println!("{}", tables::grid(rows, Some(limits.matmul), &limits.reads));
    }
    if has(Section::Variants) {
        println!("\nTraining step (B,T,I,H): time and its ratio to that of our plain LSTM\n");
        println!("{}", tables::variants(rows));
    }
}

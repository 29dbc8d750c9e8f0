//! The latency of one step with the state of the previous one, with the statistics of divan:
//! `cargo bench --bench step`.
//!
//! The problems are those of the `speed` example.

use burn::tensor::Device;
use divan::Bencher;
use recurrent_bench::problems::{self, Mode, Problem};
use recurrent_bench::tasks::speed::subject::{BURN_NN, LSTM, Subject, Workload};

/// Weights and inputs are the same in every run.
const SEED: u64 = 1234;

fn main() {
    divan::main();
}

fn problems() -> impl Iterator<Item = Problem> {
    let shapes = problems::cases(Mode::Step).iter();
    shapes.map(|shape| Problem::new(Mode::Step, *shape))
}

fn time(bencher: Bencher, model: &str, problem: &Problem) {
    let subject = Subject::named(model).expect("the name of a subject");
    let mut workload = Workload::new(subject, *problem, SEED, &Device::default());
    bencher.bench_local(|| workload.run());
}

#[divan::bench(args = problems())]
fn burn_nn(bencher: Bencher, problem: &Problem) {
    time(bencher, BURN_NN, problem);
}

#[divan::bench(args = problems())]
fn lstm(bencher: Bencher, problem: &Problem) {
    time(bencher, LSTM, problem);
}

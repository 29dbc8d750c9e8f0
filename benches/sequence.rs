//! Whole sequences, with the statistics of divan: `cargo bench --bench sequence`.
//!
//! The problems are those of the `speed` example. Select some by a part of their name: `-- training`,
//! `-- 32,50,128,128`.

use burn::tensor::Device;
use divan::Bencher;
use recurrent_bench::problems::{self, Mode, Problem};
use recurrent_bench::tasks::speed::subject::{BURN_NN, LSTM, Subject, Workload};

/// Weights and inputs are the same in every run.
const SEED: u64 = 1234;

fn main() {
    divan::main();
}

fn problems(mode: Mode) -> impl Iterator<Item = Problem> {
    let shapes = problems::cases(mode).iter();
    shapes.map(move |shape| Problem::new(mode, *shape))
}

fn time(bencher: Bencher, model: &str, problem: &Problem) {
    let subject = Subject::named(model).expect("the name of a subject");
    let mut workload = Workload::new(subject, *problem, SEED, &Device::default());
    bencher.bench_local(|| workload.run());
}

#[divan::bench_group(max_time = 2)]
mod inference {
    use super::*;

    #[divan::bench(args = problems(Mode::Inference))]
    fn burn_nn(bencher: Bencher, problem: &Problem) {
        time(bencher, BURN_NN, problem);
    }

    #[divan::bench(args = problems(Mode::Inference))]
    fn lstm(bencher: Bencher, problem: &Problem) {
        time(bencher, LSTM, problem);
    }
}

#[divan::bench_group(max_time = 2)]
mod training {
    use super::*;

    #[divan::bench(args = problems(Mode::Training))]
    fn burn_nn(bencher: Bencher, problem: &Problem) {
        time(bencher, BURN_NN, problem);
    }

    #[divan::bench(args = problems(Mode::Training))]
    fn lstm(bencher: Bencher, problem: &Problem) {
        time(bencher, LSTM, problem);
    }
}

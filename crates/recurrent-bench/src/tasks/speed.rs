//! The speed of the models, compared with `burn::nn::Lstm` and with the limits of the machine.
//!
//! - [`subject`]: the timed models, and one call of each;
//! - [`clock`]: rounds over the rows of a case, each row once per round, and their medians;
//! - [`limits`]: the largest matrix product and the fastest read of memory on the same device;
//! - [`record`]: the rows as JSON and CSV;
//! - [`tables`]: the rows as tables for the terminal and as a chart;
//! - [`serve`]: one case per line of standard input, for a runner that times other libraries in
//!   turn with this one.
//!
//! Each call synchronises the device, so that on a GPU the work is timed and not only its launch.
//! Rows of a case are interleaved, so that a temporary slow-down of the machine affects all of them.

pub mod clock;
pub mod limits;
pub mod record;
pub mod serve;
pub mod subject;
pub mod tables;

use burn::tensor::Device;
use thiserror::Error;

use crate::problems::Problem;
use clock::{Rounds, Times};
use subject::{BURN_NN, LSTM, Subject, Workload};

/// The strategy. Every model uses the default of the library.
pub const STRATEGY: &str = "auto";

/// Largest difference between our LSTM and `burn::nn::Lstm`, relative to the largest value, that
/// is accepted as rounding. Wrong gates differ by tens of percent; products in reduced precision, as
/// GPUs may choose them, by less than this.
pub const TOLERANCE: f64 = 1e-2;

/// Our LSTM and `burn::nn::Lstm` do not compute the same.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "{problem}: lstm and burn::nn::Lstm differ by {got:.1e} of the largest value; \
     expected at most {TOLERANCE:.0e}, so their times cannot be compared"
)]
pub struct Mismatch {
    /// The case.
    pub problem: Problem,
    /// The difference, relative to the largest value.
    pub got: f64,
}

/// Times of the rows of one case.
#[derive(Debug)]
pub struct Measured {
    /// One entry per row, in the order of the rows.
    pub times: Vec<Times>,
    /// The largest difference between our LSTM and `burn::nn::Lstm` with the same weights, if both
    /// are rows: of the outputs and, in training, of the gradient of the input.
    pub largest_difference: Option<f64>,
}

/// Runs every row once, compares the outputs if there is a reference, and times the rows, interleaved.
///
/// # Errors
/// A [`Mismatch`] if our LSTM and `burn::nn::Lstm` do not compute the same.
pub fn measure(
    rows: &mut [(Subject, Workload)],
    rounds: &Rounds,
    go_on: impl Fn() -> bool,
) -> Result<Measured, Mismatch> {
    let first: Vec<f64> = rows.iter_mut().map(|(_, row)| clock::call(row)).collect();
    let workload = |name| rows.iter().find(|(subject, _)| subject.name == name);
    let largest_difference = match (workload(LSTM), workload(BURN_NN)) {
        (Some((_, ours)), Some((_, reference))) => {
            let difference = ours.result().difference(&reference.result());
            // Not so if it is not a number.
            let agree = difference.relative <= TOLERANCE;
            if !agree {
                return Err(Mismatch {
                    problem: ours.problem(),
                    got: difference.relative,
                });
            }
            Some(difference.largest)
        }
        _ => None,
    };
    let mut workloads: Vec<&mut Workload> = rows.iter_mut().map(|(_, row)| row).collect();
    let times = clock::interleave(&mut workloads, first, rounds, go_on);
    Ok(Measured {
        times,
        largest_difference,
    })
}

/// The workloads of `subjects` on one problem, with the same input.
pub fn workloads(
    subjects: &[Subject],
    problem: Problem,
    seed: u64,
    device: &Device,
) -> Vec<(Subject, Workload)> {
    let workload = |subject: &Subject| Workload::new(*subject, problem, seed, device);
    subjects
        .iter()
        .map(|subject| (*subject, workload(subject)))
        .collect()
}

/// Held by each test that draws numbers: a device has one generator, which `Device::seed` sets for all
/// threads.
#[cfg(test)]
fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static DRAWING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    DRAWING
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::problems::{Mode, Shape};
    use subject::subjects;

    #[test]
    fn all_subjects_run_and_the_reference_agrees() {
        let _alone = one_at_a_time();
        let device = Device::flex();
        let named = Mode::NAMED.map(|mode| Problem::new(mode, Shape::new(2, 3, 5, 8)));
        let feedback = Problem::new(Mode::Feedback, Shape::new(2, 3, 8, 8));
        for problem in named.into_iter().chain([feedback]) {
            let mut rows = workloads(&subjects(), problem, 1, &device);
            let rounds = Rounds::exactly(1);
            let measured = measure(&mut rows, &rounds, || true).unwrap();
            assert_eq!(measured.times.len(), subjects().len());
            let difference = measured.largest_difference.unwrap();
            assert!(difference < 1e-5, "{problem}: {difference}");
        }
    }
}

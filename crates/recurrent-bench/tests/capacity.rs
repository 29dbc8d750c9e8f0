//! The full capacity protocol of lstms.pth, every row of the original, with kernels and without.
//!
//! The bound of a row is the interval in which one more seed of the original lies in 99 of 100
//! cases: mean ± t·s·√(1 + 1/n), with mean and sample deviation s over the n = 6 seeds of
//! `data/capacity_reference.json` and t of Student's distribution with n − 1 degrees of freedom. The
//! range from the smallest to the largest of six seeds would refuse a seventh in two of seven cases.
//! The seed is fixed, so the test does not fail at random.

use burn::tensor::Device;
use recurrent_bench::models::{MODELS, ModelSpec};
use recurrent_bench::report::Summary;
use recurrent_bench::tasks::capacity::{Protocol, Reference, original};
use recurrent_modules::Strategy;
use serde_json::Value;

/// Rows of the reference.
const FILE: &str = include_str!("../data/capacity_reference.json");

/// The first seed of the example.
const SEED: u64 = 1234;

/// t of Student's distribution for 5 degrees of freedom, two-sided 99 %.
const T_OF_SIX_SEEDS: f64 = 4.032;

/// With the same seed kernels and tensor operations differ by rounding alone: by less than 1e-5, for
/// MoonLSTM by 1e-4.
const BETWEEN_STRATEGIES: f64 = 1e-3;

/// The interval for one more seed.
fn interval(reference: &Summary) -> (f64, f64) {
    let n = reference.values.len();
    assert_eq!(n, 6, "seeds of the reference: t is that for 6");
    let margin = T_OF_SIX_SEEDS * reference.spread * (1.0 + 1.0 / n as f64).sqrt();
    (reference.mean - margin, reference.mean + margin)
}

fn within(reference: &Summary, got: f64) -> bool {
    let (low, high) = interval(reference);
    // Not so if it is not a number.
    low <= got && got <= high
}

/// Every row of the original with its reference, dropout active and in evaluation mode.
fn rows() -> Vec<(&'static ModelSpec, Summary, Summary)> {
    let file: Value = serde_json::from_str(FILE).unwrap();
    let reference = Reference::load().unwrap();
    let row = |name: &String| {
        let model = MODELS.iter().find(|model| model.name == name);
        let (active, evaluation) = reference.today(name).unwrap();
        (model.unwrap(), active, evaluation)
    };
    let rows: Vec<_> = file["results"]
        .as_object()
        .unwrap()
        .keys()
        .map(row)
        .collect();
    assert_eq!(rows.len(), 10);
    rows
}

/// One test for both ways: the seed is the device's, and tests that run at the same time would draw
/// from the same stream.
#[test]
#[cfg_attr(debug_assertions, ignore = "slow without --release")]
fn every_row_is_that_of_the_original() {
    let device = Device::flex();
    let mut wrong = Vec::new();
    for (model, active, evaluation) in rows() {
        let p = Protocol::ORIGINAL;
        let config = model.config(p.size, p.d_hidden, p.dropout);
        let [fused, composed] = [Strategy::Fused, Strategy::Composed]
            .map(|strategy| original(&config, &p, strategy, SEED, &device));
        for (strategy, got) in [("fused", fused), ("composed", composed)] {
            let columns = [
                ("dropout active", &active, got.dropout_active),
                ("evaluation", &evaluation, got.evaluation),
            ];
            for (column, reference, got) in columns {
                let (low, high) = interval(reference);
                let line = format!(
                    "{}, {strategy}, {column}: got {got:.5}, expected {low:.4} to {high:.4}",
                    model.name
                );
                println!("{line}");
                if !within(reference, got) {
                    wrong.push(line);
                }
            }
        }
        let differences = [
            fused.dropout_active - composed.dropout_active,
            fused.evaluation - composed.evaluation,
        ];
        for (column, difference) in ["dropout active", "evaluation"].iter().zip(differences) {
            // Not so if it is not a number.
            let agree = difference.abs() <= BETWEEN_STRATEGIES;
            if !agree {
                wrong.push(format!(
                    "{}, {column}: fused and composed differ by {difference:.5}, \
                     expected at most {BETWEEN_STRATEGIES}",
                    model.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "out of range:\n{}", wrong.join("\n"));
}

/// Rows that were wrong once, or would be with a gradient that is slightly wrong.
#[test]
fn wrong_rows_are_refused() {
    let rows = rows();
    let (_, active, evaluation) = rows.iter().find(|row| row.0.name == "MoonLSTM").unwrap();
    // A tanh that does not saturate.
    assert!(!within(evaluation, 3.819));
    assert!(!within(evaluation, 4.40) && !within(active, 4.40));
    for (model, active, evaluation) in &rows {
        for reference in [active, evaluation] {
            assert!(!within(reference, f64::NAN));
            // A seed of the original is never refused.
            let accepted = |value: &f64| within(reference, *value);
            assert!(reference.values.iter().all(accepted), "{}", model.name);
        }
    }
}

//! Statistics over seeds.

use serde::Serialize;

/// The values of several runs and their statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation (with n-1), 0 for a single value.
    pub spread: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The values themselves, in the order given.
    pub values: Vec<f64>,
}

impl Summary {
    /// The statistics of `values`; `None` if there are none.
    ///
    /// If one of them is NaN (a diverged run), so are the results: a failed run must not be hidden by a good mean.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mean = mean(values)?;
        Some(Self {
            mean,
            spread: sample_deviation(values, mean),
            min: values.iter().copied().reduce(f64_min)?,
            max: values.iter().copied().reduce(f64_max)?,
            values: values.to_vec(),
        })
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn sample_deviation(values: &[f64], mean: f64) -> f64 {
    if values.len() < 2 {
        return if mean.is_nan() { f64::NAN } else { 0.0 };
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Unlike `f64::min`, keeps NaN.
fn f64_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// Unlike `f64::max`, keeps NaN.
fn f64_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_value_has_no_spread() {
        let summary = Summary::of(&[3.5]).unwrap();
        assert_eq!(
            (summary.mean, summary.spread, summary.min, summary.max),
            (3.5, 0.0, 3.5, 3.5)
        );
    }

    #[test]
    fn the_spread_is_that_of_a_sample() {
        let summary = Summary::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((summary.mean, summary.min, summary.max), (5.0, 2.0, 9.0));
        assert!((summary.spread - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(summary.values.len(), 8);
    }

    #[test]
    fn a_failed_run_is_not_hidden() {
        for values in [&[f64::NAN][..], &[f64::NAN, 1.0], &[1.0, f64::NAN, 2.0]] {
            let summary = Summary::of(values).unwrap();
            for result in [summary.mean, summary.spread, summary.min, summary.max] {
                assert!(result.is_nan(), "{values:?} gave {summary:?}");
            }
        }
    }

    #[test]
    fn an_infinite_value_is_the_maximum() {
        let summary = Summary::of(&[1.0, f64::INFINITY]).unwrap();
        assert_eq!((summary.min, summary.max), (1.0, f64::INFINITY));
        assert_eq!(summary.mean, f64::INFINITY);
        assert!(summary.spread.is_nan());
    }
}

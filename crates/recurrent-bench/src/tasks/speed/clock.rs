//! Rounds over the rows of a case, and their statistics.

use std::time::{Duration, Instant};

use super::subject::Workload;

/// Calls shorter than this are repeated within a round, because the previous row has replaced the contents of the
/// caches.
const SHORTEST_TURN_MS: f64 = 5.0;
const MOST_CALLS_PER_TURN: usize = 200;

/// Rounds that a budget of time buys, but not fewer.
const FEWEST_ROUNDS: usize = 3;

/// How many rounds to run.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    /// Exactly this many.
    pub exactly: Option<usize>,
    /// Otherwise as many as fit into this time per row, at least 3.
    pub budget: Duration,
}

impl Rounds {
    /// A fixed number.
    pub fn exactly(rounds: usize) -> Self {
        Self {
            exactly: Some(rounds),
            budget: Duration::ZERO,
        }
    }

    fn enough(&self, done: usize, elapsed: Duration, rows: usize) -> bool {
        match self.exactly {
            Some(rounds) => done >= rounds,
            None => done >= FEWEST_ROUNDS && elapsed >= self.budget * rows as u32,
        }
    }
}

/// Times of the calls of one row, in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Times {
    /// The first call: allocation, and compilation where the backend compiles.
    pub first: f64,
    /// The calls after the warm-up.
    pub calls: Vec<f64>,
}

impl Times {
    /// The median; `None` without calls.
    pub fn median(&self) -> Option<f64> {
        median(&self.calls)
    }

    /// The shortest call; `None` without calls.
    pub fn min(&self) -> Option<f64> {
        self.calls.iter().copied().reduce(f64::min)
    }
}

/// The middle value, or the mean of the middle two; `None` for no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Milliseconds of one call.
pub fn call(workload: &mut Workload) -> f64 {
    let start = Instant::now();
    workload.run();
    start.elapsed().as_secs_f64() * 1e3
}

/// Times the rows, interleaved in rounds, after a warm-up call; `first` are their first calls.
///
/// Ends early, after a complete round, when `go_on` returns false.
pub fn interleave(
    rows: &mut [&mut Workload],
    first: Vec<f64>,
    rounds: &Rounds,
    go_on: impl Fn() -> bool,
) -> Vec<Times> {
    let warm: Vec<f64> = rows.iter_mut().map(|row| call(row)).collect();
    let mut times: Vec<Times> = first
        .into_iter()
        .map(|first| Times {
            first,
            calls: Vec::new(),
        })
        .collect();
    let (start, mut done) = (Instant::now(), 0);
    while !rounds.enough(done, start.elapsed(), rows.len()) {
        for ((row, of_row), warm) in rows.iter_mut().zip(&mut times).zip(&warm) {
            if !go_on() {
                return times;
            }
            for _ in 0..calls_per_turn(*warm) {
                of_row.calls.push(call(row));
            }
        }
        done += 1;
    }
    times
}

fn calls_per_turn(ms: f64) -> usize {
    let calls = (SHORTEST_TURN_MS / ms).ceil();
    // A time of zero gives infinity, which the conversion turns into the largest number.
    (calls as usize).clamp(1, MOST_CALLS_PER_TURN)
}

/// Steps a sequence may have, longest first.
const LADDER: [usize; 8] = [1000, 500, 200, 100, 50, 20, 10, 5];

/// The most steps, up to `most`, with which a first call, two to check and warm up, and the fewest
/// rounds stay within `budget`; the smallest number of the ladder if none does.
///
/// # Arguments
/// * `seconds_per_step` - of all rows together
pub fn steps_within(budget: Duration, seconds_per_step: f64, most: usize) -> usize {
    let calls = (FEWEST_ROUNDS + 3) as f64;
    let fits = |steps: &usize| *steps as f64 * seconds_per_step * calls <= budget.as_secs_f64();
    let allowed = || LADDER.into_iter().filter(|steps| *steps <= most);
    allowed()
        .find(fits)
        .or_else(|| allowed().next_back())
        .unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        let times = Times {
            first: 50.0,
            calls: vec![4.0, 2.0, 3.0],
        };
        assert_eq!((times.median(), times.min()), (Some(3.0), Some(2.0)));
    }

    #[test]
    fn short_calls_are_repeated_and_long_ones_are_not() {
        assert_eq!(calls_per_turn(7.0), 1);
        assert_eq!(calls_per_turn(2.0), 3);
        assert_eq!(calls_per_turn(0.001), MOST_CALLS_PER_TURN);
        assert_eq!(calls_per_turn(0.0), MOST_CALLS_PER_TURN);
    }

    #[test]
    fn steps_fit_the_budget() {
        let budget = Duration::from_secs(6);
        assert_eq!(steps_within(budget, 0.0005, 1000), 1000);
        assert_eq!(steps_within(budget, 0.011, 1000), 50);
        assert_eq!(steps_within(budget, 0.0005, 300), 200);
        // Nothing fits: the least there is, rather than nothing.
        assert_eq!(steps_within(budget, 100.0, 1000), 5);
        assert_eq!(steps_within(budget, 100.0, 3), 3);
    }

    #[test]
    fn a_budget_buys_at_least_the_fewest_rounds() {
        let rounds = Rounds {
            exactly: None,
            budget: Duration::from_secs(1),
        };
        let long = Duration::from_secs(60);
        assert!(!rounds.enough(FEWEST_ROUNDS - 1, long, 2));
        assert!(rounds.enough(FEWEST_ROUNDS, long, 2));
        assert!(!rounds.enough(FEWEST_ROUNDS, Duration::from_secs(1), 2));
        assert!(Rounds::exactly(2).enough(2, Duration::ZERO, 2));
    }
}

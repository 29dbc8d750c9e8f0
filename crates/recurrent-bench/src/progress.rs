//! The progress bar of an experiment, and stopping it cleanly on Ctrl-C.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use thiserror::Error;

/// The code a shell gives to a program ended by Ctrl-C (128 + SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;

/// A progress bar over the runs of an experiment.
///
/// It is drawn on standard error, and only if that is a terminal, so it does not appear in log files
/// or piped tables.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar over `total` runs; `quiet` hides it.
    pub fn new(total: usize, quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            // Hides itself if standard error is not a terminal.
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        bar.set_style(style());
        Self { bar }
    }

    /// Shows which model and which seed is running.
    pub fn start(&self, model: &str, seed: u64) {
        self.show(format!("{model}, seed {seed}"));
    }

    /// Shows what is running, for experiments whose runs are not a model and a seed.
    pub fn show(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
        // The first run can be long: show the bar at once.
        self.bar.tick();
    }

    /// Counts one run as done.
    pub fn advance(&self) {
        self.bar.inc(1);
    }

    /// Prints a line above the bar (also when the bar is not shown).
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

const TEMPLATE: &str = "{wide_msg} {bar:24} {pos}/{len} [{elapsed}{left}]";

fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE)
        // The template is a constant; should it be wrong, a plain bar is better than none.
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("left", write_time_left)
        .progress_chars("━╸─")
}

/// The estimated time left; empty until the first run is done.
fn write_time_left(state: &ProgressState, out: &mut dyn fmt::Write) {
    if state.pos() > 0 {
        // The bar has no way to report an error, and writing to its text gives none.
        let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
    }
}

/// Whether Ctrl-C was pressed; one flag for the process.
///
/// The first Ctrl-C sets the flag: the experiment is expected to finish the current seed, to write
/// what is done and to end. The second one ends the process at once with exit code 130.
#[derive(Debug, Clone, Copy)]
pub struct Interrupt(());

/// Ctrl-C cannot be handled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("could not install the handler of Ctrl-C: {reason}")]
pub struct InterruptError {
    reason: String,
}

static REQUESTED: AtomicBool = AtomicBool::new(false);

impl Interrupt {
    /// Takes over the handling of Ctrl-C; further calls give the same flag.
    ///
    /// # Errors
    ///
    /// Returns an [`InterruptError`] if the system refuses or another handler is in place.
    pub fn install() -> Result<Self, InterruptError> {
        static INSTALLED: OnceLock<Result<(), InterruptError>> = OnceLock::new();
        INSTALLED
            .get_or_init(|| {
                ctrlc::set_handler(on_ctrl_c).map_err(|error| InterruptError {
                    reason: error.to_string(),
                })
            })
            .clone()
            .map(|()| Self(()))
    }

    /// Whether Ctrl-C was pressed.
    pub fn requested(self) -> bool {
        Self::is_requested()
    }

    /// The same for code without a handle.
    pub(crate) fn is_requested() -> bool {
        REQUESTED.load(Ordering::Relaxed)
    }
}

/// Runs on a thread of the `ctrlc` crate, not in the signal handler: it may print.
fn on_ctrl_c() {
    if REQUESTED.swap(true, Ordering::Relaxed) {
        std::process::exit(i32::from(INTERRUPTED));
    }
    eprintln!("\nstopping after the current run; press Ctrl-C again to stop at once");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_right() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn a_quiet_bar_is_hidden_and_counts() {
        let progress = Progress::new(2, true);
        assert!(progress.bar.is_hidden());
        progress.start("lstm", 1234);
        progress.advance();
        assert_eq!(progress.bar.position(), 1);
        progress.finish();
    }

    #[test]
    fn installing_twice_gives_the_same_flag() {
        let first = Interrupt::install().unwrap();
        let second = Interrupt::install().unwrap();
        assert!(!first.requested());
        assert!(!second.requested());
    }
}

//! One error type for the `main` of an experiment, and its exit code.

use std::process::ExitCode;

use thiserror::Error;

use crate::chart::ChartError;
use crate::cli::ChoiceError;
use crate::device::DeviceError;
use crate::files::WriteError;
use crate::progress::{INTERRUPTED, Interrupt, InterruptError};
use crate::report::ReportError;

/// The run was valid but failed.
const FAILED: u8 = 1;
/// The request is invalid or impossible here; clap uses the same code for an invalid option.
const WRONG_REQUEST: u8 = 2;

/// Anything that ends an experiment early.
#[derive(Debug, Error)]
pub enum Error {
    /// The requested device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A name on the command line is not one of the known ones.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The results could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The chart could not be drawn or written.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The handler of Ctrl-C could not be installed.
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    /// An error of the experiment itself.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps an error (or a text) of the experiment itself.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Device(_) | Self::Choice(_) => WRONG_REQUEST,
            _ => FAILED,
        }
    }
}

/// Ends an experiment: prints the error, if there is one, and gives the exit code.
///
/// The code is 0 after a complete run, 2 if the request cannot be met (an unknown model, a missing
/// device), 1 after any other error, and 130 if Ctrl-C interrupted the run, even if partial
/// results were written.
pub fn finish(result: Result<(), Error>) -> ExitCode {
    match result {
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            ExitCode::from(error.exit_code())
        }
        Ok(()) if Interrupt::is_requested() => ExitCode::from(INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// The error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_request_and_a_failed_run_have_their_own_codes() {
        let request = Error::from(ChoiceError::Blank { what: "model" });
        let failure = Error::other("the loss is not finite");
        assert_eq!(request.exit_code(), 2);
        assert_eq!(failure.exit_code(), 1);
        assert_eq!(failure.to_string(), "the loss is not finite");
    }

    #[test]
    fn causes_are_told() {
        let cause = std::io::Error::other("disk full");
        let error = Error::from(WriteError::new("write", "a/b.csv", cause));
        assert_eq!(with_causes(&error), "could not write `a/b.csv`: disk full");
    }
}

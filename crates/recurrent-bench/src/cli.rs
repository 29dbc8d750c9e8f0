//! The command-line options every experiment understands.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use clap::Args;
use thiserror::Error;

use crate::device::{self, DEFAULT_DEVICE, DeviceError, DeviceSpec};
use crate::files::{WriteError, prepare_dir};
use crate::names::{nearest, plain};
use crate::progress::Progress;

/// The options of the experiment itself come first in its help, these after them. (A heading for the
/// whole struct would also hold whatever the experiment declares after it.)
const HEADING: &str = "Common options";

/// Options shared by all experiments; an experiment takes them in with `#[command(flatten)]`.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Device to run on: flex, ndarray, wgpu, vulkan, metal, webgpu, cuda, rocm or cpu; a GPU is
    /// picked by its number, as in cuda:1
    #[arg(long, help_heading = HEADING, value_name = "NAME[:INDEX]", default_value = DEFAULT_DEVICE)]
    pub device: DeviceSpec,

    /// First seed; a run with N seeds uses this one and the N-1 following numbers
    #[arg(long, help_heading = HEADING, value_name = "N", default_value_t = 1234)]
    pub seed: u64,

    /// Number of seeds, at least 1 [default: set by the experiment]
    #[arg(long, help_heading = HEADING, value_name = "N", value_parser = at_least_one)]
    pub seeds: Option<usize>,

    /// Models to run, separated by commas; case, `-` and `_` do not matter [default: all]
    #[arg(long, help_heading = HEADING, value_name = "A,B,..|all", value_delimiter = ',')]
    pub models: Vec<String>,

    /// Directory for the result files, created if it is missing
    #[arg(long, help_heading = HEADING, value_name = "DIR", default_value = "results")]
    pub out: PathBuf,

    /// Show no progress bar
    #[arg(long, help_heading = HEADING, alias = "no-progress")]
    pub quiet: bool,
}

impl CommonArgs {
    /// The seeds to run: `--seeds` of them, or `default` if that was not given, from `--seed` on.
    ///
    /// Seeds wrap around after the largest `u64`.
    pub fn seeds(&self, default: usize) -> impl ExactSizeIterator<Item = u64> + Clone + use<> {
        let first = self.seed;
        (0..self.seeds.unwrap_or(default)).map(move |offset| first.wrapping_add(offset as u64))
    }

    /// Opens the device of `--device`; see [`device::open`].
    ///
    /// # Errors
    ///
    /// Returns [`DeviceError::Unavailable`] if this machine has no such device.
    pub fn open_device(&self) -> Result<Device, DeviceError> {
        device::open(self.device)
    }

    /// The directory for the results; creates it if needed and checks that it is writable.
    ///
    /// Call it first, so that a wrong path is reported before training and not after it.
    ///
    /// # Errors
    ///
    /// Returns a [`WriteError`] naming the path.
    pub fn prepare_out(&self) -> Result<&Path, WriteError> {
        prepare_dir(&self.out)?;
        Ok(&self.out)
    }

    /// A progress bar over `total` runs, hidden with `--quiet`.
    pub fn progress(&self, total: usize) -> Progress {
        Progress::new(total, self.quiet)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number of at least 1".to_string()),
    }
}

/// A name on the command line does not match a known one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// The name is not one of the known ones.
    #[error("unknown {what} `{got}`{}; known are: {}", guess(nearest), known.join(", "))]
    Unknown {
        /// What is chosen, such as "model".
        what: &'static str,
        /// The name given.
        got: String,
        /// The known name most like it, if one is at all like it.
        nearest: Option<String>,
        /// All known names.
        known: Vec<String>,
    },
    /// The list or one of its entries is empty.
    #[error("the list of {what}s has an empty name; expected names separated by commas, or `all`")]
    Blank {
        /// What is chosen, such as "model".
        what: &'static str,
    },
}

fn guess(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!(" (did you mean `{name}`?)"),
        None => String::new(),
    }
}

/// Picks those of `known` that were `asked` for by name, in the order asked, each once.
///
/// Case, `-` and `_` do not matter. `all` means all of them, and so does asking for none. `what`
/// is the singular noun for error messages, such as "model".
///
/// # Errors
///
/// Returns a [`ChoiceError`] for a name that is empty or not known.
pub fn choose<'a, T>(
    what: &'static str,
    known: &'a [T],
    name: impl Fn(&T) -> &str,
    asked: &[String],
) -> Result<Vec<&'a T>, ChoiceError> {
    let mut picked = Vec::new();
    for item in asked.iter().map(|item| item.trim()) {
        if item.is_empty() {
            return Err(ChoiceError::Blank { what });
        }
        if plain(item) == "all" {
            picked.extend(0..known.len());
            continue;
        }
        let index = known
            .iter()
            .position(|candidate| plain(name(candidate)) == plain(item))
            .ok_or_else(|| unknown(what, item, known.iter().map(&name).collect()))?;
        picked.push(index);
    }
    if asked.is_empty() {
        picked.extend(0..known.len());
    }
    Ok(without_repeats(picked).map(|index| &known[index]).collect())
}

fn without_repeats(indices: Vec<usize>) -> impl Iterator<Item = usize> {
    let mut seen = Vec::new();
    indices.into_iter().filter(move |index| {
        let fresh = !seen.contains(index);
        seen.push(*index);
        fresh
    })
}

fn unknown(what: &'static str, got: &str, known: Vec<&str>) -> ChoiceError {
    ChoiceError::Unknown {
        what,
        got: got.to_string(),
        nearest: nearest(got, &known).map(str::to_string),
        known: known.into_iter().map(str::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Example {
        #[command(flatten)]
        common: CommonArgs,
    }

    fn parse(options: &[&str]) -> Result<CommonArgs, String> {
        Example::try_parse_from([&["example"], options].concat())
            .map(|example| example.common)
            .map_err(|error| error.to_string())
    }

    const KNOWN: [&str; 3] = ["LSTM", "peephole-lstm", "m_lstm"];

    fn chosen(asked: &[&str]) -> Result<Vec<&'static str>, ChoiceError> {
        let asked: Vec<String> = asked.iter().map(|name| name.to_string()).collect();
        let picked = choose("model", &KNOWN, |name| name, &asked)?;
        Ok(picked.into_iter().copied().collect())
    }

    #[cfg(feature = "flex")]
    #[test]
    fn defaults() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.device.to_string(), "flex");
        assert_eq!(args.seeds(3).collect::<Vec<_>>(), [1234, 1235, 1236]);
        assert_eq!(args.out, PathBuf::from("results"));
        assert!(args.models.is_empty());
        assert!(!args.quiet);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn options_are_taken() {
        let args = parse(&[
            "--seed",
            "7",
            "--seeds",
            "2",
            "--models",
            "lstm,mlstm",
            "--out",
            "a/b",
            "--no-progress",
        ])
        .unwrap();
        assert_eq!(args.seeds(5).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(args.models, ["lstm", "mlstm"]);
        assert_eq!(args.out, PathBuf::from("a/b"));
        assert!(args.quiet);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_last_seed_is_followed_by_the_first() {
        let args = parse(&["--seed", &u64::MAX.to_string(), "--seeds", "2"]).unwrap();
        assert_eq!(args.seeds(1).collect::<Vec<_>>(), [u64::MAX, 0]);
    }

    #[test]
    fn no_seeds_are_refused() {
        for wrong in ["0", "-1", "two"] {
            let error = parse(&[&format!("--seeds={wrong}")]).unwrap_err();
            assert!(error.contains("at least 1"), "{error}");
        }
    }

    #[test]
    fn an_unknown_device_is_a_usage_error() {
        let error = parse(&["--device", "gpu"]).unwrap_err();
        assert!(error.contains("`gpu`") && error.contains("cuda"), "{error}");
    }

    #[test]
    fn names_are_compared_without_case_and_dashes() {
        assert_eq!(
            chosen(&["M-LSTM", "peepholelstm"]),
            Ok(vec!["m_lstm", "peephole-lstm"])
        );
    }

    #[test]
    fn all_and_nothing_mean_all_and_repeats_count_once() {
        assert_eq!(chosen(&[]), Ok(KNOWN.to_vec()));
        assert_eq!(chosen(&["ALL"]), Ok(KNOWN.to_vec()));
        assert_eq!(
            chosen(&["m-lstm", "all", "lstm"]),
            Ok(vec!["m_lstm", "LSTM", "peephole-lstm"])
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones_and_the_nearest() {
        let error = chosen(&["peephole"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown model `peephole` (did you mean `peephole-lstm`?); \
             known are: LSTM, peephole-lstm, m_lstm"
        );
        let error = chosen(&["transformer"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown model `transformer`; known are: LSTM, peephole-lstm, m_lstm"
        );
    }

    #[test]
    fn an_empty_name_is_refused() {
        assert_eq!(
            chosen(&["lstm", ""]),
            Err(ChoiceError::Blank { what: "model" })
        );
    }
}

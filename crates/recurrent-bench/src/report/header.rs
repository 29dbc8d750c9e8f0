//! Machine, time, command and versions of an experiment.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::SystemTime;

use serde::Serialize;

use crate::progress::Interrupt;

/// Machine, time, command and versions of an experiment. Unknown values are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// The time of [`Header::gather`] in UTC, such as `2026-02-28T13:05:00Z`.
    pub date: String,
    /// The device, as [`describe`](crate::device::describe) names it.
    pub device: String,
    /// The computer.
    pub machine: Machine,
    /// The program and its arguments, as one would type them in a shell.
    pub command: String,
    /// Whether Ctrl-C interrupted the run, so that some models or seeds may be missing.
    pub interrupted: bool,
    /// `release` or `debug`; times of a debug build are meaningless.
    pub build: &'static str,
    /// The version of this crate.
    pub version: &'static str,
    /// The version of Burn.
    pub burn_version: Option<String>,
    /// The commit of the sources, if they are still there as a git repository.
    pub git_commit: Option<String>,
    /// Whether the sources have changes that are not in the commit.
    pub git_dirty: Option<bool>,
}

/// The computer an experiment was run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The name of the processor.
    pub cpu: Option<String>,
    /// The number of processor cores this process may use.
    pub cores: Option<usize>,
    /// The operating system, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// The architecture, such as `x86_64`.
    pub arch: &'static str,
}

impl Header {
    /// Collects everything but the name of the device, which only the experiment knows.
    ///
    /// Meant to be called after the runs, as it also tells whether they were interrupted.
    pub fn gather(device: impl Into<String>) -> Self {
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            device: device.into(),
            machine: Machine::gather(),
            command: command_line(env::args()),
            interrupted: Interrupt::is_requested(),
            build: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            version: env!("CARGO_PKG_VERSION"),
            burn_version: locked_version(CARGO_LOCK, "burn").map(str::to_string),
            git_commit: git(&["rev-parse", "HEAD"]),
            git_dirty: git(&["status", "--porcelain", "--untracked-files=no"])
                .map(|changes| !changes.is_empty()),
        }
    }
}

impl Machine {
    /// Detects the computer.
    pub fn gather() -> Self {
        Self {
            cpu: cpu_name(),
            cores: thread::available_parallelism().ok().map(usize::from),
            os: os_name().unwrap_or_else(|| env::consts::OS.to_string()),
            arch: env::consts::ARCH,
        }
    }
}

/// Burn does not expose its version, so it is read from the lock file of this build.
const CARGO_LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));

/// The version of a package in the text of a `Cargo.lock`.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?;
    version.strip_prefix("version = \"")?.strip_suffix('"')
}

/// The command line. Only the program's name is kept, because its directory would reveal the user's folders.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let words = arguments.enumerate().map(|(position, word)| {
        if position == 0 {
            let name = Path::new(&word).file_name();
            quoted(&name.map_or(word.clone(), |name| name.to_string_lossy().into_owned()))
        } else {
            quoted(&word)
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The word in single quotes if a POSIX shell would not take it literally.
fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Commit and status of the sources of this crate, from git.
fn git(arguments: &[&str]) -> Option<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut git = Command::new("git");
    git.arg("-C").arg(directory).args(arguments);
    // A look must not write: another git may be at work in the repository.
    git.env("GIT_OPTIONAL_LOCKS", "0");
    output_of(&mut git)
}

/// The standard output of a command that succeeds, without blanks around it.
fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_string())
}

fn cpu_name() -> Option<String> {
    if cfg!(target_os = "linux") {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
        value_of(&cpuinfo, "model name", ':')
    } else if cfg!(target_os = "macos") {
        output_of(Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]))
    } else {
        // Set on Windows.
        env::var("PROCESSOR_IDENTIFIER").ok()
    }
}

fn os_name() -> Option<String> {
    if cfg!(target_os = "linux") {
        let release = fs::read_to_string("/etc/os-release").ok()?;
        value_of(&release, "PRETTY_NAME", '=')
    } else if cfg!(target_os = "macos") {
        let version = output_of(Command::new("sw_vers").arg("-productVersion"))?;
        Some(format!("macOS {version}"))
    } else {
        None
    }
}

/// The first value with this key in lines of the form `key = value`, without quotes.
fn value_of(text: &str, key: &str, separator: char) -> Option<String> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(separator));
    let (_, value) = pairs.find(|(name, _)| name.trim() == key)?;
    Some(value.trim().trim_matches('"').to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_what_is_always_known() {
        let header = Header::gather("flex");
        assert_eq!(header.device, "flex");
        assert!(
            header.date.ends_with('Z') && header.date.len() == 20,
            "{}",
            header.date
        );
        assert!(header.burn_version.is_some());
        assert!(!header.machine.os.is_empty());
        if let Some(commit) = header.git_commit {
            assert!(commit.len() >= 40 && commit.chars().all(|c| c.is_ascii_hexdigit()));
        }
    }

    #[test]
    fn the_command_can_be_typed_again() {
        let arguments = ["/a/b/capacity", "--models", "a,b", "", "it's"];
        assert_eq!(
            command_line(arguments.map(str::to_string).into_iter()),
            r"capacity --models a,b '' 'it'\''s'"
        );
    }

    #[test]
    fn a_locked_version_is_found_by_the_whole_name() {
        let lock = "[[package]]\nname = \"burn-core\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"burn\"\nversion = \"0.22.1\"\n";
        assert_eq!(locked_version(lock, "burn"), Some("0.22.1"));
        assert_eq!(locked_version(lock, "serde"), None);
    }

    #[test]
    fn values_lose_blanks_and_quotes() {
        let text = "vendor_id\t: GenuineIntel\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(
            value_of(text, "model name", ':').as_deref(),
            Some("Some CPU @ 2 GHz")
        );
        assert_eq!(
            value_of("A=1\nPRETTY_NAME=\"Debian 12\"\n", "PRETTY_NAME", '=').as_deref(),
            Some("Debian 12")
        );
    }
}

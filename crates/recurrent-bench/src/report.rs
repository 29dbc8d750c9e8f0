//! The results of an experiment: a table on the terminal, and the same as JSON and as CSV.

mod header;
mod summary;
mod table;

use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

pub use header::{Header, Machine};
pub use summary::Summary;
pub use table::{Align, Cell, Column, Kind, Table};

use crate::files::{WriteError, write_whole};

/// The results of an experiment, ready to be written.
///
/// In JSON this is an object with the same fields; numbers which are not finite become `null`.
#[derive(Debug, Serialize)]
pub struct Report<'a, T: Serialize + ?Sized> {
    /// The name of the experiment, which is also the name of the files.
    pub name: &'a str,
    /// Machine, time, command and versions of the run.
    pub header: &'a Header,
    /// Data of the experiment: its options, the results of every run.
    pub experiment: &'a T,
    /// The table as shown on the terminal.
    pub table: &'a Table,
}

/// The files of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The whole report.
    pub json: PathBuf,
    /// The table alone.
    pub csv: PathBuf,
}

/// A report could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The value of the experiment has no form in JSON.
    #[error("could not express the results of `{name}` as JSON")]
    Encode {
        /// The name of the experiment.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl<T: Serialize + ?Sized> Report<'_, T> {
    /// Writes `DIR/NAME.json` and `DIR/NAME.csv`, each whole or not at all.
    ///
    /// # Errors
    ///
    /// Returns a [`ReportError`] naming the file, or the experiment if its value has no JSON form.
    pub fn save(&self, dir: &Path) -> Result<Saved, ReportError> {
        let saved = Saved {
            json: dir.join(format!("{}.json", self.name)),
            csv: dir.join(format!("{}.csv", self.name)),
        };
        write_whole(&saved.json, self.to_json()?.as_bytes())?;
        write_whole(&saved.csv, self.table.to_csv().as_bytes())?;
        Ok(saved)
    }

    fn to_json(&self) -> Result<String, ReportError> {
        let mut text =
            serde_json::to_string_pretty(self).map_err(|source| ReportError::Encode {
                name: self.name.to_string(),
                source,
            })?;
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::text("model"),
            Column::spread("accuracy", 1).unit("%"),
        ]);
        table.push(["lstm".into(), Summary::of(&[50.0, 52.0]).into()]);
        table.push(["gru".into(), Cell::Missing]);
        table
    }

    #[test]
    fn both_files_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("results/today");
        let header = Header::gather("flex");
        let report = Report {
            name: "capacity",
            header: &header,
            experiment: &json!({"steps": 5, "loss": f64::NAN}),
            table: &table(),
        };
        let saved = report.save(&dir).unwrap();
        assert_eq!(saved.csv, dir.join("capacity.csv"));

        let read: Value = serde_json::from_slice(&fs::read(&saved.json).unwrap()).unwrap();
        assert_eq!(read["name"], "capacity");
        assert_eq!(read["header"]["device"], "flex");
        assert_eq!(read["experiment"], json!({"steps": 5, "loss": null}));
        assert_eq!(read["table"]["columns"][1]["unit"], "%");
        assert_eq!(read["table"]["rows"][0][0], "lstm");
        assert_eq!(read["table"]["rows"][0][1]["mean"], 51.0);
        assert_eq!(read["table"]["rows"][1], json!(["gru", null]));
        assert_eq!(fs::read_to_string(&saved.csv).unwrap(), table().to_csv());
    }

    #[test]
    fn an_unwritable_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let header = Header::gather("flex");
        let report = Report {
            name: "capacity",
            header: &header,
            experiment: &(),
            table: &table(),
        };
        let error = report.save(&file).unwrap_err();
        assert!(error.to_string().contains(&file.display().to_string()));
    }
}

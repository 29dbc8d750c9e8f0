//! Atomic writing of files.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file or directory could not be written.
#[derive(Debug, Error)]
#[error("could not {action} `{}`", path.display())]
pub struct WriteError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl WriteError {
    pub(crate) fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self {
            action,
            path: path.into(),
            source,
        }
    }

    /// The file or directory in question.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes `contents` to `path`, creating the directories on the way.
///
/// Writes to a temporary file next to `path` and renames it when it is complete: a
/// reader sees the old file or the new one, and a killed run leaves no partial file.
///
/// # Errors
///
/// Returns a [`WriteError`] naming the path which could not be created, written or renamed.
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<(), WriteError> {
    if let Some(dir) = path.parent() {
        create_dir(dir)?;
    }
    let temporary = temporary_name(path);
    fs::write(&temporary, contents)
        .map_err(|error| WriteError::new("write", &temporary, error))
        .and_then(|()| {
            fs::rename(&temporary, path).map_err(|error| WriteError::new("write", path, error))
        })
        // The first error is the one to tell; the temporary file may not even exist.
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Creates the directory `dir` if needed and tries to write a file in it.
///
/// # Errors
///
/// Returns a [`WriteError`] naming the directory which could not be created or the file which could
/// not be written.
pub fn prepare_dir(dir: &Path) -> Result<(), WriteError> {
    create_dir(dir)?;
    let trial = temporary_name(&dir.join("trial"));
    fs::write(&trial, b"")
        .and_then(|()| fs::remove_file(&trial))
        .map_err(|error| WriteError::new("write", trial, error))
}

fn create_dir(dir: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(dir).map_err(|error| WriteError::new("create the directory", dir, error))
}

/// A hidden name in the same directory (a rename does not cross file systems), with the process id
/// so that two runs into one directory do not write the same temporary file.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_directories_and_leaves_only_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/result.csv");
        write_whole(&path, b"old").unwrap();
        write_whole(&path, b"new").unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"new");
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn an_error_names_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();

        let error = write_whole(&file.join("result.csv"), b"").unwrap_err();
        assert_eq!(error.path(), file);
        assert!(error.to_string().contains(&file.display().to_string()));
    }

    #[test]
    fn a_prepared_directory_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        prepare_dir(&dir).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);

        fs::write(dir.join("file"), b"").unwrap();
        let error = prepare_dir(&dir.join("file")).unwrap_err();
        assert_eq!(error.path(), dir.join("file"));
    }

    #[test]
    fn a_failed_rename_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();

        let error = write_whole(&path, b"").unwrap_err();
        assert_eq!(error.path(), path);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

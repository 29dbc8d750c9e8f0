//! Files: reading all formats, and atomic writing.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

use burn_pack::AtomicFile;

use super::format::{self, Format};
use super::{ExportError, ImportError, Tensors, burnpack};

/// A whole file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    std::fs::read(path).map_err(|error| ImportError::Read {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// Writes to a temporary file in the same folder and renames it: the file is replaced as a whole or left
/// unchanged.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    temporary(path, bytes)?
        .commit()
        .map_err(|error| failed(path, &error))
}

/// Writes files of a folder, all of them or none, and creates the folder if it does not exist.
///
/// They are renamed into place, in the order given, once all of them are written.
pub(crate) fn write_folder(folder: &Path, files: &[(&str, &[u8])]) -> Result<(), ExportError> {
    let mut made = MadeFolders::make(folder)?;
    let written = files.iter().map(|&(name, bytes)| {
        let path = folder.join(name);
        Ok((temporary(&path, bytes)?, path))
    });
    let written = written.collect::<Result<Vec<_>, ExportError>>()?;
    let mut replaced = Vec::with_capacity(written.len());
    for (file, path) in written {
        replaced.push(Replaced::keep(&path)?);
        file.commit().map_err(|error| failed(&path, &error))?;
    }
    replaced.iter_mut().for_each(|old| old.undo = false);
    made.0.clear();
    Ok(())
}

fn failed(path: &Path, reason: &dyn Display) -> ExportError {
    ExportError::Write {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

/// A complete file in the folder of `path`, which is deleted unless it is renamed.
fn temporary(path: &Path, bytes: &[u8]) -> Result<AtomicFile, ExportError> {
    let (temporary, mut file) = AtomicFile::create(path).map_err(|error| failed(path, &error))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| failed(path, &error))?;
    Ok(temporary)
}

/// What was at a path before, put back when dropped.
struct Replaced {
    path: PathBuf,
    /// The old file under another name; `None` where there was none.
    old: Option<AtomicFile>,
    undo: bool,
}

impl Replaced {
    fn keep(path: &Path) -> Result<Self, ExportError> {
        let old = match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(path, &error)),
            Ok(found) if found.is_dir() => {
                return Err(failed(
                    path,
                    &"a folder has this name, expected a file or nothing",
                ));
            }
            Ok(_) => {
                // A hard link needs no copy, but not every file system supports it.
                let (old, _) = AtomicFile::create(path).map_err(|error| failed(path, &error))?;
                let linked = std::fs::remove_file(old.path())
                    .and_then(|()| std::fs::hard_link(path, old.path()));
                linked
                    .or_else(|_| std::fs::copy(path, old.path()).map(drop))
                    .map_err(|error| failed(path, &error))?;
                Some(old)
            }
        };
        let path = path.to_path_buf();
        let undo = true;
        Ok(Self { path, old, undo })
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        if self.undo {
            // The first error is the one that is reported.
            let _ = match &self.old {
                Some(old) => std::fs::rename(old.path(), &self.path),
                None => std::fs::remove_file(&self.path),
            };
        }
    }
}

/// Folders that were created, removed again when dropped; parents come first in the list.
struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    fn make(folder: &Path) -> Result<Self, ExportError> {
        let missing = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let missing: Vec<&Path> = missing.collect();
        let mut made = Self(Vec::new());
        for path in missing.into_iter().rev() {
            match std::fs::create_dir(path) {
                Ok(()) => made.0.push(path.to_path_buf()),
                // Created by another process in the meantime.
                Err(_) if path.is_dir() => {}
                Err(error) => return Err(failed(path, &error)),
            }
        }
        Ok(made)
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Fails if another process has put a file into it.
            let _ = std::fs::remove_dir(path);
        }
    }
}

impl Tensors {
    /// The tensors of a `.pt`, `.pth`, `.safetensors` or burnpack file. The format is detected from the content,
    /// not from the name.
    ///
    /// # Errors
    /// If the file cannot be read, has another format or is damaged; also if the feature for its format
    /// (`pytorch`, `safetensors`) is off.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImportError> {
        Self::from_bytes(read_file(path.as_ref())?)
    }

    /// [`open`](Self::open) of a file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ImportError> {
        match Format::of(&bytes) {
            #[cfg(feature = "pytorch")]
            Some(Format::TorchArchive) => super::torch_file::read_archive(bytes),
            #[cfg(feature = "pytorch")]
            Some(Format::TorchPickle) => super::torch_file::read_stream(bytes),
            #[cfg(feature = "safetensors")]
            Some(Format::SafeTensors) => super::safetensors::read(bytes),
            Some(Format::Burnpack) => Self::from_burnpack(bytes),
            #[cfg(not(all(feature = "pytorch", feature = "safetensors")))]
            Some(format) => Err(ImportError::unsupported(alloc::format!(
                "it is a {format} file, which this build cannot read: turn on the feature `{}` of \
                 recurrent-modules",
                format.feature().unwrap_or_default()
            ))),
            None => {
                let start = &bytes[..bytes.len().min(8)];
                let like = format::looks_like(&bytes);
                let like =
                    like.map_or_else(String::new, |like| alloc::format!("it looks like {like}; "));
                Err(ImportError::format(
                    "PyTorch, SafeTensors or burnpack",
                    alloc::format!(
                        "{like}it has {} bytes and begins with {start:02x?}",
                        bytes.len()
                    ),
                ))
            }
        }
    }

    /// [`open`](Self::open) of a burnpack file that is in memory.
    pub(crate) fn from_burnpack(bytes: Vec<u8>) -> Result<Self, ImportError> {
        burnpack::read(bytes)
    }

    pub(crate) fn to_burnpack(&self) -> Result<Vec<u8>, ExportError> {
        burnpack::write(self)
    }

    /// Writes a burnpack file with these tensor names.
    ///
    /// # Errors
    /// If the file cannot be written. What was at `path` before is then still there.
    pub fn save_burnpack(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        write_file(path.as_ref(), &self.to_burnpack()?)
    }

    /// Writes a `.safetensors` file, which PyTorch and others can read.
    ///
    /// # Errors
    /// If the file cannot be written. What was at `path` before is then still there.
    #[cfg(feature = "safetensors")]
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        write_file(path.as_ref(), &super::safetensors::write(self)?)
    }
}

//! Files: telling formats apart, and writing without leaving half a file.

use std::io::Write as _;
use std::path::Path;
use std::string::ToString;
use std::vec::Vec;

use burn_pack::AtomicFile;

use super::{ExportError, ImportError, Tensors, burnpack};

/// A whole file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, ImportError> {
    std::fs::read(path).map_err(|error| ImportError::Read {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// Writes beside the file and renames: the file is there as a whole, or as it was before.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let error = |reason: &dyn std::fmt::Display| ExportError::Write {
        path: path.display().to_string(),
        reason: reason.to_string(),
    };
    let (scratch, mut file) = AtomicFile::create(path).map_err(|e| error(&e))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|e| error(&e))?;
    drop(file);
    scratch.commit().map_err(|e| error(&e))
}

/// What a file begins like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Torch,
    SafeTensors,
    Burnpack,
}

impl Format {
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'P', b'K', 3, 4, ..] => Some(Self::Torch),
            // A pickle of protocol 2 or later, as torch.save wrote before version 1.6.
            [0x80, 2..=5, ..] => Some(Self::Torch),
            [_, _, _, _, _, _, _, _, b'{', ..] => Some(Self::SafeTensors),
            _ if bytes.starts_with(&burnpack::MAGIC) => Some(Self::Burnpack),
            _ => None,
        }
    }
}

impl Tensors {
    /// The tensors of a `.pt`, `.pth`, `.safetensors` or burnpack file; the bytes say which it is,
    /// not the name.
    ///
    /// # Errors
    /// If the file cannot be read, is none of these or is damaged; also if it is of a format whose
    /// feature (`pytorch`, `safetensors`) is off.
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
            Some(Format::Torch) => super::torch_file::read(bytes),
            #[cfg(feature = "safetensors")]
            Some(Format::SafeTensors) => super::safetensors::read(bytes),
            Some(Format::Burnpack) => Self::from_burnpack(bytes),
            #[cfg(not(all(feature = "pytorch", feature = "safetensors")))]
            Some(format) => Err(ImportError::unsupported(alloc::format!(
                "it is a {format:?} file, which this build cannot read: turn on the feature \
                 `pytorch` or `safetensors` of recurrent-modules"
            ))),
            None => {
                let start = &bytes[..bytes.len().min(8)];
                Err(ImportError::format(
                    "PyTorch, SafeTensors or burnpack",
                    alloc::format!("it has {} bytes and begins with {start:02x?}", bytes.len()),
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

    /// Writes a burnpack file; its tensors have the names that they have here.
    ///
    /// # Errors
    /// If the file cannot be written. What was at `path` before is then still there.
    pub fn save_burnpack(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        write_file(path.as_ref(), &self.to_burnpack()?)
    }

    /// Writes a `.safetensors` file, which PyTorch and others read.
    ///
    /// # Errors
    /// If the file cannot be written. What was at `path` before is then still there.
    #[cfg(feature = "safetensors")]
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<(), ExportError> {
        write_file(path.as_ref(), &super::safetensors::write(self)?)
    }
}

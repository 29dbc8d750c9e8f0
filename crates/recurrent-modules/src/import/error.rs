//! What can be wrong with a file of weights.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Debug, Display, Formatter, Result as FmtResult};

use thiserror::Error;

use crate::error::InvalidConfig;

/// Weights that cannot be read, or do not fit.
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The bytes are not a file of the format that they begin like, or are damaged.
    #[error("not a {format} file that can be read: {reason}")]
    Format {
        /// The format.
        format: &'static str,
        /// What was found, and what was expected.
        reason: String,
    },
    /// No tensor begins with the prefix.
    #[error("no tensor lies under `{prefix}`; the file has {found}")]
    Prefix {
        /// The prefix asked for.
        prefix: String,
        /// Some names of the file.
        found: Names,
    },
    /// A tensor that the module needs is not there.
    #[error("tensor `{name}` is missing{}; {hint}", of_shape(expected))]
    Missing {
        /// Its name in the file.
        name: String,
        /// Its shape; empty where the sizes are yet to be found.
        expected: Vec<usize>,
        /// What the file has instead.
        hint: String,
    },
    /// Tensors that the module has no place for.
    #[error(
        "the file has tensors that the module has no place for: {names}; if they belong to other \
         parts of a model, name the prefix of this one"
    )]
    Unexpected {
        /// Their names.
        names: Names,
    },
    /// A tensor has another shape than the module's.
    #[error("tensor `{name}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// Its name in the file.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// The shape that the module needs.
        expected: Vec<usize>,
    },
    /// A tensor has a shape from which no size can be read.
    #[error("tensor `{name}` has shape {got:?}, expected {expected}")]
    Form {
        /// Its name in the file.
        name: String,
        /// Its shape.
        got: Vec<usize>,
        /// In words.
        expected: String,
    },
    /// A tensor does not hold floating-point numbers.
    #[error("tensor `{name}` holds {got}, expected F64, F32, F16 or BF16")]
    Dtype {
        /// Its name in the file.
        name: String,
        /// Its type of numbers.
        got: String,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` is {got} at element {index}, expected finite numbers")]
    NotFinite {
        /// Its name in the file.
        name: String,
        /// The value, as text.
        got: String,
        /// Where it is, counted in the tensor's own order.
        index: usize,
    },
    /// The sizes of the file make no valid configuration.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The source or the module has something that the other side cannot hold.
    #[error("{what}")]
    Unsupported {
        /// What it is, and what could be done.
        what: String,
    },
}

/// The text of the error: what `unwrap` prints.
impl Debug for ImportError {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        Display::fmt(self, f)
    }
}

/// The shape of a missing tensor, where it is known.
fn of_shape(expected: &[usize]) -> String {
    match expected.is_empty() {
        true => String::new(),
        false => alloc::format!(", expected shape {expected:?}"),
    }
}

impl ImportError {
    /// Bytes that are not what they begin like.
    pub(crate) fn format(format: &'static str, reason: impl Into<String>) -> Self {
        Self::Format {
            format,
            reason: reason.into(),
        }
    }

    /// Something that the other side cannot hold.
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}

/// Weights that cannot be written.
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The file cannot be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file or folder.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The layout has no place for what the module has.
    #[error("{what}")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A weight is outside the range of the type of numbers asked for.
    #[error(
        "parameter `{name}` is {got} at element {index}, which is outside the range of {dtype}"
    )]
    Range {
        /// The name in the file.
        name: String,
        /// The value, as text.
        got: String,
        /// Where it is.
        index: usize,
        /// The type of numbers asked for.
        dtype: &'static str,
    },
}

/// The text of the error: what `unwrap` prints.
impl Debug for ExportError {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        Display::fmt(self, f)
    }
}

impl From<ImportError> for ExportError {
    /// The tables of a layout report what they cannot hold in one form for both directions.
    fn from(error: ImportError) -> Self {
        Self::Unsupported {
            what: error.to_string(),
        }
    }
}

/// Names in a message: the first few, and how many more there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl Display for Names {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        const SHOWN: usize = 8;
        if self.0.is_empty() {
            return f.write_str("no tensors");
        }
        for (index, name) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            // A name comes from the file: bounded, and without control characters.
            let text: String = name.chars().take(120).collect();
            write!(f, "{comma}`{}`", text.escape_debug())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

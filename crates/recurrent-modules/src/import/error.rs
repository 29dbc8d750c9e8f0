//! Errors of reading and writing weights.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Debug, Display, Formatter, Result as FmtResult};

use thiserror::Error;

use crate::error::InvalidConfig;

/// Weights that cannot be read, or do not match the module.
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
    /// The file is damaged, or only begins like a file of this format.
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
        /// The requested prefix.
        prefix: String,
        /// Some names of the file.
        found: Names,
    },
    /// A tensor that the module needs is not there.
    #[error("tensor `{name}` is missing{}; {hint}", of_shape(expected))]
    Missing {
        /// Its name in the file.
        name: String,
        /// Its shape; empty if the sizes are not known yet.
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
        /// The expected shape, in words.
        expected: String,
    },
    /// A tensor does not hold floating-point numbers.
    #[error("tensor `{name}` holds {got}, expected F64, F32, F16 or BF16")]
    Dtype {
        /// Its name in the file.
        name: String,
        /// Its data type.
        got: String,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` is {got} at element {index}, expected finite numbers")]
    NotFinite {
        /// Its name in the file.
        name: String,
        /// The value, as text.
        got: String,
        /// Its index in row-major order.
        index: usize,
    },
    /// The sizes in the file are not a valid configuration.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The source or the module has a feature that the other side cannot express.
    #[error("{what}")]
    Unsupported {
        /// The feature, and a suggestion.
        what: String,
    },
}

/// The text of the error: what `unwrap` prints.
impl Debug for ImportError {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        Display::fmt(self, f)
    }
}

/// The shape of a missing tensor, if it is known.
fn of_shape(expected: &[usize]) -> String {
    match expected.is_empty() {
        true => String::new(),
        false => alloc::format!(", expected shape {expected:?}"),
    }
}

impl ImportError {
    /// Bytes that only begin like a file of the format.
    pub(crate) fn format(format: &'static str, reason: impl Into<String>) -> Self {
        Self::Format {
            format,
            reason: reason.into(),
        }
    }

    /// A feature that the other side cannot express.
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
    /// The layout cannot express a feature of the module.
    #[error("{what}")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A weight is outside the range of the requested data type.
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
        /// The requested data type.
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
    /// Layouts report what they cannot express with one error type, for import and export.
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
            // Names come from the file: limit their length and escape control characters.
            let text: String = name.chars().take(120).collect();
            write!(f, "{comma}`{}`", text.escape_debug())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

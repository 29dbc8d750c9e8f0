//! Detection of file formats, from the structure of the whole file.
//!
//! The first bytes are not sufficient. A SafeTensors file begins with the length of its header, which may be
//! any number: 640 is `80 02`, the start of a pickle, and 67 324 752 is `PK\x03\x04`, the start of a ZIP
//! archive. So [`Format::of`] first looks for a format whose structure the whole file has. Only if there is
//! none does it decide by the first bytes, so that the reader of that format can report what is damaged.

use core::fmt::{Display, Formatter, Result as FmtResult};

use super::burnpack;

/// A format that there is a reader for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Length, JSON header, data.
    SafeTensors,
    /// A ZIP archive: what `torch.save` writes since version 1.6.
    TorchArchive,
    /// A sequence of pickles: what `torch.save` wrote before.
    TorchPickle,
    /// Burn's own.
    Burnpack,
}

const ALL: [Format; 4] = [
    Format::SafeTensors,
    Format::TorchArchive,
    Format::TorchPickle,
    Format::Burnpack,
];

impl Format {
    /// The format of a file; `None` if it is none of them.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let whole = ALL.into_iter().find(|format| format.has_structure(bytes));
        whole.or_else(|| Self::begun(bytes))
    }

    /// Whether the parts that the format requires are in their places.
    fn has_structure(self, bytes: &[u8]) -> bool {
        match self {
            Self::SafeTensors => header(bytes).is_some_and(|header| {
                let end = header.trim_ascii_end();
                end.starts_with(b"{") && end.ends_with(b"}")
            }),
            Self::TorchArchive => bytes.starts_with(ZIP_ENTRY) && zip_end(bytes).is_some(),
            Self::TorchPickle => is_pickle(bytes) && bytes[2..].starts_with(TORCH_NUMBER),
            Self::Burnpack => burnpack::is_whole(bytes),
        }
    }

    /// The format suggested by the first bytes, for a damaged file.
    fn begun(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&burnpack::MAGIC) {
            Some(Self::Burnpack)
        } else if bytes.starts_with(ZIP_ENTRY) {
            Some(Self::TorchArchive)
        } else if matches!(bytes, [_, _, _, _, 0, 0, 0, 0, b'{', ..]) {
            // A truncated header of less than 4 GiB. A pickle does not have four zeros there.
            Some(Self::SafeTensors)
        } else if is_pickle(bytes) {
            Some(Self::TorchPickle)
        } else {
            None
        }
    }

    /// The feature of this crate that its reader needs.
    #[cfg(not(all(feature = "pytorch", feature = "safetensors")))]
    pub(super) fn feature(self) -> Option<&'static str> {
        match self {
            Self::SafeTensors => Some("safetensors"),
            Self::TorchArchive | Self::TorchPickle => Some("pytorch"),
            Self::Burnpack => None,
        }
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(match self {
            Self::SafeTensors => "SafeTensors",
            Self::TorchArchive | Self::TorchPickle => "PyTorch",
            Self::Burnpack => "burnpack",
        })
    }
}

/// The number that `torch.save` wrote first before version 1.6, without the pickle's own two bytes.
pub(super) const TORCH_NUMBER: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// An entry of a ZIP archive.
const ZIP_ENTRY: &[u8] = b"PK\x03\x04";

/// The record at the end of a ZIP archive: 22 bytes and a comment of at most 65 535.
const ZIP_END: &[u8] = b"PK\x05\x06";

/// Where the record at the end of a ZIP archive begins.
pub(super) fn zip_end(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(22)?;
    let first = last.saturating_sub(usize::from(u16::MAX));
    (first..=last)
        .rev()
        .find(|&at| bytes[at..].starts_with(ZIP_END))
}

/// Whether a pickle of a version that has a mark at its start begins here.
fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..])
}

/// The header of a SafeTensors file, if the file is as long as it declares.
fn header(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.get(..length)
}

/// What a file of an unknown format looks like, for the message.
pub(super) fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    let begins = |start: &[u8]| bytes.starts_with(start);
    // The first characters, ignoring what precedes them.
    let text = &bytes[..bytes.len().min(64)];
    let word = |word: &[u8]| {
        let text = text.trim_ascii_start();
        text.get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    Some(if begins(b"\x89HDF\r\n\x1a\n") {
        "an HDF5 file, as Keras writes"
    } else if begins(b"\x93NUMPY") {
        "a NumPy array"
    } else if begins(b"GGUF") {
        "a GGUF file"
    } else if begins(b"\x1f\x8b") {
        "a file compressed by gzip"
    } else if bytes.get(257..262) == Some(b"ustar".as_slice()) {
        "a tar archive"
    } else if begins(b"version https://git-lfs") {
        "a pointer of Git LFS in place of the file (`git lfs pull` fetches it)"
    } else if word(b"<!doctype html") || word(b"<html") {
        "a web page"
    } else if is_onnx(bytes) {
        "an ONNX model"
    } else if !text.is_empty() && text.iter().all(|b| matches!(b, 9..=13 | 32..=126)) {
        "text"
    } else {
        return None;
    })
}

/// An ONNX model begins with its version (field 1, a small number), and then has another field of
/// a model: names and texts (2 to 4, 6), a number (5), the graph (7) or the operators' versions (8).
fn is_onnx(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [
            0x08,
            1..=31,
            0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42,
            ..
        ]
    )
}

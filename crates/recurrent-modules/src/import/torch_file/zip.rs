//! The directory of a ZIP archive.
//!
//! torch.save writes ZIP64 end records and does not compress, so that no entry can be larger than
//! the file. Entries of other programs' archives are listed, so that the message can name the
//! program; compressed ones are never read.

use std::collections::BTreeMap;
use std::format;
use std::string::String;

use core::ops::Range;

use super::error;
use crate::import::ImportError;
use crate::import::format::zip_end;

/// Names and offsets of the entries.
pub(super) struct Archive {
    entries: BTreeMap<String, Range<usize>>,
    /// The first entry that is compressed or encrypted.
    compressed: Option<String>,
}

const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const ENTRY: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;

/// Little-endian numbers at checked offsets.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(self, at: usize) -> Result<[u8; N], ImportError> {
        self.0
            .get(at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .copied()
            .ok_or_else(|| error("its ZIP directory is cut off"))
    }

    fn u16(self, at: usize) -> Result<usize, ImportError> {
        Ok(usize::from(u16::from_le_bytes(self.array(at)?)))
    }

    fn u32(self, at: usize) -> Result<u32, ImportError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(self, at: usize) -> Result<u64, ImportError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }
}

/// A number of 8 bytes as an offset in the file.
fn place(number: u64, end: usize) -> Result<usize, ImportError> {
    usize::try_from(number)
        .ok()
        .filter(|&place| place <= end)
        .ok_or_else(|| {
            error(format!(
                "its ZIP directory points to byte {number}, past {end}"
            ))
        })
}

impl Archive {
    pub(super) fn read(file: &[u8]) -> Result<Self, ImportError> {
        let bytes = Bytes(file);
        let end = zip_end(file)
            .ok_or_else(|| error("its ZIP directory is missing; the file may be cut off"))?;
        let mut count = bytes.u16(end + 10)? as u64;
        let mut start = u64::from(bytes.u32(end + 16)?);
        if count == 0xffff || start == 0xffff_ffff {
            let locator = end.checked_sub(20);
            let locator = locator.filter(|&at| bytes.u32(at) == Ok(LOCATOR_64));
            let locator = locator.ok_or_else(|| error("its ZIP64 directory is missing"))?;
            let record = place(bytes.u64(locator + 8)?, file.len())?;
            if bytes.u32(record)? != END_64 {
                return Err(error("its ZIP64 directory is damaged"));
            }
            count = bytes.u64(record + 32)?;
            start = bytes.u64(record + 48)?;
        }
        let mut at = place(start, file.len())?;
        let mut entries = BTreeMap::new();
        let mut compressed = None;
        // Each iteration consumes at least 46 bytes of the file, whatever the declared count.
        for _ in 0..count {
            if bytes.u32(at)? != ENTRY {
                return Err(error(format!("its ZIP directory is damaged at byte {at}")));
            }
            let name_end = at + 46 + bytes.u16(at + 28)?;
            let extra_end = name_end + bytes.u16(at + 30)?;
            let next = extra_end + bytes.u16(at + 32)?;
            let name = file.get(at + 46..name_end);
            let name = name.and_then(|name| core::str::from_utf8(name).ok());
            let name = name.ok_or_else(|| error("an entry of the archive has no proper name"))?;
            let [flags, method] = [bytes.u16(at + 8)?, bytes.u16(at + 10)?];
            let [size, stored, offset] = sizes(bytes, at, name_end, extra_end)?;
            if method != 0 || flags & 1 != 0 {
                compressed.get_or_insert_with(|| String::from(name));
            } else if size != stored {
                return Err(error("an entry of the archive has two sizes"));
            }
            let offset = place(offset, file.len())?;
            if bytes.u32(offset)? != LOCAL {
                return Err(error(format!("no entry begins at byte {offset}")));
            }
            let from = offset + 30 + bytes.u16(offset + 26)? + bytes.u16(offset + 28)?;
            let to = usize::try_from(stored)
                .ok()
                .and_then(|size| from.checked_add(size))
                .filter(|&to| to <= file.len())
                .ok_or_else(|| {
                    error(format!(
                        "entry `{}` declares {stored} bytes at {from}, the file has {}",
                        name.escape_debug(),
                        file.len()
                    ))
                })?;
            entries.insert(String::from(name), from..to);
            at = next;
        }
        Ok(Self {
            entries,
            compressed,
        })
    }

    /// The name of an entry that is compressed or encrypted, if one is.
    pub(super) fn compressed(&self) -> Option<&str> {
        self.compressed.as_deref()
    }

    /// If the names are those of another program than torch.save: which one, and what to
    /// do.
    pub(super) fn of_another_program(&self) -> Option<&'static str> {
        let has = |name: &str| self.find_suffix(name).is_some();
        Some(if has("constants.pkl") {
            "it is a TorchScript archive; `torch.save(torch.jit.load(file).state_dict(), \
             \"state.pt\")` in Python makes a file that can be read"
        } else if has("archive_format") {
            "it is a torch.export archive; `torch.save(torch.export.load(file).state_dict, \
             \"state.pt\")` in Python makes a file that can be read"
        } else if has("model.weights.h5") {
            "it is a Keras model, whose weights are in an HDF5 file; there is no reader for it"
        } else if !self.entries.is_empty() && self.entries.keys().all(|n| n.ends_with(".npy")) {
            "it is a NumPy archive (.npz); there is no reader for it"
        } else {
            return None;
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<Range<usize>> {
        self.entries.get(name).cloned()
    }

    /// The entry in the archive's top folder with this suffix, and the prefix before it.
    pub(super) fn find_suffix(&self, suffix: &str) -> Option<(String, Range<usize>)> {
        self.entries.iter().find_map(|(name, range)| {
            let root = name.strip_suffix(suffix)?;
            let top = root.is_empty() || root.strip_suffix('/').is_some_and(|r| !r.contains('/'));
            top.then(|| (String::from(root), range.clone()))
        })
    }
}

/// Size, size in the archive and place of an entry; they may be in the ZIP64 part of its extra field.
fn sizes(
    bytes: Bytes<'_>,
    entry: usize,
    extra: usize,
    extra_end: usize,
) -> Result<[u64; 3], ImportError> {
    let mut numbers = [24, 20, 42].map(|at| bytes.u32(entry + at).map(u64::from));
    let mut at = extra;
    while at + 4 <= extra_end {
        let [id, size] = [bytes.u16(at)?, bytes.u16(at + 2)?];
        if id == 1 {
            let mut from = at + 4;
            for number in &mut numbers {
                if *number == Ok(0xffff_ffff) {
                    *number = bytes.u64(from);
                    from += 8;
                }
            }
        }
        at += 4 + size;
    }
    let [size, stored, offset] = numbers;
    Ok([size?, stored?, offset?])
}

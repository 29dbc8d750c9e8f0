//! `.pt` and `.pth` files: what `torch.save` writes for state dicts.
//!
//! Since version 1.6 that is a ZIP archive (entries not compressed) with a pickle of names, shapes
//! and offsets, and one entry per storage. Before, and with
//! `_use_new_zipfile_serialization=False`, it is a sequence of pickles followed by the storages.
//!
//! The pickle is interpreted by a machine that implements the few functions a state dict needs and calls
//! no other code: see [`pickle`]. Nested dictionaries and lists give names joined by dots, so that
//! `{"model": {"lstm.weight_ih_l0": …}}` holds `model.lstm.weight_ih_l0`.

mod pickle;
mod zip;

use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use self::pickle::{Pickle, TensorRecord};
use self::zip::Archive;
use super::format::TORCH_NUMBER;
use super::tensors::Stored;
use super::{ImportError, Tensors};

/// Name of the format in messages.
const FORMAT: &str = "PyTorch";

fn error(reason: impl Into<String>) -> ImportError {
    ImportError::format(FORMAT, reason)
}

/// The tensors of an archive in memory.
pub(super) fn read_archive(bytes: Vec<u8>) -> Result<Tensors, ImportError> {
    let archive = Archive::read(&bytes)?;
    if let Some(what) = archive.of_another_program() {
        return Err(error(what));
    }
    if let Some(name) = archive.compressed() {
        return Err(error(format!(
            "entry `{}` is compressed or encrypted, which torch.save never does",
            name.escape_debug()
        )));
    }
    let (root, pickle) = archive
        .find_suffix("data.pkl")
        .ok_or_else(|| error("the archive has no `data.pkl`; was it written by torch.save?"))?;
    if let Some(order) = archive.get(&format!("{root}byteorder")) {
        let order = &bytes[order];
        if order != b"little" {
            let text = String::from_utf8_lossy(&order[..order.len().min(16)]);
            return Err(error(format!(
                "its byte order is `{text}`, expected `little`"
            )));
        }
    }
    let (pickle, _) = Pickle::read(&bytes[..pickle.end], pickle.start)?;
    let records = pickle.tensors()?;
    let bytes = Arc::new(bytes);
    build(&bytes, records, |key| {
        archive.get(&format!("{root}data/{key}"))
    })
}

/// The tensors of a file in the old format in memory.
pub(super) fn read_stream(bytes: Vec<u8>) -> Result<Tensors, ImportError> {
    if bytes
        .get(2..)
        .is_none_or(|rest| !rest.starts_with(TORCH_NUMBER))
    {
        return Err(error(
            "it is a pickle, but not one that torch.save wrote (its first number is another)",
        ));
    }
    let at = 2 + TORCH_NUMBER.len();
    let (protocol, at) = Pickle::read(&bytes, at)?;
    if protocol.root_int() != Some(1001) {
        return Err(error("its protocol is not 1001, the only one there is"));
    }
    let (system, at) = Pickle::read(&bytes, at)?;
    if system.root_flag("little_endian") != Some(true) {
        return Err(error("its byte order is not `little`"));
    }
    let (pickle, at) = Pickle::read(&bytes, at)?;
    let records = pickle.tensors()?;
    let (keys, mut at) = Pickle::read(&bytes, at)?;
    let mut storages = BTreeMap::new();
    for key in keys.root_texts()? {
        let dtype = pickle
            .storage_dtype(key)
            .ok_or_else(|| error(format!("no tensor uses its storage `{key}`")))?;
        let count = bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map(|count| i64::from_le_bytes(*count))
            .ok_or_else(|| error("it ends before its last storage"))?;
        let start = at + 8;
        let end = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(dtype.size())?.checked_add(start))
            .filter(|&end| end <= bytes.len())
            .ok_or_else(|| {
                error(format!(
                    "storage `{key}` declares {count} elements of {dtype}, the file has {} bytes \
                     left",
                    bytes.len() - start
                ))
            })?;
        storages.insert(key.to_string(), start..end);
        at = end;
    }
    let bytes = Arc::new(bytes);
    build(&bytes, records, |key| storages.get(key).cloned())
}

/// Views of the file's bytes.
fn build(
    bytes: &Arc<Vec<u8>>,
    records: Vec<TensorRecord>,
    storage: impl Fn(&str) -> Option<core::ops::Range<usize>>,
) -> Result<Tensors, ImportError> {
    let mut file = Tensors::default();
    for record in records {
        let TensorRecord { name, key, .. } = &record;
        let of = |reason: String| error(format!("`{name}`: {reason}"));
        let range = storage(key).ok_or_else(|| of(format!("there is no storage `{key}`")))?;
        let start = record
            .offset
            .checked_mul(record.dtype.size())
            .and_then(|offset| offset.checked_add(range.start))
            .filter(|&start| start <= range.end)
            .ok_or_else(|| of(format!("it begins outside its storage `{key}`")))?;
        let stored = Stored::view(
            bytes,
            start,
            range.end,
            record.dtype,
            record.shape,
            Some(record.strides),
        )
        .map_err(|reason| error(format!("`{}`: {reason}", record.name)))?;
        if file.insert_stored(record.name.clone(), stored).is_some() {
            return Err(error(format!("two tensors are called `{}`", record.name)));
        }
    }
    if file.is_empty() {
        return Err(error("it holds no tensors"));
    }
    file.checked(FORMAT, bytes.len())
}

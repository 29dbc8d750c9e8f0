//! SafeTensors files: 8 bytes with the length of a JSON header, the header, the data.
//!
//! ```text
//! {"__metadata__": {key: text}, name: {"dtype": "F32", "shape": [..], "data_offsets": [from, to]}}
//! ```
//! Version 0.8.0 of the `safetensors` crate is not used, because it adds the declared end of the
//! data to the header's length without checking for overflow: that panics with overflow checks, and slices
//! out of range without them.

use std::collections::BTreeMap;
use std::fmt::{Formatter, Result as FmtResult};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::json;

use super::tensors::{Dtype, Stored};
use super::{ExportError, ImportError, Tensors};

const FORMAT: &str = "SafeTensors";
const METADATA: &str = "__metadata__";

/// One tensor of the header.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// The header. Not a derived map, which would silently accept a duplicate name.
#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Info>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut Formatter<'_>) -> FmtResult {
                f.write_str("tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        header.metadata = map.next_value()?;
                    } else if header.tensors.insert(name, map.next_value()?).is_some() {
                        return Err(A::Error::custom("a name stands there twice"));
                    }
                }
                Ok(header)
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// All types of the format. Tensors of types other than floating-point are listed but not read.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "F64" => Dtype::F64,
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        "I64" => Dtype::Other("I64", 8),
        "U64" => Dtype::Other("U64", 8),
        "C64" => Dtype::Other("C64", 8),
        "I32" => Dtype::Other("I32", 4),
        "U32" => Dtype::Other("U32", 4),
        "I16" => Dtype::Other("I16", 2),
        "U16" => Dtype::Other("U16", 2),
        "I8" => Dtype::Other("I8", 1),
        "U8" => Dtype::Other("U8", 1),
        "BOOL" => Dtype::Other("BOOL", 1),
        "F8_E4M3" => Dtype::Other("F8_E4M3", 1),
        "F8_E5M2" => Dtype::Other("F8_E5M2", 1),
        _ => return None,
    })
}

/// The tensors of a file in memory.
pub(super) fn read(bytes: Vec<u8>) -> Result<Tensors, ImportError> {
    let error = |reason: String| ImportError::format(FORMAT, reason);
    let length = bytes.len();
    let declared = bytes
        .first_chunk::<8>()
        .map(|start| u64::from_le_bytes(*start))
        .ok_or_else(|| error(format!("it has {length} bytes, the length alone takes 8")))?;
    let end = usize::try_from(declared)
        .ok()
        .and_then(|declared| declared.checked_add(8))
        .filter(|&end| end <= length)
        .ok_or_else(|| {
            error(format!(
                "its header declares {declared} bytes, the file has {length}"
            ))
        })?;
    let header: Header =
        serde_json::from_slice(&bytes[8..end]).map_err(|e| error(format!("its header: {e}")))?;

    let data = length - end;
    let bytes = Arc::new(bytes);
    let mut file = Tensors::with_metadata(header.metadata);
    let mut ranges = Vec::with_capacity(header.tensors.len());
    for (name, info) in header.tensors {
        let of = |reason: String| error(format!("`{name}`: {reason}"));
        let dtype = dtype(&info.dtype)
            .ok_or_else(|| of(format!("its type `{}` is not known", info.dtype)))?;
        let [from, to] = info.data_offsets;
        if from > to || to > data {
            return Err(of(format!(
                "bytes {from}..{to} are outside the {data} of the data"
            )));
        }
        let expected = info
            .shape
            .iter()
            .try_fold(dtype.size(), |size, &axis| size.checked_mul(axis));
        if expected != Some(to - from) {
            let got = to - from;
            return Err(of(format!(
                "shape {:?} does not take the {got} bytes declared",
                info.shape
            )));
        }
        let stored = Stored::view(&bytes, end + from, end + to, dtype, info.shape, None);
        file.insert_stored(name.clone(), stored.map_err(of)?);
        ranges.push([from, to]);
    }
    // The format allows neither gaps nor overlaps; bytes outside of tensors could contain anything.
    ranges.sort_unstable();
    let mut at = 0;
    for [from, to] in ranges {
        if from != at {
            return Err(error(format!(
                "tensors leave a gap or overlap at byte {from} of the data"
            )));
        }
        at = to;
    }
    if at != data {
        return Err(error(format!(
            "its tensors take {at} bytes, the data has {data}"
        )));
    }
    Ok(file)
}

/// A file in memory.
pub(super) fn write(tensors: &Tensors) -> Result<Vec<u8>, ExportError> {
    let mut header = serde_json::Map::new();
    let mut metadata = tensors.metadata().clone();
    // Some readers require it to recognise a PyTorch file.
    metadata.entry("format".into()).or_insert("pt".into());
    header.insert(METADATA.into(), json!(metadata));
    let mut at = 0;
    for (name, tensor) in tensors.iter() {
        if let Dtype::Other(got, _) = tensor.dtype() {
            let what = format!("`{name}` holds {got}, expected floating-point numbers");
            return Err(ExportError::Unsupported { what });
        }
        let to = at + tensor.byte_len();
        let info = json!({
            "dtype": tensor.dtype().name(),
            "shape": tensor.shape(),
            "data_offsets": [at, to],
        });
        header.insert(name.to_string(), info);
        at = to;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The data begins at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    for (_, tensor) in tensors.iter() {
        bytes.extend(tensor.to_bytes());
    }
    Ok(bytes)
}

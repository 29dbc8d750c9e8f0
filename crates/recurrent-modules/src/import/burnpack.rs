//! Burn's own record format: reading it into [`Tensors`], and writing it.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn::tensor::{Bytes, DType};
use burn_pack::{HEADER_SIZE, Reader, Tensor as Packed, Writer};

use super::tensors::{Dtype, Stored};
use super::{ExportError, ImportError, Tensors};

/// Name of the format in messages.
const FORMAT: &str = "burnpack";

/// The magic bytes of a burnpack file.
pub(crate) const MAGIC: [u8; 4] = *b"NRUB";

/// Whether a file has a valid header, and the metadata that the header declares.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let size = bytes
        .get(HEADER_SIZE - 4..)
        .and_then(|rest| rest.first_chunk::<4>());
    let rest = bytes.len().saturating_sub(HEADER_SIZE) as u64;
    let holds = size.is_some_and(|size| u64::from(u32::from_le_bytes(*size)) <= rest);
    bytes.starts_with(&MAGIC) && holds
}

/// The tensors and the metadata of a burnpack file in memory.
///
/// Reads from memory instead of with `Reader::from_file`, which allocates the metadata size declared in the
/// header, up to 100 MiB, before it checks the file's length.
pub(crate) fn read(bytes: Vec<u8>) -> Result<Tensors, ImportError> {
    let length = bytes.len();
    let error = |reason: burn_pack::Error| ImportError::format(FORMAT, reason.to_string());
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes)).map_err(error)?;
    let mut file = Tensors::with_metadata(reader.metadata().clone());
    let tensors = reader.into_tensors().map_err(error)?;
    // Checked before any copy, since tensors of one file may overlap.
    let total = tensors
        .iter()
        .try_fold(0usize, |sum, tensor| sum.checked_add(tensor.byte_len()));
    if total.is_none_or(|total| total > length) {
        return Err(ImportError::format(
            FORMAT,
            format!("its tensors declare more than the {length} bytes of the file"),
        ));
    }
    for tensor in tensors {
        let (name, dtype, shape, param_id, bytes) = tensor.into_parts().map_err(error)?;
        let bytes = Arc::new(bytes.to_vec());
        let (dtype, shape) = (Dtype::from(dtype), shape.to_vec());
        let stored = Stored::view(&bytes, 0, bytes.len(), dtype, shape, None);
        let mut stored =
            stored.map_err(|reason| ImportError::format(FORMAT, format!("`{name}`: {reason}")))?;
        stored.param_id = param_id;
        file.insert_stored(name, stored);
    }
    Ok(file)
}

/// A burnpack file in memory.
pub(crate) fn write(tensors: &Tensors) -> Result<Vec<u8>, ExportError> {
    let packed = tensors
        .iter()
        .map(|(name, tensor)| {
            let dtype = match tensor.dtype() {
                Dtype::F64 => DType::F64,
                Dtype::F32 => DType::F32,
                Dtype::F16 => DType::F16,
                Dtype::Bf16 => DType::BF16,
                Dtype::Other(got, _) => {
                    let what = format!("`{name}` holds {got}, expected floating-point numbers");
                    return Err(ExportError::Unsupported { what });
                }
            };
            let bytes = Bytes::from_bytes_vec(tensor.to_bytes());
            let shape = tensor.shape().to_vec();
            let name = name.to_string();
            Ok(Packed::new(name, dtype, shape, tensor.param_id, bytes))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut writer = Writer::new(packed);
    for (key, value) in tensors.metadata() {
        writer = writer.with_metadata(key, value);
    }
    let bytes = writer
        .into_bytes()
        .map_err(|error| ExportError::Unsupported {
            what: error.to_string(),
        })?;
    Ok(bytes.to_vec())
}

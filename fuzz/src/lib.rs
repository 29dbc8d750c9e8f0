//! What the targets share.

use burn::tensor::Device;
use recurrent_modules::import::{Source, SourceOptions, Tensors};

/// Reads bytes as any caller would, and loads a model where one can be seen in them.
pub fn load(bytes: Vec<u8>) {
    if let Ok(file) = Tensors::from_bytes(bytes)
        && let Some(source) = Source::guess(&file)
    {
        let _ = source.load(&file, &SourceOptions::default(), &Device::flex());
    }
}

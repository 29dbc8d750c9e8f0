//! The layout with one bias, common to haste and Keras: `kernel`, `recurrent_kernel`, `bias`.

use burn::tensor::Device;
use recurrent_core::GateLayout;

use crate::cells::{LstmCell, LstmConfig};
use crate::import::gru::refuse_gru;
use crate::import::{ImportError, Mapping, Piece, Tensors, matrix, part};

/// `[in, out]` matrices with packed gates, and one bias.
pub(super) fn mapping(
    source: &str,
    cell: &LstmCell,
    gates: GateLayout,
) -> Result<Mapping, ImportError> {
    if cell.update.projection.is_some() || cell.update.clip.is_some() {
        return Err(ImportError::unsupported(alloc::format!(
            "{source}'s LSTM has neither a projection (`d_proj`) nor a `clip`"
        )));
    }
    let width = 4 * cell.d_hidden;
    let packed = |piece: Piece| piece.with_gates(gates, GateLayout::LSTM);
    let mut mapping = Mapping::default();
    mapping.one(
        "gates.weight_input",
        packed(Piece::new("kernel", [cell.d_input, width])),
    );
    mapping.one(
        "gates.weight_hidden",
        packed(Piece::new("recurrent_kernel", [cell.d_hidden, width])),
    );
    if cell.gates.bias.is_some() {
        mapping.one("gates.bias", packed(Piece::new("bias", [width])));
    }
    Ok(mapping)
}

/// Sizes and biases.
pub(super) fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    let [d_input, _] = matrix(file, "kernel")?;
    refuse_gru(file, "recurrent_kernel", 1)?;
    let d_hidden = part(file, "recurrent_kernel", 1, 4)?;
    let config = LstmConfig::new(d_input, d_hidden).with_bias(file.get("bias").is_some());
    config.validate()?;
    Ok(config)
}

/// A stack of one layer, not yet filled.
pub(super) fn stack(file: &Tensors, device: &Device) -> Result<crate::Lstm, ImportError> {
    Ok(config(file)?.try_init(device)?)
}

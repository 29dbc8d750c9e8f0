//! UR-LSTM of r0mainK/ur-lstm.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `layers.{l}.igates.weight` | `[4·H, I]` | `weight_input`, transposed |
//! | `layers.{l}.hgates.weight` | `[4·H, H]` | `weight_hidden`, transposed |
//! | `layers.{l}.igates.bias`, `layers.{l}.hgates.bias` | `[4·H]` | `bias`: their sum |
//! | `layers.{l}.forget_bias` | `[H]` | `forget_bias` |
//!
//! Gate order: forget, refine, candidate, output; ours: refine, forget, candidate, output.
//! A cell has the names without `layers.{l}.`. R-LSTM is the same module.

use alloc::format;

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::layers;
use crate::UrLstm;
use crate::cells::{GateMechanism, UrLstmCell, UrLstmConfig};
use crate::import::{ImportError, Layout, Mapping, Piece, Tensors, count, load, matrix, part};

/// The layout of r0mainK/ur-lstm.
#[derive(Debug, Clone, Copy, Default)]
pub struct UrLstmOriginal;

fn cell_mapping(
    mapping: &mut Mapping,
    cell: &UrLstmCell,
    path: &str,
    prefix: &str,
) -> Result<(), ImportError> {
    let plain = cell.mechanism == GateMechanism::Refine
        && cell.tied
        && cell.gates.bias.is_some()
        && cell.gates.norm_input.is_none()
        && cell.gates.norm_hidden.is_none()
        && cell.update.norm_cell.is_none()
        && cell.update.projection.is_none()
        && cell.update.clip.is_none();
    if !plain {
        return Err(ImportError::unsupported(
            "ur-lstm has the refine mechanism with tied bias and biases only; no normalisation, \
             projection or clip",
        ));
    }
    let width = 4 * cell.d_hidden;
    let name = |name: &str| format!("{prefix}{name}");
    let packed = |piece: Piece| piece.with_gates(GateLayout::UR_ORIGINAL, GateLayout::UR);
    let weights = [
        ("weight_input", "igates.weight", cell.d_input),
        ("weight_hidden", "hgates.weight", cell.d_hidden),
    ];
    for (ours, theirs, rows) in weights {
        let piece = Piece::transposed(name(theirs), [width, rows]);
        mapping.one(format!("{path}gates.{ours}"), packed(piece));
    }
    let biases = ["igates.bias", "hgates.bias"];
    let biases = biases.map(|bias| packed(Piece::new(name(bias), [width])));
    mapping.sum(format!("{path}gates.bias"), biases);
    mapping.one(
        format!("{path}forget_bias"),
        Piece::new(name("forget_bias"), [cell.d_hidden]),
    );
    Ok(())
}

impl Layout<UrLstmCell> for UrLstmOriginal {
    fn mapping(&self, module: &UrLstmCell) -> Result<Mapping, ImportError> {
        let mut mapping = Mapping::default();
        cell_mapping(&mut mapping, module, "", "")?;
        Ok(mapping)
    }
}

impl Layout<UrLstm> for UrLstmOriginal {
    fn mapping(&self, module: &UrLstm) -> Result<Mapping, ImportError> {
        layers("ur-lstm", module, |mapping, cell, path, index| {
            cell_mapping(mapping, cell, path, &format!("layers.{index}."))
        })
    }
}

/// Sizes and layers.
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn config(file: &Tensors) -> Result<UrLstmConfig, ImportError> {
    let first = "layers.0.igates.weight";
    let layers = count(file, first, |name| {
        let (number, rest) = name.strip_prefix("layers.")?.split_once('.')?;
        (rest == "igates.weight").then(|| number.parse().ok())?
    })?;
    let [_, d_input] = matrix(file, first)?;
    let d_hidden = part(file, "layers.0.hgates.weight", 0, 4)?;
    let config = UrLstmConfig::new(d_input, d_hidden).with_num_layers(layers);
    config.validate()?;
    Ok(config)
}

/// The model; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(file: &Tensors, device: &Device) -> Result<UrLstm, ImportError> {
    load(&UrLstmOriginal, config(file)?.try_init(device)?, file)
}

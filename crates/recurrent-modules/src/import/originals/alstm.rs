//! The adaptive LSTM of flennerhag/alstm.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `alstm_layers.{l}.weight_ih` | `[4·H, I]` | `cell.gates.weight_input`, transposed |
//! | `alstm_layers.{l}.weight_hh` | `[4·H, H]` | `cell.gates.weight_hidden`, transposed |
//! | `alstm_layers.{l}.bias` | `[4·H]` | `cell.gates.bias` |
//! | `adapt_layers.{l}.weight_ih` | `[4·A, I + H (+ A)]` | `adapt.gates.weight_input`, transposed |
//! | `adapt_layers.{l}.weight_hh` | `[4·A, A]` | `adapt.gates.weight_hidden`, transposed |
//! | `adapt_layers.{l}.bias_ih`, `.bias_hh` | `[4·A]` | `adapt.gates.bias`: their sum |
//! | `project_layers.{l}.linear.weight` | `[policy, A]` | `policy_projection`, transposed |
//!
//! The gate order is ours: input, forget, candidate, output. The published code slices
//! the policy at wrong offsets, so its parts overlap. Weights trained with it need
//! [`PolicyLayout::Overlapping`], weights of corrected code
//! [`PolicyLayout::Cumulative`]. This cannot be detected from the tensors.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::layers;
use crate::AdaptiveLstm;
use crate::cells::{
    AdaptiveLayers, AdaptiveLstmCell, AdaptiveLstmConfig, GateWeights, PolicyLayout, StateUpdate,
};
use crate::import::{ImportError, Layout, Mapping, Piece, Tensors, count, load, matrix, part};

/// The layout of flennerhag/alstm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alstm;

fn plain(gates: &GateWeights, update: &StateUpdate) -> Result<(), ImportError> {
    let norms = gates.norm_input.is_some() || gates.norm_hidden.is_some();
    if norms || update.norm_cell.is_some() || update.projection.is_some() || update.clip.is_some() {
        return Err(ImportError::unsupported(
            "alstm has no normalisation, no projection and no clip",
        ));
    }
    Ok(())
}

fn weights(mapping: &mut Mapping, path: &str, prefix: &str, [d_input, d_hidden]: [usize; 2]) {
    let packed = |piece: Piece| piece.with_gates(GateLayout::LSTM, GateLayout::LSTM);
    let names = [
        ("weight_input", "weight_ih", d_input),
        ("weight_hidden", "weight_hh", d_hidden),
    ];
    for (ours, theirs, rows) in names {
        let piece = Piece::transposed(format!("{prefix}{theirs}"), [4 * d_hidden, rows]);
        mapping.one(format!("{path}gates.{ours}"), packed(piece));
    }
}

fn cell_mapping(
    mapping: &mut Mapping,
    cell: &AdaptiveLstmCell,
    path: &str,
    prefix: &str,
) -> Result<(), ImportError> {
    plain(&cell.gates, &cell.update)?;
    weights(mapping, path, prefix, [cell.d_input, cell.d_hidden]);
    if cell.gates.bias.is_some() {
        let piece = Piece::new(format!("{prefix}bias"), [4 * cell.d_hidden]);
        mapping.one(format!("{path}gates.bias"), piece);
    }
    Ok(())
}

impl Layout<AdaptiveLstmCell> for Alstm {
    fn mapping(&self, module: &AdaptiveLstmCell) -> Result<Mapping, ImportError> {
        let mut mapping = Mapping::default();
        cell_mapping(&mut mapping, module, "", "")?;
        Ok(mapping)
    }
}

impl Layout<AdaptiveLstm> for Alstm {
    fn mapping(&self, module: &AdaptiveLstm) -> Result<Mapping, ImportError> {
        layers(
            "alstm",
            module,
            |mapping, cell: &AdaptiveLayers, path, _| {
                if cell.residual {
                    return Err(ImportError::unsupported(
                        "alstm has no residual connections",
                    ));
                }
                for (index, layer) in cell.layers.iter().enumerate() {
                    let path = format!("{path}layers.{index}.");
                    let main = format!("alstm_layers.{index}.");
                    cell_mapping(mapping, &layer.cell, &format!("{path}cell."), &main)?;

                    let (adapt, prefix) = (&layer.adapt, format!("adapt_layers.{index}."));
                    let sizes = [adapt.d_input, adapt.d_hidden];
                    weights(mapping, &format!("{path}adapt."), &prefix, sizes);
                    let biases = ["bias_ih", "bias_hh"]
                        .map(|bias| Piece::new(format!("{prefix}{bias}"), [4 * adapt.d_hidden]));
                    mapping.sum(format!("{path}adapt.gates.bias"), biases);

                    let name = format!("project_layers.{index}.linear.weight");
                    let shape = [layer.cell.policy_size(), adapt.d_hidden];
                    let path = format!("{path}policy_projection");
                    mapping.one(path, Piece::transposed(name, shape));
                }
                Ok(())
            },
        )
    }
}

/// Sizes, layers and biases.
///
/// # Arguments
/// * `policy` - offsets of the parts of the policy; see the module's documentation
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn config(file: &Tensors, policy: PolicyLayout) -> Result<AdaptiveLstmConfig, ImportError> {
    let name = |layer: usize, name: &str| -> String { format!("alstm_layers.{layer}.{name}") };
    let layers = count(file, &name(0, "weight_ih"), |other| {
        let (number, rest) = other.strip_prefix("alstm_layers.")?.split_once('.')?;
        (rest == "weight_ih").then(|| number.parse().ok())?
    })?;
    let [_, d_input] = matrix(file, &name(0, "weight_ih"))?;
    let sizes = (0..layers)
        .map(|layer| part(file, &name(layer, "weight_hh"), 0, 4))
        .collect::<Result<Vec<_>, _>>()?;
    let config = AdaptiveLstmConfig::stacked(d_input, sizes)
        .with_d_adapt(part(file, "adapt_layers.0.weight_hh", 0, 4)?)
        .with_bias(file.get(&name(0, "bias")).is_some())
        .with_policy_layout(policy);
    config.validate()?;
    Ok(config)
}

/// The model; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(
    file: &Tensors,
    policy: PolicyLayout,
    device: &Device,
) -> Result<AdaptiveLstm, ImportError> {
    load(&Alstm, config(file, policy)?.try_init(device)?, file)
}

//! `keras.layers.LSTM` and `keras.layers.GRU`.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `kernel` | `[I, 4·H]` | `weight_input` |
//! | `recurrent_kernel` | `[H, 4·H]` | `weight_hidden` |
//! | `bias` | `[4·H]` | `bias` |
//!
//! The gate order is ours: input, forget, candidate (`c`), output. It has one bias, as we do. Keras before
//! 2.3 computed the gates with `hard_sigmoid` by default; such weights can be loaded, but give different results
//! here.
//!
//! The GRU has the same names, with `[·, 3·H]`. Gate order: update (`z`), reset, candidate (`h`). With
//! `reset_after`, Keras's default, `bias` is `[2, 3·H]`: a row for x·W and one for h·R. They are summed except for
//! the candidate's part of the second, which is `bias_candidate_hidden`. Without it, `bias` is `[3·H]`.
//!
//! The layout names one layer at a time. For a stack, load each cell from its own prefix:
//! `stack.layers[i].forward = load(&Keras, cell, &file.under(prefix)?)?`.

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::{one_layer, plain};
use crate::cells::{GruCell, LstmCell, LstmConfig};
use crate::import::gru::{self, Side, columns, two_biases};
use crate::import::{ImportError, Layout, Mapping, Piece, Tensors, load, matrix, part};
use crate::{Gru, GruConfig, Lstm};

/// The layout of `keras.layers.LSTM` and `keras.layers.GRU`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keras;

impl Layout<LstmCell> for Keras {
    fn mapping(&self, module: &LstmCell) -> Result<Mapping, ImportError> {
        plain::mapping("Keras", module, GateLayout::LSTM)
    }
}

impl Layout<Lstm> for Keras {
    fn mapping(&self, module: &Lstm) -> Result<Mapping, ImportError> {
        one_layer("Keras", self, module)
    }
}

/// Sizes and biases.
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    plain::config(file)
}

/// One layer; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(file: &Tensors, device: &Device) -> Result<Lstm, ImportError> {
    load(&Keras, plain::stack(file, device)?, file)
}

impl Layout<GruCell> for Keras {
    fn mapping(&self, cell: &GruCell) -> Result<Mapping, ImportError> {
        let (d_hidden, width) = (cell.d_hidden, 3 * cell.d_hidden);
        let packed = |piece: Piece| piece.with_gates(GateLayout::GRU_KERAS, GateLayout::GRU);
        let mut mapping = Mapping::default();
        mapping.one(
            "weight_input",
            packed(Piece::new("kernel", [cell.d_input, width])),
        );
        mapping.one(
            "weight_hidden",
            packed(Piece::new("recurrent_kernel", [d_hidden, width])),
        );
        if cell.reset_after {
            two_biases(&mut mapping, cell, "", |side, gate| {
                let row = usize::from(side == Side::Hidden);
                let piece = Piece::new("bias", [2, width]).with_rows(row..row + 1);
                piece.with_columns(columns(GateLayout::GRU_KERAS, gate, d_hidden))
            })?;
        } else if cell.bias.is_some() {
            mapping.one("bias", packed(Piece::new("bias", [width])));
        }
        Ok(mapping)
    }
}

impl Layout<Gru> for Keras {
    fn mapping(&self, module: &Gru) -> Result<Mapping, ImportError> {
        one_layer("Keras", self, module)
    }
}

/// Whether the tensors are those of a `keras.layers.GRU`, which has the same names as the LSTM.
pub(crate) fn is_gru(file: &Tensors) -> bool {
    gru::is_gru(file, "recurrent_kernel", 1)
}

/// Sizes and biases of one layer of a GRU. Its setting `reset_after` is inferred from the shape of the bias.
///
/// # Arguments
/// * `reset_after` - the setting of a layer without biases, for which it cannot be inferred
///
/// # Errors
/// If a name is missing, a shape is invalid, or it is an LSTM.
pub fn gru_config(file: &Tensors, reset_after: bool) -> Result<GruConfig, ImportError> {
    let [d_input, _] = matrix(file, "kernel")?;
    gru::refuse_lstm(file, "recurrent_kernel", 1)?;
    let d_hidden = part(file, "recurrent_kernel", 1, 3)?;
    let bias = file.get("bias");
    let config = GruConfig::new(d_input, d_hidden)
        .with_bias(bias.is_some())
        .with_reset_after(bias.map_or(reset_after, |bias| bias.shape().len() == 2));
    config.validate()?;
    Ok(config)
}

/// One layer of a GRU; its sizes are inferred from the tensors.
///
/// # Arguments
/// * `reset_after` - the layer's setting of that name; without biases it cannot be inferred
///
/// # Errors
/// If the shape of the bias contradicts `reset_after`, and as [`gru_config`] and [`load`].
pub fn gru(file: &Tensors, reset_after: bool, device: &Device) -> Result<Gru, ImportError> {
    let config = gru_config(file, reset_after)?.with_reset_after(reset_after);
    load(&Keras, config.try_init(device)?, file)
}

//! The notebook of RMichaelSwan/MogrifierLSTM.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `Wih` | `[I, 4·H]` | `weight_input` |
//! | `Whh` | `[H, 4·H]` | `weight_hidden` |
//! | `bih`, `bhh` | `[4·H]` | `bias`: their sum |
//! | `Q` | `[H, I]` | `rounds.0.left` |
//! | `R` | `[I, H]` | `rounds.1.left` |
//!
//! The gate order is ours: input, forget, candidate, output; matrices are
//! `[in, out]`. All rounds share one Q and one R (`share_rounds`). The number of rounds (5 in the notebook) cannot be
//! inferred from the tensors; a model of fewer than two rounds does not use both.

use alloc::string::ToString;

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::one_layer;
use crate::MogrifierLstm;
use crate::cells::{MogrifierLstmCell, MogrifierLstmConfig};
use crate::import::{ImportError, Layout, Mapping, Piece, Tensors, load, matrix, part};

/// The layout of the notebook.
#[derive(Debug, Clone, Copy, Default)]
pub struct MogrifierNotebook;

/// Whether the notebook can express a cell: shared full-rank rounds without bias or cap.
fn is_plain(cell: &MogrifierLstmCell) -> bool {
    let shared = cell.num_rounds <= 2 || cell.rounds.len() < cell.num_rounds;
    let full = |round: &crate::cells::RoundWeights| round.right.is_none() && round.bias.is_none();
    shared
        && cell.rounds.iter().all(full)
        && !cell.cap_input_gate
        && cell.gates.bias.is_some()
        && cell.gates.norm_input.is_none()
        && cell.gates.norm_hidden.is_none()
        && cell.update.norm_cell.is_none()
        && cell.update.projection.is_none()
        && cell.update.clip.is_none()
}

impl Layout<MogrifierLstmCell> for MogrifierNotebook {
    fn mapping(&self, cell: &MogrifierLstmCell) -> Result<Mapping, ImportError> {
        if !is_plain(cell) {
            return Err(ImportError::unsupported(
                "the Mogrifier notebook has one full Q and R for all rounds (`share_rounds`) and \
                 biases; no rank, round bias, cap, normalisation, projection or clip",
            ));
        }
        let (d_input, d_hidden) = (cell.d_input, cell.d_hidden);
        let width = 4 * d_hidden;
        let packed = |piece: Piece| piece.with_gates(GateLayout::LSTM, GateLayout::LSTM);
        let mut mapping = Mapping::default();
        mapping.one(
            "gates.weight_input",
            packed(Piece::new("Wih", [d_input, width])),
        );
        mapping.one(
            "gates.weight_hidden",
            packed(Piece::new("Whh", [d_hidden, width])),
        );
        let biases = ["bih", "bhh"].map(|bias| packed(Piece::new(bias, [width])));
        mapping.sum("gates.bias", biases);
        let rounds = [
            ("rounds.0.left", "Q", [d_hidden, d_input]),
            ("rounds.1.left", "R", [d_input, d_hidden]),
        ];
        for (index, (ours, theirs, shape)) in rounds.into_iter().enumerate() {
            match index < cell.rounds.len() {
                true => mapping.one(ours, Piece::new(theirs, shape)),
                false => mapping.unused.push((theirs.to_string(), shape.to_vec())),
            }
        }
        Ok(mapping)
    }
}

impl Layout<MogrifierLstm> for MogrifierNotebook {
    fn mapping(&self, module: &MogrifierLstm) -> Result<Mapping, ImportError> {
        one_layer("the Mogrifier notebook", self, module)
    }
}

/// Sizes.
///
/// # Arguments
/// * `rounds` - rounds of gating, 5 in the notebook
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn config(file: &Tensors, rounds: usize) -> Result<MogrifierLstmConfig, ImportError> {
    let [d_input, _] = matrix(file, "Wih")?;
    let config = MogrifierLstmConfig::new(d_input, part(file, "Whh", 1, 4)?)
        .with_rounds(rounds)
        .with_share_rounds(true);
    config.validate()?;
    Ok(config)
}

/// The model; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(file: &Tensors, rounds: usize, device: &Device) -> Result<MogrifierLstm, ImportError> {
    load(
        &MogrifierNotebook,
        config(file, rounds)?.try_init(device)?,
        file,
    )
}

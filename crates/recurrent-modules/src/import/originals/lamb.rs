//! The cell of google-deepmind/lamb (`TiledLSTMCell` with `TiledLinear`), the code behind the results of the
//! Mogrifier paper.
//!
//! | variable | shape | ours |
//! |---|---|---|
//! | `tiled_linear/W` | `[I + H, 4·H]` | rows of x: `weight_input`; rows of h: `weight_hidden` |
//! | `tiled_linear/B_j`, `B_o`, `B_f`, `B_i` | `[H]` each | `bias`, by gate |
//! | `fm_{k}/kernel` | `[H, I]` or `[I, H]` | `rounds.{k}.left` |
//! | `fm_{k}_weight_a`, `fm_{k}_weight_b` (rank > 0) | `[·, r]`, `[r, ·]` | `rounds.{k}.left`, `.right` |
//! | `fm_{k}/bias`, with a rank `fm_{k}_bias` | `[I]` or `[H]` | `rounds.{k}.bias` |
//! | `projection/kernel` | `[H, P]` | `projection` |
//!
//! Gate order: candidate (`j`), output, forget, input. By default the cell caps the input gate at
//! 1 − f (`cap_input_gate`). The names are those of TensorFlow variables within the cell's
//! scope. TensorFlow's own checkpoints are not supported: write the variables to a SafeTensors file.
//! Tied gates and the layer-normalised, sparse and dropout forms of the cell are not supported.

use alloc::format;
use alloc::string::String;

use burn::tensor::Device;
use recurrent_core::{Gate, GateLayout};

use super::one_layer;
use crate::MogrifierLstm;
use crate::cells::{MogrifierLstmCell, MogrifierLstmConfig};
use crate::import::{ImportError, Layout, Mapping, Piece, Tensors, load, matrix, part};

/// The layout of lamb's `TiledLSTMCell`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lamb;

fn letter(gate: Gate) -> &'static str {
    match gate {
        Gate::Input => "i",
        Gate::Forget => "f",
        Gate::Candidate => "j",
        Gate::Output => "o",
        other => unreachable!("GateLayout::LSTM has no {other:?} gate"),
    }
}

/// Names of the parts of a round.
fn round_names(index: usize, low_rank: bool) -> [String; 3] {
    match low_rank {
        true => ["weight_a", "weight_b", "bias"].map(|part| format!("fm_{index}_{part}")),
        false => ["kernel", "", "bias"].map(|part| format!("fm_{index}/{part}")),
    }
}

impl Layout<MogrifierLstmCell> for Lamb {
    fn mapping(&self, cell: &MogrifierLstmCell) -> Result<Mapping, ImportError> {
        let biased = cell.rounds.iter().all(|round| round.bias.is_some());
        let expressed = biased
            && cell.cap_input_gate
            && cell.rounds.len() == cell.num_rounds
            && cell.gates.bias.is_some()
            && cell.gates.norm_input.is_none()
            && cell.gates.norm_hidden.is_none()
            && cell.update.norm_cell.is_none();
        if !expressed {
            return Err(ImportError::unsupported(
                "lamb's cell has a matrix and a bias for each round (`round_bias`, no \
                 `share_rounds`), caps the input gate (`cap_input_gate`) and has biases; its \
                 normalised form is not covered",
            ));
        }
        let (d_input, d_hidden, d_output) = (cell.d_input, cell.d_hidden, cell.d_output);
        let weight = |rows| {
            let shape = [d_input + d_output, 4 * d_hidden];
            let piece = Piece::new("tiled_linear/W", shape).with_rows(rows);
            piece.with_gates(GateLayout::LAMB, GateLayout::LSTM)
        };
        let mut mapping = Mapping::default();
        mapping.one("gates.weight_input", weight(0..d_input));
        mapping.one("gates.weight_hidden", weight(d_input..d_input + d_output));
        let bias = |&gate: &Gate| {
            let name = format!("tiled_linear/B_{}", letter(gate));
            Piece::new(name, [d_hidden])
        };
        mapping.columns("gates.bias", GateLayout::LSTM.gates().iter().map(bias));
        for (index, round) in cell.rounds.iter().enumerate() {
            let (from, to) = match index % 2 {
                0 => (d_output, d_input),
                _ => (d_input, d_output),
            };
            let rank = round.right.as_ref().map(|right| right.lazy_shape().dims());
            let [left, right, bias] = round_names(index, rank.is_some());
            let path = |part: &str| format!("rounds.{index}.{part}");
            match rank {
                Some([rank, _]) => {
                    mapping.one(path("left"), Piece::new(left, [from, rank]));
                    mapping.one(path("right"), Piece::new(right, [rank, to]));
                }
                None => mapping.one(path("left"), Piece::new(left, [from, to])),
            }
            mapping.one(path("bias"), Piece::new(bias, [to]));
        }
        if cell.update.projection.is_some() {
            let piece = Piece::new("projection/kernel", [d_hidden, d_output]);
            mapping.one("update.projection", piece);
        }
        Ok(mapping)
    }
}

impl Layout<MogrifierLstm> for Lamb {
    fn mapping(&self, module: &MogrifierLstm) -> Result<Mapping, ImportError> {
        one_layer("lamb", self, module)
    }
}

/// Sizes, rounds, rank and projection.
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn config(file: &Tensors) -> Result<MogrifierLstmConfig, ImportError> {
    let d_hidden = part(file, "tiled_linear/W", 1, 4)?;
    let [rows, _] = matrix(file, "tiled_linear/W")?;
    let d_proj = match file.get("projection/kernel") {
        Some(_) => Some(matrix(file, "projection/kernel")?[1]),
        None => None,
    };
    let d_output = d_proj.unwrap_or(d_hidden);
    let d_input = rows.saturating_sub(d_output);
    let has = |index: usize, low_rank| file.get(&round_names(index, low_rank)[0]).is_some();
    let low_rank = has(0, true);
    let rounds = (0..file.len())
        .take_while(|&index| has(index, low_rank))
        .count();
    let rank = match low_rank {
        true => Some(matrix(file, &round_names(0, true)[0])?[1]),
        false => None,
    };
    let config = MogrifierLstmConfig::new(d_input, d_hidden)
        .with_rounds(rounds)
        .with_rank(rank)
        .with_round_bias(true)
        .with_cap_input_gate(true)
        .with_d_proj(d_proj);
    config.validate()?;
    Ok(config)
}

/// The cell as a stack of one layer; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(file: &Tensors, device: &Device) -> Result<MogrifierLstm, ImportError> {
    load(&Lamb, config(file)?.try_init(device)?, file)
}

//! Code shared by the layouts of the GRU, and how its files are distinguished from an LSTM's.

use alloc::format;
use alloc::vec;

use recurrent_core::{Gate, GateLayout};

use super::{ImportError, Mapping, Piece, Tensors};
use crate::cells::GruCell;

/// Whether recurrent weights have this many gates per feature of the state. A GRU has 3 and an LSTM 4; an LSTM with a
/// projection has more, because its state is smaller.
///
/// # Arguments
/// * `axis` - on which the gates are packed
fn has_gates(file: &Tensors, name: &str, axis: usize, gates: usize) -> bool {
    let shape = file.get(name).map(|tensor| tensor.shape());
    let Some(&[rows, columns]) = shape else {
        return false;
    };
    let [packed, state] = if axis == 0 {
        [rows, columns]
    } else {
        [columns, rows]
    };
    state > 0 && state.checked_mul(gates) == Some(packed)
}

/// Whether the recurrent weights of a file are those of a GRU. Arguments as of [`has_gates`].
pub(super) fn is_gru(file: &Tensors, name: &str, axis: usize) -> bool {
    has_gates(file, name, axis, 3)
}

/// For readers of an LSTM: checks that the recurrent weights are not those of a GRU.
pub(super) fn refuse_gru(file: &Tensors, name: &str, axis: usize) -> Result<(), ImportError> {
    match is_gru(file, name, axis) {
        true => Err(gates_of_another(
            file,
            name,
            axis,
            ["4", "an LSTM", "3", "a GRU"],
        )),
        false => Ok(()),
    }
}

/// For readers of a GRU: checks that the recurrent weights are not those of an LSTM.
pub(super) fn refuse_lstm(file: &Tensors, name: &str, axis: usize) -> Result<(), ImportError> {
    match has_gates(file, name, axis, 4) {
        true => Err(gates_of_another(
            file,
            name,
            axis,
            ["3", "a GRU", "4", "an LSTM"],
        )),
        false => Ok(()),
    }
}

fn gates_of_another(
    file: &Tensors,
    name: &str,
    axis: usize,
    [gates, wanted, other_gates, other]: [&str; 4],
) -> ImportError {
    let got = file.get(name).map(|tensor| tensor.shape().to_vec());
    ImportError::Form {
        name: name.into(),
        got: got.unwrap_or_default(),
        expected: format!(
            "{gates} gates on axis {axis} as in {wanted}; {other_gates} gates are those of {other}"
        ),
    }
}

/// Which of a source's two biases per gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// That of x·W.
    Input,
    /// That of h·R.
    Hidden,
}

/// The biases of a cell from a source that has two per gate. They are summed, except for the candidate's if
/// the reset gate multiplies one of them.
///
/// # Arguments
/// * `piece` - where a bias is
///
/// # Errors
/// If the cell has only one of its two biases.
pub(super) fn two_biases(
    mapping: &mut Mapping,
    cell: &GruCell,
    path: &str,
    piece: impl Fn(Side, Gate) -> Piece,
) -> Result<(), ImportError> {
    let has = [&cell.bias, &cell.bias_candidate_hidden].map(Option::is_some);
    if has != [has[0], has[0] && cell.reset_after] {
        return Err(ImportError::unsupported(format!(
            "the GRU cell has `bias`: {}, `bias_candidate_hidden`: {}, expected both or none with \
             `reset_after`, and never the second without it",
            has[0], has[1]
        )));
    }
    if !has[0] {
        return Ok(());
    }
    let blocks = GateLayout::GRU.gates().iter().map(|&gate| match gate {
        Gate::Candidate if cell.reset_after => vec![piece(Side::Input, gate)],
        _ => vec![piece(Side::Input, gate), piece(Side::Hidden, gate)],
    });
    mapping.push(format!("{path}bias"), blocks.collect());
    if cell.reset_after {
        mapping.one(
            format!("{path}bias_candidate_hidden"),
            piece(Side::Hidden, Gate::Candidate),
        );
    }
    Ok(())
}

/// The columns of a gate among the packed ones of a source.
pub(super) fn columns(layout: GateLayout, gate: Gate, d_hidden: usize) -> core::ops::Range<usize> {
    let slot = layout.slot(gate).expect("a gate of the GRU");
    slot * d_hidden..(slot + 1) * d_hidden
}

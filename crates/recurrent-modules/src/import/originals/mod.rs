//! The published implementations of the variants, and other libraries' plain LSTMs and GRUs.
//!
//! | module | source | ours |
//! |---|---|---|
//! | [`ur_lstm`] | r0mainK/ur-lstm | [`UrLstm`](crate::UrLstm) |
//! | [`lstms_pth`] | seba-1511/lstms.pth | [`Lstm`](crate::Lstm), [`SlowLstm`](crate::SlowLstm), [`LayerNormLstm`](crate::LayerNormLstm) |
//! | [`alstm`] | flennerhag/alstm | [`AdaptiveLstm`](crate::AdaptiveLstm) |
//! | [`mogrifier`] | RMichaelSwan/MogrifierLSTM | [`MogrifierLstm`](crate::MogrifierLstm) |
//! | [`lamb`] | google-deepmind/lamb | [`MogrifierLstm`](crate::MogrifierLstm) |
//! | [`haste`] | lmnt-com/haste | [`Lstm`](crate::Lstm) |
//! | [`keras`] | Keras | [`Lstm`](crate::Lstm), [`Gru`](crate::Gru) |
//!
//! `docs/deviations.md` lists where their equations differ from the papers.

pub mod alstm;
pub mod haste;
pub mod keras;
pub mod lamb;
pub mod lstms_pth;
pub mod mogrifier;
mod plain;
pub mod ur_lstm;

use alloc::format;

use super::{ImportError, Layout, Mapping};
use crate::Stack;
use crate::cells::Cell;

/// The mapping of a stack from those of its cells, for layouts that number the layers and have one
/// direction.
fn layers<C: Cell>(
    source: &str,
    stack: &Stack<C>,
    mut cell: impl FnMut(&mut Mapping, &C, &str, usize) -> Result<(), ImportError>,
) -> Result<Mapping, ImportError> {
    let lacks = [
        (stack.directions() > 1, "bidirectional layers"),
        (stack.reverse, "layers that run backward (`reverse`)"),
        (stack.residual, "residual connections"),
    ];
    if let Some((_, what)) = lacks.into_iter().find(|(asked, _)| *asked) {
        return Err(ImportError::unsupported(format!("{source} has no {what}")));
    }
    let mut mapping = Mapping::default();
    for (index, layer) in stack.layers.iter().enumerate() {
        let path = format!("layers.{index}.forward.");
        cell(&mut mapping, &layer.forward, &path, index)?;
    }
    Ok(mapping)
}

/// The mapping of a stack with one layer and direction, for layouts of single cells. The direction may be either,
/// since the file does not contain it.
fn one_layer<C: Cell, L: Layout<C>>(
    source: &str,
    layout: &L,
    stack: &Stack<C>,
) -> Result<Mapping, ImportError> {
    let [layer] = &stack.layers[..] else {
        return Err(ImportError::unsupported(format!(
            "{source} names one layer at a time, got {}; load or export each layer's cell on its \
             own: `stack.layers[i].forward`",
            stack.layers.len()
        )));
    };
    if layer.backward.is_some() {
        return Err(ImportError::unsupported(format!(
            "{source} has no bidirectional layers; load or export each direction's cell on its own: \
             `stack.layers[0].forward` and `.backward`"
        )));
    }
    let mut mapping = layout.mapping(&layer.forward)?;
    for entry in &mut mapping.entries {
        entry.param.insert_str(0, "layers.0.forward.");
    }
    Ok(mapping)
}

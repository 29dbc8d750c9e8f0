//! `torch.nn.LSTM` and `torch.nn.LSTMCell`.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `weight_ih_l{n}[_reverse]` | `[4·H, I]` | `weight_input`, transposed |
//! | `weight_hh_l{n}[_reverse]` | `[4·H, H]` or `[4·H, P]` | `weight_hidden`, transposed |
//! | `bias_ih_l{n}[_reverse]`, `bias_hh_l{n}[_reverse]` | `[4·H]` | `bias`: their sum |
//! | `weight_hr_l{n}[_reverse]` (`proj_size`) | `[P, H]` | `projection`, transposed |
//!
//! Gates stand in the order input, forget, candidate, output, which is ours. A cell has the names
//! without `_l{n}`.

use alloc::format;

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::{ImportError, Layout, Mapping, Piece, Tensors, count, load, matrix, part};
use crate::cells::{LstmCell, LstmConfig};
use crate::{Lstm, Stack};

/// The layout of `torch.nn.LSTM` and `torch.nn.LSTMCell`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TorchLstm;

/// The parameters of one cell, at `path` in our module.
///
/// # Arguments
/// * `suffix` - `_l0`, `_l0_reverse`, or nothing for a cell
fn cell_mapping(
    mapping: &mut Mapping,
    cell: &LstmCell,
    path: &str,
    suffix: &str,
) -> Result<(), ImportError> {
    let (d_input, d_output) = (cell.d_input, cell.d_output);
    let width = 4 * cell.d_hidden;
    let name = |name: &str| format!("{name}{suffix}");
    let packed = |piece: Piece| piece.with_gates(GateLayout::LSTM, GateLayout::LSTM);
    mapping.one(
        format!("{path}gates.weight_input"),
        packed(Piece::transposed(name("weight_ih"), [width, d_input])),
    );
    mapping.one(
        format!("{path}gates.weight_hidden"),
        packed(Piece::transposed(name("weight_hh"), [width, d_output])),
    );
    if cell.gates.bias.is_some() {
        let biases = ["bias_ih", "bias_hh"].map(|bias| packed(Piece::new(name(bias), [width])));
        mapping.sum(format!("{path}gates.bias"), biases);
    }
    if cell.update.projection.is_some() {
        mapping.one(
            format!("{path}update.projection"),
            Piece::transposed(name("weight_hr"), [d_output, cell.d_hidden]),
        );
    }
    if cell.update.clip.is_some() {
        return Err(ImportError::unsupported(
            "PyTorch's LSTM has no clip; set `clip` to None before exporting",
        ));
    }
    Ok(())
}

/// `path` and suffix of each cell of a stack, in PyTorch's order.
fn stack_mapping(stack: &Lstm) -> Result<Mapping, ImportError> {
    if stack.reverse {
        return Err(ImportError::unsupported(
            "PyTorch's LSTM cannot run backward only (`reverse`); flip its input instead",
        ));
    }
    if stack.residual {
        return Err(ImportError::unsupported(
            "PyTorch's LSTM has no residual connections",
        ));
    }
    let first = stack.layers[0].forward.d_hidden;
    let mut mapping = Mapping::default();
    for (index, layer) in stack.layers.iter().enumerate() {
        let got = layer.forward.d_hidden;
        if got != first {
            return Err(ImportError::unsupported(format!(
                "PyTorch's LSTM has layers of one size, layer {index} has {got} units, layer 0 \
                 {first}"
            )));
        }
        let path = format!("layers.{index}.");
        let suffix = format!("_l{index}");
        cell_mapping(
            &mut mapping,
            &layer.forward,
            &format!("{path}forward."),
            &suffix,
        )?;
        if let Some(backward) = &layer.backward {
            let (path, suffix) = (format!("{path}backward."), format!("{suffix}_reverse"));
            cell_mapping(&mut mapping, backward, &path, &suffix)?;
        }
    }
    Ok(mapping)
}

impl Layout<Stack<LstmCell>> for TorchLstm {
    fn mapping(&self, module: &Lstm) -> Result<Mapping, ImportError> {
        stack_mapping(module)
    }
}

impl Layout<LstmCell> for TorchLstm {
    fn mapping(&self, module: &LstmCell) -> Result<Mapping, ImportError> {
        let mut mapping = Mapping::default();
        cell_mapping(&mut mapping, module, "", "")?;
        Ok(mapping)
    }
}

/// The number of `weight_ih_l12` or `weight_ih_l12_reverse`.
fn layer_number(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("weight_ih_l")?;
    rest.strip_suffix("_reverse").unwrap_or(rest).parse().ok()
}

/// Sizes, layers, directions, projection and biases of the tensors of a `torch.nn.LSTM`.
///
/// What the tensors do not say is left at its default: `batch_first` is true (PyTorch's default is
/// false, but that is a matter of the call, not of the weights), dropout is 0.
///
/// # Errors
/// If the names are not those of an LSTM, or a shape makes no sense.
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    let layers = count(file, "weight_ih_l0", layer_number)?;
    let [_, d_input] = matrix(file, "weight_ih_l0")?;
    let d_hidden = part(file, "weight_hh_l0", 0, 4)?;
    let projection = file.get("weight_hr_l0");
    let d_proj = projection
        .map(|_| matrix(file, "weight_hr_l0").map(|[d_proj, _]| d_proj))
        .transpose()?;
    let config = LstmConfig::new(d_input, d_hidden)
        .with_num_layers(layers)
        .with_bidirectional(file.get("weight_ih_l0_reverse").is_some())
        .with_bias(file.get("bias_ih_l0").is_some() || file.get("bias_hh_l0").is_some())
        .with_d_proj(d_proj);
    config.validate()?;
    Ok(config)
}

/// The LSTM of a state dict, its sizes found from the tensors.
///
/// Of a larger model, take the part first: `lstm(&file.under("encoder.lstm")?, &device)`.
///
/// # Errors
/// As [`config`] and [`load`].
///
/// # Example
/// ```no_run
/// use burn::tensor::Device;
/// use recurrent_modules::import::{Tensors, pytorch};
///
/// # #[cfg(feature = "pytorch")] {
/// let file = Tensors::open("model.pt")?;
/// let lstm = pytorch::lstm(&file.under("encoder.lstm")?, &Device::flex())?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lstm(file: &Tensors, device: &Device) -> Result<Lstm, ImportError> {
    load(&TorchLstm, config(file)?.try_init(device)?, file)
}

/// The cell of a `torch.nn.LSTMCell`'s state dict.
///
/// # Errors
/// If the names are not those of a cell, and as [`load`].
pub fn lstm_cell(file: &Tensors, device: &Device) -> Result<LstmCell, ImportError> {
    let [_, d_input] = matrix(file, "weight_ih")?;
    let d_hidden = part(file, "weight_hh", 0, 4)?;
    let bias = file.get("bias_ih").is_some() || file.get("bias_hh").is_some();
    let config = LstmConfig::new(d_input, d_hidden).with_bias(bias);
    load(&TorchLstm, config.try_init_cell(device)?, file)
}

//! `torch.nn.LSTM`, `torch.nn.GRU` and their cells.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `weight_ih_l{n}[_reverse]` | `[4·H, I]` | `weight_input`, transposed |
//! | `weight_hh_l{n}[_reverse]` | `[4·H, H]` or `[4·H, P]` | `weight_hidden`, transposed |
//! | `bias_ih_l{n}[_reverse]`, `bias_hh_l{n}[_reverse]` | `[4·H]` | `bias`: their sum |
//! | `weight_hr_l{n}[_reverse]` (`proj_size`) | `[P, H]` | `projection`, transposed |
//!
//! The gate order is ours: input, forget, candidate, output. A cell has the names
//! without `_l{n}`.
//!
//! The GRU has the same names, with `[3·H]` for `[4·H]` and without `weight_hr`. Its gate order is ours too:
//! reset, update, candidate. The reset gate multiplies the candidate's part of `bias_hh`, so
//! this part is `bias_candidate_hidden`; all other pairs of biases are summed.

use alloc::format;

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::gru::{self, Side, columns, two_biases};
use super::{ImportError, Layout, Mapping, Piece, Tensors, count, load, matrix, part};
use crate::cells::{Cell, GruCell, LstmCell, LstmConfig};
use crate::{Gru, GruConfig, Lstm, Stack};

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

/// All cells of a stack, in PyTorch's order.
///
/// # Arguments
/// * `cell` - adds the parameters of a cell at a path under a suffix
fn stack_mapping<C: Cell>(
    kind: &str,
    stack: &Stack<C>,
    cell: impl Fn(&mut Mapping, &C, &str, &str) -> Result<(), ImportError>,
) -> Result<Mapping, ImportError> {
    if stack.reverse {
        return Err(ImportError::unsupported(format!(
            "PyTorch's {kind} cannot run backward only (`reverse`); flip its input instead"
        )));
    }
    if stack.residual {
        return Err(ImportError::unsupported(format!(
            "PyTorch's {kind} has no residual connections"
        )));
    }
    let first = stack.layers[0].forward.d_hidden();
    let mut mapping = Mapping::default();
    for (index, layer) in stack.layers.iter().enumerate() {
        let got = layer.forward.d_hidden();
        if got != first {
            return Err(ImportError::unsupported(format!(
                "PyTorch's {kind} has layers of one size, layer {index} has {got} units, layer 0 \
                 {first}"
            )));
        }
        let path = format!("layers.{index}.");
        let suffix = format!("_l{index}");
        cell(
            &mut mapping,
            &layer.forward,
            &format!("{path}forward."),
            &suffix,
        )?;
        if let Some(backward) = &layer.backward {
            let (path, suffix) = (format!("{path}backward."), format!("{suffix}_reverse"));
            cell(&mut mapping, backward, &path, &suffix)?;
        }
    }
    Ok(mapping)
}

impl Layout<Stack<LstmCell>> for TorchLstm {
    fn mapping(&self, module: &Lstm) -> Result<Mapping, ImportError> {
        stack_mapping("LSTM", module, cell_mapping)
    }
}

impl Layout<LstmCell> for TorchLstm {
    fn mapping(&self, module: &LstmCell) -> Result<Mapping, ImportError> {
        let mut mapping = Mapping::default();
        cell_mapping(&mut mapping, module, "", "")?;
        Ok(mapping)
    }
}

/// The layout of `torch.nn.GRU` and `torch.nn.GRUCell`.
#[derive(Debug, Clone, Copy, Default)]
pub struct TorchGru;

/// As [`cell_mapping`].
fn gru_mapping(
    mapping: &mut Mapping,
    cell: &GruCell,
    path: &str,
    suffix: &str,
) -> Result<(), ImportError> {
    if !cell.reset_after {
        return Err(ImportError::unsupported(
            "PyTorch's GRU applies the reset gate after the product with R_n; a cell without \
             `reset_after` computes something else",
        ));
    }
    let (d_hidden, width) = (cell.d_hidden, 3 * cell.d_hidden);
    let packed = |piece: Piece| piece.with_gates(GateLayout::GRU, GateLayout::GRU);
    for (ours, theirs, rows) in [
        ("weight_input", "weight_ih", cell.d_input),
        ("weight_hidden", "weight_hh", d_hidden),
    ] {
        let piece = Piece::transposed(format!("{theirs}{suffix}"), [width, rows]);
        mapping.one(format!("{path}{ours}"), packed(piece));
    }
    two_biases(mapping, cell, path, |side, gate| {
        let name = match side {
            Side::Input => "bias_ih",
            Side::Hidden => "bias_hh",
        };
        let piece = Piece::new(format!("{name}{suffix}"), [width]);
        piece.with_columns(columns(GateLayout::GRU, gate, d_hidden))
    })
}

impl Layout<Gru> for TorchGru {
    fn mapping(&self, module: &Gru) -> Result<Mapping, ImportError> {
        stack_mapping("GRU", module, gru_mapping)
    }
}

impl Layout<GruCell> for TorchGru {
    fn mapping(&self, module: &GruCell) -> Result<Mapping, ImportError> {
        let mut mapping = Mapping::default();
        gru_mapping(&mut mapping, module, "", "")?;
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
/// Settings that the tensors do not contain have our defaults: `batch_first` is true (PyTorch's default is
/// false), dropout is 0.
///
/// # Errors
/// If the names are not those of an LSTM, a shape is invalid, or it is a GRU.
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    let layers = count(file, "weight_ih_l0", layer_number)?;
    let [_, d_input] = matrix(file, "weight_ih_l0")?;
    gru::refuse_gru(file, "weight_hh_l0", 0)?;
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

/// The LSTM of a state dict; its sizes are inferred from the tensors.
///
/// For a larger model, select its part first: `lstm(&file.under("encoder.lstm")?, &device)`.
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
    gru::refuse_gru(file, "weight_hh", 0)?;
    let d_hidden = part(file, "weight_hh", 0, 4)?;
    let bias = file.get("bias_ih").is_some() || file.get("bias_hh").is_some();
    let config = LstmConfig::new(d_input, d_hidden).with_bias(bias);
    load(&TorchLstm, config.try_init_cell(device)?, file)
}

/// Whether the tensors are those of a `torch.nn.GRU`, which has the same names as the LSTM.
pub(super) fn is_gru(file: &Tensors) -> bool {
    gru::is_gru(file, "weight_hh_l0", 0)
}

/// Sizes, layers, directions and biases of the tensors of a `torch.nn.GRU`.
///
/// Settings that the tensors do not contain have our defaults, as in [`config`].
///
/// # Errors
/// If the names are not those of a GRU, a shape is invalid, or it is an LSTM.
pub fn gru_config(file: &Tensors) -> Result<GruConfig, ImportError> {
    let layers = count(file, "weight_ih_l0", layer_number)?;
    let [_, d_input] = matrix(file, "weight_ih_l0")?;
    gru::refuse_lstm(file, "weight_hh_l0", 0)?;
    let d_hidden = part(file, "weight_hh_l0", 0, 3)?;
    let config = GruConfig::new(d_input, d_hidden)
        .with_num_layers(layers)
        .with_bidirectional(file.get("weight_ih_l0_reverse").is_some())
        .with_bias(file.get("bias_ih_l0").is_some() || file.get("bias_hh_l0").is_some());
    config.validate()?;
    Ok(config)
}

/// The GRU of a state dict; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`gru_config`] and [`load`].
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor, TensorData};
/// use recurrent_modules::import::{Tensors, pytorch};
///
/// let mut file = Tensors::default();
/// for (name, shape) in [("weight_ih_l0", [12, 3]), ("weight_hh_l0", [12, 4])] {
///     let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (i as f32).sin()).collect();
///     file.insert(name, TensorData::new(values, shape));
/// }
/// let gru = pytorch::gru(&file, &Device::flex())?;
/// let (y, state) = gru.forward(Tensor::<3>::ones([2, 5, 3], &Device::flex()), None);
/// assert_eq!((y.dims(), state.last().hidden.dims()), ([2, 5, 4], [2, 4]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn gru(file: &Tensors, device: &Device) -> Result<Gru, ImportError> {
    load(&TorchGru, gru_config(file)?.try_init(device)?, file)
}

/// The cell of a `torch.nn.GRUCell`'s state dict.
///
/// # Errors
/// If the names are not those of a cell, and as [`load`].
pub fn gru_cell(file: &Tensors, device: &Device) -> Result<GruCell, ImportError> {
    let [_, d_input] = matrix(file, "weight_ih")?;
    gru::refuse_lstm(file, "weight_hh", 0)?;
    let d_hidden = part(file, "weight_hh", 0, 3)?;
    let bias = file.get("bias_ih").is_some() || file.get("bias_hh").is_some();
    let config = GruConfig::new(d_input, d_hidden).with_bias(bias);
    load(&TorchGru, config.try_init_cell(device)?, file)
}

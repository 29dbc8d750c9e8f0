//! The LSTM variants of seba-1511/lstms.pth.
//!
//! | tensor | shape | ours |
//! |---|---|---|
//! | `i2h.weight` | `[4·H, I]` | `weight_input`, transposed |
//! | `h2h.weight` | `[4·H, H]` | `weight_hidden`, transposed |
//! | `i2h.bias`, `h2h.bias` | `[4·H]` | `bias`: their sum; `bias_input`, `bias_hidden` of a [`LayerNormLstm`] |
//! | `ln_i2h.alpha`, `.beta`; `ln_h2h.alpha`, `.beta` | `[1, 4·H]` | gain and shift of `norm_input`, `norm_hidden` |
//! | `ln_cell.alpha`, `.beta` | `[1, H]` | gain and shift of `norm_cell` |
//! | `SlowLSTM`: `w_xi`, `w_hi`, `b_i` and so on for f, c, o | `[H, H]`, `[H, H]`, `[H]` | the gate's two linears, not transposed |
//!
//! Gate order: input, forget, output, candidate; ours: input, forget, candidate, output.
//! `MultiLayerLSTM` has the prefix `params.{l}.`. The kind of dropout is not in the file: Gal,
//! Moon and Semeniuta variants have the same tensors.
//!
//! The normalisations are detected from the names. Without gains and shifts (`learnable` false) this is
//! impossible; then [`load`] into a module with your own config.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use burn::tensor::Device;
use recurrent_core::GateLayout;

use super::layers;
use crate::cells::{
    GateWeights, LayerNormLstmCell, LayerNormLstmConfig, LstmCell, LstmConfig, SlowLstmCell,
    SlowLstmConfig, StateUpdate,
};
use crate::import::{ImportError, Layout, Mapping, Piece, Tensors, count, load, matrix, part};
use crate::{LayerNormLstm, Lstm, Norm, NormConfig, SlowLstm};

/// The layout of lstms.pth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LstmsPth {
    /// One of its cells: no prefix.
    Single,
    /// `MultiLayerLSTM`: `params.{l}.` before each name.
    MultiLayer,
}

/// Detects which of the two layouts a file has.
///
/// # Errors
/// If neither.
pub fn layout(file: &Tensors) -> Result<LstmsPth, ImportError> {
    let has = |prefix: &str| {
        let names = ["i2h.weight", "w_xi"];
        names
            .iter()
            .any(|n| file.get(&format!("{prefix}{n}")).is_some())
    };
    match (has(""), has("params.0.")) {
        (true, _) => Ok(LstmsPth::Single),
        (_, true) => Ok(LstmsPth::MultiLayer),
        _ => Err(ImportError::Missing {
            name: "i2h.weight".into(),
            expected: Vec::new(),
            hint: file.hint("i2h.weight"),
        }),
    }
}

impl LstmsPth {
    fn prefix(self, index: usize) -> Result<String, ImportError> {
        match self {
            Self::MultiLayer => Ok(format!("params.{index}.")),
            Self::Single if index == 0 => Ok(String::new()),
            Self::Single => Err(ImportError::unsupported(
                "one cell of lstms.pth is one layer; several are `LstmsPth::MultiLayer`",
            )),
        }
    }
}

/// Adds the conversion from the gate order of lstms.pth to ours.
fn packed(piece: Piece) -> Piece {
    piece.with_gates(GateLayout::LSTMS_PTH, GateLayout::LSTM)
}

fn no_projection(update: &StateUpdate) -> Result<(), ImportError> {
    if update.projection.is_some() || update.clip.is_some() {
        return Err(ImportError::unsupported(
            "lstms.pth has neither a projection (`d_proj`) nor a `clip`",
        ));
    }
    Ok(())
}

fn gates_mapping(
    mapping: &mut Mapping,
    gates: &GateWeights,
    [d_input, d_hidden]: [usize; 2],
    path: &str,
    prefix: &str,
) {
    let width = 4 * d_hidden;
    let weights = [
        ("weight_input", "i2h.weight", d_input),
        ("weight_hidden", "h2h.weight", d_hidden),
    ];
    for (ours, theirs, rows) in weights {
        let piece = Piece::transposed(format!("{prefix}{theirs}"), [width, rows]);
        mapping.one(format!("{path}gates.{ours}"), packed(piece));
    }
    let [input, hidden] =
        ["i2h.bias", "h2h.bias"].map(|b| packed(Piece::new(format!("{prefix}{b}"), [width])));
    if gates.bias.is_some() {
        mapping.sum(format!("{path}gates.bias"), [input, hidden]);
    } else if gates.bias_input.is_some() {
        mapping.one(format!("{path}gates.bias_input"), input);
        mapping.one(format!("{path}gates.bias_hidden"), hidden);
    }
}

fn norm_mapping(mapping: &mut Mapping, norm: &Option<Norm>, path: &str, name: &str, width: usize) {
    if norm.as_ref().is_none_or(|norm| norm.gain.is_none()) {
        return;
    }
    for (ours, theirs) in [("gain", "alpha"), ("shift", "beta")] {
        let piece = Piece::new(format!("{name}.{theirs}"), [1, width]);
        let piece = match name.ends_with("ln_cell") {
            true => piece,
            false => packed(piece),
        };
        mapping.one(format!("{path}.{ours}"), piece);
    }
}

impl Layout<Lstm> for LstmsPth {
    fn mapping(&self, module: &Lstm) -> Result<Mapping, ImportError> {
        layers(
            "lstms.pth",
            module,
            |mapping, cell: &LstmCell, path, index| {
                no_projection(&cell.update)?;
                let sizes = [cell.d_input, cell.d_hidden];
                gates_mapping(mapping, &cell.gates, sizes, path, &self.prefix(index)?);
                Ok(())
            },
        )
    }
}

impl Layout<LayerNormLstm> for LstmsPth {
    fn mapping(&self, module: &LayerNormLstm) -> Result<Mapping, ImportError> {
        let cell = |mapping: &mut Mapping, cell: &LayerNormLstmCell, path: &str, index| {
            no_projection(&cell.update)?;
            if cell.gates.bias.is_some() {
                return Err(ImportError::unsupported(
                    "lstms.pth normalises its biases with the pre-activations: `norm_bias` must be \
                     `NormBias::Inside` (`LayerNormLstmConfig::lstms_pth`)",
                ));
            }
            let prefix = self.prefix(index)?;
            let sizes = [cell.d_input, cell.d_hidden];
            gates_mapping(mapping, &cell.gates, sizes, path, &prefix);
            let norms = [
                ("gates.norm_input", "ln_i2h", &cell.gates.norm_input, 4),
                ("gates.norm_hidden", "ln_h2h", &cell.gates.norm_hidden, 4),
                ("update.norm_cell", "ln_cell", &cell.update.norm_cell, 1),
            ];
            for (ours, theirs, norm, blocks) in norms {
                let (path, name) = (format!("{path}{ours}"), format!("{prefix}{theirs}"));
                norm_mapping(mapping, norm, &path, &name, blocks * cell.d_hidden);
            }
            Ok(())
        };
        layers("lstms.pth", module, cell)
    }
}

impl Layout<SlowLstm> for LstmsPth {
    fn mapping(&self, module: &SlowLstm) -> Result<Mapping, ImportError> {
        let cell = |mapping: &mut Mapping, cell: &SlowLstmCell, path: &str, index| {
            no_projection(&cell.update)?;
            if cell.d_input != cell.d_hidden {
                return Err(ImportError::unsupported(format!(
                    "SlowLSTM of lstms.pth works only with as many inputs as units, got {} inputs \
                     and {} units",
                    cell.d_input, cell.d_hidden
                )));
            }
            let prefix = self.prefix(index)?;
            let gates = [
                ("i", "input_gate", &cell.input_gate),
                ("f", "forget_gate", &cell.forget_gate),
                ("c", "cell_gate", &cell.cell_gate),
                ("o", "output_gate", &cell.output_gate),
            ];
            let size = cell.d_hidden;
            for (letter, name, gate) in gates {
                let of = |part: &str| format!("{path}{name}.{part}");
                mapping.one(
                    of("input_transform.weight"),
                    Piece::new(format!("{prefix}w_x{letter}"), [size, size]),
                );
                mapping.one(
                    of("hidden_transform.weight"),
                    Piece::new(format!("{prefix}w_h{letter}"), [size, size]),
                );
                if gate.input_transform.bias.is_some() {
                    mapping.one(
                        of("input_transform.bias"),
                        Piece::new(format!("{prefix}b_{letter}"), [size]),
                    );
                }
            }
            Ok(())
        };
        layers("lstms.pth", module, cell)
    }
}

/// Input size, units of each layer, and whether there are biases.
fn sizes(
    file: &Tensors,
    input: &str,
    hidden: &str,
    bias: &str,
    gates: usize,
) -> Result<(usize, Vec<usize>, bool), ImportError> {
    let layout = layout(file)?;
    let layers = match layout {
        LstmsPth::Single => 1,
        LstmsPth::MultiLayer => count(file, &format!("params.0.{input}"), |name| {
            let (number, rest) = name.strip_prefix("params.")?.split_once('.')?;
            (rest == input).then(|| number.parse().ok())?
        })?,
    };
    let mut sizes = Vec::new();
    for index in 0..layers {
        sizes.push(part(
            file,
            &format!("{}{hidden}", layout.prefix(index)?),
            0,
            gates,
        )?);
    }
    let first = layout.prefix(0)?;
    let [_, d_input] = matrix(file, &format!("{first}{input}"))?;
    let has_bias = file.get(&format!("{first}{bias}")).is_some();
    Ok((d_input, sizes, has_bias))
}

/// Sizes and biases of an `LSTM`, `GalLSTM`, `MoonLSTM` or `SemeniutaLSTM`.
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    let (d_input, sizes, bias) = sizes(file, "i2h.weight", "h2h.weight", "i2h.bias", 4)?;
    let config = LstmConfig::stacked(d_input, sizes).with_bias(bias);
    config.validate()?;
    Ok(config)
}

/// Sizes and biases of a `SlowLSTM`.
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn slow_config(file: &Tensors) -> Result<SlowLstmConfig, ImportError> {
    let (d_input, sizes, bias) = sizes(file, "w_xi", "w_hi", "b_i", 1)?;
    let config = SlowLstmConfig::stacked(d_input, sizes).with_bias(bias);
    config.validate()?;
    Ok(config)
}

/// Sizes, biases and normalisations of a layer-normalised variant.
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn layer_norm_config(file: &Tensors) -> Result<LayerNormLstmConfig, ImportError> {
    let (d_input, sizes, bias) = sizes(file, "i2h.weight", "h2h.weight", "i2h.bias", 4)?;
    let prefix = layout(file)?.prefix(0)?;
    // The cell is always normalised. The other normalisations show in the names only if they have gains.
    let learnable = file.get(&format!("{prefix}ln_cell.alpha")).is_some();
    let norm = NormConfig::lstms_pth().with_learnable(learnable);
    let preactivations = file.get(&format!("{prefix}ln_i2h.alpha")).is_some() || !learnable;
    let norm_preact = preactivations.then(|| norm.clone());
    let last = sizes.last().copied().unwrap_or_default();
    let config = LayerNormLstmConfig::lstms_pth(d_input, last)
        .with_num_layers(sizes.len())
        .with_layer_sizes(Some(sizes))
        .with_norm_input(norm_preact.clone())
        .with_norm_hidden(norm_preact)
        .with_norm_cell(Some(norm))
        .with_bias(bias);
    config.validate()?;
    Ok(config)
}

/// An `LSTM`, `GalLSTM`, `MoonLSTM` or `SemeniutaLSTM`; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`config`] and [`load`].
pub fn lstm(file: &Tensors, device: &Device) -> Result<Lstm, ImportError> {
    load(&layout(file)?, config(file)?.try_init(device)?, file)
}

/// A `SlowLSTM`; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`slow_config`] and [`load`].
pub fn slow_lstm(file: &Tensors, device: &Device) -> Result<SlowLstm, ImportError> {
    load(&layout(file)?, slow_config(file)?.try_init(device)?, file)
}

/// A layer-normalised variant; its sizes are inferred from the tensors.
///
/// # Errors
/// As [`layer_norm_config`] and [`load`].
pub fn layer_norm_lstm(file: &Tensors, device: &Device) -> Result<LayerNormLstm, ImportError> {
    let module = layer_norm_config(file)?.try_init(device)?;
    load(&layout(file)?, module, file)
}

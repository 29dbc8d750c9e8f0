//! `burn::nn::Lstm` and `burn::nn::BiLstm`, both ways: module to module, and their records.
//!
//! | parameter | shape | ours |
//! |---|---|---|
//! | `{gate}.input_transform.weight` | `[I, H]` | the gate's columns of `weight_input` |
//! | `{gate}.hidden_transform.weight` | `[H, H]` | the gate's columns of `weight_hidden` |
//! | `{gate}.input_transform.bias`, `{gate}.hidden_transform.bias` | `[H]` | the gate's part of `bias`: their sum |
//!
//! `{gate}` is `input_gate`, `forget_gate` (absent with `input_forget`), `cell_gate` or `output_gate`;
//! a `BiLstm` puts `forward.` and `reverse.` before. What burn-nn couples with `input_forget` is
//! [`CifgLstm`] with [`Coupling::ForgetFromInput`].

use alloc::format;

use burn::nn::activation::Activation;
use burn::tensor::Device;
use recurrent_core::{Gate, GateLayout};

use super::{
    Entry, ImportError, Layout, Mapping, Piece, Tensors, load, load_mapping, matrix, parameters,
};
use crate::cells::{
    CifgLstmCell, CifgLstmConfig, Coupling, GateWeights, LstmCell, LstmConfig, StateUpdate,
};
use crate::{CifgLstm, Lstm, Stack};

/// The layout of burn-nn's LSTM modules.
#[derive(Debug, Clone, Copy, Default)]
pub struct BurnNn;

fn gate_name(gate: Gate) -> &'static str {
    match gate {
        Gate::Input => "input_gate",
        Gate::Forget => "forget_gate",
        Gate::Candidate => "cell_gate",
        Gate::Output => "output_gate",
        other => unreachable!("no plain or coupled LSTM has a {other:?} gate"),
    }
}

fn cell_mapping(
    mapping: &mut Mapping,
    (gates, update): (&GateWeights, &StateUpdate),
    layout: GateLayout,
    [d_input, d_hidden]: [usize; 2],
    [path, prefix]: [&str; 2],
) -> Result<(), ImportError> {
    let norms = gates.norm_input.is_some() || gates.norm_hidden.is_some();
    if update.projection.is_some() || update.norm_cell.is_some() || norms {
        return Err(ImportError::unsupported(
            "burn-nn's LSTM has neither a projection (`d_proj`) nor normalisations",
        ));
    }
    let name = |gate: Gate, part: &str| format!("{prefix}{}.{part}", gate_name(gate));
    let weights = [
        ("weight_input", "input_transform.weight", d_input),
        ("weight_hidden", "hidden_transform.weight", d_hidden),
    ];
    for (ours, theirs, rows) in weights {
        let piece = |&gate: &Gate| Piece::new(name(gate, theirs), [rows, d_hidden]);
        mapping.columns(
            format!("{path}gates.{ours}"),
            layout.gates().iter().map(piece),
        );
    }
    if gates.bias.is_some() {
        let sum = |&gate: &Gate| {
            ["input_transform.bias", "hidden_transform.bias"]
                .map(|bias| Piece::new(name(gate, bias), [d_hidden]))
                .to_vec()
        };
        mapping.push(
            format!("{path}gates.bias"),
            layout.gates().iter().map(sum).collect(),
        );
    }
    Ok(())
}

impl Layout<LstmCell> for BurnNn {
    fn mapping(&self, cell: &LstmCell) -> Result<Mapping, ImportError> {
        let mut mapping = Mapping::default();
        let sizes = [cell.d_input, cell.d_hidden];
        let parts = (&cell.gates, &cell.update);
        cell_mapping(&mut mapping, parts, GateLayout::LSTM, sizes, ["", ""])?;
        Ok(mapping)
    }
}

impl Layout<CifgLstmCell> for BurnNn {
    fn mapping(&self, cell: &CifgLstmCell) -> Result<Mapping, ImportError> {
        if cell.coupling != Coupling::ForgetFromInput {
            return Err(ImportError::unsupported(format!(
                "burn-nn couples the gates as f = 1 − i (`Coupling::ForgetFromInput`), got {:?}",
                cell.coupling
            )));
        }
        let mut mapping = Mapping::default();
        let sizes = [cell.d_input, cell.d_hidden];
        let parts = (&cell.gates, &cell.update);
        cell_mapping(&mut mapping, parts, cell.coupling.layout(), sizes, ["", ""])?;
        Ok(mapping)
    }
}

/// One layer in one or both directions.
fn stack_mapping<C: crate::Cell>(
    stack: &Stack<C>,
    cell: impl Fn(&C) -> Result<Mapping, ImportError>,
) -> Result<Mapping, ImportError> {
    let [layer] = &stack.layers[..] else {
        return Err(ImportError::unsupported(format!(
            "burn-nn's LSTM has one layer, got {}; convert each of `stack.layers` on its own",
            stack.layers.len()
        )));
    };
    let passes = match &layer.backward {
        None => alloc::vec![(&layer.forward, "layers.0.forward.", "")],
        Some(backward) => alloc::vec![
            (&layer.forward, "layers.0.forward.", "forward."),
            (backward, "layers.0.backward.", "reverse."),
        ],
    };
    let mut mapping = Mapping::default();
    for (module, path, prefix) in passes {
        for mut entry in cell(module)?.entries {
            entry.param.insert_str(0, path);
            for piece in entry.blocks.iter_mut().flatten() {
                piece.name.insert_str(0, prefix);
            }
            mapping.entries.push(entry);
        }
    }
    Ok(mapping)
}

impl Layout<Lstm> for BurnNn {
    fn mapping(&self, module: &Lstm) -> Result<Mapping, ImportError> {
        stack_mapping(module, |cell| self.mapping(cell))
    }
}

impl Layout<CifgLstm> for BurnNn {
    fn mapping(&self, module: &CifgLstm) -> Result<Mapping, ImportError> {
        stack_mapping(module, |cell| self.mapping(cell))
    }
}

/// Sizes, directions and biases of a record of either module.
///
/// # Errors
/// If a name is missing, a shape makes no sense, or the gates are coupled (no `forget_gate`): see
/// [`coupled_config`].
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    let ([d_input, d_hidden], bidirectional, bias) = sizes(file)?;
    let config = LstmConfig::new(d_input, d_hidden)
        .with_bidirectional(bidirectional)
        .with_bias(bias);
    config.validate()?;
    Ok(config)
}

/// [`config`] of a record of coupled gates (`input_forget`).
///
/// # Errors
/// If a name is missing or a shape makes no sense.
pub fn coupled_config(file: &Tensors) -> Result<CifgLstmConfig, ImportError> {
    let ([d_input, d_hidden], bidirectional, bias) = sizes(file)?;
    let config = CifgLstmConfig::new(d_input, d_hidden)
        .with_coupling(Coupling::ForgetFromInput)
        .with_bidirectional(bidirectional)
        .with_bias(bias);
    config.validate()?;
    Ok(config)
}

/// Whether a record has coupled gates.
pub(crate) fn is_coupled(file: &Tensors) -> bool {
    let has = |gate: &str| {
        let names = ["", "forward."];
        names.iter().any(|p| {
            file.get(&format!("{p}{gate}.input_transform.weight"))
                .is_some()
        })
    };
    has("input_gate") && !has("forget_gate")
}

fn sizes(file: &Tensors) -> Result<([usize; 2], bool, bool), ImportError> {
    let bidirectional = file.names().any(|name| name.starts_with("reverse."));
    let prefix = if bidirectional { "forward." } else { "" };
    let name = |part: &str| format!("{prefix}input_gate.{part}");
    let sizes = matrix(file, &name("input_transform.weight"))?;
    let bias = file.get(&name("input_transform.bias")).is_some();
    Ok((sizes, bidirectional, bias))
}

/// burn-nn's settings that decide what is computed.
fn settings(lstm: &burn::nn::Lstm) -> Result<(), ImportError> {
    let usual = matches!(lstm.gate_activation, Activation::Sigmoid(_))
        && matches!(lstm.cell_activation, Activation::Tanh(_))
        && matches!(lstm.hidden_activation, Activation::Tanh(_));
    if !usual {
        return Err(ImportError::unsupported(
            "burn-nn's LSTM has other activations than sigmoid, tanh, tanh, which ours are",
        ));
    }
    Ok(())
}

/// The coupling of a module of burn-nn must be that of the type it becomes.
fn check_coupled(lstm: &burn::nn::Lstm, coupled: bool) -> Result<(), ImportError> {
    settings(lstm)?;
    match (lstm.input_forget, coupled) {
        (true, false) => Err(ImportError::unsupported(
            "burn-nn's LSTM has coupled gates (`input_forget`); use `from_coupled`",
        )),
        (false, true) => Err(ImportError::unsupported(
            "burn-nn's LSTM has no coupled gates (`input_forget`); use `from_lstm`",
        )),
        _ => Ok(()),
    }
}

/// A `burn::nn::Lstm` as ours: same weights, same numbers.
///
/// # Errors
/// If its gates are coupled (see [`from_coupled`]) or its activations are not sigmoid and tanh.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::import::burn_nn;
///
/// let device = Device::flex();
/// let theirs = burn::nn::LstmConfig::new(3, 4, true).init(&device);
/// let ours = burn_nn::from_lstm(&theirs, &device)?;
/// let x = Tensor::<3>::ones([2, 5, 3], &device);
/// let (a, b) = (theirs.forward(x.clone(), None).0, ours.forward(x, None).0);
/// assert!((a - b).abs().max().into_scalar::<f32>() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn from_lstm(lstm: &burn::nn::Lstm, device: &Device) -> Result<Lstm, ImportError> {
    check_coupled(lstm, false)?;
    let file = Tensors::of(lstm);
    let config = config(&file)?
        .with_batch_first(lstm.batch_first)
        .with_reverse(lstm.reverse)
        .with_clip(lstm.clip);
    load(&BurnNn, config.try_init(device)?, &file)
}

/// A `burn::nn::Lstm` with `input_forget` as ours.
///
/// # Errors
/// If its gates are not coupled or its activations are not sigmoid and tanh.
pub fn from_coupled(lstm: &burn::nn::Lstm, device: &Device) -> Result<CifgLstm, ImportError> {
    check_coupled(lstm, true)?;
    let file = Tensors::of(lstm);
    let config = coupled_config(&file)?
        .with_batch_first(lstm.batch_first)
        .with_reverse(lstm.reverse)
        .with_clip(lstm.clip);
    load(&BurnNn, config.try_init(device)?, &file)
}

/// A `burn::nn::BiLstm` as ours.
///
/// # Errors
/// If its gates are coupled or its activations are not sigmoid and tanh.
pub fn from_bilstm(lstm: &burn::nn::BiLstm, device: &Device) -> Result<Lstm, ImportError> {
    check_coupled(&lstm.forward, false)?;
    check_coupled(&lstm.reverse, false)?;
    let file = Tensors::of(lstm);
    let config = config(&file)?
        .with_batch_first(lstm.batch_first)
        .with_clip(lstm.forward.clip);
    load(&BurnNn, config.try_init(device)?, &file)
}

/// One layer in one direction as a `burn::nn::Lstm`.
///
/// # Errors
/// If there are more layers or directions, a projection or residual connections.
pub fn to_lstm(lstm: &Lstm, device: &Device) -> Result<burn::nn::Lstm, ImportError> {
    let cell = &lstm.layers[0].forward;
    if lstm.directions() > 1 {
        return Err(ImportError::unsupported(
            "a bidirectional LSTM is a BiLstm of burn-nn: use `to_bilstm`",
        ));
    }
    let module = burn::nn::LstmConfig::new(cell.d_input, cell.d_hidden, cell.gates.bias.is_some())
        .with_batch_first(lstm.batch_first)
        .with_reverse(lstm.reverse)
        .with_clip(cell.update.clip)
        .init(device);
    fill(lstm, module)
}

/// One layer in both directions as a `burn::nn::BiLstm`.
///
/// # Errors
/// If there are more layers or one direction, a projection or residual connections.
pub fn to_bilstm(lstm: &Lstm, device: &Device) -> Result<burn::nn::BiLstm, ImportError> {
    let cell = &lstm.layers[0].forward;
    if lstm.directions() < 2 {
        return Err(ImportError::unsupported(
            "an LSTM of one direction is an Lstm of burn-nn: use `to_lstm`",
        ));
    }
    let bias = cell.gates.bias.is_some();
    let module = burn::nn::BiLstmConfig::new(cell.d_input, cell.d_hidden, bias)
        .with_batch_first(lstm.batch_first)
        .with_clip(cell.update.clip)
        .init(device);
    fill(lstm, module)
}

/// Our weights in a module of burn-nn, whose paths are the names of the layout.
fn fill<M: burn::module::Module>(lstm: &Lstm, module: M) -> Result<M, ImportError> {
    let mapping = BurnNn.mapping(lstm)?;
    let file = mapping.write(parameters(lstm))?;
    let mut identity = Mapping::default();
    for (name, tensor) in file.iter() {
        identity.entries.push(Entry {
            param: name.into(),
            blocks: alloc::vec![alloc::vec![Piece::new(name, tensor.shape())]],
        });
    }
    load_mapping(&identity, module, &file)
}

//! `burn::nn::Lstm`, `BiLstm`, `Gru` and `BiGru`, both ways: module to module, and their records.
//!
//! | parameter | shape | ours |
//! |---|---|---|
//! | `{gate}.input_transform.weight` | `[I, H]` | the gate's columns of `weight_input` |
//! | `{gate}.hidden_transform.weight` | `[H, H]` | the gate's columns of `weight_hidden` |
//! | `{gate}.input_transform.bias`, `{gate}.hidden_transform.bias` | `[H]` | the gate's part of `bias`: their sum |
//!
//! `{gate}` is `input_gate`, `forget_gate` (absent with `input_forget`), `cell_gate` or `output_gate`;
//! in a `BiLstm` with the prefix `forward.` or `reverse.`. An LSTM with `input_forget` is a
//! [`CifgLstm`] with [`Coupling::ForgetFromInput`].
//!
//! The GRU's gates are `reset_gate`, `update_gate` and `new_gate`. With `reset_after` the bias of
//! `new_gate.hidden_transform` is `bias_candidate_hidden`, since the reset gate multiplies it; all other pairs of biases
//! are summed.

use alloc::format;

use burn::nn::activation::Activation;
use burn::tensor::Device;
use recurrent_core::{Gate, GateLayout};

use super::gru::{Side, two_biases};
use super::{
    Entry, ImportError, Layout, Mapping, Piece, Tensors, load, load_mapping, matrix, parameters,
};
use crate::cells::{
    CifgLstmCell, CifgLstmConfig, Coupling, GateWeights, GruCell, LstmCell, LstmConfig, StateUpdate,
};
use crate::{CifgLstm, Gru, GruConfig, Lstm, Stack, StackConfig};

/// The layout of burn-nn's LSTM and GRU modules.
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

impl Layout<GruCell> for BurnNn {
    fn mapping(&self, cell: &GruCell) -> Result<Mapping, ImportError> {
        let gate_name = |gate: Gate| match gate {
            Gate::Reset => "reset_gate",
            Gate::Update => "update_gate",
            Gate::Candidate => "new_gate",
            other => unreachable!("no GRU has a {other:?} gate"),
        };
        let d_hidden = cell.d_hidden;
        let mut mapping = Mapping::default();
        for (ours, theirs, rows) in [
            ("weight_input", "input_transform", cell.d_input),
            ("weight_hidden", "hidden_transform", d_hidden),
        ] {
            let piece = |&gate: &Gate| {
                let name = format!("{}.{theirs}.weight", gate_name(gate));
                Piece::new(name, [rows, d_hidden])
            };
            mapping.columns(ours, GateLayout::GRU.gates().iter().map(piece));
        }
        two_biases(&mut mapping, cell, "", |side, gate| {
            let transform = match side {
                Side::Input => "input_transform",
                Side::Hidden => "hidden_transform",
            };
            Piece::new(format!("{}.{transform}.bias", gate_name(gate)), [d_hidden])
        })?;
        Ok(mapping)
    }
}

/// One layer in one or both directions.
fn stack_mapping<C: crate::Cell>(
    kind: &str,
    stack: &Stack<C>,
    cell: impl Fn(&C) -> Result<Mapping, ImportError>,
) -> Result<Mapping, ImportError> {
    let [layer] = &stack.layers[..] else {
        return Err(ImportError::unsupported(format!(
            "burn-nn's {kind} has one layer, got {}; convert each of `stack.layers` on its own",
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
        stack_mapping("LSTM", module, |cell| self.mapping(cell))
    }
}

impl Layout<CifgLstm> for BurnNn {
    fn mapping(&self, module: &CifgLstm) -> Result<Mapping, ImportError> {
        stack_mapping("LSTM", module, |cell| self.mapping(cell))
    }
}

impl Layout<Gru> for BurnNn {
    fn mapping(&self, module: &Gru) -> Result<Mapping, ImportError> {
        stack_mapping("GRU", module, |cell| self.mapping(cell))
    }
}

/// Sizes, directions and biases of a record of either module.
///
/// # Errors
/// If a name is missing, a shape is invalid, the gates are coupled (no `forget_gate`; use
/// [`coupled_config`]), or it is a GRU (use [`gru_config`]).
pub fn config(file: &Tensors) -> Result<LstmConfig, ImportError> {
    let ([d_input, d_hidden], bidirectional, bias) = lstm_sizes(file)?;
    let config = LstmConfig::new(d_input, d_hidden)
        .with_bidirectional(bidirectional)
        .with_bias(bias);
    config.validate()?;
    Ok(config)
}

/// [`config`] of a record of coupled gates (`input_forget`).
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn coupled_config(file: &Tensors) -> Result<CifgLstmConfig, ImportError> {
    let ([d_input, d_hidden], bidirectional, bias) = lstm_sizes(file)?;
    let config = CifgLstmConfig::new(d_input, d_hidden)
        .with_coupling(Coupling::ForgetFromInput)
        .with_bidirectional(bidirectional)
        .with_bias(bias);
    config.validate()?;
    Ok(config)
}

/// Sizes, directions and biases of a record of a `Gru` or a `BiGru`.
///
/// # Arguments
/// * `reset_after` - the module's setting of that name, which a record does not contain
///
/// # Errors
/// If a name is missing or a shape is invalid.
pub fn gru_config(file: &Tensors, reset_after: bool) -> Result<GruConfig, ImportError> {
    let ([d_input, d_hidden], bidirectional, bias) = sizes(file, "reset_gate")?;
    let config = GruConfig::new(d_input, d_hidden)
        .with_bidirectional(bidirectional)
        .with_bias(bias)
        .with_reset_after(reset_after);
    config.validate()?;
    Ok(config)
}

/// Whether a record has a gate of that name, in one or two directions.
fn has_gate(file: &Tensors, gate: &str) -> bool {
    ["", "forward."].iter().any(|prefix| {
        let name = format!("{prefix}{gate}.input_transform.weight");
        file.get(&name).is_some()
    })
}

/// Whether a record has coupled gates.
pub(crate) fn is_coupled(file: &Tensors) -> bool {
    has_gate(file, "input_gate") && !has_gate(file, "forget_gate")
}

/// Whether a record is that of a GRU.
pub(crate) fn is_gru(file: &Tensors) -> bool {
    has_gate(file, "reset_gate")
}

/// Whether a record is that of any of the modules.
pub(crate) fn is_record(file: &Tensors) -> bool {
    has_gate(file, "input_gate") || is_gru(file)
}

fn lstm_sizes(file: &Tensors) -> Result<([usize; 2], bool, bool), ImportError> {
    match is_gru(file) {
        true => Err(ImportError::unsupported(
            "the file has a `reset_gate`, which is a GRU's; expected an LSTM's gates `input_gate`, \
             `cell_gate`, `output_gate` and, not coupled, `forget_gate`",
        )),
        false => sizes(file, "input_gate"),
    }
}

fn sizes(file: &Tensors, gate: &str) -> Result<([usize; 2], bool, bool), ImportError> {
    let bidirectional = file.names().any(|name| name.starts_with("reverse."));
    let prefix = if bidirectional { "forward." } else { "" };
    let name = |part: &str| format!("{prefix}{gate}.{part}");
    let sizes = matrix(file, &name("input_transform.weight"))?;
    let bias = file.get(&name("input_transform.bias")).is_some();
    Ok((sizes, bidirectional, bias))
}

/// Settings of burn-nn's LSTM that change its results.
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

/// Checks that the coupling of a burn-nn module is that of the target type.
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

/// Converts a `burn::nn::Lstm`: same weights, same results.
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

/// Converts a `burn::nn::Lstm` with `input_forget`.
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

/// Converts a `burn::nn::BiLstm`.
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

/// Puts our weights into a burn-nn module, whose paths are the names of the layout.
fn fill<O, M>(ours: &O, module: M) -> Result<M, ImportError>
where
    O: burn::module::Module,
    M: burn::module::Module,
    BurnNn: Layout<O>,
{
    let mapping = BurnNn.mapping(ours)?;
    let file = mapping.write(parameters(ours))?;
    let mut identity = Mapping::default();
    for (name, tensor) in file.iter() {
        identity.entries.push(Entry {
            param: name.into(),
            blocks: alloc::vec![alloc::vec![Piece::new(name, tensor.shape())]],
        });
    }
    load_mapping(&identity, module, &file)
}

/// Settings of burn-nn's GRU that change its results.
fn gru_settings(gru: &burn::nn::gru::Gru) -> Result<(), ImportError> {
    let usual = matches!(gru.gate_activation, Activation::Sigmoid(_))
        && matches!(gru.hidden_activation, Activation::Tanh(_));
    if !usual {
        return Err(ImportError::unsupported(
            "burn-nn's GRU has other activations than sigmoid and tanh, which ours are",
        ));
    }
    match gru.clip {
        Some(clip) => Err(ImportError::unsupported(format!(
            "burn-nn's GRU clips its hidden state (`clip` = {clip}); ours has no clip"
        ))),
        None => Ok(()),
    }
}

/// A module's weights in a stack of one layer.
fn gru(
    file: &Tensors,
    stack: StackConfig,
    reset_after: bool,
    device: &Device,
) -> Result<Gru, ImportError> {
    let first = if stack.bidirectional { "forward." } else { "" };
    let bias = file.get(&format!("{first}reset_gate.input_transform.bias"));
    let mut config = GruConfig::new(stack.d_input, stack.d_hidden)
        .with_bias(bias.is_some())
        .with_reset_after(reset_after);
    config.stack = stack;
    load(&BurnNn, config.try_init(device)?, file)
}

/// Converts a `burn::nn::gru::Gru`: same weights, same results.
///
/// # Errors
/// If its activations are not sigmoid and tanh, or it has a clip.
///
/// # Example
/// ```
/// use burn::nn::gru::GruConfig;
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::import::burn_nn;
///
/// let device = Device::flex();
/// let theirs = GruConfig::new(3, 4, true).init(&device);
/// let ours = burn_nn::from_gru(&theirs, &device)?;
/// let x = Tensor::<3>::ones([2, 5, 3], &device);
/// let (a, b) = (theirs.forward(x.clone(), None), ours.forward(x, None).0);
/// assert!((a - b).abs().max().into_scalar::<f32>() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn from_gru(module: &burn::nn::gru::Gru, device: &Device) -> Result<Gru, ImportError> {
    gru_settings(module)?;
    let file = Tensors::of(module);
    let [d_input, d_hidden] = matrix(&file, "reset_gate.input_transform.weight")?;
    let stack = StackConfig::new(d_input, d_hidden);
    gru(&file, stack, module.reset_after, device)
}

/// Converts a `burn::nn::gru::BiGru`.
///
/// # Errors
/// If its activations are not sigmoid and tanh, it has a clip, or `reset_after` differs between the
/// directions.
pub fn from_bigru(module: &burn::nn::gru::BiGru, device: &Device) -> Result<Gru, ImportError> {
    gru_settings(&module.forward)?;
    gru_settings(&module.reverse)?;
    let reset_after = module.forward.reset_after;
    if module.reverse.reset_after != reset_after {
        return Err(ImportError::unsupported(format!(
            "burn-nn's GRU has `reset_after` = {reset_after} forward and {} in reverse, expected the same",
            module.reverse.reset_after
        )));
    }
    let file = Tensors::of(module);
    let [d_input, d_hidden] = matrix(&file, "forward.reset_gate.input_transform.weight")?;
    let stack = StackConfig::new(d_input, d_hidden)
        .with_bidirectional(true)
        .with_batch_first(module.batch_first);
    gru(&file, stack, reset_after, device)
}

/// One layer in one direction as a `burn::nn::gru::Gru`.
///
/// # Errors
/// If there are more layers or directions, the direction is backward, or `batch_first` is false: burn-nn has
/// no setting for the last two.
pub fn to_gru(gru: &Gru, device: &Device) -> Result<burn::nn::gru::Gru, ImportError> {
    if gru.directions() > 1 {
        return Err(ImportError::unsupported(
            "a bidirectional GRU is a BiGru of burn-nn: use `to_bigru`",
        ));
    }
    if gru.reverse || !gru.batch_first {
        return Err(ImportError::unsupported(format!(
            "burn-nn's GRU runs forward over batches that come first, got `reverse` = {}, `batch_first` = {}",
            gru.reverse, gru.batch_first
        )));
    }
    let cell = &gru.layers[0].forward;
    let module = burn::nn::gru::GruConfig::new(cell.d_input, cell.d_hidden, cell.bias.is_some())
        .with_reset_after(cell.reset_after)
        .init(device);
    fill(gru, module)
}

/// One layer in both directions as a `burn::nn::gru::BiGru`.
///
/// # Errors
/// If there are more layers or one direction.
pub fn to_bigru(gru: &Gru, device: &Device) -> Result<burn::nn::gru::BiGru, ImportError> {
    if gru.directions() < 2 {
        return Err(ImportError::unsupported(
            "a GRU of one direction is a Gru of burn-nn: use `to_gru`",
        ));
    }
    let cell = &gru.layers[0].forward;
    let module = burn::nn::gru::BiGruConfig::new(cell.d_input, cell.d_hidden, cell.bias.is_some())
        .with_reset_after(cell.reset_after)
        .with_batch_first(gru.batch_first)
        .init(device);
    fill(gru, module)
}

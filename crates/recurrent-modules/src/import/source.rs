//! The layout chosen at run time.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Display, Formatter, Result as FmtResult};
use core::str::FromStr;

use burn::config::Config;
use burn::tensor::Device;

use super::burn_nn::{self, BurnNn};
use super::originals::{alstm, haste, keras, lamb, lstms_pth, mogrifier, ur_lstm};
use super::pytorch::{self, TorchGru, TorchLstm};
use super::{ExportError, ImportError, Layout, Mapping, Piece, Tensors};
use crate::cells::PolicyLayout;
use crate::{Recurrent, RecurrentConfig};

/// The layouts that can be chosen at run time.
///
/// # Example
/// ```
/// use burn::tensor::Device;
/// use recurrent_modules::import::{Source, SourceOptions};
/// use recurrent_modules::{LstmConfig, RecurrentConfig};
///
/// let device = Device::flex();
/// let model = RecurrentConfig::Lstm(LstmConfig::new(3, 4)).init(&device);
/// let tensors = Source::PyTorch.export(&model)?;
/// assert_eq!(Source::guess(&tensors), Some(Source::PyTorch));
/// let again = Source::PyTorch.load(&tensors, &SourceOptions::default(), &device)?;
/// assert_eq!(again.d_output(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Our own paths, with the config in the metadata.
    Recurrent,
    /// [`pytorch`].
    PyTorch,
    /// [`burn_nn`].
    BurnNn,
    /// [`ur_lstm`].
    UrLstm,
    /// [`lstms_pth`].
    LstmsPth,
    /// [`alstm`].
    Alstm,
    /// [`mogrifier`].
    Mogrifier,
    /// [`lamb`].
    Lamb,
    /// [`haste`].
    Haste,
    /// [`keras`].
    Keras,
}

/// Settings that cannot be inferred from the tensors of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceOptions {
    /// The variant's name as in [`RecurrentConfig::name`]. Needed if a source has several variants with the same
    /// tensor names; otherwise checked against the variant that was detected.
    pub variant: Option<String>,
    /// Rounds of the Mogrifier notebook.
    pub rounds: usize,
    /// Offsets of the parts of alstm's policy.
    pub policy: PolicyLayout,
    /// Whether a GRU's reset gate acts after the product with R_n. Used for burn-nn, and for Keras without biases, where
    /// the tensors do not show it.
    pub reset_after: bool,
}

impl Default for SourceOptions {
    /// 5 rounds, as in the notebook; a policy without overlap, as in the paper; a reset gate that acts after
    /// the product, as is the default of burn-nn and Keras.
    fn default() -> Self {
        Self {
            variant: None,
            rounds: 5,
            policy: PolicyLayout::Cumulative,
            reset_after: true,
        }
    }
}

/// Metadata of a file in our own layout: the [`RecurrentConfig`] as JSON.
pub(crate) const CONFIG_KEY: &str = "recurrent_config";

impl Source {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Recurrent,
        Self::PyTorch,
        Self::BurnNn,
        Self::UrLstm,
        Self::LstmsPth,
        Self::Alstm,
        Self::Mogrifier,
        Self::Lamb,
        Self::Haste,
        Self::Keras,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recurrent => "recurrent",
            Self::PyTorch => "pytorch",
            Self::BurnNn => "burn-nn",
            Self::UrLstm => "ur-lstm",
            Self::LstmsPth => "lstms-pth",
            Self::Alstm => "alstm",
            Self::Mogrifier => "mogrifier",
            Self::Lamb => "lamb",
            Self::Haste => "haste",
            Self::Keras => "keras",
        }
    }

    /// Detects the source from the tensor names. `None` for an LSTM of Keras or haste: both use the same names with
    /// different gate orders. A GRU of haste has a `recurrent_bias`, one of Keras does not.
    pub fn guess(file: &Tensors) -> Option<Self> {
        let has = |name: &str| file.get(name).is_some();
        let starts = |prefix: &str| file.names().any(|name| name.starts_with(prefix));
        if file.metadata().contains_key(CONFIG_KEY) {
            return Some(Self::Recurrent);
        }
        let found = [
            (Self::PyTorch, has("weight_ih_l0")),
            (Self::BurnNn, burn_nn::is_record(file)),
            (Self::UrLstm, has("layers.0.igates.weight")),
            (Self::LstmsPth, lstms_pth::layout(file).is_ok()),
            (Self::Alstm, starts("alstm_layers.")),
            (Self::Mogrifier, has("Wih") && has("Whh")),
            (Self::Lamb, has("tiled_linear/W")),
            (
                Self::Keras,
                has("kernel") && keras::is_gru(file) && !has("recurrent_bias"),
            ),
        ];
        found
            .into_iter()
            .find_map(|(source, found)| found.then_some(source))
    }

    /// The config inferred from the tensors.
    ///
    /// # Errors
    /// If a name is missing or a shape is invalid; also if `options.variant` is another one.
    pub fn config(
        self,
        file: &Tensors,
        options: &SourceOptions,
    ) -> Result<RecurrentConfig, ImportError> {
        let wanted = options.variant.as_deref();
        let config = match self {
            Self::Recurrent => own_config(file)?,
            Self::PyTorch if pytorch::is_gru(file) => {
                RecurrentConfig::Gru(pytorch::gru_config(file)?)
            }
            Self::PyTorch => RecurrentConfig::Lstm(pytorch::config(file)?),
            Self::BurnNn if burn_nn::is_gru(file) => {
                RecurrentConfig::Gru(burn_nn::gru_config(file, options.reset_after)?)
            }
            Self::BurnNn if burn_nn::is_coupled(file) => {
                RecurrentConfig::CifgLstm(burn_nn::coupled_config(file)?)
            }
            Self::BurnNn => RecurrentConfig::Lstm(burn_nn::config(file)?),
            Self::UrLstm => RecurrentConfig::UrLstm(ur_lstm::config(file)?),
            Self::LstmsPth => lstms_pth_config(file, wanted)?,
            Self::Alstm => RecurrentConfig::AdaptiveLstm(alstm::config(file, options.policy)?),
            Self::Mogrifier => {
                RecurrentConfig::MogrifierLstm(mogrifier::config(file, options.rounds)?)
            }
            Self::Lamb => RecurrentConfig::MogrifierLstm(lamb::config(file)?),
            Self::Haste => RecurrentConfig::Lstm(haste::config(file)?),
            Self::Keras if keras::is_gru(file) => {
                RecurrentConfig::Gru(keras::gru_config(file, options.reset_after)?)
            }
            Self::Keras => RecurrentConfig::Lstm(keras::config(file)?),
        };
        match wanted {
            Some(wanted) if wanted != config.name() => Err(ImportError::unsupported(format!(
                "the file holds a {} of {self}, not a {wanted}",
                config.name()
            ))),
            _ => Ok(config),
        }
    }

    /// How this source stores a model's parameters.
    ///
    /// # Errors
    /// If it cannot express the model.
    pub fn mapping(self, model: &Recurrent) -> Result<Mapping, ImportError> {
        match (self, model) {
            (Self::Recurrent, _) => Ok(own_mapping(model.shapes())),
            (Self::PyTorch, Recurrent::Lstm(stack)) => TorchLstm.mapping(stack),
            (Self::PyTorch, Recurrent::Gru(stack)) => TorchGru.mapping(stack),
            (Self::BurnNn, Recurrent::Lstm(stack)) => BurnNn.mapping(stack),
            (Self::BurnNn, Recurrent::CifgLstm(stack)) => BurnNn.mapping(stack),
            (Self::BurnNn, Recurrent::Gru(stack)) => BurnNn.mapping(stack),
            (Self::UrLstm, Recurrent::UrLstm(stack)) => ur_lstm::UrLstmOriginal.mapping(stack),
            (Self::LstmsPth, Recurrent::Lstm(stack)) => lstms(stack.layers.len()).mapping(stack),
            (Self::LstmsPth, Recurrent::SlowLstm(stack)) => {
                lstms(stack.layers.len()).mapping(stack)
            }
            (Self::LstmsPth, Recurrent::LayerNormLstm(stack)) => {
                lstms(stack.layers.len()).mapping(stack)
            }
            (Self::Alstm, Recurrent::AdaptiveLstm(stack)) => alstm::Alstm.mapping(stack),
            (Self::Mogrifier, Recurrent::MogrifierLstm(stack)) => {
                mogrifier::MogrifierNotebook.mapping(stack)
            }
            (Self::Lamb, Recurrent::MogrifierLstm(stack)) => lamb::Lamb.mapping(stack),
            (Self::Haste, Recurrent::Lstm(stack)) => haste::Haste.mapping(stack),
            (Self::Keras, Recurrent::Lstm(stack)) => keras::Keras.mapping(stack),
            (Self::Keras, Recurrent::Gru(stack)) => keras::Keras.mapping(stack),
            _ => Err(ImportError::unsupported(format!(
                "{self} has no layout for {}",
                RecurrentConfig::of(model).name()
            ))),
        }
    }

    /// [`mapping`](Self::mapping) for reading a file: lstms.pth has two ways to name a single layer.
    ///
    /// # Errors
    /// If it cannot express the model, or the file has another layout.
    pub fn mapping_of(&self, model: &Recurrent, file: &Tensors) -> Result<Mapping, ImportError> {
        if *self != Self::LstmsPth {
            return self.mapping(model);
        }
        let layout = lstms_pth::layout(file)?;
        match model {
            Recurrent::Lstm(stack) => layout.mapping(stack),
            Recurrent::SlowLstm(stack) => layout.mapping(stack),
            Recurrent::LayerNormLstm(stack) => layout.mapping(stack),
            _ => self.mapping(model),
        }
    }

    /// The model of a file.
    ///
    /// # Errors
    /// As [`config`](Self::config) and [`load`](super::load).
    pub fn load(
        self,
        file: &Tensors,
        options: &SourceOptions,
        device: &Device,
    ) -> Result<Recurrent, ImportError> {
        let config = self.config(file, options)?;
        let model = config.try_init(device)?;
        let mapping = self.mapping_of(&model, file)?;
        model.with_weights(&mapping, file)
    }

    /// A model's weights in this layout.
    ///
    /// # Errors
    /// If the layout cannot express the model.
    pub fn export(self, model: &Recurrent) -> Result<Tensors, ExportError> {
        if self == Self::Recurrent {
            let mut tensors = model.tensors();
            let config = RecurrentConfig::of(model).to_string();
            tensors.metadata.insert(CONFIG_KEY.to_string(), config);
            return Ok(tensors);
        }
        Ok(self.mapping(model)?.write(model.parameters())?)
    }
}

/// lstms.pth names a single layer without a prefix.
fn lstms(layers: usize) -> lstms_pth::LstmsPth {
    match layers {
        1 => lstms_pth::LstmsPth::Single,
        _ => lstms_pth::LstmsPth::MultiLayer,
    }
}

fn lstms_pth_config(file: &Tensors, variant: Option<&str>) -> Result<RecurrentConfig, ImportError> {
    let has = |part: &str| file.names().any(|name| name.ends_with(part));
    let found = match (has("w_xi"), has("ln_cell.alpha")) {
        (true, _) => "SlowLstm",
        (_, true) => "LayerNormLstm",
        _ => "Lstm",
    };
    match variant.unwrap_or(found) {
        "SlowLstm" => Ok(RecurrentConfig::SlowLstm(lstms_pth::slow_config(file)?)),
        "LayerNormLstm" => {
            let config = lstms_pth::layer_norm_config(file)?;
            Ok(RecurrentConfig::LayerNormLstm(config))
        }
        _ => Ok(RecurrentConfig::Lstm(lstms_pth::config(file)?)),
    }
}

/// The config in the metadata of a file of ours.
fn own_config(file: &Tensors) -> Result<RecurrentConfig, ImportError> {
    let json = file.metadata().get(CONFIG_KEY).ok_or_else(|| {
        ImportError::format(
            "recurrent",
            format!("its metadata has no `{CONFIG_KEY}`, which says what the tensors are"),
        )
    })?;
    let config = parse_config(json)?;
    check_size(&config, file)?;
    Ok(config)
}

/// A config from untrusted JSON.
pub(crate) fn parse_config(json: &str) -> Result<RecurrentConfig, ImportError> {
    RecurrentConfig::load_binary(json.as_bytes())
        .map_err(|error| ImportError::format("config", error.to_string()))
}

/// Rounds that share their matrices cost no weights, only time; the paper uses 5.
const MOST_ROUNDS: usize = 10_000;

/// Checks that the sizes in a file's config do not exceed what the file contains, since the module is built
/// before its parameters are compared with the tensors.
pub(crate) fn check_size(config: &RecurrentConfig, file: &Tensors) -> Result<(), ImportError> {
    // Each size is an axis of some tensor, and each layer and round has its own tensors.
    let largest = file
        .iter()
        .flat_map(|(_, tensor)| tensor.shape().iter().copied())
        .max()
        .unwrap_or(0);
    let [size, count] = config.largest();
    if let RecurrentConfig::MogrifierLstm(config) = config
        && config.rounds > MOST_ROUNDS
    {
        return Err(ImportError::format(
            "config",
            format!(
                "it asks for {} rounds, at most {MOST_ROUNDS} are read",
                config.rounds
            ),
        ));
    }
    if size > largest || count > file.len() {
        return Err(ImportError::format(
            "config",
            format!(
                "it asks for {count} layers or rounds and sizes up to {size}, the weights are \
                 {} tensors with axes up to {largest}",
                file.len()
            ),
        ));
    }
    config.validate()?;
    Ok(())
}

/// Our own paths and shapes.
pub(crate) fn own_mapping(shapes: BTreeMap<String, Vec<usize>>) -> Mapping {
    let mut mapping = Mapping::default();
    for (path, shape) in shapes {
        let piece = Piece::new(path.clone(), shape);
        mapping.one(path, piece);
    }
    mapping
}

/// The config in the metadata, in our own files.
#[cfg(feature = "std")]
impl Tensors {
    pub(crate) fn set_config(&mut self, json: &str) {
        self.metadata
            .insert(CONFIG_KEY.to_string(), json.to_string());
    }

    pub(crate) fn config(&self) -> Option<&str> {
        self.metadata.get(CONFIG_KEY).map(String::as_str)
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(self.name())
    }
}

impl FromStr for Source {
    type Err = ImportError;

    fn from_str(name: &str) -> Result<Self, ImportError> {
        let found = Self::ALL.into_iter().find(|source| source.name() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|s| s.name()).collect();
            let names = names.join(", ");
            ImportError::unsupported(format!("no source is called `{name}`; there are {names}"))
        })
    }
}

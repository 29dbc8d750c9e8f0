//! Checkpoints: a folder with the config and the weights of a model.

use std::fmt;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use burn::module::Module;
use burn::tensor::Device;
use thiserror::Error;

use crate::import::{Dtype, ExportError, ImportError, Tensors};
use crate::import::{check_size, own_mapping, parse_config, read_file, write_folder};
use crate::{Recurrent, RecurrentConfig};

/// The [`RecurrentConfig`] as JSON.
pub const CONFIG_FILE: &str = "config.json";

/// The weights in Burn's own format.
pub const MODEL_FILE: &str = "model.bpk";

/// A checkpoint that cannot be written or read.
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Reading failed.
    #[error("{file} in {folder}: {source}")]
    Load {
        /// The folder.
        folder: String,
        /// The file in it.
        file: &'static str,
        /// What is wrong with it.
        source: ImportError,
    },
    /// Writing failed.
    #[error(transparent)]
    Save(#[from] ExportError),
    /// The two files of a folder belong to different models.
    #[error(
        "{MODEL_FILE} and {CONFIG_FILE} in {folder} are of different models: the weights were saved \
         with {got}, expected {expected} as in {CONFIG_FILE}"
    )]
    Mismatch {
        /// The folder.
        folder: String,
        /// The first line of the config in the file of weights that differs.
        got: String,
        /// The same line of the other file.
        expected: String,
    },
    /// The model's layers differ in a setting that the config has once for all layers.
    #[error(
        "a config for this model gives other parameters: `{param}` has shape {got:?}, the config's \
         {expected:?}; layers of different kinds cannot be saved with their config"
    )]
    Config {
        /// The first parameter that differs.
        param: String,
        /// Its shape in the model, if the model has it.
        got: Option<Vec<usize>>,
        /// Its shape according to the config, if the config implies it.
        expected: Option<Vec<usize>>,
    },
}

/// The text of the error: what `unwrap` prints.
impl fmt::Debug for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first line of each text at which the two differ, in quotes.
fn first_difference(a: &str, b: &str) -> (String, String) {
    let line = |line: Option<&str>| match line {
        Some(line) => std::format!("`{}`", line.trim().trim_end_matches(',')),
        None => String::from("nothing more"),
    };
    let (mut a, mut b) = (a.lines(), b.lines());
    loop {
        match (a.next(), b.next()) {
            (Some(own), Some(other)) if own == other => {}
            (own, other) => return (line(own), line(other)),
        }
    }
}

impl Recurrent {
    /// Writes the model to a folder: [`CONFIG_FILE`] and [`MODEL_FILE`]. Creates the folder if it
    /// does not exist and replaces files of an earlier save. If it fails, nothing changes on disk.
    ///
    /// The weights are stored as for the variant's own module, so `ModuleRecord::load` can also read them
    /// into an [`Lstm`](crate::Lstm), for example. [`Strategy`](crate::Strategy) and
    /// [`Precision`](crate::Precision) are not saved.
    ///
    /// # Errors
    /// If the folder cannot be written, or the layers differ in a setting that the config has once.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use recurrent_modules::{Recurrent, RecurrentConfig, UrLstmConfig};
    ///
    /// let device = Device::flex();
    /// let model = RecurrentConfig::UrLstm(UrLstmConfig::new(3, 4)).init(&device);
    /// # let folder = std::env::temp_dir().join(format!("recurrent-doc-{}", std::process::id()));
    /// model.save(&folder)?;
    /// let loaded = Recurrent::load(&folder, &device)?; // the variant is found in the folder
    /// let x = Tensor::<3>::ones([2, 5, 3], &device);
    /// let (a, b) = (model.forward(x.clone(), None).0, loaded.forward(x, None).0);
    /// assert_eq!(a.into_data(), b.into_data());
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), CheckpointError> {
        self.save_tensors(folder.as_ref(), self.tensors())
    }

    /// [`save`](Self::save) with the weights in another data type; [`Dtype::F16`] and
    /// [`Dtype::Bf16`] take half the size. [`load`](Self::load) gives them back as the device's own
    /// type.
    ///
    /// # Errors
    /// As [`save`](Self::save), and if a weight is outside the range of the type.
    pub fn save_as(&self, folder: impl AsRef<Path>, dtype: Dtype) -> Result<(), CheckpointError> {
        self.save_tensors(folder.as_ref(), self.tensors().cast(dtype)?)
    }

    fn save_tensors(&self, folder: &Path, mut tensors: Tensors) -> Result<(), CheckpointError> {
        let config = RecurrentConfig::of(self);
        self.check_config(&config)?;
        let json = config.to_string();
        // In both files, so that `load` detects a folder that was left between the two renames.
        tensors.set_config(&json);
        let weights = tensors.to_burnpack()?;
        let files = [(MODEL_FILE, &weights[..]), (CONFIG_FILE, json.as_bytes())];
        Ok(write_folder(folder, &files)?)
    }

    /// Checks that the config describes this model.
    fn check_config(&self, config: &RecurrentConfig) -> Result<(), CheckpointError> {
        let invalid = |error| CheckpointError::Save(ImportError::Config(error).into());
        // Parameters are lazy: no values are created.
        let device = self.devices().into_iter().next().unwrap_or_default();
        let expected = config.try_init(&device).map_err(invalid)?;
        let (got, expected) = (self.shapes(), expected.shapes());
        let names = got.keys().chain(expected.keys());
        let differs = |name: &&String| got.get(*name) != expected.get(*name);
        match names.into_iter().find(differs) {
            Some(param) => Err(CheckpointError::Config {
                param: param.clone(),
                got: got.get(param).cloned(),
                expected: expected.get(param).cloned(),
            }),
            None => Ok(()),
        }
    }

    /// Reads a model of any variant from a folder written by [`save`](Self::save).
    ///
    /// The folder is treated as untrusted input: its content is validated, and memory use is proportional to
    /// the size of the two files.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the weights do not match the config.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self, CheckpointError> {
        let folder = folder.as_ref();
        let at = |file: &'static str| {
            move |source: ImportError| CheckpointError::Load {
                folder: folder.display().to_string(),
                file,
                source,
            }
        };
        let json = read_file(&folder.join(CONFIG_FILE)).map_err(at(CONFIG_FILE))?;
        let json = String::from_utf8(json)
            .map_err(|_| ImportError::format("config", "it is not UTF-8 text"))
            .map_err(at(CONFIG_FILE))?;
        let config = parse_config(&json).map_err(at(CONFIG_FILE))?;
        let bytes = read_file(&folder.join(MODEL_FILE)).map_err(at(MODEL_FILE))?;
        let file = Tensors::from_burnpack(bytes).map_err(at(MODEL_FILE))?;
        if let Some(own) = file.config() {
            let own = parse_config(own).map_err(at(MODEL_FILE))?;
            if own != config {
                let (got, expected) = first_difference(&own.to_string(), &config.to_string());
                return Err(CheckpointError::Mismatch {
                    folder: folder.display().to_string(),
                    got,
                    expected,
                });
            }
        }
        check_size(&config, &file).map_err(at(CONFIG_FILE))?;
        let model = config
            .try_init(device)
            .map_err(|error| at(CONFIG_FILE)(error.into()))?;
        let mapping = own_mapping(model.shapes());
        model.with_weights(&mapping, &file).map_err(at(MODEL_FILE))
    }
}

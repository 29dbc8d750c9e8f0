//! Weights from files and modules of other projects, and back.
//!
//! There are three parts, which can be used separately:
//!
//! 1. [`Tensors`] holds the named tensors of a file. [`Tensors::open`] reads `.pt`, `.pth`,
//!    `.safetensors` and burnpack files, [`Tensors::under`] selects the part below a prefix.
//! 2. A [`Layout`] describes how a project stores the parameters of one of our modules: names, shapes,
//!    orientation, gate order, number of biases. `docs/conversions.md` has the layouts as tables.
//! 3. [`load`] copies the tensors of a layout into a module, [`export`] is the inverse. Both
//!    use the same table.
//!
//! Each source has a module with functions that also infer the sizes: [`pytorch::lstm`],
//! [`originals::ur_lstm`](originals::ur_lstm::lstm), … [`Source`] chooses the source at run time.
//!
//! # Untrusted files
//! Reading never runs code, never panics, and uses memory proportional to the file size: each declared
//! size is checked against the bytes in the file before memory is allocated for it. This crate has its own
//! readers for PyTorch and SafeTensors files for that reason. The PyTorch reader of burn-store 0.22.1 has only fixed
//! limits (64 MiB of copies, 100 MiB of pickle, 10 GiB per tensor) and maps files into memory; `safetensors`
//! 0.8.0 adds up declared ends without checking for overflow.
//!
//! # Example
//! Export the weights of a module in the layout of `torch.nn.LSTM` and load them into another:
//! ```
//! use burn::tensor::{Device, Tensor};
//! use recurrent_modules::LstmConfig;
//! use recurrent_modules::import::{export, pytorch};
//!
//! let device = Device::flex();
//! let trained = LstmConfig::new(3, 4).with_num_layers(2).init(&device);
//! let tensors = export(&pytorch::TorchLstm, &trained)?;
//! assert_eq!(tensors.get("weight_ih_l1").unwrap().shape(), [16, 4]);
//!
//! let lstm = pytorch::lstm(&tensors, &device)?; // sizes from the tensors
//! let x = Tensor::<3>::ones([2, 5, 3], &device);
//! let (y, _) = lstm.forward(x.clone(), None);
//! assert_eq!(y.into_data(), trained.forward(x, None).0.into_data());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use burn::module::Module;

pub mod burn_nn;
#[cfg(feature = "std")]
mod burnpack;
mod error;
#[cfg(feature = "std")]
mod file;
#[cfg(feature = "std")]
mod format;
mod gru;
mod mapping;
pub mod originals;
mod place;
pub mod pytorch;
#[cfg(feature = "safetensors")]
mod safetensors;
mod source;
mod tensors;
#[cfg(feature = "pytorch")]
mod torch_file;
mod variant;

use place::place;
pub(crate) use place::{parameters, shapes};

#[cfg(feature = "std")]
pub(crate) use file::{read_file, write_folder};
#[cfg(feature = "std")]
pub(crate) use source::{check_size, own_mapping, parse_config};

pub use error::{ExportError, ImportError, Names};
pub use mapping::{Entry, Mapping, Piece};
pub use source::{Source, SourceOptions};
pub use tensors::{Dtype, Stored, Tensors};

/// How a project stores the parameters of a module of ours.
///
/// Implement it for your own layout; [`load`], [`export`] and the error messages then work for it.
pub trait Layout<M> {
    /// The tensors of a file that make the parameters of a module of these sizes.
    ///
    /// # Errors
    /// If the layout cannot express the module.
    fn mapping(&self, module: &M) -> Result<Mapping, ImportError>;
}

/// Puts the weights of a file into a module of the same sizes.
///
/// The module keeps its settings (dropout, directions, strategy). Values are converted to the float type of
/// the module's device.
///
/// # Errors
/// If a tensor is missing or unexpected, has another shape, no floating-point type, or a value that is not finite.
/// Names, shapes and types are checked for the whole file before any value is read.
///
/// # Example
/// Your own model with an LSTM as a field, from a file of the whole model:
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use recurrent_modules::import::{self, ImportError, Tensors, pytorch};
/// use recurrent_modules::{Lstm, LstmConfig};
///
/// #[derive(Module, Debug)]
/// struct Tagger {
///     encoder: Lstm,
///     head: Linear,
/// }
///
/// fn with_weights(tagger: Tagger, file: &Tensors) -> Result<Tagger, ImportError> {
///     let encoder = import::load(&pytorch::TorchLstm, tagger.encoder, &file.under("encoder")?)?;
///     Ok(Tagger { encoder, ..tagger })
/// }
/// # let device = Device::flex();
/// # let lstm = LstmConfig::new(3, 4).init(&device);
/// # let file = import::export(&pytorch::TorchLstm, &lstm).unwrap().with_prefix("encoder");
/// # let tagger = Tagger { encoder: LstmConfig::new(3, 4).init(&device), head: LinearConfig::new(4, 2).init(&device) };
/// # assert!(with_weights(tagger, &file).is_ok());
/// ```
pub fn load<M: Module, L: Layout<M>>(
    layout: &L,
    module: M,
    file: &Tensors,
) -> Result<M, ImportError> {
    let mapping = layout.mapping(&module)?;
    load_mapping(&mapping, module, file)
}

/// [`load`] with the table already made.
pub(crate) fn load_mapping<M: Module>(
    mapping: &Mapping,
    module: M,
    file: &Tensors,
) -> Result<M, ImportError> {
    mapping.check(file)?;
    let entries: BTreeMap<&str, &Entry> = mapping
        .entries
        .iter()
        .map(|entry| (entry.param.as_str(), entry))
        .collect();
    place(module, |path, device| {
        let Some(entry) = entries.get(path) else {
            return Ok(None);
        };
        // Burn's parameter id, which only Burn's own files contain.
        let stored = entry
            .pieces()
            .next()
            .and_then(|piece| file.get(&piece.name));
        let id = stored.and_then(|stored| stored.param_id);
        Ok(Some((Mapping::value(entry, file, device)?, id)))
    })
}

/// The weights of a module in a layout, to be saved with [`Tensors::save_safetensors`].
///
/// If the layout has two biases where we have one, the first gets its value and the second is zero.
///
/// # Errors
/// If the layout cannot express the module.
pub fn export<M: Module, L: Layout<M>>(layout: &L, module: &M) -> Result<Tensors, ExportError> {
    let mapping = layout.mapping(module)?;
    Ok(mapping.write(parameters(module))?)
}

/// The numbers `n` of names such as `weight_ih_l{n}`, which must count up from 0.
///
/// # Arguments
/// * `number` - the number of a name, if it is such a name
pub(crate) fn count(
    file: &Tensors,
    first: &str,
    number: impl Fn(&str) -> Option<usize>,
) -> Result<usize, ImportError> {
    let mut numbers: Vec<usize> = file.names().filter_map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let counted = numbers
        .iter()
        .enumerate()
        .take_while(|(index, number)| index == *number)
        .count();
    if counted == 0 {
        return Err(ImportError::Missing {
            name: first.into(),
            expected: Vec::new(),
            hint: file.hint(first),
        });
    }
    Ok(counted)
}

/// The two sizes of a matrix of the file.
pub(crate) fn matrix(file: &Tensors, name: &str) -> Result<[usize; 2], ImportError> {
    let tensor = file.require(name, &[])?;
    match tensor.shape() {
        &[rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
        got => Err(ImportError::Form {
            name: name.into(),
            got: got.to_vec(),
            expected: "two axes, none of them empty".into(),
        }),
    }
}

/// The size of one of `parts` equal parts of an axis of a tensor.
pub(crate) fn part(
    file: &Tensors,
    name: &str,
    axis: usize,
    parts: usize,
) -> Result<usize, ImportError> {
    let shape = matrix(file, name)?;
    if !shape[axis].is_multiple_of(parts) {
        return Err(ImportError::Form {
            name: name.into(),
            got: shape.to_vec(),
            expected: alloc::format!("axis {axis} to divide into {parts} gates"),
        });
    }
    Ok(shape[axis] / parts)
}

//! Named tensors in host memory, as read from a file or to be written to one.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::{Debug, Display, Formatter, Result as FmtResult};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData, bf16, f16};

use super::error::{ExportError, ImportError, Names};

/// A type of floating-point numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 8 bytes.
    F64,
    /// 4 bytes.
    F32,
    /// 2 bytes: 5 bits of exponent, 10 of fraction.
    F16,
    /// 2 bytes: 8 bits of exponent, 7 of fraction.
    Bf16,
    /// Another type, with its size in bytes; such tensors are listed, but not read.
    Other(&'static str, usize),
}

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(_, size) => size,
        }
    }

    /// As SafeTensors writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Other(name, _) => name,
        }
    }
}

impl Display for Dtype {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        f.write_str(self.name())
    }
}

impl From<DType> for Dtype {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self::F64,
            DType::F32 | DType::Flex32 => Self::F32,
            DType::F16 => Self::F16,
            DType::BF16 => Self::Bf16,
            DType::QFloat(_) => Self::Other("quantised numbers", 1),
            other => Self::Other("integers or booleans", other.size()),
        }
    }
}

/// A tensor of a file: a view of the file's bytes.
#[derive(Clone)]
pub struct Stored {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Arc<Vec<u8>>,
    /// Byte of the first element.
    start: usize,
    /// Stride of each axis, in elements.
    strides: Vec<usize>,
    /// Burn's identity of a parameter, where the file has one.
    pub(crate) param_id: Option<u64>,
}

impl Debug for Stored {
    fn fmt(&self, f: &mut Formatter<'_>) -> FmtResult {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

/// Strides of a contiguous tensor whose number of elements does not overflow and is not 0.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

impl Stored {
    /// A view of `bytes`; checks that every element is inside.
    ///
    /// # Arguments
    /// * `bytes`, `start` - the buffer, and the byte of the first element in it
    /// * `end` - where the bytes that belong to the tensor end
    /// * `strides` - `None` for a contiguous tensor
    pub(crate) fn view(
        bytes: &Arc<Vec<u8>>,
        start: usize,
        end: usize,
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
    ) -> Result<Self, String> {
        let elements = shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size))
            .ok_or_else(|| format!("shape {shape:?} has too many elements"))?;
        let strides = match (strides, elements) {
            (Some(strides), _) => strides,
            (None, 0) => vec![0; shape.len()],
            (None, _) => contiguous(&shape),
        };
        if strides.len() != shape.len() {
            let (got, expected) = (strides.len(), shape.len());
            return Err(format!("it has {got} strides for {expected} axes"));
        }
        if end > bytes.len() || start > end {
            let held = bytes.len();
            return Err(format!(
                "bytes {start}..{end} are outside the {held} there are"
            ));
        }
        let held = (end - start) / dtype.size().max(1);
        // With views that repeat their elements (torch's `expand`), a few bytes could declare any
        // size.
        if elements > held {
            return Err(format!(
                "shape {shape:?} declares {elements} elements, its data has {held}"
            ));
        }
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(0usize, |last, (&size, &stride)| {
                last.checked_add(size.saturating_sub(1).checked_mul(stride)?)
            })
            .filter(|&last| elements == 0 || last < held);
        if last.is_none() {
            return Err(format!(
                "strides {strides:?} of shape {shape:?} lead outside its {held} elements"
            ));
        }
        Ok(Self {
            shape,
            dtype,
            bytes: bytes.clone(),
            start,
            strides,
            param_id: None,
        })
    }

    /// The values of a tensor in memory.
    pub(crate) fn of(data: TensorData) -> Self {
        let (bytes, shape, dtype) = data.into_parts();
        let (dtype, shape) = (Dtype::from(dtype), shape.to_vec());
        let bytes = Arc::new(bytes.to_vec());
        let stored = Self::view(&bytes, 0, bytes.len(), dtype, shape, None);
        stored.expect("a tensor's bytes are those of its shape")
    }

    /// The shape in the file.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The data type in the file.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the elements.
    pub fn byte_len(&self) -> usize {
        self.elements().saturating_mul(self.dtype.size())
    }

    /// The elements in row-major order, each as its bytes.
    fn rows<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> + '_ {
        let mut index = vec![0usize; self.shape.len()];
        let mut offset = 0usize;
        (0..self.elements()).map(move |_| {
            let at = self.start + offset * N;
            let element = core::array::from_fn(|byte| self.bytes[at + byte]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                offset += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                offset -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
            element
        })
    }

    /// The elements in row-major order without gaps, as they are stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self.dtype.size() {
            8 => self.rows::<8>().flatten().collect(),
            4 => self.rows::<4>().flatten().collect(),
            2 => self.rows::<2>().flatten().collect(),
            _ => self.rows::<1>().flatten().collect(),
        }
    }

    /// In another data type.
    ///
    /// # Errors
    /// If a value is outside its range (beyond ±65 504 for F16), or the elements are not finite
    /// floating-point numbers.
    pub(crate) fn cast(&self, dtype: Dtype, name: &str) -> Result<Self, ExportError> {
        if self.dtype == dtype {
            return Ok(self.clone());
        }
        let values = self.values(name)?;
        let values = values.iter::<f64>();
        let mut bytes = Vec::with_capacity(self.elements() * dtype.size());
        for (index, value) in values.enumerate() {
            let finite = match dtype {
                Dtype::F64 => {
                    bytes.extend(value.to_le_bytes());
                    true
                }
                Dtype::F32 => {
                    bytes.extend((value as f32).to_le_bytes());
                    (value as f32).is_finite()
                }
                Dtype::F16 => {
                    bytes.extend(f16::from_f64(value).to_le_bytes());
                    f16::from_f64(value).is_finite()
                }
                Dtype::Bf16 => {
                    bytes.extend(bf16::from_f64(value).to_le_bytes());
                    bf16::from_f64(value).is_finite()
                }
                Dtype::Other(got, _) => {
                    let what = format!("weights cannot be stored as {got}");
                    return Err(ExportError::Unsupported { what });
                }
            };
            if !finite {
                return Err(ExportError::Range {
                    name: name.to_string(),
                    got: value.to_string(),
                    index,
                    dtype: dtype.name(),
                });
            }
        }
        let bytes = Arc::new(bytes);
        let shape = self.shape.clone();
        let cast = Self::view(&bytes, 0, bytes.len(), dtype, shape, None);
        let mut cast = cast.expect("as many elements as before");
        cast.param_id = self.param_id;
        Ok(cast)
    }

    /// The values, F64 as they are and all others as F32.
    ///
    /// # Errors
    /// If the type is not floating-point, or a value is NaN or infinite; `name` is for the
    /// message.
    pub fn values(&self, name: &str) -> Result<TensorData, ImportError> {
        let shape = self.shape.clone();
        let data = match self.dtype {
            Dtype::F64 => {
                let values: Vec<f64> = self.rows::<8>().map(f64::from_le_bytes).collect();
                check_finite(name, values.iter().copied())?;
                return Ok(TensorData::new(values, shape));
            }
            Dtype::F32 => self.rows::<4>().map(f32::from_le_bytes).collect(),
            Dtype::F16 => self.rows::<2>().map(f16_to_f32).collect(),
            Dtype::Bf16 => self.rows::<2>().map(bf16_to_f32).collect::<Vec<f32>>(),
            Dtype::Other(got, _) => {
                return Err(ImportError::Dtype {
                    name: name.to_string(),
                    got: got.to_string(),
                });
            }
        };
        check_finite(name, data.iter().map(|&value| f64::from(value)))?;
        Ok(TensorData::new(data, shape))
    }
}

fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    bf16::from_le_bytes(bytes).to_f32()
}

fn check_finite(name: &str, values: impl Iterator<Item = f64>) -> Result<(), ImportError> {
    match values.enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, value)) => Err(ImportError::NotFinite {
            name: name.to_string(),
            got: value.to_string(),
            index,
        }),
        None => Ok(()),
    }
}

/// Named tensors: a file's, or those of a part of it ([`under`](Self::under)).
///
/// Tensors are converted when a module loads them. All tensors of a file share its bytes, so selecting a
/// part does not copy.
///
/// # Example
/// ```
/// use burn::tensor::Device;
/// use recurrent_modules::import::Tensors;
/// use recurrent_modules::LstmConfig;
///
/// let lstm = LstmConfig::new(3, 4).init(&Device::flex());
/// let tensors = Tensors::of(&lstm);
/// assert_eq!(tensors.get("layers.0.forward.gates.weight_hidden").unwrap().shape(), [4, 16]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    tensors: BTreeMap<String, Stored>,
    /// Key-value text of the file.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// The largest allowed ratio of the tensors' total size to the file size. It exceeds 1 with tied weights. Without a
/// limit, a file with many views of one storage could request any amount of memory.
#[cfg(feature = "pytorch")]
const MOST_VIEWS: usize = 4;

impl Tensors {
    /// No tensors, and key-value text.
    #[cfg(feature = "std")]
    pub(crate) fn with_metadata(metadata: BTreeMap<String, String>) -> Self {
        Self {
            tensors: BTreeMap::new(),
            metadata,
        }
    }

    /// Checks the total size of all tensors against the file size.
    #[cfg(feature = "pytorch")]
    pub(crate) fn checked(self, format: &'static str, file: usize) -> Result<Self, ImportError> {
        let total = self
            .tensors
            .values()
            .try_fold(0usize, |sum, tensor| sum.checked_add(tensor.byte_len()));
        match total {
            Some(total) if total <= file.saturating_mul(MOST_VIEWS) => Ok(self),
            _ => Err(ImportError::format(
                format,
                format!(
                    "its tensors are views of the same data that together hold more than \
                     {MOST_VIEWS} times the {file} bytes of the file"
                ),
            )),
        }
    }

    /// All parameters of a module by their paths, in the module's own layout.
    pub fn of<M: Module>(module: &M) -> Self {
        let mut visitor = Collector::default();
        module.visit(&mut visitor);
        visitor.tensors
    }

    /// The tensors whose names begin with `prefix` and a `.` or `/`, without it.
    ///
    /// # Errors
    /// If there are none.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::Device;
    /// use recurrent_modules::import::Tensors;
    /// use recurrent_modules::LstmConfig;
    ///
    /// let tensors = Tensors::of(&LstmConfig::new(3, 4).init(&Device::flex()));
    /// let cell = tensors.under("layers.0.forward").unwrap();
    /// assert_eq!(cell.names().count(), 3);
    /// assert!(tensors.under("encoder").is_err());
    /// ```
    pub fn under(&self, prefix: &str) -> Result<Self, ImportError> {
        let prefix = prefix.trim_end_matches(['.', '/']);
        if prefix.is_empty() {
            return Ok(self.clone());
        }
        let tensors: BTreeMap<String, Stored> = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| {
                let rest = name.strip_prefix(prefix)?.strip_prefix(['.', '/'])?;
                Some((rest.to_string(), tensor.clone()))
            })
            .collect();
        if tensors.is_empty() {
            return Err(ImportError::Prefix {
                prefix: prefix.to_string(),
                found: Names(self.names().map(String::from).collect()),
            });
        }
        Ok(Self {
            tensors,
            metadata: self.metadata.clone(),
        })
    }

    /// The same tensors under `prefix` and a dot, to be joined with others.
    pub fn with_prefix(self, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('.');
        if prefix.is_empty() {
            return self;
        }
        let rename = |(name, tensor)| (format!("{prefix}.{name}"), tensor);
        Self {
            tensors: self.tensors.into_iter().map(rename).collect(),
            metadata: self.metadata,
        }
    }

    /// Names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Names and tensors in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes of all elements.
    pub fn byte_len(&self) -> usize {
        self.tensors.values().map(Stored::byte_len).sum()
    }

    /// Inserts a tensor under a name; returns the previous one, if any.
    pub fn insert(&mut self, name: impl Into<String>, data: TensorData) -> Option<Stored> {
        self.insert_stored(name.into(), Stored::of(data))
    }

    pub(crate) fn insert_stored(&mut self, name: String, tensor: Stored) -> Option<Stored> {
        self.tensors.insert(name, tensor)
    }

    /// The same tensors in another data type: [`Dtype::F16`] and [`Dtype::Bf16`] take half
    /// the size of F32.
    ///
    /// # Errors
    /// If a value is outside the range of the type (beyond ±65 504 for F16).
    ///
    /// # Example
    /// ```
    /// use burn::tensor::Device;
    /// use recurrent_modules::import::{Dtype, Tensors};
    /// use recurrent_modules::LstmConfig;
    ///
    /// let tensors = Tensors::of(&LstmConfig::new(3, 4).init(&Device::flex()));
    /// let half = tensors.cast(Dtype::Bf16)?;
    /// assert_eq!(2 * half.byte_len(), tensors.byte_len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cast(&self, dtype: Dtype) -> Result<Self, ExportError> {
        let tensors = self
            .iter()
            .map(|(name, tensor)| Ok((name.to_string(), tensor.cast(dtype, name)?)));
        Ok(Self {
            tensors: tensors.collect::<Result<_, ExportError>>()?,
            metadata: self.metadata.clone(),
        })
    }

    /// Key-value text stored with the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensor of a name; the error says what the file has instead.
    pub(crate) fn require(&self, name: &str, expected: &[usize]) -> Result<&Stored, ImportError> {
        self.get(name).ok_or_else(|| ImportError::Missing {
            name: name.to_string(),
            expected: expected.to_vec(),
            hint: self.hint(name),
        })
    }

    /// A hint where the tensor of a name may be instead.
    pub(crate) fn hint(&self, name: &str) -> String {
        let elsewhere = |other: &str| {
            let prefix = other.strip_suffix(name)?;
            prefix.strip_suffix(['.', '/']).map(String::from)
        };
        let prefixes: Vec<String> = self.names().filter_map(elsewhere).collect();
        if prefixes.is_empty() {
            let names = Names(self.names().map(String::from).collect());
            return format!("the file has {names}");
        }
        format!("it is there under the prefix {}", Names(prefixes))
    }
}

/// Collects parameters by path.
#[derive(Default)]
struct Collector {
    path: Vec<String>,
    tensors: Tensors,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut stored = Stored::of(param.transform_for_save().val().into_data());
        stored.param_id = Some(param.id.val());
        self.tensors.insert_stored(self.path.join("."), stored);
    }
}

//! The part of Python's pickle that state dicts are written in.
//!
//! A pickle is a program for a stack machine that can import and call any function. This machine
//! calls none: it implements the functions that build dictionaries and
//! tensors itself, and rejects a pickle that names any other.
//!
//! Values are stored in one arena and refer to each other by index. So a value that is fetched a million
//! times is stored once, a dictionary that contains itself does not cause an endless loop, and nothing is
//! dropped recursively. The number of values, items and memos is bounded by the length of
//! the pickle ([`machine::Limits`]).

mod machine;

use std::boxed::Box;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use self::machine::Machine;
use super::error;
use crate::import::ImportError;
use crate::import::tensors::Dtype;

/// A tensor as the pickle describes it.
pub(super) struct TensorRecord {
    /// Its path through the dictionaries, joined by dots.
    pub(super) name: String,
    /// Name of its storage.
    pub(super) key: String,
    pub(super) dtype: Dtype,
    /// First element in the storage.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A value, or its index.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number that no tensor needs: a float, or an integer of more than 64 bits.
    Number,
    /// Text or bytes, by place in the pickle.
    Text(u32, u32),
    Function(Function),
    Node(u32),
}

/// The functions that a state dict needs, and data that names a type.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    /// `OrderedDict`, `dict`, `defaultdict`.
    Dict,
    /// `torch._utils._rebuild_tensor_v2` and `_rebuild_tensor`.
    Tensor,
    /// `torch._utils._rebuild_parameter`.
    Parameter,
    /// `torch.Size`.
    Size,
    /// `torch.FloatStorage` and so on: never called, part of a storage's identity.
    Storage(Dtype),
    /// A name such as `torch.float32`: never called, ignored.
    Constant,
}

impl Function {
    fn of(module: &str, name: &str) -> Option<Self> {
        let storage = |dtype| Some(Self::Storage(dtype));
        match (module, name) {
            ("collections", "OrderedDict" | "defaultdict") => Some(Self::Dict),
            ("builtins" | "__builtin__", "dict") => Some(Self::Dict),
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Some(Self::Tensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::Parameter),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "DoubleStorage") => storage(Dtype::F64),
            ("torch", "FloatStorage") => storage(Dtype::F32),
            ("torch", "HalfStorage") => storage(Dtype::F16),
            ("torch", "BFloat16Storage") => storage(Dtype::Bf16),
            ("torch", "LongStorage") => storage(Dtype::Other("int64", 8)),
            ("torch", "IntStorage") => storage(Dtype::Other("int32", 4)),
            ("torch", "ShortStorage") => storage(Dtype::Other("int16", 2)),
            ("torch", "CharStorage") => storage(Dtype::Other("int8", 1)),
            ("torch", "ByteStorage") => storage(Dtype::Other("uint8", 1)),
            ("torch", "BoolStorage") => storage(Dtype::Other("bool", 1)),
            ("torch", "float64" | "float32" | "float16" | "bfloat16" | "int64" | "bool") => {
                Some(Self::Constant)
            }
            _ => None,
        }
    }
}

/// A compound value. Large ones are boxed, because a pickle can create one node per eight bytes.
#[derive(Debug)]
enum Node {
    Tuple(Vec<Value>),
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Box<Storage>),
    Tensor(Box<TensorNode>),
}

#[derive(Debug, Clone, Copy)]
struct Storage {
    key: (u32, u32),
    dtype: Dtype,
    /// First element, of a storage that is a part of another (old files only).
    offset: usize,
}

#[derive(Debug)]
struct TensorNode {
    storage: Storage,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Maximum nesting of dictionaries and lists.
const DEPTH: usize = 32;

/// The result of a pickle.
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    root: Value,
    /// Length of the pickle itself.
    length: usize,
}

impl<'a> Pickle<'a> {
    /// Runs the pickle at an offset; also returns the offset after it.
    pub(super) fn read(bytes: &'a [u8], start: usize) -> Result<(Self, usize), ImportError> {
        // Offsets in the pickle are stored in 32 bits.
        if u32::try_from(bytes.len()).is_err() && start > u32::MAX as usize / 2 {
            return Err(error("its pickle lies beyond the first 2 GiB"));
        }
        let mut machine = Machine::new(bytes, start);
        let root = machine.run()?;
        let (nodes, end) = machine.finish();
        let pickle = Self {
            bytes,
            nodes,
            root,
            length: end - start,
        };
        Ok((pickle, end))
    }

    fn text(&self, (at, length): (u32, u32)) -> Result<&'a str, ImportError> {
        text(self.bytes, at, length)
    }

    fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(index) => self.nodes.get(index as usize),
            _ => None,
        }
    }

    pub(super) fn root_int(&self) -> Option<i64> {
        match self.root {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// A flag of the dictionary.
    pub(super) fn root_flag(&self, name: &str) -> Option<bool> {
        let Some(Node::Dict(items)) = self.node(self.root) else {
            return None;
        };
        items.iter().find_map(|(key, value)| match (key, value) {
            (&Value::Text(at, length), &Value::Bool(flag)) => {
                (self.text((at, length)).ok()? == name).then_some(flag)
            }
            _ => None,
        })
    }

    /// The list of texts.
    pub(super) fn root_texts(&self) -> Result<Vec<&'a str>, ImportError> {
        let Some(Node::List(items)) = self.node(self.root) else {
            return Err(error("it has no list of storages"));
        };
        let texts = items.iter().map(|item| match *item {
            Value::Text(at, length) => self.text((at, length)),
            _ => Err(error("the name of a storage is no text")),
        });
        texts.collect()
    }

    /// The type of a storage that some tensor uses.
    pub(super) fn storage_dtype(&self, key: &str) -> Option<Dtype> {
        self.nodes.iter().find_map(|node| match node {
            Node::Storage(storage) => {
                (self.text(storage.key).ok()? == key).then_some(storage.dtype)
            }
            _ => None,
        })
    }

    /// All tensors, named by their paths.
    pub(super) fn tensors(&self) -> Result<Vec<TensorRecord>, ImportError> {
        let mut found = Vec::new();
        // A dictionary may be referenced many times, also by itself, so steps and depth are bounded.
        let mut steps = 1024 + self.length;
        let mut name_bytes = 65_536 + 4 * self.length;
        let mut open: Vec<(String, Value, usize)> = std::vec![(String::new(), self.root, 0)];
        while let Some((name, value, depth)) = open.pop() {
            let child = |key: &str| match name.is_empty() {
                true => key.to_string(),
                false => format!("{name}.{key}"),
            };
            let mut children = Vec::new();
            match self.node(value) {
                Some(Node::Dict(items)) => {
                    for &(key, value) in items {
                        if !matches!(value, Value::Node(_)) {
                            continue;
                        }
                        match key {
                            Value::Text(at, length) => {
                                let key = self.text((at, length))?;
                                charge(&mut name_bytes, name.len() + key.len() + 1)?;
                                children.push((child(key), value));
                            }
                            Value::Int(key) => {
                                charge(&mut name_bytes, name.len() + 21)?;
                                children.push((child(&key.to_string()), value));
                            }
                            _ => {}
                        }
                        charge(&mut steps, 1)?;
                    }
                }
                Some(Node::List(items) | Node::Tuple(items)) => {
                    for (index, &value) in items.iter().enumerate() {
                        if matches!(value, Value::Node(_)) {
                            charge(&mut name_bytes, name.len() + 21)?;
                            children.push((child(&index.to_string()), value));
                            charge(&mut steps, 1)?;
                        }
                    }
                }
                Some(Node::Tensor(tensor)) => found.push(TensorRecord {
                    key: self.text(tensor.storage.key)?.to_string(),
                    dtype: tensor.storage.dtype,
                    offset: tensor.offset,
                    shape: tensor.shape.clone(),
                    strides: tensor.strides.clone(),
                    name,
                }),
                Some(Node::Storage(_)) | None => {}
            }
            if !children.is_empty() && depth >= DEPTH {
                return Err(error(format!(
                    "its dictionaries nest more than {DEPTH} deep"
                )));
            }
            let children = children.into_iter();
            open.extend(children.map(|(name, value)| (name, value, depth + 1)));
        }
        Ok(found)
    }
}

/// Takes from a budget.
fn charge(budget: &mut usize, amount: usize) -> Result<(), ImportError> {
    *budget = budget
        .checked_sub(amount)
        .ok_or_else(|| error("its dictionaries refer to each other more often than it is long"))?;
    Ok(())
}

fn text(bytes: &[u8], at: u32, length: u32) -> Result<&str, ImportError> {
    let (at, length) = (at as usize, length as usize);
    let slice = at.checked_add(length).and_then(|end| bytes.get(at..end));
    slice
        .and_then(|slice| core::str::from_utf8(slice).ok())
        .ok_or_else(|| error("a text in its pickle is not UTF-8"))
}

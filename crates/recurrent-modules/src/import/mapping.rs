//! How a layout stores the parameters of a module: one table that serves both directions.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use recurrent_core::GateLayout;

use super::error::{ImportError, Names};
use super::tensors::Tensors;

/// A block of a tensor in a file, and its conversion to a block of a parameter.
///
/// Applied in this order: view the tensor as a matrix (a vector is one row), select rows and columns, transpose,
/// permute the gates.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The tensor's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The rows of it that this parameter takes.
    pub rows: Range<usize>,
    /// The columns of it that this parameter takes.
    pub columns: Range<usize>,
    /// Whether it is stored as `[out, in]`; ours are `[in, out]`.
    pub transposed: bool,
    /// Order of the gates in the file and in the parameter, where they are packed.
    pub gates: Option<(GateLayout, GateLayout)>,
}

impl Piece {
    /// A whole tensor in our own orientation: `[in, out]`, or a vector.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        let mut piece = Self {
            name: name.into(),
            shape: shape.into(),
            rows: 0..0,
            columns: 0..0,
            transposed: false,
            gates: None,
        };
        let [rows, columns] = piece.matrix();
        (piece.rows, piece.columns) = (0..rows, 0..columns);
        piece
    }

    /// A whole matrix stored as `[out, in]`, as torch's `Linear` does.
    pub fn transposed(name: impl Into<String>, [out, into]: [usize; 2]) -> Self {
        Self {
            transposed: true,
            ..Self::new(name, [out, into])
        }
    }

    /// With packed gates in the order `file`, ours being `ours`.
    pub fn with_gates(self, file: GateLayout, ours: GateLayout) -> Self {
        Self {
            gates: Some((file, ours)),
            ..self
        }
    }

    /// Selects rows.
    pub fn with_rows(self, rows: Range<usize>) -> Self {
        Self { rows, ..self }
    }

    /// Selects columns.
    pub fn with_columns(self, columns: Range<usize>) -> Self {
        Self { columns, ..self }
    }

    /// The shape as a matrix: a vector is one row, leading axes of 1 are left out.
    fn matrix(&self) -> [usize; 2] {
        match self.shape[..] {
            [] => [1, 1],
            [columns] => [1, columns],
            [.., rows, columns] => [rows, columns],
        }
    }

    /// The block of the parameter, from the tensor of the file.
    fn read(&self, file: Tensor<2>) -> Tensor<2> {
        let [rows, columns] = self.matrix();
        let mut block = file;
        if (&self.rows, &self.columns) != (&(0..rows), &(0..columns)) {
            block = block.slice([self.rows.clone(), self.columns.clone()]);
        }
        if self.transposed {
            block = block.transpose();
        }
        match self.gates {
            Some((file, ours)) => ours.permute_from(file, block),
            None => block,
        }
    }

    /// Inverse of [`read`](Self::read): these rows and columns of the tensor of the file.
    fn write(&self, block: Tensor<2>) -> Tensor<2> {
        let block = match self.gates {
            Some((file, ours)) => file.permute_from(ours, block),
            None => block,
        };
        match self.transposed {
            true => block.transpose(),
            false => block,
        }
    }

    /// Columns of the parameter that this block makes.
    fn width(&self) -> usize {
        match self.transposed {
            true => self.rows.len(),
            false => self.columns.len(),
        }
    }
}

/// Where one parameter comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The parameter's path in the module.
    pub param: String,
    /// Blocks to concatenate (one per gate in our order, if the gates are stored separately), each the
    /// sum of its pieces (two biases where we have one). On export the first piece of a block gets
    /// its value and the others are zero.
    pub blocks: Vec<Vec<Piece>>,
}

impl Entry {
    /// The pieces of all blocks.
    pub fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.blocks.iter().flatten()
    }

    /// The parameter as a matrix (a vector is one row), from the tensors of the file.
    ///
    /// Differentiable: gradients reach what `tensor` returns.
    ///
    /// # Arguments
    /// * `tensor` - the tensor of a piece's name, as a matrix
    ///
    /// # Errors
    /// Those of `tensor`.
    pub fn assemble<E>(
        &self,
        mut tensor: impl FnMut(&Piece) -> Result<Tensor<2>, E>,
    ) -> Result<Tensor<2>, E> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for pieces in &self.blocks {
            let mut sum: Option<Tensor<2>> = None;
            for piece in pieces {
                let part = piece.read(tensor(piece)?);
                sum = Some(match sum {
                    Some(sum) => sum + part,
                    None => part,
                });
            }
            blocks.extend(sum);
        }
        Ok(match blocks.len() {
            1 => blocks.remove(0),
            _ => Tensor::cat(blocks, 1),
        })
    }

    /// What each piece is written from: inverse of [`assemble`](Self::assemble).
    fn disassemble(&self, param: &Tensor<2>) -> Vec<(&Piece, Tensor<2>)> {
        let rows = param.dims()[0];
        let mut from = 0;
        let mut written = Vec::new();
        for pieces in &self.blocks {
            let to = from + pieces.first().map_or(0, Piece::width);
            let block = param.clone().slice([0..rows, from..to]);
            from = to;
            for (index, piece) in pieces.iter().enumerate() {
                let part = match index {
                    0 => block.clone(),
                    _ => block.zeros_like(),
                };
                written.push((piece, piece.write(part)));
            }
        }
        written
    }
}

/// How a layout stores all parameters of a module.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mapping {
    /// One per parameter.
    pub entries: Vec<Entry>,
    /// Names and shapes of tensors that the layout has and the module does not use: left alone on
    /// reading if they are there, zeros on writing.
    pub unused: Vec<(String, Vec<usize>)>,
}

impl Mapping {
    /// Adds a parameter that is one piece.
    pub fn one(&mut self, param: impl Into<String>, piece: Piece) {
        self.push(param, vec![vec![piece]]);
    }

    /// Adds a parameter that is the sum of pieces: one bias where the file has two.
    pub fn sum(&mut self, param: impl Into<String>, pieces: impl Into<Vec<Piece>>) {
        self.push(param, vec![pieces.into()]);
    }

    /// Adds a parameter whose gates are stored apart; one piece per gate, in our order.
    pub fn columns(&mut self, param: impl Into<String>, pieces: impl IntoIterator<Item = Piece>) {
        self.push(param, pieces.into_iter().map(|piece| vec![piece]).collect());
    }

    /// Adds a parameter; see [`Entry::blocks`].
    pub fn push(&mut self, param: impl Into<String>, blocks: Vec<Vec<Piece>>) {
        let param = param.into();
        self.entries.push(Entry { param, blocks });
    }

    /// Name and shape of each tensor of the file, once each.
    pub fn tensors(&self) -> BTreeMap<&str, &[usize]> {
        let pieces = self.entries.iter().flat_map(Entry::pieces);
        let used = pieces.map(|piece| (piece.name.as_str(), piece.shape.as_slice()));
        let unused = self.unused.iter();
        used.chain(unused.map(|(name, shape)| (name.as_str(), shape.as_slice())))
            .collect()
    }

    /// The parameters that a tensor of the file goes to.
    pub fn targets<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        let takes = move |entry: &&Entry| entry.pieces().any(|piece| piece.name == name);
        self.entries.iter().filter(takes)
    }

    /// Checks names, shapes and data types, before any value is read.
    ///
    /// # Errors
    /// For the first tensor that is missing, has another shape or holds no floating-point numbers;
    /// then for all tensors that nothing takes.
    pub fn check(&self, file: &Tensors) -> Result<(), ImportError> {
        let expected = self.tensors();
        for (&name, &shape) in &expected {
            let is_unused = || self.unused.iter().any(|(other, _)| other == name);
            if file.get(name).is_none() && is_unused() {
                continue;
            }
            let tensor = file.require(name, shape)?;
            if tensor.shape() != shape {
                return Err(ImportError::Shape {
                    name: name.to_string(),
                    got: tensor.shape().to_vec(),
                    expected: shape.to_vec(),
                });
            }
            if let super::Dtype::Other(got, _) = tensor.dtype() {
                return Err(ImportError::Dtype {
                    name: name.to_string(),
                    got: got.to_string(),
                });
            }
        }
        let extra: Vec<String> = file
            .names()
            .filter(|name| !expected.contains_key(name))
            .map(String::from)
            .collect();
        match extra.is_empty() {
            true => Ok(()),
            false => Err(ImportError::Unexpected {
                names: Names(extra),
            }),
        }
    }

    /// A parameter of a checked file, on a device.
    pub(crate) fn value(
        entry: &Entry,
        file: &Tensors,
        device: &Device,
    ) -> Result<Tensor<2>, ImportError> {
        entry.assemble(|piece| {
            let data = file
                .require(&piece.name, &piece.shape)?
                .values(&piece.name)?;
            let elements = data.num_elements();
            let flat = Tensor::<1>::from_data(reshaped(data, vec![elements]), device);
            Ok(flat.reshape(piece.matrix()))
        })
    }

    /// The tensors of a file, from the parameters as matrices by path.
    ///
    /// # Errors
    /// If a parameter that the layout stores is not there, or the module has one that the layout
    /// does not store.
    pub(crate) fn write(
        &self,
        mut params: BTreeMap<String, Tensor<2>>,
    ) -> Result<Tensors, ImportError> {
        // Rows and columns of one tensor may come from several parameters.
        let mut parts: BTreeMap<&str, Vec<(&Piece, Tensor<2>)>> = BTreeMap::new();
        for entry in &self.entries {
            let param = params.remove(&entry.param).ok_or_else(|| {
                ImportError::unsupported(format!("the module has no parameter `{}`", entry.param))
            })?;
            for (piece, block) in entry.disassemble(&param) {
                parts.entry(&piece.name).or_default().push((piece, block));
            }
        }
        if !params.is_empty() {
            let names = Names(params.into_keys().collect());
            return Err(ImportError::unsupported(format!(
                "the layout has no place for the parameters {names}"
            )));
        }
        let mut file = Tensors::default();
        for (name, mut parts) in parts {
            parts.sort_by_key(|(piece, _)| (piece.rows.start, piece.columns.start));
            let shape = parts[0].0.shape.clone();
            let bands = parts.chunk_by(|(a, _), (b, _)| a.rows == b.rows);
            let bands = bands.map(|band| {
                let blocks = band.iter().map(|(_, block)| block.clone());
                Tensor::cat(blocks.collect(), 1)
            });
            let tensor = Tensor::cat(bands.collect(), 0);
            let elements: usize = shape.iter().product();
            let data = tensor.reshape([elements]).into_data();
            file.insert(name, reshaped(data, shape));
        }
        for (name, shape) in &self.unused {
            let zeros = vec![0f32; shape.iter().product()];
            file.insert(name.clone(), TensorData::new(zeros, shape.clone()));
        }
        Ok(file)
    }
}

/// The same elements in another shape.
fn reshaped(data: TensorData, shape: Vec<usize>) -> TensorData {
    let (bytes, _, dtype) = data.into_parts();
    TensorData::from_bytes(bytes, shape, dtype)
}

//! Buffers of a call, and the few operations on whole tensors around the loop over steps.

use alloc::vec::Vec;

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;

use super::device::elementwise;

/// A dense tensor of f32, not initialised.
///
/// Every result that kernels index is made by this function: tensors that Burn makes may have gaps between rows.
pub fn empty(like: &CubeTensor, shape: [usize; 2]) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        Shape::new(shape),
        DType::F32,
    )
}

/// A dense tensor of zeros.
pub fn zeros(like: &CubeTensor, shape: [usize; 2]) -> CubeTensor {
    let flat = Shape::new([shape[0] * shape[1]]);
    let flat = zeros_client(like.client.clone(), like.device.clone(), flat, DType::F32);
    reshaped(flat, shape)
}

/// A buffer for an argument that a kernel was compiled not to use.
pub fn nothing(like: &CubeTensor) -> CubeTensor {
    empty(like, [1, 4])
}

/// Rows of a dense tensor seen as a dense tensor of another shape, from its start.
///
/// # Panics
/// If the tensor is smaller.
pub fn reshaped<const D: usize>(tensor: CubeTensor, shape: [usize; D]) -> CubeTensor {
    assert!(
        tensor.meta.num_elements() >= shape.iter().product(),
        "a view is larger than its tensor"
    );
    CubeTensor::new_contiguous(
        tensor.client,
        tensor.device,
        Shape::new(shape),
        tensor.handle,
        tensor.dtype,
    )
}

/// Values of a tensor.
pub fn len(tensor: &CubeTensor) -> usize {
    tensor.meta.num_elements()
}

/// Kernels count in 32 bits.
const MOST: usize = u32::MAX as usize;

/// # Panics
/// If kernels cannot count that many values.
fn check_count(values: usize) {
    assert!(
        values <= MOST,
        "a buffer of {values} values: kernels on devices of CubeCL count up to {MOST}; expected smaller \
         batches, shorter sequences, or Strategy::Composed"
    );
}

/// A buffer as an argument, in vectors.
///
/// # Panics
/// If it has more values than kernels can count.
pub fn arg(tensor: &CubeTensor, vector: usize) -> BufferArg {
    check_count(len(tensor));
    // SAFETY: the tensor has that many values; where it is read in vectors, its pieces are multiples
    // of one.
    unsafe { BufferArg::from_raw_parts(tensor.handle.clone(), len(tensor) / vector) }
}

/// The widest vector that divides all of the sizes.
pub fn vector_size(like: &CubeTensor, sizes: &[usize]) -> usize {
    let widths = like.client.io_optimized_vector_sizes(size_of::<f32>());
    let fits = |width: &usize| sizes.iter().all(|size| size.is_multiple_of(*width));
    widths.filter(fits).max().unwrap_or(1)
}

/// The transposed view.
pub fn transposed(tensor: &CubeTensor) -> CubeTensor {
    CubeBackend::float_transpose(tensor.clone())
}

/// `Σ_rows` of `[rows, n]`, `[n]`.
pub fn sum_rows(tensor: CubeTensor) -> CubeTensor {
    let n = tensor.shape()[1];
    let sum = CubeBackend::float_sum_dim(tensor, 0);
    burn_cubecl::ops::reshape(sum, Shape::new([n]))
}

/// Values of several tensors, one after the other.
pub fn joined(tensors: Vec<CubeTensor>) -> CubeTensor {
    let mut flat: Vec<_> = tensors.into_iter().map(flat).collect();
    match flat.len() {
        1 => flat.remove(0),
        _ => CubeBackend::float_cat(flat, 0),
    }
}

/// What is copied.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct Piece {
    /// The first value in the buffer that is read.
    from: u32,
    /// The first value in the buffer that is written.
    to: u32,
    /// Values.
    count: u32,
}

/// Copies values from one buffer into another.
#[cube(launch)]
fn copy_values(from: &[f32], to: &mut [f32], piece: &Piece) {
    if ABSOLUTE_POS < piece.count as usize {
        to[piece.to as usize + ABSOLUTE_POS] = from[piece.from as usize + ABSOLUTE_POS];
    }
}

/// Copies `count` values into a part of another tensor.
pub fn copy(from: &CubeTensor, from_at: usize, to: &CubeTensor, to_at: usize, count: usize) {
    let (cubes, units) = elementwise(to, count);
    copy_values::launch(
        &to.client,
        cubes,
        units,
        arg(from, 1),
        arg(to, 1),
        PieceLaunch {
            from: from_at as u32,
            to: to_at as u32,
            count: count as u32,
        },
    );
}

/// A dense tensor as one row of values.
pub fn flat(tensor: CubeTensor) -> CubeTensor {
    let n = len(&tensor);
    CubeTensor::new_contiguous(
        tensor.client,
        tensor.device,
        Shape::new([n]),
        tensor.handle,
        tensor.dtype,
    )
}

/// A part of a row of values, as one.
pub fn piece(tensor: &CubeTensor, start: usize, count: usize) -> CubeTensor {
    let part = empty(tensor, [1, count]);
    copy(tensor, start, &part, 0, count);
    flat(part)
}

/// Rows of values in a buffer.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct StridedRows {
    /// The first value of the first row.
    start: u32,
    /// Values from a row to the next.
    stride: u32,
}

impl From<RowsOf<'_>> for StridedRowsLaunch {
    fn from(rows: RowsOf<'_>) -> Self {
        Self {
            start: rows.start as u32,
            stride: rows.stride as u32,
        }
    }
}

/// Copies rows of values into those of another buffer, or adds them to what is there.
#[cube(launch)]
fn copy_rows_values(
    from: &[f32],
    to: &mut [f32],
    from_rows: &StridedRows,
    to_rows: &StridedRows,
    rows: u32,
    columns: u32,
    #[comptime] add: bool,
) {
    let columns = columns as usize;
    let row = ABSOLUTE_POS / columns;
    let column = ABSOLUTE_POS % columns;
    if row < rows as usize {
        let value = from[row * from_rows.stride as usize + from_rows.start as usize + column];
        let index = row * to_rows.stride as usize + to_rows.start as usize + column;
        if comptime![add] {
            to[index] += value;
        } else {
            to[index] = value;
        }
    }
}

/// Some columns of a dense matrix.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    /// The matrix.
    pub matrix: &'a CubeTensor,
    /// The first of the columns.
    pub start: usize,
}

/// Copies `columns` columns of the first `rows` rows, or adds them to what is there if `add`.
pub fn copy_columns(from: Columns<'_>, to: Columns<'_>, rows: usize, columns: usize, add: bool) {
    copy_rows(from.into(), to.into(), rows, columns, add);
}

/// Rows of values in a dense tensor.
#[derive(Clone, Copy)]
pub struct RowsOf<'a> {
    /// The tensor.
    pub tensor: &'a CubeTensor,
    /// The first value of the first row.
    pub start: usize,
    /// Values from a row to the next.
    pub stride: usize,
}

impl<'a> From<Columns<'a>> for RowsOf<'a> {
    fn from(columns: Columns<'a>) -> Self {
        Self {
            tensor: columns.matrix,
            start: columns.start,
            stride: columns.matrix.meta.shape()[1],
        }
    }
}

/// Copies the first `values` values of `rows` rows, or adds them to what is there if `add`.
pub fn copy_rows(from: RowsOf<'_>, to: RowsOf<'_>, rows: usize, values: usize, add: bool) {
    let like = to.tensor;
    let (cubes, units) = elementwise(like, rows * values);
    copy_rows_values::launch(
        &like.client,
        cubes,
        units,
        arg(from.tensor, 1),
        arg(like, 1),
        from.into(),
        to.into(),
        rows as u32,
        values as u32,
        add,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_kernels_count() {
        check_count(0);
        check_count(MOST);
    }

    #[test]
    #[should_panic(
        expected = "a buffer of 4294967296 values: kernels on devices of CubeCL count up to \
                               4294967295; expected smaller batches, shorter sequences, or \
                               Strategy::Composed"
    )]
    fn more_than_kernels_count() {
        check_count(MOST + 1);
    }
}

//! Products of matrices: Burn's, except on CubeCL's CPU runtime, where those wait at barriers.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;

use super::buffer::{arg, empty, vector_size};
use super::device::{elementwise, is_processor};

/// `a·b` into a dense tensor; of each matrix where they have three axes.
///
/// # Panics
/// If the backend has no product for these sizes, which would be an error of the backend.
pub fn product(a: CubeTensor, b: CubeTensor, out: CubeTensor) {
    if is_processor(&a) {
        return by_units(&a, &b, &out);
    }
    let done = matmul(a, b, Some(out), MatmulStrategy::default(), DType::F32);
    done.expect("a product of f32 matrices");
}

/// `a·b` as a new dense tensor.
pub fn times(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let out = empty(&a, [a.shape()[0], b.shape()[1]]);
    product(a, b, out.clone());
    out
}

/// From a matrix, a row or a column of a tensor to the next one.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct Strides {
    matrix: u32,
    row: u32,
    column: u32,
}

impl StridesLaunch {
    fn of(tensor: &CubeTensor, vector: usize) -> Self {
        let strides = tensor.meta.strides();
        let at = |from_last: usize| {
            let index = strides.len().checked_sub(from_last);
            index.map_or(0, |index| strides[index])
        };
        let column = at(1).div_ceil(vector);
        Self {
            matrix: (at(3) / vector) as u32,
            row: (at(2) / vector) as u32,
            column: column as u32,
        }
    }
}

/// Sizes of products.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
struct ProductSizes {
    /// Vectors of all results.
    count: u32,
    /// Rows of each result.
    rows: u32,
    /// Vectors of each of its rows.
    columns: u32,
    /// Terms of each sum.
    inner: u32,
}

/// `a·b`, a unit for each vector of the result.
///
/// Burn's product without `autotune` has eight units per cube and a barrier for every block of its sum. Where
/// units are threads and there are fewer cores, each barrier waits until the system has scheduled every unit.
#[cube(launch)]
fn product_by_units<N: Size>(
    a: &[f32],
    b: &[Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    sizes: &ProductSizes,
    a_strides: &Strides,
    b_strides: &Strides,
) {
    // The buffer may be larger than the result.
    if ABSOLUTE_POS >= sizes.count as usize {
        terminate!();
    }
    let column = ABSOLUTE_POS % sizes.columns as usize;
    let row = ABSOLUTE_POS / sizes.columns as usize;
    let matrix = row / sizes.rows as usize;
    let row = row % sizes.rows as usize;
    let mut from_a = matrix * a_strides.matrix as usize + row * a_strides.row as usize;
    let mut from_b = matrix * b_strides.matrix as usize + column * b_strides.column as usize;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    for _ in 0..sizes.inner {
        sum += Vector::new(a[from_a]) * b[from_b];
        from_a += a_strides.column as usize;
        from_b += b_strides.row as usize;
    }
    out[ABSOLUTE_POS] = sum;
}

fn by_units(a: &CubeTensor, b: &CubeTensor, out: &CubeTensor) {
    let (shape, strides) = (out.meta.shape(), b.meta.strides());
    let [rows, columns] = [shape[shape.len() - 2], shape[shape.len() - 1]];
    // The columns of a transposed matrix are not next to each other.
    let vector = match strides[strides.len() - 1] {
        1 => vector_size(b, &[columns, strides[strides.len() - 2]]),
        _ => 1,
    };
    let count = shape.iter().product::<usize>() / vector;
    let (cubes, units) = elementwise(out, count);
    product_by_units::launch(
        &out.client,
        cubes,
        units,
        vector,
        arg(a, 1),
        arg(b, vector),
        arg(out, vector),
        ProductSizesLaunch {
            count: count as u32,
            rows: rows as u32,
            columns: (columns / vector) as u32,
            inner: a.meta.shape()[shape.len() - 1] as u32,
        },
        StridesLaunch::of(a, 1),
        StridesLaunch::of(b, vector),
    );
}

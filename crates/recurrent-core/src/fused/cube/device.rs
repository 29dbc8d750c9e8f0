//! What depends on the device: how many units a cube has, and how many of them work on one row.
//!
//! On a GPU barriers within a cube are cheap. On CubeCL's `cpu` runtime a unit is a thread of the operating
//! system, and a unit that waits at a barrier spins. With more units than cores it spins until the system
//! schedules another thread on its core. A kernel with shared memory also waits for the kernel before it. So
//! kernels have no barriers there: each row has one unit.

use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Most units that work on one row.
const MOST_PER_ROW: usize = 128;

/// Whether units are threads of the operating system.
pub fn is_processor(like: &CubeTensor) -> bool {
    like.client.properties().hardware.num_cpu_cores.is_some()
}

/// How many units work on one row of so many vectors; a power of two.
pub fn units_per_row(like: &CubeTensor, vectors: usize) -> usize {
    if is_processor(like) {
        return 1;
    }
    let most = like.client.properties().hardware.max_units_per_cube;
    // The largest power of two that the device allows.
    let allowed = 1 << most.max(1).ilog2();
    MOST_PER_ROW.min(allowed).min(vectors.next_power_of_two())
}

/// How many cubes of how many units there are, one unit for each of `count` values, vectors or rows.
pub fn elementwise(like: &CubeTensor, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(&like.client, count);
    (calculate_cube_count_elemwise(&like.client, count, dim), dim)
}

/// A cube of `threads` units for each row.
pub fn by_rows(rows: usize, threads: usize) -> (CubeCount, CubeDim) {
    // Devices allow 65535 cubes along an axis.
    let wide = rows.min(1 << 15);
    let count = CubeCount::Static(wide as u32, rows.div_ceil(wide) as u32, 1);
    (count, CubeDim::new_1d(threads as u32))
}

/// Cubes for rows of so many vectors: a unit per vector if `threads` is 0, per row if it is 1, or a cube
/// of as many units per row.
pub fn cubes(
    like: &CubeTensor,
    rows: usize,
    vectors: usize,
    threads: usize,
) -> (CubeCount, CubeDim) {
    match threads {
        0 => elementwise(like, rows * vectors),
        1 => elementwise(like, rows),
        _ => by_rows(rows, threads),
    }
}

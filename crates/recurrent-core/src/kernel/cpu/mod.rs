//! Kernels on slices: the recurrence of a whole sequence on a CPU, forward and backward.

pub mod adaptive;
pub mod buffer;
pub mod gang;
pub mod halves;
pub mod layout;
pub mod parts;
pub mod pointwise;
pub mod product;
pub mod recurrence;
pub mod rows;
pub mod simd;
pub mod sums;
pub mod transpose;

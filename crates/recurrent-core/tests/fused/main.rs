//! Fused kernels against the composed scan: values and all gradients.
//!
//! - `agreement`: every cell and option set, sizes around the ends of vectors, large sizes;
//! - `amplified`: masks of 10 per step, large cells, saturated gates;
//! - `bits`: hashes of all results, to compare two versions of the code;
//! - `histories`: the states of all steps, and what comes back through them;
//! - `graph`: some parents tracked, strided tensors, repeated calls;
//! - `shapes`: tensors of other shapes than a call's are refused;
//! - `strategy`: which way a call goes, and what is said where there is none.
//!
//! The composed scan runs in f64 on Flex, so that all of a difference is the kernel's rounding.
//! A new cell is a variant of `kinds::Kind` and an arm of `kinds::cell`.

#[allow(dead_code)] // not all of it is needed here
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../scan/options.rs"]
mod options;

#[path = "../common/bits.rs"]
mod bits_of;

mod agreement;
mod amplified;
mod bits;
mod case;
mod graph;
mod histories;
mod kinds;
mod leaves;
mod shapes;
mod strategy;

//! Weights from other projects and back: layouts, errors, files.

mod burn_nn;
mod errors;
mod half;
mod layouts;
mod support;
mod torch_files;

//! Weights from other projects and back: layouts, errors, files.

mod burn_nn;
mod errors;
mod formats;
mod half;
mod layouts;
mod support;
mod torch_files;

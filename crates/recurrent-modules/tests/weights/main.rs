//! Weights from other projects and back: layouts, errors, files.

mod burn_nn;
mod errors;
mod formats;
mod gru;
mod gru_sources;
mod half;
mod layouts;
mod support;
mod torch_files;

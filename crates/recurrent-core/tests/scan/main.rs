//! Level 3: `sequence::run` on the three LSTM cells.
//!
//! - `reference`: values and gradients against the scalar oracle in f64 and its slopes;
//! - `properties`: identities that need no reference;
//! - `panics`: calls that do not fit.

#[path = "../common/mod.rs"]
mod common;
mod network;
mod options;
mod panics;
mod properties;
mod reference;
mod setup;

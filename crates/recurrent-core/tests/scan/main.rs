//! Level 3: `sequence::run` on the three LSTM cells and the GRU cell.
//!
//! - `reference`: values and gradients against the scalar oracle in f64 and its slopes;
//! - `properties`: identities that need no reference;
//! - `panics`: calls that do not fit;
//! - `gru`: all of this for the GRU.

#[path = "../common/mod.rs"]
mod common;
mod gru;
mod network;
mod options;
mod panics;
mod properties;
mod reference;
mod setup;

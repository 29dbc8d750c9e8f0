//! Identities that hold for every variant: STYLE 2.4, point 6.
//!
//! Each is checked for values and gradients, on data from a seeded host generator. Where the
//! arithmetic is the same the comparison is bitwise, else as tight as `compare.rs` allows.

mod checks;
mod containers;
mod dropout;
mod init;
mod lengths;
mod masks;
mod modules;
mod sequences;
mod variants;

mod support;

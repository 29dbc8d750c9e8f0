//! Whether a change of the code changes a bit of its results.
//!
//! `RECURRENT_BITS=FILE` writes a line per case, its name and a hash of values and gradients; two such
//! files of one machine are compared with `diff`:
//! ```sh
//! RECURRENT_BITS=/tmp/before cargo test --workspace --test fused --test kernels bits
//! ```

use std::fmt::Write as _;
use std::io::Write as _;

/// A hash of a list of numbers, bit by bit (FNV-1a); the place of each counts.
pub struct Bits(u64);

impl Bits {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn add(&mut self, values: impl IntoIterator<Item = f64>) {
        for value in values {
            // All NaN are one.
            let bits = if value.is_nan() {
                u64::MAX
            } else {
                value.to_bits()
            };
            for byte in bits.to_le_bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }

    pub fn line(&self, name: &str) -> String {
        format!("{:016x} {name}", self.0)
    }
}

/// Appends lines to the file that `RECURRENT_BITS` names, if it does.
pub fn record(lines: impl IntoIterator<Item = String>) {
    let Some(path) = std::env::var_os("RECURRENT_BITS") else {
        return;
    };
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}").expect("a string");
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).append(true).open(&path);
    let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(text.as_bytes()).expect("written");
}

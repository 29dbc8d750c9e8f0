//! burnpack files: as they are, and behind a correct header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    recurrent_fuzz::load(bytes.to_vec());
    let length = (bytes.len() as u32).to_le_bytes();
    recurrent_fuzz::load([&b"NRUB\x01\x00"[..], &length, bytes].concat());
});

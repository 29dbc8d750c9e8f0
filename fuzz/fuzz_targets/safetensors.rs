//! `.safetensors` files: as they are, and with a correct length before the header.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    recurrent_fuzz::load(bytes.to_vec());
    let end = bytes
        .iter()
        .rposition(|&byte| byte == b'}')
        .map_or(0, |at| at + 1);
    recurrent_fuzz::load([&(end as u64).to_le_bytes()[..], bytes].concat());
});

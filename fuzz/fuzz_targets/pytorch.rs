//! `.pt` and `.pth` files: as they are, and as the saved object of the form before version 1.6, so
//! that the pickle machine is reached without a correct archive around it.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The magic number, the protocol and `{"little_endian": True}`.
const OLD_FORM: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\
    \x80\x02}q\x00X\x0d\x00\x00\x00little_endianq\x01\x88s.";

fuzz_target!(|bytes: &[u8]| {
    recurrent_fuzz::load(bytes.to_vec());
    recurrent_fuzz::load([OLD_FORM, bytes].concat());
});

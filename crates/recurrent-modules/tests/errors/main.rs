//! Mistakes are reported: in configs as [`InvalidConfig`] before any tensor is made, at call time
//! as panics. Each text names the thing, what it was and what was expected.

mod calls;
mod configs;
mod locations;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use recurrent_modules::{LayerNormLstmConfig, LstmConfig, RecurrentConfig, SlowLstmConfig};

const B: usize = 3;
const T: usize = 5;
const I: usize = 7;
const H: usize = 11;

/// The text of the panic of `f`.
#[track_caller]
fn panic_text<R: Debug>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => panic!("expected a panic, got {value:?}"),
        Err(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload.downcast::<&str>().expect("a text").to_string(),
        },
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
}

fn variants() -> Vec<RecurrentConfig> {
    vec![
        RecurrentConfig::Lstm(LstmConfig::new(I, H)),
        RecurrentConfig::SlowLstm(SlowLstmConfig::new(I, H)),
        RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::new(I, H)),
        RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::lstms_pth(I, H)),
    ]
}

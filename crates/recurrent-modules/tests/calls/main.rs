//! What a call accepts: tensors on plain and autodiff devices, of any type of numbers, and batches in
//! which there is nothing to run.

mod devices;
mod empty;
#[path = "../properties/support.rs"]
#[allow(dead_code, unused_imports, unused_macros)] // what the other tests take from it
mod support;
mod types;

use recurrent_modules::{AdaptiveLstmConfig, RecurrentConfig};
use support::{H, I};

/// Every variant.
fn all_variants() -> Vec<(&'static str, RecurrentConfig)> {
    let mut list = support::variants();
    list.push((
        "AdaptiveLstm",
        RecurrentConfig::AdaptiveLstm(AdaptiveLstmConfig::new(I, H).with_d_adapt(4)),
    ));
    list.push((
        "AdaptiveLstm, two layers",
        RecurrentConfig::AdaptiveLstm(AdaptiveLstmConfig::stacked(I, [8, H]).with_d_adapt(4)),
    ));
    list
}

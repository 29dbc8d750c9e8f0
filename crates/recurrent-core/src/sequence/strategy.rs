//! How a sequence is run.

use burn::serde::{Deserialize, Serialize};

/// How a sequence is run.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(crate = "burn::serde")]
pub enum Strategy {
    /// A fused kernel if one supports the cell, the device and the element type; otherwise the composed
    /// scan. [`reason`](super::reason) tells why.
    #[default]
    Auto,
    /// Tensor operations, step by step, differentiated by Burn.
    Composed,
    /// A fused kernel; panics with the reason if there is none.
    Fused,
}

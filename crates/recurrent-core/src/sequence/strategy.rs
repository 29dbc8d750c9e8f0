//! How a sequence is run.

use burn::serde::{Deserialize, Serialize};

/// How a sequence is run.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(crate = "burn::serde")]
pub enum Strategy {
    /// A fused kernel where there is one for the cell, the device and the type of numbers; the
    /// composed scan otherwise. [`reason`](super::reason) says why.
    #[default]
    Auto,
    /// Tensor operations, step by step, differentiated by Burn.
    Composed,
    /// A fused kernel, or a panic that says why there is none.
    Fused,
}

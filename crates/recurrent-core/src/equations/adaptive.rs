//! Adaptive LSTM (aLSTM): a policy scales inputs and pre-activations at each step.
//!
//! ```text
//! policy = [p_x (I) | p_h (d_output) | p_i (4H) | p_g (4H) | p_b (4H, only with a bias)]
//! z = ((x ⊙ p_x)·W) ⊙ p_i + ((h ⊙ p_h)·R) ⊙ p_g + b ⊙ p_b        then as in lstm.rs
//! ```
//!
//! **Source.** Flennerhag et al., Breaking the Activation Function Bottleneck through Adaptive
//! Parameterization, arXiv:1805.08574, section 3.

use burn::serde::{Deserialize, Serialize};
use burn::tensor::Tensor;

/// Where the parts of a policy are in its vector.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(crate = "burn::serde")]
pub enum PolicyLayout {
    /// Concatenated: the published equations.
    Cumulative,
    /// Part j starts at the size of part j − 1 (0 for the first), as the published code does: parts
    /// overlap and p_g = p_b. For checkpoints of that code only.
    Overlapping,
}

/// A policy in its parts.
#[derive(Debug, Clone)]
pub struct Policy {
    /// p_x `[B, I]`
    pub input: Tensor<2>,
    /// p_h `[B, d_output]`
    pub hidden: Tensor<2>,
    /// p_i `[B, 4H]`
    pub preact_input: Tensor<2>,
    /// p_g `[B, 4H]`
    pub preact_hidden: Tensor<2>,
    /// p_b `[B, 4H]`
    pub bias: Option<Tensor<2>>,
}

impl PolicyLayout {
    /// Length of the policy vector.
    pub const fn size(d_input: usize, d_hidden: usize, d_output: usize, bias: bool) -> usize {
        d_input + d_output + 4 * d_hidden * if bias { 3 } else { 2 }
    }

    /// Splits a policy `[B, size]` into its parts.
    ///
    /// # Panics
    /// If the policy has another size.
    #[track_caller]
    pub fn split(
        self,
        policy: Tensor<2>,
        d_input: usize,
        d_hidden: usize,
        d_output: usize,
        bias: bool,
    ) -> Policy {
        let [rows, got] = policy.dims();
        let expected = Self::size(d_input, d_hidden, d_output, bias);
        assert!(
            got == expected,
            "policy has {got} features, expected {expected}"
        );
        let gates = 4 * d_hidden;
        let sizes = [d_input, d_output, gates, gates, gates];
        let part = |index: usize| {
            let start = match (self, index) {
                (_, 0) => 0,
                (Self::Cumulative, _) => sizes[..index].iter().sum(),
                (Self::Overlapping, _) => sizes[index - 1],
            };
            policy.clone().slice([0..rows, start..start + sizes[index]])
        };
        Policy {
            input: part(0),
            hidden: part(1),
            preact_input: part(2),
            preact_hidden: part(3),
            bias: bias.then(|| part(4)),
        }
    }
}

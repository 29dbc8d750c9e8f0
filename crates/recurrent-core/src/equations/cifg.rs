//! Coupled input and forget gates (CIFG).
//!
//! ```text
//! independent          i = σ(z_i)                    f = σ(z_f)
//! input from forget    i = 1 − f                     f = σ(z_f)
//! forget from input    i = σ(z_i)                    f = 1 − i
//! capped input         i = min(σ(z_i), 1 − f)        f = σ(z_f)
//! ```
//! then as in [`super::lstm`]. The second and third form are the same family: substituting z_f = −z_i
//! turns one into the other.
//!
//! **Source.** Greff et al., LSTM: A Search Space Odyssey, arXiv:1503.04069, appendix A.1 (CIFG: f = 1 −
//! i, also burn-nn's `input_forget` and ONNX); i = 1 − f is common in teaching code; the cap is that of
//! lamb (Melis et al., arXiv:1707.05589).

use burn::serde::{Deserialize, Serialize};
use burn::tensor::{Tensor, activation::sigmoid};

use super::lstm::one_minus;
use crate::gates::GateLayout;

/// How the input and forget gates depend on each other.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(crate = "burn::serde")]
pub enum Coupling {
    /// i and f are computed independently.
    Independent,
    /// i = 1 − f; there are no input-gate weights.
    InputFromForget,
    /// f = 1 − i; there are no forget-gate weights.
    ForgetFromInput,
    /// i = min(i, 1 − f); both gates have weights.
    CappedInput,
}

impl Coupling {
    /// The gates that have weights, in packed order.
    pub const fn layout(self) -> GateLayout {
        match self {
            Self::Independent | Self::CappedInput => GateLayout::LSTM,
            Self::InputFromForget => GateLayout::FORGET_ONLY,
            Self::ForgetFromInput => GateLayout::INPUT_ONLY,
        }
    }

    /// (i, f) from the pre-activations of the gates that have weights.
    ///
    /// # Panics
    /// If a pre-activation that the coupling needs is missing.
    #[track_caller]
    pub fn gates(
        self,
        preact_input: Option<Tensor<2>>,
        preact_forget: Option<Tensor<2>>,
    ) -> (Tensor<2>, Tensor<2>) {
        let input = || sigmoid(preact_input.clone().expect("the input gate has weights"));
        let forget = || sigmoid(preact_forget.clone().expect("the forget gate has weights"));
        match self {
            Self::Independent => (input(), forget()),
            Self::InputFromForget => {
                let forget = forget();
                (one_minus(forget.clone()), forget)
            }
            Self::ForgetFromInput => {
                let input = input();
                (input.clone(), one_minus(input))
            }
            Self::CappedInput => {
                let forget = forget();
                (input().min_pair(one_minus(forget.clone())), forget)
            }
        }
    }
}

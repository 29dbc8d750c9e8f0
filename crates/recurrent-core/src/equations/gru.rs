//! Gated recurrent unit.
//!
//! ```text
//! r = σ(x·W_r + h·R_r + b_r)      z = σ(x·W_z + h·R_z + b_z)
//! n = tanh(x·W_n + b_n + s)       s = r ⊙ (h·R_n + b_hn)    reset after the product
//!                                 s = (r ⊙ h)·R_n           reset before it
//! h' = (1 − z) ⊙ n + z ⊙ h
//! ```
//! where `x` is the input `[B, I]`, `h` the previous hidden state `[B, H]`; packed weights are in the
//! order of [`GateLayout::GRU`](crate::GateLayout::GRU).
//! Ranges: gates (0, 1); h' is between n and h, so |h'| < 1 if the initial h is in that range.
//!
//! **Source.** Cho et al., Learning Phrase Representations using RNN Encoder–Decoder,
//! arXiv:1406.1078v3, section 2.3: reset before the product. Reset after the product is the
//! form of cuDNN and `torch.nn.GRU`: all three blocks share one product per step.
//! **Differs from it:** biases, which the paper omits. Chung et al., arXiv:1412.3555, section 3.2,
//! swap z and 1 − z. **Same maths elsewhere.** `cell/gru.rs`, `eval/oracle.rs`.

use burn::tensor::{
    Tensor,
    activation::{sigmoid, tanh},
};

use super::lstm::one_minus;

/// Activated gates, each `[B, H]`.
#[derive(Debug, Clone)]
pub struct Gates {
    /// r
    pub reset: Tensor<2>,
    /// z
    pub update: Tensor<2>,
    /// n
    pub candidate: Tensor<2>,
}

/// Pre-activations, each `[B, H]`.
#[derive(Debug, Clone)]
pub struct Preactivations {
    /// `x·W_r + h·R_r + b_r`
    pub reset: Tensor<2>,
    /// `x·W_z + h·R_z + b_z`
    pub update: Tensor<2>,
    /// `x·W_n + b_n`: the candidate's pre-activation without s
    pub candidate: Tensor<2>,
}

/// Activates the gates.
///
/// # Arguments
/// * `from_hidden` - computes s `[B, H]` from r by [`reset`], with a product before or after it
pub fn gates(preact: Preactivations, from_hidden: impl FnOnce(&Tensor<2>) -> Tensor<2>) -> Gates {
    let reset = sigmoid(preact.reset);
    let candidate = tanh(preact.candidate + from_hidden(&reset));
    Gates {
        reset,
        update: sigmoid(preact.update),
        candidate,
    }
}

/// `r ⊙ v`, where v is `h·R_n + b_hn` if the reset gate acts after the product, and h if it acts before
/// it.
pub fn reset(reset: Tensor<2>, of: Tensor<2>) -> Tensor<2> {
    reset * of
}

/// `h' = (1 − z) ⊙ n + z ⊙ h`
pub fn hidden(update: Tensor<2>, candidate: Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
    one_minus(update.clone()) * candidate + update * hidden
}

/// Derivatives of the new hidden state, see [`backward`].
#[derive(Debug, Clone)]
pub struct Gradients {
    /// With respect to the pre-activation of z, `[B, H]`.
    pub update: Tensor<2>,
    /// With respect to the argument of n's tanh, which is also that of s, `[B, H]`.
    pub candidate: Tensor<2>,
    /// With respect to h, the direct part z ⊙ h of h', `[B, H]`.
    pub hidden: Tensor<2>,
}

/// Derivative of h' from `∂L/∂h'`, up to the gradient of s.
///
/// ```text
/// δa_n = ∂L/∂h' ⊙ (1 − z) ⊙ (1 − n²)      δa_z = ∂L/∂h' ⊙ (h − n) ⊙ z(1 − z)
/// ∂L/∂h += ∂L/∂h' ⊙ z
/// ```
/// The other terms of ∂L/∂h come from [`backward_reset`] and the products.
///
/// # Arguments
/// * `gates` - the activated gates of the forward step
/// * `hidden` - h, the state before the step
/// * `grad_hidden` - `∂L/∂h'` `[B, H]`
pub fn backward(gates: &Gates, hidden: Tensor<2>, grad_hidden: Tensor<2>) -> Gradients {
    let Gates {
        update, candidate, ..
    } = gates.clone();
    let new_share = one_minus(update.clone());
    Gradients {
        update: grad_hidden.clone()
            * (hidden - candidate.clone())
            * update.clone()
            * new_share.clone(),
        candidate: grad_hidden.clone() * new_share * one_minus(candidate.square()),
        hidden: grad_hidden * update,
    }
}

/// Derivatives of `r ⊙ v`, see [`backward_reset`].
#[derive(Debug, Clone)]
pub struct ResetGradients {
    /// With respect to the pre-activation of r, `[B, H]`.
    pub reset: Tensor<2>,
    /// With respect to v, `[B, H]`.
    pub of: Tensor<2>,
}

/// Derivative of `r ⊙ v`.
///
/// ```text
/// δa_r = δ ⊙ v ⊙ r(1 − r)      δv = δ ⊙ r
/// ```
/// Reset after the product: δ is δa_n and v is `h·R_n + b_hn`, so `∂L/∂h += δv·R_nᵀ`. Reset before it: δ
/// is `δa_n·R_nᵀ` and v is h, so `∂L/∂h += δv`.
///
/// # Arguments
/// * `reset` - r of the forward step
/// * `of` - v
/// * `grad` - δ `[B, H]`
pub fn backward_reset(reset: Tensor<2>, of: Tensor<2>, grad: Tensor<2>) -> ResetGradients {
    ResetGradients {
        reset: grad.clone() * of * reset.clone() * one_minus(reset.clone()),
        of: grad * reset,
    }
}

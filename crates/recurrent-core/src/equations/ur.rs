//! The gates of UR-LSTM: one effective gate sets how much of the old cell is kept.
//!
//! ```text
//! c' = e ⊙ c + (1 − e) ⊙ g
//! standard   e = f
//! refine     e = r ⊙ (1 − (1 − f)²) + (1 − r) ⊙ f²  =  2 r f + (1 − 2 r) f²
//! f = σ(z_f + b)     r = σ(z_r − b) (tied) or σ(z_r)
//! ```
//! e is between f² (r = 0) and 1 − (1 − f)² (r = 1): the refine gate still changes the effective gate
//! where the forget gate is saturated.
//!
//! ```text
//! master     f̂ = f ⊙ ω + (f̃ − ω)     î = i ⊙ ω + (ĩ − ω)     ω = f̃ ⊙ ĩ
//!            f̃ = cumax(z_f̃)           ĩ = 1 − cumax(z_ĩ)      c' = f̂ ⊙ c + î ⊙ g
//! ```
//! with cumax = cumsum ∘ softmax over the units: ordered neurons.
//!
//! **Source.** Gu et al., Improving the Gating Mechanism of Recurrent Neural Networks,
//! arXiv:1910.09890, equations 8 to 12; Shen et al., Ordered Neurons, arXiv:1810.09536, equations
//! 7 to 13.

use burn::tensor::Tensor;

use super::lstm::one_minus;

/// The refined forget gate `2 r f + (1 − 2 r) f²`, computed as `f (f + 2 r (1 − f))` to avoid
/// cancellation.
pub fn effective_gate(forget: Tensor<2>, refine: Tensor<2>) -> Tensor<2> {
    let twice = refine.mul_scalar(2.0);
    forget.clone() * (forget.clone() + twice * one_minus(forget))
}

/// Derivative of [`effective_gate`]: `(∂e/∂f, ∂e/∂r)`.
///
/// ```text
/// ∂e/∂f = 2 (r (1 − f) + f (1 − r))        ∂e/∂r = 2 f (1 − f)
/// ```
pub fn effective_gate_backward(forget: Tensor<2>, refine: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let by_forget = refine.clone() * one_minus(forget.clone());
    let by_forget = (by_forget + forget.clone() * one_minus(refine)).mul_scalar(2.0);
    let by_refine = (forget.clone() * one_minus(forget)).mul_scalar(2.0);
    (by_forget, by_refine)
}

/// `cumsum(softmax(x))` over the units: rises from near 0 to 1.
pub fn cumax(x: Tensor<2>) -> Tensor<2> {
    // Burn's softmax is one operation without autodiff and several with it, which round differently. The
    // operations here are the same in both cases. Softmax is invariant to the shift.
    let shift = x.clone().detach().max_dim(1);
    let weights = (x - shift).exp();
    let sum = weights.clone().sum_dim(1);
    (weights / sum).cumsum(1)
}

/// (î, f̂): the gates after applying the master gates.
///
/// # Arguments
/// * `input`, `forget` - i, f after σ
/// * `preact_master_input`, `preact_master_forget` - z_ĩ, z_f̃; all `[B, H]`
pub fn master_gates(
    input: Tensor<2>,
    forget: Tensor<2>,
    preact_master_input: Tensor<2>,
    preact_master_forget: Tensor<2>,
) -> (Tensor<2>, Tensor<2>) {
    let master_forget = cumax(preact_master_forget);
    let master_input = one_minus(cumax(preact_master_input));
    let overlap = master_forget.clone() * master_input.clone();
    (
        input * overlap.clone() + (master_input - overlap.clone()),
        forget * overlap.clone() + (master_forget - overlap),
    )
}

/// The uniform gate initialisation: `b = −log(1/u − 1)`, `u = r·(1 − 2/H) + 1/H`, so that
/// σ(b) = u ~ U[1/H, 1 − 1/H].
///
/// With fewer than 3 units the range is empty or reversed: b = 0.
///
/// # Arguments
/// * `draws` - r ~ U[0, 1), `[H]`
pub fn uniform_gate_bias(draws: Tensor<1>) -> Tensor<1> {
    let [size] = draws.dims();
    if size < 3 {
        return draws.zeros_like();
    }
    let edge = 1.0 / size as f64;
    let u = draws.mul_scalar(1.0 - 2.0 * edge).add_scalar(edge);
    u.recip().sub_scalar(1.0).log().neg()
}

/// The chrono initialisation: `b = log(u)`, `u = 1 + r·(t_max − 2)` ~ U[1, t_max − 1].
///
/// # Arguments
/// * `draws` - r ~ U[0, 1), `[H]`
/// * `t_max` - the longest dependency expected, in steps; at least 3
///
/// **Source.** Tallec & Ollivier, Can recurrent neural networks warp time?, arXiv:1804.11188,
/// equation 16.
pub fn chrono_bias(draws: Tensor<1>, t_max: usize) -> Tensor<1> {
    draws.mul_scalar(t_max as f64 - 2.0).add_scalar(1.0).log()
}

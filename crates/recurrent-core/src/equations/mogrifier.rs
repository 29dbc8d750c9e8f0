//! Mogrifier: input and hidden state gate each other before the LSTM.
//!
//! ```text
//! x⁻¹ = x     h⁰ = h
//! odd rounds k = 1, 3, …     xᵏ = 2 σ(hᵏ⁻¹·Qᵏ + b) ⊙ xᵏ⁻²
//! even rounds k = 2, 4, …    hᵏ = 2 σ(xᵏ⁻¹·Rᵏ + b) ⊙ hᵏ⁻²
//! ```
//! The LSTM then takes the last x and h. c is not modulated, and the carried state is the output state of
//! the LSTM.
//!
//! **Source.** Melis, Kočiský & Blunsom, Mogrifier LSTM, arXiv:1909.01792, equations 1 and 2. The
//! paper has no bias; the authors' code has one.

use burn::tensor::{Tensor, activation::sigmoid};

/// `2 σ(z) ⊙ value`: a gate that is 1 where z = 0.
///
/// # Shapes
/// - preact, value, output `[B, features]`
pub fn gate(preact: Tensor<2>, value: Tensor<2>) -> Tensor<2> {
    sigmoid(preact).mul_scalar(2.0) * value
}

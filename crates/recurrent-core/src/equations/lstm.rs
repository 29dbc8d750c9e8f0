//! Long short-term memory with a forget gate.
//!
//! ```text
//! z = x·W + h·R + b                     split by GateLayout::LSTM
//! i = σ(z_i)   f = σ(z_f)   g = tanh(z_g)   o = σ(z_o)
//! c' = f ⊙ c + i ⊙ g
//! h' = o ⊙ tanh(c')
//! ```
//! where `x` is the input `[B, I]`, `h`, `c` the previous hidden and cell state `[B, H]`.
//! Ranges: gates (0, 1); |h'| < 1; c' is unbounded.
//!
//! **Source.** Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 9(8), 1997;
//! the forget gate: Gers, Schmidhuber & Cummins, Learning to Forget, 2000.
//! **Differs from it:** no. **Same maths elsewhere.** `cell/lstm.rs`, `eval/oracle.rs`.

use alloc::vec;

use burn::tensor::{
    Tensor,
    activation::{sigmoid, tanh},
};

use crate::gates::GateLayout;

/// Activated gates, each `[B, H]`.
///
/// `input` and `forget` are the factors of the candidate and the old cell; in some variants one is derived
/// from the other.
#[derive(Debug, Clone)]
pub struct Gates {
    /// i
    pub input: Tensor<2>,
    /// f
    pub forget: Tensor<2>,
    /// g
    pub candidate: Tensor<2>,
    /// o
    pub output: Tensor<2>,
}

/// Activates the four gates.
///
/// # Shapes
/// - preact `[B, 4·H]` in the order of [`GateLayout::LSTM`]
#[track_caller]
pub fn gates(preact: Tensor<2>) -> Gates {
    let [input, forget, candidate, output] = GateLayout::LSTM.split(preact);
    Gates {
        input: sigmoid(input),
        forget: sigmoid(forget),
        candidate: tanh(candidate),
        output: sigmoid(output),
    }
}

/// `c' = f ⊙ c + i ⊙ g`
pub fn cell(
    forget: Tensor<2>,
    cell: Tensor<2>,
    input: Tensor<2>,
    candidate: Tensor<2>,
) -> Tensor<2> {
    forget * cell + input * candidate
}

/// `h' = o ⊙ tanh(c')`
pub fn hidden(output: Tensor<2>, cell: Tensor<2>) -> Tensor<2> {
    output * tanh(cell)
}

/// Derivatives of one step, see [`backward`].
#[derive(Debug, Clone)]
pub struct Gradients {
    /// With respect to the pre-activations, `[B, 4·H]`.
    pub preact: Tensor<2>,
    /// With respect to the previous cell state, `[B, H]`.
    pub cell: Tensor<2>,
}

/// Derivative of one step: from `∂L/∂h'` and the part of `∂L/∂c'` that comes from later steps.
///
/// ```text
/// δc = ∂L/∂c' + ∂L/∂h' ⊙ o ⊙ (1 − tanh²(c'))
/// δz_i = δc ⊙ g ⊙ i(1 − i)         δz_f = δc ⊙ c ⊙ f(1 − f)
/// δz_g = δc ⊙ i ⊙ (1 − g²)         δz_o = ∂L/∂h' ⊙ tanh(c') ⊙ o(1 − o)
/// ∂L/∂c = δc ⊙ f
/// ```
///
/// # Arguments
/// * `gates` - the activated gates of the forward step
/// * `cell` - c, the cell before the step
/// * `next_cell` - c', the cell after it
/// * `grad_hidden`, `grad_next_cell` - `[B, H]`
pub fn backward(
    gates: &Gates,
    cell: Tensor<2>,
    next_cell: Tensor<2>,
    grad_hidden: Tensor<2>,
    grad_next_cell: Tensor<2>,
) -> Gradients {
    let Gates {
        input,
        forget,
        candidate,
        output,
    } = gates.clone();
    let squashed = tanh(next_cell);
    let delta = grad_next_cell
        + grad_hidden.clone() * output.clone() * one_minus(squashed.clone().square());

    let preact_input = delta.clone() * candidate.clone() * input.clone() * one_minus(input.clone());
    let preact_forget = delta.clone() * cell * forget.clone() * one_minus(forget.clone());
    let preact_candidate = delta.clone() * input * one_minus(candidate.square());
    let preact_output = grad_hidden * squashed * output.clone() * one_minus(output);
    Gradients {
        preact: Tensor::cat(
            vec![preact_input, preact_forget, preact_candidate, preact_output],
            1,
        ),
        cell: delta * forget,
    }
}

/// `1 − x`
pub(crate) fn one_minus(x: Tensor<2>) -> Tensor<2> {
    x.neg().add_scalar(1.0)
}

//! Level 1: pointwise equations, without weights and without time.
//!
//! Each file states its equations in the module docs and gives the value as tensor functions. If a fused
//! kernel needs the derivative, it is given as tensor functions next to the value. The derivatives are
//! tested against autodiff and against finite differences in f64; the hand-written kernels are compared
//! with them.

pub mod adaptive;
pub mod cifg;
pub mod dropout;
pub mod gru;
pub mod layer_norm;
pub mod lstm;
pub mod masks;
pub mod mogrifier;
pub mod peephole;
pub mod ur;

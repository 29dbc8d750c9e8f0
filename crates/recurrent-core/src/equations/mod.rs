//! Level 1: pointwise equations, without weights and without time.
//!
//! Each file states its equations in the module docs, gives the value as tensor functions and,
//! where a fused kernel will need it, the derivative as tensor functions beside it. The
//! derivatives are tested against autodiff and against finite differences in f64; they are the
//! reference that hand-written kernels are compared with.

pub mod adaptive;
pub mod cifg;
pub mod dropout;
pub mod layer_norm;
pub mod lstm;
pub mod masks;
pub mod mogrifier;
pub mod peephole;
pub mod ur;

//! A step of the GRU on vectors of units, and its derivative.
//!
//! The equations and names are those of `equations/gru.rs`. Blocks 0, 1 and 2 of a row of gates
//! are r, z and n. If the reset gate acts before the product, a step has two halves, between
//! which r ⊙ h is multiplied with R_n.

use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::{At, one_minus, sigmoid_slope, tanh_slope, zoneout};
use crate::equations::masks::Masks;
use crate::fused::cpu::simd::{Either, Isa, fma, sigmoid, tanh};
use crate::fused::cpu::view::{GateRows, Rows};

/// r
const RESET: usize = 0;
/// z
const UPDATE: usize = 1;
/// n
const CANDIDATE: usize = 2;

/// From pre-activations to h'.
#[derive(Debug, Clone)]
pub struct GruForward {
    /// Number of sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// x·W + b; replaced by the activated gates.
    pub gates: GateRows,
    /// h·R, whose block 2 is h·R_n; in the second half block 0 is (r ⊙ h)·R_n.
    pub product: GateRows,
    /// b_hn `[H]`; null: 0
    pub bias: *const f32,
    /// Receives u = h·R_n + b_hn, or r ⊙ h in the first half. `Rows::NONE`: not needed.
    pub inner: Rows,
    /// h
    pub hidden: Rows,
    /// h'
    pub hidden_next: Rows,
    /// Masks on n and h; there are none on c.
    pub masks: Masks<Rows>,
}

/// Which part of a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GruHalf {
    /// The whole step: the reset gate acts after the product.
    Both,
    /// r, z and r ⊙ h.
    Gates,
    /// n and h'.
    Candidate,
}

impl GruForward {
    /// # Safety
    /// Everything that the half reads is readable for the rows and units; what it writes belongs to the
    /// caller alone.
    pub unsafe fn run(self, isa: Isa, half: GruHalf, masked: bool) {
        match (half, masked) {
            (GruHalf::Gates, _) => isa.run(GatesHalf(self)),
            (GruHalf::Both, false) => isa.run(Step::<true, false>(self)),
            (GruHalf::Both, true) => isa.run(Step::<true, true>(self)),
            (GruHalf::Candidate, false) => isa.run(Step::<false, false>(self)),
            (GruHalf::Candidate, true) => isa.run(Step::<false, true>(self)),
        }
    }

    /// The activated r or z.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn gate<S: Simd>(&self, simd: S, at: At<S>, gate: usize) -> S::f32s {
        // SAFETY: by the contract of this function.
        unsafe {
            let z = at.read_gate(simd, self.gates, gate);
            sigmoid(
                simd,
                simd.add_f32s(z, at.read_gate(simd, self.product, gate)),
            )
        }
    }
}

/// n and h'; `WHOLE` also r and z before them.
struct Step<const WHOLE: bool, const MASKED: bool>(GruForward);

impl<const WHOLE: bool, const MASKED: bool> WithSimd for Step<WHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `GruForward::run`.
            unsafe {
                let from_input = at.read_gate(simd, args.gates, CANDIDATE);
                let (z, from_hidden) = match WHOLE {
                    true => {
                        let r = args.gate(simd, at, RESET);
                        let z = args.gate(simd, at, UPDATE);
                        let mut u = at.read_gate(simd, args.product, CANDIDATE);
                        if !args.bias.is_null() {
                            u = simd.add_f32s(u, at.weight(simd, args.bias));
                        }
                        at.write_gate(simd, args.gates, RESET, r);
                        at.write_gate(simd, args.gates, UPDATE, z);
                        if !args.inner.is_none() {
                            at.write(simd, args.inner, u);
                        }
                        (z, simd.mul_f32s(r, u))
                    }
                    false => (
                        at.read_gate(simd, args.gates, UPDATE),
                        at.read_gate(simd, args.product, 0),
                    ),
                };
                let mut n = tanh(simd, simd.add_f32s(from_input, from_hidden));
                at.write_gate(simd, args.gates, CANDIDATE, n);
                if MASKED {
                    n = simd.mul_f32s(n, at.mask(simd, args.masks.candidate));
                }
                let h = at.read(simd, args.hidden);
                let new = simd.mul_f32s(one_minus(simd, z), n);
                let mut next = fma(simd, z, h, new);
                if MASKED {
                    next = simd.mul_f32s(next, at.mask(simd, args.masks.hidden));
                    next = zoneout(simd, at.mask(simd, args.masks.update_hidden), next, h);
                }
                at.write(simd, args.hidden_next, next);
            }
        });
    }
}

/// r, z and r ⊙ h.
struct GatesHalf(GruForward);

impl WithSimd for GatesHalf {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `GruForward::run`.
            unsafe {
                let r = args.gate(simd, at, RESET);
                let z = args.gate(simd, at, UPDATE);
                at.write_gate(simd, args.gates, RESET, r);
                at.write_gate(simd, args.gates, UPDATE, z);
                let h = at.read(simd, args.hidden);
                at.write(simd, args.inner, simd.mul_f32s(r, h));
            }
        });
    }
}

/// From ∂h' to the gradients of the pre-activations, and the part of ∂h that bypasses them.
#[derive(Debug, Clone)]
pub struct GruBackward {
    /// Number of sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// Activated gates.
    pub gates: GateRows,
    /// u = h·R_n + b_hn; not used in halves.
    pub inner: Rows,
    /// h
    pub hidden: Rows,
    /// ∂h' from later steps on entry; on return the part of ∂h that bypasses the products.
    pub grad_hidden: Rows,
    /// ∂y
    pub grad_output: Rows,
    /// Gradient of x·W + b.
    pub grad_preact: GateRows,
    /// Gradient of h·R: all three blocks, or r and z only, in halves.
    pub grad_product: GateRows,
    /// Gradient of (r ⊙ h)·R_n, in halves.
    pub grad_candidate: Rows,
    /// ∂(r ⊙ h), in the second half.
    pub grad_inner: Rows,
    /// As in the forward.
    pub masks: Masks<Rows>,
}

impl GruBackward {
    /// # Arguments
    /// * `half` - in the backward the candidate's half runs first
    ///
    /// # Safety
    /// As [`GruForward::run`].
    pub unsafe fn run(self, isa: Isa, half: GruHalf, masked: bool) {
        match (half, masked) {
            (GruHalf::Both, false) => isa.run(StepBack::<true, false>(self)),
            (GruHalf::Both, true) => isa.run(StepBack::<true, true>(self)),
            (GruHalf::Candidate, false) => isa.run(StepBack::<false, false>(self)),
            (GruHalf::Candidate, true) => isa.run(StepBack::<false, true>(self)),
            (GruHalf::Gates, _) => isa.run(ResetBack(self)),
        }
    }
}

/// Back through h' and n; `WHOLE` also through r.
struct StepBack<const WHOLE: bool, const MASKED: bool>(GruBackward);

impl<const WHOLE: bool, const MASKED: bool> WithSimd for StepBack<WHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `GruBackward::run`.
            unsafe {
                let z = at.read_gate(simd, args.gates, UPDATE);
                let n = at.read_gate(simd, args.gates, CANDIDATE);
                let h = at.read(simd, args.hidden);
                let later = at.read(simd, args.grad_hidden);
                let mut grad = simd.add_f32s(later, at.read(simd, args.grad_output));
                let mut direct = simd.splat_f32s(0.0);
                let (mut mixed, mut of_n) = (n, one_minus(simd, z));
                if MASKED {
                    let update = at.mask(simd, args.masks.update_hidden);
                    direct = simd.mul_f32s(one_minus(simd, update), grad);
                    grad = simd.mul_f32s(update, grad);
                    grad = simd.mul_f32s(grad, at.mask(simd, args.masks.hidden));
                    let mask = at.mask(simd, args.masks.candidate);
                    mixed = simd.mul_f32s(n, mask);
                    of_n = simd.mul_f32s(of_n, mask);
                }
                direct = fma(simd, grad, z, direct);
                at.write(simd, args.grad_hidden, direct);

                let grad_z = simd.mul_f32s(grad, simd.sub_f32s(h, mixed));
                let grad_z = simd.mul_f32s(grad_z, sigmoid_slope(simd, z));
                let grad_n = simd.mul_f32s(simd.mul_f32s(grad, of_n), tanh_slope(simd, n));
                at.write_gate(simd, args.grad_preact, UPDATE, grad_z);
                at.write_gate(simd, args.grad_preact, CANDIDATE, grad_n);
                at.write_gate(simd, args.grad_product, UPDATE, grad_z);
                if WHOLE {
                    let r = at.read_gate(simd, args.gates, RESET);
                    let u = at.read(simd, args.inner);
                    let grad_r = simd.mul_f32s(simd.mul_f32s(grad_n, u), sigmoid_slope(simd, r));
                    at.write_gate(simd, args.grad_preact, RESET, grad_r);
                    at.write_gate(simd, args.grad_product, RESET, grad_r);
                    let grad_u = simd.mul_f32s(grad_n, r);
                    at.write_gate(simd, args.grad_product, CANDIDATE, grad_u);
                } else {
                    at.write(simd, args.grad_candidate, grad_n);
                }
            }
        });
    }
}

/// Back through r ⊙ h.
struct ResetBack(GruBackward);

impl WithSimd for ResetBack {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `GruBackward::run`.
            unsafe {
                let r = at.read_gate(simd, args.gates, RESET);
                let h = at.read(simd, args.hidden);
                let grad = at.read(simd, args.grad_inner);
                let grad_r = simd.mul_f32s(simd.mul_f32s(grad, h), sigmoid_slope(simd, r));
                at.write_gate(simd, args.grad_preact, RESET, grad_r);
                at.write_gate(simd, args.grad_product, RESET, grad_r);
                let direct = at.read(simd, args.grad_hidden);
                at.write(simd, args.grad_hidden, fma(simd, grad, r, direct));
            }
        });
    }
}

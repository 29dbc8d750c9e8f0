//! How the gates that weigh the candidate and the old cell follow from those that have weights.

use super::*;

/// How the gates that weigh the candidate and the old cell follow from those that have weights.
///
/// The gates with weights are the first one or two blocks of a packed row; candidate and output
/// follow them.
pub trait Coupled: Copy + Send + Sync {
    /// Gates with weights: 1 or 2.
    const SHARES: usize;

    /// (i, f) from the activated gates; the second is not looked at if there is one only.
    fn weigh<S: Simd>(simd: S, shares: [S::f32s; 2]) -> (S::f32s, S::f32s);

    /// Derivative of [`weigh`](Self::weigh).
    fn weigh_backward<S: Simd>(
        simd: S,
        shares: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2];
}

/// i and f are the gates.
#[derive(Clone, Copy)]
pub struct Independent;

impl Coupled for Independent {
    const SHARES: usize = 2;

    #[inline(always)]
    fn weigh<S: Simd>(_: S, [input, forget]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (input, forget)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        _: S,
        _: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [grad_input, grad_forget]
    }
}

/// The gate is f, and i = 1 − f.
#[derive(Clone, Copy)]
pub struct InputFromForget;

impl Coupled for InputFromForget {
    const SHARES: usize = 1;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [forget, _]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (one_minus(simd, forget), forget)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        shares: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [simd.sub_f32s(grad_forget, grad_input), shares[1]]
    }
}

/// The gate is i, and f = 1 − i.
#[derive(Clone, Copy)]
pub struct ForgetFromInput;

impl Coupled for ForgetFromInput {
    const SHARES: usize = 1;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [input, _]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (input, one_minus(simd, input))
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        shares: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [simd.sub_f32s(grad_input, grad_forget), shares[1]]
    }
}

/// i = min(gate, 1 − f).
#[derive(Clone, Copy)]
pub struct CappedInput;

impl Coupled for CappedInput {
    const SHARES: usize = 2;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [input, forget]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (simd.min_f32s(one_minus(simd, forget), input), forget)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        [input, forget]: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        let free = simd.less_than_or_equal_f32s(input, one_minus(simd, forget));
        let zero = simd.splat_f32s(0.0);
        [
            simd.select_f32s(free, grad_input, zero),
            simd.sub_f32s(grad_forget, simd.select_f32s(free, zero, grad_input)),
        ]
    }
}

/// The gates are r and f; the effective gate e = 2rf + (1 − 2r)f² weighs the old cell, 1 − e the
/// candidate. Both as sums of what is not negative, so that nothing cancels:
/// ```text
/// e = f·(f + 2r(1 − f))      1 − e = (1 − f)·(1 − f + 2f(1 − r))
/// ```
#[derive(Clone, Copy)]
pub struct Refined;

impl Coupled for Refined {
    const SHARES: usize = 2;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [refine, forget]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        let rest = one_minus(simd, forget);
        let twice_refine = simd.add_f32s(refine, refine);
        let twice_forget = simd.add_f32s(forget, forget);
        let effective = fma(simd, twice_refine, rest, forget);
        let others = fma(simd, twice_forget, one_minus(simd, refine), rest);
        (
            simd.mul_f32s(rest, others),
            simd.mul_f32s(forget, effective),
        )
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        [refine, forget]: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        let grad = simd.sub_f32s(grad_forget, grad_input);
        // ∂e/∂f = 2(r(1 − f) + f(1 − r)), ∂e/∂r = 2f(1 − f)
        let rest = one_minus(simd, forget);
        let by_forget = simd.mul_f32s(forget, one_minus(simd, refine));
        let by_forget = fma(simd, refine, rest, by_forget);
        let by_forget = simd.add_f32s(by_forget, by_forget);
        let slope = simd.mul_f32s(forget, rest);
        [
            simd.mul_f32s(grad, simd.add_f32s(slope, slope)),
            simd.mul_f32s(grad, by_forget),
        ]
    }
}

//! Input/forget gate coupling: computes i and f from the mixing gates.

use super::*;

/// How i and f are computed from the mixing gates: the gates with weights that control the mixture of
/// candidate and old cell. They are the first one or two blocks of a packed row; candidate and output
/// follow.
pub trait Coupled: Copy + Send + Sync {
    /// Number of mixing gates: 1 or 2.
    const MIXING: usize;

    /// (i, f) from the activated gates; the second value is ignored if there is only one gate.
    fn weigh<S: Simd>(simd: S, mixing: [S::f32s; 2]) -> (S::f32s, S::f32s);

    /// Derivative of [`weigh`](Self::weigh).
    fn weigh_backward<S: Simd>(
        simd: S,
        mixing: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2];
}

/// i and f are the gates.
#[derive(Clone, Copy)]
pub struct Independent;

impl Coupled for Independent {
    const MIXING: usize = 2;

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
    const MIXING: usize = 1;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [forget, _]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (one_minus(simd, forget), forget)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        mixing: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [simd.sub_f32s(grad_forget, grad_input), mixing[1]]
    }
}

/// The gate is i, and f = 1 − i.
#[derive(Clone, Copy)]
pub struct ForgetFromInput;

impl Coupled for ForgetFromInput {
    const MIXING: usize = 1;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [input, _]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (input, one_minus(simd, input))
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        mixing: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [simd.sub_f32s(grad_input, grad_forget), mixing[1]]
    }
}

/// i = min(gate, 1 − f).
#[derive(Clone, Copy)]
pub struct CappedInput;

impl Coupled for CappedInput {
    const MIXING: usize = 2;

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

/// The gates are r and f. The factor of the old cell is the effective gate e = 2rf + (1 − 2r)f², that of
/// the candidate is 1 − e. Both are computed as sums of nonnegative terms, so there is no cancellation:
/// ```text
/// e = f·(f + 2r(1 − f))      1 − e = (1 − f)·(1 − f + 2f(1 − r))
/// ```
#[derive(Clone, Copy)]
pub struct Refined;

impl Coupled for Refined {
    const MIXING: usize = 2;

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

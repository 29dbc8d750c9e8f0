//! Instruction sets, vectors in memory, and the activation functions on vectors.
//!
//! The instruction set is selected at run time ([`Isa::best`]). Code that uses vectors is a type that
//! implements `pulp::WithSimd`; [`Isa::run`] compiles it once per instruction set.

#[cfg(feature = "eval")]
use alloc::vec::Vec;

use pulp::{MemMask, Simd, WithSimd};

/// An instruction set that this machine supports.
#[derive(Debug, Clone, Copy)]
pub enum Isa {
    /// 4 lanes in portable code.
    Portable,
    /// 8 lanes: AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// 16 lanes: AVX-512 (F, BW, CD, DQ, VL).
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    /// 4 lanes: NEON with FMA.
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
}

impl Isa {
    /// The widest instruction set.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = pulp::x86::V4::try_new() {
                return Self::Avx512(simd);
            }
            if let Some(simd) = pulp::x86::V3::try_new() {
                return Self::Avx2(simd);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(simd) = pulp::aarch64::Neon::try_new() {
            return Self::Neon(simd);
        }
        Self::Portable
    }

    /// All supported instruction sets, the widest last.
    #[cfg(feature = "eval")]
    pub fn all() -> Vec<Self> {
        let mut all = alloc::vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(pulp::x86::V3::try_new().map(Self::Avx2));
            all.extend(pulp::x86::V4::try_new().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(pulp::aarch64::Neon::try_new().map(Self::Neon));
        all
    }

    /// Number of f32 values in a vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Portable => 4,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => 8,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 16,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => 4,
        }
    }

    /// Number of vector registers.
    pub fn registers(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 32,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => 32,
            _ => 16,
        }
    }

    /// Runs `op` compiled for this instruction set.
    #[inline(always)]
    pub fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        match self {
            Self::Portable => pulp::Scalar128b.vectorize(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Simd::vectorize(simd, op),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => Simd::vectorize(simd, op),
        }
    }
}

/// The AVX-512 token if `simd` is one, for operations that other instruction sets lack. The test is
/// resolved at compile time.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn is_avx512<S: Simd>(simd: S) -> Option<pulp::x86::V4> {
    let simd: &dyn core::any::Any = &simd;
    simd.downcast_ref().copied()
}

/// A whole vector at `ptr`, which need not be aligned.
///
/// # Safety
/// `ptr` points to as many readable values as a vector has lanes.
#[inline(always)]
pub unsafe fn load<S: Simd>(ptr: *const f32) -> S::f32s {
    // SAFETY: by the contract of this function.
    unsafe { ptr.cast::<S::f32s>().read_unaligned() }
}

/// Writes a whole vector to `ptr`, which need not be aligned.
///
/// # Safety
/// `ptr` points to as many writable values as a vector has lanes, which no other thread touches.
#[inline(always)]
pub unsafe fn store<S: Simd>(ptr: *mut f32, value: S::f32s) {
    // SAFETY: by the contract of this function.
    unsafe { ptr.cast::<S::f32s>().write_unaligned(value) }
}

/// The lanes of a vector that are in use: all of them, or the first few at the end of a row.
pub trait Lanes<S: Simd>: Copy {
    /// Loads the lanes in use; the others are zero.
    ///
    /// # Safety
    /// The lanes in use are readable at `ptr`.
    unsafe fn load(self, simd: S, ptr: *const f32) -> S::f32s;

    /// Stores the lanes in use.
    ///
    /// # Safety
    /// The lanes in use are writable at `ptr`, and no other thread touches them.
    unsafe fn store(self, simd: S, ptr: *mut f32, value: S::f32s);
}

/// All lanes.
#[derive(Clone, Copy)]
pub struct Whole;

impl<S: Simd> Lanes<S> for Whole {
    #[inline(always)]
    unsafe fn load(self, _: S, ptr: *const f32) -> S::f32s {
        // SAFETY: by the contract of the trait.
        unsafe { load::<S>(ptr) }
    }

    #[inline(always)]
    unsafe fn store(self, _: S, ptr: *mut f32, value: S::f32s) {
        // SAFETY: by the contract of the trait.
        unsafe { store::<S>(ptr, value) }
    }
}

/// The first lanes.
#[derive(Clone, Copy)]
pub struct First<S: Simd>(MemMask<S::m32s>);

impl<S: Simd> First<S> {
    /// The first `count` lanes.
    #[inline(always)]
    pub fn new(simd: S, count: usize) -> Self {
        Self(simd.mask_between_m32s(0, count as u32))
    }
}

/// [`Whole`] or [`First`], selected at each access: for code that is too long to be compiled twice.
#[derive(Clone, Copy)]
pub struct Either<S: Simd> {
    whole: bool,
    first: First<S>,
}

impl<S: Simd> Either<S> {
    /// The first `count` lanes, or all.
    #[inline(always)]
    pub fn new(simd: S, count: usize) -> Self {
        Self {
            whole: count >= S::F32_LANES,
            first: First::new(simd, count.min(S::F32_LANES)),
        }
    }
}

impl<S: Simd> Lanes<S> for Either<S> {
    #[inline(always)]
    unsafe fn load(self, simd: S, ptr: *const f32) -> S::f32s {
        // SAFETY: by the contract of the trait.
        unsafe {
            if self.whole {
                Whole.load(simd, ptr)
            } else {
                self.first.load(simd, ptr)
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, simd: S, ptr: *mut f32, value: S::f32s) {
        // SAFETY: by the contract of the trait.
        unsafe {
            if self.whole {
                Whole.store(simd, ptr, value);
            } else {
                self.first.store(simd, ptr, value);
            }
        }
    }
}

impl<S: Simd> Lanes<S> for First<S> {
    #[inline(always)]
    unsafe fn load(self, simd: S, ptr: *const f32) -> S::f32s {
        // SAFETY: by the contract of the trait; lanes outside the mask are not read.
        unsafe { simd.mask_load_ptr_f32s(self.0, ptr) }
    }

    #[inline(always)]
    unsafe fn store(self, simd: S, ptr: *mut f32, value: S::f32s) {
        // SAFETY: by the contract of the trait; lanes outside the mask are not written.
        unsafe { simd.mask_store_ptr_f32s(self.0, ptr, value) }
    }
}

/// `a·b + c`
#[inline(always)]
pub fn fma<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    // Without fused hardware support, the `_e` form is two operations; the other form would be a
    // function call.
    simd.mul_add_e_f32s(a, b, c)
}

/// The smaller of `x` and `high`; NaN stays NaN.
#[inline(always)]
fn at_most<S: Simd>(simd: S, x: S::f32s, high: f32) -> S::f32s {
    let high = simd.splat_f32s(high);
    if S::F32_LANES > 4 {
        // x86's min returns the second operand if one is NaN.
        simd.min_f32s(high, x)
    } else {
        // Portable code returns the other operand. A comparison with NaN is false.
        simd.select_f32s(simd.less_than_f32s(high, x), high, x)
    }
}

/// The larger of `x` and `low`; NaN stays NaN.
#[inline(always)]
fn at_least<S: Simd>(simd: S, x: S::f32s, low: f32) -> S::f32s {
    let low = simd.splat_f32s(low);
    if S::F32_LANES > 4 {
        simd.max_f32s(low, x)
    } else {
        simd.select_f32s(simd.less_than_f32s(x, low), low, x)
    }
}

/// `x` between `low` and `high`; NaN stays NaN.
#[inline(always)]
pub fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    at_least(simd, at_most(simd, x, high), low)
}

/// `eˣ` for −87 ≤ x ≤ 87, not for NaN: range reduction by powers of two and a polynomial (Cephes `expf`),
/// error about one unit in the last place.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    // Adding 1.5·2²³ rounds to the nearest integer, which is then in the low bits.
    let magic = splat(12_582_912.0);
    let shifted = fma(simd, x, splat(core::f32::consts::LOG2_E), magic);
    let power = simd.sub_f32s(shifted, magic);
    // ln 2 as a sum of two parts, so that the product with an integer is exact.
    let r = fma(simd, power, splat(-0.693_359_4), x);
    let r = fma(simd, power, splat(2.121_944_4e-4), r);
    let p = splat(1.987_569_1e-4);
    let p = fma(simd, p, r, splat(1.398_199_9e-3));
    let p = fma(simd, p, r, splat(8.333_452e-3));
    let p = fma(simd, p, r, splat(4.166_579_6e-2));
    let p = fma(simd, p, r, splat(1.666_666_5e-1));
    let p = fma(simd, p, r, splat(0.5));
    let fraction = simd.add_f32s(fma(simd, p, simd.mul_f32s(r, r), r), splat(1.0));
    // Times 2ⁿ: n is added to the exponent.
    let exponent =
        simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(fraction), exponent))
}

/// `1 + eˣ` for −87 ≤ x ≤ 87; NaN stays NaN.
#[inline(always)]
fn one_plus_exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // `exp` adds integers to the bits of a NaN, which may come out as a number.
    let one = fma(simd, x, simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    simd.add_f32s(exp(simd, x), one)
}

/// `σ(x) = 1/(1 + e^{−x})`
///
/// 0 < σ ≤ 1, exactly 1 from x = 16.64 on, 1.6e-38 up to −87, monotone; NaN stays NaN. Every operation
/// after `exp` is a correctly rounded monotone function of its argument, so the result is as monotone as
/// `exp`, and a denominator that rounds to 1 gives exactly 1. If a division were shared with another
/// function, neither would hold: the result might be 1 − 2⁻²⁴ for every large x, whose slope y(1 − y) is
/// not 0.
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let minus_x = clamp(simd, simd.neg_f32s(x), -87.0, 87.0);
    simd.div_f32s(simd.splat_f32s(1.0), one_plus_exp(simd, minus_x))
}

/// `tanh(x)`
///
/// |tanh| ≤ 1, exactly ±1 from |x| = 9.02 on, odd, monotone; NaN stays NaN. In two pieces:
/// ```text
/// |x| < 0.625   |x| + |x|·x²·P(x²)       P of degree 4 (Cephes `tanhf`); one rounding at the end
/// otherwise     1 − 2/(e^{2|x|} + 1)     each operation monotone and correctly rounded
/// ```
/// A rational function over the whole range would take a few operations less, but its rounding errors
/// are not monotone, and it does not reach 1. If masks multiply the cell by 10 at each step, a slope 1 −
/// tanh² of 5e-7 for every large x is enough to produce spurious gradients.
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    let size = simd.abs_f32s(x);

    let x2 = simd.mul_f32s(x, x);
    let p = splat(-5.704_988_7e-3);
    let p = fma(simd, p, x2, splat(2.063_909e-2));
    let p = fma(simd, p, x2, splat(-5.373_971_6e-2));
    let p = fma(simd, p, x2, splat(1.333_144_2e-1));
    let p = fma(simd, p, x2, splat(-3.333_328e-1));
    let small = fma(simd, simd.mul_f32s(p, x2), size, size);

    // From 9.02 on 2/(e^{2x} + 1) is below 2⁻²⁵, half a unit in the last place of 1.
    let twice = at_most(simd, simd.add_f32s(size, size), 18.2);
    let rest = simd.div_f32s(splat(2.0), one_plus_exp(simd, twice));
    let large = simd.sub_f32s(splat(1.0), rest);

    let y = simd.select_f32s(simd.less_than_f32s(size, splat(0.625)), small, large);
    let sign = simd.and_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(1 << 31));
    simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(y), sign))
}

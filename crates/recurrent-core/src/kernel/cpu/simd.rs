//! Instruction sets, vectors in memory, and the activation functions on vectors.
//!
//! The instruction set is found at run time ([`Isa::best`]). Code that uses vectors is a type that
//! implements `pulp::WithSimd`; [`Isa::run`] compiles it once per instruction set.

use alloc::vec::Vec;

use pulp::{MemMask, Simd, WithSimd};

/// An instruction set that this machine has.
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
    /// The widest one.
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

    /// All of them, the widest last.
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

    /// f32 values in a vector.
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

    /// Vector registers.
    pub fn registers(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => 32,
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => 32,
            _ => 16,
        }
    }

    /// Rows of a register tile that is `vectors` wide: as many as the accumulators of the tile, a
    /// row of weights and one broadcast value fit into the registers.
    pub fn tile_rows(self, vectors: usize) -> usize {
        ((self.registers() - 1) / vectors - 1).clamp(1, super::product::MAX_TILE_ROWS)
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

/// AVX-512 itself, where `simd` is that: for operations that not all instruction sets have. The compiler
/// knows the answer.
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

/// Which lanes of a vector exist: all of them, or the first few at the end of a row.
pub trait Lanes<S: Simd>: Copy {
    /// The existing lanes, zero in the others.
    ///
    /// # Safety
    /// The existing lanes at `ptr` are readable.
    unsafe fn load(self, simd: S, ptr: *const f32) -> S::f32s;

    /// Writes the existing lanes.
    ///
    /// # Safety
    /// The existing lanes at `ptr` are writable, and no other thread touches them.
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

/// [`Whole`] or [`First`], found out at each access: for code too long to be there twice.
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
    // The `_e` form is two operations where there is no fused one, not a call.
    simd.mul_add_e_f32s(a, b, c)
}

/// `x` between `low` and `high`; NaN stays NaN.
#[inline(always)]
pub fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    let (low, high) = (simd.splat_f32s(low), simd.splat_f32s(high));
    if S::F32_LANES > 4 {
        // x86's min and max give the second operand where one is NaN.
        simd.max_f32s(low, simd.min_f32s(high, x))
    } else {
        // Those of portable code give the other operand. A comparison with NaN is false.
        let x = simd.select_f32s(simd.less_than_f32s(high, x), high, x);
        simd.select_f32s(simd.less_than_f32s(x, low), low, x)
    }
}

/// `eˣ` for −87 ≤ x ≤ 87: range reduction by powers of two and a polynomial (Cephes `expf`), about
/// one unit in the last place.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    // Adding 1.5·2²³ rounds to the nearest integer, which then stands in the low bits.
    let magic = splat(12_582_912.0);
    let shifted = fma(simd, x, splat(core::f32::consts::LOG2_E), magic);
    let power = simd.sub_f32s(shifted, magic);
    // ln 2 in two parts, so that the product with an integer is exact.
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

/// `1 + e^{−x}`, the denominator of σ(x).
///
/// x is bounded to ±42, where σ differs from 0 or 1 by 6e-19, so that the product of two
/// denominators is finite.
#[inline(always)]
fn logistic_denominator<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = clamp(simd, x, -42.0, 42.0);
    simd.add_f32s(exp(simd, simd.neg_f32s(x)), simd.splat_f32s(1.0))
}

/// `tanh(x) = p/q`: numerator and denominator of a rational function of degree 13 over 6 (that of
/// Eigen), good to a few units in the last place, also near 0.
#[inline(always)]
fn tanh_fraction<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let splat = |value| simd.splat_f32s(value);
    // Beyond it, tanh rounds to ±1.
    let x = clamp(simd, x, -7.905_311, 7.905_311);
    let x2 = simd.mul_f32s(x, x);
    let p = splat(-2.760_768_5e-16);
    let p = fma(simd, p, x2, splat(2.000_188e-13));
    let p = fma(simd, p, x2, splat(-8.604_672e-11));
    let p = fma(simd, p, x2, splat(5.122_297e-8));
    let p = fma(simd, p, x2, splat(1.485_722_4e-5));
    let p = fma(simd, p, x2, splat(6.372_619e-4));
    let p = fma(simd, p, x2, splat(4.893_524_6e-3));
    let q = splat(1.198_258_4e-6);
    let q = fma(simd, q, x2, splat(1.185_347_1e-4));
    let q = fma(simd, q, x2, splat(2.268_434_6e-3));
    let q = fma(simd, q, x2, splat(4.893_525e-3));
    (simd.mul_f32s(x, p), q)
}

/// `1/x`
#[inline(always)]
fn recip<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.div_f32s(simd.splat_f32s(1.0), x)
}

/// `σ(x)`
#[inline(always)]
pub fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    recip(simd, logistic_denominator(simd, x))
}

/// `tanh(x)`
#[inline(always)]
pub fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let (p, q) = tanh_fraction(simd, x);
    simd.div_f32s(p, q)
}

/// `(σ(a), σ(b), tanh(x))` with one division, the slowest operation of all: `1/(d_a·d_b·q)` gives
/// each quotient after multiplying with the other denominators.
#[inline(always)]
pub fn sigmoid_sigmoid_tanh<S: Simd>(
    simd: S,
    a: S::f32s,
    b: S::f32s,
    x: S::f32s,
) -> (S::f32s, S::f32s, S::f32s) {
    let a = logistic_denominator(simd, a);
    let b = logistic_denominator(simd, b);
    let (p, q) = tanh_fraction(simd, x);
    let ab = simd.mul_f32s(a, b);
    let r = recip(simd, simd.mul_f32s(ab, q));
    let rq = simd.mul_f32s(r, q);
    (
        simd.mul_f32s(rq, b),
        simd.mul_f32s(rq, a),
        simd.mul_f32s(simd.mul_f32s(r, ab), p),
    )
}

/// `(σ(a), tanh(x))` with one division.
#[inline(always)]
pub fn sigmoid_tanh<S: Simd>(simd: S, a: S::f32s, x: S::f32s) -> (S::f32s, S::f32s) {
    let a = logistic_denominator(simd, a);
    let (p, q) = tanh_fraction(simd, x);
    let r = recip(simd, simd.mul_f32s(a, q));
    (simd.mul_f32s(r, q), simd.mul_f32s(simd.mul_f32s(r, a), p))
}

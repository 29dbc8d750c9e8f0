//! σ and tanh on vectors: against f64, and what must hold for every f32.

use pulp::{Simd, WithSimd};
use recurrent_core::fused::cpu::simd::{Isa, load, sigmoid, store, tanh};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Sigmoid,
    Tanh,
}

use Function::{Sigmoid, Tanh};

impl Function {
    fn exact(self, x: f32) -> f64 {
        let x = f64::from(x);
        match self {
            Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Tanh => x.tanh(),
        }
    }
}

struct Apply<'a> {
    function: Function,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        assert!(self.x.len().is_multiple_of(lanes) && self.x.len() == self.y.len());
        for start in (0..self.x.len()).step_by(lanes) {
            // SAFETY: both slices have a whole vector there.
            unsafe {
                let x = load::<S>(self.x.as_ptr().add(start));
                let y = match self.function {
                    Sigmoid => sigmoid(simd, x),
                    Tanh => tanh(simd, x),
                };
                store::<S>(self.y.as_mut_ptr().add(start), y);
            }
        }
    }
}

fn apply(isa: Isa, function: Function, x: &[f32]) -> Vec<f32> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(16), 0.0);
    let mut y = vec![0.0; padded.len()];
    isa.run(Apply {
        function,
        x: &padded,
        y: &mut y,
    });
    y.truncate(x.len());
    y
}

fn samples() -> Vec<f32> {
    let steps = 400_000;
    let even = |bound: f32| (0..=steps).map(move |s| bound * (2.0 * s as f32 / steps as f32 - 1.0));
    // Magnitudes from 1e-38 to 100.
    let scaled = (-380..=20).map(|tenth| 10f32.powf(tenth as f32 / 10.0));
    let scaled: Vec<f32> = scaled.flat_map(|v| [v, -v]).collect();
    even(100.0).chain(even(2.0)).chain(scaled).collect()
}

/// Units in the last place of f32 at a value.
fn ulp(value: f64) -> f64 {
    let exponent = value.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (exponent - 23.0).exp2()
}

/// σ within 3 units in the last place (from −87 on), tanh within 2.
#[test]
fn errors_are_a_few_units_in_the_last_place() {
    let x = samples();
    for isa in Isa::all() {
        for (function, allowed) in [(Sigmoid, 3.0), (Tanh, 2.0)] {
            let mut worst = (0.0f64, 0.0f32);
            for (&x, y) in x.iter().zip(apply(isa, function, &x)) {
                let exact = function.exact(x);
                let error = (f64::from(y) - exact).abs() / ulp(exact);
                if x >= -87.0 && error > worst.0 {
                    worst = (error, x);
                }
            }
            println!("{isa:?} {function:?}: {:.2} ulp at {}", worst.0, worst.1);
            assert!(worst.0 <= allowed, "{isa:?} {function:?}: {worst:?}");
        }
    }
}

#[test]
fn special_values() {
    let nan = f32::from_bits(f32::NAN.to_bits() | 1 << 31 | 77);
    let x = [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::NAN, nan];
    let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|v| v.to_bits()).collect() };
    for isa in Isa::all() {
        let y = apply(isa, Tanh, &x);
        assert_eq!(
            bits(&y[..4]),
            bits(&[1.0, -1.0, 0.0, -0.0]),
            "{isa:?} {y:?}"
        );
        assert!(y[4].is_nan() && y[5].is_nan(), "{isa:?} {y:?}");
        let y = apply(isa, Sigmoid, &x);
        assert_eq!(y[0], 1.0, "{isa:?} {y:?}");
        assert!((0.0..2e-38).contains(&y[1]), "{isa:?} {y:?}");
        assert_eq!(y[2..4], [0.5, 0.5], "{isa:?}");
        assert!(y[4].is_nan() && y[5].is_nan(), "{isa:?} {y:?}");
    }
}

/// Values that the sweep looks at one after the other.
const RUN: u32 = 1 << 14;

/// Bits of +∞.
const INFINITE: u32 = 0x7f80_0000;

/// Which runs of positive f32 are swept: all that lie between 2⁻¹³ and 128, where the functions are neither
/// straight nor constant, and one in 61 of the others; of portable code, whose fused multiplications
/// are calls, one in 16. `RECURRENT_SWEEP=all` (with `--release`) takes every f32.
fn is_swept(isa: Isa, start: u32) -> bool {
    let all = std::env::var("RECURRENT_SWEEP").is_ok_and(|sweep| sweep == "all");
    let curved = (f32::from_bits(start) >= 1.22e-4) && (f32::from_bits(start) < 128.0);
    let one_in = match (all, curved, isa) {
        (true, ..) => 1,
        (_, true, Isa::Portable) => 16,
        (_, true, _) => 1,
        _ => 61,
    };
    (start / RUN).is_multiple_of(one_in)
}

/// For rising x ≥ 0: σ(x), tanh(x), and both at −x. Within each run, and from one run to the next: rising,
/// between 0 and 1, tanh odd, and ±1 from 9.02 on.
fn sweep(isa: Isa) {
    let one = |function, x: f32| apply(isa, function, &[x])[0];
    let (mut tanh_before, mut sigmoid_before) = (0.0f32, one(Sigmoid, 0.0));
    let mut sigmoid_below = sigmoid_before;
    let mut seen = 0u64;
    for start in (0..=INFINITE).step_by(RUN as usize) {
        if !is_swept(isa, start) {
            continue;
        }
        let bits = start..(start + RUN).min(INFINITE + 1);
        seen += u64::from(bits.end - bits.start);
        let x: Vec<f32> = bits.map(f32::from_bits).collect();
        let negative: Vec<f32> = x.iter().map(|x| -x).collect();
        let what = |x: f32, y: f32| format!("{isa:?}: {y:e} at {x:e}");

        let tanh = apply(isa, Tanh, &x);
        let mirrored = apply(isa, Tanh, &negative);
        for ((&x, &y), &mirrored) in x.iter().zip(&tanh).zip(&mirrored) {
            assert!(y >= tanh_before, "tanh falls, {}", what(x, y));
            assert!(y <= 1.0, "tanh, {}", what(x, y));
            assert!(x < 9.02 || y == 1.0, "tanh is not 1, {}", what(x, y));
            assert!(mirrored == -y, "tanh is not odd, {}", what(x, mirrored));
            tanh_before = y;
        }
        for (&x, y) in x.iter().zip(apply(isa, Sigmoid, &x)) {
            assert!(y >= sigmoid_before, "σ falls, {}", what(x, y));
            assert!(y <= 1.0, "σ, {}", what(x, y));
            assert!(x < 17.4 || y == 1.0, "σ is not 1, {}", what(x, y));
            sigmoid_before = y;
        }
        for (&x, y) in negative.iter().zip(apply(isa, Sigmoid, &negative)) {
            assert!(y <= sigmoid_below, "σ falls, {}", what(x, y));
            assert!(y >= 0.0, "σ, {}", what(x, y));
            sigmoid_below = y;
        }
    }
    println!("{isa:?}: {seen} values of either sign");
}

#[test]
fn functions_are_monotone_bounded_and_saturate() {
    for isa in Isa::all() {
        sweep(isa);
    }
}

/// The slope 1 − tanh², computed from the rounded value, is 0 where tanh is ±1.
#[test]
fn errors_of_the_slope_of_tanh() {
    // What an f32 holds of 1 − y at all: half a unit in the last place of y.
    let bounds = [(1.0, 3e-7), (4.0, 1.3e-4), (7.0, 5e-2), (8.0, 0.4)];
    for isa in Isa::all() {
        let mut from = 0.0;
        for (to, allowed) in bounds {
            let steps = 100_000;
            let x = (0..steps).map(|step| from + (to - from) * step as f32 / steps as f32);
            let x: Vec<f32> = x.collect();
            let mut worst = 0.0f64;
            for (&x, y) in x.iter().zip(apply(isa, Tanh, &x)) {
                let slope = f64::from((1.0 - y) * (1.0 + y));
                let exact = f64::from(x).cosh().powi(-2);
                worst = worst.max((slope - exact).abs() / exact);
            }
            println!("{isa:?}: slope of tanh, {from} to {to}: {worst:.1e}");
            assert!(worst <= allowed, "{isa:?}, {from} to {to}: {worst:e}");
            from = to;
        }
    }
}

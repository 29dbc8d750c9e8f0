//! σ and tanh on vectors, against f64.

use pulp::{Simd, WithSimd};
use recurrent_core::kernel::cpu::simd::{
    Isa, load, sigmoid, sigmoid_sigmoid_tanh, sigmoid_tanh, store, tanh,
};

/// One of the functions, at `x` and, where it has more arguments, at `others`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Sigmoid,
    Tanh,
    SigmoidOfTwo,
    TanhOfTwo,
    FirstOfThree,
    SecondOfThree,
    TanhOfThree,
}

use Function::{FirstOfThree, SecondOfThree, Sigmoid, SigmoidOfTwo, Tanh, TanhOfThree, TanhOfTwo};

const ALL: [Function; 7] = [
    Sigmoid,
    Tanh,
    SigmoidOfTwo,
    TanhOfTwo,
    FirstOfThree,
    SecondOfThree,
    TanhOfThree,
];

impl Function {
    fn is_tanh(self) -> bool {
        matches!(self, Tanh | TanhOfTwo | TanhOfThree)
    }

    fn exact(self, x: f32) -> f64 {
        let x = f64::from(x);
        match self.is_tanh() {
            true => x.tanh(),
            false => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

struct Apply<'a> {
    function: Function,
    x: &'a [f32],
    other: f32,
    y: &'a mut [f32],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        assert!(self.x.len().is_multiple_of(lanes) && self.x.len() == self.y.len());
        let other = simd.splat_f32s(self.other);
        for start in (0..self.x.len()).step_by(lanes) {
            // SAFETY: both slices have a whole vector there.
            unsafe {
                let x = load::<S>(self.x.as_ptr().add(start));
                let y = match self.function {
                    Sigmoid => sigmoid(simd, x),
                    Tanh => tanh(simd, x),
                    SigmoidOfTwo => sigmoid_tanh(simd, x, other).0,
                    TanhOfTwo => sigmoid_tanh(simd, other, x).1,
                    FirstOfThree => sigmoid_sigmoid_tanh(simd, x, other, other).0,
                    SecondOfThree => sigmoid_sigmoid_tanh(simd, other, x, other).1,
                    TanhOfThree => sigmoid_sigmoid_tanh(simd, other, other, x).2,
                };
                store::<S>(self.y.as_mut_ptr().add(start), y);
            }
        }
    }
}

fn apply(isa: Isa, function: Function, x: &[f32], other: f32) -> Vec<f32> {
    let mut padded = x.to_vec();
    padded.resize(x.len().next_multiple_of(16), 0.0);
    let mut y = vec![0.0; padded.len()];
    isa.run(Apply {
        function,
        x: &padded,
        other,
        y: &mut y,
    });
    y.truncate(x.len());
    y
}

/// What the other arguments are: where the product of all denominators is small, middling, largest.
const OTHERS: [f32; 5] = [0.0, -1.3, 60.0, -60.0, -7.0];

fn sweep() -> Vec<f32> {
    let steps = 40_000;
    let even = (0..=steps).map(|step| -100.0 + 200.0 * step as f32 / steps as f32);
    // Magnitudes from 1e-38 to 100.
    let scaled = (-380..=20).map(|tenth| 10f32.powf(tenth as f32 / 10.0));
    let scaled: Vec<f32> = scaled.flat_map(|v| [v, -v]).collect();
    even.chain(scaled).collect()
}

/// Units in the last place of f32 at a value.
fn ulp(value: f64) -> f64 {
    let exponent = value.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (exponent - 23.0).exp2()
}

/// The largest error in units in the last place, where the result is normal and not cut off, and the
/// largest absolute one everywhere.
fn errors(isa: Isa, function: Function) -> (f64, f64) {
    let x = sweep();
    let (mut in_ulp, mut absolute) = (0.0f64, 0.0f64);
    for other in OTHERS {
        for (&x, y) in x.iter().zip(apply(isa, function, &x, other)) {
            let exact = function.exact(x);
            let error = (f64::from(y) - exact).abs();
            absolute = absolute.max(error);
            // Below, p of tanh = p/q is not a normal number.
            if (1e-35..42.0).contains(&x.abs()) {
                in_ulp = in_ulp.max(error / ulp(exact));
            }
        }
    }
    (in_ulp, absolute)
}

/// Alone: σ within 3 units in the last place, tanh within 5; with a shared division within 8. In
/// absolute terms, no more than 5e-7.
#[test]
fn errors_are_a_few_units_in_the_last_place() {
    for isa in Isa::all() {
        for function in ALL {
            let (in_ulp, absolute) = errors(isa, function);
            println!("{isa:?} {function:?}: {in_ulp:.2} ulp, {absolute:.2e}");
            let allowed = match function {
                Sigmoid => 3.0,
                Tanh => 5.0,
                _ => 8.0,
            };
            assert!(in_ulp <= allowed, "{isa:?} {function:?}: {in_ulp} ulp");
            assert!(absolute <= 5e-7, "{isa:?} {function:?}: {absolute:e}");
        }
    }
}

#[test]
fn special_values() {
    for isa in Isa::all() {
        for function in ALL {
            for other in OTHERS {
                let x = [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::NAN, 1e30];
                let y = apply(isa, function, &x, other);
                let what = format!("{isa:?} {function:?} beside {other}: {y:?}");
                assert!((y[0] - 1.0).abs() < 5e-7, "{what}");
                assert!((y[5] - 1.0).abs() < 5e-7, "{what}");
                assert!(y[4].is_nan(), "{what}");
                if function.is_tanh() {
                    assert!((y[1] + 1.0).abs() < 5e-7, "{what}");
                    assert_eq!(y[2].to_bits(), 0.0f32.to_bits(), "{what}");
                    assert_eq!(y[3].to_bits(), (-0.0f32).to_bits(), "{what}");
                } else {
                    assert!((0.0..1e-18).contains(&y[1]), "{what}");
                    assert!((y[2] - 0.5).abs() < 2e-7 && y[2] == y[3], "{what}");
                }
            }
        }
    }
}

/// Gates stay between 0 and 1, and tanh between −1 and 1, but for a rounding.
#[test]
fn ranges() {
    let x = sweep();
    for isa in Isa::all() {
        for function in ALL {
            for other in OTHERS {
                let low = if function.is_tanh() {
                    -1.000_000_5
                } else {
                    0.0
                };
                for y in apply(isa, function, &x, other) {
                    assert!((low..=1.000_000_5).contains(&y), "{isa:?} {function:?} {y}");
                }
            }
        }
    }
}

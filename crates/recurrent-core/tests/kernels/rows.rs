//! Operations on whole rows, against f64.

use recurrent_core::equations::layer_norm::{EpsilonPlace, Normalizer, Variance};
use recurrent_core::fused::cpu::rows::{
    By, NormBackward, NormForward, RowTimes, RowTimesTransposed, STATS, SumRows,
};
use recurrent_core::fused::cpu::simd::Isa;
use recurrent_core::fused::cpu::view::{GateRows, Rows, View};

use crate::common::{Random, slopes};
use crate::{assert_within, draw};

const FORMS: [Normalizer; 4] = [
    Normalizer::STANDARD,
    Normalizer::LSTMS_PTH,
    Normalizer::BRADBURY,
    Normalizer::BA,
];

/// (μ, 1/d) of a row in f64.
fn statistics(form: &Normalizer, x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let squares: f64 = x.iter().map(|v| (v - mean).powi(2)).sum();
    let variance = match form.variance {
        Variance::Biased => squares / n,
        Variance::Unbiased => squares / (n - 1.0),
    };
    let deviation = match form.place {
        EpsilonPlace::InsideRoot => (variance + form.epsilon).sqrt(),
        EpsilonPlace::OutsideRoot => variance.sqrt() + form.epsilon,
    };
    (mean, deviation.recip())
}

fn normalized(form: &Normalizer, x: &[f64]) -> Vec<f64> {
    let (mean, inverse) = statistics(form, x);
    x.iter().map(|v| (v - mean) * inverse).collect()
}

fn wide(list: &[f32]) -> Vec<f64> {
    list.iter().map(|&v| v.into()).collect()
}

fn rows_of(list: &mut [f32], stride: usize) -> Rows {
    Rows {
        ptr: list.as_mut_ptr(),
        stride,
    }
}

/// Rows 1 and 2 of four; the others stay as they are.
const OWN: core::ops::Range<usize> = 1..3;

#[test]
fn normalisation() {
    let mut random = Random::new(3);
    for isa in Isa::all() {
        for form in FORMS {
            for n in [2, 3, 8, 15, 16, 17, 33, 64, 65, 300] {
                for bits in 0..8 {
                    let (with_gain, with_shift, with_base) =
                        (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
                    let mut x = draw(&mut random, 4 * n);
                    // Away from zero: the mean must be taken off.
                    x.iter_mut().for_each(|v| *v += 0.6);
                    let with_bias = bits == 7;
                    let (bias, before) = (draw(&mut random, n), x.clone());
                    let (gain, shift) = (draw(&mut random, n), draw(&mut random, n));
                    let mut base = draw(&mut random, 4 * n);
                    let mut y = vec![7.5; 4 * n];
                    let mut stats = vec![7.5; 4 * STATS];
                    let pointer = |on: bool, list: &[f32]| match on {
                        true => list.as_ptr(),
                        false => core::ptr::null(),
                    };
                    // All gates of a row together.
                    let gates = if n % 3 == 0 { 3 } else { 1 };
                    let units = n / gates;
                    let gate_rows = |list: &mut [f32]| rows_of(list, n).gates(units, isa);
                    let forward = NormForward {
                        rows: OWN,
                        gates,
                        units,
                        form,
                        x: gate_rows(&mut x),
                        bias: pointer(with_bias, &bias),
                        base: if with_base {
                            gate_rows(&mut base)
                        } else {
                            GateRows::NONE
                        },
                        gain: pointer(with_gain, &gain),
                        shift: pointer(with_shift, &shift),
                        y: gate_rows(&mut y),
                        stats: rows_of(&mut stats, STATS),
                    };
                    // SAFETY: all buffers have four rows.
                    unsafe { forward.run(isa) };
                    let what = format!("{isa:?} {form:?} n {n} {bits:03b}");
                    for (index, (&x, &before)) in x.iter().zip(&before).enumerate() {
                        let added = with_bias && OWN.contains(&(index / n));
                        let bias = if added { bias[index % n] } else { 0.0 };
                        assert_eq!(x, before + bias, "{what}");
                    }
                    assert!(
                        y[..n].iter().chain(&y[3 * n..]).all(|&v| v == 7.5),
                        "{what}"
                    );
                    let one = |on: bool, list: &[f32], at: usize, neutral: f64| match on {
                        true => f64::from(list[at]),
                        false => neutral,
                    };
                    let mut grad_y = draw(&mut random, 4 * n);
                    let mut grad_x = vec![7.5; 4 * n];
                    let backward = NormBackward {
                        rows: OWN,
                        gates,
                        units,
                        x: gate_rows(&mut x),
                        stats: rows_of(&mut stats, STATS),
                        gain: pointer(with_gain, &gain),
                        grad_y: gate_rows(&mut grad_y),
                        grad_x: gate_rows(&mut grad_x),
                    };
                    // SAFETY: all buffers have four rows.
                    unsafe { backward.run(isa) };
                    for row in OWN {
                        let part = row * n..(row + 1) * n;
                        let of_row = wide(&x[part.clone()]);
                        let hat = normalized(&form, &of_row);
                        let expected: Vec<f64> = (0..n)
                            .map(|u| {
                                hat[u] * one(with_gain, &gain, u, 1.0)
                                    + one(with_shift, &shift, u, 0.0)
                                    + one(with_base, &base[part.clone()], u, 0.0)
                            })
                            .collect();
                        // A small spread makes a large 1/d.
                        let (_, inverse) = statistics(&form, &of_row);
                        let scale = 1.0 + inverse;
                        assert_within(&what, &y[part.clone()], &expected, |_| 1e-6 * scale);
                        if n > 33 {
                            continue; // slopes are slow
                        }
                        let weights: Vec<f64> = (0..n)
                            .map(|u| f64::from(grad_y[row * n + u]) * one(with_gain, &gain, u, 1.0))
                            .collect();
                        let expected = slopes(&of_row, |x| {
                            let hat = normalized(&form, x);
                            hat.iter().zip(&weights).map(|(a, b)| a * b).sum()
                        });
                        assert_within(&what, &grad_x[part], &expected, |_| {
                            2e-6 * scale * inverse.max(1.0)
                        });
                    }
                    assert!(
                        grad_x[..n]
                            .iter()
                            .chain(&grad_x[3 * n..])
                            .all(|&v| v == 7.5)
                    );
                }
            }
        }
    }
}

/// A constant row has a normalised row of zeros and no gradient, not NaN.
#[test]
fn normalisation_of_a_constant_row() {
    for isa in Isa::all() {
        for form in FORMS {
            let n = 17;
            let (mut x, mut y, mut stats) = (vec![0.25; n], vec![7.5; n], vec![0.0; STATS]);
            let null = core::ptr::null();
            let forward = NormForward {
                rows: 0..1,
                gates: 1,
                units: n,
                form,
                x: rows_of(&mut x, n).gates(n, isa),
                bias: core::ptr::null(),
                base: GateRows::NONE,
                gain: null,
                shift: null,
                y: rows_of(&mut y, n).gates(n, isa),
                stats: rows_of(&mut stats, STATS),
            };
            let mut grad = draw(&mut Random::new(1), n);
            let backward = NormBackward {
                rows: 0..1,
                gates: 1,
                units: n,
                x: rows_of(&mut x, n).gates(n, isa),
                stats: rows_of(&mut stats, STATS),
                gain: null,
                grad_y: rows_of(&mut grad, n).gates(n, isa),
                grad_x: rows_of(&mut grad, n).gates(n, isa),
            };
            // SAFETY: all buffers have one row.
            unsafe {
                forward.run(isa);
                backward.run(isa);
            }
            assert_eq!(y, vec![0.0; n], "{isa:?} {form:?}");
            assert!(grad.iter().all(|v| v.is_finite()), "{isa:?} {form:?}");
        }
    }
}

#[test]
fn sums_over_rows() {
    let mut random = Random::new(4);
    for isa in Isa::all() {
        for rows in [1, 2, 127, 128, 129, 300] {
            for (n, columns) in [
                (1, 0..1),
                (33, 0..33),
                (33, 5..22),
                (33, 16..17),
                (65, 1..65),
            ] {
                let mut a = draw(&mut random, rows * n);
                let mut b = draw(&mut random, rows * n);
                let mut stats = draw(&mut random, rows * STATS);
                let first = usize::from(rows > 1);
                for kind in 0..3 {
                    let mut out = draw(&mut random, n);
                    let before = out.clone();
                    let by = match kind {
                        0 => By::One,
                        1 => By::Values(rows_of(&mut b, n)),
                        _ => By::Normalized {
                            x: rows_of(&mut b, n),
                            stats: rows_of(&mut stats, STATS),
                        },
                    };
                    let sum = SumRows {
                        rows: first..rows,
                        columns: columns.clone(),
                        a: rows_of(&mut a, n),
                        by,
                        out: out.as_mut_ptr(),
                    };
                    // SAFETY: all buffers have these rows and columns.
                    unsafe { sum.run(isa) };
                    let mut expected = wide(&before);
                    let mut magnitudes = vec![1.0; n];
                    for row in first..rows {
                        for u in columns.clone() {
                            let weight = f64::from(b[row * n + u]);
                            let stats = &stats[row * STATS..];
                            let by = match kind {
                                0 => 1.0,
                                1 => weight,
                                _ => (weight - f64::from(stats[0])) * f64::from(stats[1]),
                            };
                            let term = f64::from(a[row * n + u]) * by;
                            expected[u] += term;
                            magnitudes[u] += term.abs();
                        }
                    }
                    let what = format!("{isa:?} rows {rows} columns {columns:?} of {n} by {kind}");
                    assert_within(&what, &out, &expected, |u| 2.5e-7 * magnitudes[u]);
                    for u in (0..n).filter(|u| !columns.contains(u)) {
                        assert_eq!(out[u], before[u], "{what}: column {u} is another's");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_times_a_matrix() {
    let mut random = Random::new(5);
    for isa in Isa::all() {
        for k in [1, 2, 7, 8, 9, 17, 300] {
            for (n, columns) in [
                (1, 0..1),
                (17, 0..17),
                (65, 3..50),
                (65, 64..65),
                (40, 8..8),
            ] {
                let (a, w) = (draw(&mut random, k), draw(&mut random, k * n));
                let before = draw(&mut random, n);
                let mut out = before.clone();
                let times = RowTimes {
                    k,
                    a: a.as_ptr(),
                    w: View::rows(&w, n),
                    columns: columns.clone(),
                    out: out.as_mut_ptr(),
                    back: k % 2 == 1,
                };
                // SAFETY: the buffers have these sizes.
                unsafe { times.run(isa) };
                let mut expected = wide(&before);
                let mut magnitudes = vec![1.0; n];
                for row in 0..k {
                    for u in columns.clone() {
                        let term = f64::from(a[row]) * f64::from(w[row * n + u]);
                        expected[u] += term;
                        magnitudes[u] += term.abs();
                    }
                }
                let what = format!("{isa:?} {k}·{n}, columns {columns:?}");
                assert_within(&what, &out, &expected, |u| 2.5e-7 * magnitudes[u]);
                for u in (0..n).filter(|u| !columns.contains(u)) {
                    assert_eq!(out[u], before[u], "{what}: column {u} is another's");
                }
            }
        }
    }
}

#[test]
fn a_row_times_a_transposed_matrix() {
    let mut random = Random::new(6);
    for isa in Isa::all() {
        for n in [1, 3, 15, 16, 17, 65, 300] {
            for (k, rows) in [
                (1, 0..1),
                (7, 0..7),
                (8, 0..8),
                (17, 3..17),
                (40, 9..39),
                (9, 4..4),
            ] {
                for add in [false, true] {
                    let (a, w) = (draw(&mut random, n), draw(&mut random, k * n));
                    let before = draw(&mut random, k);
                    let mut out = before.clone();
                    let times = RowTimesTransposed {
                        n,
                        a: a.as_ptr(),
                        w: View::rows(&w, n),
                        rows: rows.clone(),
                        out: out.as_mut_ptr(),
                        add,
                        back: k % 2 == 1,
                    };
                    // SAFETY: the buffers have these sizes.
                    unsafe { times.run(isa) };
                    let mut expected = wide(&before);
                    let mut magnitudes = vec![1.0; k];
                    for row in rows.clone() {
                        if !add {
                            expected[row] = 0.0;
                        }
                        for u in 0..n {
                            let term = f64::from(a[u]) * f64::from(w[row * n + u]);
                            expected[row] += term;
                            magnitudes[row] += term.abs();
                        }
                    }
                    let what = format!("{isa:?} {n}·{k}ᵀ, rows {rows:?}, add {add}");
                    assert_within(&what, &out, &expected, |row| 2.5e-7 * magnitudes[row]);
                    for row in (0..k).filter(|row| !rows.contains(row)) {
                        assert_eq!(out[row], before[row], "{what}: row {row} is another's");
                    }
                }
            }
        }
    }
}

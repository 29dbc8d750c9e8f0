//! Products in panels.

use recurrent_core::fused::cpu::product::{
    Begin, Columns, Onto, Panels, Pieces, Product, Scratch, Sums, Term, Weights,
};
use recurrent_core::fused::cpu::simd::Isa;
use recurrent_core::fused::cpu::transpose::Transpose;
use recurrent_core::fused::cpu::view::{Rows, View};

use crate::common::Random;
use crate::{assert_within, draw};

/// `a·w` in f64 and, for the rounding error, the sum of magnitudes.
struct Expected {
    values: Vec<f64>,
    magnitudes: Vec<f64>,
}

fn naive(a: &[f32], w: &[f32], rows: usize, k: usize, n: usize) -> Expected {
    let mut values = vec![0.0; rows * n];
    let mut magnitudes = vec![0.0; rows * n];
    for row in 0..rows {
        for (index, &x) in a[row * k..][..k].iter().enumerate() {
            for column in 0..n {
                let term = f64::from(x) * f64::from(w[index * n + column]);
                values[row * n + column] += term;
                magnitudes[row * n + column] += term.abs();
            }
        }
    }
    Expected { values, magnitudes }
}

fn transpose(list: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let at = |index: usize| list[index % rows * columns + index / rows];
    (0..rows * columns).map(at).collect()
}

/// What stands in an output before it is written.
const BEFORE: f32 = 7.5;

struct Call<'a> {
    isa: Isa,
    rows: usize,
    n: usize,
    columns: &'a Columns,
    shares: usize,
    add: bool,
}

impl Call<'_> {
    fn run(&self, terms: &[Term]) -> Vec<f32> {
        let &Call { rows, n, .. } = self;
        let mut out = vec![BEFORE; rows * n];
        let mut scratch = Scratch::new(rows, self.isa.lanes());
        let target = out.as_mut_ptr();
        for share in 0..self.shares {
            let panels = self.columns.share(share, self.shares);
            let onto = if self.add { Onto::Sum } else { Onto::Fresh };
            let out = Rows {
                ptr: target,
                stride: n,
            };
            let product = Product {
                isa: self.isa,
                rows,
                terms,
                columns: self.columns,
            };
            // SAFETY: the matrices of the terms have these sizes, the scratch these rows, and `out` these
            // rows and columns.
            unsafe { product.write(&mut scratch, panels, out, onto) };
        }
        out
    }
}

fn packed(isa: Isa, weights: View, k: usize, columns: &Columns) -> Panels {
    let mut panels = Panels::new(k, columns);
    let all = 0..columns.panels();
    // SAFETY: the weights have k rows and these columns, the panels are made for them.
    unsafe { Panels::pack(isa, panels.as_mut_ptr(), k, weights, columns, all) };
    panels
}

const K: [usize; 6] = [1, 2, 255, 256, 257, 600];

/// All of it for one way to group the columns.
fn check(isa: Isa, n: usize, columns: &Columns, name: &str) {
    let random = &mut Random::new(n as u64);
    for k in K {
        let most = 17;
        let (a, w) = (draw(random, most * k), draw(random, k * n));
        let w_turned = transpose(&w, k, n);
        let all = naive(&a, &w, most, k, n);
        let native = View::rows(&w, n);
        let turned = View::rows(&w_turned, k).transposed();
        let panels = [
            packed(isa, native, k, columns),
            packed(isa, turned, k, columns),
        ];
        for rows in 1..=most {
            if ![1, 5, 8, 9, 17].contains(&rows) && ![2, 257].contains(&k) {
                continue;
            }
            let a = &a[..rows * k];
            let a_turned = transpose(a, rows, k);
            let views = [View::rows(a, k), View::rows(&a_turned, rows).transposed()];
            let weights = [
                Weights::Native(native),
                Weights::Native(turned),
                panels[0].weights(),
                panels[1].weights(),
            ];
            for (index, weights) in weights.into_iter().enumerate() {
                let call = Call {
                    isa,
                    rows,
                    n,
                    columns,
                    shares: 1 + rows % 3,
                    add: index == 3,
                };
                let a = views[index % 2];
                let got = call.run(&[Term::new(a, k, weights)]);
                let before = if call.add { f64::from(BEFORE) } else { 0.0 };
                let expected: Vec<f64> = all.values[..rows * n]
                    .iter()
                    .map(|value| before + value)
                    .collect();
                let what = format!("{isa:?}, {name}, {rows}·{k}·{n}, weights {index}");
                assert_within(&what, &got, &expected, |at| {
                    2.5e-7 * (all.magnitudes[at] + before)
                });
            }
        }
    }
}

#[test]
fn plain_columns() {
    for isa in Isa::all() {
        for n in [1, 15, 16, 17, 64, 65, 130] {
            for shares in [1, 3] {
                let columns = Columns::plain(n, isa.lanes(), shares);
                check(isa, n, &columns, "plain");
            }
        }
    }
}

#[test]
fn columns_of_gates() {
    for isa in Isa::all() {
        for gates in [3, 4] {
            for units in [1, 15, 16, 17, 33] {
                let columns = Columns::gates(gates, units, isa.lanes());
                check(isa, gates * units, &columns, "gates");
            }
        }
    }
}

/// Several terms are added up, each with its own k.
#[test]
fn terms() {
    let (rows, n) = (7, 65);
    for isa in Isa::all() {
        let columns = Columns::plain(n, isa.lanes(), 1);
        let random = &mut Random::new(5);
        let mut expected = vec![0.0; rows * n];
        let mut magnitudes = vec![0.0; rows * n];
        let matrices: Vec<_> = [257, 3, 40]
            .into_iter()
            .map(|k| (k, draw(random, rows * k), draw(random, k * n)))
            .collect();
        for (k, a, w) in &matrices {
            let one = naive(a, w, rows, *k, n);
            for at in 0..rows * n {
                expected[at] += one.values[at];
                magnitudes[at] += one.magnitudes[at];
            }
        }
        let panels = packed(isa, View::rows(&matrices[2].2, n), 40, &columns);
        let terms: Vec<Term> = (matrices.iter().enumerate())
            .map(|(index, (k, a, w))| {
                let weights = match index {
                    2 => panels.weights(),
                    _ => Weights::Native(View::rows(w, n)),
                };
                Term::new(View::rows(a, *k), *k, weights)
            })
            .collect();
        let call = Call {
            isa,
            rows,
            n,
            columns: &columns,
            shares: 2,
            add: false,
        };
        let got = call.run(&terms);
        assert_within("terms", &got, &expected, |at| 2.5e-7 * magnitudes[at]);
    }
}

/// The left factor in another order of its rows, packed weights or not, one row or some.
#[test]
fn rows_in_another_order() {
    let (k, n, lying) = (70, 33, 12);
    for isa in Isa::all() {
        let columns = Columns::plain(n, isa.lanes(), 1);
        let random = &mut Random::new(6);
        let (a, w) = (draw(random, lying * k), draw(random, k * n));
        let native = View::rows(&w, n);
        let panels = packed(isa, native, k, &columns);
        for order in [vec![11], vec![3, 0, 7, 7, 2, 11, 5, 1, 10]] {
            let rows = order.len();
            let sorted: Vec<f32> = (order.iter())
                .flat_map(|&row| a[row * k..][..k].to_vec())
                .collect();
            let expected = naive(&sorted, &w, rows, k, n);
            for weights in [Weights::Native(native), panels.weights()] {
                let call = Call {
                    isa,
                    rows,
                    n,
                    columns: &columns,
                    shares: 1,
                    add: false,
                };
                let got = call.run(&[Term {
                    order: order.as_ptr(),
                    ..Term::new(View::rows(&a, k), k, weights)
                }]);
                let what = format!("{isa:?}, {rows} rows, {weights:?}");
                assert_within(&what, &got, &expected.values, |at| {
                    2.5e-7 * expected.magnitudes[at]
                });
            }
        }
    }
}

/// Gates in tiles, `[panel][row][gate][lane]`, from a product with a bias, on top of another product,
/// and as the left factor of the next.
#[test]
fn tiles() {
    let k = 9;
    for isa in Isa::all() {
        for (gates, units) in [(4, 1), (4, 16), (3, 17), (4, 33), (3, 50)] {
            for rows in [1, 2, 7, 13] {
                let n = gates * units;
                let what = format!("{isa:?}, {gates} gates of {units}, {rows} rows");
                let columns = Columns::gates(gates, units, isa.lanes());
                let random = &mut Random::new(n as u64);
                let (a, w, bias) = (draw(random, rows * k), draw(random, k * n), draw(random, n));
                // More rows than are used, and something else in what fills up the last panel.
                let panel = (rows + 2) * columns.width();
                let mut values = vec![0.0; columns.panels() * panel];
                let mut begin = vec![0.0; columns.padded()];
                for index in 0..columns.panels() {
                    for gate in 0..gates {
                        let of = columns.of(index, gate);
                        let start = (index * gates + gate) * columns.lanes;
                        begin[start..start + of.len()].copy_from_slice(&bias[of]);
                    }
                }
                let mut scratch = Scratch::new(rows, isa.lanes());
                let panels = packed(isa, View::rows(&w, n), k, &columns);
                let terms = [Term::new(View::rows(&a, k), k, panels.weights())];
                for begin in [Begin::Row(begin.as_ptr()), Begin::There] {
                    let sums = Sums {
                        ptr: values.as_mut_ptr(),
                        panel,
                        begin,
                    };
                    let all = 0..columns.panels();
                    let product = Product {
                        isa,
                        rows,
                        terms: &terms,
                        columns: &columns,
                    };
                    // SAFETY: `values` has these panels with room for the rows.
                    unsafe {
                        product.sum_into(&mut scratch, all, sums, |_, _| ());
                    }
                }
                // bias + 2·a·w
                let once = naive(&a, &w, rows, k, n);
                let mut plain = vec![0.0; rows * n];
                let mut expected = vec![0.0; rows * n];
                for row in 0..rows {
                    for column in 0..n {
                        let (gate, unit) = (column / units, column % units);
                        let (index, lane) = (unit / columns.lanes, unit % columns.lanes);
                        let at = index * panel + (row * gates + gate) * columns.lanes + lane;
                        plain[row * n + column] = values[at];
                        expected[row * n + column] =
                            f64::from(bias[column]) + 2.0 * once.values[row * n + column];
                    }
                }
                assert_within(&what, &plain, &expected, |at| {
                    5e-7 * (once.magnitudes[at] + 1.0)
                });

                // Times the transposed w, whose rows are packed in the same order.
                let back = Columns::plain(k, isa.lanes(), 1);
                let mut panels = Panels::new(columns.padded(), &back);
                panels_of_rubbish(&mut panels, columns.padded() * back.padded());
                let turned = View::rows(&w, n).transposed();
                let all = 0..back.panels();
                // SAFETY: w has these rows and columns, the panels were made for them.
                unsafe {
                    let target = panels.as_mut_ptr();
                    Panels::pack_by_tile(isa, target, &columns, turned, &back, all);
                }
                let call = Call {
                    isa,
                    rows,
                    n: k,
                    columns: &back,
                    shares: 1,
                    add: false,
                };
                let got = call.run(&[Term {
                    pieces: Some(Pieces {
                        len: columns.width(),
                        distance: panel,
                    }),
                    ..Term::new(
                        View {
                            ptr: values.as_ptr(),
                            row: columns.width(),
                            column: 1,
                        },
                        columns.padded(),
                        panels.weights(),
                    )
                }]);
                let turned = transpose(&w, k, n);
                let expected = naive(&plain, &turned, rows, n, k);
                assert_within(&what, &got, &expected.values, |at| {
                    5e-7 * expected.magnitudes[at]
                });
            }
        }
    }
}

/// What memory that was used before may hold.
fn panels_of_rubbish(panels: &mut Panels, len: usize) {
    // SAFETY: the panels have this many values.
    unsafe { core::slice::from_raw_parts_mut(panels.as_mut_ptr(), len) }.fill(f32::NAN);
}

/// Panels hold each column once, in the shares' order.
#[test]
fn panels_cover_the_columns() {
    for lanes in [4, 8, 16] {
        for (columns, n) in [
            (Columns::plain(130, lanes, 1), 130),
            (Columns::plain(130, lanes, 7), 130),
            (Columns::plain(1, lanes, 3), 1),
            (Columns::gates(4, 33, lanes), 132),
            (Columns::gates(3, 1, lanes), 3),
        ] {
            let mut seen = vec![0; n];
            for share in 0..5 {
                for panel in columns.share(share, 5) {
                    for vector in 0..columns.vectors {
                        for column in columns.of(panel, vector) {
                            seen[column] += 1;
                        }
                    }
                }
            }
            assert_eq!(seen, vec![1; n], "{columns:?}");
        }
    }
}

#[test]
fn rows_to_columns() {
    for isa in Isa::all() {
        for rows in [1, 2, 15, 16, 17, 33] {
            for columns in [1, 3, 15, 16, 17, 31, 48] {
                let what = format!("{isa:?}, {rows} x {columns}");
                // The first columns of wider rows, into a part of longer ones.
                let (width, stride) = (columns + 3, rows + 5);
                let list = draw(&mut Random::new(rows as u64), rows * width);
                let mut target = vec![BEFORE; columns * stride];
                let transpose = Transpose {
                    source: View::rows(&list, width),
                    rows,
                    columns,
                    target: target[2..].as_mut_ptr(),
                    stride,
                };
                // SAFETY: the source has these rows, `target` room for as many columns.
                unsafe { transpose.run(isa) };
                for column in 0..columns {
                    for (at, &value) in target[column * stride..][..stride].iter().enumerate() {
                        let inside = (2..rows + 2).contains(&at);
                        let expected = match inside {
                            true => list[(at - 2) * width + column],
                            false => BEFORE,
                        };
                        assert_eq!(value, expected, "{what}: column {column}, {at}");
                    }
                }
            }
        }
    }
}

/// Asking for rows ahead changes no bit, wherever they end.
#[test]
fn far_rows() {
    for isa in Isa::all() {
        for (rows, k, n) in [(1, 5, 3), (7, 130, 33), (13, 128, 64), (40, 300, 17)] {
            let random = &mut Random::new(k as u64);
            let (a, w) = (draw(random, rows * k), draw(random, k * n));
            let columns = Columns::plain(n, isa.lanes(), 1);
            let panels = packed(isa, View::rows(&w, n), k, &columns);
            let near = Term::new(View::rows(&a, k), k, panels.weights());
            let call = Call {
                isa,
                rows,
                n,
                columns: &columns,
                shares: 1,
                add: false,
            };
            let expected = call.run(&[near]);
            let got = call.run(&[Term { far: true, ..near }]);
            assert_eq!(got, expected, "{isa:?}, {rows} x {k} x {n}");
        }
    }
}

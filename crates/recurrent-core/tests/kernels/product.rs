//! Products in panels.

use recurrent_core::kernel::cpu::product::{
    Columns, Onto, Panels, Scratch, Term, View, Weights, product, write_tile,
};
use recurrent_core::kernel::cpu::simd::Isa;

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
    fn run(&self, terms: &[Term<'_>]) -> Vec<f32> {
        let &Call { rows, n, .. } = self;
        let mut out = vec![BEFORE; rows * n];
        let mut scratch = Scratch::new(rows, self.isa.lanes());
        let target = out.as_mut_ptr();
        for share in 0..self.shares {
            let panels = self.columns.share(share, self.shares);
            let finish = |panel, tile| {
                // SAFETY: `out` has these rows and columns.
                unsafe {
                    let onto = if self.add { Onto::Sum } else { Onto::Fresh };
                    write_tile(self.isa, tile, self.columns, panel, rows, target, n, onto);
                };
            };
            // SAFETY: the matrices of the terms have these sizes, the scratch these rows.
            unsafe {
                product(
                    self.isa,
                    &mut scratch,
                    rows,
                    terms,
                    self.columns,
                    panels,
                    finish,
                );
            }
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
                Weights::Packed(&panels[0]),
                Weights::Packed(&panels[1]),
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
                let got = call.run(&[Term { a, k, weights }]);
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
            .map(|(index, (k, a, w))| Term {
                a: View::rows(a, *k),
                k: *k,
                weights: match index {
                    2 => Weights::Packed(&panels),
                    _ => Weights::Native(View::rows(w, n)),
                },
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

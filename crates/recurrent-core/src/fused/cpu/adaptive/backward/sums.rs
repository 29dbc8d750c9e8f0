//! The gradients that are sums over all rows: weights and biases.

use core::ops::Range;

use super::Backward;
use super::grads::features;
use crate::fused::cpu::rows::{By, SumRows};
use crate::fused::cpu::sums::{Outer, Right};
use crate::fused::cpu::transpose::Transpose;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::adaptive::{BIASES, StatePart, WEIGHTS, Weight, weight_index};

/// The left factor of a weight.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Values of all rows.
    Rows(Rows),
    /// A part of a layer's state before each row.
    Before(usize, StatePart),
}

impl Backward<'_> {
    /// Transposes this share's columns of the left factors of the wanted weights.
    ///
    /// # Safety
    /// All steps are done; each share is run once.
    pub unsafe fn transpose(&self, share: usize) {
        let rows = self.problem.rows();
        for (index, (layer, grads)) in self.problem.layers.iter().zip(self.layers).enumerate() {
            let saved = &self.saved.layers[index];
            let (d_input, d_hidden, d_adapt) = (layer.d_input, layer.d_hidden, layer.d_adapt);
            let below = self.problem.below(index);
            let rows_of = |values: &[f32], size| Source::Rows(Rows::read(values.as_ptr(), size));
            let before = |layer, part| Source::Before(layer, part);
            let z_below = match index {
                0 => before(below, StatePart::Z),
                _ => Source::Rows(self.states(below, StatePart::Z)),
            };
            let seen = [
                (Source::Rows(self.input(index)), d_input),
                (before(index, StatePart::Hidden), d_hidden),
                (z_below, self.problem.d_below(index)),
            ];
            let z = [(before(index, StatePart::Z), d_adapt)];
            let z_next = [(Source::Rows(self.states(index, StatePart::Z)), d_adapt)];
            let scaled_input = [(rows_of(&saved.scaled[0], d_input), d_input)];
            let scaled_hidden = [(rows_of(&saved.scaled[1], d_hidden), d_hidden)];
            let sources: [&[(Source, usize)]; WEIGHTS] =
                [&seen, &z, &z_next, &scaled_input, &scaled_hidden];
            for ((weight, target), sources) in Weight::ALL.iter().zip(grads.factors).zip(sources) {
                if self.targets[weight_index(index, *weight)].is_none() {
                    continue;
                }
                let mut first = 0;
                for (source, size) in sources {
                    let own = self.crew.rows(*size, share);
                    // SAFETY: this share's own rows of the transposed matrix, which has a row per
                    // feature.
                    unsafe { self.transpose_source(source, own, target.add(first * rows)) };
                    first += size;
                }
            }
        }
    }

    /// Transposes some columns of a factor.
    ///
    /// # Safety
    /// These rows of `target` are the caller's own.
    unsafe fn transpose_source(&self, source: &Source, own: Range<usize>, target: *mut f32) {
        let total = self.problem.rows();
        let move_rows = |from: Rows, count: usize, row: usize| {
            // SAFETY: by the contract of this function.
            unsafe {
                let transpose = Transpose {
                    source: from.view().from_column(own.start),
                    rows: count,
                    columns: own.len(),
                    target: target.add(own.start * total + row),
                    stride: total,
                };
                transpose.run(self.crew.isa);
            }
        };
        let (layer, part) = match *source {
            Source::Rows(rows) => return move_rows(rows, total, 0),
            Source::Before(layer, part) => (layer, part),
        };
        let (batch, after) = (self.problem.batch_size(), self.states(layer, part));
        move_rows(self.first(layer, part), batch, 0);
        if total == batch * self.problem.counts.len() {
            // The states before a step are the first rows of the states after the previous step.
            move_rows(after, total - batch, batch);
            return;
        }
        for (step, &count) in self.problem.counts.iter().enumerate().skip(1) {
            let rows = after.from_row(self.offsets[step - 1]);
            move_rows(rows, count, self.offsets[step]);
        }
    }

    /// The gradients that are sums over all rows, except that of P, for this share's columns.
    ///
    /// # Safety
    /// All factors are transposed; each share is run once.
    pub unsafe fn sums(&self, share: usize) {
        let rows = self.problem.rows();
        for (index, (layer, grads)) in self.problem.layers.iter().zip(self.layers).enumerate() {
            let (width, adapt_width) = (4 * layer.d_hidden, 4 * layer.d_adapt);
            let saved = &self.saved.layers[index];
            let gates = self.gates(index);
            let tiles = |buffer: *mut f32| Right::Panels(saved.layout.packed(buffer), gates);
            let products = [
                (Weight::AdaptInput, Right::Rows(grads.adapt), adapt_width),
                (Weight::AdaptHidden, Right::Rows(grads.adapt), adapt_width),
                (Weight::Input, tiles(grads.from[0]), width),
                (Weight::Hidden, tiles(grads.from[1]), width),
            ];
            for (weight, d, n) in products {
                let Some(out) = self.targets[weight_index(index, weight)] else {
                    continue;
                };
                let outer = Outer {
                    a: grads.factors[weight as usize],
                    m: features(self.problem, index, weight),
                    rows,
                    d,
                    n,
                    out,
                    stride: n,
                    add: false,
                };
                // SAFETY: all rows are complete; the scratch and the columns of this share.
                unsafe {
                    outer.run(
                        self.crew.isa,
                        self.crew.scratch(share),
                        share,
                        self.crew.shares,
                    )
                };
            }
            let Some(out) = self.targets[BIASES] else {
                continue;
            };
            let out = out.wrapping_add(self.problem.bias_start(index));
            let adapt = SumRows {
                rows: 0..rows,
                columns: self.crew.rows(adapt_width, share),
                a: Rows {
                    ptr: grads.adapt,
                    stride: adapt_width,
                },
                by: By::One,
                out,
            };
            // SAFETY: as above.
            unsafe { adapt.run(self.crew.isa) };
            if !layer.bias {
                continue;
            }
            let p_b = saved.policy_gates[2].as_ptr().cast_mut();
            for panel in self.crew.panels(&gates, share) {
                for gate in 0..gates.vectors {
                    let columns = gates.of(panel, gate);
                    // Indexed by column number.
                    let of = |buffer: *mut f32| {
                        let rows = saved.layout.rows(buffer, 0);
                        Rows {
                            ptr: rows.at(0, gate, panel).wrapping_sub(columns.start),
                            stride: rows.row,
                        }
                    };
                    let sum = SumRows {
                        rows: 0..rows,
                        columns: columns.clone(),
                        a: of(grads.preact),
                        by: By::Values(of(p_b)),
                        out: out.wrapping_add(adapt_width),
                    };
                    // SAFETY: as above.
                    unsafe { sum.run(self.crew.isa) };
                }
            }
        }
    }

    /// The gradient of P for the columns of a part of the policy, for this share's part of them.
    ///
    /// # Safety
    /// As [`sums`](Self::sums); the parts run one after the other.
    pub unsafe fn policy_sums(&self, part: usize, share: usize) {
        for (index, (layer, grads)) in self.problem.layers.iter().zip(self.layers).enumerate() {
            let n = layer.sizes()[part];
            let Some(out) = self.targets[weight_index(index, Weight::Policy)] else {
                continue;
            };
            if n == 0 {
                continue;
            }
            let layout = &self.saved.layers[index].layout;
            let outer = Outer {
                a: grads.factors[Weight::Policy as usize],
                m: layer.d_adapt,
                rows: self.problem.rows(),
                d: match part {
                    0 | 1 => Right::Rows(grads.policy_scales[part]),
                    _ => Right::Panels(
                        layout.packed(grads.policy_gates[part - 2]),
                        self.gates(index),
                    ),
                },
                n,
                out: out.wrapping_add(layer.starts()[part]),
                stride: layer.policy(),
                // The destination starts at zero, and holds the sums of the previous parts.
                add: true,
            };
            // SAFETY: all rows are complete; the scratch and the columns of this share.
            unsafe {
                outer.run(
                    self.crew.isa,
                    self.crew.scratch(share),
                    share,
                    self.crew.shares,
                )
            };
        }
    }
}

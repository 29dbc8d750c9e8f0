//! The gradients that are sums over all rows: those of weights and biases.

use core::ops::Range;

use super::super::{BIASES, Problem, StatePart, WEIGHTS, Weight, view, weight_index};
use super::Run;
use crate::kernel::cpu::buffer::Buffer;
use crate::kernel::cpu::pointwise::Rows;
use crate::kernel::cpu::product::part;
use crate::kernel::cpu::rows::{By, SumRows};
use crate::kernel::cpu::sums::{Outer, Right};
use crate::kernel::cpu::transpose::Transpose;

/// A layer's gradients of all rows, and the transposed factors of its wanted weights.
pub struct LayerGrads {
    /// ∂z `[N, 4H]`
    preact: Buffer,
    /// ∂a, ∂b `[N, 4H]`
    from: [Buffer; 2],
    /// ∂(z'·P) `[N, ·]`
    policy: Buffer,
    /// ∂q `[N, 4A]`
    adapt: Buffer,
    /// What each weight is multiplied with `[features, N]`.
    factors: [Buffer; WEIGHTS],
}

/// The same as pointers.
pub struct Pointers {
    /// ∂z
    pub preact: *mut f32,
    /// ∂a, ∂b
    pub from: [*mut f32; 2],
    /// ∂(z'·P)
    pub policy: *mut f32,
    /// ∂q
    pub adapt: *mut f32,
    /// Transposed factors; dangling for weights that nobody asks for.
    pub factors: [*mut f32; WEIGHTS],
}

/// Features of what a weight is multiplied with.
fn features(problem: &Problem, layer: usize, weight: Weight) -> usize {
    let sizes = &problem.layers[layer];
    match weight {
        Weight::AdaptInput => problem.d_seen(layer),
        Weight::AdaptHidden | Weight::Policy => sizes.d_adapt,
        Weight::Input => sizes.d_input,
        Weight::Hidden => sizes.d_hidden,
    }
}

impl LayerGrads {
    /// Room for a layer.
    pub fn new(problem: &Problem, index: usize, wanted: &[bool]) -> Self {
        let rows = problem.rows();
        let layer = &problem.layers[index];
        let room = |size: usize| Buffer::new(rows * size);
        let width = 4 * layer.d_hidden;
        let factor = |weight| match wanted[weight_index(index, weight)] {
            true => room(features(problem, index, weight)),
            false => Buffer::default(),
        };
        Self {
            preact: room(width),
            from: [room(width), room(width)],
            policy: room(layer.policy()),
            adapt: room(4 * layer.d_adapt),
            factors: Weight::ALL.map(factor),
        }
    }

    /// Where they are.
    pub fn pointers(&mut self) -> Pointers {
        let [from_input, from_hidden] = &mut self.from;
        Pointers {
            preact: self.preact.as_mut_ptr(),
            from: [from_input.as_mut_ptr(), from_hidden.as_mut_ptr()],
            policy: self.policy.as_mut_ptr(),
            adapt: self.adapt.as_mut_ptr(),
            factors: self.factors.each_mut().map(|factor| factor.as_mut_ptr()),
        }
    }
}

/// What a weight is multiplied with.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Values of all rows.
    Rows(Rows),
    /// A part of a layer's state before each row.
    Before(usize, StatePart),
}

impl Run<'_> {
    /// Transposes this share's columns of what each wanted weight is multiplied with.
    ///
    /// # Safety
    /// All steps are done; each share is run once.
    pub unsafe fn transpose(&self, share: usize) {
        let rows = self.problem.rows();
        for (index, (layer, grads)) in self.problem.layers.iter().zip(self.layers).enumerate() {
            let tape = &self.tape.layers[index];
            let (d_input, d_hidden, d_adapt) = (layer.d_input, layer.d_hidden, layer.d_adapt);
            let below = self.problem.below(index);
            let saved = |values: &[f32], size| Source::Rows(Rows::read(values.as_ptr(), size));
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
            let z_next = [(saved(&tape.z, d_adapt), d_adapt)];
            let scaled_input = [(saved(&tape.scaled_input, d_input), d_input)];
            let scaled_hidden = [(saved(&tape.scaled_hidden, d_hidden), d_hidden)];
            let sources: [&[(Source, usize)]; WEIGHTS] =
                [&seen, &z, &z_next, &scaled_input, &scaled_hidden];
            for ((weight, target), sources) in Weight::ALL.iter().zip(grads.factors).zip(sources) {
                if self.targets[weight_index(index, *weight)].is_none() {
                    continue;
                }
                let mut first = 0;
                for (source, size) in sources {
                    let own = part(*size, share, self.members);
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
                    source: view(from).from_column(own.start),
                    rows: count,
                    columns: own.len(),
                    target: target.add(own.start * total + row),
                    stride: total,
                };
                transpose.run(self.isa);
            }
        };
        let (layer, part) = match *source {
            Source::Rows(rows) => return move_rows(rows, total, 0),
            Source::Before(layer, part) => (layer, part),
        };
        let (batch, after) = (self.problem.batch_size(), self.states(layer, part));
        move_rows(self.first(layer, part), batch, 0);
        if total == batch * self.problem.counts.len() {
            // Each step has the rows of the one before.
            move_rows(after, total - batch, batch);
            return;
        }
        for (step, &count) in self.problem.counts.iter().enumerate().skip(1) {
            let rows = after.from_row(self.offsets[step - 1]);
            move_rows(rows, count, self.offsets[step]);
        }
    }

    /// The gradients that are sums over all rows, for this share's columns.
    ///
    /// # Safety
    /// All factors are transposed; each share is run once.
    pub unsafe fn sums(&self, share: usize) {
        let rows = self.problem.rows();
        for (index, (layer, grads)) in self.problem.layers.iter().zip(self.layers).enumerate() {
            let (width, adapt_width) = (4 * layer.d_hidden, 4 * layer.d_adapt);
            let products = [
                (grads.adapt, adapt_width),
                (grads.adapt, adapt_width),
                (grads.policy, layer.policy()),
                (grads.from[0], width),
                (grads.from[1], width),
            ];
            for ((weight, factor), (grad, n)) in Weight::ALL.iter().zip(grads.factors).zip(products)
            {
                let Some(out) = self.targets[weight_index(index, *weight)] else {
                    continue;
                };
                let outer = Outer {
                    a: factor,
                    m: features(self.problem, index, *weight),
                    rows,
                    d: Right::Rows(grad),
                    n,
                    out,
                };
                // SAFETY: all rows are complete; the scratch and the columns of this share.
                unsafe { outer.run(self.isa, self.scratch.of(share), share, self.members) };
            }
            let Some(out) = self.targets[BIASES] else {
                continue;
            };
            let out = out.wrapping_add(self.problem.bias_start(index));
            let policy = self.tape.layers[index].policy.as_ptr();
            let p_b = policy.wrapping_add(layer.starts()[4]);
            let sums = [
                (adapt_width, grads.adapt, By::One, out),
                (
                    if layer.bias { width } else { 0 },
                    grads.preact,
                    By::Values(Rows::read(p_b, layer.policy())),
                    out.wrapping_add(adapt_width),
                ),
            ];
            for (width, ptr, by, out) in sums {
                let sum = SumRows {
                    rows: 0..rows,
                    columns: part(width, share, self.members),
                    a: Rows { ptr, stride: width },
                    by,
                    out,
                };
                // SAFETY: as above.
                unsafe { sum.run(self.isa) };
            }
        }
    }
}

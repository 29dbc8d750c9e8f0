//! Layer normalisation of rows as one operation, for what is normalised before the recurrence.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use burn::tensor::Tensor;

use super::Target;
use super::contract::{self, Kept, SequenceKernel};
use super::cpu::buffer::{Buffer, unset};
use super::cpu::gang;
use super::cpu::pointwise::{GateRows, Rows};
use super::cpu::product::part;
use super::cpu::rows::{By, NormBackward, NormForward, STATS, SumRows};
use super::cpu::simd::Isa;
use crate::equations::layer_norm::{Norm, Normalizer};

/// Rows times features below which no other thread is asked.
const WORTH_WAKING: usize = 1 << 16;

/// `gain ⊙ x̂ + shift`, as [`Norm::forward`]; f32 on a device with kernels.
///
/// # Shapes
/// - x, output `[rows, n]`
pub fn normalize(norm: &Norm, x: Tensor<2>) -> Tensor<2> {
    // Once per call: what an operation of its own would save is small on a GPU.
    if super::target(&x.device()) != Some(Target::Cpu) {
        return norm.forward(x);
    }
    let [rows, n] = x.dims();
    let kernel = NormKernel {
        form: norm.normalizer,
        rows,
        n,
        gain: norm.gain.is_some(),
        shift: norm.shift.is_some(),
    };
    let mut tensors = vec![x.into_dispatch()];
    let weights = [&norm.gain, &norm.shift].into_iter().flatten();
    tensors.extend(weights.map(|weight| weight.clone().into_dispatch()));
    contract::run(tensors, Arc::new(kernel)).reshape([rows, n])
}

/// x, then gain and shift where there are any.
#[derive(Debug)]
struct NormKernel {
    form: Normalizer,
    rows: usize,
    n: usize,
    gain: bool,
    shift: bool,
}

/// A pointer that threads may share: each writes what is its own.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: it is followed only to what the calling share owns, or to what nobody writes.
unsafe impl Sync for Shared {}

impl Shared {
    fn rows(&self, stride: usize) -> Rows {
        Rows {
            ptr: self.0,
            stride,
        }
    }
}

impl NormKernel {
    fn members(&self) -> usize {
        match self.rows * self.n < WORTH_WAKING {
            true => 1,
            false => gang::available_threads(),
        }
    }

    /// Runs `work` for each member's part of `count`.
    fn split(&self, count: usize, work: impl Fn(Range<usize>) + Sync) {
        let members = self.members();
        gang::run(members, members, 1, &|_, share| {
            work(part(count, share, members))
        });
    }
}

impl SequenceKernel for NormKernel {
    fn output_len(&self) -> usize {
        self.rows * self.n
    }

    fn forward(&self, tensors: &[&[f32]], keep: bool) -> (Vec<f32>, Option<Kept>) {
        let (n, isa) = (self.n, Isa::best());
        let weight = |index: usize| tensors[index].as_ptr();
        let gain = if self.gain { Some(weight(1)) } else { None };
        let shift = self.shift.then(|| weight(1 + usize::from(self.gain)));
        let mut y = unset(self.rows * n);
        let mut stats = Buffer::new(self.rows * STATS);
        let (out, kept) = (Shared(y.as_mut_ptr()), Shared(stats.as_mut_ptr()));
        let null = core::ptr::null_mut();
        let gain = Shared(gain.map_or(null, <*const f32>::cast_mut));
        let shift = Shared(shift.map_or(null, <*const f32>::cast_mut));
        let x = Shared(tensors[0].as_ptr().cast_mut());
        self.split(self.rows, |rows| {
            let (out, kept, gain, shift, x) = (&out, &kept, &gain, &shift, &x);
            let norm = NormForward {
                rows,
                gates: 1,
                units: n,
                form: self.form,
                x: x.rows(n).gates(n, isa),
                bias: core::ptr::null(),
                base: GateRows::NONE,
                gain: gain.0,
                shift: shift.0,
                y: out.rows(n).gates(n, isa),
                stats: kept.rows(STATS),
            };
            // SAFETY: the tensors have these sizes; the rows are this share's own.
            unsafe { norm.run(isa) };
        });
        (y, keep.then(|| Box::new(stats) as Kept))
    }

    fn backward(
        &self,
        tensors: &[&[f32]],
        kept: &Kept,
        _output: &[f32],
        grad: &[f32],
        wanted: &[bool],
    ) -> Vec<Option<Vec<f32>>> {
        let (n, isa) = (self.n, Isa::best());
        let stats: &Buffer = kept.downcast_ref().expect("the statistics of this kernel");
        let read = |values: &[f32]| Shared(values.as_ptr().cast_mut());
        let (x, stats, grad) = (read(tensors[0]), read(stats), read(grad));
        let null = core::ptr::null_mut();
        let gain = Shared(match self.gain {
            true => tensors[1].as_ptr().cast_mut(),
            false => null,
        });
        let mut grads: Vec<Option<Vec<f32>>> = tensors
            .iter()
            .zip(wanted)
            .enumerate()
            .map(|(index, (values, &wanted))| {
                wanted.then(|| match index {
                    0 => unset(values.len()),
                    _ => vec![0.0; values.len()], // summed up
                })
            })
            .collect();
        if let Some(grad_x) = &mut grads[0] {
            let grad_x = Shared(grad_x.as_mut_ptr());
            self.split(self.rows, |rows| {
                let (x, stats, grad, gain, grad_x) = (&x, &stats, &grad, &gain, &grad_x);
                let norm = NormBackward {
                    rows,
                    gates: 1,
                    units: n,
                    x: x.rows(n).gates(n, isa),
                    stats: stats.rows(STATS),
                    gain: gain.0,
                    grad_y: grad.rows(n).gates(n, isa),
                    grad_x: grad_x.rows(n).gates(n, isa),
                };
                // SAFETY: the tensors have these sizes; the rows are this share's own.
                unsafe { norm.run(isa) };
            });
        }
        for (index, grads) in grads.iter_mut().enumerate().skip(1) {
            let Some(out) = grads else { continue };
            let out = Shared(out.as_mut_ptr());
            let of_gain = self.gain && index == 1;
            self.split(n, |columns| {
                let (x, stats, grad, out) = (&x, &stats, &grad, &out);
                let sum = SumRows {
                    rows: 0..self.rows,
                    columns,
                    a: grad.rows(n),
                    by: match of_gain {
                        true => By::Normalized {
                            x: x.rows(n),
                            stats: stats.rows(STATS),
                        },
                        false => By::One,
                    },
                    out: out.0,
                };
                // SAFETY: as above; the columns are this share's own.
                unsafe { sum.run(isa) };
            });
        }
        grads
    }
}

//! One step, backward.

use super::*;
use crate::equations::masks::Masks;

/// The derivative of one step of some rows and units.
#[derive(Debug, Clone)]
pub struct LstmBackward {
    /// Number of sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// Activated gates.
    pub gates: GateRows,
    /// c
    pub cell: Rows,
    /// n, if the cell is normalised; `Rows::NONE`: n = c̃.
    pub normalized: Rows,
    /// Whether n is carried.
    pub carry_normalized: bool,
    /// ∂L/∂h' from later steps; with masks it receives the direct part of ∂L/∂h (zoneout).
    pub grad_hidden: Rows,
    /// ∂L/∂h' from the output; `Rows::NONE`: nothing to add.
    pub grad_output: Rows,
    /// ∂L/∂c' on entry, ∂L/∂c on return.
    pub grad_cell: Rows,
    /// ∂L/∂n on return of [`Half::Hidden`], ∂L/∂c̃'s part through n on entry of [`Half::Gates`].
    pub grad_normalized: Rows,
    /// ∂L/∂c̃'s direct part, between the halves.
    pub grad_raw: Rows,
    /// ∂L/∂z; written.
    pub grad_preact: GateRows,
    /// Masks.
    pub masks: Masks<Rows>,
    /// Peepholes.
    pub peepholes: PeepholeRows,
    /// Bound of |c̃|; infinite if there is no clip.
    pub clip: f32,
}

impl LstmBackward {
    /// Runs the given halves: [`Half::Hidden`] comes before [`Half::Gates`] here.
    ///
    /// # Safety
    /// Everything that the kind and the halves read is readable for the rows and units; what they
    /// write belongs to the caller alone.
    pub unsafe fn run(self, isa: Isa, kind: Kind, half: Half) {
        match half {
            Half::Both => by_kind!(isa, kind, StepBack, self),
            Half::Gates => by_kind!(isa, kind, GatesBack, self),
            Half::Hidden => {
                let output = kind.coupling.mixing_gates() + 1;
                by_flags!(isa, kind, HiddenBack, (self, output))
            }
        }
    }

    /// The same arguments for the rows starting at row `b`.
    pub fn from_row(&self, b: usize) -> Self {
        Self {
            gates: self.gates.from_row(b),
            cell: self.cell.from_row(b),
            normalized: self.normalized.from_row(b),
            grad_hidden: self.grad_hidden.from_row(b),
            grad_output: self.grad_output.from_row(b),
            grad_cell: self.grad_cell.from_row(b),
            grad_normalized: self.grad_normalized.from_row(b),
            grad_raw: self.grad_raw.from_row(b),
            grad_preact: self.grad_preact.from_row(b),
            masks: self.masks.map(|rows| rows.from_row(b)),
            ..self.clone()
        }
    }

    /// From ∂h' and ∂c' to ∂z_o. Returns (∂n, the part of ∂c̃ that bypasses n, the part of ∂c that
    /// bypasses c̃). Either n or c̃ is carried.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn hidden<S: Simd, const PEEPHOLE: bool, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
        output: usize,
        normalized: S::f32s,
    ) -> [S::f32s; 3] {
        let times = |x, y| simd.mul_f32s(x, y);
        // SAFETY: by the contract of this function.
        unsafe {
            let mut grad_hidden = at.read(simd, self.grad_hidden);
            if !self.grad_output.is_none() {
                grad_hidden = simd.add_f32s(grad_hidden, at.read(simd, self.grad_output));
            }
            let mut carried = at.read(simd, self.grad_cell);
            let mut grad_cell = simd.splat_f32s(0.0);
            if MASKED {
                let update = at.mask(simd, self.masks.update_hidden);
                let direct = times(one_minus(simd, update), grad_hidden);
                at.write(simd, self.grad_hidden, direct);
                grad_hidden = times(update, grad_hidden);
                grad_hidden = times(grad_hidden, at.mask(simd, self.masks.hidden));
                let update = at.mask(simd, self.masks.update_cell);
                grad_cell = times(one_minus(simd, update), carried);
                carried = times(update, carried);
            }
            let o = at.read_gate(simd, self.gates, output);
            let squashed = tanh(simd, normalized);
            let grad_z = times(times(grad_hidden, squashed), sigmoid_slope(simd, o));
            at.write_gate(simd, self.grad_preact, output, grad_z);
            let mut grad_normalized = times(times(grad_hidden, o), tanh_slope(simd, squashed));
            let mut grad_raw = carried;
            if self.carry_normalized {
                grad_normalized = simd.add_f32s(grad_normalized, carried);
                grad_raw = simd.splat_f32s(0.0);
            }
            if PEEPHOLE {
                let v = at.weight(simd, self.peepholes.output_new);
                grad_raw = fma(simd, grad_z, v, grad_raw);
                let v = at.weight(simd, self.peepholes.output_previous);
                grad_cell = fma(simd, grad_z, v, grad_cell);
            }
            [grad_normalized, grad_raw, grad_cell]
        }
    }

    /// Recomputes quantities that the forward did not save.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn recompute<S: Simd, C: Coupled, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
    ) -> Recomputed<S::f32s> {
        // SAFETY: by the contract of this function.
        unsafe {
            let cell = at.read(simd, self.cell);
            let saved = |gate| at.read_gate(simd, self.gates, gate);
            let mixing = [saved(0), saved(C::MIXING - 1)];
            let candidate = saved(C::MIXING);
            let (input, forget) = C::weigh(simd, mixing);
            let mut masked = candidate;
            if MASKED {
                masked = simd.mul_f32s(candidate, at.mask(simd, self.masks.candidate));
            }
            let mut unbounded = fma(simd, forget, cell, simd.mul_f32s(input, masked));
            if MASKED {
                unbounded = simd.mul_f32s(unbounded, at.mask(simd, self.masks.cell));
            }
            Recomputed {
                cell,
                mixing,
                candidate,
                masked,
                unbounded,
            }
        }
    }

    /// From ∂c̃ to ∂z and ∂c.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn gates<S: Simd, C: Coupled, const PEEPHOLE: bool, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
        recomputed: Recomputed<S::f32s>,
        grad_raw: S::f32s,
        mut grad_cell: S::f32s,
    ) {
        let times = |x, y| simd.mul_f32s(x, y);
        let Recomputed {
            cell,
            mixing,
            candidate,
            masked,
            unbounded,
        } = recomputed;
        // SAFETY: by the contract of this function.
        unsafe {
            let write = |gate, value| {
                at.write_gate(simd, self.grad_preact, gate, value);
            };
            let (input, forget) = C::weigh(simd, mixing);
            let size = simd.abs_f32s(unbounded);
            let inside = simd.less_than_or_equal_f32s(size, simd.splat_f32s(self.clip));
            let mut grad = simd.select_f32s(inside, grad_raw, simd.splat_f32s(0.0));
            if MASKED {
                grad = times(grad, at.mask(simd, self.masks.cell));
            }
            let mut grad_g = times(grad, input);
            if MASKED {
                grad_g = times(grad_g, at.mask(simd, self.masks.candidate));
            }
            write(C::MIXING, times(grad_g, tanh_slope(simd, candidate)));
            grad_cell = fma(simd, grad, forget, grad_cell);
            let grads = C::weigh_backward(simd, mixing, times(grad, masked), times(grad, cell));
            for gate in 0..C::MIXING {
                let grad_z = times(grads[gate], sigmoid_slope(simd, mixing[gate]));
                write(gate, grad_z);
                if PEEPHOLE {
                    let v = at.weight(simd, self.peepholes.mixing[gate]);
                    grad_cell = fma(simd, grad_z, v, grad_cell);
                }
            }
            at.write(simd, self.grad_cell, grad_cell);
        }
    }
}

/// Quantities of a step that are recomputed, and their operands.
struct Recomputed<V> {
    /// c
    cell: V,
    /// The activated mixing gates.
    mixing: [V; 2],
    /// g
    candidate: V,
    /// m_g ⊙ g
    masked: V,
    /// c̃ before the clip.
    unbounded: V,
}

/// A whole step, with n = c̃.
struct StepBack<C, const PEEPHOLE: bool, const MASKED: bool>(LstmBackward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd
    for StepBack<C, PEEPHOLE, MASKED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `LstmBackward::run`.
            unsafe {
                let recomputed = args.recompute::<S, C, MASKED>(simd, at);
                let raw = clamp(simd, recomputed.unbounded, -args.clip, args.clip);
                let [grad_normalized, grad_raw, grad_cell] =
                    args.hidden::<S, PEEPHOLE, MASKED>(simd, at, C::MIXING + 1, raw);
                let grad_raw = simd.add_f32s(grad_raw, grad_normalized);
                args.gates::<S, C, PEEPHOLE, MASKED>(simd, at, recomputed, grad_raw, grad_cell);
            }
        });
    }
}

/// From ∂c̃ to ∂z and ∂c.
struct GatesBack<C, const PEEPHOLE: bool, const MASKED: bool>(LstmBackward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd
    for GatesBack<C, PEEPHOLE, MASKED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `LstmBackward::run`.
            unsafe {
                let recomputed = args.recompute::<S, C, MASKED>(simd, at);
                let grad_raw = at.read(simd, args.grad_raw);
                let grad_raw = simd.add_f32s(grad_raw, at.read(simd, args.grad_normalized));
                let grad_cell = at.read(simd, args.grad_cell);
                args.gates::<S, C, PEEPHOLE, MASKED>(simd, at, recomputed, grad_raw, grad_cell);
            }
        });
    }
}

/// From ∂h' and ∂c' to ∂n and the parts that bypass n.
struct HiddenBack<const PEEPHOLE: bool, const MASKED: bool>((LstmBackward, usize));

impl<const PEEPHOLE: bool, const MASKED: bool> WithSimd for HiddenBack<PEEPHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (args, output) = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `LstmBackward::run`.
            unsafe {
                let normalized = at.read(simd, args.normalized);
                let [grad_normalized, grad_raw, grad_cell] =
                    args.hidden::<S, PEEPHOLE, MASKED>(simd, at, *output, normalized);
                at.write(simd, args.grad_normalized, grad_normalized);
                at.write(simd, args.grad_raw, grad_raw);
                at.write(simd, args.grad_cell, grad_cell);
            }
        });
    }
}

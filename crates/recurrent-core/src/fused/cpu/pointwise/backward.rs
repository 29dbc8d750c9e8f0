//! One step, backward.

use super::*;

/// The derivative of one step of some rows and units.
#[derive(Debug, Clone)]
pub struct Backward {
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// Activated gates.
    pub gates: GateRows,
    /// c
    pub cell: Rows,
    /// n, where the cell is normalised; none: n = c̃.
    pub normalized: Rows,
    /// Whether n is carried.
    pub carry_normalized: bool,
    /// ∂L/∂h' that comes from later steps; takes ∂L/∂h's direct part (zoneout) if there are masks.
    pub grad_hidden: Rows,
    /// ∂L/∂h' that comes from the output; none: nothing to add.
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
    pub masks: MaskRows,
    /// Peepholes.
    pub peepholes: PeepholeRows,
    /// Bound of |c̃|; infinite for none.
    pub clip: f32,
}

impl Backward {
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
                let output = kind.coupling.shares() + 1;
                by_flags!(isa, kind, HiddenBack, (self, output))
            }
        }
    }

    /// The same from row `b` on.
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
            masks: self.masks.from_row(b),
            ..self.clone()
        }
    }

    /// From ∂h' and ∂c' to ∂z_o: gives (∂n, ∂c̃ past n, ∂c past c̃). What is carried is n or c̃.
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
                let update = at.read(simd, self.masks.update_hidden);
                let direct = times(one_minus(simd, update), grad_hidden);
                at.write(simd, self.grad_hidden, direct);
                grad_hidden = times(update, grad_hidden);
                grad_hidden = times(grad_hidden, at.read(simd, self.masks.hidden));
                let update = at.read(simd, self.masks.update_cell);
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

    /// (the shares, g, m_g ⊙ g, c̃ before it is bounded) once more, from what the forward kept.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn again<S: Simd, C: Coupled, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
        cell: S::f32s,
    ) -> ([S::f32s; 2], [S::f32s; 3]) {
        // SAFETY: by the contract of this function.
        unsafe {
            let saved = |gate| at.read_gate(simd, self.gates, gate);
            let shares = [saved(0), saved(C::SHARES - 1)];
            let g = saved(C::SHARES);
            let (input, forget) = C::weigh(simd, shares);
            let mut masked = g;
            if MASKED {
                masked = simd.mul_f32s(g, at.read(simd, self.masks.candidate));
            }
            let mut unbounded = fma(simd, forget, cell, simd.mul_f32s(input, masked));
            if MASKED {
                unbounded = simd.mul_f32s(unbounded, at.read(simd, self.masks.cell));
            }
            (shares, [g, masked, unbounded])
        }
    }

    /// From ∂c̃ to ∂z and ∂c.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // the quantities of one step
    unsafe fn gates<S: Simd, C: Coupled, const PEEPHOLE: bool, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
        cell: S::f32s,
        shares: [S::f32s; 2],
        [g, masked, unbounded]: [S::f32s; 3],
        grad_raw: S::f32s,
        mut grad_cell: S::f32s,
    ) {
        let times = |x, y| simd.mul_f32s(x, y);
        // SAFETY: by the contract of this function.
        unsafe {
            let write = |gate, value| {
                at.write_gate(simd, self.grad_preact, gate, value);
            };
            let (input, forget) = C::weigh(simd, shares);
            let size = simd.abs_f32s(unbounded);
            let inside = simd.less_than_or_equal_f32s(size, simd.splat_f32s(self.clip));
            let mut grad = simd.select_f32s(inside, grad_raw, simd.splat_f32s(0.0));
            if MASKED {
                grad = times(grad, at.read(simd, self.masks.cell));
            }
            let mut grad_g = times(grad, input);
            if MASKED {
                grad_g = times(grad_g, at.read(simd, self.masks.candidate));
            }
            write(C::SHARES, times(grad_g, tanh_slope(simd, g)));
            grad_cell = fma(simd, grad, forget, grad_cell);
            let grads = C::weigh_backward(simd, shares, times(grad, masked), times(grad, cell));
            for gate in 0..C::SHARES {
                let grad_z = times(grads[gate], sigmoid_slope(simd, shares[gate]));
                write(gate, grad_z);
                if PEEPHOLE {
                    let v = at.weight(simd, self.peepholes.shares[gate]);
                    grad_cell = fma(simd, grad_z, v, grad_cell);
                }
            }
            at.write(simd, self.grad_cell, grad_cell);
        }
    }
}

/// A whole step, with n = c̃.
struct StepBack<C, const PEEPHOLE: bool, const MASKED: bool>(Backward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd
    for StepBack<C, PEEPHOLE, MASKED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `Backward::run`.
            unsafe {
                let cell = at.read(simd, args.cell);
                let (shares, again) = args.again::<S, C, MASKED>(simd, at, cell);
                let raw = clamp(simd, again[2], -args.clip, args.clip);
                let [grad_normalized, grad_raw, grad_cell] =
                    args.hidden::<S, PEEPHOLE, MASKED>(simd, at, C::SHARES + 1, raw);
                let grad_raw = simd.add_f32s(grad_raw, grad_normalized);
                args.gates::<S, C, PEEPHOLE, MASKED>(
                    simd, at, cell, shares, again, grad_raw, grad_cell,
                );
            }
        });
    }
}

/// From ∂c̃ to ∂z and ∂c.
struct GatesBack<C, const PEEPHOLE: bool, const MASKED: bool>(Backward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd
    for GatesBack<C, PEEPHOLE, MASKED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `Backward::run`.
            unsafe {
                let cell = at.read(simd, args.cell);
                let (shares, again) = args.again::<S, C, MASKED>(simd, at, cell);
                let grad_raw = at.read(simd, args.grad_raw);
                let grad_raw = simd.add_f32s(grad_raw, at.read(simd, args.grad_normalized));
                let grad_cell = at.read(simd, args.grad_cell);
                args.gates::<S, C, PEEPHOLE, MASKED>(
                    simd, at, cell, shares, again, grad_raw, grad_cell,
                );
            }
        });
    }
}

/// From ∂h' and ∂c' to ∂n and what passes by it.
struct HiddenBack<const PEEPHOLE: bool, const MASKED: bool>((Backward, usize));

impl<const PEEPHOLE: bool, const MASKED: bool> WithSimd for HiddenBack<PEEPHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (args, output) = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `Backward::run`.
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

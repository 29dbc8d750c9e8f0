//! One step, forward.

use super::*;

/// One step of some rows and units.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// What is added to `preact`: a tile of the units' panel.
    pub tile: Option<Tile>,
    /// Pre-activations.
    pub preact: GateRows,
    /// Where activated gates go; may be `preact`.
    pub gates: GateRows,
    /// c
    pub cell: Rows,
    /// c'; may be `cell`.
    pub cell_next: Rows,
    /// c̃, between the halves.
    pub raw: Rows,
    /// n
    pub normalized: Rows,
    /// Whether n is carried.
    pub carry_normalized: bool,
    /// h
    pub hidden: Rows,
    /// h'
    pub hidden_next: Rows,
    /// Masks.
    pub masks: MaskRows,
    /// Peepholes.
    pub peepholes: PeepholeRows,
    /// Bound of |c̃|; infinite for none.
    pub clip: f32,
}

impl Forward {
    /// The same from row `b` on; without a tile.
    pub fn from_row(&self, b: usize) -> Self {
        Self {
            tile: None,
            preact: self.preact.from_row(b),
            gates: self.gates.from_row(b),
            cell: self.cell.from_row(b),
            cell_next: self.cell_next.from_row(b),
            raw: self.raw.from_row(b),
            normalized: self.normalized.from_row(b),
            hidden: self.hidden.from_row(b),
            hidden_next: self.hidden_next.from_row(b),
            masks: self.masks.from_row(b),
            ..self.clone()
        }
    }

    /// Runs the given halves.
    ///
    /// # Safety
    /// Everything that the kind and the halves read is readable for the rows and units; what they
    /// write belongs to the caller alone.
    pub unsafe fn run(self, isa: Isa, kind: Kind, half: Half) {
        match half {
            Half::Both => by_kind!(isa, kind, Step, self),
            Half::Gates => by_kind!(isa, kind, GatesHalf, self),
            Half::Hidden => {
                let output = kind.coupling.shares() + 1;
                by_flags!(isa, kind, HiddenHalf, (self, output))
            }
        }
    }

    /// Pre-activations of a gate.
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn preact<S: Simd>(&self, simd: S, at: At<S>, gate: usize) -> S::f32s {
        // SAFETY: by the contract of this function; a tile is as wide as its panel.
        unsafe {
            let z = at.read_gate(simd, self.preact, gate);
            match &self.tile {
                Some(tile) => {
                    let offset =
                        at.b * tile.stride + gate * S::F32_LANES + (at.unit - self.units.start);
                    simd.add_f32s(z, load::<S>(tile.values.add(offset)))
                }
                None => z,
            }
        }
    }

    /// (c̃, the output gate's pre-activation)
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn gates<S: Simd, C: Coupled, const PEEPHOLE: bool, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
        cell: S::f32s,
    ) -> (S::f32s, S::f32s) {
        let candidate = C::SHARES;
        // SAFETY: by the contract of this function.
        unsafe {
            let preact = |gate| self.preact(simd, at, gate);
            let keep = |gate, value| at.write_gate(simd, self.gates, gate, value);
            let mut z = [preact(0), preact(C::SHARES - 1)];
            let mut z_output = preact(C::SHARES + 1);
            if PEEPHOLE {
                for (z, &v) in z.iter_mut().zip(&self.peepholes.shares[..C::SHARES]) {
                    *z = fma(simd, at.weight(simd, v), cell, *z);
                }
                let v = at.weight(simd, self.peepholes.output_previous);
                z_output = fma(simd, v, cell, z_output);
            }
            let first = sigmoid(simd, z[0]);
            keep(0, first);
            let mut shares = [first; 2];
            if C::SHARES == 2 {
                shares[1] = sigmoid(simd, z[1]);
                keep(1, shares[1]);
            }
            let mut g = tanh(simd, preact(candidate));
            keep(candidate, g);

            let (input, forget) = C::weigh(simd, shares);
            if MASKED {
                g = simd.mul_f32s(g, at.read(simd, self.masks.candidate));
            }
            let mut raw = fma(simd, forget, cell, simd.mul_f32s(input, g));
            if MASKED {
                raw = simd.mul_f32s(raw, at.read(simd, self.masks.cell));
            }
            (clamp(simd, raw, -self.clip, self.clip), z_output)
        }
    }

    /// From c̃ and n to c' and h'.
    ///
    /// # Arguments
    /// * `output` - the output gate's place
    /// * `carried` - what becomes c' but for zoneout
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // the quantities of one step
    unsafe fn hidden<S: Simd, const PEEPHOLE: bool, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
        output: usize,
        cell: S::f32s,
        raw: S::f32s,
        normalized: S::f32s,
        carried: S::f32s,
        mut z_output: S::f32s,
    ) {
        // SAFETY: by the contract of this function.
        unsafe {
            if PEEPHOLE {
                let v = at.weight(simd, self.peepholes.output_new);
                z_output = fma(simd, v, raw, z_output);
            }
            let o = sigmoid(simd, z_output);
            at.write_gate(simd, self.gates, output, o);
            let mut hidden = simd.mul_f32s(o, tanh(simd, normalized));
            let mut next = carried;
            if MASKED {
                hidden = simd.mul_f32s(hidden, at.read(simd, self.masks.hidden));
                let update = at.read(simd, self.masks.update_cell);
                next = zoneout(simd, update, next, cell);
                let update = at.read(simd, self.masks.update_hidden);
                hidden = zoneout(simd, update, hidden, at.read(simd, self.hidden));
            }
            at.write(simd, self.cell_next, next);
            at.write(simd, self.hidden_next, hidden);
        }
    }
}

/// A whole step, with n = c̃.
struct Step<C, const PEEPHOLE: bool, const MASKED: bool>(Forward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd for Step<C, PEEPHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `Forward::run`.
            unsafe {
                let cell = at.read(simd, args.cell);
                let (raw, z) = args.gates::<S, C, PEEPHOLE, MASKED>(simd, at, cell);
                if PEEPHOLE && MASKED {
                    // c' is not c̃ under zoneout, and the gradient of a peephole on c̃ needs c̃.
                    at.write(simd, args.raw, raw);
                }
                let output = C::SHARES + 1;
                args.hidden::<S, PEEPHOLE, MASKED>(simd, at, output, cell, raw, raw, raw, z);
            }
        });
    }
}

/// From z to c̃.
struct GatesHalf<C, const PEEPHOLE: bool, const MASKED: bool>(Forward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd
    for GatesHalf<C, PEEPHOLE, MASKED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `Forward::run`.
            unsafe {
                let cell = at.read(simd, args.cell);
                let (raw, z) = args.gates::<S, C, PEEPHOLE, MASKED>(simd, at, cell);
                at.write_gate(simd, args.gates, C::SHARES + 1, z);
                at.write(simd, args.raw, raw);
            }
        });
    }
}

/// From n and the output gate's place to c' and h'.
struct HiddenHalf<const PEEPHOLE: bool, const MASKED: bool>((Forward, usize));

impl<const PEEPHOLE: bool, const MASKED: bool> WithSimd for HiddenHalf<PEEPHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (args, output) = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `Forward::run`.
            unsafe {
                let cell = at.read(simd, args.cell);
                let raw = at.read(simd, args.raw);
                let normalized = at.read(simd, args.normalized);
                let carried = if args.carry_normalized {
                    normalized
                } else {
                    raw
                };
                let z = args.preact(simd, at, *output);
                args.hidden::<S, PEEPHOLE, MASKED>(
                    simd, at, *output, cell, raw, normalized, carried, z,
                );
            }
        });
    }
}

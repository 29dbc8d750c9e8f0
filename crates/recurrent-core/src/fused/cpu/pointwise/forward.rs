//! One step, forward.

use super::*;
use crate::equations::masks::Masks;

/// One step of some rows and units.
#[derive(Debug, Clone)]
pub struct LstmForward {
    /// Number of sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// Added to `preact`: a tile of the units' panel.
    pub tile: Option<Tile>,
    /// Pre-activations.
    pub preact: GateRows,
    /// Destination of the activated gates; may alias `preact`.
    pub gates: GateRows,
    /// c
    pub cell: Rows,
    /// c'; may alias `cell`.
    pub cell_next: Rows,
    /// c̃, saved between the two halves.
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
    pub masks: Masks<Rows>,
    /// Peepholes.
    pub peepholes: PeepholeRows,
    /// Bound of |c̃|; infinite if there is no clip.
    pub clip: f32,
}

impl LstmForward {
    /// The same arguments for the rows starting at row `b`, without a tile.
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
            masks: self.masks.map(|rows| rows.from_row(b)),
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
                let output = kind.coupling.mixing_gates() + 1;
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
        let candidate = C::MIXING;
        // SAFETY: by the contract of this function.
        unsafe {
            let preact = |gate| self.preact(simd, at, gate);
            let write = |gate, value| at.write_gate(simd, self.gates, gate, value);
            let mut z = [preact(0), preact(C::MIXING - 1)];
            let mut z_output = preact(C::MIXING + 1);
            if PEEPHOLE {
                for (z, &v) in z.iter_mut().zip(&self.peepholes.mixing[..C::MIXING]) {
                    *z = fma(simd, at.weight(simd, v), cell, *z);
                }
                let v = at.weight(simd, self.peepholes.output_previous);
                z_output = fma(simd, v, cell, z_output);
            }
            let first = sigmoid(simd, z[0]);
            write(0, first);
            let mut mixing = [first; 2];
            if C::MIXING == 2 {
                mixing[1] = sigmoid(simd, z[1]);
                write(1, mixing[1]);
            }
            let mut g = tanh(simd, preact(candidate));
            write(candidate, g);

            let (input, forget) = C::weigh(simd, mixing);
            if MASKED {
                g = simd.mul_f32s(g, at.mask(simd, self.masks.candidate));
            }
            let mut raw = fma(simd, forget, cell, simd.mul_f32s(input, g));
            if MASKED {
                raw = simd.mul_f32s(raw, at.mask(simd, self.masks.cell));
            }
            (clamp(simd, raw, -self.clip, self.clip), z_output)
        }
    }

    /// From c̃ and n to c' and h'.
    ///
    /// # Arguments
    /// * `output` - index of the output gate's block
    ///
    /// # Safety
    /// As [`run`](Self::run).
    #[inline(always)]
    unsafe fn hidden<S: Simd, const PEEPHOLE: bool, const MASKED: bool>(
        &self,
        simd: S,
        at: At<S>,
        output: usize,
        cells: Cells<S::f32s>,
        mut z_output: S::f32s,
    ) {
        let Cells {
            cell,
            raw,
            normalized,
            carried,
        } = cells;
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
                hidden = simd.mul_f32s(hidden, at.mask(simd, self.masks.hidden));
                let update = at.mask(simd, self.masks.update_cell);
                next = zoneout(simd, update, next, cell);
                let update = at.mask(simd, self.masks.update_hidden);
                hidden = zoneout(simd, update, hidden, at.read(simd, self.hidden));
            }
            at.write(simd, self.cell_next, next);
            at.write(simd, self.hidden_next, hidden);
        }
    }
}

/// The values from which h' and c' are computed.
struct Cells<V> {
    /// c
    cell: V,
    /// c̃
    raw: V,
    /// n
    normalized: V,
    /// c', except for zoneout.
    carried: V,
}

/// A whole step, with n = c̃.
struct Step<C, const PEEPHOLE: bool, const MASKED: bool>(LstmForward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd for Step<C, PEEPHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `LstmForward::run`.
            unsafe {
                let cell = at.read(simd, args.cell);
                let (raw, z) = args.gates::<S, C, PEEPHOLE, MASKED>(simd, at, cell);
                if PEEPHOLE && MASKED {
                    // Under zoneout c' differs from c̃, and the gradient of a peephole on c̃ needs c̃.
                    at.write(simd, args.raw, raw);
                }
                let output = C::MIXING + 1;
                let cells = Cells {
                    cell,
                    raw,
                    normalized: raw,
                    carried: raw,
                };
                args.hidden::<S, PEEPHOLE, MASKED>(simd, at, output, cells, z);
            }
        });
    }
}

/// From z to c̃.
struct GatesHalf<C, const PEEPHOLE: bool, const MASKED: bool>(LstmForward, PhantomData<C>);

impl<C: Coupled, const PEEPHOLE: bool, const MASKED: bool> WithSimd
    for GatesHalf<C, PEEPHOLE, MASKED>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let args = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `LstmForward::run`.
            unsafe {
                let cell = at.read(simd, args.cell);
                let (raw, z) = args.gates::<S, C, PEEPHOLE, MASKED>(simd, at, cell);
                at.write_gate(simd, args.gates, C::MIXING + 1, z);
                at.write(simd, args.raw, raw);
            }
        });
    }
}

/// From n and the output gate's block to c' and h'.
struct HiddenHalf<const PEEPHOLE: bool, const MASKED: bool>((LstmForward, usize));

impl<const PEEPHOLE: bool, const MASKED: bool> WithSimd for HiddenHalf<PEEPHOLE, MASKED> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (args, output) = &self.0;
        each!(S, simd, args, |at| {
            // SAFETY: by the contract of `LstmForward::run`.
            unsafe {
                let raw = at.read(simd, args.raw);
                let normalized = at.read(simd, args.normalized);
                let cells = Cells {
                    cell: at.read(simd, args.cell),
                    raw,
                    normalized,
                    carried: match args.carry_normalized {
                        true => normalized,
                        false => raw,
                    },
                };
                let z = args.preact(simd, at, *output);
                args.hidden::<S, PEEPHOLE, MASKED>(simd, at, *output, cells, z);
            }
        });
    }
}

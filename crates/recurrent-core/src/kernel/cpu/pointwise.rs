//! From pre-activations to the next state, and its derivative, on vectors of units.
//!
//! The equations are those of `cell/transition.rs` and of the variants' gates; the names are the
//! same. A step of one vector of units falls into two halves, so that a cell normalisation, which
//! needs the whole row, can come between them:
//! ```text
//! gates     z ─→ shares s, g ─→ c̃ = clamp(m_c ⊙ (f ⊙ c + i ⊙ m_g ⊙ g))
//! hidden    n = c̃ or LN(c̃), o ─→ h̃ = m_h ⊙ o ⊙ tanh(n) ─→ c', h' (zoneout)
//! ```
//! What differs between variants is a type or a constant ([`Coupled`], `PEEPHOLE`, `MASKED`): no
//! branch depends on it inside the loops.

use core::marker::PhantomData;
use core::ops::Range;

use pulp::{Simd, WithSimd};

use super::product::Tile;
use super::simd::{Either, Isa, Lanes, clamp, fma, load, sigmoid_sigmoid_tanh, sigmoid_tanh, tanh};

/// How the gates that weigh the candidate and the old cell follow from those that have weights.
///
/// The gates with weights are the first one or two blocks of a packed row; candidate and output
/// follow them.
pub trait Coupled: Copy + Send + Sync {
    /// Gates with weights: 1 or 2.
    const SHARES: usize;

    /// (i, f) from the activated gates; the second is not looked at if there is one only.
    fn weigh<S: Simd>(simd: S, shares: [S::f32s; 2]) -> (S::f32s, S::f32s);

    /// Derivative of [`weigh`](Self::weigh).
    fn weigh_backward<S: Simd>(
        simd: S,
        shares: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2];
}

/// i and f are the gates.
#[derive(Clone, Copy)]
pub struct Independent;

impl Coupled for Independent {
    const SHARES: usize = 2;

    #[inline(always)]
    fn weigh<S: Simd>(_: S, [input, forget]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (input, forget)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        _: S,
        _: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [grad_input, grad_forget]
    }
}

/// The gate is f, and i = 1 − f.
#[derive(Clone, Copy)]
pub struct InputFromForget;

impl Coupled for InputFromForget {
    const SHARES: usize = 1;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [forget, _]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (one_minus(simd, forget), forget)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        shares: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [simd.sub_f32s(grad_forget, grad_input), shares[1]]
    }
}

/// The gate is i, and f = 1 − i.
#[derive(Clone, Copy)]
pub struct ForgetFromInput;

impl Coupled for ForgetFromInput {
    const SHARES: usize = 1;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [input, _]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (input, one_minus(simd, input))
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        shares: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        [simd.sub_f32s(grad_input, grad_forget), shares[1]]
    }
}

/// i = min(gate, 1 − f).
#[derive(Clone, Copy)]
pub struct CappedInput;

impl Coupled for CappedInput {
    const SHARES: usize = 2;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [input, forget]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        (simd.min_f32s(one_minus(simd, forget), input), forget)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        [input, forget]: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        let free = simd.less_than_or_equal_f32s(input, one_minus(simd, forget));
        let zero = simd.splat_f32s(0.0);
        [
            simd.select_f32s(free, grad_input, zero),
            simd.sub_f32s(grad_forget, simd.select_f32s(free, zero, grad_input)),
        ]
    }
}

/// The gates are r and f; the effective gate e = 2rf + (1 − 2r)f² weighs the old cell, 1 − e the
/// candidate.
#[derive(Clone, Copy)]
pub struct Refined;

impl Coupled for Refined {
    const SHARES: usize = 2;

    #[inline(always)]
    fn weigh<S: Simd>(simd: S, [refine, forget]: [S::f32s; 2]) -> (S::f32s, S::f32s) {
        let twice = simd.add_f32s(refine, refine);
        let squared = simd.mul_f32s(forget, forget);
        let effective = fma(
            simd,
            twice,
            forget,
            simd.mul_f32s(one_minus(simd, twice), squared),
        );
        (one_minus(simd, effective), effective)
    }

    #[inline(always)]
    fn weigh_backward<S: Simd>(
        simd: S,
        [refine, forget]: [S::f32s; 2],
        grad_input: S::f32s,
        grad_forget: S::f32s,
    ) -> [S::f32s; 2] {
        let grad = simd.sub_f32s(grad_forget, grad_input);
        let twice = simd.add_f32s(refine, refine);
        let rest = simd.mul_f32s(one_minus(simd, twice), forget);
        let by_forget = simd.add_f32s(twice, simd.add_f32s(rest, rest));
        let slope = simd.mul_f32s(forget, one_minus(simd, forget));
        [
            simd.mul_f32s(grad, simd.add_f32s(slope, slope)),
            simd.mul_f32s(grad, by_forget),
        ]
    }
}

/// `1 − x`
#[inline(always)]
fn one_minus<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    simd.sub_f32s(simd.splat_f32s(1.0), x)
}

/// `σ'` and `tanh'` from the value: `y(1 − y)`, `1 − y²`.
#[inline(always)]
fn sigmoid_slope<S: Simd>(simd: S, y: S::f32s) -> S::f32s {
    simd.mul_f32s(y, one_minus(simd, y))
}

#[inline(always)]
fn tanh_slope<S: Simd>(simd: S, y: S::f32s) -> S::f32s {
    let y = simd.neg_f32s(simd.mul_f32s(y, y));
    simd.add_f32s(simd.splat_f32s(1.0), y)
}

/// Rows of values for the sequences of one step: row `b` begins at `ptr + b·stride`.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Row 0.
    pub ptr: *mut f32,
    /// Distance between rows; 0 where all rows are one.
    pub stride: usize,
}

impl Rows {
    /// No rows, for what is not read.
    pub const NONE: Self = Self {
        ptr: core::ptr::null_mut(),
        stride: 0,
    };

    /// Rows to read.
    pub fn read(ptr: *const f32, stride: usize) -> Self {
        Self {
            ptr: ptr.cast_mut(),
            stride,
        }
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        self.ptr.is_null()
    }

    /// The rows from row `b` on.
    pub fn from_row(self, b: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(b * self.stride),
            ..self
        }
    }

    #[inline(always)]
    fn at(self, b: usize, unit: usize) -> *mut f32 {
        self.ptr.wrapping_add(b * self.stride + unit)
    }
}

/// The masks of one step; all there as soon as one is.
#[derive(Debug, Clone, Copy)]
pub struct MaskRows {
    /// m_g
    pub candidate: Rows,
    /// m_c
    pub cell: Rows,
    /// m_h
    pub hidden: Rows,
    /// u
    pub update_cell: Rows,
    /// v
    pub update_hidden: Rows,
}

impl MaskRows {
    /// No masks.
    pub const NONE: Self = Self {
        candidate: Rows::NONE,
        cell: Rows::NONE,
        hidden: Rows::NONE,
        update_cell: Rows::NONE,
        update_hidden: Rows::NONE,
    };
}

/// The diagonal peepholes, each `[H]`.
#[derive(Debug, Clone, Copy)]
pub struct PeepholeRows {
    /// Of the gates with weights, on c.
    pub shares: [*const f32; 2],
    /// Of the output gate, on c.
    pub output_previous: *const f32,
    /// Of the output gate, on c̃.
    pub output_new: *const f32,
}

/// What variants differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// How i and f follow from the gates.
    pub coupling: Coupling,
    /// Whether gates see the cell through diagonal weights.
    pub peephole: bool,
    /// Whether there are masks.
    pub masked: bool,
}

/// The types of [`Coupled`] as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coupling {
    /// [`Independent`]
    Independent,
    /// [`InputFromForget`]
    InputFromForget,
    /// [`ForgetFromInput`]
    ForgetFromInput,
    /// [`CappedInput`]
    CappedInput,
    /// [`Refined`]
    Refined,
}

impl Coupling {
    /// Gates with weights that weigh the candidate and the old cell.
    pub const fn shares(self) -> usize {
        match self {
            Self::InputFromForget | Self::ForgetFromInput => 1,
            _ => 2,
        }
    }

    /// Gate blocks of a packed row.
    pub const fn gates(self) -> usize {
        self.shares() + 2
    }
}

/// Which halves of a step run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Both, with n = c̃.
    Both,
    /// The gates; c̃ goes to `raw`, the output gate stays a pre-activation.
    Gates,
    /// The rest; n comes from `normalized`, c̃ from `raw`.
    Hidden,
}

/// One step of some rows and units.
#[derive(Debug, Clone)]
pub struct Forward {
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// H
    pub d_hidden: usize,
    /// What is added to `preact`: a tile of the units' panel.
    pub tile: Option<Tile>,
    /// Pre-activations, packed by gate.
    pub preact: Rows,
    /// Where activated gates go; may be `preact`.
    pub gates: Rows,
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

/// Runs `$Op::<C, PEEPHOLE, MASKED>` for a kind.
macro_rules! by_kind {
    ($isa:expr, $kind:expr, $Op:ident, $args:expr) => {{
        macro_rules! flags {
            ($C:ty) => {
                match ($kind.peephole, $kind.masked) {
                    (false, false) => $isa.run($Op::<$C, false, false>($args, PhantomData)),
                    (false, true) => $isa.run($Op::<$C, false, true>($args, PhantomData)),
                    (true, false) => $isa.run($Op::<$C, true, false>($args, PhantomData)),
                    (true, true) => $isa.run($Op::<$C, true, true>($args, PhantomData)),
                }
            };
        }
        match $kind.coupling {
            Coupling::Independent => flags!(Independent),
            Coupling::InputFromForget => flags!(InputFromForget),
            Coupling::ForgetFromInput => flags!(ForgetFromInput),
            Coupling::CappedInput => flags!(CappedInput),
            // The gate family of UR-LSTM has no peepholes.
            Coupling::Refined if $kind.masked => {
                $isa.run($Op::<Refined, false, true>($args, PhantomData))
            }
            Coupling::Refined => $isa.run($Op::<Refined, false, false>($args, PhantomData)),
        }
    }};
}

/// Runs `$Op::<PEEPHOLE, MASKED>` for a kind: what does not depend on the coupling.
macro_rules! by_flags {
    ($isa:expr, $kind:expr, $Op:ident, $args:expr) => {
        match ($kind.peephole, $kind.masked) {
            (false, false) => $isa.run($Op::<false, false>($args)),
            (false, true) => $isa.run($Op::<false, true>($args)),
            (true, false) => $isa.run($Op::<true, false>($args)),
            (true, true) => $isa.run($Op::<true, true>($args)),
        }
    };
}

/// Calls `$body` for each row and vector of units of `$args`.
macro_rules! each {
    ($S:ident, $simd:expr, $args:expr, |$at:ident| $body:block) => {
        for b in 0..$args.rows {
            let mut unit = $args.units.start;
            while unit < $args.units.end {
                let lanes = Either::<$S>::new($simd, $args.units.end - unit);
                let $at = At { b, unit, lanes };
                $body
                unit += $S::F32_LANES;
            }
        }
    };
}

/// A vector of units of a row.
#[derive(Clone, Copy)]
struct At<S: Simd> {
    b: usize,
    unit: usize,
    lanes: Either<S>,
}

impl<S: Simd> At<S> {
    /// # Safety
    /// The units are readable in the rows.
    #[inline(always)]
    unsafe fn read(self, simd: S, rows: Rows) -> S::f32s {
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.load(simd, rows.at(self.b, self.unit)) }
    }

    /// # Safety
    /// The units of that gate are readable in the rows.
    #[inline(always)]
    unsafe fn read_gate(self, simd: S, rows: Rows, gate: usize, d_hidden: usize) -> S::f32s {
        // SAFETY: by the contract of this function.
        unsafe {
            self.lanes
                .load(simd, rows.at(self.b, gate * d_hidden + self.unit))
        }
    }

    /// # Safety
    /// The units are the caller's own in the rows.
    #[inline(always)]
    unsafe fn write(self, simd: S, rows: Rows, value: S::f32s) {
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.store(simd, rows.at(self.b, self.unit), value) }
    }

    /// # Safety
    /// The units of that gate are the caller's own in the rows.
    #[inline(always)]
    unsafe fn write_gate(self, simd: S, rows: Rows, gate: usize, d_hidden: usize, value: S::f32s) {
        // SAFETY: by the contract of this function.
        unsafe {
            self.lanes
                .store(simd, rows.at(self.b, gate * d_hidden + self.unit), value)
        }
    }

    /// # Safety
    /// The units are readable at `weights`.
    #[inline(always)]
    unsafe fn weight(self, simd: S, weights: *const f32) -> S::f32s {
        // SAFETY: by the contract of this function.
        unsafe { self.lanes.load(simd, weights.wrapping_add(self.unit)) }
    }
}

impl MaskRows {
    /// The masks from row `b` on.
    pub fn from_row(self, b: usize) -> Self {
        Self {
            candidate: self.candidate.from_row(b),
            cell: self.cell.from_row(b),
            hidden: self.hidden.from_row(b),
            update_cell: self.update_cell.from_row(b),
            update_hidden: self.update_hidden.from_row(b),
        }
    }
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
            let z = at.read_gate(simd, self.preact, gate, self.d_hidden);
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
            let keep = |gate, value| at.write_gate(simd, self.gates, gate, self.d_hidden, value);
            let mut z = [preact(0), preact(C::SHARES - 1)];
            let mut z_output = preact(C::SHARES + 1);
            if PEEPHOLE {
                for (z, &v) in z.iter_mut().zip(&self.peepholes.shares[..C::SHARES]) {
                    *z = fma(simd, at.weight(simd, v), cell, *z);
                }
                let v = at.weight(simd, self.peepholes.output_previous);
                z_output = fma(simd, v, cell, z_output);
            }
            let (shares, mut g) = if C::SHARES == 2 {
                let (a, b, g) = sigmoid_sigmoid_tanh(simd, z[0], z[1], preact(candidate));
                keep(1, b);
                ([a, b], g)
            } else {
                let (a, g) = sigmoid_tanh(simd, z[0], preact(candidate));
                ([a, a], g)
            };
            keep(0, shares[0]);
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
            let (o, squashed) = sigmoid_tanh(simd, z_output, normalized);
            at.write_gate(simd, self.gates, output, self.d_hidden, o);
            let mut hidden = simd.mul_f32s(o, squashed);
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
                at.write_gate(simd, args.gates, C::SHARES + 1, args.d_hidden, z);
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

/// `u ⊙ new + (1 − u) ⊙ old`
#[inline(always)]
fn zoneout<S: Simd>(simd: S, update: S::f32s, new: S::f32s, old: S::f32s) -> S::f32s {
    // Exactly `new` where u = 1, whatever `old` is.
    let kept = simd.mul_f32s(one_minus(simd, update), old);
    simd.add_f32s(simd.mul_f32s(update, new), kept)
}

/// The derivative of one step of some rows and units.
#[derive(Debug, Clone)]
pub struct Backward {
    /// Sequences.
    pub rows: usize,
    /// Units.
    pub units: Range<usize>,
    /// H
    pub d_hidden: usize,
    /// Activated gates, packed.
    pub gates: Rows,
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
    /// ∂L/∂z, packed; written.
    pub grad_preact: Rows,
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

    /// From ∂h' and ∂c' to ∂z_o: gives (∂n, ∂c̃ past n, ∂c past c̃).
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
            let o = at.read_gate(simd, self.gates, output, self.d_hidden);
            let squashed = tanh(simd, normalized);
            let grad_z = times(times(grad_hidden, squashed), sigmoid_slope(simd, o));
            at.write_gate(simd, self.grad_preact, output, self.d_hidden, grad_z);
            let mut grad_raw = carried;
            if PEEPHOLE {
                let v = at.weight(simd, self.peepholes.output_new);
                grad_raw = fma(simd, grad_z, v, grad_raw);
                let v = at.weight(simd, self.peepholes.output_previous);
                grad_cell = fma(simd, grad_z, v, grad_cell);
            }
            let grad_normalized = times(times(grad_hidden, o), tanh_slope(simd, squashed));
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
            let saved = |gate| at.read_gate(simd, self.gates, gate, self.d_hidden);
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
                at.write_gate(simd, self.grad_preact, gate, self.d_hidden, value);
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
                let carried = at.read(simd, args.grad_cell);
                let [mut grad_normalized, mut grad_raw, grad_cell] =
                    args.hidden::<S, PEEPHOLE, MASKED>(simd, at, *output, normalized);
                if args.carry_normalized {
                    // What is carried is n, not c̃.
                    let mut carried = carried;
                    if MASKED {
                        let update = at.read(simd, args.masks.update_cell);
                        carried = simd.mul_f32s(carried, update);
                    }
                    grad_normalized = simd.add_f32s(grad_normalized, carried);
                    grad_raw = simd.sub_f32s(grad_raw, carried);
                }
                at.write(simd, args.grad_normalized, grad_normalized);
                at.write(simd, args.grad_raw, grad_raw);
                at.write(simd, args.grad_cell, grad_cell);
            }
        });
    }
}

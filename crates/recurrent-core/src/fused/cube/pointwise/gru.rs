//! One step of the GRU, between its products, and back.
//!
//! ```text
//! reset after the product     step         h·R → r, z, n → h'
//!                             step_back    ∂h' → ∂a_r, ∂a_z, ∂a_n, ∂u
//! reset before it             open_gates   h·R_rz → r, z, r ⊙ h
//!                             mix          (r ⊙ h)·R_n → n → h'
//!                             mix_back     ∂h' → ∂a_z, ∂a_n
//!                             reset_back   ∂a_n·R_nᵀ = ∂(r ⊙ h) → ∂a_r
//! ```
//! where a_r, a_z and a_n are the arguments of σ and tanh, and `u = h·R_n + b_hn`. The equations are those of
//! `equations/gru.rs` and `cell/gru.rs`; the names are the same. A unit of the device handles a vector of
//! hidden units of one sequence; nobody meets anybody.
//!
//! **Saved** of each row are, in pieces of H values, r, z and n; with the reset gate after the product also u.
//! h before a row is the output of the step before. The backward gathers it for the gradient of R.

use alloc::boxed::Box;

use super::masks::{MaskStarts, updated};
use super::*;

// The blocks of packed weights, and the pieces of a saved row.
const RESET: usize = 0;
const UPDATE: usize = 1;
const CANDIDATE: usize = 2;
/// u, of a saved row alone.
const INNER: usize = 3;

/// Blocks of packed weights.
const GATES: usize = 3;
/// Those of r and z.
const SIGMOIDS: usize = 2;

/// What the kernels of a GRU are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GruKind {
    /// b
    pub bias: bool,
    /// b_hn
    pub bias_hidden: bool,
    /// Whether the reset gate acts after the product.
    pub reset_after: bool,
    /// Masks.
    pub masks: Masks<()>,
    /// Whether a backward will follow.
    pub save: bool,
}

impl GruKind {
    /// Pieces of a saved row.
    pub const fn saved(&self) -> usize {
        if self.reset_after { INNER + 1 } else { INNER }
    }

    /// The piece of the vectors where b_hn is: b comes first.
    const fn bias_hidden_at(&self) -> usize {
        if self.bias { GATES } else { 0 }
    }
}

/// A step of the GRU. Units are counted in vectors.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub struct GruScalars {
    /// Vectors of H.
    pub units: u32,
    /// Rows of the step.
    pub rows: u32,
    /// The first of them among the rows of all steps.
    pub row: u32,
    /// Its first saved row.
    pub saved_row: u32,
    /// First row of the step before it.
    pub previous_row: u32,
    /// 1 for the first step, whose h is that of the call.
    pub is_first_step: u32,
    /// Where its masks begin.
    pub masks: MaskStarts,
}

/// What a call gives to each of its steps.
#[derive(CubeLaunch, CubeType)]
pub struct GruCallBuffers<N: Size> {
    /// x·W `[N, 3H]`
    pub projected: Box<[Vector<f32, N>]>,
    /// b, then b_hn.
    pub vectors: Box<[Vector<f32, N>]>,
    /// All masks, one after the other.
    pub masks: Box<[Vector<f32, N>]>,
}

/// What a step writes.
#[derive(CubeLaunch, CubeType)]
pub struct GruStateBuffers<N: Size> {
    /// h, the running state `[B, H]`.
    pub hidden: Box<[Vector<f32, N>]>,
    /// The output.
    pub out: Box<[Vector<f32, N>]>,
    /// The saved rows, see the module.
    pub saved: Box<[Vector<f32, N>]>,
}

/// What the backward reads of the forward.
#[derive(CubeLaunch, CubeType)]
pub struct GruSavedBuffers<N: Size> {
    /// The saved rows, see the module.
    pub saved: Box<[Vector<f32, N>]>,
    /// The output.
    pub out: Box<[Vector<f32, N>]>,
    /// h of the call `[B, H]`.
    pub first_hidden: Box<[Vector<f32, N>]>,
    /// All masks, one after the other.
    pub masks: Box<[Vector<f32, N>]>,
}

/// ∂h' of a step.
#[derive(CubeLaunch, CubeType)]
pub struct GruGivenBuffers<N: Size> {
    /// Of the output.
    pub out: Box<[Vector<f32, N>]>,
    /// From the product of the step after it `[B, H]`.
    pub hidden: Box<[Vector<f32, N>]>,
}

/// What a step backward writes.
#[derive(CubeLaunch, CubeType)]
pub struct GruGradBuffers<N: Size> {
    /// ∂h that comes through no product `[B, H]`, to the step before.
    pub direct: Box<[Vector<f32, N>]>,
    /// ∂a of all rows `[N, 3H]`.
    pub preact: Box<[Vector<f32, N>]>,
    /// The left side of the next product with Rᵀ: of all blocks `[B, 3H]`, or of r and z `[B, 2H]`.
    pub left: Box<[Vector<f32, N>]>,
    /// h before each row `[N, H]`.
    pub before: Box<[Vector<f32, N>]>,
}

/// The vector of a unit of the device; units past the last row end here.
#[cube]
fn own_unit(scalars: &GruScalars) -> Own {
    let own = own(scalars.units as usize, 0usize);
    if own.row >= scalars.rows as usize {
        terminate!();
    }
    own
}

/// Where a unit's vector is in a buffer of one row per sequence, of so many pieces of H values.
#[cube]
fn in_step(own: &Own, scalars: &GruScalars, #[comptime] pieces: usize) -> usize {
    own.row * scalars.units as usize * pieces + own.first
}

/// Where it is in a buffer of the rows of all steps.
///
/// # Arguments
/// * `first` - the first row of the step
#[cube]
fn in_all(own: &Own, scalars: &GruScalars, first: u32, #[comptime] pieces: usize) -> usize {
    (first as usize + own.row) * scalars.units as usize * pieces + own.first
}

/// What a gate has from x: `x·W + b`.
#[cube]
fn from_input<N: Size>(
    call: &GruCallBuffers<N>,
    own: &Own,
    scalars: &GruScalars,
    #[comptime] gate: usize,
    #[comptime] kind: GruKind,
) -> Vector<f32, N> {
    let units = scalars.units as usize;
    let a = call.projected[in_all(own, scalars, scalars.row, GATES) + gate * units];
    if comptime![kind.bias] {
        a + call.vectors[gate * units + own.first]
    } else {
        a
    }
}

/// A step whose reset gate acts after the product.
///
/// # Arguments
/// * `recurrent` - h·R `[B, 3H]`
#[cube(launch)]
pub fn step<N: Size>(
    recurrent: &[Vector<f32, N>],
    call: &GruCallBuffers<N>,
    state: &mut GruStateBuffers<N>,
    scalars: &GruScalars,
    #[comptime] kind: GruKind,
) {
    let own = own_unit(scalars);
    let units = scalars.units as usize;
    let product = in_step(&own, scalars, GATES);
    let reset = from_input::<N>(call, &own, scalars, RESET, kind) + recurrent[product];
    let reset = sigmoid::<N>(reset);
    let update =
        from_input::<N>(call, &own, scalars, UPDATE, kind) + recurrent[product + UPDATE * units];
    let update = sigmoid::<N>(update);
    let mut inner = recurrent[product + CANDIDATE * units];
    if comptime![kind.bias_hidden] {
        inner += call.vectors[comptime![kind.bias_hidden_at()] * units + own.first];
    }
    let candidate = from_input::<N>(call, &own, scalars, CANDIDATE, kind) + reset * inner;
    let candidate = tanh::<N>(candidate);
    if comptime![kind.save] {
        let saved = in_all(&own, scalars, scalars.saved_row, comptime![kind.saved()]);
        state.saved[saved + RESET * units] = reset;
        state.saved[saved + UPDATE * units] = update;
        state.saved[saved + CANDIDATE * units] = candidate;
        state.saved[saved + INNER * units] = inner;
    }
    advance::<N>(call, state, &own, scalars, update, candidate, kind);
}

/// r and z of a step whose reset gate acts before the product; r ⊙ h for that product.
///
/// z is saved also where no backward follows: [`mix`] reads it.
///
/// # Arguments
/// * `recurrent` - h·R_rz `[B, 2H]`
/// * `reset_hidden` - r ⊙ h `[B, H]`
#[cube(launch)]
pub fn open_gates<N: Size>(
    recurrent: &[Vector<f32, N>],
    call: &GruCallBuffers<N>,
    state: &mut GruStateBuffers<N>,
    reset_hidden: &mut [Vector<f32, N>],
    scalars: &GruScalars,
    #[comptime] kind: GruKind,
) {
    let own = own_unit(scalars);
    let units = scalars.units as usize;
    let product = in_step(&own, scalars, SIGMOIDS);
    let i = in_step(&own, scalars, 1usize);
    let reset = from_input::<N>(call, &own, scalars, RESET, kind) + recurrent[product];
    let reset = sigmoid::<N>(reset);
    let update =
        from_input::<N>(call, &own, scalars, UPDATE, kind) + recurrent[product + UPDATE * units];
    let saved = in_all(&own, scalars, scalars.saved_row, comptime![kind.saved()]);
    state.saved[saved + UPDATE * units] = sigmoid::<N>(update);
    if comptime![kind.save] {
        state.saved[saved + RESET * units] = reset;
    }
    reset_hidden[i] = reset * state.hidden[i];
}

/// n and h' of a step whose reset gate acts before the product.
///
/// # Arguments
/// * `recurrent` - (r ⊙ h)·R_n `[B, H]`
#[cube(launch)]
pub fn mix<N: Size>(
    recurrent: &[Vector<f32, N>],
    call: &GruCallBuffers<N>,
    state: &mut GruStateBuffers<N>,
    scalars: &GruScalars,
    #[comptime] kind: GruKind,
) {
    let own = own_unit(scalars);
    let units = scalars.units as usize;
    let candidate = from_input::<N>(call, &own, scalars, CANDIDATE, kind)
        + recurrent[in_step(&own, scalars, 1usize)];
    let candidate = tanh::<N>(candidate);
    let saved = in_all(&own, scalars, scalars.saved_row, comptime![kind.saved()]);
    let update = state.saved[saved + UPDATE * units];
    if comptime![kind.save] {
        state.saved[saved + CANDIDATE * units] = candidate;
    }
    advance::<N>(call, state, &own, scalars, update, candidate, kind);
}

/// From z and n to h'.
#[cube]
fn advance<N: Size>(
    call: &GruCallBuffers<N>,
    state: &mut GruStateBuffers<N>,
    own: &Own,
    scalars: &GruScalars,
    update: Vector<f32, N>,
    candidate: Vector<f32, N>,
    #[comptime] kind: GruKind,
) {
    let i = in_step(own, scalars, 1usize);
    let old = state.hidden[i];
    let mut n = candidate;
    if comptime![kind.masks.candidate.is_some()] {
        n *= call.masks[scalars.masks.candidate as usize + i];
    }
    let mut h = one_minus::<N>(update) * n + update * old;
    if comptime![kind.masks.hidden.is_some()] {
        h *= call.masks[scalars.masks.hidden as usize + i];
    }
    let start = scalars.masks.update_hidden;
    let h = updated::<N>(h, old, &call.masks, start, i, kind.masks.update_hidden);
    state.hidden[i] = h;
    state.out[in_all(own, scalars, scalars.row, 1usize)] = h;
}

/// ∂ of what is mixed into h', before s.
#[derive(CubeType, Clone, Copy)]
struct MixGradients<N: Size> {
    /// ∂a_z
    update: Vector<f32, N>,
    /// ∂a_n
    candidate: Vector<f32, N>,
}

/// From ∂h' to ∂a_z, ∂a_n and the ∂h that comes through no product; gathers h.
#[cube]
fn advance_back<N: Size>(
    given: &GruGivenBuffers<N>,
    forward: &GruSavedBuffers<N>,
    grads: &mut GruGradBuffers<N>,
    own: &Own,
    scalars: &GruScalars,
    #[comptime] kind: GruKind,
) -> MixGradients<N> {
    let units = scalars.units as usize;
    let i = in_step(own, scalars, 1usize);
    let row = in_all(own, scalars, scalars.row, 1usize);
    let saved = in_all(own, scalars, scalars.saved_row, comptime![kind.saved()]);
    let update = forward.saved[saved + UPDATE * units];
    let candidate = forward.saved[saved + CANDIDATE * units];
    let old = if scalars.is_first_step == 1 {
        forward.first_hidden[i]
    } else {
        forward.out[in_all(own, scalars, scalars.previous_row, 1usize)]
    };
    grads.before[row] = old;

    let mut grad = given.hidden[i] + given.out[row] + grads.direct[i];
    let mut direct = Vector::<f32, N>::new(0.0f32);
    if comptime![kind.masks.update_hidden.is_some()] {
        let share = forward.masks[scalars.masks.update_hidden as usize + i];
        direct = one_minus::<N>(share) * grad;
        grad *= share;
    }
    if comptime![kind.masks.hidden.is_some()] {
        grad *= forward.masks[scalars.masks.hidden as usize + i];
    }
    grads.direct[i] = direct + grad * update;

    let mut n = candidate;
    let mut grad_n = grad * one_minus::<N>(update);
    if comptime![kind.masks.candidate.is_some()] {
        let mask = forward.masks[scalars.masks.candidate as usize + i];
        n *= mask;
        grad_n *= mask;
    }
    MixGradients::<N> {
        update: grad * (old - n) * sigmoid_slope::<N>(update),
        candidate: grad_n * tanh_slope::<N>(candidate),
    }
}

/// The derivative of [`step`].
///
/// # Arguments
/// * `grad_product` - ∂(h·R), with b_hn, of all rows `[N, 3H]`
#[cube(launch)]
pub fn step_back<N: Size>(
    given: &GruGivenBuffers<N>,
    forward: &GruSavedBuffers<N>,
    grads: &mut GruGradBuffers<N>,
    grad_product: &mut [Vector<f32, N>],
    scalars: &GruScalars,
    #[comptime] kind: GruKind,
) {
    let own = own_unit(scalars);
    let units = scalars.units as usize;
    let mixed = advance_back::<N>(given, forward, grads, &own, scalars, kind);
    let saved = in_all(&own, scalars, scalars.saved_row, comptime![kind.saved()]);
    let reset = forward.saved[saved + RESET * units];
    let inner = forward.saved[saved + INNER * units];
    let grad_reset = mixed.candidate * inner * sigmoid_slope::<N>(reset);
    let grad_inner = mixed.candidate * reset;

    let all = in_all(&own, scalars, scalars.row, GATES);
    let left = in_step(&own, scalars, GATES);
    grads.preact[all + RESET * units] = grad_reset;
    grads.preact[all + UPDATE * units] = mixed.update;
    grads.preact[all + CANDIDATE * units] = mixed.candidate;
    grad_product[all + RESET * units] = grad_reset;
    grad_product[all + UPDATE * units] = mixed.update;
    grad_product[all + CANDIDATE * units] = grad_inner;
    grads.left[left + RESET * units] = grad_reset;
    grads.left[left + UPDATE * units] = mixed.update;
    grads.left[left + CANDIDATE * units] = grad_inner;
}

/// The derivative of [`mix`].
///
/// # Arguments
/// * `left_candidate` - ∂a_n, the left side of the product with R_nᵀ `[B, H]`
#[cube(launch)]
pub fn mix_back<N: Size>(
    given: &GruGivenBuffers<N>,
    forward: &GruSavedBuffers<N>,
    grads: &mut GruGradBuffers<N>,
    left_candidate: &mut [Vector<f32, N>],
    scalars: &GruScalars,
    #[comptime] kind: GruKind,
) {
    let own = own_unit(scalars);
    let units = scalars.units as usize;
    let mixed = advance_back::<N>(given, forward, grads, &own, scalars, kind);
    let all = in_all(&own, scalars, scalars.row, GATES);
    grads.preact[all + UPDATE * units] = mixed.update;
    grads.preact[all + CANDIDATE * units] = mixed.candidate;
    grads.left[in_step(&own, scalars, SIGMOIDS) + UPDATE * units] = mixed.update;
    left_candidate[in_step(&own, scalars, 1usize)] = mixed.candidate;
}

/// The derivative of [`open_gates`].
///
/// # Arguments
/// * `grad_reset_hidden` - ∂(r ⊙ h) `[B, H]`
/// * `saved` - of the forward
/// * `reset_hidden` - r ⊙ h of all rows, for the gradient of R_n `[N, H]`
#[cube(launch)]
pub fn reset_back<N: Size>(
    grad_reset_hidden: &[Vector<f32, N>],
    saved: &[Vector<f32, N>],
    grads: &mut GruGradBuffers<N>,
    reset_hidden: &mut [Vector<f32, N>],
    scalars: &GruScalars,
    #[comptime] kind: GruKind,
) {
    let own = own_unit(scalars);
    let units = scalars.units as usize;
    let i = in_step(&own, scalars, 1usize);
    let row = in_all(&own, scalars, scalars.row, 1usize);
    let saved_row = in_all(&own, scalars, scalars.saved_row, comptime![kind.saved()]);
    let reset = saved[saved_row + RESET * units];
    let old = grads.before[row];
    let grad = grad_reset_hidden[i];
    let grad_reset = grad * old * sigmoid_slope::<N>(reset);
    grads.direct[i] += grad * reset;
    grads.preact[in_all(&own, scalars, scalars.row, GATES) + RESET * units] = grad_reset;
    grads.left[in_step(&own, scalars, SIGMOIDS) + RESET * units] = grad_reset;
    reset_hidden[row] = reset * old;
}

//! A unit of a cell of either family: from activated gates to c̃, and the derivative.
//!
//! The forward computes it from the pre-activations, the backward once more from what is saved.

use super::masks::masked;
use super::*;

/// What the arithmetic of a cell is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CellForm {
    /// How i and f follow from the mixing gates.
    pub coupling: Coupling,
    /// Whether |c̃| is bounded.
    pub clip: bool,
    /// Masks of the cell.
    pub masks: Masks<()>,
}

/// A unit of a cell up to c̃.
#[derive(CubeType, Clone, Copy)]
pub struct CellUnit<N: Size> {
    /// The first mixing gate, activated.
    pub first: Vector<f32, N>,
    /// The second one; the first where there is one only.
    pub second: Vector<f32, N>,
    /// g
    pub candidate: Vector<f32, N>,
    /// g times its mask.
    pub masked_candidate: Vector<f32, N>,
    /// i
    pub input: Vector<f32, N>,
    /// f
    pub forget: Vector<f32, N>,
    /// c
    pub previous: Vector<f32, N>,
    /// c̃ before its bound, times its mask.
    pub unbounded: Vector<f32, N>,
}

/// The gradients of a unit of a cell.
#[derive(CubeType, Clone, Copy)]
pub struct CellUnitGrads<N: Size> {
    /// Of the pre-activation of the first mixing gate.
    pub first: Vector<f32, N>,
    /// Of that of the second one; the first where there is one only.
    pub second: Vector<f32, N>,
    /// Of the candidate's pre-activation.
    pub candidate: Vector<f32, N>,
    /// Of c, by way of c̃.
    pub previous: Vector<f32, N>,
}

/// # Arguments
/// * `first`, `second`, `candidate` - activated
/// * `masks`, `starts`, `index` - all masks, where those of the step begin, the unit within one
#[cube]
pub fn cell_unit<N: Size>(
    first: Vector<f32, N>,
    second: Vector<f32, N>,
    candidate: Vector<f32, N>,
    previous: Vector<f32, N>,
    masks: &[Vector<f32, N>],
    starts: &MaskStarts,
    index: usize,
    #[comptime] form: CellForm,
) -> CellUnit<N> {
    let masked_candidate = masked::<N>(
        candidate,
        masks,
        starts.candidate,
        index,
        form.masks.candidate,
    );
    let input = input_gate::<N>(first, second, form.coupling);
    let forget = forget_gate::<N>(first, second, form.coupling);
    let unbounded = forget * previous + input * masked_candidate;
    CellUnit::<N> {
        first,
        second,
        candidate,
        masked_candidate,
        input,
        forget,
        previous,
        unbounded: masked::<N>(unbounded, masks, starts.cell, index, form.masks.cell),
    }
}

/// The derivative of [`cell_unit`] and [`bounded`].
///
/// # Arguments
/// * `grad` - ∂c̃
/// * `bound` - of |c̃|
/// * the others - as in [`cell_unit`]
#[cube]
pub fn cell_unit_back<N: Size>(
    cell: &CellUnit<N>,
    grad: Vector<f32, N>,
    bound: f32,
    masks: &[Vector<f32, N>],
    starts: &MaskStarts,
    index: usize,
    #[comptime] form: CellForm,
) -> CellUnitGrads<N> {
    let mut grad = grad;
    if comptime![form.clip] {
        let zero = Vector::new(0.0f32);
        let outside = cell.unbounded.abs().greater_than(&Vector::new(bound));
        grad = select_many(outside, zero, grad);
    }
    let grad = masked::<N>(grad, masks, starts.cell, index, form.masks.cell);
    let grad_candidate = masked::<N>(
        grad * cell.input,
        masks,
        starts.candidate,
        index,
        form.masks.candidate,
    );
    let (a, b) = (cell.first, cell.second);
    let grad_input = grad * cell.masked_candidate;
    let grad_forget = grad * cell.previous;
    let first =
        grad_first::<N>(a, b, grad_input, grad_forget, form.coupling) * sigmoid_slope::<N>(a);
    let second = if comptime![form.coupling.mixing_gates() == 2] {
        grad_second::<N>(a, b, grad_input, grad_forget, form.coupling) * sigmoid_slope::<N>(b)
    } else {
        first
    };
    CellUnitGrads::<N> {
        first,
        second,
        candidate: grad_candidate * tanh_slope::<N>(cell.candidate),
        previous: grad * cell.forget,
    }
}

/// i from the activated mixing gates; b is a where there is one only.
#[cube]
fn input_gate<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![matches!(
        coupling,
        Coupling::Independent | Coupling::ForgetFromInput
    )] {
        a
    } else if comptime![coupling == Coupling::InputFromForget] {
        one_minus::<N>(a)
    } else if comptime![coupling == Coupling::CappedInput] {
        let most = one_minus::<N>(b);
        select_many(a.greater_than(&most), most, a)
    } else {
        // 1 − e = (1 − f)·(1 − f + 2f(1 − r)): nothing cancels.
        let rest = one_minus::<N>(b);
        rest * (rest + (b + b) * one_minus::<N>(a))
    }
}

/// f from the activated mixing gates.
#[cube]
fn forget_gate<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![matches!(
        coupling,
        Coupling::Independent | Coupling::CappedInput
    )] {
        b
    } else if comptime![coupling == Coupling::InputFromForget] {
        a
    } else if comptime![coupling == Coupling::ForgetFromInput] {
        one_minus::<N>(a)
    } else {
        // e = 2rf + (1 − 2r)f² = f·(f + 2r(1 − f))
        b * (b + (a + a) * one_minus::<N>(b))
    }
}

/// ∂ of the first mixing gate.
#[cube]
fn grad_first<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    grad_input: Vector<f32, N>,
    grad_forget: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![coupling == Coupling::Independent] {
        grad_input
    } else if comptime![coupling == Coupling::InputFromForget] {
        grad_forget - grad_input
    } else if comptime![coupling == Coupling::ForgetFromInput] {
        grad_input - grad_forget
    } else if comptime![coupling == Coupling::CappedInput] {
        let zero = Vector::new(0.0f32);
        select_many(a.greater_than(&one_minus::<N>(b)), zero, grad_input)
    } else {
        let slope = b * one_minus::<N>(b);
        (grad_forget - grad_input) * (slope + slope)
    }
}

/// ∂ of the second mixing gate.
#[cube]
fn grad_second<N: Size>(
    a: Vector<f32, N>,
    b: Vector<f32, N>,
    grad_input: Vector<f32, N>,
    grad_forget: Vector<f32, N>,
    #[comptime] coupling: Coupling,
) -> Vector<f32, N> {
    if comptime![coupling == Coupling::CappedInput] {
        let zero = Vector::new(0.0f32);
        let capped = select_many(a.greater_than(&one_minus::<N>(b)), grad_input, zero);
        grad_forget - capped
    } else if comptime![coupling == Coupling::Refined] {
        let half = a * one_minus::<N>(b) + b * one_minus::<N>(a);
        (grad_forget - grad_input) * (half + half)
    } else {
        grad_forget
    }
}

/// The bounded cell.
#[cube]
pub fn bounded<N: Size>(x: Vector<f32, N>, bound: f32, #[comptime] clip: bool) -> Vector<f32, N> {
    if comptime![clip] {
        let high = Vector::new(bound);
        let low = Vector::new(-bound);
        let x = select_many(x.greater_than(&high), high, x);
        select_many(x.less_than(&low), low, x)
    } else {
        x
    }
}

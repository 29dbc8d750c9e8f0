//! The adaptive LSTM (aLSTM) over a whole sequence: all layers in one time loop.
//!
//! The equations are those of `cell/adaptive.rs` and `equations/adaptive.rs`; the names are the same.
//! Layer 0 reads the top layer's z of the step before, so that the layers advance together. Members
//! of a gang split the columns of each product, and meet three times per step and layer:
//! ```text
//! forward    q = x·W_x + h·W_h + z_below·W_z + z·R_a + b_a → gates → m', z'     panels of A units
//!            p = tanh(z'·P): p_x, p_h      → x ⊙ p_x, h ⊙ p_h                   panels of these
//!            p_i, p_g, p_b, a = (x ⊙ p_x)·W, b = (h ⊙ p_h)·R
//!              → a ⊙ p_i + b ⊙ p_g + bias ⊙ p_b → gates → c', y, h'             panels of H units
//! backward   ∂h' → ∂z → ∂a, ∂b, ∂p_i, ∂p_g, ∂p_b       ∂a·Wᵀ, ∂b·Rᵀ → ∂x, ∂h, ∂p_x, ∂p_h
//!            ∂z' += ∂(z'·P)·Pᵀ → ∂q                    ∂q·W_aᵀ, ∂q·R_aᵀ → ∂x, ∂h, ∂z, ∂z_below
//!            afterwards: each weight's gradient as one product over all steps
//! ```
//! Each part of a policy is a product of its own with some columns of P, whose columns may overlap. What
//! has 4H columns lies in tiles (`kernel/cpu/layout.rs`): all of it that belongs to some units is
//! computed, used and differentiated together.
//!
//! States, and their gradients, are one matrix `[B, Σ(2H + 2A)]`: c, h, m, z of each layer.

mod backward;
mod forward;
mod masks;
mod ops;
mod output;
mod shapes;

use alloc::vec::Vec;
use core::ops::Range;

pub use backward::backward;
pub use forward::forward;

use masks::MaskTable;

use super::buffer::Buffer;
use super::gang;
use super::layout::{Layout, row_of_tiles};
use super::pointwise::{Coupling, GateRows, Kind, Rows};
use super::product::{Begin, Columns, Panels, Sums, Term, View, Weights};
use super::simd::Isa;

/// One layer of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// I
    pub d_input: usize,
    /// H
    pub d_hidden: usize,
    /// A
    pub d_adapt: usize,
    /// Whether there is a bias, and with it a p_b.
    pub bias: bool,
    /// Whether the parts of the policy overlap, as in the published code.
    pub overlapping: bool,
    /// Bound of |c̃|; infinite for none.
    pub clip: f32,
    /// The same of the adaptation cell.
    pub clip_adapt: f32,
}

impl Layer {
    /// Features of a policy.
    pub fn policy(&self) -> usize {
        self.sizes().iter().sum()
    }

    /// Features of p_x, p_h, p_i, p_g, p_b.
    fn sizes(&self) -> [usize; 5] {
        let width = 4 * self.d_hidden;
        let bias = if self.bias { width } else { 0 };
        [self.d_input, self.d_hidden, width, width, bias]
    }

    /// Where the parts begin when they lie side by side.
    fn side_by_side(&self) -> [usize; 5] {
        let sizes = self.sizes();
        core::array::from_fn(|part| sizes[..part].iter().sum())
    }

    /// Where the parts begin in the policy.
    pub fn starts(&self) -> [usize; 5] {
        let sizes = self.sizes();
        match self.overlapping {
            false => self.side_by_side(),
            true => core::array::from_fn(|part| if part == 0 { 0 } else { sizes[part - 1] }),
        }
    }

    /// Features of c, h, m and z together.
    fn state(&self) -> usize {
        2 * (self.d_hidden + self.d_adapt)
    }

    /// Values of the biases.
    fn biases(&self) -> usize {
        4 * self.d_adapt + if self.bias { 4 * self.d_hidden } else { 0 }
    }
}

/// A mask; those of all layers lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// m_g `[B or N, ΣH]`
    Candidate,
    /// m_c `[B or N, ΣH]`
    Cell,
    /// m_h `[B or N, ΣH]`
    Hidden,
    /// u `[B or N, ΣH]`
    UpdateCell,
    /// v `[B or N, ΣH]`
    UpdateHidden,
    /// On z `[B or N, ΣA]`
    Adapt,
}

impl Mask {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Candidate,
        Self::Cell,
        Self::Hidden,
        Self::UpdateCell,
        Self::UpdateHidden,
        Self::Adapt,
    ];
}

/// A weight of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// W_a `[I + H + features of z_below, 4A]`
    AdaptInput,
    /// R_a `[A, 4A]`
    AdaptHidden,
    /// P `[A, features of a policy]`
    Policy,
    /// W `[I, 4H]`
    Input,
    /// R `[H, 4H]`
    Hidden,
}

/// Weights of a layer.
const WEIGHTS: usize = 5;

impl Weight {
    /// All of them, in order.
    pub const ALL: [Self; WEIGHTS] = [
        Self::AdaptInput,
        Self::AdaptHidden,
        Self::Policy,
        Self::Input,
        Self::Hidden,
    ];
}

/// A part of a layer's state.
#[derive(Debug, Clone, Copy)]
pub enum StatePart {
    /// c
    Cell,
    /// h
    Hidden,
    /// m
    AdaptCell,
    /// z
    Z,
}

impl StatePart {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Cell, Self::Hidden, Self::AdaptCell, Self::Z];
}

/// The tensors of a call, as a list: x `[N, I]`, the states `[B, Σ(2H + 2A)]`, the biases (b_a `[4A]`
/// and b `[4H]` of each layer), the [`Weight`]s of each layer, then the masks that there are.
#[derive(Debug, Clone, Copy)]
pub struct Tensors<'a>(pub &'a [&'a [f32]]);

/// Where x is in the list.
pub const INPUT: usize = 0;

/// Where the states are.
pub const STATES: usize = 1;

/// Where the biases are.
pub const BIASES: usize = 2;

/// Where a weight is.
pub fn weight_index(layer: usize, weight: Weight) -> usize {
    BIASES + 1 + WEIGHTS * layer + weight as usize
}

/// A call without its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// First to last.
    pub layers: Vec<Layer>,
    /// Rows of each step, never rising.
    pub counts: Vec<usize>,
    /// For each of [`Mask::ALL`]: whether it has a row per step and sequence, if there is one.
    pub masks: [Option<bool>; 6],
    /// Whether the states after all rows are part of the output.
    pub histories: bool,
}

impl Problem {
    /// N: rows of all steps.
    pub fn rows(&self) -> usize {
        self.counts.iter().sum()
    }

    /// B: sequences.
    pub fn batch_size(&self) -> usize {
        self.counts[0]
    }

    /// Features of the output.
    pub fn d_output(&self) -> usize {
        self.layers[self.layers.len() - 1].d_hidden
    }

    /// Features of the states of all layers.
    pub fn state_size(&self) -> usize {
        self.state_start(self.layers.len())
    }

    /// Where a layer's c begins in the states; h, m and z follow.
    pub fn state_start(&self, layer: usize) -> usize {
        self.layers[..layer].iter().map(Layer::state).sum()
    }

    /// Where a part of a layer's state begins in the states.
    pub fn state_part(&self, layer: usize, part: StatePart) -> usize {
        let Layer {
            d_hidden, d_adapt, ..
        } = self.layers[layer];
        let inside = match part {
            StatePart::Cell => 0,
            StatePart::Hidden => d_hidden,
            StatePart::AdaptCell => 2 * d_hidden,
            StatePart::Z => 2 * d_hidden + d_adapt,
        };
        self.state_start(layer) + inside
    }

    /// Features of a part of a layer's state.
    pub fn part_size(&self, layer: usize, part: StatePart) -> usize {
        match part {
            StatePart::Cell | StatePart::Hidden => self.layers[layer].d_hidden,
            StatePart::AdaptCell | StatePart::Z => self.layers[layer].d_adapt,
        }
    }

    /// Where a layer's b_a begins in the biases; b follows.
    pub fn bias_start(&self, layer: usize) -> usize {
        self.layers[..layer].iter().map(Layer::biases).sum()
    }

    /// Features of a layer's z_below; 0 where there is none.
    pub fn d_below(&self, layer: usize) -> usize {
        match self.layers.len() {
            1 => 0,
            _ => self.layers[self.below(layer)].d_adapt,
        }
    }

    /// The layer whose z a layer reads.
    pub fn below(&self, layer: usize) -> usize {
        layer.checked_sub(1).unwrap_or(self.layers.len() - 1)
    }

    /// Features of what an adaptation cell sees.
    fn d_seen(&self, layer: usize) -> usize {
        let Layer {
            d_input, d_hidden, ..
        } = self.layers[layer];
        d_input + d_hidden + self.d_below(layer)
    }

    /// Whether there is a mask.
    pub fn has(&self, mask: Mask) -> bool {
        self.masks[mask as usize].is_some()
    }

    /// Features of a layer's part of a mask.
    pub fn mask_size(layer: &Layer, mask: Mask) -> usize {
        match mask {
            Mask::Adapt => layer.d_adapt,
            _ => layer.d_hidden,
        }
    }

    /// The first row of each step, and the number of rows.
    pub fn offsets(&self) -> Vec<usize> {
        let mut offset = 0;
        let mut offsets = Vec::with_capacity(self.counts.len() + 1);
        offsets.push(0);
        for count in &self.counts {
            offset += count;
            offsets.push(offset);
        }
        offsets
    }

    /// The last step of sequence b.
    fn last_step(&self, b: usize) -> usize {
        self.counts.partition_point(|&count| count > b) - 1
    }

    /// Threads worth calling for this problem: a share of a step should take longer than meeting the
    /// others does.
    pub fn members(&self) -> usize {
        let weights = |(index, layer): (usize, &Layer)| {
            let Layer {
                d_input,
                d_hidden,
                d_adapt,
                ..
            } = *layer;
            let adapt = 4 * d_adapt * (self.d_seen(index) + d_adapt);
            adapt + d_adapt * layer.policy() + 4 * d_hidden * (d_input + d_hidden)
        };
        let per_step: usize = self.layers.iter().enumerate().map(weights).sum();
        let per_step = 2 * self.batch_size() * per_step;
        if self.counts.len() * per_step < WORTH_WAKING {
            return 1;
        }
        let per_meeting = per_step / (3 * self.layers.len());
        gang::available_threads()
            .min(per_meeting / WORTH_MEETING)
            .max(1)
    }
}

/// Operations of a whole call below which no other thread is woken: some 20 µs of work.
const WORTH_WAKING: usize = 1_000_000;

/// Operations per meeting and thread below which meeting costs more than it saves.
const WORTH_MEETING: usize = 30_000;

/// What the forward of a training step keeps of a layer, each for all rows.
#[derive(Debug, Default)]
struct LayerTape {
    /// How what has 4H columns lies.
    layout: Layout,
    /// Activated gates of the adaptation cell `[N, 4A]`.
    adapt_gates: Buffer,
    /// m' `[N, A]`; nothing where the output has it, like all parts of the state.
    adapt_cells: Buffer,
    /// z' `[N, A]`, after its mask.
    z: Buffer,
    /// p_x `[N, I]`, p_h `[N, H]`
    policy_scales: [Buffer; 2],
    /// p_i, p_g, p_b `[N, 4H]`
    policy_gates: [Buffer; 3],
    /// x ⊙ p_x `[N, I]`, h ⊙ p_h `[N, H]`
    scaled: [Buffer; 2],
    /// a, b `[N, 4H]`
    from: [Buffer; 2],
    /// Activated gates `[N, 4H]`.
    gates: Buffer,
    /// c' `[N, H]`
    cells: Buffer,
    /// h' `[N, H]`, after its mask; nothing where it is the output.
    hidden: Buffer,
}

/// What the forward of a training step keeps for the backward.
#[derive(Debug)]
pub struct Tape {
    /// The call that it was made for, and the lanes of its vectors: the sizes of the buffers follow.
    made_for: (Problem, usize),
    layers: Vec<LayerTape>,
}

/// The gates of both cells.
fn kind(masked: bool) -> Kind {
    Kind {
        coupling: Coupling::Independent,
        peephole: false,
        masked,
    }
}

/// The products of a layer's step, in the order of [`Factor`].
const FACTORS: usize = 11;

/// What is multiplied with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    /// x with its rows of W_a.
    AdaptInput,
    /// h with its rows of W_a.
    AdaptHidden,
    /// z_below with its rows of W_a; none in a single layer.
    AdaptBelow,
    /// z with R_a.
    AdaptRecurrent,
    /// z' with the columns of P for p_x.
    PolicyInput,
    /// The same for p_h.
    PolicyHidden,
    /// The same for p_i.
    PolicyFromInput,
    /// The same for p_g.
    PolicyFromHidden,
    /// The same for p_b; none where there is no bias.
    PolicyBias,
    /// x ⊙ p_x with W.
    Input,
    /// h ⊙ p_h with R.
    Hidden,
}

impl Factor {
    /// Those of p_x, p_h, p_i, p_g, p_b.
    const POLICY: [Self; 5] = [
        Self::PolicyInput,
        Self::PolicyHidden,
        Self::PolicyFromInput,
        Self::PolicyFromHidden,
        Self::PolicyBias,
    ];
}

/// One weight, or some rows or columns of one, as a product reads it.
struct Matrix {
    view: View,
    /// Rows.
    k: usize,
    columns: Columns,
    /// Backward, where the left factor is in tiles: its columns.
    tiles: Option<Columns>,
    /// Packed, where it is used more than once or its rows are in the order of tiles.
    panels: Option<Panels>,
}

impl Matrix {
    /// `a·` this matrix.
    fn term(&self, a: View) -> Term {
        let weights = match &self.panels {
            Some(panels) => panels.weights(),
            None => Weights::Native(self.view),
        };
        Term::new(a, self.k, weights)
    }
}

/// What the columns of a weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One like the other.
    Plain,
    /// Gates, row by row.
    Gates,
    /// Gates in tiles.
    Tiles,
}

/// The matrices of each layer.
///
/// # Arguments
/// * `back` - transposed, for the backward
fn matrices(
    isa: Isa,
    members: usize,
    problem: &Problem,
    tensors: Tensors<'_>,
    back: bool,
) -> Vec<[Matrix; FACTORS]> {
    let lanes = isa.lanes();
    let pack = problem.counts.len() > 1;
    let of_layer = |(index, layer): (usize, &Layer)| {
        let Layer {
            d_input,
            d_hidden,
            d_adapt,
            ..
        } = *layer;
        let matrix = |weight: Weight, all: usize, rows: Range<usize>, part: Range<usize>, form| {
            let values = tensors.0[weight_index(index, weight)];
            let view = View::rows(values, all).from_row(rows.start);
            let view = view.from_column(part.start);
            let (k, n) = (rows.len(), part.len());
            let gates = Columns::gates(4, n / 4, lanes);
            let (view, k, columns, tiles) = match (back, form) {
                (false, Form::Plain) => (view, k, Columns::plain(n, lanes, members), None),
                (false, _) => (view, k, gates, None),
                (true, Form::Tiles) => {
                    let columns = Columns::plain(k, lanes, members);
                    (view.transposed(), gates.padded(), columns, Some(gates))
                }
                (true, _) => (
                    view.transposed(),
                    n,
                    Columns::plain(k, lanes, members),
                    None,
                ),
            };
            let packed = pack || tiles.is_some();
            Matrix {
                view,
                k,
                columns,
                tiles,
                panels: packed.then(|| Panels::new(k, &columns)),
            }
        };
        let (with_input, with_hidden) = (d_input, d_input + d_hidden);
        let seen = problem.d_seen(index);
        let (width, adapt_width) = (4 * d_hidden, 4 * d_adapt);
        let adapt = |weight, rows| matrix(weight, adapt_width, rows, 0..adapt_width, Form::Gates);
        let (policy, sizes, starts) = (layer.policy(), layer.sizes(), layer.starts());
        let of_policy = |part: usize| {
            let form = if part < 2 { Form::Plain } else { Form::Tiles };
            let columns = starts[part]..starts[part] + sizes[part];
            matrix(Weight::Policy, policy, 0..d_adapt, columns, form)
        };
        let main = |weight, rows| matrix(weight, width, rows, 0..width, Form::Tiles);
        [
            adapt(Weight::AdaptInput, 0..with_input),
            adapt(Weight::AdaptInput, with_input..with_hidden),
            adapt(Weight::AdaptInput, with_hidden..seen),
            adapt(Weight::AdaptHidden, 0..d_adapt),
            of_policy(0),
            of_policy(1),
            of_policy(2),
            of_policy(3),
            of_policy(4),
            main(Weight::Input, 0..d_input),
            main(Weight::Hidden, 0..d_hidden),
        ]
    };
    problem.layers.iter().enumerate().map(of_layer).collect()
}

/// Where the panels of each matrix are.
fn pack_targets(matrices: &mut [[Matrix; FACTORS]]) -> Vec<Option<*mut f32>> {
    let target = |matrix: &mut Matrix| matrix.panels.as_mut().map(Panels::as_mut_ptr);
    matrices.iter_mut().flatten().map(target).collect()
}

/// Packs a share's panels of all matrices.
///
/// # Safety
/// `targets` are those of [`pack_targets`]; nobody else touches the panels of this share.
unsafe fn pack(
    isa: Isa,
    members: usize,
    matrices: &[[Matrix; FACTORS]],
    targets: &[Option<*mut f32>],
    share: usize,
) {
    for (matrix, target) in matrices.iter().flatten().zip(targets) {
        let Some(target) = *target else { continue };
        let (columns, k) = (&matrix.columns, matrix.k);
        let panels = columns.share(share, members);
        // SAFETY: the matrix has k rows and these columns, the panels were made for them, and each
        // share packs panels of its own.
        unsafe {
            match &matrix.tiles {
                Some(gates) => {
                    Panels::pack_by_tile(isa, target, gates, matrix.view, columns, panels);
                }
                None => Panels::pack(isa, target, k, matrix.view, columns, panels),
            }
        }
    }
}

/// Something that each step changes: rows of all steps, or the same rows again and again.
#[derive(Debug, Clone, Copy)]
struct Track {
    rows: Rows,
    all: bool,
}

impl Track {
    /// The rows of a step whose first row is `offset`.
    fn at(self, offset: usize) -> Rows {
        self.rows.from_row(if self.all { offset } else { 0 })
    }
}

/// Something of 4H columns in tiles that each step changes.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    ptr: *mut f32,
    layout: Layout,
    all: bool,
}

impl Tiles {
    /// The rows of a step whose first row is `offset`.
    fn at(self, offset: usize) -> GateRows {
        let row = if self.all { offset } else { 0 };
        self.layout.rows(self.ptr, row)
    }

    /// The same as what a product gives.
    fn sums(self, offset: usize) -> Sums {
        Sums {
            ptr: self.at(offset).ptr,
            panel: self.layout.panel,
            begin: Begin::Zero,
        }
    }
}

/// Where the tile of a panel is.
fn tile_of(rows: GateRows, panel: usize) -> *mut f32 {
    rows.at(0, 0, panel)
}

/// b of each layer in the order of tiles; nothing where there is none.
fn bias_tiles(isa: Isa, problem: &Problem, tensors: Tensors<'_>) -> Vec<Vec<f32>> {
    let of_layer = |(index, layer): (usize, &Layer)| {
        if !layer.bias {
            return Vec::new();
        }
        let start = problem.bias_start(index) + 4 * layer.d_adapt;
        let bias = &tensors.0[BIASES][start..][..4 * layer.d_hidden];
        let columns = Columns::gates(4, layer.d_hidden, isa.lanes());
        row_of_tiles(&columns, Some(bias))
    };
    problem.layers.iter().enumerate().map(of_layer).collect()
}

/// The rows as a product reads them.
fn view(rows: Rows) -> View {
    View {
        ptr: rows.ptr,
        row: rows.stride,
        column: 1,
    }
}

//! The adaptive LSTM (aLSTM) over a whole sequence: all layers in one time loop.
//!
//! The equations are those of `cell/adaptive.rs` and `equations/adaptive.rs`; the names are the same.
//! Layer 0 reads the top layer's z of the step before, so that the layers advance together. Workers
//! of a team split the columns of each product, and meet three times per step and layer:
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
//! has 4H columns lies in tiles (`fused/cpu/layout.rs`): all of it that belongs to some units is
//! computed, used and differentiated together.
//!
//! States, and their gradients, are one matrix `[B, Σ(2H + 2A)]`: c, h, m, z of each layer.

mod backward;
mod forward;
mod masks;
mod ops;

use alloc::vec::Vec;
use core::ops::Range;

pub use backward::backward;
pub use forward::forward;

use masks::MaskTable;

use super::buffer::Buffer;
use super::layout::{Layout, row_of_tiles};
use super::pointwise::{GateRows, Kind, Rows};
use super::product::{Begin, Columns, Panels, Sums, Term, Weights};
use super::simd::Isa;
use super::team;
use super::view::View;
use crate::fused::problem::Coupling;
use crate::fused::problem::adaptive::{BIASES, Layer, Problem, Tensors, Weight, weight_index};

impl Problem {
    /// Threads worth calling for this problem: a share of a step should take longer than meeting the
    /// others does.
    pub fn workers(&self) -> usize {
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
        team::available_threads()
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
    workers: usize,
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
                (false, Form::Plain) => (view, k, Columns::plain(n, lanes, workers), None),
                (false, _) => (view, k, gates, None),
                (true, Form::Tiles) => {
                    let columns = Columns::plain(k, lanes, workers);
                    (view.transposed(), gates.padded(), columns, Some(gates))
                }
                (true, _) => (
                    view.transposed(),
                    n,
                    Columns::plain(k, lanes, workers),
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
    workers: usize,
    matrices: &[[Matrix; FACTORS]],
    targets: &[Option<*mut f32>],
    share: usize,
) {
    for (matrix, target) in matrices.iter().flatten().zip(targets) {
        let Some(target) = *target else { continue };
        let (columns, k) = (&matrix.columns, matrix.k);
        let panels = columns.share(share, workers);
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

//! The adaptive LSTM (aLSTM) over a whole sequence: all layers in one time loop.
//!
//! The equations and names are those of `cell/adaptive.rs` and `equations/adaptive.rs`.
//! Layer 0 reads the top layer's z of the previous step, so the layers advance together. The workers
//! split the columns of each product, with three barriers per step and layer:
//! ```text
//! forward    q = x·W_x + h·W_h + z_below·W_z + z·R_a + b_a → gates → m', z'     panels of A units
//!            p = tanh(z'·P): p_x, p_h      → x ⊙ p_x, h ⊙ p_h                   panels of these
//!            p_i, p_g, p_b, a = (x ⊙ p_x)·W, b = (h ⊙ p_h)·R
//!              → a ⊙ p_i + b ⊙ p_g + bias ⊙ p_b → gates → c', y, h'             panels of H units
//! backward   ∂h' → ∂z → ∂a, ∂b, ∂p_i, ∂p_g, ∂p_b       ∂a·Wᵀ, ∂b·Rᵀ → ∂x, ∂h, ∂p_x, ∂p_h
//!            ∂z' += ∂(z'·P)·Pᵀ → ∂q                    ∂q·W_aᵀ, ∂q·R_aᵀ → ∂x, ∂h, ∂z, ∂z_below
//!            afterwards: each weight's gradient as one product over all steps
//! ```
//! Each part of a policy is a separate product with some columns of P; the columns of different parts
//! may overlap. Buffers with 4H columns are in tiles (`fused/cpu/layout.rs`), so that all values of some
//! units are computed, used and differentiated together.
//!
//! States, and their gradients, are one matrix `[B, Σ(2H + 2A)]`: c, h, m, z of each layer.

mod backward;
mod forward;
mod masks;
mod ops;

use alloc::vec::Vec;
use core::ops::Range;

pub use backward::{Gradient, backward};
pub use forward::forward;

use masks::LayerMasks;

use super::buffer::Buffer;
use super::driver::{Matrix, Work};
use super::layout::{Layout, row_of_tiles};
use super::pointwise::{Kind, PeepholeRows};
use super::product::{Begin, Columns, Sums};
use super::simd::Isa;
use super::view::{GateRows, Rows, View};
use crate::fused::problem::Coupling;
use crate::fused::problem::adaptive::{
    AdaptiveProblem, BIASES, Layer, Tensors, Weight, weight_index,
};

impl AdaptiveProblem {
    /// The amount of arithmetic of a call.
    fn work(&self) -> Work {
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
        Work {
            steps: self.counts.len(),
            per_step: 2 * self.batch_size() * per_step,
            meetings: 3 * self.layers.len(),
        }
    }

    /// Number of threads that this problem justifies.
    pub fn workers(&self) -> usize {
        self.work().workers()
    }
}

/// The tensors that the forward saves for one layer, each with all rows.
#[derive(Debug, Default)]
struct SavedLayer {
    /// Layout of the buffers with 4H columns.
    layout: Layout,
    /// Activated gates of the adaptation cell `[N, 4A]`.
    adapt_gates: Buffer,
    /// m' `[N, A]`; empty if the output contains it. The same holds for all parts of the state.
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
    /// h' `[N, H]`, after its mask; empty if it is the output.
    hidden: Buffer,
}

/// The tensors that the forward saves for the backward.
#[derive(Debug)]
pub struct Saved {
    /// The call that they belong to, and the number of lanes per vector; these determine the buffer sizes.
    made_for: (AdaptiveProblem, usize),
    layers: Vec<SavedLayer>,
}

/// The gates of both cells.
fn kind(masked: bool) -> Kind {
    Kind {
        coupling: Coupling::Independent,
        peephole: false,
        masked,
    }
}

/// Number of products of a layer's step, in the order of [`Factor`].
const FACTORS: usize = 11;

/// The products of a step, by their two factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    /// x with the rows of W_a for x.
    AdaptInput,
    /// h with the rows of W_a for h.
    AdaptHidden,
    /// z_below with the rows of W_a for z_below; absent for a single layer.
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
    /// The same for p_b; absent without a bias.
    PolicyBias,
    /// x ⊙ p_x with W.
    Input,
    /// h ⊙ p_h with R.
    Hidden,
}

impl Factor {
    /// The products for p_x, p_h, p_i, p_g, p_b.
    const POLICY: [Self; 5] = [
        Self::PolicyInput,
        Self::PolicyHidden,
        Self::PolicyFromInput,
        Self::PolicyFromHidden,
        Self::PolicyBias,
    ];
}

/// The index of a matrix in the set of all layers.
fn index(layer: usize, factor: Factor) -> usize {
    FACTORS * layer + factor as usize
}

/// The column structure of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// No structure.
    Plain,
    /// Gates, row-major.
    Gates,
    /// Gates in tiles.
    Tiles,
}

/// How products read the weights of a call.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Lanes per vector.
    lanes: usize,
    /// Number of workers that share a product.
    workers: usize,
    /// Whether the weights are packed.
    pack: bool,
    /// Whether they are transposed, for the backward.
    back: bool,
}

impl Reading {
    /// All matrices, by [`index`].
    fn matrices(&self, problem: &AdaptiveProblem, tensors: Tensors<'_>) -> Vec<Option<Matrix>> {
        let layers = 0..problem.layers.len();
        layers
            .flat_map(|layer| self.of_layer(problem, tensors, layer).map(Some))
            .collect()
    }

    /// The matrices of a layer, in the order of [`Factor`].
    fn of_layer(
        &self,
        problem: &AdaptiveProblem,
        tensors: Tensors<'_>,
        index: usize,
    ) -> [Matrix; FACTORS] {
        let layer = &problem.layers[index];
        let Layer {
            d_input,
            d_hidden,
            d_adapt,
            ..
        } = *layer;
        let (with_input, with_hidden) = (d_input, d_input + d_hidden);
        let seen = problem.d_seen(index);
        let matrix = |weight: Weight, all: usize, rows: Range<usize>, part: Range<usize>, form| {
            let values = View::rows(tensors.0[weight_index(index, weight)], all);
            let view = values.from_row(rows.start).from_column(part.start);
            self.matrix(view, rows.len(), part.len(), form)
        };
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
    }

    /// A matrix of some rows and columns of a weight.
    fn matrix(&self, view: View, rows: usize, columns: usize, form: Form) -> Matrix {
        let gates = Columns::gates(4, columns / 4, self.lanes);
        let plain = |count| Columns::plain(count, self.lanes, self.workers);
        let tiles = (form == Form::Tiles).then_some(gates);
        match (self.back, form) {
            (false, Form::Plain) => Matrix::new(view, rows, plain(columns)).packed(self.pack),
            (false, _) => Matrix::new(view, rows, gates).packed(self.pack),
            (true, _) => Matrix::new(view.transposed(), columns, plain(rows))
                .by_tile(tiles)
                .packed(self.pack || tiles.is_some()),
        }
    }
}

/// The buffer of a quantity that each step writes: rows for all steps, or rows that every step reuses.
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

/// The same for a quantity of 4H columns in tiles.
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

    /// The rows as the destination of a product.
    fn sums(self, offset: usize) -> Sums {
        Sums {
            ptr: self.at(offset).ptr,
            panel: self.layout.panel,
            begin: Begin::Zero,
        }
    }
}

/// The address of the tile of a panel.
fn tile_of(rows: GateRows, panel: usize) -> *mut f32 {
    rows.at(0, 0, panel)
}

/// b of each layer in the order of tiles; empty without a bias.
fn bias_tiles(isa: Isa, problem: &AdaptiveProblem, tensors: Tensors<'_>) -> Vec<Vec<f32>> {
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

/// The weights of absent peepholes: null pointers.
const NO_PEEPHOLES: PeepholeRows = PeepholeRows {
    mixing: [core::ptr::null(); 2],
    output_previous: core::ptr::null(),
    output_new: core::ptr::null(),
};

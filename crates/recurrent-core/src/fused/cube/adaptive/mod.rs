//! The adaptive LSTM over a whole sequence: all layers in one time loop.
//!
//! ```text
//! forward    x·W_a                                              all rows at once
//!            for each step and layer:
//!              [h | z_below | z]·[W_a; R_a]        → adapt   → m', z'
//!              z'·P                                → scale   → x ⊙ p_x, h ⊙ p_h
//!              (x ⊙ p_x)·W, (h ⊙ p_h)·R            → advance → c', y, h'
//! backward   for each step and layer back:
//!              advance_back → ∂a, ∂b               ∂a·Wᵀ, ∂b·Rᵀ
//!              scale_back   → ∂(z'·P)              ·Pᵀ
//!              adapt_back   → ∂q                   ·[W_a; R_a]ᵀ → ∂[h | z_below | z]
//!            ∂W_a, ∂R_a, ∂P, ∂W, ∂R, ∂x            one product each over all rows
//!            gradients of biases                   sums over all rows
//! ```
//! That is three products and three kernels per step and layer, both ways: (x ⊙ p_x)·W and (h ⊙ p_h)·R
//! are one product of two matrices each side. In a layer above the first, x is the h' of the layer below
//! and is part of what the adaptation cell sees. No saved tensor is overwritten.

mod backward;
mod forward;

use alloc::vec::Vec;

use burn_cubecl::tensor::CubeTensor;

use super::CubeSequence;
use super::buffer::{RowsOf, copy, empty, joined, nothing, reshaped, vector_size, zeros};
use super::pointwise::adaptive::{
    ADAPT_SAVED, LayerKind, LayerMasksLaunch, LayerScalarsLaunch, LayerSizesLaunch,
    PolicyRowLaunch, SAVED, SeenRowLaunch, StatesRowLaunch,
};
use super::step::{Direction, step_rows};
use crate::equations::masks::{MaskPlace, Masks};
use crate::fused::problem::adaptive::{
    AdaptiveProblem, BIASES, INPUT, Layer, STATES, StatePart, Weight, weight_index,
};

/// What the forward of a training step saves of a layer, each of all rows.
struct Saved<'a>(&'a [CubeTensor]);

/// Tensors of [`Saved`].
const SAVED_TENSORS: usize = 7;

impl<'a> Saved<'a> {
    /// In this order, as everywhere below.
    fn shapes(problem: &AdaptiveProblem, index: usize) -> [[usize; 2]; SAVED_TENSORS] {
        let layer = &problem.layers[index];
        let features = [
            ADAPT_SAVED * layer.d_adapt,
            SAVED * layer.d_hidden,
            seen(problem, index).size,
            layer.d_adapt,
            layer.policy(),
            layer.d_input,
            layer.d_hidden,
        ];
        features.map(|features| [problem.rows(), features])
    }

    /// Of a layer.
    fn of(saved: &'a [CubeTensor], layer: usize) -> Self {
        Self(&saved[SAVED_TENSORS * layer..SAVED_TENSORS * (layer + 1)])
    }

    /// The saved rows of the adaptation cell.
    fn adapt_rows(&self) -> &'a CubeTensor {
        &self.0[0]
    }

    /// The saved rows of the cell.
    fn rows(&self) -> &'a CubeTensor {
        &self.0[1]
    }

    /// What the adaptation cell has seen.
    fn seen(&self) -> &'a CubeTensor {
        &self.0[2]
    }

    /// z'
    fn z(&self) -> &'a CubeTensor {
        &self.0[3]
    }

    /// p
    fn policy(&self) -> &'a CubeTensor {
        &self.0[4]
    }

    /// x ⊙ p_x and h ⊙ p_h
    fn scaled(&self) -> [&'a CubeTensor; 2] {
        [&self.0[5], &self.0[6]]
    }
}

/// Where states are in what the adaptation cell of a layer sees; x comes first, in a layer above the
/// first.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// h
    hidden: usize,
    /// z_below
    below: usize,
    /// z
    z: usize,
    /// All features.
    size: usize,
}

/// What a layer sees.
fn seen(problem: &AdaptiveProblem, index: usize) -> Seen {
    let layer = &problem.layers[index];
    let hidden = if index == 0 { 0 } else { layer.d_input };
    let below = hidden + layer.d_hidden;
    let z = below + problem.d_below(index);
    Seen {
        hidden,
        below,
        z,
        size: z + layer.d_adapt,
    }
}

/// A layer of a call.
struct LayerCall<'a> {
    sizes: &'a Layer,
    kind: LayerKind,
    seen: Seen,
    /// The rows of W_a that x is multiplied with, in the first layer.
    from_input: Option<CubeTensor>,
    /// The others, and R_a below them.
    from_seen: CubeTensor,
    /// P
    policy: &'a CubeTensor,
    /// W and R, padded with rows of zeros `[2, K, 4H]`.
    pair: CubeTensor,
    /// K
    d_pair: usize,
}

/// A layer at a step.
#[derive(Debug, Clone, Copy)]
struct LayerStep {
    step: usize,
    layer: usize,
}

/// A call: what both directions need.
struct Call<'a> {
    problem: &'a AdaptiveProblem,
    input: &'a CubeTensor,
    states: &'a CubeTensor,
    biases: &'a CubeTensor,
    layers: Vec<LayerCall<'a>>,
    /// All masks in one buffer, and the first value of each.
    masks: CubeTensor,
    mask_starts: Masks<usize>,
    /// Width of vectors of features.
    lanes: usize,
    offsets: Vec<usize>,
}

impl<'a> Call<'a> {
    fn new(problem: &'a AdaptiveProblem, tensors: &'a [CubeTensor], save: bool) -> Self {
        let like = &tensors[INPUT];
        // One width for all: a kernel reads and writes features of several kinds.
        let of_layer = |layer: &Layer| [layer.d_input, layer.d_hidden, layer.d_adapt];
        let sizes: Vec<usize> = problem.layers.iter().flat_map(of_layer).collect();
        let mut given = tensors[weight_index(problem.layers.len(), Weight::AdaptInput)..].iter();
        let mut list = Vec::new();
        let mut end = 0;
        let mask_starts = problem.masks.map(|_| {
            let mask = given.next().expect("as many masks as the problem has");
            list.push(mask.clone());
            let start = end;
            end += mask.meta.num_elements();
            start
        });
        let layer = |index| LayerCall::new(problem, tensors, index, save);
        Self {
            problem,
            input: like,
            states: &tensors[STATES],
            biases: &tensors[BIASES],
            layers: (0..problem.layers.len()).map(layer).collect(),
            masks: match list.is_empty() {
                true => nothing(like),
                false => joined(list),
            },
            mask_starts,
            lanes: vector_size(like, &sizes),
            offsets: problem.offsets(),
        }
    }

    /// The layer that sees a layer's z, if there are several: that above, or above the top one the first.
    fn above(&self, layer: usize) -> Option<usize> {
        let layers = self.layers.len();
        (layers > 1).then_some((layer + 1) % layers)
    }

    /// The rows of a step in a part of a layer's state after all rows, where the output has it.
    fn history<'t>(
        &self,
        output: &'t CubeTensor,
        LayerStep { step, layer }: LayerStep,
        part: StatePart,
    ) -> Option<RowsOf<'t>> {
        let stride = self.problem.part_size(layer, part);
        let first = self.problem.history(layer, part)?;
        Some(RowsOf {
            tensor: output,
            start: first + self.offsets[step] * stride,
            stride,
        })
    }

    /// A part of a layer's state in a matrix of all states.
    fn state_rows<'t>(&self, states: &'t CubeTensor, index: usize, part: StatePart) -> RowsOf<'t> {
        RowsOf {
            tensor: states,
            start: self.problem.state_part(index, part),
            stride: self.problem.state_size(),
        }
    }

    /// The scalars of a layer at a step.
    fn scalars(&self, at: LayerStep, direction: Direction) -> LayerScalarsLaunch {
        let problem = self.problem;
        let LayerStep { step, layer: index } = at;
        let layer = &self.layers[index];
        let sizes = layer.sizes;
        let offset = self.offsets[step];
        let vectors = |values: usize| (values / self.lanes) as u32;
        let mask_sizes = |mask| {
            let layers = problem.layers.iter();
            layers.map(move |layer| AdaptiveProblem::mask_size(layer, mask))
        };
        let mask = |mask: MaskPlace| {
            let start = self.mask_starts.get(mask)?;
            let size: usize = mask_sizes(mask).sum();
            let below: usize = mask_sizes(mask).take(index).sum();
            let rows = match problem.masks.get(mask) {
                Some(true) => offset,
                _ => 0,
            };
            Some((start + rows * size + below) / self.lanes)
        };
        let [_, _, preact_input, preact_hidden, preact_bias] = sizes.starts();
        let below = problem.below(index);
        let above = self.above(index).map(|above| self.layers[above].seen);
        LayerScalarsLaunch {
            rows: step_rows(&problem.counts, &self.offsets, step, direction),
            saved_row: if layer.kind.save { offset as u32 } else { 0 },
            sizes: LayerSizesLaunch {
                input: vectors(sizes.d_input),
                hidden: vectors(sizes.d_hidden),
                adapt: vectors(sizes.d_adapt),
                policy: vectors(sizes.policy()),
                pair: vectors(layer.d_pair),
            },
            states: StatesRowLaunch {
                size: vectors(problem.state_size()),
                cell: vectors(problem.state_part(index, StatePart::Cell)),
                hidden_below: vectors(problem.state_part(below, StatePart::Hidden)),
            },
            biases: vectors(problem.bias_start(index)),
            policy: PolicyRowLaunch {
                preact_input: vectors(preact_input),
                preact_hidden: vectors(preact_hidden),
                preact_bias: vectors(preact_bias),
            },
            seen: SeenRowLaunch {
                size: vectors(layer.seen.size),
                hidden: vectors(layer.seen.hidden),
                above_size: vectors(above.map_or(0, |seen| seen.size)),
                above_z_below: vectors(above.map_or(0, |seen| seen.below)),
            },
            masks: LayerMasksLaunch {
                starts: Masks::from_fn(mask).into(),
                size: vectors(mask_sizes(MaskPlace::Cell).sum()),
                adapt_size: vectors(mask_sizes(MaskPlace::Adapt).sum()),
            },
            clip: sizes.clip,
            clip_adapt: sizes.clip_adapt,
        }
    }
}

impl<'a> LayerCall<'a> {
    fn new(
        problem: &'a AdaptiveProblem,
        tensors: &'a [CubeTensor],
        index: usize,
        save: bool,
    ) -> Self {
        let sizes = &problem.layers[index];
        let seen = seen(problem, index);
        let weight = |weight: Weight| &tensors[weight_index(index, weight)];
        let (d_input, width) = (sizes.d_input, 4 * sizes.d_hidden);
        let adapt_width = 4 * sizes.d_adapt;
        let like = weight(Weight::Input);

        let adapt_input = weight(Weight::AdaptInput);
        let split = if index == 0 { d_input } else { 0 };
        let from_seen = empty(like, [seen.size, adapt_width]);
        let count = seen.z * adapt_width;
        copy(adapt_input, split * adapt_width, &from_seen, 0, count);
        let recurrent = weight(Weight::AdaptHidden);
        copy(recurrent, 0, &from_seen, count, sizes.d_adapt * adapt_width);

        let d_pair = d_input.max(sizes.d_hidden);
        let mut pair = Vec::new();
        for (weight, rows) in [(Weight::Input, d_input), (Weight::Hidden, sizes.d_hidden)] {
            pair.push(tensors[weight_index(index, weight)].clone());
            if rows < d_pair {
                pair.push(zeros(like, [d_pair - rows, width]));
            }
        }
        Self {
            sizes,
            kind: LayerKind {
                first: index == 0,
                top: index + 1 == problem.layers.len(),
                stacked: problem.layers.len() > 1,
                bias: sizes.bias,
                clip: sizes.clip.is_finite(),
                clip_adapt: sizes.clip_adapt.is_finite(),
                masks: problem.masks.map(|_| ()),
                save,
            },
            seen,
            from_input: (index == 0).then(|| reshaped(adapt_input.clone(), [d_input, adapt_width])),
            from_seen,
            policy: weight(Weight::Policy),
            pair: reshaped(joined(pair), [2, d_pair, width]),
            d_pair,
        }
    }
}

/// A call without its tensors.
pub struct Sequence<'a>(pub &'a AdaptiveProblem);

impl CubeSequence for Sequence<'_> {
    fn saved_shapes(&self) -> Vec<[usize; 2]> {
        let layers = 0..self.0.layers.len();
        layers
            .flat_map(|layer| Saved::shapes(self.0, layer))
            .collect()
    }

    fn differentiable(&self, tensor: usize) -> bool {
        // Masks come last.
        tensor < weight_index(self.0.layers.len(), Weight::AdaptInput)
    }

    fn forward(&self, tensors: &[CubeTensor], save: bool) -> (CubeTensor, Vec<CubeTensor>) {
        let shapes = save.then(|| self.saved_shapes()).unwrap_or_default();
        forward::forward(&Call::new(self.0, tensors, save), &shapes)
    }

    fn backward(
        &self,
        tensors: &[CubeTensor],
        saved: &[CubeTensor],
        _output: &CubeTensor,
        grad: &CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        backward::backward(&Call::new(self.0, tensors, true), saved, grad, wanted)
    }
}

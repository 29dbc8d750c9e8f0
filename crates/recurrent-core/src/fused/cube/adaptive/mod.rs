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
//! and stands among what the adaptation cell sees. Nothing kept is overwritten.

mod backward;
mod forward;

use alloc::vec::Vec;

use burn_cubecl::tensor::CubeTensor;

use super::CubeSequence;
use super::buffer::{RowsOf, copy, empty, joined, nothing, reshaped, vector_size, zeros};
use super::pointwise::MaskKinds;
use super::pointwise::adaptive::{ADAPT_TAPE, LayerAtLaunch, LayerKind, TAPE};
use crate::equations::masks::MaskPlace;
use crate::fused::problem::adaptive::{
    BIASES, INPUT, Layer, Problem, STATES, StatePart, Weight, weight_index,
};

/// What the forward of a training step keeps of a layer, each for all rows.
struct Kept<'a>(&'a [CubeTensor]);

/// Tensors of [`Kept`].
const KEPT: usize = 7;

impl<'a> Kept<'a> {
    /// In this order, as everywhere below.
    fn shapes(problem: &Problem, index: usize) -> [[usize; 2]; KEPT] {
        let layer = &problem.layers[index];
        let features = [
            ADAPT_TAPE * layer.d_adapt,
            TAPE * layer.d_hidden,
            seen(problem, index).size,
            layer.d_adapt,
            layer.policy(),
            layer.d_input,
            layer.d_hidden,
        ];
        features.map(|features| [problem.rows(), features])
    }

    /// Of a layer.
    fn of(kept: &'a [CubeTensor], layer: usize) -> Self {
        Self(&kept[KEPT * layer..KEPT * (layer + 1)])
    }

    /// Of the adaptation cell.
    fn adapt_tape(&self) -> &'a CubeTensor {
        &self.0[0]
    }

    /// Of the cell.
    fn tape(&self) -> &'a CubeTensor {
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
fn seen(problem: &Problem, index: usize) -> Seen {
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
    /// W and R, filled up with rows of zeros `[2, K, 4H]`.
    pair: CubeTensor,
    /// K
    d_pair: usize,
}

/// A call: what both directions need.
struct Call<'a> {
    problem: &'a Problem,
    input: &'a CubeTensor,
    states: &'a CubeTensor,
    biases: &'a CubeTensor,
    layers: Vec<LayerCall<'a>>,
    /// All masks one after the other, and where each begins; in values.
    masks: CubeTensor,
    mask_starts: [usize; 6],
    /// Width of vectors of features.
    lanes: usize,
    offsets: Vec<usize>,
}

impl<'a> Call<'a> {
    fn new(problem: &'a Problem, tensors: &'a [CubeTensor], keep: bool) -> Self {
        let like = &tensors[INPUT];
        // One width for all: a kernel reads and writes features of several kinds.
        let of_layer = |layer: &Layer| [layer.d_input, layer.d_hidden, layer.d_adapt];
        let sizes: Vec<usize> = problem.layers.iter().flat_map(of_layer).collect();
        let mut given = tensors[weight_index(problem.layers.len(), Weight::AdaptInput)..].iter();
        let mut list = Vec::new();
        let mut start = 0;
        let mask_starts = MaskPlace::ALL.map(|mask| {
            let first = start;
            if problem.has(mask) {
                let mask = given.next().expect("as many masks as the problem has");
                start += mask.meta.num_elements();
                list.push(mask.clone());
            }
            first
        });
        let layer = |index| LayerCall::new(problem, tensors, index, keep);
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
        step: usize,
        index: usize,
        part: StatePart,
    ) -> Option<RowsOf<'t>> {
        let stride = self.problem.part_size(index, part);
        let first = self.problem.history(index, part)?;
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

    /// Where a layer is at a step.
    ///
    /// # Arguments
    /// * `other` - the first row of the step that it is tied to
    fn at(&self, step: usize, index: usize, other: usize) -> LayerAtLaunch {
        let problem = self.problem;
        let layer = &self.layers[index];
        let sizes = layer.sizes;
        let offset = self.offsets[step];
        let vectors = |values: usize| (values / self.lanes) as u32;
        let mask_sizes = |mask| {
            problem
                .layers
                .iter()
                .map(move |l| Problem::mask_size(l, mask))
        };
        let mask = |mask: MaskPlace| {
            let size: usize = mask_sizes(mask).sum();
            let below: usize = mask_sizes(mask).take(index).sum();
            let row = match problem.masks.get(mask) {
                Some(true) => offset,
                _ => 0,
            };
            vectors(self.mask_starts[mask as usize] + row * size + below)
        };
        let [_, _, preact_input, preact_hidden, preact_bias] = sizes.starts();
        let below = problem.below(index);
        let above = self.above(index).map(|above| self.layers[above].seen);
        let next_rows = problem.counts.get(step + 1).copied().unwrap_or(0);
        LayerAtLaunch::new(
            vectors(sizes.d_input),
            vectors(sizes.d_hidden),
            vectors(sizes.d_adapt),
            vectors(sizes.policy()),
            vectors(layer.d_pair),
            vectors(problem.state_size()),
            vectors(problem.state_part(index, StatePart::Cell)),
            vectors(problem.state_part(below, StatePart::Hidden)),
            vectors(problem.bias_start(index)),
            vectors(preact_input),
            vectors(preact_hidden),
            vectors(preact_bias),
            vectors(layer.seen.size),
            vectors(layer.seen.hidden),
            vectors(above.map_or(0, |seen| seen.size)),
            vectors(above.map_or(0, |seen| seen.below)),
            problem.counts[step] as u32,
            offset as u32,
            if layer.kind.keep { offset as u32 } else { 0 },
            other as u32,
            next_rows as u32,
            u32::from(step == 0),
            vectors(mask_sizes(MaskPlace::Cell).sum()),
            vectors(mask_sizes(MaskPlace::Adapt).sum()),
            mask(MaskPlace::Candidate),
            mask(MaskPlace::Cell),
            mask(MaskPlace::Hidden),
            mask(MaskPlace::UpdateCell),
            mask(MaskPlace::UpdateHidden),
            mask(MaskPlace::Adapt),
            sizes.clip,
            sizes.clip_adapt,
        )
    }
}

impl<'a> LayerCall<'a> {
    fn new(problem: &'a Problem, tensors: &'a [CubeTensor], index: usize, keep: bool) -> Self {
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
        let has = |mask| problem.has(mask);
        Self {
            sizes,
            kind: LayerKind {
                first: index == 0,
                top: index + 1 == problem.layers.len(),
                stacked: problem.layers.len() > 1,
                bias: sizes.bias,
                clip: sizes.clip.is_finite(),
                clip_adapt: sizes.clip_adapt.is_finite(),
                masks: MaskKinds {
                    candidate: has(MaskPlace::Candidate),
                    cell: has(MaskPlace::Cell),
                    hidden: has(MaskPlace::Hidden),
                    update_cell: has(MaskPlace::UpdateCell),
                    update_hidden: has(MaskPlace::UpdateHidden),
                },
                mask_adapt: has(MaskPlace::Adapt),
                keep,
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
pub struct Sequence<'a>(pub &'a Problem);

impl CubeSequence for Sequence<'_> {
    fn kept(&self) -> Vec<[usize; 2]> {
        let layers = 0..self.0.layers.len();
        layers
            .flat_map(|layer| Kept::shapes(self.0, layer))
            .collect()
    }

    fn differentiable(&self, tensor: usize) -> bool {
        // Masks come last.
        tensor < weight_index(self.0.layers.len(), Weight::AdaptInput)
    }

    fn forward(&self, tensors: &[CubeTensor], keep: bool) -> (CubeTensor, Vec<CubeTensor>) {
        let shapes = if keep { self.kept() } else { Vec::new() };
        forward::forward(&Call::new(self.0, tensors, keep), &shapes)
    }

    fn backward(
        &self,
        tensors: &[CubeTensor],
        kept: &[CubeTensor],
        _output: &CubeTensor,
        grad: &CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        backward::backward(&Call::new(self.0, tensors, true), kept, grad, wanted)
    }
}

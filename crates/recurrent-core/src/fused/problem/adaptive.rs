//! A call of the adaptive LSTM: its sizes and options, and the shape of each of its tensors.
//!
//! Layout of the output:
//! ```text
//! y [N, H] | c, h, m, z of each layer [B, Σ(2H + 2A)] | with histories: each of these [N, H] or [N, A]
//! ```
//! A history that equals y is not repeated.

use alloc::vec::Vec;

use super::{Expected, check_counts, offsets};
use crate::equations::masks::{MaskPlace, Masks};

/// Maximum number of layers, limited by the number of parents of an autodiff node.
pub const MAX_LAYERS: usize = 7;

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
    /// Bound of |c̃|; infinite if there is no clip.
    pub clip: f32,
    /// Bound of |m̃|, the adaptation cell's; infinite if there is no clip.
    pub clip_adapt: f32,
}

impl Layer {
    /// Features of a policy.
    pub fn policy(&self) -> usize {
        self.sizes().iter().sum()
    }

    /// Sizes of p_x, p_h, p_i, p_g, p_b.
    pub fn sizes(&self) -> [usize; 5] {
        let width = 4 * self.d_hidden;
        let bias = if self.bias { width } else { 0 };
        [self.d_input, self.d_hidden, width, width, bias]
    }

    /// Start offsets of the parts if they do not overlap.
    fn separate_starts(&self) -> [usize; 5] {
        let sizes = self.sizes();
        core::array::from_fn(|part| sizes[..part].iter().sum())
    }

    /// Start offsets of the parts in the policy.
    pub fn starts(&self) -> [usize; 5] {
        let sizes = self.sizes();
        match self.overlapping {
            false => self.separate_starts(),
            true => core::array::from_fn(|part| if part == 0 { 0 } else { sizes[part - 1] }),
        }
    }

    /// Features of c, h, m and z together.
    fn state(&self) -> usize {
        2 * (self.d_hidden + self.d_adapt)
    }

    /// Number of bias values.
    fn biases(&self) -> usize {
        4 * self.d_adapt + if self.bias { 4 * self.d_hidden } else { 0 }
    }
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

/// Number of weights per layer.
pub const WEIGHTS: usize = 5;

impl Weight {
    /// All weights, in order.
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
    /// All parts, in order.
    pub const ALL: [Self; 4] = [Self::Cell, Self::Hidden, Self::AdaptCell, Self::Z];
}

/// The tensors of a call, as a list: x `[N, I]`, the states `[B, Σ(2H + 2A)]`, the biases (b_a `[4A]`
/// and b `[4H]` of each layer), the [`Weight`]s of each layer, then the masks that are present.
#[derive(Debug, Clone, Copy)]
pub struct Tensors<'a>(pub &'a [&'a [f32]]);

/// Index of x in the list.
pub const INPUT: usize = 0;

/// Index of the states.
pub const STATES: usize = 1;

/// Index of the biases.
pub const BIASES: usize = 2;

/// Index of a weight.
pub fn weight_index(layer: usize, weight: Weight) -> usize {
    BIASES + 1 + WEIGHTS * layer + weight as usize
}

/// The sizes and options of a call, without its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveProblem {
    /// First to last.
    pub layers: Vec<Layer>,
    /// Number of rows of each step, non-increasing.
    pub counts: Vec<usize>,
    /// For each mask present, whether it has a row per step and sequence; otherwise it has one per
    /// sequence. A row has the features of all layers.
    pub masks: Masks<bool>,
    /// Whether the states after all rows are part of the output.
    pub histories: bool,
}

impl AdaptiveProblem {
    /// N: total number of rows of all steps.
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

    /// Offset of a layer's c in the states; h, m and z follow.
    pub fn state_start(&self, layer: usize) -> usize {
        self.layers[..layer].iter().map(Layer::state).sum()
    }

    /// Offset of a part of a layer's state in the states.
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

    /// Offset of a layer's b_a in the biases; b follows.
    pub fn bias_start(&self, layer: usize) -> usize {
        self.layers[..layer].iter().map(Layer::biases).sum()
    }

    /// Features of a layer's z_below; 0 if it has none.
    pub fn d_below(&self, layer: usize) -> usize {
        match self.layers.len() {
            1 => 0,
            _ => self.layers[self.below(layer)].d_adapt,
        }
    }

    /// The layer whose z is the z_below of a layer.
    pub fn below(&self, layer: usize) -> usize {
        layer.checked_sub(1).unwrap_or(self.layers.len() - 1)
    }

    /// Features of the input of an adaptation cell.
    pub fn d_seen(&self, layer: usize) -> usize {
        let Layer {
            d_input, d_hidden, ..
        } = self.layers[layer];
        d_input + d_hidden + self.d_below(layer)
    }

    /// Whether a mask is present.
    pub fn has(&self, mask: MaskPlace) -> bool {
        self.masks.get(mask).is_some()
    }

    /// Features of a layer's part of a mask.
    pub fn mask_size(layer: &Layer, mask: MaskPlace) -> usize {
        match mask {
            MaskPlace::Adapt => layer.d_adapt,
            _ => layer.d_hidden,
        }
    }

    /// The first row of each step, and last the total number of rows.
    pub fn offsets(&self) -> Vec<usize> {
        offsets(&self.counts)
    }

    /// The last step of sequence b.
    pub fn last_step(&self, b: usize) -> usize {
        self.counts.partition_point(|&count| count > b) - 1
    }
}

impl Weight {
    /// The name that the cell uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdaptInput => "weight_input of the adaptation cell",
            Self::AdaptHidden => "weight_hidden of the adaptation cell",
            Self::Policy => "policy projection",
            Self::Input => "weight_input",
            Self::Hidden => "weight_hidden",
        }
    }
}

impl AdaptiveProblem {
    /// The shape of a weight of a layer.
    pub fn expected_weight(&self, layer: usize, weight: Weight) -> Expected {
        let sizes = &self.layers[layer];
        let (d_input, d_hidden, d_adapt) = (sizes.d_input, sizes.d_hidden, sizes.d_adapt);
        match weight {
            Weight::AdaptInput => Expected::new(
                "[d_input + d_hidden + features of the z below, 4·d_adapt]",
                [self.d_seen(layer), 4 * d_adapt],
            ),
            Weight::AdaptHidden => Expected::new("[d_adapt, 4·d_adapt]", [d_adapt, 4 * d_adapt]),
            Weight::Policy => {
                Expected::new("[d_adapt, features of a policy]", [d_adapt, sizes.policy()])
            }
            Weight::Input => Expected::new("[d_input, 4·d_hidden]", [d_input, 4 * d_hidden]),
            Weight::Hidden => Expected::new("[d_hidden, 4·d_hidden]", [d_hidden, 4 * d_hidden]),
        }
    }

    /// The shape of the rows of the input.
    pub fn expected_input(&self) -> Expected {
        let dims = [self.rows(), self.layers[0].d_input];
        Expected::new("[steps of all sequences, d_input]", dims)
    }

    /// The shape of a mask that is present.
    pub fn expected_mask(&self, mask: MaskPlace) -> Expected {
        let features = self.layers.iter();
        let features = features.map(|layer| Self::mask_size(layer, mask)).sum();
        match self.masks.get(mask) {
            Some(true) => Expected::new(
                "[steps of all sequences, features of all layers]",
                [self.rows(), features],
            ),
            _ => Expected::new(
                "[batch_size, features of all layers]",
                [self.batch_size(), features],
            ),
        }
    }

    /// Checks that the sizes of the layers are consistent.
    ///
    /// # Panics
    /// If there is no layer, or one does not match the layer below.
    #[track_caller]
    pub fn check_sizes(&self) {
        check_counts(&self.counts);
        assert!(
            !self.layers.is_empty(),
            "there is no layer, expected at least 1"
        );
        for (index, pair) in self.layers.windows(2).enumerate() {
            assert!(
                pair[1].d_input == pair[0].d_hidden,
                "layer {} has d_input {}, expected d_hidden of layer {index} = {}",
                index + 1,
                pair[1].d_input,
                pair[0].d_hidden,
            );
        }
    }

    /// Checks the lengths of the tensors passed to a CPU kernel.
    ///
    /// # Panics
    /// If their number or the length of one does not match the problem.
    #[track_caller]
    pub fn check_slices(&self, tensors: Tensors<'_>) {
        self.check_sizes();
        let mut expected = alloc::vec![
            ("input", self.expected_input()),
            (
                "states",
                Expected::new(
                    "[batch_size, features of all states]",
                    [self.batch_size(), self.state_size()],
                ),
            ),
            (
                "biases",
                Expected::new(
                    "[values of all biases]",
                    [self.bias_start(self.layers.len())]
                ),
            ),
        ];
        for layer in 0..self.layers.len() {
            let weights =
                Weight::ALL.map(|weight| (weight.name(), self.expected_weight(layer, weight)));
            expected.extend(weights);
        }
        let masks = self.masks.iter();
        expected.extend(masks.map(|(place, _)| (place.name(), self.expected_mask(place))));
        let lengths: Vec<usize> = tensors.0.iter().map(|tensor| tensor.len()).collect();
        assert!(
            lengths.len() == expected.len(),
            "got {} tensors, expected {}",
            lengths.len(),
            expected.len(),
        );
        for ((name, expected), len) in expected.into_iter().zip(lengths) {
            expected.check_len(name, len);
        }
    }
}

impl AdaptiveProblem {
    /// Length of the output: y of all rows, the final states of each sequence, then with histories the
    /// parts of the states after all rows, concatenated.
    pub fn output_len(&self) -> usize {
        let features = match self.histories {
            true => self.state_size() - self.in_output(),
            false => 0,
        };
        self.histories_start() + self.rows() * features
    }

    /// Offset in the output of a part of a layer's state after all rows; `None` if the output does not
    /// contain it, or contains it as y.
    pub fn history(&self, layer: usize, part: StatePart) -> Option<usize> {
        if !self.histories || self.is_output(layer, part) {
            return None;
        }
        let before = match part {
            // Follows the h' that is y.
            StatePart::AdaptCell | StatePart::Z if self.is_output(layer, StatePart::Hidden) => {
                self.in_output()
            }
            _ => 0,
        };
        let features = self.state_part(layer, part) - before;
        Some(self.histories_start() + self.rows() * features)
    }

    /// Whether a part of a layer's state equals y: h' of the top layer, if it has no mask.
    pub fn is_output(&self, layer: usize, part: StatePart) -> bool {
        let top = layer + 1 == self.layers.len();
        top && matches!(part, StatePart::Hidden) && !self.has(MaskPlace::Hidden)
    }

    /// Features of the states that are contained in y.
    fn in_output(&self) -> usize {
        match self.has(MaskPlace::Hidden) {
            true => 0,
            false => self.d_output(),
        }
    }

    /// Offset of the states after all rows in the output.
    fn histories_start(&self) -> usize {
        self.rows() * self.d_output() + self.batch_size() * self.state_size()
    }
}

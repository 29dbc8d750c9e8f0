//! A cell as data for a kernel: weights and options, without the tensors of a call.

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::adaptive::Weight;
use super::{Axes, Coupling, Expected, GruSpec, Key, Part, RoundPart, adaptive, lstm};
use crate::equations::layer_norm::NormWeights;
use crate::equations::masks::Masks;

/// A cell in the form that a fused kernel takes.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one per call
pub enum FusedSpec {
    /// A cell of the LSTM family, whose state is (c, h).
    Lstm(LstmSpec),
    /// A GRU, whose state is h.
    Gru(GruSpec),
    /// All layers of an adaptive LSTM, whose state is (c, h, m, z) of each layer.
    Adaptive(AdaptiveSpec),
}

impl FusedSpec {
    /// Checks the shapes of the weights.
    ///
    /// # Panics
    /// If a weight does not have the shape that the cell's sizes imply.
    #[track_caller]
    pub fn check(&self) {
        match self {
            Self::Lstm(spec) => spec.check(),
            Self::Gru(spec) => spec.check(),
            Self::Adaptive(spec) => spec.check(),
        }
    }
}

/// A cell of the LSTM family. The equations are those of
/// [`Preactivation`](crate::cell::Preactivation) and [`Transition`](crate::cell::Transition), the gates in
/// the order of [`Coupling::layout`].
#[derive(Debug, Clone)]
pub struct LstmSpec {
    /// How i and f are computed from the gates.
    pub coupling: Coupling,
    /// W `[I, G·H]`
    pub weight_input: Tensor<2>,
    /// b_x `[G·H]`
    pub bias_input: Option<Tensor<1>>,
    /// LN_x
    pub norm_input: Option<NormWeights>,
    /// R `[d_output, G·H]`
    pub weight_hidden: Tensor<2>,
    /// b_h `[G·H]`
    pub bias_hidden: Option<Tensor<1>>,
    /// LN_h
    pub norm_hidden: Option<NormWeights>,
    /// b `[G·H]`, after the normalisations
    pub bias: Option<Tensor<1>>,
    /// Added to the forget gate's pre-activation.
    pub forget_bias: Option<ForgetBias>,
    /// Peepholes.
    pub peepholes: Peepholes,
    /// Rounds of the Mogrifier; only without normalisations of the pre-activations.
    pub rounds: Vec<RoundSpec>,
    /// Bounds |c̃|.
    pub clip: Option<f64>,
    /// LN_c
    pub norm_cell: Option<NormWeights>,
    /// Whether the normalised cell is carried.
    pub carry_normalized: bool,
    /// P `[H, d_proj]`
    pub projection: Option<Tensor<2>>,
}

impl LstmSpec {
    /// H
    pub fn d_hidden(&self) -> usize {
        self.weight_input.dims()[1] / self.coupling.gates()
    }

    /// Features of h.
    pub fn d_output(&self) -> usize {
        match &self.projection {
            Some(projection) => projection.dims()[1],
            None => self.d_hidden(),
        }
    }

    /// The sizes and options of a call of this cell, without masks.
    pub fn problem(&self, counts: Vec<usize>) -> lstm::LstmProblem {
        let form = |norm: &Option<NormWeights>| norm.as_ref().map(|norm| norm.normalizer);
        let rank = |round: &RoundSpec| round.right.is_some().then(|| round.matrix.dims()[1]);
        lstm::LstmProblem {
            d_input: self.weight_input.dims()[0],
            d_hidden: self.d_hidden(),
            d_output: self.d_output(),
            coupling: self.coupling,
            counts,
            order: None,
            clip: bound(self.clip),
            norm_input: form(&self.norm_input),
            norm_hidden: form(&self.norm_hidden),
            norm_cell: form(&self.norm_cell),
            carry_normalized: self.carry_normalized,
            output_sees_new: self.peepholes.output_sees_new,
            forget_bias_tied: self.forget_bias.as_ref().is_some_and(|bias| bias.tied),
            masks: Masks::none(),
            histories: false,
            bf16: false,
            rounds: self.rounds.iter().map(rank).collect(),
        }
    }

    /// # Panics
    /// As [`FusedSpec::check`].
    #[track_caller]
    pub fn check(&self) {
        let problem = self.problem(vec![1]);
        let mut wrong = None;
        self.each_shape(&mut |key, dims| {
            let mismatch = || problem.expected(key, true).mismatch(key, dims);
            wrong = wrong.take().or_else(mismatch);
        });
        // Outside the closure, which has no access to the caller's location.
        if let Some(text) = wrong {
            panic!("{text}");
        }
        if let Some(ForgetBias { bias, .. }) = &self.forget_bias {
            let expected = Expected::new("[d_hidden]", [problem.d_hidden]);
            expected.check("forget bias", bias.dims());
        }
    }

    /// Calls `f` with the name and the shape of each weight.
    fn each_shape(&self, f: &mut dyn FnMut(Key, Axes)) {
        let mut matrix = |key: Key, m: Option<&Tensor<2>>| {
            if let Some(m) = m {
                f(key, m.dims().into());
            }
        };
        matrix(Part::WeightInput.into(), Some(&self.weight_input));
        matrix(Part::WeightHidden.into(), Some(&self.weight_hidden));
        matrix(Part::Projection.into(), self.projection.as_ref());
        matrix(Part::PeepholeFull.into(), self.peepholes.full.as_ref());
        for (index, round) in self.rounds.iter().enumerate() {
            matrix(Key::Round(index, RoundPart::Matrix), Some(&round.matrix));
            matrix(Key::Round(index, RoundPart::Right), round.right.as_ref());
        }
        let mut vector = |key: Key, v: &Option<Tensor<1>>| {
            if let Some(v) = v {
                f(key, v.dims().into());
            }
        };
        vector(Part::Bias.into(), &self.bias);
        vector(Part::BiasInput.into(), &self.bias_input);
        vector(Part::BiasHidden.into(), &self.bias_hidden);
        for (norm, gain, shift) in [
            (&self.norm_input, Part::NormInputGain, Part::NormInputShift),
            (
                &self.norm_hidden,
                Part::NormHiddenGain,
                Part::NormHiddenShift,
            ),
            (&self.norm_cell, Part::NormCellGain, Part::NormCellShift),
        ] {
            if let Some(norm) = norm {
                vector(gain.into(), &norm.gain);
                vector(shift.into(), &norm.shift);
            }
        }
        let [first, second] = &self.peepholes.mixing;
        vector(Part::PeepholeFirst.into(), first);
        vector(Part::PeepholeSecond.into(), second);
        vector(Part::PeepholeOutput.into(), &self.peepholes.output);
        for (index, round) in self.rounds.iter().enumerate() {
            vector(Key::Round(index, RoundPart::Bias), &round.bias);
        }
    }
}

/// The bound of a clip; infinite if there is none.
fn bound(clip: Option<f64>) -> f32 {
    clip.map_or(f32::INFINITY, |clip| clip as f32)
}

/// A bias of the forget gate only.
#[derive(Debug, Clone)]
pub struct ForgetBias {
    /// `[H]`
    pub bias: Tensor<1>,
    /// Whether it is also subtracted from the refine gate's pre-activation.
    pub tied: bool,
}

/// Peepholes of a cell: either all diagonal, or all full and on c.
#[derive(Debug, Clone, Default)]
pub struct Peepholes {
    /// v of the mixing gates, in packed order, each `[H]`.
    pub mixing: [Option<Tensor<1>>; 2],
    /// v_o `[H]`
    pub output: Option<Tensor<1>>,
    /// Whether the output gate reads c̃ (otherwise c).
    pub output_sees_new: bool,
    /// V of all gates on c `[H, G·H]`.
    pub full: Option<Tensor<2>>,
}

/// A round of the Mogrifier.
#[derive(Debug, Clone)]
pub struct RoundSpec {
    /// M `[from, to]`, or its left factor `[from, rank]`
    pub matrix: Tensor<2>,
    /// Its right factor `[rank, to]`
    pub right: Option<Tensor<2>>,
    /// `[to]`
    pub bias: Option<Tensor<1>>,
}

/// The layers of an adaptive LSTM, first to last: 1 to 7.
#[derive(Debug, Clone)]
pub struct AdaptiveSpec {
    /// First to last.
    pub layers: Vec<AdaptiveLayerSpec>,
}

/// A layer of an adaptive LSTM: the cell, the adaptation cell and the policy.
#[derive(Debug, Clone)]
pub struct AdaptiveLayerSpec {
    /// W `[I, 4H]`
    pub weight_input: Tensor<2>,
    /// R `[H, 4H]`
    pub weight_hidden: Tensor<2>,
    /// b `[4H]`
    pub bias: Option<Tensor<1>>,
    /// Bounds |c̃|.
    pub clip: Option<f64>,
    /// W_a `[I + H + features of z_below, 4A]`
    pub adapt_input: Tensor<2>,
    /// R_a `[A, 4A]`
    pub adapt_hidden: Tensor<2>,
    /// Biases of the adaptation cell, each `[4A]`; they are summed.
    pub adapt_biases: Vec<Tensor<1>>,
    /// Bounds |m̃|.
    pub adapt_clip: Option<f64>,
    /// P `[A, features of a policy]`
    pub policy: Tensor<2>,
    /// Whether the parts of the policy overlap, as in the published code.
    pub overlapping: bool,
}

impl AdaptiveSpec {
    /// The sizes and options of a call of these layers, without masks.
    pub fn problem(&self, counts: Vec<usize>) -> adaptive::AdaptiveProblem {
        adaptive::AdaptiveProblem {
            layers: self.layers.iter().map(AdaptiveLayerSpec::sizes).collect(),
            counts,
            masks: Masks::none(),
            histories: false,
        }
    }

    /// # Panics
    /// As [`FusedSpec::check`].
    #[track_caller]
    pub fn check(&self) {
        let problem = self.problem(vec![1]);
        problem.check_sizes();
        for (index, (layer, sizes)) in self.layers.iter().zip(&problem.layers).enumerate() {
            for (weight, tensor) in layer.weights() {
                let expected = problem.expected_weight(index, weight);
                expected.check(
                    format_args!("{} of layer {index}", weight.name()),
                    tensor.dims(),
                );
            }
            let of_adapt = layer.adapt_biases.iter();
            let of_adapt = of_adapt.map(|b| ("bias of the adaptation cell", b, sizes.d_adapt));
            let of_cell = layer.bias.iter().map(|b| ("bias", b, sizes.d_hidden));
            for (name, bias, units) in of_cell.chain(of_adapt) {
                let expected = Expected::new("[4·units]", [4 * units]);
                expected.check(format_args!("{name} of layer {index}"), bias.dims());
            }
        }
    }
}

impl AdaptiveLayerSpec {
    /// The sizes and options of the layer, without its tensors.
    fn sizes(&self) -> adaptive::Layer {
        let [d_input, width] = self.weight_input.dims();
        adaptive::Layer {
            d_input,
            d_hidden: width / 4,
            d_adapt: self.policy.dims()[0],
            bias: self.bias.is_some(),
            overlapping: self.overlapping,
            clip: bound(self.clip),
            clip_adapt: bound(self.adapt_clip),
        }
    }

    /// The weights, in the order of a kernel's list.
    pub fn weights(&self) -> [(Weight, &Tensor<2>); 5] {
        [
            (Weight::AdaptInput, &self.adapt_input),
            (Weight::AdaptHidden, &self.adapt_hidden),
            (Weight::Policy, &self.policy),
            (Weight::Input, &self.weight_input),
            (Weight::Hidden, &self.weight_hidden),
        ]
    }
}

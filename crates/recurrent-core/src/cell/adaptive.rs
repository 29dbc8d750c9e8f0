//! One step of the adaptive LSTM (aLSTM): see [`crate::equations::adaptive`].
//!
//! ```text
//! z = LN_x((x ⊙ p_x)·W) ⊙ p_i + LN_h((h ⊙ p_h)·R) ⊙ p_g + b ⊙ p_b     then as in lstm.rs
//! ```
//! [`AdaptiveLstmStep`] takes the policy p as an argument. [`AdaptiveLayersStep`] makes it, with a
//! small LSTM per layer, the adaptation cell:
//! ```text
//! layer l at step t     z_l, m_l = LSTM([x, h_l, z_below], (z_l, m_l))     p = tanh(z_l·P_l)
//!                       h_l, c_l = cell(x, (h_l, c_l), p)                  x of layer l + 1 = h_l
//! z_below               z_{l−1} of this step; for layer 0 that of the top layer at the last step
//! dropout               z_l and h_l are masked before they are used; only the output is the h of
//!                       the last layer before its dropout mask
//! ```
//! where a single layer has no z_below. Layer 0 reads the previous step of the top layer, so the layers
//! advance together, and all of them form one [`Step`].

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Display;
use core::ops::Range;

use burn::nn::LstmState;
use burn::tensor::Tensor;
use burn::tensor::activation::tanh;

use super::lstm::LstmStep;
use super::preactivation::normalized;
use super::{CallType, Preactivation, Step, Transition, VisitWeight, empty_output_of, or_panic};
use crate::equations::adaptive::{Policy, PolicyLayout};
use crate::equations::dropout::{MaskPlace, MaskSizes, StepMasks, apply, zoneout};
use crate::equations::lstm::{Gates, gates};
use crate::fused::problem::adaptive::MAX_LAYERS;
use crate::fused::problem::{AdaptiveLayerSpec, AdaptiveSpec, FusedSpec, Unfused};
use crate::state::State;

/// Weights of an adaptive LSTM cell for one call, gates in the order of
/// [`GateLayout::LSTM`](crate::GateLayout::LSTM).
#[derive(Debug, Clone)]
pub struct AdaptiveLstmStep {
    /// W, R, b and their normalisations.
    pub preact: Preactivation,
    /// What is applied after the gates.
    pub transition: Transition,
    /// Where the parts of a policy are in its vector.
    pub policy_layout: PolicyLayout,
}

impl AdaptiveLstmStep {
    /// I
    pub fn d_input(&self) -> usize {
        self.preact.d_input()
    }

    /// H
    pub fn d_hidden(&self) -> usize {
        self.preact.width() / 4
    }

    /// Features of h: H, or the size of the projection.
    pub fn d_output(&self) -> usize {
        self.transition.d_output(self.d_hidden())
    }

    /// Visits the weights, see [`Step::visit_weights`]; each name gets the prefix `prefix`.
    pub fn visit_weights(&self, prefix: &dyn Display, visit: &mut VisitWeight<'_>) {
        self.preact.visit_weights(prefix, visit);
        self.transition.visit_weights(prefix, visit);
    }

    /// Features of a policy.
    pub fn policy_size(&self) -> usize {
        let bias = self.preact.bias.is_some();
        PolicyLayout::size(self.d_input(), self.d_hidden(), self.d_output(), bias)
    }

    /// One step with a given policy.
    ///
    /// # Shapes
    /// - input `[batch_size, d_input]`, policy `[batch_size, policy_size]`
    /// - output `[batch_size, d_output]`: the new h before its dropout mask
    ///
    /// # Panics
    /// If the policy has a wrong number of features.
    #[track_caller]
    pub fn step(
        &self,
        input: Tensor<2>,
        policy: Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> (Tensor<2>, LstmState<2>) {
        let preact = &self.preact;
        let Policy {
            input: p_x,
            hidden: p_h,
            preact_input: p_i,
            preact_hidden: p_g,
            bias: p_b,
        } = self.policy_layout.split(
            policy,
            self.d_input(),
            self.d_hidden(),
            self.d_output(),
            preact.bias.is_some(),
        );
        let from_input = normalized(&preact.norm_input, preact.input.forward(input * p_x));
        let from_hidden = preact.from_hidden(state.hidden.clone() * p_h);
        let z = from_input * p_i + from_hidden * p_g;
        let z = match (&preact.bias, p_b) {
            (Some(bias), Some(p_b)) => z + p_b * bias.clone().unsqueeze(),
            _ => z,
        };
        let Gates {
            input: i,
            forget: f,
            candidate: g,
            output: o,
        } = gates(z);

        // The masks on h are applied here, after the transition, because the h before dropout is needed
        // too.
        let before = state.hidden.clone();
        let on_cell = StepMasks {
            hidden: None,
            update_hidden: None,
            ..masks.clone()
        };
        let LstmState { cell, hidden } = self.transition.advance(f, i, g, |_| o, state, &on_cell);
        let output = zoneout(&masks.update_hidden, hidden.clone(), before.clone());
        let hidden = match masks.hidden {
            Some(_) => zoneout(&masks.update_hidden, apply(&masks.hidden, hidden), before),
            None => output.clone(),
        };
        (output, LstmState { cell, hidden })
    }

    /// [`step`](Self::step) without dropout; checks all sizes and types.
    ///
    /// # Panics
    /// If `input` is not `[batch_size, d_input]`, the policy is not `[batch_size, policy_size]`, the
    /// state has a different batch size or wrong sizes, or the tensors and the weights do not share one
    /// element type.
    #[track_caller]
    pub fn step_once(
        &self,
        input: Tensor<2>,
        policy: Tensor<2>,
        state: LstmState<2>,
    ) -> (Tensor<2>, LstmState<2>) {
        let [batch_size, features] = input.dims();
        assert!(
            features == self.d_input(),
            "input has inconsistent d_input: got {features}, expected {}",
            self.d_input(),
        );
        let expected = [batch_size, self.policy_size()];
        let got = policy.dims();
        assert!(
            got == expected,
            "policy has shape {got:?}, expected [batch_size, policy_size] = {expected:?}",
        );
        for (name, got, features) in [
            ("cell", state.cell.dims(), self.d_hidden()),
            ("hidden", state.hidden.dims(), self.d_output()),
        ] {
            assert!(
                got == [batch_size, features],
                "state `{name}` has shape {got:?}, expected [batch_size, features] = \
                 [{batch_size}, {features}]",
            );
        }
        let weights = |visit: &mut VisitWeight<'_>| self.visit_weights(&"", visit);
        let call = or_panic(CallType::of(input.dtype(), weights));
        for (name, dtype) in [
            ("policy", policy.dtype()),
            ("state `cell`", state.cell.dtype()),
            ("state `hidden`", state.hidden.dtype()),
        ] {
            or_panic(call.check(format_args!("{name}"), dtype));
        }
        if batch_size == 0 {
            let output = empty_output_of(&input, &state, weights, [0, self.d_output()]);
            return (output, state);
        }
        self.step(input, policy, state, &StepMasks::default())
    }
}

/// One layer of an aLSTM for one call.
#[derive(Debug, Clone)]
pub struct AdaptiveLayerStep {
    /// The adaptation cell, on `[x, h, z_below]`.
    pub adapt: LstmStep,
    /// P `[A, policy_size]`
    pub policy_projection: Tensor<2>,
    /// The cell that the policy scales.
    pub cell: AdaptiveLstmStep,
}

impl AdaptiveLayerStep {
    /// A: units of the adaptation cell.
    pub fn d_adapt(&self) -> usize {
        self.policy_projection.dims()[0]
    }

    fn lowered(&self) -> AdaptiveLayerSpec {
        let AdaptiveLstmStep {
            preact,
            transition,
            policy_layout,
        } = &self.cell;
        let adapt = &self.adapt.preact;
        let adapt_biases = [&adapt.bias, &adapt.input.bias, &adapt.hidden.bias];
        AdaptiveLayerSpec {
            weight_input: preact.input.weight.clone(),
            weight_hidden: preact.hidden.weight.clone(),
            bias: preact.bias.clone(),
            clip: transition.clip,
            adapt_input: adapt.input.weight.clone(),
            adapt_hidden: adapt.hidden.weight.clone(),
            adapt_biases: adapt_biases.into_iter().flatten().cloned().collect(),
            adapt_clip: self.adapt.transition.clip,
            policy: self.policy_projection.clone(),
            overlapping: *policy_layout == PolicyLayout::Overlapping,
        }
    }
}

/// All layers of an aLSTM for one call: the step of the whole model.
///
/// The masks of a call cover all layers: the features of the layers are concatenated, first to last.
#[derive(Debug, Clone)]
pub struct AdaptiveLayersStep {
    /// First to last.
    pub layers: Vec<AdaptiveLayerStep>,
    /// Whether each layer but the first adds its input to what it passes up and puts out.
    pub residual: bool,
}

/// The state of all layers of an aLSTM.
///
/// As a list of tensors: for each layer the cell's c and h, then the adaptation cell's c and h.
#[derive(Debug, Clone)]
pub struct AdaptiveState {
    /// (c, h) of each layer's cell.
    pub main: Vec<LstmState<2>>,
    /// (m, z) of each layer's adaptation cell.
    pub adapt: Vec<LstmState<2>>,
}

impl State for AdaptiveState {
    fn into_tensors(self) -> Vec<Tensor<2>> {
        self.main
            .into_iter()
            .zip(self.adapt)
            .flat_map(|(main, adapt)| [main.cell, main.hidden, adapt.cell, adapt.hidden])
            .collect()
    }

    fn from_tensors(tensors: Vec<Tensor<2>>) -> Self {
        assert!(
            !tensors.is_empty() && tensors.len().is_multiple_of(4),
            "an adaptive LSTM state has 4 tensors per layer, got {}",
            tensors.len(),
        );
        let (mut main, mut adapt) = (Vec::new(), Vec::new());
        let mut tensors = tensors.into_iter();
        while let (Some(cell), Some(hidden), Some(adapt_cell), Some(adapt_hidden)) = (
            tensors.next(),
            tensors.next(),
            tensors.next(),
            tensors.next(),
        ) {
            main.push(LstmState { cell, hidden });
            adapt.push(LstmState {
                cell: adapt_cell,
                hidden: adapt_hidden,
            });
        }
        Self { main, adapt }
    }
}

/// The column ranges of pieces of these sizes when they are concatenated.
fn columns_of(sizes: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    sizes
        .scan(0, |start, size| {
            let range = *start..*start + size;
            *start = range.end;
            Some(range)
        })
        .collect()
}

/// These columns of a mask.
fn columns(mask: &Tensor<2>, range: &Range<usize>) -> Tensor<2> {
    let [rows, _] = mask.dims();
    mask.clone().slice([0..rows, range.clone()])
}

impl AdaptiveLayersStep {
    /// Whether the kernel knows the options of the layers.
    fn check_kernel(&self) -> Result<(), Unfused> {
        if self.residual {
            return Err(Unfused::Cell(
                "an adaptive LSTM with residual connections between its layers",
            ));
        }
        if self.layers.len() > MAX_LAYERS {
            return Err(Unfused::Cell("an adaptive LSTM of more than 7 layers"));
        }
        let normed = |preact: &Preactivation, transition: &Transition| {
            let norms = [&preact.norm_input, &preact.norm_hidden];
            norms.iter().any(|norm| norm.is_some()) || transition.norm_cell.is_some()
        };
        for layer in &self.layers {
            let (preact, transition) = (&layer.cell.preact, &layer.cell.transition);
            if normed(preact, transition) {
                return Err(Unfused::Cell("an adaptive LSTM with layer normalisation"));
            }
            if transition.projection.is_some() {
                return Err(Unfused::Cell("an adaptive LSTM with a projection"));
            }
            if preact.input.bias.is_some() || preact.hidden.bias.is_some() {
                return Err(Unfused::Cell(
                    "an adaptive LSTM with biases that p_i and p_g scale",
                ));
            }
            let adapt = &layer.adapt;
            if normed(&adapt.preact, &adapt.transition) || adapt.transition.projection.is_some() {
                return Err(Unfused::Cell(
                    "an adaptive LSTM whose adaptation cells have a normalisation or a projection",
                ));
            }
        }
        Ok(())
    }

    fn last(&self) -> &AdaptiveLstmStep {
        &self.layers[self.layers.len() - 1].cell
    }

    /// The masks of each layer: those of its cell and those of its adaptation cell.
    fn split(&self, masks: &StepMasks) -> Vec<(StepMasks, StepMasks)> {
        let cells = columns_of(self.layers.iter().map(|layer| layer.cell.d_hidden()));
        let hiddens = columns_of(self.layers.iter().map(|layer| layer.cell.d_output()));
        let adapts = columns_of(self.layers.iter().map(AdaptiveLayerStep::d_adapt));
        cells
            .iter()
            .zip(&hiddens)
            .zip(&adapts)
            .map(|((cell, hidden), adapt)| {
                let main = StepMasks::from_fn(|place| {
                    let columns_of = match place {
                        MaskPlace::Adapt => return None,
                        MaskPlace::Hidden | MaskPlace::UpdateHidden => hidden,
                        _ => cell,
                    };
                    Some(columns(masks.get(place)?, columns_of))
                });
                let adapt = StepMasks {
                    hidden: masks.adapt.as_ref().map(|mask| columns(mask, adapt)),
                    ..StepMasks::default()
                };
                (main, adapt)
            })
            .collect()
    }
}

impl Step for AdaptiveLayersStep {
    type State = AdaptiveState;

    fn d_input(&self) -> usize {
        self.layers[0].cell.d_input()
    }

    fn d_hidden(&self) -> usize {
        self.last().d_hidden()
    }

    fn d_output(&self) -> usize {
        self.last().d_output()
    }

    fn mask_sizes(&self) -> MaskSizes {
        let sum = |size: fn(&AdaptiveLayerStep) -> usize| self.layers.iter().map(size).sum();
        MaskSizes {
            cell: sum(|layer| layer.cell.d_hidden()),
            hidden: sum(|layer| layer.cell.d_output()),
            adapt: sum(AdaptiveLayerStep::d_adapt),
            has_cell_state: true,
        }
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        self.layers
            .iter()
            .flat_map(|layer| {
                [
                    ("main cell", layer.cell.d_hidden()),
                    ("main hidden", layer.cell.d_output()),
                    ("adapt cell", layer.d_adapt()),
                    ("adapt hidden", layer.d_adapt()),
                ]
            })
            .collect()
    }

    fn recurrent_weights(&mut self) -> Vec<&mut Tensor<2>> {
        self.layers
            .iter_mut()
            .flat_map(|layer| {
                [
                    &mut layer.cell.preact.hidden.weight,
                    &mut layer.adapt.preact.hidden.weight,
                ]
            })
            .collect()
    }

    fn visit_weights(&self, visit: &mut VisitWeight<'_>) {
        for (index, layer) in self.layers.iter().enumerate() {
            let AdaptiveLayerStep {
                adapt,
                policy_projection,
                cell,
            } = layer;
            let prefix = format_args!("layers[{index}].adapt.");
            adapt.preact.visit_weights(&prefix, visit);
            adapt.transition.visit_weights(&prefix, visit);
            visit(
                format_args!("layers[{index}].policy_projection"),
                policy_projection.into(),
            );
            cell.visit_weights(&format_args!("layers[{index}].cell."), visit);
        }
    }

    fn lower(&self) -> Result<FusedSpec, Unfused> {
        self.check_kernel()?;
        let layers = self.layers.iter().map(AdaptiveLayerStep::lowered).collect();
        Ok(FusedSpec::Adaptive(AdaptiveSpec { layers }))
    }

    fn step(
        &self,
        input: Tensor<2>,
        state: AdaptiveState,
        masks: &StepMasks,
    ) -> (Tensor<2>, AdaptiveState) {
        let stacked = self.layers.len() > 1;
        let mut below = state.adapt.last().map(|top| top.hidden.clone());
        let mut next = AdaptiveState {
            main: Vec::with_capacity(self.layers.len()),
            adapt: Vec::with_capacity(self.layers.len()),
        };
        let mut x = input;
        let mut output = None;
        for (index, (((layer, main), adapt), (main_masks, adapt_masks))) in self
            .layers
            .iter()
            .zip(state.main)
            .zip(state.adapt)
            .zip(self.split(masks))
            .enumerate()
        {
            let mut seen = vec![x.clone(), main.hidden.clone()];
            seen.extend(below.filter(|_| stacked));
            let seen = layer.adapt.project(Tensor::cat(seen, 1));
            let (z, adapt) = layer.adapt.step(seen, adapt, &adapt_masks);
            let policy = tanh(z.clone().matmul(layer.policy_projection.clone()));
            let skipped = (self.residual && index > 0).then(|| x.clone());
            let (y, main) = layer.cell.step(x, policy, main, &main_masks);
            let skip = |value: Tensor<2>| match &skipped {
                Some(skipped) => value + skipped.clone(),
                None => value,
            };

            below = Some(z);
            x = skip(main.hidden.clone());
            output = Some(skip(y));
            next.main.push(main);
            next.adapt.push(adapt);
        }
        (output.expect("an aLSTM has at least one layer"), next)
    }
}

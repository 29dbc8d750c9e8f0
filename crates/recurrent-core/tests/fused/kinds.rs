//! The cells, each from the leaves and the option set.

use burn::tensor::{DType, Device, Tensor};
use recurrent_core::cell::adaptive::{AdaptiveLayerStep, AdaptiveLayersStep, AdaptiveLstmStep};
use recurrent_core::cell::cifg::CifgLstmStep;
use recurrent_core::cell::gru::GruStep;
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::mogrifier::{MogrifierLstmStep, Round, RoundMatrix};
use recurrent_core::cell::peephole::PeepholeLstmStep;
use recurrent_core::cell::slow::{GateMaps, SlowLstmStep};
use recurrent_core::cell::ur::{GateMechanism, UrLstmStep};
use recurrent_core::cell::{Affine, Preactivation, Transition};
use recurrent_core::equations::adaptive::PolicyLayout;
use recurrent_core::equations::cifg::Coupling;
use recurrent_core::equations::dropout::{MaskSizes, StepMasks};
use recurrent_core::equations::layer_norm::{NormWeights, Normalizer};
use recurrent_core::equations::peephole::{OutputPeephole, Peephole};
use recurrent_core::{
    Dims, Gate, GateLayout, PackedOutput, SequenceOptions, SequenceOutput, State, Step, Strategy,
    Unfused, sequence,
};

use crate::leaves::Leaves;
use crate::options::{Form, Options};

/// A cell, and the choices of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Lstm,
    Slow,
    Cifg(Coupling),
    Peephole {
        coupling: Coupling,
        looks_at: OutputPeephole,
        full: bool,
        /// Whether the gate that weighs the candidate has its peephole, where it has weights.
        input: bool,
    },
    Ur {
        mechanism: GateMechanism,
        tied: bool,
    },
    Mogrifier {
        rounds: usize,
        rank: Option<usize>,
        biases: bool,
    },
    /// Without projections, whatever the options say.
    Adaptive {
        layers: usize,
        layout: PolicyLayout,
    },
    /// Without clip, projection and masks on a cell state, whatever the options say.
    Gru {
        reset_after: bool,
    },
}

const fn peephole(coupling: Coupling, looks_at: OutputPeephole, full: bool, input: bool) -> Kind {
    Kind::Peephole {
        coupling,
        looks_at,
        full,
        input,
    }
}

const fn ur(mechanism: GateMechanism, tied: bool) -> Kind {
    Kind::Ur { mechanism, tied }
}

const fn mogrifier(rounds: usize, rank: Option<usize>, biases: bool) -> Kind {
    Kind::Mogrifier {
        rounds,
        rank,
        biases,
    }
}

const fn adaptive(layers: usize, layout: PolicyLayout) -> Kind {
    Kind::Adaptive { layers, layout }
}

const fn gru(reset_after: bool) -> Kind {
    Kind::Gru { reset_after }
}

use Coupling::{CappedInput, ForgetFromInput, Independent, InputFromForget};
use OutputPeephole::{NewCell, PreviousCell};
use PolicyLayout::{Cumulative, Overlapping};

/// Every cell with a kernel.
pub const KINDS: [Kind; 26] = [
    Kind::Lstm,
    Kind::Slow,
    Kind::Cifg(Independent),
    Kind::Cifg(InputFromForget),
    Kind::Cifg(ForgetFromInput),
    Kind::Cifg(CappedInput),
    peephole(Independent, NewCell, false, true),
    peephole(Independent, PreviousCell, false, true),
    peephole(Independent, NewCell, false, false),
    peephole(InputFromForget, NewCell, false, true),
    peephole(Independent, PreviousCell, true, true),
    peephole(ForgetFromInput, PreviousCell, true, true),
    peephole(CappedInput, PreviousCell, true, false),
    ur(GateMechanism::Standard, false),
    ur(GateMechanism::Refine, false),
    ur(GateMechanism::Refine, true),
    mogrifier(1, None, false),
    mogrifier(2, Some(3), false),
    mogrifier(4, Some(2), true),
    mogrifier(5, None, true),
    adaptive(1, Cumulative),
    adaptive(1, Overlapping),
    adaptive(2, Overlapping),
    adaptive(3, Cumulative),
    gru(true),
    gru(false),
];

/// Cells without one, and what is said about them.
pub const UNFUSED: [(Kind, &str); 2] = [
    (
        peephole(Independent, NewCell, true, true),
        "full peepholes on the new cell",
    ),
    (ur(GateMechanism::Master, false), "ordered master gates"),
];

impl Kind {
    /// Whether it has the options: the per-gate cell knows no normalisation of packed gates.
    pub fn has(self, options: &Options) -> bool {
        match self {
            Kind::Slow => options.form.is_none(),
            // Nor does the Mogrifier's kernel any of its pre-activations.
            Kind::Mogrifier { .. } => {
                options.form.is_none() || !options.norms[0] && !options.norms[1]
            }
            // Nor that of the aLSTM any, nor biases inside of the policy's products.
            Kind::Adaptive { .. } => options.form.is_none() && !options.inner_biases,
            // The GRU has b_hn alone for b_h, and that with the reset gate after the product only.
            Kind::Gru { reset_after } => {
                options.form.is_none() && (reset_after || !options.inner_biases)
            }
            _ => true,
        }
    }

    /// Blocks of packed weights.
    pub fn gates(self) -> usize {
        match self {
            Kind::Lstm | Kind::Slow | Kind::Mogrifier { .. } | Kind::Adaptive { .. } => 4,
            Kind::Cifg(coupling) | Kind::Peephole { coupling, .. } => coupling.layout().len(),
            Kind::Ur { mechanism, .. } => mechanism.layout().len(),
            Kind::Gru { .. } => GateLayout::GRU.len(),
        }
    }

    /// Whether there is a cell state beside h.
    pub fn has_cell_state(self) -> bool {
        !matches!(self, Kind::Gru { .. })
    }
}

/// A cell of any type, its state as a list of tensors.
pub trait AnyCell {
    /// Why there is no kernel for it on a device, in f32.
    fn reason(&self, device: &Device) -> Option<Unfused>;
    fn parts(&self) -> Vec<(&'static str, usize)>;
    fn masks(&self) -> MaskSizes;
    fn run(
        &self,
        input: Tensor<3>,
        state: Vec<Tensor<2>>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<3>, Vec<Tensor<2>>);
    fn run_packed(
        &self,
        rows: Tensor<2>,
        state: Vec<Tensor<2>>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<2>, Vec<Tensor<2>>);
    /// Also gives the states of all steps.
    fn run_recorded(
        &self,
        input: Tensor<3>,
        state: Vec<Tensor<2>>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<3>, Vec<Tensor<2>>, Vec<(&'static str, Tensor<3>)>);
    fn step_by(
        &self,
        input: Tensor<2>,
        state: Vec<Tensor<2>>,
        masks: &StepMasks,
        strategy: Strategy,
    ) -> (Tensor<2>, Vec<Tensor<2>>);
}

impl<C: Step> AnyCell for C {
    fn reason(&self, device: &Device) -> Option<Unfused> {
        sequence::reason(self, device, DType::F32)
    }

    fn parts(&self) -> Vec<(&'static str, usize)> {
        self.state_parts()
    }

    fn masks(&self) -> MaskSizes {
        self.mask_sizes()
    }

    fn run(
        &self,
        input: Tensor<3>,
        state: Vec<Tensor<2>>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<3>, Vec<Tensor<2>>) {
        let state = Some(C::State::from_tensors(state));
        let SequenceOutput { output, state } = sequence::run(self, input, state, options);
        (output, state.into_tensors())
    }

    fn run_packed(
        &self,
        rows: Tensor<2>,
        state: Vec<Tensor<2>>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<2>, Vec<Tensor<2>>) {
        let state = Some(C::State::from_tensors(state));
        let PackedOutput { rows, state } = sequence::run_packed(self, rows, state, options);
        (rows, state.into_tensors())
    }

    fn run_recorded(
        &self,
        input: Tensor<3>,
        state: Vec<Tensor<2>>,
        options: &SequenceOptions<'_>,
    ) -> (Tensor<3>, Vec<Tensor<2>>, Vec<(&'static str, Tensor<3>)>) {
        let state = Some(C::State::from_tensors(state));
        let (run, history) = sequence::run_recorded(self, input, state, options);
        (run.output, run.state.into_tensors(), history.parts)
    }

    fn step_by(
        &self,
        input: Tensor<2>,
        state: Vec<Tensor<2>>,
        masks: &StepMasks,
        strategy: Strategy,
    ) -> (Tensor<2>, Vec<Tensor<2>>) {
        let state = C::State::from_tensors(state);
        let (output, state) = sequence::step(self, input, state, masks, strategy);
        (output, state.into_tensors())
    }
}

/// The cell on the leaves.
pub fn cell(kind: Kind, options: &Options, dims: &Dims, leaves: &Leaves<'_>) -> Box<dyn AnyCell> {
    let make = Make {
        options,
        dims,
        leaves,
        width: kind.gates() * dims.d_hidden,
    };
    match kind {
        Kind::Lstm => Box::new(LstmStep {
            preact: make.preact(),
            transition: make.transition(),
        }),
        Kind::Slow => Box::new(make.slow()),
        Kind::Cifg(coupling) => Box::new(CifgLstmStep {
            preact: make.preact(),
            coupling,
            transition: make.transition(),
        }),
        Kind::Peephole {
            coupling,
            looks_at,
            full,
            input,
        } => {
            let gates = coupling.layout();
            let peephole = |name: &str| make.peephole(name, full);
            let of = |gate: Gate, name: &str| gates.gates().contains(&gate).then(|| peephole(name));
            Box::new(PeepholeLstmStep {
                preact: make.preact(),
                coupling,
                peephole_input: of(Gate::Input, "peephole_input").filter(|_| input),
                peephole_forget: of(Gate::Forget, "peephole_forget"),
                peephole_output: peephole("peephole_output"),
                output_looks_at: looks_at,
                transition: make.transition(),
            })
        }
        Kind::Mogrifier {
            rounds,
            rank,
            biases,
        } => Box::new(MogrifierLstmStep {
            rounds: (0..rounds)
                .map(|round| make.round(round, rank, biases))
                .collect(),
            preact: make.preact(),
            // As the authors' code in every other case.
            coupling: if biases { CappedInput } else { Independent },
            transition: make.transition(),
        }),
        Kind::Adaptive { layers, layout } => Box::new(AdaptiveLayersStep {
            layers: (0..layers)
                .map(|layer| make.adaptive(layer, layers, layout))
                .collect(),
            residual: false,
        }),
        Kind::Gru { reset_after } => {
            let units = dims.d_hidden;
            let inner = || leaves.leaf("bias_candidate_hidden", [units], 0.0, 0.5);
            Box::new(GruStep {
                input: Affine {
                    weight: make.weight("weight_input", dims.d_input, make.width),
                    bias: make.bias(options.bias, "bias"),
                },
                weight_hidden: make.weight("weight_hidden", units, make.width),
                bias_candidate_hidden: (reset_after && (options.bias || options.inner_biases))
                    .then(inner),
                reset_after,
            })
        }
        Kind::Ur { mechanism, tied } => Box::new(UrLstmStep {
            preact: make.preact(),
            mechanism,
            forget_bias: leaves.leaf("forget_bias", [dims.d_hidden], 0.5, 0.5),
            tied,
            transition: make.transition(),
        }),
    }
}

struct Make<'a> {
    options: &'a Options,
    dims: &'a Dims,
    leaves: &'a Leaves<'a>,
    width: usize,
}

impl Make<'_> {
    fn weight(&self, name: &str, rows: usize, columns: usize) -> Tensor<2> {
        let bound = (3.0 / rows as f64).sqrt().min(1.5);
        self.leaves.leaf(name, [rows, columns], 0.0, bound)
    }

    fn bias(&self, wanted: bool, name: &str) -> Option<Tensor<1>> {
        wanted.then(|| self.leaves.leaf(name, [self.width], 0.0, 0.5))
    }

    fn norm(&self, index: usize, name: &str, features: usize) -> Option<NormWeights> {
        let options = self.options;
        let form = options.form.filter(|_| options.norms[index])?;
        let vector = |part: &str, middle, bound| {
            let name = format!("norm_{name}.{part}");
            let vector = || self.leaves.leaf(&name, [features], middle, bound);
            options.learnable.then(vector)
        };
        Some(NormWeights {
            normalizer: match form {
                Form::Standard => Normalizer::STANDARD,
                Form::LstmsPth => Normalizer::LSTMS_PTH,
                Form::Bradbury => Normalizer::BRADBURY,
                Form::Ba => Normalizer::BA,
            },
            gain: vector("gain", 0.7, 0.4),
            shift: vector("shift", 0.0, 0.5),
        })
    }

    fn preact(&self) -> Preactivation {
        let options = self.options;
        let (d_input, d_output) = (self.dims.d_input, options.d_output(self.dims));
        Preactivation {
            input: Affine {
                weight: self.weight("weight_input", d_input, self.width),
                bias: self.bias(options.inner_biases, "bias_input"),
            },
            hidden: Affine {
                weight: self.weight("weight_hidden", d_output, self.width),
                bias: self.bias(options.inner_biases, "bias_hidden"),
            },
            norm_input: self.norm(0, "input", self.width),
            norm_hidden: self.norm(1, "hidden", self.width),
            bias: self.bias(options.bias, "bias"),
        }
    }

    fn transition(&self) -> Transition {
        let options = self.options;
        let (d_hidden, d_output) = (self.dims.d_hidden, options.d_output(self.dims));
        Transition {
            clip: options.clip,
            norm_cell: self.norm(2, "cell", d_hidden),
            carry_normalized: options.carry_normalized,
            projection: options
                .project
                .then(|| self.weight("projection", d_hidden, d_output)),
        }
    }

    fn round(&self, round: usize, rank: Option<usize>, bias: bool) -> Round {
        let (d_input, d_output) = (self.dims.d_input, self.options.d_output(self.dims));
        let (from, to) = match round % 2 {
            0 => (d_output, d_input),
            _ => (d_input, d_output),
        };
        let name = |part: &str| format!("round_{round}.{part}");
        Round {
            matrix: match rank {
                None => RoundMatrix::Full(self.weight(&name("matrix"), from, to)),
                Some(rank) => RoundMatrix::LowRank(
                    self.weight(&name("left"), from, rank),
                    self.weight(&name("right"), rank, to),
                ),
            },
            bias: bias.then(|| self.leaves.leaf(&name("bias"), [to], 0.0, 0.5)),
        }
    }

    /// One layer of several; each has 4 units more than that below. With few units in the adaptation
    /// cell p is small, and the states with it: see docs/gpu.md about tanh of small numbers.
    fn adaptive(&self, layer: usize, layers: usize, layout: PolicyLayout) -> AdaptiveLayerStep {
        let options = self.options;
        let units = |layer: usize| self.dims.d_hidden + 4 * layer;
        let adapt_units = |layer: usize| self.dims.d_hidden.div_ceil(2) + 4 * (layer + 1);
        let d_input = match layer {
            0 => self.dims.d_input,
            _ => units(layer - 1),
        };
        let (d_hidden, d_adapt) = (units(layer), adapt_units(layer));
        let d_below = match layers {
            1 => 0,
            _ => adapt_units(layer.checked_sub(1).unwrap_or(layers - 1)),
        };
        let name = |part: &str| format!("layer_{layer}.{part}");
        let bias = |part: &str, size: usize| self.leaves.leaf(&name(part), [4 * size], 0.0, 0.5);
        let cell = |part: &str, from: usize, to: usize, biased: bool| {
            let part = |weight: &str| format!("{part}.{weight}");
            let preact = Preactivation::plain(
                self.weight(&name(&part("weight_input")), from, 4 * to),
                self.weight(&name(&part("weight_hidden")), to, 4 * to),
                biased.then(|| bias(&part("bias"), to)),
            );
            let transition = Transition {
                clip: options.clip,
                ..Transition::default()
            };
            (preact, transition)
        };
        let (preact, transition) = cell("adapt", d_input + d_hidden + d_below, d_adapt, true);
        let adapt = LstmStep { preact, transition };
        let (preact, transition) = cell("cell", d_input, d_hidden, options.bias);
        let policy = PolicyLayout::size(d_input, d_hidden, d_hidden, options.bias);
        AdaptiveLayerStep {
            adapt,
            policy_projection: self.weight(&name("policy"), d_adapt, policy),
            cell: AdaptiveLstmStep {
                preact,
                transition,
                policy_layout: layout,
            },
        }
    }

    /// Slices of the packed weights; the forget gate has no hidden bias.
    fn slow(&self) -> SlowLstmStep {
        let units = self.dims.d_hidden;
        let preact = self.preact();
        let gate = |slot: usize| {
            let block = slot * units..(slot + 1) * units;
            let bias = |bias: &Option<Tensor<1>>| bias.clone().map(|b| b.slice([block.clone()]));
            let columns = |all: &Tensor<2>| all.clone().slice([0..all.dims()[0], block.clone()]);
            GateMaps {
                input: Affine {
                    weight: columns(&preact.input.weight),
                    bias: bias(&preact.bias).or_else(|| bias(&preact.input.bias)),
                },
                hidden: Affine {
                    weight: columns(&preact.hidden.weight),
                    bias: bias(&preact.hidden.bias).filter(|_| slot != 1),
                },
            }
        };
        SlowLstmStep {
            input_gate: gate(0),
            forget_gate: gate(1),
            cell_gate: gate(2),
            output_gate: gate(3),
            transition: self.transition(),
        }
    }

    fn peephole(&self, name: &str, full: bool) -> Peephole {
        let units = self.dims.d_hidden;
        if full {
            Peephole::Full(self.weight(name, units, units))
        } else {
            Peephole::Diagonal(self.leaves.leaf(name, [units], 0.0, 1.0))
        }
    }
}

//! The same numbers as tensors: leaves, cells, one run.

use burn::nn::LstmState;
use burn::tensor::{DType, Device, Gradients, Tensor};
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::slow::{GateMaps, SlowLstmStep};
use recurrent_core::cell::{Affine, Preactivation, Transition};
use recurrent_core::equations::dropout::StepMasks;
use recurrent_core::equations::layer_norm::{NormWeights, Normalizer};
use recurrent_core::eval::compare::values;
use recurrent_core::eval::oracle::OracleNorm;
use recurrent_core::{
    Dims, Lengths, Mask, Masks, SequenceOptions, SequenceOutput, Step, Strategy, sequence,
};

use crate::common::tensor;
use crate::options::{Form, Kind};
use crate::setup::{MaskValues, Outcome, Setup};

pub type Run = SequenceOutput<LstmState<2>>;
pub type NamedGradients = Vec<(&'static str, Option<Vec<f64>>)>;

/// Flat tensors by the oracle's names; shapes are given where they are used, so that gradients
/// come back in the oracle's layout.
struct Leaves {
    list: Vec<(&'static str, Tensor<1>)>,
}

impl Leaves {
    fn new(setup: &Setup, device: &Device, dtype: DType, tracked: impl Fn(&str) -> bool) -> Self {
        let mut oracle = setup.oracle.clone();
        let mut all = vec![
            ("x", setup.x.clone()),
            ("hidden", setup.hidden.clone()),
            ("cell", setup.cell.clone()),
        ];
        let parameters = oracle.parameters_mut();
        all.extend(
            parameters
                .into_iter()
                .map(|(name, values)| (name, values.clone())),
        );
        let list = all
            .into_iter()
            .map(|(name, values)| {
                let leaf = tensor(&values, [values.len()], device, dtype);
                (
                    name,
                    if tracked(name) {
                        leaf.require_grad()
                    } else {
                        leaf
                    },
                )
            })
            .collect();
        Self { list }
    }

    fn find<const D: usize>(&self, name: &str, shape: [usize; D]) -> Option<Tensor<D>> {
        let leaf = self.list.iter().find(|(other, _)| *other == name)?;
        Some(leaf.1.clone().reshape(shape))
    }

    fn get<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.find(name, shape)
            .unwrap_or_else(|| panic!("no leaf `{name}`"))
    }
}

/// One of the cells.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // one at a time, on the stack of a test
enum Cell {
    Packed(LstmStep),
    PerGate(SlowLstmStep),
}

/// A case as tensors, ready to run.
pub struct Network {
    setup: Setup,
    kind: Kind,
    leaves: Leaves,
    dims: Dims,
    pub masks: Masks,
    cotangents: (Tensor<3>, Tensor<2>, Tensor<2>),
}

fn norm(
    oracle: &Option<OracleNorm>,
    form: Option<Form>,
    name: &str,
    leaves: &Leaves,
) -> Option<NormWeights> {
    oracle.as_ref()?;
    let vector = |part: &str| {
        let name = format!("norm_{name}.{part}");
        let leaf = leaves.list.iter().find(|(other, _)| *other == name)?;
        Some(leaf.1.clone())
    };
    Some(NormWeights {
        normalizer: match form.expect("a form") {
            Form::Standard => Normalizer::STANDARD,
            Form::LstmsPth => Normalizer::LSTMS_PTH,
            Form::Bradbury => Normalizer::BRADBURY,
            Form::Ba => Normalizer::BA,
        },
        gain: vector("gain"),
        shift: vector("shift"),
    })
}

fn cell(setup: &Setup, kind: Kind, leaves: &Leaves) -> Cell {
    let Dims {
        d_input, d_hidden, ..
    } = setup.dims;
    let (oracle, options) = (&setup.oracle, &setup.options);
    let norm = |of: &Option<OracleNorm>, name: &str| norm(of, options.form, name, leaves);
    let columns = 4 * d_hidden;
    let weight_input = leaves.get("weight_input", [d_input, columns]);
    let weight_hidden = leaves.get("weight_hidden", [setup.d_output, columns]);
    let bias = |name: &str| leaves.find(name, [columns]);
    let transition = Transition {
        clip: options.clip,
        norm_cell: norm(&oracle.norm_cell, "cell"),
        carry_normalized: options.carry_normalized,
        projection: leaves.find("projection", [d_hidden, setup.d_output]),
    };
    match kind {
        Kind::Packed | Kind::LayerNorm => Cell::Packed(LstmStep {
            preact: Preactivation {
                input: Affine {
                    weight: weight_input,
                    bias: bias("bias_input"),
                },
                hidden: Affine {
                    weight: weight_hidden,
                    bias: bias("bias_hidden"),
                },
                norm_input: norm(&oracle.norm_input, "input"),
                norm_hidden: norm(&oracle.norm_hidden, "hidden"),
                bias: bias("bias"),
            },
            transition,
        }),
        Kind::PerGate => {
            let gate = |slot: usize| {
                let block = slot * d_hidden..(slot + 1) * d_hidden;
                let bias = |name: &str| bias(name).map(|all| all.slice([block.clone()]));
                let columns =
                    |all: &Tensor<2>, rows: usize| all.clone().slice([0..rows, block.clone()]);
                GateMaps {
                    input: Affine {
                        weight: columns(&weight_input, d_input),
                        bias: bias("bias").or_else(|| bias("bias_input")),
                    },
                    hidden: Affine {
                        weight: columns(&weight_hidden, setup.d_output),
                        bias: bias("bias_hidden"),
                    },
                }
            };
            Cell::PerGate(SlowLstmStep {
                input_gate: gate(0),
                forget_gate: gate(1),
                cell_gate: gate(2),
                output_gate: gate(3),
                transition,
            })
        }
    }
}

pub fn mask(
    of: &Option<MaskValues>,
    batch_size: usize,
    device: &Device,
    dtype: DType,
) -> Option<Mask> {
    of.as_ref().map(|mask| {
        let features = mask.features;
        if mask.per_step {
            let steps = mask.values.len() / (batch_size * features);
            Mask::PerStep(tensor(
                &mask.values,
                [steps, batch_size, features],
                device,
                dtype,
            ))
        } else {
            Mask::PerSequence(tensor(&mask.values, [batch_size, features], device, dtype))
        }
    })
}

impl Network {
    /// In f32, everything tracked.
    pub fn new(setup: &Setup, kind: Kind, device: &Device) -> Self {
        Self::tracking(setup, kind, device, DType::F32, |_| true)
    }

    pub fn tracking(
        setup: &Setup,
        kind: Kind,
        device: &Device,
        dtype: DType,
        tracked: impl Fn(&str) -> bool,
    ) -> Self {
        let Dims {
            batch_size,
            seq_length,
            d_hidden,
            ..
        } = setup.dims;
        let leaves = Leaves::new(setup, device, dtype, tracked);
        let [hidden, cell_mask, candidate, update_hidden, update_cell] = setup
            .masks
            .each_ref()
            .map(|values| mask(values, batch_size, device, dtype));
        let [output, last_hidden, last_cell] = &setup.cotangents;
        let size = setup.d_output;
        Self {
            setup: setup.clone(),
            kind,
            leaves,
            dims: setup.dims,
            masks: Masks {
                hidden,
                cell: cell_mask,
                candidate,
                update_hidden,
                update_cell,
                ..Masks::none()
            },
            cotangents: (
                tensor(output, [seq_length, batch_size, size], device, dtype),
                tensor(last_hidden, [batch_size, size], device, dtype),
                tensor(last_cell, [batch_size, d_hidden], device, dtype),
            ),
        }
    }

    /// The cell, on the leaves. Made for each call: Burn drops a graph once it has been followed
    /// backwards, and giving the leaves their shape is part of it.
    fn cell(&self) -> Cell {
        cell(&self.setup, self.kind, &self.leaves)
    }

    /// `[T, B, I]`
    pub fn input(&self) -> Tensor<3> {
        let dims = &self.dims;
        self.leaves
            .get("x", [dims.seq_length, dims.batch_size, dims.d_input])
    }

    /// The initial state.
    pub fn state(&self) -> LstmState<2> {
        let size = self.cotangents.1.dims()[1];
        LstmState {
            cell: self
                .leaves
                .get("cell", [self.dims.batch_size, self.dims.d_hidden]),
            hidden: self.leaves.get("hidden", [self.dims.batch_size, size]),
        }
    }

    /// The whole case.
    pub fn run(&self) -> Run {
        self.run_with(self.input(), Some(self.state()))
    }

    /// Another input and state, the same masks, lengths and direction.
    pub fn run_with(&self, input: Tensor<3>, state: Option<LstmState<2>>) -> Run {
        let lengths = self
            .setup
            .lengths
            .clone()
            .map(|list| Lengths::new(list, self.dims.seq_length).expect("lengths that fit"));
        let options = SequenceOptions {
            direction: self.setup.direction,
            lengths: lengths.as_ref(),
            masks: Some(&self.masks),
            strategy: Strategy::Composed,
            precision: Default::default(),
        };
        self.run_options(input, state, &options)
    }

    #[track_caller]
    pub fn run_options(
        &self,
        input: Tensor<3>,
        state: Option<LstmState<2>>,
        options: &SequenceOptions<'_>,
    ) -> Run {
        match &self.cell() {
            Cell::Packed(cell) => sequence::run(cell, input, state, options),
            Cell::PerGate(cell) => sequence::run(cell, input, state, options),
        }
    }

    #[track_caller]
    pub fn step_once(
        &self,
        input: Tensor<2>,
        state: LstmState<2>,
        masks: &StepMasks,
    ) -> (Tensor<2>, LstmState<2>) {
        match &self.cell() {
            Cell::Packed(cell) => cell.step_once(input, state, masks),
            Cell::PerGate(cell) => cell.step_once(input, state, masks),
        }
    }

    /// The cotangents on output and final states together.
    pub fn loss(&self, run: &Run) -> Tensor<1> {
        let (output, hidden, cell) = self.cotangents.clone();
        (run.output.clone() * output).sum()
            + (run.state.hidden.clone() * hidden).sum()
            + (run.state.cell.clone() * cell).sum()
    }

    /// Every leaf's gradient by name; `None` where none arrived.
    pub fn gradients(&self, grads: &Gradients) -> NamedGradients {
        let leaves = self.leaves.list.iter();
        leaves
            .map(|(name, leaf)| (*name, leaf.grad(grads).map(|grad| values(&grad))))
            .collect()
    }

    /// Gradients of the whole case.
    pub fn backward(&self) -> NamedGradients {
        self.gradients(&self.loss(&self.run()).backward())
    }
}

/// The values of a run.
pub fn outcome(run: &Run) -> Outcome {
    Outcome {
        output: values(&run.output),
        hidden: values(&run.state.hidden),
        cell: values(&run.state.cell),
    }
}

//! The timed work: a model on a problem, one call at a time.

use burn::module::Param;
use burn::nn;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recurrent_modules::{
    GateLayout, Lstm, LstmConfig, LstmState, Mask, Masks, Precision, Recurrent, RecurrentConfig,
    RecurrentState, StackMasks,
};

use crate::models::{MODELS, ModelSpec};
use crate::problems::{Mode, Problem, Shape};

/// The name of Burn's own LSTM, the baseline.
pub const BURN_NN: &str = "burn::nn::Lstm";

/// The name of our plain LSTM, which [`MODELS`] calls `nn.LSTM` after lstms.pth.
pub const LSTM: &str = "lstm";

/// [`LSTM`] with recurrent weights in bf16.
pub const LSTM_BF16: &str = "lstm-bf16";

/// Probability of zeroing where a model has dropout, as in the table of lstms.pth; times do not
/// depend on it.
const DROPOUT: f64 = 0.5;

/// A row of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The name on the command line, in tables and in JSON.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// `None` for the baseline.
    model: Option<&'static ModelSpec>,
    /// Precision of the recurrent weights in inference.
    pub precision: Precision,
}

impl Subject {
    /// The subject with exactly this name.
    pub fn named(name: &str) -> Option<Self> {
        subjects().into_iter().find(|subject| subject.name == name)
    }

    /// The name in lstms.pth, if it has this model as a layer of its own.
    pub fn lstms_pth_name(&self) -> Option<&'static str> {
        let model = self.model.filter(|model| model.of_lstms_pth)?;
        (self.precision == Precision::F32).then_some(model.name)
    }

    fn of(model: &'static ModelSpec) -> Self {
        let name = match model.name {
            "nn.LSTM" => LSTM,
            // Not `LSTM`, which differs from the plain one by nothing but case.
            "LSTM" => "DropoutLSTM",
            name => name,
        };
        Self {
            name,
            about: model.about,
            model: Some(model),
            precision: Precision::F32,
        }
    }
}

/// The baseline, our plain LSTM, every other model of [`MODELS`], and the plain LSTM in bf16.
pub fn subjects() -> Vec<Subject> {
    let baseline = Subject {
        name: BURN_NN,
        about: "Burn's own",
        model: None,
        precision: Precision::F32,
    };
    let models = MODELS.iter().map(Subject::of);
    let all: Vec<Subject> = [baseline].into_iter().chain(models).collect();
    let plain = all.iter().find(|subject| subject.name == LSTM).copied();
    let rounded = plain.map(|plain| Subject {
        name: LSTM_BF16,
        about: "recurrent weights rounded to bf16 in inference",
        precision: Precision::Bf16,
        ..plain
    });
    all.into_iter().chain(rounded).collect()
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // one per row
enum Net {
    Burn(nn::Lstm),
    Ours(Recurrent),
}

#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // moved once per step, where a box would be an allocation
enum Carried {
    Burn(LstmState<2>),
    Ours(RecurrentState),
}

/// A model and its input.
#[derive(Debug)]
pub struct Workload {
    net: Net,
    problem: Problem,
    /// `[batch_size, seq_length, d_input]`; one step in [`Mode::Feedback`].
    input: Tensor<3>,
    /// Factors of the outputs in the loss of a training step: fixed, unequal numbers, so that
    /// no gradient is trivial.
    cotangent: Tensor<3>,
    /// The state between calls of [`Mode::Step`]; the initial state of each call of [`Mode::Feedback`].
    state: Option<Carried>,
    /// Autodiff in training.
    device: Device,
}

impl Workload {
    /// The model with weights from `seed`; the baseline has the weights of our LSTM.
    ///
    /// # Arguments
    /// * `device` - without autodiff
    pub fn new(subject: Subject, problem: Problem, seed: u64, device: &Device) -> Self {
        let device = match problem.mode {
            Mode::Training => device.clone().autodiff(),
            Mode::Inference | Mode::Step | Mode::Feedback => device.clone(),
        };
        let Shape {
            d_input, d_hidden, ..
        } = problem.shape;
        device.seed(seed);
        let net = match subject.model {
            Some(model) => {
                let config = quick_start(model.config(d_input, d_hidden, DROPOUT));
                Net::Ours(config.init(&device).with_precision(subject.precision))
            }
            None => Net::Burn(as_burn_nn(
                &LstmConfig::new(d_input, d_hidden).init(&device),
                &device,
            )),
        };
        Self::with_net(net, problem, seed, device)
    }

    fn with_net(net: Net, problem: Problem, seed: u64, device: Device) -> Self {
        let Shape {
            batch_size,
            seq_length,
            d_input,
            d_hidden,
        } = problem.shape;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |features| {
            let shape = [batch_size, seq_length, features];
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| rng.random_range(-1.0..1.0))
                .collect();
            Tensor::<3>::from_data(TensorData::new(values, shape), &device)
        };
        let (input, cotangent) = (draw(d_input), draw(d_hidden));
        let mut workload = Self {
            net,
            problem,
            input,
            cotangent,
            state: None,
            device,
        };
        if problem.mode == Mode::Feedback {
            workload.start_feedback(&mut rng);
        }
        workload
    }

    /// The input of the first step and the state before it, all from U[0, 1) as in lstms.pth.
    fn start_feedback(&mut self, rng: &mut impl Rng) {
        let Shape {
            batch_size,
            d_input,
            d_hidden,
            ..
        } = self.problem.shape;
        assert!(
            d_input == d_hidden,
            "the case `{}` has {d_input} inputs and {d_hidden} units; \
             expected as many of each, since an output is the next input",
            self.problem
        );
        let mut draw = || {
            let count = batch_size * d_hidden;
            let values: Vec<f32> = (0..count).map(|_| rng.random()).collect();
            let rows = TensorData::new(values, [batch_size, d_hidden]);
            Tensor::<2>::from_data(rows, &self.device)
        };
        let (input, cell, hidden) = (draw(), draw(), draw());
        self.state = Some(match &self.net {
            Net::Burn(_) => Carried::Burn(LstmState { cell, hidden }),
            Net::Ours(model) => {
                let mut state = model.initial_state(batch_size, &self.device);
                for (name, part) in &mut state.cells[0].parts {
                    match *name {
                        "cell" | "main cell" => *part = cell.clone(),
                        "hidden" | "main hidden" => *part = hidden.clone(),
                        _ => {}
                    }
                }
                Carried::Ours(state)
            }
        });
        self.input = input.unsqueeze_dim(1);
    }

    /// The same model on sequences of another length.
    #[must_use]
    pub fn with_seq_length(self, seq_length: usize, seed: u64) -> Self {
        let shape = Shape {
            seq_length,
            ..self.problem.shape
        };
        let problem = Problem::new(self.problem.mode, shape);
        Self::with_net(self.net, problem, seed, self.device)
    }

    /// What is run.
    pub fn problem(&self) -> Problem {
        self.problem
    }

    /// One call; returns when the device has finished.
    pub fn run(&mut self) {
        match self.problem.mode {
            Mode::Inference => drop(self.forward(self.input.clone())),
            Mode::Training => drop(self.loss(self.input.clone().require_grad()).backward()),
            Mode::Step => {
                let (_, state) = self.step(self.state.as_ref());
                self.state = Some(state);
            }
            Mode::Feedback => drop(self.feedback(false)),
        }
        // A failed kernel would make the time of this call meaningless.
        self.device.sync().expect("the device finishes the call");
    }

    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        match &self.net {
            Net::Burn(lstm) => lstm.forward(input, None).0,
            Net::Ours(model) => model.forward(input, None).0,
        }
    }

    /// The loss of a training step.
    fn loss(&self, input: Tensor<3>) -> Tensor<1> {
        (self.forward(input) * self.cotangent.clone()).sum()
    }

    fn step(&self, state: Option<&Carried>) -> (Tensor<2>, Carried) {
        match &self.net {
            Net::Burn(lstm) => {
                let state = state.map(|state| match state {
                    Carried::Burn(state) => LstmState {
                        cell: state.cell.clone(),
                        hidden: state.hidden.clone(),
                    },
                    Carried::Ours(_) => unreachable!("the state is that of the model"),
                });
                let (output, state) = lstm.forward(self.input.clone(), state);
                (output.squeeze_dim::<2>(1), Carried::Burn(state))
            }
            Net::Ours(model) => {
                let state = state.map(|state| match state {
                    Carried::Ours(state) => state.clone(),
                    Carried::Burn(_) => unreachable!("the state is that of the model"),
                });
                let input = self.input.clone().squeeze_dim::<2>(1);
                let (output, state) = model.step(input, state);
                (output, Carried::Ours(state))
            }
        }
    }

    /// One call of the protocol of lstms.pth: single steps, each output the next input.
    ///
    /// The original never calls `eval()`, so dropout is active. It runs on the plain device with explicit
    /// masks, because an autodiff device frees its graph only in a backward pass, and there is none
    /// (10 KiB per step at 128 units, even if every step is detached). Drawing and applying
    /// a mask costs the same on both. As in the original, a mask per step is drawn within the step, and
    /// one per sequence before the first.
    ///
    /// # Returns
    /// The outputs of all steps if `keep`, else nothing.
    fn feedback(&self, keep: bool) -> Vec<TensorData> {
        let Shape {
            batch_size,
            seq_length,
            ..
        } = self.problem.shape;
        let mut outputs = Vec::new();
        match (&self.net, self.state.clone()) {
            (Net::Burn(lstm), Some(Carried::Burn(mut state))) => {
                let mut x = self.input.clone();
                for _ in 0..seq_length {
                    (x, state) = lstm.forward(x, Some(state));
                    if keep {
                        outputs.push(x.to_data());
                    }
                }
            }
            (Net::Ours(model), Some(Carried::Ours(mut state))) => {
                let draw = || model.sample_masks(1, batch_size, &self.device);
                let mut masks = draw();
                let fresh = has_mask_per_step(&masks);
                let mut x = self.input.clone().squeeze_dim::<2>(1);
                for t in 0..seq_length {
                    if fresh && t > 0 {
                        masks = draw();
                    }
                    (x, state) = model.step_with(x, Some(state), &masks, 0);
                    if keep {
                        outputs.push(x.to_data());
                    }
                }
            }
            _ => unreachable!("the state is that of the model"),
        }
        outputs
    }

    /// What a call from the first state computes: the outputs and, in training, the gradient of the
    /// input.
    pub fn result(&self) -> Outcome {
        let values = |data: TensorData| {
            data.convert::<f32>()
                .try_into_vec()
                .expect("f32 as converted")
        };
        match self.problem.mode {
            Mode::Inference => Outcome {
                parts: vec![values(self.forward(self.input.clone()).into_data())],
            },
            Mode::Step => Outcome {
                parts: vec![values(self.step(None).0.into_data())],
            },
            Mode::Feedback => Outcome {
                parts: self.feedback(true).into_iter().map(values).collect(),
            },
            Mode::Training => {
                let input = self.input.clone().require_grad();
                let output = self.forward(input.clone());
                let loss = (output.clone() * self.cotangent.clone()).sum();
                let gradients = loss.backward();
                let gradient = input.grad(&gradients).expect("the input has a gradient");
                Outcome {
                    parts: vec![values(output.into_data()), values(gradient.into_data())],
                }
            }
        }
    }
}

/// Whether a mask is drawn anew at each step.
fn has_mask_per_step(masks: &StackMasks) -> bool {
    let per_step = |mask: &Mask| matches!(mask, Mask::PerStep(_));
    let masks = masks.cells.iter().flat_map(Masks::iter);
    masks.map(|(_, mask)| mask).any(per_step)
}

/// What a call computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    parts: Vec<Vec<f32>>,
}

/// The difference between two outcomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// The largest absolute difference.
    pub largest: f64,
    /// The largest over the parts, each relative to the largest value of its reference.
    pub relative: f64,
}

impl Outcome {
    /// The difference from a reference of the same problem; infinite if the sizes differ, NaN if a value
    /// is NaN.
    pub fn difference(&self, reference: &Self) -> Difference {
        let mut all = Difference {
            largest: 0.0,
            relative: 0.0,
        };
        if self.parts.len() != reference.parts.len() {
            all.relative = f64::INFINITY;
        }
        for (got, expected) in self.parts.iter().zip(&reference.parts) {
            if got.len() != expected.len() {
                all.relative = f64::INFINITY;
            }
            let pairs = got.iter().zip(expected);
            let differences = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
            let largest = differences.fold(0.0, larger);
            let scale = expected.iter().map(|value| f64::from(value.abs()));
            let scale = scale.fold(f64::MIN_POSITIVE, larger);
            all.largest = larger(all.largest, largest);
            all.relative = larger(all.relative, largest / scale);
        }
        all
    }
}

/// Unlike `f64::max`, keeps NaN.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The config without slow initialisers. The values of the weights do not affect the time.
fn quick_start(config: RecurrentConfig) -> RecurrentConfig {
    match config {
        // Orthogonal weights come from a QR decomposition.
        RecurrentConfig::LayerNormLstm(config) => {
            RecurrentConfig::LayerNormLstm(config.with_hidden_initializer(None))
        }
        RecurrentConfig::AdaptiveLstm(config) => {
            let bound = (config.d_hidden as f64).powf(-0.5);
            let (min, max) = (-bound, bound);
            let uniform = nn::Initializer::Uniform { min, max };
            RecurrentConfig::AdaptiveLstm(config.with_initializer(Some(uniform)))
        }
        config => config,
    }
}

/// `burn::nn::Lstm` with the weights of ours, which has one bias where Burn's has two: Burn's second
/// one is zero.
fn as_burn_nn(ours: &Lstm, device: &Device) -> nn::Lstm {
    let gates = &ours.layers[0].forward.gates;
    let [d_input, _] = gates.weight_input.dims();
    let [d_hidden, _] = gates.weight_hidden.dims();
    let mut lstm = nn::LstmConfig::new(d_input, d_hidden, true).init(device);

    // The order of the gates is that of `GateLayout::LSTM`: input, forget, candidate, output.
    let split = |packed: Tensor<2>| GateLayout::LSTM.split::<4>(packed);
    let weights = split(gates.weight_input.val());
    let recurrent = split(gates.weight_hidden.val());
    let bias = gates.bias.as_ref().expect("the default config has a bias");
    let biases = split(bias.val().unsqueeze_dim::<2>(0));
    let forget = lstm.forget_gate.as_mut().expect("gates are not coupled");
    let targets = [
        &mut lstm.input_gate,
        forget,
        &mut lstm.cell_gate,
        &mut lstm.output_gate,
    ];
    let sources = weights.into_iter().zip(recurrent).zip(biases);
    for (gate, ((weight, recurrent), bias)) in targets.into_iter().zip(sources) {
        set(&mut gate.input_transform, weight, bias.squeeze_dim::<1>(0));
        let none = Tensor::zeros([d_hidden], device);
        set(&mut gate.hidden_transform, recurrent, none);
    }
    lstm
}

/// Weights cut out of packed ones become parameters of their own.
fn set(linear: &mut nn::Linear, weight: Tensor<2>, bias: Tensor<1>) {
    linear.weight = Param::from_tensor(weight.detach());
    linear.bias = Some(Param::from_tensor(bias.detach()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_more_than_case() {
        let names: Vec<String> = subjects()
            .iter()
            .map(|subject| crate::names::plain(subject.name))
            .collect();
        assert_eq!(names.len(), MODELS.len() + 2);
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name} twice");
        }
        assert_eq!(names[1], LSTM);
    }

    #[test]
    fn differences_keep_what_is_not_a_number() {
        let outcome = |values: &[f32]| Outcome {
            parts: vec![values.to_vec()],
        };
        let difference = outcome(&[1.0, 2.5]).difference(&outcome(&[1.0, 2.0]));
        assert_eq!((difference.largest, difference.relative), (0.5, 0.25));
        let difference = outcome(&[f32::NAN, 0.0]).difference(&outcome(&[1.0, 2.0]));
        assert!(difference.relative.is_nan());
        let difference = outcome(&[1.0]).difference(&outcome(&[1.0, 2.0]));
        assert_eq!(difference.relative, f64::INFINITY);
    }

    #[cfg(feature = "flex")]
    mod feedback {
        use super::*;

        const STEPS: usize = 4;

        fn workload(name: &str) -> Workload {
            let problem = Problem::new(Mode::Feedback, Shape::new(1, STEPS, 32, 32));
            Workload::new(Subject::named(name).unwrap(), problem, 1, &Device::flex())
        }

        /// Which units are zero, per step.
        fn zeros(outcome: &Outcome) -> Vec<Vec<bool>> {
            let zero = |step: &Vec<f32>| step.iter().map(|value| *value == 0.0).collect();
            outcome.parts.iter().map(zero).collect()
        }

        #[test]
        fn an_output_is_the_next_input() {
            let _alone = crate::tasks::speed::one_at_a_time();
            let work = workload(LSTM);
            let (Net::Ours(model), Some(Carried::Ours(state))) = (&work.net, &work.state) else {
                panic!("our model");
            };
            let (mut x, mut state) = (work.input.clone().squeeze_dim::<2>(1), state.clone());
            let got = work.result();
            assert_eq!(got.parts.len(), STEPS);
            for step in &got.parts {
                (x, state) = model.step(x, Some(state));
                assert_eq!(x.to_data().try_into_vec::<f32>().unwrap(), *step);
            }
            // The state that a call starts from does not change.
            assert_eq!(work.result(), got);
        }

        /// Each model starts from the same h, whichever other parts its state has.
        #[test]
        fn all_models_start_from_the_same_hidden_state() {
            let _alone = crate::tasks::speed::one_at_a_time();
            let hidden = |name: &str, part: &str| {
                let Some(Carried::Ours(state)) = workload(name).state else {
                    panic!("our model");
                };
                state.cells[0].part(part).into_data()
            };
            let expected = hidden(LSTM, "hidden");
            assert_eq!(hidden("GRU", "hidden"), expected);
            assert_eq!(hidden("AdaptiveLSTM", "main hidden"), expected);
            assert_ne!(hidden(LSTM, "cell"), expected);
        }

        #[test]
        fn dropout_is_active_and_masks_last_as_long_as_in_the_original() {
            let _alone = crate::tasks::speed::one_at_a_time();
            for (name, per_step) in [
                ("DropoutLSTM", true),
                ("SlowLSTM", true),
                ("GalLSTM", false),
            ] {
                let work = workload(name);
                let (first, second) = (zeros(&work.result()), zeros(&work.result()));
                for step in first.iter().chain(&second) {
                    let dropped = step.iter().filter(|zero| **zero).count();
                    assert!((4..=28).contains(&dropped), "{name}: {dropped} of 32");
                }
                assert_eq!(first[0] != first[1], per_step, "{name}");
                assert_ne!(first[0], second[0], "{name}: a call has masks of its own");
            }
            // Their masks are within the cell.
            for name in ["MoonLSTM", "SemeniutaLSTM"] {
                let work = workload(name);
                assert_ne!(work.result(), work.result(), "{name}");
            }
        }
    }
}

//! The capacity task of lstms.pth: repeat the sum of ten random vectors.
//!
//! 100 sequences of 10 vectors from U[0, 1)^256; the target is their sum. Smooth-L1 loss on the
//! last output, summed over a batch of 10 sequences; SGD with rate 0.01 and momentum 0.9; 10 epochs.
//!
//! [`original`] follows the script of lstms.pth exactly: the output is the bare hidden state, and
//! the error is measured on the training sequences with dropout still active, including the Gal and Moon masks
//! of the last training sequence. The targets are near 5 and a hidden state without
//! dropout stays below 1, so this error shows how fast the output saturates. The error of
//! [`with_readout`] shows what is remembered.

mod reference;

pub use reference::Reference;

use burn::module::{Module, Param};
use burn::nn::loss::{Reduction, SmoothL1LossConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recurrent_modules::{
    ForwardOptions, Mask, Masks, Recurrent, RecurrentConfig, RecurrentState, StackMasks, Strategy,
};
use serde::Serialize;

/// The numbers of the protocol.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Protocol {
    /// Features of a vector.
    pub size: usize,
    /// Units of the model.
    pub d_hidden: usize,
    /// Vectors of a sequence.
    pub seq_length: usize,
    /// Training sequences.
    pub train: usize,
    /// Test sequences; the original has none.
    pub test: usize,
    /// Sequences of one update.
    pub batch_size: usize,
    /// Passes over the training sequences.
    pub epochs: usize,
    /// Learning rate.
    pub rate: f64,
    /// Probability of zeroing, where the model has dropout.
    pub dropout: f64,
}

impl Protocol {
    /// The protocol of lstms.pth.
    pub const ORIGINAL: Self = Self {
        size: 256,
        d_hidden: 256,
        seq_length: 10,
        train: 100,
        test: 0,
        batch_size: 10,
        epochs: 10,
        rate: 0.01,
        dropout: 0.9,
    };

    /// For the table with a readout: held-out sequences; vectors small enough that some models can
    /// learn the sum in the time; little dropout; and Adam.
    pub const READOUT: Self = Self {
        size: 8,
        d_hidden: 64,
        seq_length: 10,
        train: 500,
        test: 500,
        batch_size: 25,
        epochs: 6,
        rate: 1e-2,
        dropout: 0.1,
    };
}

/// Sequences and their sums.
struct Data {
    /// `[sequences, seq_length, size]`
    input: Tensor<3>,
    /// `[sequences, size]`
    target: Tensor<2>,
}

impl Data {
    fn draw(rng: &mut impl Rng, sequences: usize, protocol: &Protocol, device: &Device) -> Self {
        let shape = [sequences, protocol.seq_length, protocol.size];
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random()).collect();
        let input = Tensor::<3>::from_data(TensorData::new(values, shape), device);
        let target = input.clone().sum_dim(1).squeeze_dim::<2>(1);
        Self { input, target }
    }

    fn batch(&self, start: usize, count: usize) -> (Tensor<3>, Tensor<2>) {
        let [_, seq_length, size] = self.input.dims();
        let rows = start..start + count;
        let input = self
            .input
            .clone()
            .slice([rows.clone(), 0..seq_length, 0..size]);
        (input, self.target.clone().slice([rows, 0..size]))
    }

    fn len(&self) -> usize {
        self.input.dims()[0]
    }
}

/// Sum over the sequences of the mean over the features.
fn loss(output: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
    let features = output.dims()[1] as f64;
    SmoothL1LossConfig::new()
        .init()
        .forward_with_reduction(output, target, Reduction::Sum)
        / features
}

fn scalar(tensor: Tensor<1>) -> f64 {
    tensor.into_scalar::<f32>().into()
}

/// The output at the last step, `[batch_size, size]`.
fn last_step(output: Tensor<3>) -> Tensor<2> {
    let [batch_size, seq_length, size] = output.dims();
    output
        .slice([0..batch_size, seq_length - 1..seq_length, 0..size])
        .squeeze_dim::<2>(1)
}

/// Outcome of one run of the original protocol; errors are means per sequence.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OriginalErrors {
    /// With dropout still active, as the original measures it.
    pub dropout_active: f64,
    /// In evaluation mode.
    pub evaluation: f64,
}

/// Trains and evaluates like the script of lstms.pth.
///
/// Differs from it: 10 sequences run as one batch instead of one after another (same sums), each
/// with a Gal or Moon mask of its own; one bias per gate where the original adds two.
///
/// # Arguments
/// * `strategy` - how sequences are run
/// * `device` - without autodiff
pub fn original(
    config: &RecurrentConfig,
    protocol: &Protocol,
    strategy: Strategy,
    seed: u64,
    device: &Device,
) -> OriginalErrors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let training = device.clone().autodiff();
    training.seed(seed);
    let mut model = config.init(&training).with_strategy(strategy);
    let data = Data::draw(&mut rng, protocol.train, protocol, &training);
    let initial = UniformState::draw(&mut rng, protocol.size);
    let mut optimizer = sgd();

    let mut masks = StackMasks::default();
    for _ in 0..protocol.epochs {
        for start in (0..data.len()).step_by(protocol.batch_size) {
            let (input, target) = data.batch(start, protocol.batch_size);
            masks = model.sample_masks(protocol.seq_length, protocol.batch_size, &training);
            let state = initial.expand(&model, protocol.batch_size, &training);
            let output = run(&model, input, state, Some(&masks));
            let gradients = loss(output, target).backward();
            let gradients = GradientsParams::from_grads(gradients, &model);
            model = optimizer.step(protocol.rate, model, gradients);
        }
    }

    // As the original: training mode, with the masks per sequence of the last training sequence.
    let fresh = model.sample_masks(protocol.seq_length, data.len(), &training);
    let masks = keep_last_sequence(&masks, fresh);
    let evaluate = |model: &Recurrent, device: &Device, masks: Option<&StackMasks>| {
        let (input, target) = data.batch(0, data.len());
        let (input, target) = (input.to_device(device), target.to_device(device));
        let state = initial.expand(model, data.len(), device);
        let output = run(model, input, state, masks);
        scalar(loss(output, target)) / data.len() as f64
    };
    let dropout_active = evaluate(&model, &training, Some(&masks));
    let plain = training.inner();
    let evaluation = evaluate(&model.valid(), &plain, None);
    OriginalErrors {
        dropout_active,
        evaluation,
    }
}

fn sgd() -> ModuleOptimizer {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    SgdConfig::new().with_momentum(Some(momentum)).init()
}

fn run(
    model: &Recurrent,
    input: Tensor<3>,
    state: RecurrentState,
    masks: Option<&StackMasks>,
) -> Tensor<2> {
    let options = ForwardOptions {
        masks,
        ..ForwardOptions::default()
    };
    let (output, _) = model.forward_with(input, Some(state), options);
    last_step(output)
}

/// One initial state for all sequences, from U[0, 1).
struct UniformState {
    cell: Vec<f32>,
    hidden: Vec<f32>,
}

impl UniformState {
    fn draw(rng: &mut impl Rng, size: usize) -> Self {
        let mut vector = || (0..size).map(|_| rng.random()).collect();
        Self {
            hidden: vector(),
            cell: vector(),
        }
    }

    /// The state of `model` with these values in its (first) layer, for the parts that it has; the
    /// adaptation state of an aLSTM starts at zero.
    fn expand(&self, model: &Recurrent, batch_size: usize, device: &Device) -> RecurrentState {
        let rows = |values: &[f32]| {
            let row = TensorData::new(values.to_vec(), [1, values.len()]);
            Tensor::<2>::from_data(row, device).expand([batch_size, values.len()])
        };
        let mut state = model.initial_state(batch_size, device);
        for (name, part) in &mut state.cells[0].parts {
            match *name {
                "cell" | "main cell" => *part = rows(&self.cell),
                "hidden" | "main hidden" => *part = rows(&self.hidden),
                _ => {}
            }
        }
        state
    }
}

/// Per-sequence masks: those of the last sequence of `trained`, for all; per-step masks: `fresh`.
fn keep_last_sequence(trained: &StackMasks, fresh: StackMasks) -> StackMasks {
    let last = |trained: Option<&Mask>, fresh: Option<&Mask>| match (trained, fresh) {
        (Some(Mask::PerSequence(mask)), Some(Mask::PerSequence(all))) => {
            let [rows, features] = mask.dims();
            let row = mask.clone().slice([rows - 1..rows, 0..features]);
            Some(Mask::PerSequence(row.expand(all.dims())))
        }
        (_, fresh) => fresh.cloned(),
    };
    let cells = trained
        .cells
        .iter()
        .zip(&fresh.cells)
        .map(|(trained, fresh)| Masks::from_fn(|place| last(trained.get(place), fresh.get(place))))
        .collect();
    StackMasks {
        cells,
        weights: trained.weights.clone(),
        between: fresh.between,
    }
}

/// A recurrent model with a linear readout on its last hidden state.
#[derive(Module, Debug)]
struct Readout {
    recurrent: Recurrent,
    linear: Linear,
}

impl Readout {
    fn forward(&self, input: Tensor<3>) -> Tensor<2> {
        let (output, _) = self.recurrent.forward(input, None);
        self.linear.forward(last_step(output))
    }
}

/// Outcome of one run with a readout; errors are means per test sequence.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReadoutErrors {
    /// On the training sequences, in evaluation mode.
    pub train: f64,
    /// On the test sequences, in evaluation mode.
    pub test: f64,
    /// Of the best constant prediction (fitted on the training sequences), on the test sequences.
    pub chance: f64,
}

/// Trains with a linear readout, and evaluates on held-out sequences.
///
/// # Arguments
/// * `strategy` - how sequences are run
/// * `device` - without autodiff
pub fn with_readout(
    config: &RecurrentConfig,
    protocol: &Protocol,
    strategy: Strategy,
    seed: u64,
    device: &Device,
) -> ReadoutErrors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let training = device.clone().autodiff();
    training.seed(seed);
    let recurrent = config.init(&training).with_strategy(strategy);
    let data = Data::draw(&mut rng, protocol.train, protocol, &training);
    let test = Data::draw(&mut rng, protocol.test, protocol, &training);
    // The targets are symmetric about their mean, which is then the best constant prediction. The
    // readout starts there; from 0 it would spend most of the training on getting there.
    let constant = data.target.clone().mean_dim(0);
    let mut linear = LinearConfig::new(recurrent.d_output(), protocol.size).init(&training);
    linear.bias = Some(Param::from_tensor(constant.clone().squeeze_dim::<1>(0)));
    let mut model = Readout { recurrent, linear };
    let mut optimizer = AdamConfig::new().init();

    for _ in 0..protocol.epochs {
        for start in (0..data.len()).step_by(protocol.batch_size) {
            let (input, target) = data.batch(start, protocol.batch_size);
            let mean = loss(model.forward(input), target) / protocol.batch_size as f64;
            let gradients = GradientsParams::from_grads(mean.backward(), &model);
            model = optimizer.step(protocol.rate, model, gradients);
        }
    }

    let model = model.valid();
    let plain = training.inner();
    let error = |data: &Data| {
        let output = model.forward(data.input.clone().to_device(&plain));
        let target = data.target.clone().to_device(&plain);
        scalar(loss(output, target)) / data.len() as f64
    };
    let constant = constant.expand(test.target.dims());
    ReadoutErrors {
        train: error(&data),
        test: error(&test),
        chance: scalar(loss(constant, test.target.clone())) / test.len() as f64,
    }
}

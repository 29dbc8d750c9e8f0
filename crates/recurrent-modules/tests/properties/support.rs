//! Variants under test, seeded data, and the comparison of whole calls.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Shape, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_core::eval::device::{chosen, device};
use recurrent_core::{Mask, Masks};
use recurrent_modules::cells::Cell;
use recurrent_modules::{
    CifgLstmConfig, Coupling, ForwardOptions, GruConfig, Layer, LayerNormConfig,
    LayerNormLstmConfig, LstmConfig, MogrifierLstmConfig, NormConfig, OutputPeephole, PeepholeKind,
    PeepholeLstmConfig, Recurrent, RecurrentConfig, RecurrentDropout, RecurrentState,
    SlowLstmConfig, StackMasks, UrLstmConfig, by_variant,
};

// Sizes: all distinct, none a multiple of a vector width.
pub const B: usize = 3;
pub const T: usize = 5;
pub const I: usize = 7;
pub const H: usize = 11;
pub const P: usize = 6;

/// The variants with the four gates of the LSTM and nothing beside them, with sizes [`I`] and [`H`].
pub fn lstm_variants() -> Vec<(&'static str, RecurrentConfig)> {
    vec![
        ("Lstm", RecurrentConfig::Lstm(LstmConfig::new(I, H))),
        (
            "SlowLstm",
            RecurrentConfig::SlowLstm(SlowLstmConfig::new(I, H)),
        ),
        (
            "LayerNormLstm",
            RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::new(I, H)),
        ),
        (
            "LayerNormLstm, lstms_pth",
            RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::lstms_pth(I, H)),
        ),
        (
            "LayerNormLstm, cell only",
            RecurrentConfig::LayerNormLstm(
                LayerNormLstmConfig::new(I, H)
                    .with_norm_input(None)
                    .with_norm_hidden(None)
                    .with_norm_cell(Some(NormConfig::bradbury())),
            ),
        ),
    ]
}

/// Both forms of the GRU, with sizes [`I`] and [`H`].
pub fn gru_variants() -> Vec<(&'static str, RecurrentConfig)> {
    let config = GruConfig::new(I, H);
    let before = config.clone().with_reset_after(false);
    vec![
        ("Gru", RecurrentConfig::Gru(config)),
        ("Gru, reset before", RecurrentConfig::Gru(before)),
    ]
}

/// Whether the variant has a cell state and the options on it: projection, clip, Moon's dropout, zoneout of
/// c. The others refuse them.
pub fn has_cell_state(config: &RecurrentConfig) -> bool {
    !matches!(config, RecurrentConfig::Gru(_))
}

/// The config with a projection, where the variant has one.
pub fn projected(config: RecurrentConfig) -> RecurrentConfig {
    let d_proj = has_cell_state(&config).then_some(P);
    config.with_d_proj(d_proj)
}

/// Features of the output of one direction of a [`projected`] config.
pub fn projected_size(config: &RecurrentConfig) -> usize {
    if has_cell_state(config) { P } else { H }
}

/// Every variant but the aLSTM, and the forms of those that have several.
pub fn variants() -> Vec<(&'static str, RecurrentConfig)> {
    let mut list = lstm_variants();
    list.extend(gru_variants());
    list.extend([
        (
            "CifgLstm",
            RecurrentConfig::CifgLstm(CifgLstmConfig::new(I, H)),
        ),
        (
            "CifgLstm, capped, layer norm",
            RecurrentConfig::CifgLstm(
                CifgLstmConfig::new(I, H)
                    .with_coupling(Coupling::CappedInput)
                    .with_layer_norm(Some(LayerNormConfig::new())),
            ),
        ),
        (
            "PeepholeLstm",
            RecurrentConfig::PeepholeLstm(PeepholeLstmConfig::new(I, H)),
        ),
        (
            "PeepholeLstm, full, previous cell, coupled",
            RecurrentConfig::PeepholeLstm(
                PeepholeLstmConfig::new(I, H)
                    .with_peephole(PeepholeKind::Full)
                    .with_output_looks_at(OutputPeephole::PreviousCell)
                    .with_coupling(Coupling::CappedInput),
            ),
        ),
        ("UrLstm", RecurrentConfig::UrLstm(UrLstmConfig::new(I, H))),
        (
            "UrLstm, ordered, layer norm",
            RecurrentConfig::UrLstm(
                UrLstmConfig::ordered(I, H).with_layer_norm(Some(LayerNormConfig::new())),
            ),
        ),
        (
            "MogrifierLstm",
            RecurrentConfig::MogrifierLstm(MogrifierLstmConfig::new(I, H)),
        ),
        (
            "MogrifierLstm, low rank, shared, bias, cap",
            RecurrentConfig::MogrifierLstm(
                MogrifierLstmConfig::new(I, H)
                    .with_rounds(4)
                    .with_rank(Some(1)) // fits every size
                    .with_share_rounds(true)
                    .with_round_bias(true)
                    .with_cap_input_gate(true),
            ),
        ),
    ]);
    let names: BTreeSet<_> = list.iter().map(|(_, config)| config.name()).collect();
    assert_eq!(names.len(), 8, "a variant is missing here");
    list
}

/// Ways to put cells together, in one direction.
pub fn containers(config: &RecurrentConfig) -> Vec<(&'static str, RecurrentConfig)> {
    let has_cell_state = has_cell_state(config);
    let config = || config.clone();
    let mut list = vec![
        ("plain", config()),
        ("time-major", config().with_batch_first(false)),
        ("no bias", config().with_bias(false)),
        ("three layers", config().with_num_layers(3)),
        (
            "listed sizes",
            config()
                .with_num_layers(3)
                .with_layer_sizes(Some(vec![8, 13, H])),
        ),
        (
            "projection, two layers, time-major",
            projected(config())
                .with_num_layers(2)
                .with_batch_first(false),
        ),
    ];
    if has_cell_state {
        list.push(("projection, clip", projected(config()).with_clip(Some(0.2))));
    }
    list
}

/// [`containers`] and those with a backward direction.
pub fn all_containers(config: &RecurrentConfig) -> Vec<(&'static str, RecurrentConfig)> {
    let mut list = containers(config);
    let config = || config.clone();
    list.push(("reverse", config().with_reverse(true)));
    list.push((
        "reverse, two layers",
        config().with_reverse(true).with_num_layers(2),
    ));
    list.push(("bidirectional", config().with_bidirectional(true)));
    list.push((
        "bidirectional, listed sizes, projection, time-major",
        projected(config())
            .with_bidirectional(true)
            .with_num_layers(2)
            .with_layer_sizes(Some(vec![9, H]))
            .with_batch_first(false),
    ));
    list
}

/// Each kind of recurrent dropout that the variant has, with the given probability.
pub fn dropouts(config: &RecurrentConfig, prob: f64) -> Vec<RecurrentDropout> {
    let mut kinds = vec![
        RecurrentDropout::Standard { prob },
        RecurrentDropout::Gal { prob },
        RecurrentDropout::Semeniuta { prob },
        zoneout(config, prob, prob),
    ];
    if has_cell_state(config) {
        kinds.push(RecurrentDropout::Moon { prob });
    }
    kinds
}

/// Zoneout of all parts of the variant's state.
pub fn zoneout(config: &RecurrentConfig, hidden: f64, cell: f64) -> RecurrentDropout {
    let cell = if has_cell_state(config) { cell } else { 0.0 };
    RecurrentDropout::Zoneout { hidden, cell }
}

/// Flex, or the device that was asked for.
pub fn flex() -> Device {
    device().autodiff()
}

/// The autodiff devices that cheap properties run on.
pub fn devices() -> Vec<Device> {
    match chosen() {
        Some((_, device)) => vec![device.autodiff()],
        None => {
            #[allow(deprecated)]
            let ndarray = Device::ndarray().autodiff();
            vec![flex(), ndarray]
        }
    }
}

pub fn value_tolerance() -> Tolerance {
    Tolerance::values(DType::F32, T)
}

pub fn gradient_tolerance() -> Tolerance {
    Tolerance::gradients(DType::F32, T)
}

/// Numbers from a seeded host generator: the same whatever else runs.
pub struct Numbers(ChaCha8Rng);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn list(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.0.random_range(-1.0..1.0)).collect()
    }

    /// Uniform in (−1, 1).
    pub fn tensor<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let list = self.list(shape.iter().product());
        Tensor::from_data(TensorData::new(list, shape), device)
    }

    /// `scale` with probability `keep`, else 0.
    pub fn mask<const D: usize>(
        &mut self,
        shape: [usize; D],
        keep: f64,
        scale: f32,
        device: &Device,
    ) -> Tensor<D> {
        let count = shape.iter().product();
        let list: Vec<f32> = (0..count)
            .map(|_| if self.0.random_bool(keep) { scale } else { 0.0 })
            .collect();
        Tensor::from_data(TensorData::new(list, shape), device)
    }
}

struct Fill {
    numbers: Numbers,
    bound: f32,
}

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape: [usize; D] = param.lazy_shape().dims();
        let device = param.lazy_device();
        let value = self.numbers.tensor(shape, &device) * self.bound;
        let mut filled = Param::from_tensor(value);
        filled.id = param.id;
        filled
    }
}

/// The module with every parameter drawn from U(−0.6, 0.6), gains and shifts too.
pub fn filled<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut Fill {
        numbers: Numbers::new(seed),
        bound: 0.6,
    })
}

/// A filled module of a config.
pub fn build(config: &RecurrentConfig, seed: u64, device: &Device) -> Recurrent {
    filled(config.init(device), seed)
}

/// Calls `f` with the path and value of each float parameter.
pub fn each_parameter<M: Module>(module: &M, f: impl FnMut(&str, &dyn AnyParam)) {
    struct Visit<F> {
        path: Vec<String>,
        f: F,
    }
    impl<F: FnMut(&str, &dyn AnyParam)> ModuleVisitor for Visit<F> {
        fn enter_module(&mut self, name: &str, container: &str) {
            // Without the name of the variant, so that variants can be compared.
            let is_variant = container.starts_with("Enum");
            self.path.push(if is_variant {
                String::new()
            } else {
                name.to_string()
            });
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let path: Vec<&str> = self
                .path
                .iter()
                .map(String::as_str)
                .filter(|name| !name.is_empty())
                .collect();
            (self.f)(&path.join("."), param);
        }
    }
    module.visit(&mut Visit { path: vec![], f });
}

/// A parameter of any rank.
pub trait AnyParam {
    fn values(&self) -> Vec<f64>;
    fn shape(&self) -> Shape;
    fn requires_grad(&self) -> bool;
    fn gradient(&self, gradients: &Gradients) -> Option<Vec<f64>>;
}

impl<const D: usize> AnyParam for Param<Tensor<D>> {
    fn values(&self) -> Vec<f64> {
        values(&self.val())
    }
    fn shape(&self) -> Shape {
        self.val().shape()
    }
    fn requires_grad(&self) -> bool {
        self.val().is_require_grad()
    }
    fn gradient(&self, gradients: &Gradients) -> Option<Vec<f64>> {
        self.val().grad(gradients).map(|gradient| values(&gradient))
    }
}

/// Values by name: outputs, and gradients under `grad.…`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results(pub BTreeMap<String, Vec<f64>>);

impl Results {
    pub fn get(&self, name: &str) -> &[f64] {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no `{name}` among {:?}", self.0.keys()))
    }

    /// Every entry is close, and neither side has one that the other lacks.
    #[track_caller]
    pub fn assert_close(&self, expected: &Self, context: &str) {
        self.assert_keys(expected, context);
        for (name, expected) in &expected.0 {
            let tolerance = if name.starts_with("grad.") {
                gradient_tolerance()
            } else {
                value_tolerance()
            };
            if let Err(message) = close(name, &self.0[name], expected, tolerance) {
                panic!("{context}: {message}");
            }
        }
    }

    /// Every entry is equal to the bit (0 and −0 apart).
    #[track_caller]
    pub fn assert_same(&self, expected: &Self, context: &str) {
        self.assert_keys(expected, context);
        for (name, expected) in &expected.0 {
            assert_same(&format!("{context}: {name}"), &self.0[name], expected);
        }
    }

    #[track_caller]
    fn assert_keys(&self, expected: &Self, context: &str) {
        let keys = |results: &Self| results.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(self), keys(expected), "{context}");
    }

    /// The entries whose name passes.
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let mut results = self.clone();
        results.0.retain(|name, _| keep(name));
        results
    }

    pub fn is_finite(&self) -> bool {
        self.0.values().flatten().all(|value| value.is_finite())
    }
}

#[track_caller]
pub fn assert_same(context: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{context}");
    for (index, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            a == b,
            "{context}[{index}]: got {a}, expected exactly {b} (difference {:e})",
            a - b
        );
    }
}

#[track_caller]
pub fn assert_differs(context: &str, a: &[f64], b: &[f64]) {
    assert!(
        close(context, a, b, Tolerance(1e-3)).is_err(),
        "{context}: equal, expected a difference"
    );
}

/// A call's data: leaves whose gradients are recorded.
pub struct Problem {
    pub input: Tensor<3>,
    pub state: RecurrentState,
}

impl Problem {
    /// Random input and initial state that fit the module.
    pub fn new(module: &Recurrent, batch_first: bool, seed: u64, device: &Device) -> Self {
        Self::sized(module, batch_first, B, T, seed, device)
    }

    pub fn sized(
        module: &Recurrent,
        batch_first: bool,
        batch_size: usize,
        seq_length: usize,
        seed: u64,
        device: &Device,
    ) -> Self {
        let mut numbers = Numbers::new(seed);
        let d_input = module.d_input();
        let mut input = numbers.tensor([seq_length, batch_size, d_input], device);
        if batch_first {
            input = input.swap_dims(0, 1);
        }
        let state = module.initial_state(batch_size, device);
        Self {
            input,
            state: state.map(|part| numbers.tensor(part.dims(), device)),
        }
    }
}

/// A tensor as a leaf that keeps its gradient.
pub fn leaf<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    let tensor = Tensor::from_data(tensor.to_data(), &tensor.device());
    if tensor.device().is_autodiff() {
        tensor.require_grad()
    } else {
        tensor
    }
}

pub fn named_state(state: &RecurrentState) -> Vec<(String, Tensor<2>)> {
    let cells = state.cells.iter().enumerate();
    cells
        .flat_map(|(index, state)| {
            let parts = state.iter();
            parts.map(move |(part, tensor)| (format!("state.{index}.{part}"), tensor.clone()))
        })
        .collect()
}

/// What a call returns.
pub type Output = (Tensor<3>, RecurrentState);

/// Runs `call` on leaves made of the problem; records outputs, final states, and the gradients of
/// the input, the initial state and every parameter, with fixed random cotangents on the outputs
/// and the final states together.
pub fn record<M: Module>(
    module: &M,
    problem: &Problem,
    call: impl FnOnce(Tensor<3>, RecurrentState) -> Output,
) -> Results {
    let input = leaf(&problem.input);
    let state = problem.state.clone().map(|part| leaf(&part));
    let initial = named_state(&state);
    let (output, finals) = call(input.clone(), state);
    let mut results = Results::default();
    let mut loss = cotangent_loss(&output, 1000);
    for (index, (name, tensor)) in named_state(&finals).into_iter().enumerate() {
        loss = loss + cotangent_loss(&tensor, 2000 + index as u64);
        results.0.insert(name, values(&tensor));
    }
    results.0.insert("output".to_string(), values(&output));
    if output.device().is_autodiff() {
        let gradients = loss.backward();
        let mut insert = |name: String, gradient: Option<Vec<f64>>| {
            if let Some(gradient) = gradient {
                results.0.insert(format!("grad.{name}"), gradient);
            }
        };
        insert(
            "input".into(),
            input.grad(&gradients).map(|tensor| values(&tensor)),
        );
        for (name, tensor) in initial {
            insert(name, tensor.grad(&gradients).map(|tensor| values(&tensor)));
        }
        each_parameter(module, |path, param| {
            insert(path.to_string(), param.gradient(&gradients));
        });
    }
    results
}

/// `Σ w ⊙ tensor` with fixed random w.
pub fn cotangent_loss<const D: usize>(tensor: &Tensor<D>, seed: u64) -> Tensor<1> {
    let weights = Numbers::new(seed).tensor(tensor.dims(), &tensor.device());
    (tensor.clone() * weights).sum()
}

/// Runs `f(name, config, module, problem)` for each variant in each of the given containers.
pub fn for_each(
    containers: impl Fn(&RecurrentConfig) -> Vec<(&'static str, RecurrentConfig)>,
    device: &Device,
    mut f: impl FnMut(&str, &RecurrentConfig, &Recurrent, &Problem),
) {
    for (variant, config) in variants() {
        for (container, config) in containers(&config) {
            let module = build(&config, 11, device);
            let problem = Problem::new(&module, config.batch_first, 12, device);
            let name = format!("{variant}, {container}, {device:?}");
            f(&name, &config, &module, &problem);
        }
    }
}

/// Units and output features of each cell, in state order.
pub fn cell_sizes(module: &Recurrent) -> Vec<(usize, usize)> {
    by_variant!(Recurrent: module, |stack| stack
        .layers
        .iter()
        .flat_map(Layer::cells)
        .map(|cell| (Cell::d_hidden(cell), Cell::d_output(cell)))
        .collect())
}

/// Output features of each layer.
pub fn layer_widths(module: &Recurrent) -> Vec<usize> {
    by_variant!(Recurrent: module, |stack| stack
        .layers
        .iter()
        .map(Layer::d_output)
        .collect())
}

/// Masks of every kind that the variant has at once, per step and per sequence in turn.
pub fn random_masks(
    module: &Recurrent,
    seq_length: usize,
    batch_size: usize,
    seed: u64,
    device: &Device,
) -> StackMasks {
    let mut numbers = Numbers::new(seed);
    let mut turn = 0;
    let mut mask = |features: usize, scale: f32| {
        turn += 1;
        if turn % 2 == 0 {
            Mask::PerStep(numbers.mask([seq_length, batch_size, features], 0.6, scale, device))
        } else {
            Mask::PerSequence(numbers.mask([batch_size, features], 0.6, scale, device))
        }
    };
    let has_cell_state = has_cell_state(&RecurrentConfig::of(module));
    let cells = cell_sizes(module)
        .into_iter()
        .map(|(d_hidden, d_output)| Masks {
            hidden: Some(mask(d_output, 1.25)),
            cell: has_cell_state.then(|| mask(d_hidden, 1.25)),
            candidate: Some(mask(d_hidden, 1.25)),
            update_hidden: Some(mask(d_output, 1.0)),
            update_cell: has_cell_state.then(|| mask(d_hidden, 1.0)),
            ..Masks::none()
        })
        .collect();
    let mut widths = layer_widths(module);
    widths.pop();
    let between = widths
        .into_iter()
        .map(|width| Some(numbers.mask([seq_length, batch_size, width], 0.6, 1.5, device)))
        .collect();
    StackMasks {
        cells,
        between,
        ..StackMasks::default()
    }
}

/// A call with given masks.
pub fn with_masks(masks: &StackMasks) -> ForwardOptions<'_> {
    ForwardOptions {
        masks: Some(masks),
        ..ForwardOptions::default()
    }
}

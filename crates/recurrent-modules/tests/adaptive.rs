//! The aLSTM: identities, container features, errors. Values against the original are in `golden`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::config::Config;
use burn::module::{Module, ModuleVisitor, Param};
use burn::store::ModuleRecord;
use burn::tensor::{DType, Device, Distribution, Gradients, Tensor};
use recurrent_core::eval;
use recurrent_core::eval::compare::{Tolerance, assert_close, close, values};
use recurrent_modules::cells::Cell;
use recurrent_modules::{
    AdaptiveLstm, AdaptiveLstmConfig, AdaptiveState, ForwardOptions, InvalidConfig,
    LayerNormConfig, Lengths, LstmConfig, NamedState, PolicyLayout, RecurrentConfig,
    RecurrentDropout, StackState, State, Strategy,
};
use rstest::rstest;

const B: usize = 3;
const T: usize = 5;
const I: usize = 7;
const H: usize = 6;
const A: usize = 4;
const VALUES: Tolerance = Tolerance(5e-6);
const GRADIENTS: Tolerance = Tolerance(5e-5);

fn device() -> Device {
    eval::device::device().autodiff()
}

/// Normal numbers that depend on the shape and `salt` only.
fn random<const D: usize>(shape: [usize; D], salt: usize) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let list: Vec<f32> = (0..count)
        .map(|k| ((k * 37 + salt * 101) as f32 * 0.7311).sin())
        .collect();
    Tensor::<1>::from_floats(list.as_slice(), &device()).reshape(shape)
}

fn config() -> AdaptiveLstmConfig {
    AdaptiveLstmConfig::stacked(I, [11, 6]).with_d_adapt(A)
}

fn variants() -> Vec<AdaptiveLstmConfig> {
    vec![
        AdaptiveLstmConfig::new(I, 11).with_d_adapt(A),
        config(),
        config().with_bias(false),
        config().with_policy_layout(PolicyLayout::Overlapping),
        config().with_d_proj(Some(5)).with_clip(Some(0.3)),
        config().with_layer_norm(Some(LayerNormConfig::new())),
    ]
}

fn flat(state: &StackState<AdaptiveState>) -> Vec<f64> {
    let tensors = state.cells.iter().flat_map(|s| s.clone().into_tensors());
    tensors.flat_map(|tensor| values(&tensor)).collect()
}

fn assert_same(name: &str, got: &StackState<AdaptiveState>, expected: &StackState<AdaptiveState>) {
    let parts = got.cells.iter().zip(&expected.cells);
    assert_eq!(got.cells.len(), expected.cells.len());
    for (got, expected) in parts {
        let (got, expected) = (got.clone().into_tensors(), expected.clone().into_tensors());
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert_close(name, got, &values(expected), VALUES);
        }
    }
}

fn random_state(lstm: &AdaptiveLstm) -> StackState<AdaptiveState> {
    lstm.initial_state(B, &device())
        .map(|tensor| random(tensor.dims(), tensor.dims()[1]))
}

/// Whether every parameter has a gradient that is not all zero.
struct Arrived<'a>(&'a Gradients, Vec<String>);

impl ModuleVisitor for Arrived<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let arrived = param
            .val()
            .grad(self.0)
            .is_some_and(|gradient| values(&gradient).iter().any(|&g| g != 0.0));
        if !arrived {
            self.1.push(format!("{:?}", param.val().dims()));
        }
    }
}

#[test]
fn a_policy_of_ones_makes_it_the_lstm() {
    let device = device();
    let cell = AdaptiveLstmConfig::new(I, 6).init_cell(&device);
    let mut plain = LstmConfig::new(I, 6).init_cell(&device);
    plain.gates = cell.gates.clone();
    let x = random([B, I], 1).require_grad();
    let state = || burn::nn::LstmState {
        cell: random([B, 6], 2),
        hidden: random([B, 6], 3),
    };
    let ones = Tensor::ones([B, cell.policy_size()], &device);
    let weights = random([B, 6], 4);
    let run = |output: Tensor<2>, state: burn::nn::LstmState<2>| {
        let loss = (output.clone() * weights.clone()).sum() + (state.cell.clone() * 0.3).sum();
        let gradients = loss.backward();
        let of = |param: &Param<Tensor<2>>| param.val().grad(&gradients).expect("a gradient");
        let bias = cell.gates.bias.as_ref().expect("a bias").val();
        [
            values(&output),
            values(&state.cell),
            values(&x.grad(&gradients).expect("a gradient")),
            values(&of(&cell.gates.weight_input)),
            values(&of(&cell.gates.weight_hidden)),
            values(&bias.grad(&gradients).expect("a gradient")),
        ]
    };
    let (output, next) = cell.step(x.clone(), ones, Some(state()));
    let got = run(output, next);
    let (output, next) = plain.step(x.clone(), Some(state()));
    for (index, (got, expected)) in got.iter().zip(&run(output, next)).enumerate() {
        let name = format!("result {index}");
        close(&name, got, expected, GRADIENTS).unwrap();
    }
}

#[test]
fn a_policy_acts_on_every_part() {
    let cell = AdaptiveLstmConfig::new(I, 6).init_cell(&device());
    let policy = random([B, cell.policy_size()], 5).require_grad();
    let state = burn::nn::LstmState {
        cell: random([B, 6], 2),
        hidden: random([B, 6], 3),
    };
    let (output, _) = cell.step(random([B, I], 1), policy.clone(), Some(state));
    let gradient = policy.grad(&output.sum().backward()).expect("a gradient");
    let zeros = values(&gradient).iter().filter(|&&g| g == 0.0).count();
    // Only the biases that start at 0 leave their p_b without a gradient: all but the forget gate's.
    assert_eq!(zeros, B * 3 * 6);
}

#[test]
fn both_directions_are_two_models() {
    let device = device();
    let both = config().with_bidirectional(true).init(&device);
    let mut forward = config().init(&device);
    forward.layers[0].forward = both.layers[0].forward.clone();
    let mut backward = config().with_reverse(true).init(&device);
    backward.layers[0].forward = both.layers[0].backward.clone().expect("a backward model");

    let x = random([B, T, I], 1);
    let state = random_state(&both);
    let lengths = Lengths::new([3, 5, 1], T).unwrap();
    for lengths in [None, Some(&lengths)] {
        let options = ForwardOptions {
            lengths,
            ..ForwardOptions::default()
        };
        let half = |lstm: &AdaptiveLstm, index: usize| {
            let state = StackState::from(state.cells[index].clone());
            lstm.forward_with(x.clone(), Some(state), options)
        };
        let (first, first_state) = half(&forward, 0);
        let (second, second_state) = half(&backward, 1);
        let (output, last) = both.forward_with(x.clone(), Some(state.clone()), options);
        let expected = Tensor::cat(vec![first, second], 2);
        assert_close("output", &output, &values(&expected), VALUES);
        let cells = [first_state.cells, second_state.cells].concat();
        assert_same("state", &last, &StackState { cells });
    }
}

#[test]
fn with_lengths_each_sequence_runs_alone() {
    let lengths = [3, 5, 1];
    for config in variants() {
        for reverse in [false, true] {
            let lstm = config.clone().with_reverse(reverse).init(&device());
            let x = random([B, T, I], 1);
            let state = random_state(&lstm);
            let all = Lengths::new(lengths, T).unwrap();
            let options = ForwardOptions {
                lengths: Some(&all),
                ..ForwardOptions::default()
            };
            let (output, last) = lstm.forward_with(x.clone(), Some(state.clone()), options);
            for (row, length) in lengths.into_iter().enumerate() {
                let alone = x.clone().slice([row..row + 1, 0..length, 0..I]);
                let start = StackState::from(state.last().clone().rows(row..row + 1));
                let (expected, expected_state) = lstm.forward(alone, Some(start));
                let d = lstm.d_output();
                let got = output.clone().slice([row..row + 1, 0..length, 0..d]);
                assert_close("output", &got, &values(&expected), VALUES);
                let got = StackState::from(last.last().clone().rows(row..row + 1));
                assert_same("state", &got, &expected_state);
                if length < T {
                    let padding = output.clone().slice([row..row + 1, length..T, 0..d]);
                    assert!(values(&padding).iter().all(|&v| v == 0.0));
                }
            }

            // What the padding holds changes nothing.
            let mut other = random([B, T, I], 9);
            for (row, length) in lengths.into_iter().enumerate() {
                let range = [row..row + 1, 0..length, 0..I];
                other = other.slice_assign(range.clone(), x.clone().slice(range));
            }
            let (again, again_state) = lstm.forward_with(other, Some(state), options);
            assert_eq!(values(&again), values(&output));
            assert_eq!(flat(&again_state), flat(&last));
        }
    }
}

#[test]
fn a_sequence_is_a_fold_of_steps_and_may_be_cut() {
    for config in variants() {
        let lstm = config.init(&device());
        let x = random([B, T, I], 1);
        let start = random_state(&lstm);
        let (output, last) = lstm.forward(x.clone(), Some(start.clone()));

        let mut state = start.clone();
        let mut steps = vec![];
        for t in 0..T {
            let step = x.clone().slice([0..B, t..t + 1, 0..I]).reshape([B, I]);
            let (y, next) = lstm.step(step, Some(state));
            steps.push(y);
            state = next;
        }
        let folded: Tensor<3> = Tensor::stack(steps, 1);
        assert_close("steps", &folded, &values(&output), VALUES);
        assert_same("state of steps", &state, &last);

        let (first, middle) = lstm.forward(x.clone().slice([0..B, 0..2, 0..I]), Some(start));
        let (second, end) = lstm.forward(x.slice([0..B, 2..T, 0..I]), Some(middle));
        let joined = Tensor::cat(vec![first, second], 1);
        assert_close("pieces", &joined, &values(&output), VALUES);
        assert_same("state of pieces", &end, &last);
    }
}

#[test]
fn save_and_load_give_the_same_model() {
    let directory = tempfile::tempdir().unwrap();
    let x = random([B, T, I], 1);
    for (index, config) in variants().into_iter().enumerate() {
        let config = config.with_bidirectional(true);
        let lstm = config.init(&device());
        let expected = values(&lstm.forward(x.clone(), None).0);
        let path = directory.path().join(format!("model{index}"));
        lstm.clone().into_record().save(&path).unwrap();
        let other = config.init(&device());
        assert_ne!(values(&other.forward(x.clone(), None).0), expected);
        let loaded = other.load_record(ModuleRecord::load(&path).unwrap());
        assert_eq!(values(&loaded.forward(x.clone(), None).0), expected);
    }
}

#[rstest]
#[case::none(RecurrentDropout::None)]
#[case::standard(RecurrentDropout::Standard { prob: 0.2 })]
#[case::gal(RecurrentDropout::Gal { prob: 0.2 })]
#[case::moon(RecurrentDropout::Moon { prob: 0.2 })]
#[case::semeniuta(RecurrentDropout::Semeniuta { prob: 0.2 })]
#[case::zoneout(RecurrentDropout::Zoneout { hidden: 0.2, cell: 0.3 })]
fn gradients_arrive_with_every_dropout(#[case] dropout: RecurrentDropout) {
    let device = device();
    device.seed(3);
    for config in variants() {
        if config.policy_layout == PolicyLayout::Overlapping {
            continue; // leaves a part of P unused, as the published code does
        }
        let config = config.with_bidirectional(true).with_dropout_adapt(0.1);
        let lstm = config.with_recurrent_dropout(dropout).init(&device);
        let x = random([B, T, I], 1);
        let lengths = Lengths::new([3, 5, 2], T).unwrap();
        let options = ForwardOptions {
            lengths: Some(&lengths),
            ..ForwardOptions::default()
        };
        let (output, _) = lstm.forward_with(x.clone(), None, options);
        let gradients = (output.clone() * random(output.dims(), 2)).sum().backward();
        let mut arrived = Arrived(&gradients, vec![]);
        lstm.visit(&mut arrived);
        assert_eq!(arrived.1, Vec::<String>::new(), "{dropout:?}");

        // One draw of masks: the sequence is the same in one piece and in steps.
        let one_way = config_of_one_direction(dropout).init(&device);
        let masks = one_way.sample_masks(T, B, &device);
        let options = ForwardOptions {
            masks: Some(&masks),
            ..ForwardOptions::default()
        };
        let (output, last) = one_way.forward_with(x.clone(), None, options);
        let mut state = None;
        for t in 0..T {
            let step = x.clone().slice([0..B, t..t + 1, 0..I]).reshape([B, I]);
            let (y, next) = one_way.step_with(step, state, &masks, t);
            let expected = output.clone().slice([0..B, t..t + 1, 0..6]);
            assert_close("step", &y, &values(&expected), VALUES);
            state = Some(next);
        }
        assert_same("state", &state.expect("five steps"), &last);
    }
}

fn config_of_one_direction(dropout: RecurrentDropout) -> AdaptiveLstmConfig {
    config()
        .with_dropout_adapt(0.3)
        .with_recurrent_dropout(dropout)
}

/// The mask on h acts on the state, not on the output of the last layer.
#[test]
fn the_output_is_not_dropped() {
    let device = device();
    // No mask on z: with all of a sequence's z dropped its policy, and so its output, would be 0.
    let lstm = AdaptiveLstmConfig::gal(I, 40, 0.5, 0.0)
        .with_d_adapt(A)
        .init(&device);
    let (output, state) = lstm.forward(random([B, T, I], 1), None);
    let zeros = |list: Vec<f64>| list.iter().filter(|&&v| v == 0.0).count();
    assert_eq!(zeros(values(&output)), 0);
    assert!(zeros(values(&state.last().main[0].hidden)) > 20);
    assert_eq!(zeros(values(&state.last().adapt[0].hidden)), 0);
    assert_eq!(zeros(values(&state.last().main[0].cell)), 0);

    let lstm = AdaptiveLstmConfig::gal(I, 4, 0.0, 0.5)
        .with_d_adapt(40)
        .init(&device);
    let (_, state) = lstm.forward(random([B, T, I], 1), None);
    assert!(zeros(values(&state.last().adapt[0].hidden)) > 20);
    assert_eq!(zeros(values(&state.last().main[0].hidden)), 0);
}

#[test]
fn it_starts_as_published() {
    let lstm = config().init(&device());
    let cell = &lstm.layers[0].forward.layers[0].cell;
    let rows = cell.gates.weight_input.val();
    let product = rows.clone().matmul(rows.transpose());
    let identity = Tensor::<2>::eye(I, &device());
    assert_close("W·Wᵀ", &product, &values(&identity), Tolerance(1e-5));
    let bias = values(&cell.gates.bias.as_ref().expect("a bias").val());
    let expected = [vec![0.0; 11], vec![1.0; 11], vec![0.0; 22]].concat();
    assert_eq!(bias, expected);
}

#[test]
fn json_round_trip_and_run_time_choice() {
    let own = config().with_bidirectional(true).with_dropout_adapt(0.1);
    let json = RecurrentConfig::AdaptiveLstm(own.clone()).to_string();
    let read = RecurrentConfig::load_binary(json.as_bytes()).unwrap();
    assert_eq!(read, RecurrentConfig::AdaptiveLstm(own));
    assert_eq!(read.name(), "AdaptiveLstm");

    let plain = eval::device::device();
    let any = read.init(&plain);
    let x = || Tensor::<3>::random([B, T, I], Distribution::Default, &plain);
    let (first, state) = any.forward(x(), None);
    assert_eq!(first.dims(), [B, T, 12]);
    let parts = ["main cell", "main hidden", "adapt cell", "adapt hidden"];
    for state in &state.cells {
        assert_eq!(
            state.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            parts
        );
    }
    let width = |state: &NamedState| state.part("main cell").dims()[1];
    let widths: Vec<usize> = state.cells.iter().map(width).collect();
    assert_eq!(widths, [11, 11, 6, 6]);
    let (_, again) = any.forward(x(), Some(state.clone()));
    assert_eq!(again.cells.len(), any.initial_state(B, &plain).cells.len());

    // The state is handed on as it stands: the same as through the stack itself.
    let recurrent_modules::Recurrent::AdaptiveLstm(stack) = &any else {
        panic!("an aLSTM")
    };
    let x = x();
    let options = ForwardOptions::default();
    let (_, own, own_histories) = stack.forward_histories(x.clone(), None, options);
    let (expected, _) = stack.forward(x.clone(), Some(own.clone()));
    let (_, named, histories) = any.forward_histories(x.clone(), None, options);
    let (got, _) = any.forward(x, Some(named.clone()));
    assert_eq!(values(&got), values(&expected));

    // Layer by layer and direction by direction; the model's own state is direction by direction.
    assert_eq!((named.cells.len(), histories.len()), (4, 4));
    for layer in 0..2 {
        for (direction, own) in own.cells.iter().enumerate() {
            let index = layer * 2 + direction;
            for (name, expected) in [
                ("main cell", &own.main[layer].cell),
                ("main hidden", &own.main[layer].hidden),
                ("adapt cell", &own.adapt[layer].cell),
                ("adapt hidden", &own.adapt[layer].hidden),
            ] {
                let got = named.cells[index].part(name);
                assert_eq!(values(&got), values(expected), "{index}: {name}");
            }
            let of_layer = &own_histories[direction].parts[4 * layer..4 * layer + 4];
            assert_eq!(histories[index].parts.len(), 4);
            for ((name, expected), (got_name, got)) in of_layer.iter().zip(&histories[index].parts)
            {
                assert_eq!(got_name, name);
                assert_eq!(values(got), values(expected), "{index}: {name}");
            }
        }
    }
    let back = stack.typed_state(named);
    assert_eq!(flat(&back), flat(&own));
}

/// A state of the one in another's place would be read as another layer's.
#[test]
fn states_of_another_model_are_refused() {
    let plain = eval::device::device();
    let any = RecurrentConfig::AdaptiveLstm(config()).init(&plain);
    let x = || Tensor::<3>::ones([B, T, I], &plain);
    let good = || any.initial_state(B, &plain);
    let mut short = good();
    short.cells[1].parts.pop();
    let mut swapped = good();
    swapped.cells[1].parts.swap(0, 2);
    let mut missing = good();
    missing.cells.pop();
    let mut narrow = good();
    narrow.cells[1].parts[2].1 = Tensor::zeros([B, A + 1], &plain);
    let expected = "expected [\"main cell\", \"main hidden\", \"adapt cell\", \"adapt hidden\"]";
    for (state, parts) in [
        (short, ["state of cell 1 has the parts", expected]),
        (swapped, ["[\"adapt cell\", \"main hidden\"", expected]),
        (
            missing,
            ["state has 1 cells", "layers × directions = 2 × 1 = 2"],
        ),
        (narrow, ["state `adapt cell` has shape [3, 5]", "= [3, 4]"]),
    ] {
        let text = panic_of(|| {
            any.forward(x(), Some(state));
        });
        for part in parts {
            assert!(text.contains(part), "{text}");
        }
    }
    any.forward(x(), Some(good()));
}

#[rstest]
#[case::d_adapt(config().with_d_adapt(0), "`d_adapt` is 0")]
#[case::prob(config().with_dropout_adapt(1.0), "`dropout_adapt` is 1")]
#[case::dropout(config().with_dropout(0.5), "`dropout` and `AdaptiveLstm`")]
#[case::proj(config().with_d_proj(Some(6)), "`d_proj` is 6")]
#[case::forget(
    config().with_bias(false).with_forget_bias(Some(1.0)),
    "`bias` and `forget_bias`"
)]
#[case::reverse(
    config().with_bidirectional(true).with_reverse(true),
    "`bidirectional` and `reverse`"
)]
#[case::layers(config().with_num_layers(3), "`num_layers` and `layer_sizes`")]
#[case::empty(AdaptiveLstmConfig::stacked(I, []), "`layer_sizes` is []")]
#[case::clip(config().with_clip(Some(-1.0)), "`clip` is -1")]
fn config_errors(#[case] config: AdaptiveLstmConfig, #[case] part: &str) {
    let error: InvalidConfig = config.validate().unwrap_err();
    assert!(error.to_string().contains(part), "{error}");
    assert_eq!(config.try_init(&device()).unwrap_err(), error);
}

#[test]
fn a_bare_cell_has_one_layer_and_no_dropout() {
    let single = AdaptiveLstmConfig::new(I, 6);
    assert!(single.try_init_cell(&device()).is_ok());
    assert!(config().try_init_cell(&device()).is_err());
    let dropped = single.with_dropout_adapt(0.1);
    assert!(dropped.try_init_cell(&device()).is_err());
}

fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("a panic");
    panic.downcast_ref::<String>().expect("a text").clone()
}

#[test]
fn misfits_are_named() {
    let device = device();
    let cell = AdaptiveLstmConfig::new(I, 6).init_cell(&device);
    let size = cell.policy_size();
    assert_eq!(size, I + 6 + 12 * 6);
    let call = |rows: usize, features: usize| {
        panic_of(|| {
            cell.step(random([B, I], 1), random([rows, features], 2), None);
        })
    };
    let expected = format!("expected [batch_size, policy_size] = [{B}, {size}]");
    for (rows, features) in [(B, size + 1), (1, size)] {
        let text = call(rows, features);
        let got = format!("policy has shape [{rows}, {features}]");
        assert!(text.contains(&got) && text.contains(&expected), "{text}");
    }

    let lstm = config().init(&device);
    let other = AdaptiveLstmConfig::new(I, 6).with_d_adapt(A).init(&device);
    let text = panic_of(|| {
        let state = other.initial_state(B, &device);
        lstm.forward(random([B, T, I], 1), Some(state));
    });
    assert!(text.contains("state has 4 tensors, expected 8"), "{text}");
    assert_eq!(lstm.layers[0].forward.d_output(), 6);
}

/// Layer 1 with all its weights at zero puts out 0, so that with the residual connection the model
/// is its first layer; and a weight mask of zeros takes the recurrence out.
#[test]
fn residual_connections_add_the_input_of_a_layer() {
    let device = device();
    let config = AdaptiveLstmConfig::new(I, H)
        .with_d_adapt(A)
        .with_num_layers(2)
        .with_residual(true);
    let mut lstm = config.init(&device);
    // Candidates of tanh(0) = 0: the cell and with it h stay 0.
    let cell = &mut lstm.layers[0].forward.layers[1].cell;
    let zeros = |weight: Tensor<2>| Param::from_tensor(weight.zeros_like());
    cell.gates.weight_input = zeros(cell.gates.weight_input.val());
    cell.gates.weight_hidden = zeros(cell.gates.weight_hidden.val());
    let bias = cell.gates.bias.as_ref().expect("a bias").val();
    cell.gates.bias = Some(Param::from_tensor(bias.zeros_like()));
    let input = random([B, T, I], 1);
    let (output, state) = lstm.forward(input, None);
    let last = output.clone().slice([0..B, T - 1..T, 0..H]).reshape([B, H]);
    let first_layer = values(&state.last().main[0].hidden);
    assert!(first_layer.iter().any(|&v| v != 0.0));
    assert_close("first layer", &last, &first_layer, Tolerance(1e-6));

    let error = AdaptiveLstmConfig::stacked(I, [6, 4])
        .with_residual(true)
        .validate();
    let message = error.expect_err("sizes differ").to_string();
    assert!(message.contains("`residual`") && message.contains("6") && message.contains("4"));
}

#[test]
fn weight_drop_masks_every_recurrent_weight() {
    let device = device();
    let lstm = AdaptiveLstmConfig::new(I, H)
        .with_d_adapt(A)
        .with_num_layers(2)
        .with_weight_drop(0.5)
        .init(&device);
    let mut masks = lstm.sample_masks(T, B, &device);
    assert_eq!(
        masks.weights[0].len(),
        4,
        "R and the adaptation R of two layers"
    );
    for mask in &mut masks.weights[0] {
        let kept = values(mask);
        assert!(kept.iter().all(|&v| v == 0.0 || v == 2.0));
        *mask = mask.zeros_like();
    }
    let options = ForwardOptions {
        masks: Some(&masks),
        ..ForwardOptions::default()
    };
    let (output, _) = lstm.forward_with(random([B, T, I], 1), None, options);
    let gradients = output.sum().backward();
    let layer = &lstm.layers[0].forward.layers[0];
    for weight in [
        &layer.cell.gates.weight_hidden,
        &layer.adapt.gates.weight_hidden,
    ] {
        let gradient = weight.val().grad(&gradients).expect("a gradient");
        assert!(values(&gradient).iter().all(|&v| v == 0.0));
    }
}

/// Gradients of all parameters, in order.
struct Collected<'a>(&'a Gradients, Vec<(String, Vec<f64>)>);

impl ModuleVisitor for Collected<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.0).expect("a gradient");
        let name = format!("gradient {} {:?}", self.1.len(), gradient.dims());
        self.1.push((name, values(&gradient)));
    }
}

/// Output, last state, and the gradients of input, initial state and parameters.
fn results(lstm: &AdaptiveLstm, options: ForwardOptions<'_>) -> Vec<(String, Vec<f64>)> {
    let x = random([B, T, I], 1).require_grad();
    let start = random_state(lstm).map(Tensor::require_grad);
    let (output, last) = lstm.forward_with(x.clone(), Some(start.clone()), options);
    let parts = |state: &StackState<AdaptiveState>| -> Vec<Tensor<2>> {
        let cells = state.cells.iter();
        cells.flat_map(|cell| cell.clone().into_tensors()).collect()
    };
    let mut loss = (output.clone() * random(output.dims(), 2)).sum();
    let mut results = vec![("output".to_string(), values(&output))];
    for (index, tensor) in parts(&last).into_iter().enumerate() {
        results.push((format!("state {index}"), values(&tensor)));
        loss = loss + (tensor.clone() * random(tensor.dims(), index + 3)).sum();
    }
    let gradients = loss.backward();
    let of_input = x.grad(&gradients).expect("a gradient");
    results.push(("gradient of the input".to_string(), values(&of_input)));
    for (index, tensor) in parts(&start).iter().enumerate() {
        let gradient = tensor.grad(&gradients).expect("a gradient");
        results.push((format!("gradient of state {index}"), values(&gradient)));
    }
    let mut collected = Collected(&gradients, results);
    lstm.visit(&mut collected);
    collected.1
}

#[rstest]
#[case::none(RecurrentDropout::None, 0.0)]
#[case::adapt(RecurrentDropout::None, 0.3)]
#[case::standard(RecurrentDropout::Standard { prob: 0.3 }, 0.0)]
#[case::gal(RecurrentDropout::Gal { prob: 0.3 }, 0.3)]
#[case::moon(RecurrentDropout::Moon { prob: 0.3 }, 0.0)]
#[case::semeniuta(RecurrentDropout::Semeniuta { prob: 0.3 }, 0.3)]
#[case::zoneout(RecurrentDropout::Zoneout { hidden: 0.3, cell: 0.4 }, 0.3)]
fn the_kernel_gives_what_the_steps_give(#[case] dropout: RecurrentDropout, #[case] adapt: f64) {
    let device = device();
    device.seed(5);
    let lengths = Lengths::new([3, 5, 2], T).unwrap();
    let configs = [
        AdaptiveLstmConfig::new(I, 11).with_d_adapt(A),
        config(),
        config().with_bias(false),
        config().with_policy_layout(PolicyLayout::Overlapping),
        AdaptiveLstmConfig::stacked(I, [5, 18, 3])
            .with_d_adapt(17)
            .with_clip(Some(0.3)),
    ];
    for (index, config) in configs.into_iter().enumerate() {
        let config = config
            .with_bidirectional(true)
            .with_dropout_adapt(adapt)
            .with_recurrent_dropout(dropout);
        let lstm = config.init(&device);
        let masks = lstm.sample_masks(T, B, &device);
        for lengths in [None, Some(&lengths)] {
            let options = ForwardOptions {
                lengths,
                masks: Some(&masks),
            };
            let run = |strategy| results(&lstm.clone().with_strategy(strategy), options);
            let (got, expected) = (run(Strategy::Fused), run(Strategy::Composed));
            assert_eq!(got.len(), expected.len());
            for ((name, got), (_, expected)) in got.iter().zip(&expected) {
                let name = format!("config {index}, {dropout:?}: {name}");
                close(&name, got, expected, GRADIENTS).unwrap();
            }
        }
    }
}

/// What the kernel does not know runs step by step.
#[rstest]
#[case::norm(config().with_layer_norm(Some(LayerNormConfig::new())), "with layer normalisation")]
#[case::projection(config().with_d_proj(Some(5)), "with a projection")]
#[case::residual(
    AdaptiveLstmConfig::stacked(I, [6, 6]).with_residual(true),
    "with residual connections between its layers"
)]
#[case::deep(AdaptiveLstmConfig::stacked(I, [6; 8]), "of more than 7 layers")]
fn there_is_no_kernel(#[case] config: AdaptiveLstmConfig, #[case] reason: &str) {
    let lstm = config.init(&device());
    let unfused = lstm.unfused(&device(), DType::F32).expect("a reason");
    assert_eq!(
        unfused.to_string(),
        format!("there is no fused kernel for an adaptive LSTM {reason}"),
    );
    lstm.forward(random([B, T, I], 1), None);
    let text = panic_of(|| {
        let fused = lstm.with_strategy(Strategy::Fused);
        fused.forward(random([B, T, I], 1), None);
    });
    assert!(text.contains(reason), "{text}");
}

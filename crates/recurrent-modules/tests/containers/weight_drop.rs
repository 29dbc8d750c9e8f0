//! Weight drop: R' = M ⊙ R, one M per call.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use recurrent_core::equations::dropout::StepMasks;
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_core::{LstmState, Step};
use recurrent_modules::cells::Cell;
use recurrent_modules::{
    ForwardOptions, GruConfig, InvalidConfig, Layer, LstmConfig, SlowLstmConfig, StackConfig,
    StackMasks,
};

use crate::support::*;

const PROB: f64 = 0.4;

fn config() -> LstmConfig {
    LstmConfig::new(I, H)
        .with_num_layers(2)
        .with_bidirectional(true)
        .with_weight_drop(PROB)
}

fn given(masks: &StackMasks) -> ForwardOptions<'_> {
    ForwardOptions {
        masks: Some(masks),
        ..ForwardOptions::default()
    }
}

/// The gradient of R is M ⊙ the gradient of R' = M ⊙ R: zero exactly where M is, else scaled.
#[test]
fn gradients_are_masked() {
    let device = autodiff();
    let lstm = config().init(&device);
    let input = tensor([B, T, I], 0.0, &device);
    let masks = lstm.sample_masks(T, B, &device);
    assert_eq!(masks.cells.len(), 4);

    // Its recurrent weights are R' themselves.
    let mut dropped = lstm.clone();
    let mut index = 0;
    for layer in &mut dropped.layers {
        for cell in [Some(&mut layer.forward), layer.backward.as_mut()] {
            let weight = &mut cell.expect("both directions").gates.weight_hidden;
            let mask = masks.weights[index][0].clone();
            *weight = Param::from_tensor((weight.val() * mask).detach().require_grad());
            index += 1;
        }
    }
    let (output, _) = lstm.forward_with(input.clone(), None, given(&masks));
    let (expected, _) = dropped.forward_with(input, None, given(&StackMasks::default()));
    assert_close(&output, &expected);

    let weights = tensor(output.dims(), 0.4, &device);
    let grads = (output * weights.clone()).sum().backward();
    let dropped_grads = (expected * weights).sum().backward();
    let cells = lstm.layers.iter().flat_map(Layer::cells);
    let twins = dropped.layers.iter().flat_map(Layer::cells);
    let scale = 1.0 / (1.0 - PROB);
    for ((cell, twin), masks) in cells.zip(twins).zip(&masks.weights) {
        let raw = cell.gates.weight_hidden.val().grad(&grads);
        let raw = values(&raw.expect("a gradient of R"));
        let effective = twin.gates.weight_hidden.val().grad(&dropped_grads);
        let effective = values(&effective.expect("a gradient of R'"));
        let mask = values(&masks[0]);
        assert_eq!(mask.len(), H * 4 * H);
        let mut zeros = 0;
        for ((raw, effective), mask) in raw.iter().zip(effective).zip(mask) {
            assert_ne!(effective, 0.0);
            if mask == 0.0 {
                assert_eq!(*raw, 0.0);
                zeros += 1;
            } else {
                assert!((mask - scale).abs() < 1e-6);
                assert!((raw - scale * effective).abs() < 1e-5 * effective.abs().max(1.0));
            }
        }
        let share = zeros as f64 / (H * 4 * H) as f64;
        assert!(
            (share - PROB).abs() < 0.12,
            "{share} of the weights dropped"
        );
    }
}

/// A GRU whose R is masked by hand computes the same, in both forms.
#[test]
fn a_gru_drops_its_recurrent_weights() {
    let device = autodiff();
    for reset_after in [true, false] {
        let gru = GruConfig::new(I, H)
            .with_reset_after(reset_after)
            .with_weight_drop(PROB)
            .init(&device);
        let input = tensor([B, T, I], 0.0, &device);
        let masks = gru.sample_masks(T, B, &device);
        let mask = &masks.weights[0][0];
        assert_eq!((masks.weights[0].len(), mask.dims()), (1, [H, 3 * H]));
        let mut dropped = gru.clone();
        let weight = &mut dropped.layers[0].forward.weight_hidden;
        *weight = Param::from_tensor((weight.val() * mask.clone()).detach());
        let (output, _) = gru.forward_with(input.clone(), None, given(&masks));
        let none = StackMasks::default();
        let (expected, _) = dropped.forward_with(input.clone(), None, given(&none));
        assert_close(&output, &expected);
        let (plain, _) = gru.forward_with(input, None, given(&none));
        assert_ne!(values(&plain), values(&output));

        let gradients = output.sum().backward();
        let weight = &gru.layers[0].forward.weight_hidden;
        let gradient = values(&weight.val().grad(&gradients).expect("a gradient of R"));
        for (gradient, mask) in gradient.iter().zip(values(mask)) {
            assert_eq!(*gradient == 0.0, mask == 0.0);
        }
    }
}

/// One mask for all steps of a call: stepping with it is the forward.
#[test]
fn one_mask_for_all_steps() {
    let device = autodiff();
    let lstm = config().with_bidirectional(false).init(&device);
    let input = tensor([B, T, I], 0.0, &device);
    let masks = lstm.sample_masks(T, B, &device);
    let (output, last) = lstm.forward_with(input.clone(), None, given(&masks));
    let mut state = None;
    for t in 0..T {
        let x = input.clone().slice([0..B, t..t + 1, 0..I]).reshape([B, I]);
        let (y, next) = lstm.step_with(x, state, &masks, t);
        let expected = output.clone().slice([0..B, t..t + 1, 0..H]).reshape([B, H]);
        assert_close(&y, &expected);
        state = Some(next);
    }
    assert_close(&state.expect("a state").last().cell, &last.last().cell);
    // The mask does something, and the same one does the same again.
    let (plain, _) = lstm.forward_with(input.clone(), None, given(&StackMasks::default()));
    assert_ne!(values(&plain), values(&output));
    let (again, _) = lstm.forward_with(input, None, given(&masks));
    assert_eq!(values(&again), values(&output));
}

#[test]
fn training_only() {
    let device = autodiff();
    let lstm = config().init(&device);
    let mut without = lstm.clone();
    without.weight_drop = 0.0;
    let input = tensor([B, T, I], 0.0, &device);
    let run = |lstm: &recurrent_modules::Lstm| values(&lstm.forward(input.clone(), None).0);
    let expected = run(&without);
    let first = run(&lstm);
    assert_ne!(first, expected);
    assert_ne!(first, run(&lstm), "the same mask in two calls");
    assert_eq!(run(&lstm.clone().freeze()), expected);
    let inner = input.clone().without_autodiff();
    let valid = values(&lstm.valid().forward(inner, None).0);
    assert_lists_close(&valid, &expected);
}

/// Four matrices, four masks.
#[test]
fn per_gate_weights() {
    let device = autodiff();
    let slow = SlowLstmConfig::new(I, H)
        .with_weight_drop(PROB)
        .init(&device);
    let masks = slow.sample_masks(T, B, &device);
    let weights = &masks.weights[0];
    assert_eq!(weights.len(), 4);
    assert!(weights.iter().all(|mask| mask.dims() == [H, H]));
    let input = tensor([B, T, I], 0.0, &device);
    let (output, _) = slow.forward_with(input, None, given(&masks));
    let grads = output.sum().backward();
    let cell = &slow.layers[0].forward;
    let gates = [
        &cell.input_gate,
        &cell.forget_gate,
        &cell.cell_gate,
        &cell.output_gate,
    ];
    for (gate, mask) in gates.into_iter().zip(weights) {
        let grad = gate.hidden_transform.weight.val().grad(&grads);
        for (grad, mask) in values(&grad.expect("a gradient")).iter().zip(values(mask)) {
            assert_eq!(*grad == 0.0, mask == 0.0);
        }
    }
}

#[test]
#[should_panic(
    expected = "mask `weights[0]` has shape [11, 11], expected that of the recurrent \
                           weight, [11, 44]"
)]
fn mask_of_another_shape() {
    run_with(|device| vec![Tensor::ones([H, H], device)]);
}

#[test]
#[should_panic(
    expected = "got 2 masks `weights`, expected one per recurrent weight of the cell: 1"
)]
fn too_many_masks() {
    run_with(|device| vec![Tensor::ones([H, 4 * H], device); 2]);
}

fn run_with(weights: impl Fn(&Device) -> Vec<Tensor<2>>) {
    let device = device();
    let lstm = LstmConfig::new(I, H).init(&device);
    let mut masks = lstm.sample_masks(T, B, &device);
    masks.weights = vec![weights(&device)];
    let _ = lstm.forward_with(tensor([B, T, I], 0.0, &device), None, given(&masks));
}

#[test]
fn probabilities_are_checked() {
    for prob in [1.0, -0.1, f64::NAN] {
        let error = LstmConfig::new(I, H)
            .with_weight_drop(prob)
            .validate()
            .expect_err("no probability");
        assert!(error.to_string().contains("weight_drop"), "{error}");
    }
}

/// Keeps the sum of its inputs; has no weights.
#[derive(Module, Debug)]
struct SumCell {
    size: usize,
}

struct SumStep(usize);

impl Step for SumStep {
    type State = LstmState<2>;

    fn d_input(&self) -> usize {
        self.0
    }

    fn d_hidden(&self) -> usize {
        self.0
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        vec![("cell", self.0), ("hidden", self.0)]
    }

    fn step(&self, x: Tensor<2>, state: LstmState<2>, _: &StepMasks) -> (Tensor<2>, LstmState<2>) {
        let sum = state.hidden + x;
        let state = LstmState::new(state.cell, sum.clone());
        (sum, state)
    }
}

impl Cell for SumCell {
    type Step = SumStep;

    fn bind(&self) -> SumStep {
        SumStep(self.size)
    }

    fn d_input(&self) -> usize {
        self.size
    }

    fn d_hidden(&self) -> usize {
        self.size
    }
}

#[test]
fn cells_without_recurrent_weights() {
    let init = |prob: f64| -> Result<_, InvalidConfig> {
        StackConfig::new(I, I)
            .with_weight_drop(prob)
            .try_init_with(|_, size| Ok(SumCell { size }))
    };
    assert!(init(0.0).is_ok());
    let error = init(0.5).expect_err("nothing to drop").to_string();
    assert!(error.contains("weight_drop"), "{error}");
    assert!(error.contains("recurrent_weights"), "{error}");
}

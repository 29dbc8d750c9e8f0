//! Identities between the variants: each with its extra piece taken out is the plain LSTM.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recurrent_core::equations::ur;
use recurrent_core::eval::compare::{Tolerance, assert_close, values};
use recurrent_core::eval::device::device;
use recurrent_core::{Gate, GateLayout};
use recurrent_modules::cells::GateWeights;
use recurrent_modules::{
    CifgLstmConfig, Coupling, GateInit, GateMechanism, LstmConfig, MogrifierLstmConfig,
    OutputPeephole, PeepholeKind, PeepholeLstmConfig, UrLstmConfig,
};

const I: usize = 5;
const H: usize = 7;

fn numbers<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let data: Vec<f32> = (0..count)
        .map(|_| rng.random::<f32>() * 2.0 - 1.0)
        .collect();
    Tensor::from_data(TensorData::new(data, shape), device)
}

/// Gate blocks by letter, so that two layouts can be filled with the same numbers.
struct Blocks {
    input: Vec<(Gate, Tensor<2>)>,
    hidden: Vec<(Gate, Tensor<2>)>,
    bias: Vec<(Gate, Tensor<1>)>,
}

impl Blocks {
    fn new(device: &Device) -> Self {
        let gates = [Gate::Input, Gate::Forget, Gate::Candidate, Gate::Output];
        let each = |seed: u64| gates.into_iter().zip(seed..);
        Self {
            input: each(1)
                .map(|(g, s)| (g, numbers([I, H], s, device)))
                .collect(),
            hidden: each(11)
                .map(|(g, s)| (g, numbers([H, H], s, device)))
                .collect(),
            bias: each(21)
                .map(|(g, s)| (g, numbers([H], s, device)))
                .collect(),
        }
    }

    fn negated(mut self, gate: Gate, of: Gate) -> Self {
        let from = |list: &Vec<(Gate, Tensor<2>)>| {
            list.iter()
                .find(|(g, _)| *g == of)
                .expect("a gate")
                .1
                .clone()
                .neg()
        };
        let (w, r) = (from(&self.input), from(&self.hidden));
        let b = self
            .bias
            .iter()
            .find(|(g, _)| *g == of)
            .expect("a gate")
            .1
            .clone()
            .neg();
        self.input
            .iter_mut()
            .find(|(g, _)| *g == gate)
            .expect("a gate")
            .1 = w;
        self.hidden
            .iter_mut()
            .find(|(g, _)| *g == gate)
            .expect("a gate")
            .1 = r;
        self.bias
            .iter_mut()
            .find(|(g, _)| *g == gate)
            .expect("a gate")
            .1 = b;
        self
    }

    fn fill(&self, gates: &mut GateWeights, layout: GateLayout) {
        fn pick<const D: usize>(
            list: &[(Gate, Tensor<D>)],
            layout: GateLayout,
        ) -> Param<Tensor<D>> {
            let blocks = layout.gates().iter().map(|gate| {
                let (_, block) = list.iter().find(|(g, _)| g == gate).expect("a gate");
                block.clone()
            });
            Param::from_tensor(Tensor::cat(blocks.collect(), D - 1))
        }
        gates.weight_input = pick(&self.input, layout);
        gates.weight_hidden = pick(&self.hidden, layout);
        gates.bias = Some(pick(&self.bias, layout));
    }
}

fn x(device: &Device) -> Tensor<3> {
    numbers([3, 6, I], 99, device)
}

fn plain(blocks: &Blocks, device: &Device) -> Vec<f64> {
    let mut lstm = LstmConfig::new(I, H).init(device);
    blocks.fill(&mut lstm.layers[0].forward.gates, GateLayout::LSTM);
    values(&lstm.forward(x(device), None).0)
}

const CLOSE: Tolerance = Tolerance(2e-6);

#[test]
fn coupled_gates_are_the_lstm_with_negated_weights() {
    let device = device();
    let run = |coupling: Coupling, blocks: &Blocks| {
        let mut lstm = CifgLstmConfig::new(I, H)
            .with_coupling(coupling)
            .init(&device);
        blocks.fill(&mut lstm.layers[0].forward.gates, coupling.layout());
        lstm.forward(x(&device), None).0
    };
    // i = 1 − σ(z_f) = σ(−z_f)
    let blocks = Blocks::new(&device).negated(Gate::Input, Gate::Forget);
    let expected = plain(&blocks, &device);
    assert_close(
        "i = 1 - f",
        &run(Coupling::InputFromForget, &blocks),
        &expected,
        CLOSE,
    );
    assert_close(
        "capped",
        &run(Coupling::CappedInput, &blocks),
        &expected,
        CLOSE,
    );

    let blocks = Blocks::new(&device).negated(Gate::Forget, Gate::Input);
    let expected = plain(&blocks, &device);
    assert_close(
        "f = 1 - i",
        &run(Coupling::ForgetFromInput, &blocks),
        &expected,
        CLOSE,
    );
}

#[test]
fn the_cap_bites_only_above_it() {
    let device = device();
    let mut config = CifgLstmConfig::new(I, H).with_coupling(Coupling::CappedInput);
    let blocks = Blocks::new(&device);
    // Forget gates near 0: 1 − f is near 1, above every input gate.
    config.forget_bias = None;
    let mut lstm = config.init(&device);
    blocks.fill(&mut lstm.layers[0].forward.gates, GateLayout::LSTM);
    let shift = |by: f32, gates: &GateWeights| {
        let bias = gates.bias.as_ref().expect("bias").val();
        let mut data = vec![0.0f32; 4 * H];
        data[H..2 * H].fill(by);
        let shift = Tensor::<1>::from_data(TensorData::new(data, [4 * H]), &device);
        Some(Param::from_tensor(bias + shift))
    };
    let run_plain = |by: f32| {
        let mut lstm = LstmConfig::new(I, H).init(&device);
        let gates = &mut lstm.layers[0].forward.gates;
        blocks.fill(gates, GateLayout::LSTM);
        gates.bias = shift(by, gates);
        values(&lstm.forward(x(&device), None).0)
    };
    let gates = &mut lstm.layers[0].forward.gates;
    let bias = gates.bias.clone();
    gates.bias = shift(-30.0, gates);
    assert_close(
        "idle cap",
        &lstm.forward(x(&device), None).0,
        &run_plain(-30.0),
        CLOSE,
    );
    // Forget gates at 1: nothing may enter, the output stays 0.
    let gates = &mut lstm.layers[0].forward.gates;
    gates.bias = bias;
    gates.bias = shift(30.0, gates);
    let out = values(&lstm.forward(x(&device), None).0);
    assert!(out.iter().all(|v| v.abs() < 1e-6), "{out:?}");
}

#[test]
fn zero_peepholes_are_the_lstm() {
    let device = device();
    let blocks = Blocks::new(&device);
    let expected = plain(&blocks, &device);
    for kind in [PeepholeKind::Diagonal, PeepholeKind::Full] {
        for looks_at in [OutputPeephole::NewCell, OutputPeephole::PreviousCell] {
            let mut lstm = PeepholeLstmConfig::new(I, H)
                .with_peephole(kind)
                .with_output_looks_at(looks_at)
                .with_peephole_initializer(Some(burn::nn::Initializer::Zeros))
                .init(&device);
            blocks.fill(&mut lstm.layers[0].forward.gates, GateLayout::LSTM);
            let name = format!("{kind:?} {looks_at:?}");
            assert_close(&name, &lstm.forward(x(&device), None).0, &expected, CLOSE);
        }
    }
}

#[test]
fn no_rounds_and_neutral_rounds_are_the_lstm() {
    let device = device();
    let blocks = Blocks::new(&device);
    let expected = plain(&blocks, &device);
    for rounds in [0, 5] {
        let mut lstm = MogrifierLstmConfig::new(I, H)
            .with_rounds(rounds)
            .init(&device);
        let cell = &mut lstm.layers[0].forward;
        blocks.fill(&mut cell.gates, GateLayout::LSTM);
        // Q = R = 0: every gate is 2 σ(0) = 1.
        for round in &mut cell.rounds {
            round.left = Param::from_tensor(round.left.val().zeros_like());
        }
        let out = lstm.forward(x(&device), None).0;
        assert_close(&format!("{rounds} rounds"), &out, &expected, CLOSE);
    }
}

#[test]
fn shared_rounds_are_equal_rounds() {
    let device = device();
    let blocks = Blocks::new(&device);
    let mut shared = MogrifierLstmConfig::new(I, H)
        .with_share_rounds(true)
        .init(&device);
    let mut own = MogrifierLstmConfig::new(I, H).init(&device);
    blocks.fill(&mut shared.layers[0].forward.gates, GateLayout::LSTM);
    blocks.fill(&mut own.layers[0].forward.gates, GateLayout::LSTM);
    let rounds = shared.layers[0].forward.rounds.clone();
    assert_eq!(rounds.len(), 2);
    for (index, round) in own.layers[0].forward.rounds.iter_mut().enumerate() {
        *round = rounds[index % 2].clone();
    }
    let expected = values(&own.forward(x(&device), None).0);
    assert_close(
        "shared",
        &shared.forward(x(&device), None).0,
        &expected,
        Tolerance(0.0),
    );
}

#[test]
fn effective_gate_lies_between_its_bounds_and_has_its_slope() {
    let device = device().autodiff();
    let unit = |seed| (numbers([4, 9], seed, &device) + 1.0) / 2.0;
    let (f, r) = (unit(1).require_grad(), unit(2).require_grad());
    let e = ur::effective_gate(f.clone(), r.clone());
    for ((e, f), r) in values(&e).into_iter().zip(values(&f)).zip(values(&r)) {
        let (low, high) = (f * f, 1.0 - (1.0 - f) * (1.0 - f));
        assert!(
            e >= low - 1e-6 && e <= high + 1e-6,
            "{e} not in [{low}, {high}]"
        );
        assert!((e - (r * high + (1.0 - r) * low)).abs() < 1e-6);
    }
    let cotangent = numbers([4, 9], 3, &device);
    let gradients = (e * cotangent.clone()).sum().backward();
    let (by_f, by_r) = ur::effective_gate_backward(f.clone(), r.clone());
    let plain = cotangent.inner();
    let expected = |slope: Tensor<2>| values(&(slope.inner() * plain.clone()));
    assert_close("f", &f.grad(&gradients).expect("f"), &expected(by_f), CLOSE);
    assert_close("r", &r.grad(&gradients).expect("r"), &expected(by_r), CLOSE);
}

#[test]
fn refine_gate_at_a_half_leaves_the_forget_gate_alone() {
    // e = 2·½·f + 0·f² = f: UR with z_r = b (tied, −b) is the standard mechanism.
    let device = device();
    let mut ur = UrLstmConfig::refine_only(I, H).init(&device);
    let mut standard = UrLstmConfig::uniform_only(I, H)
        .with_gate_init(GateInit::Constant { value: 0.0 })
        .init(&device);
    let mut blocks = Blocks::new(&device);
    blocks.fill(
        &mut standard.layers[0].forward.gates,
        GateMechanism::Standard.layout(),
    );
    blocks
        .input
        .push((Gate::Refine, Tensor::zeros([I, H], &device)));
    blocks
        .hidden
        .push((Gate::Refine, Tensor::zeros([H, H], &device)));
    blocks
        .bias
        .push((Gate::Refine, Tensor::zeros([H], &device)));
    blocks.fill(
        &mut ur.layers[0].forward.gates,
        GateMechanism::Refine.layout(),
    );
    let expected = values(&standard.forward(x(&device), None).0);
    assert_close("r = 1/2", &ur.forward(x(&device), None).0, &expected, CLOSE);
}

#[test]
fn master_gates_rise_over_the_units() {
    let device = device();
    let steps = values(&ur::cumax(numbers([1, H], 5, &device)));
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    assert!((steps[H - 1] - 1.0).abs() < 1e-6);
}

#[test]
fn gate_initialisations_follow_their_laws() {
    for device in [device(), device().autodiff()] {
        let size = 400;
        let bias = |init: GateInit| {
            let lstm = UrLstmConfig::new(I, size)
                .with_gate_init(init)
                .init(&device);
            values(&lstm.layers[0].forward.forget_bias.val())
        };
        let edge = 1.0 / size as f64;
        let u: Vec<f64> = bias(GateInit::Uniform)
            .iter()
            .map(|b| 1.0 / (1.0 + (-b).exp()))
            .collect();
        assert!(u.iter().all(|&u| u > edge - 1e-6 && u < 1.0 - edge + 1e-6));
        let mean = u.iter().sum::<f64>() / size as f64;
        assert!((mean - 0.5).abs() < 0.1, "mean {mean}");
        assert!(u.iter().any(|&u| u < 0.1) && u.iter().any(|&u| u > 0.9));

        let chrono = bias(GateInit::Chrono { t_max: 100 });
        assert!(chrono.iter().all(|&b| (0.0..=99f64.ln()).contains(&b)));
        assert!(chrono.iter().any(|&b| b > 4.0) && chrono.iter().any(|&b| b < 3.0));

        // The plain LSTM: the law fills the forget block, chrono mirrors it in the input block.
        let lstm = LstmConfig::new(I, H)
            .with_gate_init(Some(GateInit::Chrono { t_max: 50 }))
            .init(&device);
        let b = values(
            &lstm.layers[0]
                .forward
                .gates
                .bias
                .as_ref()
                .expect("bias")
                .val(),
        );
        for unit in 0..H {
            assert_eq!(b[unit], -b[H + unit]);
        }
    }
}

#[test]
fn uniform_initialisation_survives_one_and_two_units() {
    let device = device().autodiff();
    for size in [1, 2] {
        let lstm = UrLstmConfig::new(I, size).init(&device);
        let (out, _) = lstm.forward(x(&device), None);
        assert!(values(&out).iter().all(|v| v.is_finite()), "{size} units");
        assert!(
            values(&lstm.layers[0].forward.forget_bias.val())
                .iter()
                .all(|&b| b == 0.0)
        );
    }
}

#[test]
fn a_fixed_forget_bias_gets_no_gradient() {
    let device = device().autodiff();
    for trainable in [true, false] {
        let lstm = UrLstmConfig::new(I, H)
            .with_trainable_forget_bias(trainable)
            .init(&device);
        let gradients = lstm.forward(x(&device), None).0.sum().backward();
        let bias = lstm.layers[0].forward.forget_bias.val();
        assert_eq!(bias.grad(&gradients).is_some(), trainable);
    }
}

#[test]
fn untying_leaves_the_refine_gate_without_the_bias() {
    let device = device();
    let run = |tied: bool, value: f64| {
        let mut lstm = UrLstmConfig::new(I, H)
            .with_tied(tied)
            .with_gate_init(GateInit::Constant { value })
            .init(&device);
        let mut blocks = Blocks::new(&device);
        blocks
            .input
            .push((Gate::Refine, numbers([I, H], 31, &device)));
        blocks
            .hidden
            .push((Gate::Refine, numbers([H, H], 32, &device)));
        blocks.bias.push((Gate::Refine, numbers([H], 33, &device)));
        blocks.fill(&mut lstm.layers[0].forward.gates, GateLayout::UR);
        values(&lstm.forward(x(&device), None).0)
    };
    assert_eq!(run(true, 0.0), run(false, 0.0));
    assert_ne!(run(true, 0.7), run(false, 0.7));
}

#[test]
fn mistakes_are_named() {
    let message = |result: Result<(), recurrent_modules::InvalidConfig>| {
        result.expect_err("a mistake").to_string()
    };
    let m = message(
        CifgLstmConfig::new(I, H)
            .with_coupling(Coupling::Independent)
            .validate(),
    );
    assert!(m.contains("`coupling` is Independent"), "{m}");
    let m = message(
        CifgLstmConfig::new(I, H)
            .with_coupling(Coupling::ForgetFromInput)
            .with_forget_bias(Some(1.0))
            .validate(),
    );
    assert!(m.contains("`coupling` and `forget_bias`"), "{m}");
    let m = message(MogrifierLstmConfig::new(I, H).with_rank(Some(6)).validate());
    assert!(m.contains("`rank` is 6, expected at most 5"), "{m}");
    let m = message(MogrifierLstmConfig::new(I, H).with_rank(Some(0)).validate());
    assert!(m.contains("`rank` is 0"), "{m}");
    let m = message(
        UrLstmConfig::new(I, H)
            .with_gate_init(GateInit::Chrono { t_max: 2 })
            .validate(),
    );
    assert!(
        m.contains("`gate_init.t_max` is 2, expected at least 3"),
        "{m}"
    );
    let m = message(
        LstmConfig::new(I, H)
            .with_gate_init(Some(GateInit::Uniform))
            .with_forget_bias(Some(1.0))
            .validate(),
    );
    assert!(m.contains("`forget_bias` and `gate_init`"), "{m}");
}

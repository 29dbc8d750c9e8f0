//! Inputs and parameters on a plain device or on an autodiff one: the two together decide whether a
//! call trains, for every kind of dropout.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use recurrent_core::eval::compare::values;
use recurrent_modules::{
    AdaptiveLstmConfig, ForwardOptions, PackedSequence, Recurrent, RecurrentConfig,
    RecurrentDropout,
};

use crate::all_variants;
use crate::support::*;

/// Each variant with each kind of dropout that it has.
fn configs() -> Vec<(String, RecurrentConfig)> {
    let mut list = vec![];
    for (variant, config) in all_variants() {
        for kind in dropouts(&config, 0.5) {
            let config = config.clone().with_recurrent_dropout(kind);
            list.push((format!("{variant}, {kind:?}"), config));
        }
        let dropped = config.clone().with_weight_drop(0.5);
        list.push((format!("{variant}, weight drop"), dropped));
        if !matches!(config, RecurrentConfig::AdaptiveLstm(_)) {
            let between = config.with_num_layers(2).with_dropout(0.5);
            list.push((format!("{variant}, between layers"), between));
        }
    }
    let adapt = AdaptiveLstmConfig::new(I, H)
        .with_d_adapt(16) // two masks are the same once in 2⁴⁸ calls
        .with_dropout_adapt(0.5);
    list.push((
        "AdaptiveLstm, adapt".into(),
        RecurrentConfig::AdaptiveLstm(adapt),
    ));
    list
}

/// Every way to run a module.
fn outputs(module: &Recurrent, problem: &Problem) -> Vec<(&'static str, Vec<f64>)> {
    let (x, s) = (|| problem.input.clone(), || Some(problem.state.clone()));
    let options = ForwardOptions::default();
    let packed = PackedSequence::pack(x(), [T, 2, 3], true, false).unwrap();
    let step = x().narrow(1, 0, 1).squeeze_dim(1);
    let step = module.step(step, s()).0;
    vec![
        ("forward", values(&module.forward(x(), s()).0)),
        (
            "packed",
            values(&module.forward_packed(&packed, s()).0.data()),
        ),
        (
            "histories",
            values(&module.forward_histories(x(), s(), options).0),
        ),
        ("step", values(&step)),
    ]
}

/// Whether dropout acts: two calls differ.
fn drops(module: &Recurrent, problem: &Problem) -> Vec<(&'static str, bool)> {
    let (first, second) = (outputs(module, problem), outputs(module, problem));
    let pairs = first.into_iter().zip(second);
    pairs.map(|((name, a), (_, b))| (name, a != b)).collect()
}

#[track_caller]
fn assert_drops(name: &str, module: &Recurrent, problem: &Problem, expected: bool) {
    for (call, got) in drops(module, problem) {
        assert_eq!(got, expected, "{name}, {call}: does dropout act?");
    }
}

fn plain(device: &Device) -> Device {
    device.clone().without_autodiff()
}

#[test]
fn input_and_parameters_decide_together() {
    for device in devices() {
        for (name, config) in configs() {
            let name = format!("{name}, {device:?}");
            let trained = build(&config, 11, &device);
            let untracked = build(&config, 11, &plain(&device));
            let on_autodiff = Problem::new(&trained, true, 12, &device);
            let on_plain = Problem::new(&trained, true, 12, &plain(&device));
            if is_hidden_from_steps(&name) {
                continue;
            }
            assert_drops(&format!("{name}, both"), &trained, &on_autodiff, true);
            assert_drops(&format!("{name}, parameters"), &trained, &on_plain, true);
            assert_drops(&format!("{name}, input"), &untracked, &on_autodiff, true);
            assert_drops(&format!("{name}, neither"), &untracked, &on_plain, false);
            for problem in [&on_autodiff, &on_plain] {
                let frozen = trained.clone().freeze();
                assert_drops(&format!("{name}, frozen"), &frozen, problem, false);
                let valid = trained.valid();
                assert_drops(&format!("{name}, valid"), &valid, problem, false);
                // What is left is the expectation, the same on all devices.
                let expected = outputs(&valid, &on_plain);
                for ((call, got), (_, expected)) in outputs(&frozen, problem).iter().zip(&expected)
                {
                    assert_same(&format!("{name}, {call}"), got, expected);
                }
            }
        }
    }
}

/// The aLSTM's masks on h act on what later steps and layers read, not on the output of the step.
fn is_hidden_from_steps(name: &str) -> bool {
    let on_hidden = ["Standard", "Gal"].iter().any(|kind| name.contains(kind));
    name.starts_with("AdaptiveLstm,") && on_hidden && !name.contains("two layers")
}

/// What [`input_and_parameters_decide_together`] leaves out, without `step`.
#[test]
fn masks_that_a_single_step_does_not_show() {
    let device = flex();
    let mut seen = 0;
    for (name, config) in configs() {
        if !is_hidden_from_steps(&name) {
            continue;
        }
        seen += 1;
        let trained = build(&config, 11, &device);
        let on_plain = Problem::new(&trained, true, 12, &plain(&device));
        for (call, got) in drops(&trained, &on_plain) {
            assert_eq!(got, call != "step", "{name}, {call}");
        }
    }
    assert!(seen > 0);
}

/// Gradients of a plain input's call, with the masks in them: those of the weights exist, and dropped
/// units have none.
#[test]
fn gradients_pass_the_masks() {
    let device = flex();
    let config = recurrent_modules::LstmConfig::new(I, H)
        .with_recurrent_dropout(RecurrentDropout::Gal { prob: 0.5 });
    let module = config.init(&device);
    let input = Tensor::<3>::ones([B, 1, I], &plain(&device));
    let (output, _) = module.forward(input, None);
    let dropped: Vec<bool> = values(&output).iter().map(|&v| v == 0.0).collect();
    let gradients = output.narrow(0, 0, 1).sum().backward();
    let bias = module.layers[0].forward.gates.bias.as_ref().unwrap().val();
    let bias = values(&bias.grad(&gradients).expect("a gradient"));
    let output_gate = &bias[3 * H..];
    for (unit, (&gradient, &dropped)) in output_gate.iter().zip(&dropped).enumerate() {
        assert_eq!(gradient == 0.0, dropped, "unit {unit}");
    }
}

/// The rule is that of Burn's own layers: a result on an autodiff device is dropped from.
#[test]
fn as_a_stack_of_burns_own_layers() {
    let device = flex();
    let drops = |linear: &Linear, dropout: &Dropout, input: &Device| {
        let x = Tensor::<2>::ones([8, 8], input);
        let y = dropout.forward(linear.forward(x));
        values(&y).contains(&0.0)
    };
    let dropout = DropoutConfig::new(0.5).init();
    let trained = LinearConfig::new(8, 8).init(&device);
    let untracked = LinearConfig::new(8, 8).init(&plain(&device));
    assert!(drops(&trained, &dropout, &device));
    assert!(drops(&trained, &dropout, &plain(&device)));
    assert!(drops(&untracked, &dropout, &device));
    assert!(!drops(&untracked, &dropout, &plain(&device)));
}

//! The modules as Burn modules: training in a user's struct, records, configs as files, states.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::ModuleRecord;
use burn::tensor::Tensor;
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_modules::{
    Gru, GruConfig, LayerNormLstm, LayerNormLstmConfig, LstmConfig, LstmState, NormBias,
    NormConfig, Recurrent, RecurrentConfig, RecurrentDropout, RecurrentState, SlowLstmConfig,
    StackState,
};

use crate::support::*;

#[derive(Module, Debug)]
struct Model {
    recurrent: Recurrent,
    second: LayerNormLstm,
    head: Linear,
}

impl Model {
    fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let (x, _) = self.recurrent.forward(input, None);
        let (x, _) = self.second.forward(x, None);
        self.head.forward(x)
    }
}

/// A GRU as a field, by its own type.
#[derive(Module, Debug)]
struct Counter {
    gru: Gru,
    head: Linear,
}

#[test]
fn a_gru_as_a_field_trains_and_is_saved() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("counter.bpk");
    let device = flex();
    let build = |seed: u64| {
        let counter = Counter {
            gru: GruConfig::new(I, H).with_num_layers(2).init(&device),
            head: LinearConfig::new(H, 2).init(&device),
        };
        filled(counter, seed)
    };
    let mut numbers = Numbers::new(21);
    let input = numbers.tensor::<3>([B, T, I], &device);
    let target = numbers.tensor::<2>([B, 2], &device);
    let run = |counter: &Counter| {
        let (_, state) = counter.gru.forward(input.clone(), None);
        counter.head.forward(state.last().hidden.clone())
    };
    let loss = |counter: &Counter| (run(counter) - target.clone()).square().mean();
    let mut counter = build(11);
    let before = values(&loss(&counter))[0];
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..20 {
        let gradients = GradientsParams::from_grads(loss(&counter).backward(), &counter);
        counter = optimizer.step(0.05, counter, gradients);
    }
    let after = values(&loss(&counter))[0];
    assert!(
        after < 0.7 * before,
        "the loss went from {before} to {after}"
    );

    counter.clone().into_record().save(&path).expect("saved");
    let loaded = build(99).load_file(&path);
    assert_same("loaded", &values(&run(&loaded)), &values(&run(&counter)));
}

#[test]
fn a_field_of_a_users_module_trains() {
    for device in devices() {
        for (name, config) in variants() {
            let config = projected(config).with_bidirectional(true);
            let recurrent = config.init(&device);
            let model = Model {
                second: LayerNormLstmConfig::gal(recurrent.d_output(), 5, 0.0).init(&device),
                recurrent,
                head: LinearConfig::new(5, 2).init(&device),
            };
            let mut model = filled(model, 11);
            let mut numbers = Numbers::new(21);
            let input = numbers.tensor::<3>([B, T, I], &device);
            let target = numbers.tensor::<3>([B, T, 2], &device);
            let loss = |model: &Model| {
                (model.forward(input.clone()) - target.clone())
                    .square()
                    .mean()
            };
            let mut optimizer = SgdConfig::new().init();
            let before = loss(&model);
            let gradients = before.backward();
            let (mut parameters, mut squares) = (0, 0.0);
            each_parameter(&model, |_, param| {
                parameters += 1;
                let gradient = param.gradient(&gradients).expect("a gradient");
                squares += gradient.iter().map(|g| g * g).sum::<f64>();
            });
            let gradients = GradientsParams::from_grads(gradients, &model);
            assert_eq!(gradients.len(), parameters, "{name}");
            let old = model.clone();
            let rate = 0.0005 / squares;
            model = optimizer.step(rate, model, gradients);
            // To first order the loss falls by rate · |gradient|².
            let (before, after) = (values(&before)[0], values(&loss(&model))[0]);
            let fall = before - after;
            assert!(
                (0.00045..0.00055).contains(&fall),
                "{name}: the loss fell by {fall} from {before}, expected 0.0005"
            );
            let mut moved = vec![];
            each_parameter(&old, |_, param| moved.push(param.values()));
            let mut index = 0;
            each_parameter(&model, |path, param| {
                assert_ne!(param.values(), moved[index], "{name}: {path} did not move");
                assert!(param.requires_grad(), "{name}: {path} after the step");
                index += 1;
            });
        }
    }
}

#[test]
fn valid_forward_is_the_training_forward() {
    for device in devices() {
        let plain = device.clone().without_autodiff();
        for_each(all_containers, &device, |name, _, module, problem| {
            let valid = module.valid();
            each_parameter(&valid, |path, param| {
                assert!(!param.requires_grad(), "{path}")
            });
            let on_plain = Problem {
                input: problem.input.clone().without_autodiff(),
                state: problem.state.clone().map(Tensor::without_autodiff),
            };
            let got = record(&valid, &on_plain, |x, s| {
                assert_eq!(x.device(), plain);
                valid.forward(x, Some(s))
            });
            let expected = record(module, problem, |x, s| module.forward(x, Some(s)));
            got.assert_same(&expected.only(|name| !name.starts_with("grad.")), name);
        });
    }
}

/// A record holds every parameter: loaded into another module of the same config it gives the same
/// function, also after a file, and from a training device to a plain one.
#[test]
fn saving_and_loading_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("module.bpk");
    let device = flex();
    let plain = device.clone().without_autodiff();
    for_each(all_containers, &device, |name, config, module, problem| {
        let expected = record(module, problem, |x, s| module.forward(x, Some(s)));
        let other = || build(config, 99, &device);
        let run = |module: &Recurrent| record(module, problem, |x, s| module.forward(x, Some(s)));
        assert_differs(name, run(&other()).get("output"), expected.get("output"));

        let loaded = other().load_record(module.clone().into_record());
        run(&loaded).assert_same(&expected, name);

        module.clone().into_record().save(&path).expect("saved");
        let record_of_file = ModuleRecord::load(&path).expect("loaded");
        run(&other().load_record(record_of_file)).assert_same(&expected, name);
        // Also into parameters that were never drawn.
        let fresh = config.init(&device).load_file(&path);
        run(&fresh).assert_same(&expected, name);

        let on_plain = config.init(&plain).load_file(&path);
        let (output, _) = on_plain.forward(
            problem.input.clone().without_autodiff(),
            Some(problem.state.clone().map(Tensor::without_autodiff)),
        );
        assert_same(name, &values(&output), expected.get("output"));
        std::fs::remove_file(&path).expect("removed");
    });
}

/// Records of other sizes are refused.
#[test]
fn records_of_other_sizes_are_refused() {
    let device = device();
    for (name, config) in variants() {
        let record = || config.init(&device).into_record();
        assert!(
            config.init(&device).try_load_record(record()).is_ok(),
            "{name}"
        );
        let deeper = config.clone().with_num_layers(2);
        assert!(
            deeper.init(&device).try_load_record(record()).is_err(),
            "{name}"
        );
        let mut wider = config.clone();
        wider.d_input += 1;
        assert!(
            wider.init(&device).try_load_record(record()).is_err(),
            "{name}"
        );
    }
}

/// Every field away from its default.
fn unusual() -> Vec<RecurrentConfig> {
    let init = |value: f64| Some(Initializer::Constant { value });
    let shared = |config: RecurrentConfig| {
        config
            .with_num_layers(2)
            .with_layer_sizes(Some(vec![9, H]))
            .with_bidirectional(true)
            .with_batch_first(false)
            .with_dropout(0.25)
            .with_recurrent_dropout(RecurrentDropout::Zoneout {
                hidden: 0.1,
                cell: 0.2,
            })
            .with_d_proj(Some(P))
            .with_clip(Some(3.5))
            .with_initializer(Some(Initializer::Orthogonal { gain: 1.25 }))
            .with_input_initializer(Some(Initializer::XavierNormal { gain: 0.5 }))
            .with_hidden_initializer(Some(Initializer::Uniform {
                min: -0.1,
                max: 0.2,
            }))
            .with_bias_initializer(init(0.125))
            .with_forget_bias(Some(1.5))
    };
    let norm = NormConfig::bradbury()
        .with_epsilon(3e-4)
        .with_gain_initializer(init(0.5))
        .with_shift_initializer(init(0.25));
    let mut list = vec![
        shared(RecurrentConfig::Lstm(LstmConfig::new(I, H))),
        shared(RecurrentConfig::SlowLstm(SlowLstmConfig::new(I, H))),
        shared(RecurrentConfig::LayerNormLstm(
            LayerNormLstmConfig::new(I, H)
                .with_norm_input(None)
                .with_norm_hidden(Some(NormConfig::ba().with_learnable(false)))
                .with_norm_cell(Some(norm))
                .with_carry_normalized(true)
                .with_norm_bias(NormBias::Inside),
        )),
    ];
    list.push(
        RecurrentConfig::Gru(GruConfig::new(I, H).with_reset_after(false))
            .with_num_layers(2)
            .with_layer_sizes(Some(vec![9, H]))
            .with_bidirectional(true)
            .with_batch_first(false)
            .with_dropout(0.25)
            .with_recurrent_dropout(RecurrentDropout::Zoneout {
                hidden: 0.1,
                cell: 0.0,
            })
            .with_weight_drop(0.5)
            .with_initializer(Some(Initializer::Orthogonal { gain: 1.25 }))
            .with_bias_initializer(init(0.125)),
    );
    // `reverse` and `bias = false` exclude some of the above.
    for (_, config) in variants() {
        list.push(config.with_reverse(true).with_bias(false));
    }
    list
}

#[test]
fn configs_survive_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    for config in unusual() {
        config.validate().expect("a valid config");
        config.save(&path).expect("saved");
        let loaded = RecurrentConfig::load(&path).expect("loaded");
        assert_eq!(loaded, config);
        let json = std::fs::read_to_string(&path).expect("text");
        assert!(json.contains(config.name()), "{json}");
        // The default would not be equal: the comparison sees the fields.
        let mut plain = variants().into_iter().map(|(_, plain)| plain);
        let default = plain.find(|plain| plain.name() == config.name());
        assert_ne!(Some(&loaded), default.as_ref());

        let device = device();
        let module = build(&config, 11, &device);
        let problem = Problem::new(&module, config.batch_first, 12, &device);
        let twin = build(&loaded, 11, &device);
        let run = |module: &Recurrent| record(module, &problem, |x, s| module.forward(x, Some(s)));
        run(&twin).assert_same(&run(&module), config.name());
    }
}

#[test]
fn unknown_variants_and_bad_json_are_errors() {
    for (_, config) in variants() {
        let json = config.to_string();
        assert!(RecurrentConfig::load_binary(json.as_bytes()).is_ok());
        let other = json.replace(&format!("\"{}\"", config.name()), "\"TransformerLstm\"");
        assert_ne!(other, json);
        let error = RecurrentConfig::load_binary(other.as_bytes()).expect_err("unknown variant");
        assert!(error.to_string().contains("TransformerLstm"), "{error}");
        let cut = &json[..json.len() / 2];
        assert!(RecurrentConfig::load_binary(cut.as_bytes()).is_err());
    }
}

#[test]
fn stacked_states_round_trip() {
    for device in devices() {
        let lstms = variants().into_iter();
        for (name, config) in lstms.filter(|(_, config)| has_cell_state(config)) {
            let config = config
                .with_num_layers(2)
                .with_bidirectional(true)
                .with_d_proj(Some(P));
            let module = build(&config, 11, &device);
            let problem = Problem::new(&module, true, 12, &device);
            let state = problem.state.clone();
            let stacked = state.clone().into_lstm().into_stacked();
            assert_eq!(stacked.cell.dims(), [4, B, H]);
            assert_eq!(stacked.hidden.dims(), [4, B, P]);
            // Index = layer · directions + direction.
            for (index, state) in state.cells.iter().enumerate() {
                let at = |tensor: &Tensor<3>| {
                    let [_, rows, features] = tensor.dims();
                    values(
                        &tensor
                            .clone()
                            .slice([index..index + 1, 0..rows, 0..features]),
                    )
                };
                assert_same(name, &at(&stacked.cell), &values(&state.part("cell")));
                assert_same(name, &at(&stacked.hidden), &values(&state.part("hidden")));
            }
            let got = record(&module, &problem, |x, s| {
                let again = |state: RecurrentState| -> RecurrentState {
                    StackState::from_stacked(state.into_lstm().into_stacked()).into()
                };
                let (output, state) = module.forward(x, Some(again(s)));
                (output, again(state))
            });
            let expected = record(&module, &problem, |x, s| module.forward(x, Some(s)));
            got.assert_same(&expected, name);
        }
    }
}

/// A GRU's stacked state is one tensor, as PyTorch's.
#[test]
fn stacked_hidden_states_round_trip() {
    for device in devices() {
        for (name, config) in gru_variants() {
            let config = config.with_num_layers(2).with_bidirectional(true);
            let module = build(&config, 11, &device);
            let Recurrent::Gru(stack) = &module else {
                panic!("a GRU")
            };
            let problem = Problem::new(&module, true, 12, &device);
            let typed = stack.typed_state(problem.state.clone());
            let stacked = typed.into_stacked();
            assert_eq!(stacked.dims(), [4, B, H]);
            // Index = layer · directions + direction.
            for (index, state) in problem.state.cells.iter().enumerate() {
                let at = values(&stacked.clone().narrow(0, index, 1));
                assert_same(name, &at, &values(&state.part("hidden")));
            }
            let again = |state: RecurrentState| {
                let stacked = stack.typed_state(state).into_stacked();
                stack.named_state(StackState::from_stacked_hidden(stacked))
            };
            let got = record(&module, &problem, |x, s| {
                let (output, state) = module.forward(x, Some(again(s)));
                (output, again(state))
            });
            let expected = record(&module, &problem, |x, s| module.forward(x, Some(s)));
            got.assert_same(&expected, name);
        }
    }
}

#[test]
#[should_panic(expected = "state 0 has hidden shape [3, 8], expected [3, 11] as in the last layer")]
fn unequal_layers_do_not_stack() {
    let device = device();
    let lstm = LstmConfig::stacked(I, [8, H]).init(&device);
    let (_, state) = lstm.forward(Tensor::ones([B, T, I], &device), None);
    let _ = state.into_stacked();
}

#[test]
#[should_panic(expected = "state 0 has hidden shape [3, 8], expected [3, 11] as in the last layer")]
fn unequal_layers_of_a_gru_do_not_stack() {
    let device = device();
    let gru = GruConfig::stacked(I, [8, H]).init(&device);
    let (_, state) = gru.forward(Tensor::ones([B, T, I], &device), None);
    let _ = state.into_stacked();
}

#[test]
#[should_panic(expected = "cell has 2 states on its first axis, hidden has 3")]
fn unequal_counts_do_not_unstack() {
    let device = device();
    let _ = StackState::from_stacked(LstmState {
        cell: Tensor::<3>::zeros([2, B, H], &device),
        hidden: Tensor::<3>::zeros([3, B, H], &device),
    });
}

//! Folders of models: every variant comes back, and those of older versions still load.

mod json;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use recurrent_modules::{
    AdaptiveLstmConfig, CONFIG_FILE, CheckpointError, CifgLstmConfig, Coupling, GruConfig,
    LayerNormConfig, LayerNormLstmConfig, LstmConfig, MODEL_FILE, MogrifierLstmConfig,
    PeepholeKind, PeepholeLstmConfig, PolicyLayout, Recurrent, RecurrentConfig, RecurrentDropout,
    SlowLstmConfig, UrLstmConfig,
};

fn device() -> Device {
    Device::flex()
}

/// Every variant, and every option that a module must keep.
fn configs() -> Vec<(&'static str, RecurrentConfig)> {
    let mut list = configs_of_version_0_1_0();
    list.extend(later_configs());
    list
}

/// The variants that came after version 0.1.0, of which there are no files.
fn later_configs() -> Vec<(&'static str, RecurrentConfig)> {
    use RecurrentConfig as R;
    vec![
        ("gru", R::Gru(GruConfig::new(3, 4))),
        (
            "gru_options",
            R::Gru(
                GruConfig::new(3, 4)
                    .with_reset_after(false)
                    .with_num_layers(2)
                    .with_bidirectional(true)
                    .with_batch_first(false)
                    .with_dropout(0.25)
                    .with_recurrent_dropout(RecurrentDropout::Zoneout {
                        hidden: 0.5,
                        cell: 0.0,
                    })
                    .with_weight_drop(0.125)
                    .with_bias(false),
            ),
        ),
        (
            "gru_sizes",
            R::Gru(GruConfig::stacked(3, [5, 4]).with_reverse(true)),
        ),
    ]
}

/// Those of which there are files of version 0.1.0.
fn configs_of_version_0_1_0() -> Vec<(&'static str, RecurrentConfig)> {
    use RecurrentConfig as R;
    let lstm = LstmConfig::new(3, 4);
    vec![
        ("lstm", R::Lstm(lstm.clone())),
        (
            "lstm_options",
            R::Lstm(
                lstm.with_num_layers(2)
                    .with_bidirectional(true)
                    .with_batch_first(false)
                    .with_dropout(0.25)
                    .with_recurrent_dropout(RecurrentDropout::Gal { prob: 0.5 })
                    .with_weight_drop(0.125)
                    .with_residual(true)
                    .with_d_proj(Some(2))
                    .with_bias(false)
                    .with_clip(Some(1.5)),
            ),
        ),
        (
            "lstm_sizes",
            R::Lstm(LstmConfig::stacked(3, [5, 4]).with_reverse(false)),
        ),
        (
            "slow",
            R::SlowLstm(SlowLstmConfig::new(3, 4).with_reverse(true)),
        ),
        (
            "layer_norm",
            R::LayerNormLstm(LayerNormLstmConfig::new(3, 4)),
        ),
        (
            "lstms_pth",
            R::LayerNormLstm(LayerNormLstmConfig::lstms_pth(3, 4)),
        ),
        (
            "cifg",
            R::CifgLstm(
                CifgLstmConfig::new(3, 4)
                    .with_coupling(Coupling::CappedInput)
                    .with_layer_norm(Some(LayerNormConfig::new().with_norm_cell(None))),
            ),
        ),
        (
            "peephole",
            R::PeepholeLstm(PeepholeLstmConfig::new(3, 4).with_peephole(PeepholeKind::Full)),
        ),
        ("ur", R::UrLstm(UrLstmConfig::new(3, 4).with_num_layers(2))),
        (
            "ordered",
            R::UrLstm(UrLstmConfig::ordered(3, 4).with_trainable_forget_bias(false)),
        ),
        (
            "mogrifier",
            R::MogrifierLstm(
                MogrifierLstmConfig::new(3, 4)
                    .with_rank(Some(2))
                    .with_round_bias(true)
                    .with_cap_input_gate(true),
            ),
        ),
        (
            "mogrifier_shared",
            R::MogrifierLstm(MogrifierLstmConfig::new(3, 4).with_share_rounds(true)),
        ),
        (
            "adaptive",
            R::AdaptiveLstm(
                AdaptiveLstmConfig::stacked(3, [5, 4])
                    .with_d_adapt(2)
                    .with_dropout_adapt(0.25)
                    .with_policy_layout(PolicyLayout::Overlapping),
            ),
        ),
    ]
}

/// The output on a fixed input.
fn output(model: &Recurrent) -> Vec<f32> {
    let values: Vec<f32> = (0..2 * 5 * 3).map(|i| (i as f32 * 0.7).sin()).collect();
    let input = Tensor::from_data(TensorData::new(values, [2, 5, 3]), &device());
    model
        .forward(input, None)
        .0
        .into_data()
        .try_to_vec()
        .expect("f32")
}

/// Another one than the defaults', for what the model does not show.
fn without_initial_values(config: RecurrentConfig) -> RecurrentConfig {
    match config {
        RecurrentConfig::UrLstm(config) => {
            RecurrentConfig::UrLstm(config.with_gate_init(recurrent_modules::GateInit::Uniform))
        }
        other => other,
    }
}

#[test]
fn every_variant_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, config) in configs() {
        let model = config.init(&device());
        assert_eq!(
            RecurrentConfig::of(&model),
            without_initial_values(config),
            "{name}"
        );
        let path = folder.path().join(name);
        model
            .save(&path)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let loaded = Recurrent::load(&path, &device());
        let loaded = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            RecurrentConfig::of(&loaded),
            RecurrentConfig::of(&model),
            "{name}"
        );
        assert_eq!(output(&loaded), output(&model), "{name}");
    }
}

/// Saving again replaces, and Burn's identities of the parameters stay: an optimiser's state goes by
/// them.
#[test]
fn saving_again_and_parameter_ids() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = LstmConfig::new(3, 4);
    let first = RecurrentConfig::Lstm(config.clone()).init(&device());
    let second = RecurrentConfig::Lstm(config.clone()).init(&device());
    first.save(folder.path()).expect("saved");
    second.save(folder.path()).expect("saved again");
    let loaded = Recurrent::load(folder.path(), &device()).expect("loaded");
    assert_eq!(output(&loaded), output(&second));
    let id = |model: &Recurrent| match model {
        Recurrent::Lstm(lstm) => lstm.layers[0].forward.gates.weight_input.id,
        _ => unreachable!("it is an LSTM"),
    };
    assert_eq!(id(&loaded), id(&second));
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        2
    );

    // The weights alone are a record of the variant's own module.
    let record = ModuleRecord::load(folder.path().join(MODEL_FILE)).expect("a record");
    let lstm = config.init(&device()).load_record(record);
    assert_eq!(output(&Recurrent::Lstm(lstm)), output(&second));
}

#[test]
fn folders_that_do_not_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let load = || {
        Recurrent::load(folder.path(), &device())
            .expect_err("refused")
            .to_string()
    };
    assert!(load().starts_with("config.json in "), "{}", load());

    let save = |config: LstmConfig| {
        let model = RecurrentConfig::Lstm(config).init(&device());
        model.save(folder.path()).expect("saved");
    };
    save(LstmConfig::new(3, 4));
    let config = folder.path().join(CONFIG_FILE);
    let text = std::fs::read_to_string(&config).expect("saved");
    save(LstmConfig::new(3, 4).with_batch_first(false));
    std::fs::write(&config, text).expect("written");
    assert!(
        load().ends_with(
            "are of different models: the weights were saved with `\"batch_first\": false`, expected \
             `\"batch_first\": true` as in config.json"
        ),
        "{}",
        load()
    );

    std::fs::write(&config, "{\"Mlp\": {}}").expect("written");
    assert!(load().contains("config.json in "), "{}", load());
    assert!(load().contains("Mlp"), "{}", load());
    std::fs::remove_file(folder.path().join(MODEL_FILE)).expect("removed");
    save(LstmConfig::new(3, 4));
    std::fs::remove_file(folder.path().join(MODEL_FILE)).expect("removed");
    assert!(load().contains("cannot read "), "{}", load());
}

/// A model whose layers differ in what the config has once.
#[test]
fn layers_of_different_kinds_are_refused() {
    let mut lstm = LstmConfig::new(3, 4).with_num_layers(2).init(&device());
    lstm.layers[1].forward.gates.bias = None;
    let folder = tempfile::tempdir().expect("a folder");
    let error = Recurrent::Lstm(lstm)
        .save(folder.path())
        .expect_err("refused");
    assert!(
        matches!(&error, CheckpointError::Config { param, got: None, .. }
            if param == "layers.1.forward.gates.bias"),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
}

fn old_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint/0.1.0")
}

/// Files of version 0.1.0, with the outputs it computed. Never written anew: a version that changes
/// the layout adds a folder of its own, and loads this one still.
#[test]
fn checkpoints_of_version_0_1_0_load() {
    let mut count = 0;
    for (name, _) in configs_of_version_0_1_0() {
        let folder = old_folder().join(name);
        let model = Recurrent::load(&folder, &device());
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = std::fs::read_to_string(folder.join("output.json")).expect("committed");
        let expected: Vec<f32> = serde_json::from_str(&text).expect("a list");
        let got = output(&model);
        assert_eq!(got.len(), expected.len(), "{name}");
        let largest = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let largest = largest.fold(0.0, f32::max);
        assert!(largest < 2e-6, "{name}: {largest}");
        count += 1;
    }
    assert_eq!(
        count,
        std::fs::read_dir(old_folder()).expect("committed").count()
    );
}

/// Wrote the folder above: `cargo test --test checkpoint -- --ignored`.
#[test]
#[ignore = "writes the committed files, once per layout"]
fn write_checkpoints() {
    for (name, config) in configs_of_version_0_1_0() {
        let folder = old_folder().join(name);
        assert!(
            !folder.exists(),
            "{}: committed files stay as they are",
            folder.display()
        );
        let model = config.init(&device());
        // Initial values of some parameters are all 0 or 1: any mistake between two would pass.
        let model = scatter(model);
        model.save(&folder).expect("saved");
        let output = serde_json::to_string(&output(&model)).expect("numbers");
        std::fs::write(folder.join("output.json"), output).expect("written");
    }
}

/// Adds to each parameter values of its own.
fn scatter(model: Recurrent) -> Recurrent {
    struct Scatter;
    impl burn::module::ModuleMapper for Scatter {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            let tensor = param.val();
            let noise = Distribution::Uniform(-0.25, 0.25);
            let noise = Tensor::random(tensor.dims(), noise, &tensor.device());
            burn::module::Param::initialized(param.id, tensor + noise)
        }
    }
    model.map(&mut Scatter)
}

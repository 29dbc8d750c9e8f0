//! Files of GRUs, found by their structure, and the readers of LSTMs that name them.

use std::path::Path;

use recurrent_modules::import::originals::{haste, keras};
use recurrent_modules::import::{ImportError, Source, SourceOptions, Tensors, burn_nn, pytorch};
use recurrent_modules::{GruConfig, LstmConfig, Recurrent, RecurrentConfig};

use crate::support::{device, largest_difference, output, random};

fn gru(config: GruConfig) -> Recurrent {
    RecurrentConfig::Gru(config).init(&device())
}

fn export(source: Source, model: &Recurrent) -> Tensors {
    source.export(model).expect("the source holds it")
}

fn found(file: &Tensors) -> (Option<Source>, RecurrentConfig) {
    let source = Source::guess(file);
    let config = source.expect("found by structure");
    let config = config.config(file, &SourceOptions::default());
    (source, config.expect("it fits"))
}

/// Files that the originals wrote.
#[test]
fn files_of_the_originals_are_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let open = |path: &str, prefix: &str| {
        let file = Tensors::open(folder.join(path)).expect("a committed file");
        file.under(prefix).expect("weights")
    };
    let file = open("golden/data/gru__bi_l2_none.safetensors", "param");
    let (source, config) = found(&file);
    assert_eq!(source, Some(Source::PyTorch));
    let RecurrentConfig::Gru(config) = config else {
        panic!("a GRU")
    };
    assert_eq!((config.num_layers, config.bidirectional), (2, true));
    assert!(config.bias && config.reset_after);
    let model = Source::PyTorch.load(&file, &SourceOptions::default(), &device());
    let model = model.expect("it fits");
    let direct = Recurrent::Gru(pytorch::gru(&file, &device()).expect("it fits"));
    assert_eq!(output(&model), output(&direct));

    for (name, reset_after) in [("keras_gru_reset_after", true), ("keras_gru", false)] {
        let file = open(&format!("weights/data/{name}.safetensors"), "gru");
        let (source, config) = found(&file);
        assert_eq!(source, Some(Source::Keras), "{name}");
        assert!(
            matches!(&config, RecurrentConfig::Gru(config) if config.reset_after == reset_after),
            "{name}: {config:?}"
        );
        // The shape of the bias counts, whatever the options say.
        let options = SourceOptions {
            reset_after: !reset_after,
            ..SourceOptions::default()
        };
        assert_eq!(Source::Keras.config(&file, &options), Ok(config), "{name}");
    }
}

/// What the tensors do not show is as the options say: the two forms compute other numbers.
#[test]
fn the_form_that_a_file_does_not_show() {
    let unbiased = GruConfig::new(5, 7).with_bias(false);
    for (source, config) in [
        (Source::BurnNn, GruConfig::new(5, 7)),
        (Source::Keras, unbiased),
    ] {
        let model = gru(config.with_reset_after(false));
        let file = export(source, &model);
        let load = |reset_after: bool| {
            let options = SourceOptions {
                reset_after,
                ..SourceOptions::default()
            };
            output(&source.load(&file, &options, &device()).expect("it fits"))
        };
        assert_eq!(load(false), output(&model), "{source}");
        let difference = largest_difference(&load(true), &output(&model));
        assert!(difference > 1e-3, "{source}: {difference}");
    }
}

/// haste's GRU has the names of Keras's, a bias more and another order of the gates.
#[test]
fn a_gru_of_haste_is_not_taken_for_one_of_keras() {
    let mut file = export(
        Source::Keras,
        &gru(GruConfig::new(5, 7).with_reset_after(false)),
    );
    assert_eq!(Source::guess(&file), Some(Source::Keras));
    file.insert("recurrent_bias", random([21]).into_data());
    assert_eq!(Source::guess(&file), None);
}

#[test]
fn readers_of_lstms_name_a_gru() {
    let model = gru(GruConfig::new(5, 7));
    let torch = export(Source::PyTorch, &model);
    let burn = export(Source::BurnNn, &model);
    let keras = export(Source::Keras, &model);
    let options = SourceOptions {
        variant: Some("Lstm".into()),
        ..SourceOptions::default()
    };
    for (source, file) in [
        (Source::PyTorch, &torch),
        (Source::BurnNn, &burn),
        (Source::Keras, &keras),
    ] {
        let error = source.load(file, &options, &device()).expect_err("refused");
        let expected = format!("the file holds a Gru of {source}, not a Lstm");
        assert_eq!(error.to_string(), expected);
    }

    let mut cell = Tensors::default();
    for name in ["weight_ih", "weight_hh"] {
        let from = format!("{name}_l0");
        let values = torch.get(&from).expect("exported").values(&from);
        cell.insert(name, values.expect("finite"));
    }
    let axis_0 =
        "has shape [21, 7], expected 4 gates on axis 0 as in an LSTM; 3 gates are those of a GRU";
    let axis_1 =
        "has shape [7, 21], expected 4 gates on axis 1 as in an LSTM; 3 gates are those of a GRU";
    let text = |error: Option<ImportError>| error.expect("refused").to_string();
    for (got, expected) in [
        (
            text(pytorch::lstm(&torch, &device()).err()),
            format!("tensor `weight_hh_l0` {axis_0}"),
        ),
        (
            text(pytorch::lstm_cell(&cell, &device()).err()),
            format!("tensor `weight_hh` {axis_0}"),
        ),
        (
            text(keras::lstm(&keras, &device()).err()),
            format!("tensor `recurrent_kernel` {axis_1}"),
        ),
        (
            text(haste::lstm(&keras, &device()).err()),
            format!("tensor `recurrent_kernel` {axis_1}"),
        ),
    ] {
        assert_eq!(got, expected);
    }
    for error in [
        burn_nn::config(&burn).err(),
        burn_nn::coupled_config(&burn).err(),
    ] {
        let error = text(error);
        assert!(
            error.starts_with("the file has a `reset_gate`, which is a GRU's; expected an LSTM's"),
            "{error}"
        );
    }
}

#[test]
fn readers_of_grus_name_an_lstm() {
    let model = RecurrentConfig::Lstm(LstmConfig::new(5, 7)).init(&device());
    let [torch, keras] = [Source::PyTorch, Source::Keras].map(|source| export(source, &model));
    let text = |error: Option<ImportError>| error.expect("refused").to_string();
    assert_eq!(
        text(pytorch::gru(&torch, &device()).err()),
        "tensor `weight_hh_l0` has shape [28, 7], expected 3 gates on axis 0 as in a GRU; 4 gates are \
         those of an LSTM"
    );
    assert_eq!(
        text(keras::gru(&keras, true, &device()).err()),
        "tensor `recurrent_kernel` has shape [7, 28], expected 3 gates on axis 1 as in a GRU; 4 gates \
         are those of an LSTM"
    );
    // An LSTM's state may be smaller than its gates, but is never a third of them.
    let projected = LstmConfig::new(5, 8).with_d_proj(Some(6));
    let projected = RecurrentConfig::Lstm(projected).init(&device());
    let (_, config) = found(&export(Source::PyTorch, &projected));
    assert_eq!(config.name(), "Lstm");
}

#[test]
fn what_a_source_cannot_hold() {
    let two = || GruConfig::new(5, 7).with_num_layers(2);
    let before = GruConfig::new(5, 7).with_reset_after(false);
    for (source, config, expected) in [
        (Source::PyTorch, before, "without `reset_after`"),
        (Source::BurnNn, two(), "GRU has one layer, got 2"),
        (Source::Keras, two(), "one layer at a time, got 2"),
        (Source::Haste, two(), "haste has no layout for Gru"),
        (Source::LstmsPth, two(), "lstms-pth has no layout for Gru"),
    ] {
        let error = source
            .export(&gru(config))
            .expect_err("refused")
            .to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

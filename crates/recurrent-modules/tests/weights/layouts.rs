//! Each layout both ways, and against what the original computes.

use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};
use recurrent_modules::import::originals::{haste, keras, lamb};
use recurrent_modules::import::{self, Source, SourceOptions, Tensors, pytorch};
use recurrent_modules::{Lstm, LstmConfig, RecurrentConfig};

use crate::support::{cases, device, largest_difference, output, random};

/// Out and in again gives the same parameters, and the config is found from the tensors.
#[test]
fn export_then_import_is_the_identity() {
    for (source, config, options) in cases() {
        let case = format!("{source}, {}", config.name());
        let model = config.init(&device());
        let tensors = source
            .export(&model)
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        let again = source
            .load(&tensors, &options, &device())
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(
            RecurrentConfig::of(&again),
            RecurrentConfig::of(&model),
            "{case}"
        );
        assert_eq!(output(&again), output(&model), "{case}");

        let guessed = match source {
            // An LSTM of the two has the same names.
            Source::Haste | Source::Keras if config.name() == "Lstm" => None,
            source => Some(source),
        };
        assert_eq!(Source::guess(&tensors), guessed, "{case}");
    }
}

/// A round trip alone would not notice two gates exchanged in both directions, nor a wrong name;
/// the golden files pin the originals of which there are any. These are the others, by their own
/// equations.
fn step_by_hand(
    x: Tensor<2>,
    h: Tensor<2>,
    c: Tensor<2>,
    kernels: [Tensor<2>; 2],
    bias: Tensor<1>,
    order: [usize; 4],
) -> Tensor<2> {
    let width = bias.dims()[0] / 4;
    let [kernel, recurrent] = kernels;
    let z = x.matmul(kernel) + h.matmul(recurrent) + bias.unsqueeze();
    let gate = |which: usize| {
        let slot = order[which];
        z.clone()
            .slice([0..z.dims()[0], slot * width..(slot + 1) * width])
    };
    let [i, f, g, o] = [0, 1, 2, 3].map(gate);
    let c = sigmoid(f) * c + sigmoid(i) * tanh(g);
    sigmoid(o) * tanh(c)
}

#[test]
fn haste_and_keras_compute_what_their_gate_order_says() {
    let (d_input, d_hidden) = (5, 7);
    let mut file = Tensors::default();
    let kernel: Tensor<2> = random([d_input, 4 * d_hidden]);
    let recurrent: Tensor<2> = random([d_hidden, 4 * d_hidden]);
    let bias: Tensor<1> = random([4 * d_hidden]);
    file.insert("kernel", kernel.clone().into_data());
    file.insert("recurrent_kernel", recurrent.clone().into_data());
    file.insert("bias", bias.clone().into_data());

    // Slots of i, f, g, o: haste has i, g, f, o; Keras i, f, c, o.
    type Load = fn(&Tensors) -> Lstm;
    let sources: [(&str, Load, [usize; 4]); 2] = [
        (
            "haste",
            |file| haste::lstm(file, &device()).expect("haste"),
            [0, 2, 1, 3],
        ),
        (
            "keras",
            |file| keras::lstm(file, &device()).expect("keras"),
            [0, 1, 2, 3],
        ),
    ];
    for (name, load, order) in sources {
        let lstm = load(&file);
        let (x, h, c) = (
            random([2, d_input]),
            random([2, d_hidden]),
            random([2, d_hidden]),
        );
        let kernels = [kernel.clone(), recurrent.clone()];
        let expected = step_by_hand(
            x.clone(),
            h.clone(),
            c.clone(),
            kernels,
            bias.clone(),
            order,
        );
        let state = recurrent_modules::LstmState { cell: c, hidden: h };
        let (got, _) = lstm.step(x, Some(state.into()));
        let difference = (got - expected).abs().max().into_scalar::<f32>();
        assert!(difference < 2e-6, "{name}: {difference}");
    }
}

/// One step of lamb's cell, as its code computes it.
#[test]
fn lamb_computes_what_its_code_says() {
    let (d_input, d_hidden) = (5, 7);
    let mut file = Tensors::default();
    let weight: Tensor<2> = random([d_input + d_hidden, 4 * d_hidden]);
    file.insert("tiled_linear/W", weight.clone().into_data());
    let biases = ["j", "o", "f", "i"].map(|letter| {
        let bias: Tensor<1> = random([d_hidden]);
        file.insert(format!("tiled_linear/B_{letter}"), bias.clone().into_data());
        bias
    });
    let rounds: [(Tensor<2>, Tensor<1>); 2] = [
        (random([d_hidden, d_input]), random([d_input])),
        (random([d_input, d_hidden]), random([d_hidden])),
    ];
    for (index, (kernel, bias)) in rounds.iter().enumerate() {
        file.insert(format!("fm_{index}/kernel"), kernel.clone().into_data());
        file.insert(format!("fm_{index}/bias"), bias.clone().into_data());
    }
    let lstm = lamb::lstm(&file, &device()).expect("lamb");

    let (x, h): (Tensor<2>, Tensor<2>) = (random([2, d_input]), random([2, d_hidden]));
    let c: Tensor<2> = random([2, d_hidden]);
    let [(q, q_bias), (r, r_bias)] = rounds;
    let gated_x = x.clone() * sigmoid(h.clone().matmul(q) + q_bias.unsqueeze()) * 2.0;
    let gated_h = h.clone() * sigmoid(gated_x.clone().matmul(r) + r_bias.unsqueeze()) * 2.0;
    let z = Tensor::cat(vec![gated_x, gated_h], 1).matmul(weight)
        + Tensor::cat(biases.to_vec(), 0).unsqueeze();
    let gate = |slot: usize| {
        z.clone()
            .slice([0..2, slot * d_hidden..(slot + 1) * d_hidden])
    };
    let [j, o, f, i] = [0, 1, 2, 3].map(gate);
    let f = sigmoid(f);
    let capped = sigmoid(i).min_pair(f.clone().neg() + 1.0);
    let new = f * c.clone() + capped * tanh(j);
    let expected = sigmoid(o) * tanh(new);

    let state = recurrent_modules::LstmState { cell: c, hidden: h };
    let (got, _) = lstm.step(x, Some(state.into()));
    let difference = (got - expected).abs().max().into_scalar::<f32>();
    assert!(difference < 2e-6, "{difference}");
}

/// A part of a larger file, into a module that is there already and keeps its settings.
#[test]
fn a_prefix_into_a_module_of_ones_own() {
    let trained = LstmConfig::new(5, 7).init(&device());
    let mut file = import::export(&pytorch::TorchLstm, &trained)
        .expect("PyTorch holds it")
        .with_prefix("encoder.lstm");
    file.insert("head.weight", random([3, 7]).into_data());

    let module = LstmConfig::new(5, 7)
        .with_batch_first(false)
        .init(&device().autodiff());
    let part = file.under("encoder.lstm").expect("the prefix is there");
    let loaded = import::load(&pytorch::TorchLstm, module, &part).expect("it fits");
    assert!(!loaded.batch_first);
    let weight = &loaded.layers[0].forward.gates.weight_hidden;
    assert!(weight.is_require_grad(), "a loaded weight goes on learning");
    let trained = &trained.layers[0].forward.gates.weight_hidden;
    assert_eq!(weight.val().into_data(), trained.val().into_data());
}

/// A cell without layers has names without numbers.
#[test]
fn a_bare_cell() {
    let cell = LstmConfig::new(5, 7).init_cell(&device());
    let file = import::export(&pytorch::TorchLstm, &cell).expect("PyTorch holds it");
    let names: Vec<&str> = file.names().collect();
    assert_eq!(names, ["bias_hh", "bias_ih", "weight_hh", "weight_ih"]);
    let loaded = pytorch::lstm_cell(&file, &device()).expect("it fits");
    let x: Tensor<2> = random([2, 5]);
    let (a, _) = cell.step(x.clone(), None);
    let (b, _) = loaded.step(x, None);
    assert_eq!(a.into_data(), b.into_data());
}

/// Through files of each format that we write.
#[test]
fn through_files() {
    let folder = tempfile::tempdir().expect("a folder");
    for (source, config, options) in cases() {
        let model = config.init(&device());
        let tensors = source.export(&model).expect("checked above");
        let safetensors = folder.path().join("model.safetensors");
        let burnpack = folder.path().join("model.bpk");
        tensors.save_safetensors(&safetensors).expect("written");
        tensors.save_burnpack(&burnpack).expect("written");
        for path in [safetensors, burnpack] {
            let file = Tensors::open(&path).expect("read");
            let again = source.load(&file, &options, &device()).expect("it fits");
            assert_eq!(
                output(&again),
                output(&model),
                "{source}, {}",
                config.name()
            );
        }
    }
}

/// What a layout cannot hold is refused with the reason.
#[test]
fn a_layout_refuses_what_it_cannot_hold() {
    let lstm = |config: LstmConfig| RecurrentConfig::Lstm(config).init(&device());
    let plain = LstmConfig::new(5, 7);
    let cases = [
        (
            Source::PyTorch,
            lstm(plain.clone().with_reverse(true)),
            "reverse",
        ),
        (
            Source::PyTorch,
            lstm(LstmConfig::stacked(5, [7, 6])),
            "layers of one size",
        ),
        (
            Source::PyTorch,
            lstm(plain.clone().with_clip(Some(1.0))),
            "clip",
        ),
        (Source::UrLstm, lstm(plain.clone()), "no layout for Lstm"),
        (
            Source::LstmsPth,
            lstm(plain.clone().with_num_layers(2).with_residual(true)),
            "no residual connections",
        ),
        (
            Source::Keras,
            lstm(plain.clone().with_num_layers(2)),
            "one layer at a time",
        ),
        (
            Source::BurnNn,
            lstm(plain.clone().with_d_proj(Some(3))),
            "projection",
        ),
        (
            Source::Haste,
            lstm(plain.with_bidirectional(true)),
            "bidirectional",
        ),
    ];
    for (source, model, expected) in cases {
        let error = source.export(&model).expect_err("refused").to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

/// The variant that was asked for is compared with the one found.
#[test]
fn another_variant_than_asked_for() {
    let (_, file) = crate::support::torch_tensors();
    let options = SourceOptions {
        variant: Some("UrLstm".into()),
        ..SourceOptions::default()
    };
    let error = Source::PyTorch.load(&file, &options, &device());
    let error = error.expect_err("refused").to_string();
    assert!(
        error.contains("holds a Lstm of pytorch, not a UrLstm"),
        "{error}"
    );
}

/// Two biases become one, and one becomes two: the sum is what counts.
#[test]
fn two_biases_are_summed() {
    let (model, file) = crate::support::torch_tensors();
    let mut moved = file.clone();
    for layer in 0..2 {
        let [ih, hh] = ["ih", "hh"].map(|kind| format!("bias_{kind}_l{layer}"));
        let bias = file
            .get(&ih)
            .expect("exported")
            .values(&ih)
            .expect("finite");
        let bias: Vec<f32> = bias.try_to_vec().expect("f32");
        let shift = |sign: f32| -> Vec<f32> {
            let with = |(i, b): (usize, &f32)| b * (1.0 + sign) / 2.0 + sign * i as f32 / 64.0;
            bias.iter().enumerate().map(with).collect()
        };
        let shape = [bias.len()];
        moved.insert(ih, burn::tensor::TensorData::new(shift(1.0), shape));
        moved.insert(hh, burn::tensor::TensorData::new(shift(-1.0), shape));
    }
    let loaded = Source::PyTorch
        .load(&moved, &SourceOptions::default(), &device())
        .expect("it fits");
    let difference = largest_difference(&output(&loaded), &output(&model));
    assert!(difference < 1e-6, "{difference}");
}

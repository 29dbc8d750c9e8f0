//! The GRU from and to PyTorch, burn-nn and Keras.

use std::ops::Range;
use std::path::Path;

use burn::nn::activation::ActivationConfig;
use burn::nn::gru::{BiGruConfig, GruConfig};
use burn::tensor::{Tensor, TensorData};
use recurrent_modules::import::originals::keras::{self, Keras};
use recurrent_modules::import::pytorch::{self, TorchGru};
use recurrent_modules::import::{self, Tensors, burn_nn};
use recurrent_modules::{Gru, GruState, RecurrentDropout, StackConfig, StackState};

use crate::support::{device, random};

fn differ<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

/// With weights of its own for every gate and bias.
fn stack(stack: StackConfig, bias: bool, reset_after: bool) -> Gru {
    let mut config = recurrent_modules::GruConfig::new(stack.d_input, stack.d_hidden)
        .with_bias(bias)
        .with_reset_after(reset_after);
    config.stack = stack;
    config.init(&device())
}

fn same(a: &Gru, b: &Gru) {
    let (a, b) = (Tensors::of(a), Tensors::of(b));
    assert_eq!(a.names().collect::<Vec<_>>(), b.names().collect::<Vec<_>>());
    for (name, tensor) in a.iter() {
        let other = b.get(name).expect("the same names");
        let [ours, theirs] = [tensor, other].map(|tensor| tensor.values(name).expect("finite"));
        assert_eq!(ours, theirs, "{name}");
    }
}

fn tensor<const D: usize>(file: &Tensors, name: &str) -> Tensor<D> {
    let data = file.get(name).expect(name).values(name).expect("finite");
    Tensor::from_data(data, &device())
}

fn open(path: &str) -> Tensors {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    Tensors::open(folder.join(path)).expect("a file of this repository")
}

// --- PyTorch

/// What PyTorch computes, sizes and directions from the tensors alone.
#[test]
fn pytorch_files_compute_what_pytorch_does() {
    for (name, layers, directions) in [
        ("l1_nobias", 1, 1),
        ("bi_l2_none", 2, 2),
        ("medium_state", 1, 1),
    ] {
        let file = open(&format!("golden/data/gru__{name}.safetensors"));
        let gru = pytorch::gru(&file.under("param").expect("parameters"), &device());
        let mut gru = gru.expect("it fits");
        assert_eq!((gru.layers.len(), gru.directions()), (layers, directions));
        gru.batch_first = false;
        let state = file.get("h0").map(|_| tensor::<3>(&file, "h0"));
        let state = state.map(StackState::from_stacked_hidden);
        let (y, last) = gru.forward(tensor(&file, "x"), state);
        assert!(differ(y, tensor(&file, "y")) < 2e-6, "{name}");
        assert!(
            differ(last.into_stacked(), tensor(&file, "h_n")) < 2e-6,
            "{name}"
        );
    }
    let file = open("golden/data/gru_cell__state.safetensors");
    let cell = pytorch::gru_cell(&file.under("param").expect("parameters"), &device());
    let state = GruState {
        hidden: tensor(&file, "h0"),
    };
    let (y, _) = cell.expect("it fits").step(tensor(&file, "x"), Some(state));
    assert!(differ(y, tensor(&file, "h_n")) < 2e-6);
}

#[test]
fn pytorch_out_and_in_again_is_the_identity() {
    let two = StackConfig::new(5, 7).with_num_layers(2);
    for (config, bias) in [
        (StackConfig::new(5, 7), true),
        (two.clone().with_bidirectional(true), true),
        (two, false),
    ] {
        let gru = stack(config, bias, true);
        let file = import::export(&TorchGru, &gru).expect("PyTorch holds it");
        same(&pytorch::gru(&file, &device()).expect("it fits"), &gru);
    }
}

/// `bias_ih` gets all of the sums, `bias_hh` what the reset gate multiplies; read, any split of the sums is the
/// same, but for the candidate's.
#[test]
fn only_the_candidates_biases_stay_apart() {
    let units = 7;
    let gru = stack(StackConfig::new(5, units), true, true);
    let cell = &gru.layers[0].forward;
    let file = import::export(&TorchGru, &gru).expect("PyTorch holds it");
    let [ih, hh] = ["bias_ih_l0", "bias_hh_l0"].map(|name| tensor::<1>(&file, name));
    assert_eq!(ih.to_data(), cell.bias.as_ref().expect("b").val().to_data());
    let inner = cell.bias_candidate_hidden.as_ref().expect("b_hn").val();
    let zeros = Tensor::zeros([2 * units], &device());
    assert_eq!(hh.to_data(), Tensor::cat(vec![zeros, inner], 0).to_data());

    let x: Tensor<3> = random([2, 4, 5]);
    let (expected, _) = gru.forward(x.clone(), None);
    let moved = |places: Range<usize>| {
        let quarter = Tensor::full([places.len()], 0.25, &device());
        let shift = Tensor::<1>::zeros([3 * units], &device()).slice_assign([places], quarter);
        let mut moved = file.clone();
        moved.insert("bias_ih_l0", (ih.clone() + shift.clone()).into_data());
        moved.insert("bias_hh_l0", (hh.clone() - shift).into_data());
        let gru = pytorch::gru(&moved, &device()).expect("it fits");
        differ(gru.forward(x.clone(), None).0, expected.clone())
    };
    assert!(moved(0..2 * units) < 1e-6, "reset and update");
    assert!(moved(2 * units..3 * units) > 1e-3, "candidate");
}

#[test]
fn what_pytorch_cannot_hold() {
    let config = || StackConfig::new(5, 7);
    let mut half = stack(config(), true, true);
    half.layers[0].forward.bias_candidate_hidden = None;
    let cases = [
        (stack(config(), true, false), "without `reset_after`"),
        (
            stack(config().with_reverse(true), true, true),
            "PyTorch's GRU cannot run backward",
        ),
        (half, "`bias`: true, `bias_candidate_hidden`: false"),
    ];
    for (gru, expected) in cases {
        let error = import::export(&TorchGru, &gru)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    // Four gates, not three.
    let mut file = Tensors::default();
    for (name, shape) in [("weight_ih_l0", [28, 5]), ("weight_hh_l0", [28, 7])] {
        let values = vec![0.5f32; shape[0] * shape[1]];
        file.insert(name, TensorData::new(values, shape));
    }
    let error = pytorch::gru(&file, &device())
        .expect_err("refused")
        .to_string();
    assert!(error.contains("expected 3 gates on axis 0"), "{error}");
}

// --- burn-nn

#[test]
fn burn_nn_both_ways() {
    for (bias, reset_after) in [(true, true), (true, false), (false, true), (false, false)] {
        let theirs = GruConfig::new(5, 7, bias)
            .with_reset_after(reset_after)
            .init(&device());
        let ours = burn_nn::from_gru(&theirs, &device()).expect("converts");
        let back = burn_nn::to_gru(&ours, &device()).expect("converts");
        let (x, hidden): (Tensor<3>, Tensor<2>) = (random([4, 6, 5]), random([4, 7]));
        let expected = theirs.forward(x.clone(), Some(hidden.clone()));
        let state = GruState {
            hidden: hidden.clone(),
        };
        let (got, last) = ours.forward(x.clone(), Some(state.into()));
        let case = format!("bias {bias}, reset after {reset_after}");
        assert!(differ(got, expected.clone()) < 1e-6, "{case}");
        let end = expected.clone().slice([0..4, 5..6]).squeeze_dim::<2>(1);
        assert!(
            differ(last.last().hidden.clone(), end) < 1e-6,
            "{case}: state"
        );
        let again = back.forward(x, Some(hidden));
        assert!(differ(again, expected) < 1e-6, "{case}: and back");
        same(
            &burn_nn::from_gru(&back, &device()).expect("converts"),
            &ours,
        );
    }
}

#[test]
fn burn_nn_in_both_directions_both_ways() {
    for (reset_after, batch_first) in [(true, true), (false, false)] {
        let theirs = BiGruConfig::new(5, 7, true)
            .with_reset_after(reset_after)
            .with_batch_first(batch_first)
            .init(&device());
        let ours = burn_nn::from_bigru(&theirs, &device()).expect("converts");
        let back = burn_nn::to_bigru(&ours, &device()).expect("converts");
        let x: Tensor<3> = random([4, 6, 5]);
        let state: Tensor<3> = random([2, if batch_first { 4 } else { 6 }, 7]);
        let (expected, end) = theirs.forward(x.clone(), Some(state.clone()));
        let start = StackState::from_stacked_hidden(state.clone());
        let (got, last) = ours.forward(x.clone(), Some(start));
        let (again, _) = back.forward(x, Some(state));
        assert!(differ(got, expected.clone()) < 1e-6, "output");
        assert!(differ(last.into_stacked(), end) < 1e-6, "state");
        assert!(differ(again, expected) < 1e-6, "and back");
    }
}

#[test]
fn what_burn_nn_and_ours_do_not_share() {
    let clipped = GruConfig::new(5, 7, true)
        .with_clip(Some(0.5))
        .init(&device());
    let other = GruConfig::new(5, 7, true)
        .with_hidden_activation(ActivationConfig::Relu)
        .init(&device());
    for (theirs, expected) in [(clipped, "`clip` = 0.5"), (other, "activations")] {
        let error = burn_nn::from_gru(&theirs, &device()).expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let config = || StackConfig::new(5, 7);
    for (config, expected) in [
        (config().with_num_layers(2), "one layer, got 2"),
        (config().with_bidirectional(true), "to_bigru"),
        (config().with_reverse(true), "`reverse` = true"),
        (config().with_batch_first(false), "`batch_first` = false"),
    ] {
        let error = burn_nn::to_gru(&stack(config, true, true), &device()).expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

// --- Keras

#[test]
fn keras_files_compute_what_keras_does() {
    for (name, reset_after) in [("keras_gru_reset_after", true), ("keras_gru", false)] {
        let file = open(&format!("weights/data/{name}.safetensors"));
        let layer = file.under("gru").expect("weights");
        let gru = keras::gru(&layer, reset_after, &device()).expect("it fits");
        let state = GruState {
            hidden: tensor(&file, "h0"),
        };
        let (y, _) = gru.forward(tensor(&file, "x"), Some(state.into()));
        assert!(differ(y, tensor(&file, "y")) < 1e-6, "{name}");

        // The bias has another shape with the other setting.
        let error = keras::gru(&layer, !reset_after, &device()).expect_err("refused");
        assert!(error.to_string().contains("`bias`"), "{error}");
    }
}

#[test]
fn keras_out_and_in_again_is_the_identity() {
    for (bias, reset_after) in [(true, true), (true, false), (false, true), (false, false)] {
        let gru = stack(StackConfig::new(5, 7), bias, reset_after);
        let file = import::export(&Keras, &gru).expect("Keras holds it");
        let again = keras::gru(&file, reset_after, &device()).expect("it fits");
        same(&again, &gru);
    }
}

// --- the cell

#[test]
fn a_gru_has_no_options_of_the_lstm() {
    let plain = || recurrent_modules::GruConfig::new(5, 7);
    let zoneout = RecurrentDropout::Zoneout {
        hidden: 0.1,
        cell: 0.1,
    };
    let moon = RecurrentDropout::Moon { prob: 0.5 };
    for (field, config) in [
        ("d_proj", plain().with_d_proj(Some(3))),
        ("clip", plain().with_clip(Some(1.0))),
        ("forget_bias", plain().with_forget_bias(Some(1.0))),
        ("recurrent_dropout", plain().with_recurrent_dropout(zoneout)),
        ("recurrent_dropout", plain().with_recurrent_dropout(moon)),
        ("d_hidden", recurrent_modules::GruConfig::new(5, 0)),
    ] {
        let error = config.validate().expect_err("refused").to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
#[should_panic(expected = "got a `bias_candidate_hidden`, expected none without `reset_after`")]
fn a_bias_that_has_no_place() {
    let mut gru = stack(StackConfig::new(5, 7), true, true);
    gru.layers[0].forward.reset_after = false;
    gru.forward(random::<3>([2, 3, 5]), None);
}

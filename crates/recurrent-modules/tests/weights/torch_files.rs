//! Files that PyTorch wrote, see `data/make_checkpoints.py`.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use recurrent_modules::import::{Dtype, Tensors, pytorch};
use serde_json::Value;

use crate::support::device;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/weights/data")
        .join(name)
}

fn open(name: &str) -> Tensors {
    Tensors::open(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn numbers(case: &Value, key: &str) -> Vec<f32> {
    let list = case[key].as_array().expect("a list").iter();
    list.map(|v| v.as_f64().expect("a number") as f32).collect()
}

/// Largest difference from what PyTorch computed: of the outputs and both final states.
fn compare(file: &Tensors, case: &str) -> f32 {
    let text = std::fs::read_to_string(path(case)).expect("the recorded case");
    let case: Value = serde_json::from_str(&text).expect("JSON");
    let lstm = pytorch::lstm(file, &device()).expect("it fits");
    let input = TensorData::new(numbers(&case, "input"), [2, 5, 3]);
    let (y, state) = lstm.forward(Tensor::from_data(input, &device()), None);
    let state = state.into_stacked();
    let mut largest = 0.0;
    for (key, got) in [
        ("output", y),
        ("hidden", state.hidden),
        ("cell", state.cell),
    ] {
        let got: Vec<f32> = got.into_data().try_to_vec().expect("f32");
        let difference = crate::support::largest_difference(&got, &numbers(&case, key));
        largest = f32::max(largest, difference);
    }
    largest
}

#[test]
fn layers_directions_and_projection() {
    let difference = compare(&open("all_options.pt"), "all_options.json");
    println!("largest difference from PyTorch: {difference:e}");
    assert!(difference < 1e-6, "{difference}");
}

#[test]
fn a_part_of_a_training_checkpoint() {
    let file = open("training.pt");
    let part = file.under("model.encoder").expect("the prefix is there");
    assert!(compare(&part, "training.json") < 1e-6);
    assert!(
        file.get("optimizer.state.0.exp_avg").is_some(),
        "keys may be numbers"
    );
    let error = pytorch::lstm(&file, &device())
        .expect_err("no prefix")
        .to_string();
    assert!(
        error.contains("under the prefix `model.encoder`"),
        "{error}"
    );
}

#[test]
fn the_format_before_version_1_6() {
    assert!(compare(&open("old_format.pt"), "training.json") < 1e-6);
}

/// The weights are multiples of 2⁻¹⁰ below 0.5: exact in f16, rounded in bf16.
#[test]
fn other_types_of_numbers() {
    for (name, dtype, tolerance) in [
        ("f64.pt", Dtype::F64, 1e-6),
        ("f16.pt", Dtype::F16, 1e-6),
        ("bf16.pt", Dtype::Bf16, 5e-3),
    ] {
        let file = open(name);
        assert_eq!(file.get("weight_ih_l0").expect("there").dtype(), dtype);
        let difference = compare(&file, "training.json");
        assert!(difference < tolerance, "{name}: {difference}");
    }
}

#[test]
fn strides_of_a_view() {
    assert!(compare(&open("strided.pt"), "training.json") < 1e-6);
}

#[test]
fn code_is_not_run() {
    let error = Tensors::open(path("with_code.pt"))
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("system`, which is none of the functions"),
        "{error}"
    );
    assert!(error.contains("nothing was run"), "{error}");
    assert!(!Path::new("pickle_was_run").exists());
}

/// One number that declares a million.
#[test]
fn repeated_elements_are_refused() {
    let error = Tensors::open(path("expanded.pt"))
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("declares 1000000 elements, its data has 1"),
        "{error}"
    );
}

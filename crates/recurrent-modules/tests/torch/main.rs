//! Weights trained here, in PyTorch.
//!
//! Needs a Python with torch: `RECURRENT_PYTHON=$(tests/torch/python.sh FOLDER)` makes one. Without
//! it the test says so and does nothing.

use std::path::Path;
use std::process::Command;

use burn::module::{Module, ModuleDisplay};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use recurrent_modules::cells::{GruCell, LstmCell};
use recurrent_modules::import::{
    Dtype, Layout, export,
    pytorch::{TorchGru, TorchLstm},
};
use recurrent_modules::{Cell, GruConfig, LstmConfig, SharedConfig, Stack, StackState, Step};
use serde_json::{Value, json};

/// Tensors by the names of `check.py`.
type Named = Vec<(&'static str, Tensor<3>)>;

/// The state of a cell.
type StateOf<C> = <<C as Cell>::Step as Step>::State;

/// A module of PyTorch, and its twin of this library.
struct Twin<C: Cell, L> {
    /// The name in `torch.nn`.
    module: &'static str,
    layout: L,
    stack: Stack<C>,
    /// Converts the final states to PyTorch's form.
    stacked: fn(StackState<StateOf<C>>) -> Named,
}

fn lstm(config: &LstmConfig) -> Twin<LstmCell, TorchLstm> {
    Twin {
        module: "LSTM",
        layout: TorchLstm,
        stack: config.init(&Device::flex().autodiff()),
        stacked: |state| {
            let state = state.into_stacked();
            vec![("hidden", state.hidden), ("cell", state.cell)]
        },
    }
}

fn gru(config: &GruConfig) -> Twin<GruCell, TorchGru> {
    Twin {
        module: "GRU",
        layout: TorchGru,
        stack: config.init(&Device::flex().autodiff()),
        stacked: |state| vec![("hidden", state.into_stacked())],
    }
}

/// A few steps towards a random target.
fn train<C: Cell + ModuleDisplay>(mut stack: Stack<C>, d_input: usize) -> Stack<C> {
    let device = Device::flex().autodiff();
    let mut optimizer = AdamConfig::new().init();
    let random =
        |features| Tensor::<3>::random([4, 9, features], Distribution::Uniform(-1.0, 1.0), &device);
    let (x, target) = (random(d_input), random(stack.d_output()));
    for _ in 0..20 {
        let (y, _) = stack.forward(x.clone(), None);
        let loss = (y - target.clone()).square().mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &stack);
        stack = optimizer.step(0.02, stack, gradients);
    }
    stack.valid()
}

/// The largest difference of output and final states from PyTorch's.
fn compare<C: Cell + ModuleDisplay, L: Layout<Stack<C>>>(
    python: &str,
    twin: Twin<C, L>,
    config: &SharedConfig,
    dtype: Dtype,
    folder: &Path,
) -> f32 {
    let stack = train(twin.stack, config.d_input);
    let [batch, steps] = [3, 8];
    let count = batch * steps * config.d_input;
    let input: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();

    let prefix = "encoder.rnn";
    let tensors = export(&twin.layout, &stack).expect("PyTorch holds it");
    let tensors = tensors.with_prefix(prefix).cast(dtype).expect("in range");
    let [file, options, out] =
        ["model.safetensors", "options.json", "out.json"].map(|name| folder.join(name));
    tensors.save_safetensors(&file).expect("written");
    let mut asked = json!({
        "module": twin.module,
        "prefix": format!("{prefix}."),
        "input": input,
        "shape": [batch, steps, config.d_input],
        "input_size": config.d_input,
        "hidden_size": config.d_hidden,
        "num_layers": config.num_layers,
        "bidirectional": config.bidirectional,
        "bias": config.bias,
    });
    if let Some(d_proj) = config.d_proj {
        asked["proj_size"] = json!(d_proj);
    }
    std::fs::write(&options, asked.to_string()).expect("written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch/check.py");
    let status = Command::new(python)
        .arg(script)
        .args([&file, &options, &out])
        .status()
        .unwrap_or_else(|error| panic!("{python}: {error}"));
    assert!(status.success(), "PyTorch refused the file: {status}");
    let theirs: Value =
        serde_json::from_slice(&std::fs::read(out).expect("its answer")).expect("JSON");

    let x = TensorData::new(input, [batch, steps, config.d_input]);
    let (y, state) = stack.forward(Tensor::from_data(x, &Device::flex()), None);
    let mut computed = (twin.stacked)(state);
    computed.push(("output", y));
    assert_eq!(computed.len(), theirs.as_object().expect("a map").len());
    let mut largest = 0.0;
    for (key, ours) in computed {
        let ours: Vec<f32> = ours.into_data().try_to_vec().expect("f32");
        let theirs = theirs[key].as_array().expect("a list");
        assert_eq!(ours.len(), theirs.len(), "{key}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            let theirs = theirs.as_f64().expect("a number") as f32;
            largest = f32::max(largest, (ours - theirs).abs());
        }
    }
    largest
}

#[test]
fn pytorch_computes_the_same_from_an_export() {
    let python = std::env::var("RECURRENT_PYTHON").ok();
    let Some(python) = python.filter(|path| !path.is_empty()) else {
        println!("skipped: RECURRENT_PYTHON names no Python with torch");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let plain = LstmConfig::new(5, 7);
    let stacked = plain.clone().with_num_layers(3).with_bidirectional(true);
    let cases = [
        ("plain", plain.clone(), Dtype::F32, 2e-6),
        ("no bias", plain.clone().with_bias(false), Dtype::F32, 2e-6),
        ("layers and directions", stacked.clone(), Dtype::F32, 2e-6),
        ("projection", stacked.with_d_proj(Some(4)), Dtype::F32, 2e-6),
        ("f16", plain.clone(), Dtype::F16, 5e-3),
        ("bf16", plain, Dtype::Bf16, 5e-2),
    ]
    .map(|(name, config, dtype, tolerance)| {
        let difference = compare(&python, lstm(&config), &config, dtype, folder.path());
        (format!("LSTM, {name}"), dtype, tolerance, difference)
    });
    let plain = GruConfig::new(5, 7);
    let stacked = plain.clone().with_num_layers(3).with_bidirectional(true);
    let gru_cases = [
        ("plain", plain.clone(), Dtype::F32, 2e-6),
        ("no bias", plain.clone().with_bias(false), Dtype::F32, 2e-6),
        ("layers and directions", stacked, Dtype::F32, 2e-6),
        ("bf16", plain, Dtype::Bf16, 5e-2),
    ]
    .map(|(name, config, dtype, tolerance)| {
        let difference = compare(&python, gru(&config), &config, dtype, folder.path());
        (format!("GRU, {name}"), dtype, tolerance, difference)
    });
    for (name, dtype, tolerance, difference) in cases.into_iter().chain(gru_cases) {
        println!("{name}: largest difference from PyTorch {difference:e}");
        assert!(difference < tolerance, "{name}: {difference}");
        assert_eq!(
            dtype == Dtype::F32,
            difference < 2e-6,
            "{name}: {difference}"
        );
    }
}

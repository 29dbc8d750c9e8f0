//! Loads a PyTorch checkpoint, runs it, and compares the outputs with those of PyTorch.
//!
//! `cargo run --release --example import_pytorch`
//!
//! The checkpoint is a model with a bidirectional LSTM of two layers as `encoder` and a linear `head`.
//! `examples/data/make_tagger.py` generated it, together with an input and PyTorch's outputs.

use std::path::Path;
use std::process::ExitCode;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use recurrent_bench::device::{self, DEFAULT_DEVICE};
use recurrent_bench::error::{self, Error};
use recurrent_modules::Lstm;
use recurrent_modules::import::{ImportError, Tensors, pytorch};
use serde::Deserialize;

/// A Burn model with a recurrent layer as a field.
#[derive(Module, Debug)]
struct Tagger {
    encoder: Lstm,
    head: Linear,
}

impl Tagger {
    /// From the state dict of a PyTorch model with the same parts. The sizes come from the tensors.
    fn from_pytorch(file: &Tensors, device: &Device) -> Result<Self, ImportError> {
        let encoder = pytorch::lstm(&file.under("encoder")?, device)?;
        // The import covers recurrent layers only; the two tensors of the linear layer are read by hand.
        let tensor = |name: &str| {
            let missing = ImportError::Unsupported {
                what: format!("the file has no `{name}`"),
            };
            file.get(name).ok_or(missing)?.values(name)
        };
        let weight = Tensor::<2>::from_data(tensor("head.weight")?, device).transpose();
        let [d_input, d_output] = weight.dims();
        let mut head = LinearConfig::new(d_input, d_output).init(device);
        head.weight = Param::from_tensor(weight);
        let bias = Tensor::<1>::from_data(tensor("head.bias")?, device);
        head.bias = Some(Param::from_tensor(bias));
        Ok(Self { encoder, head })
    }

    /// `[batch, time, 6]` to `[batch, time, 5]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (hidden, _state) = self.encoder.forward(x, None);
        self.head.forward(hidden)
    }
}

/// Input and outputs from `make_tagger.py`.
#[derive(Deserialize)]
struct Recorded {
    /// `[4, 11, 6]`
    input: Vec<f32>,
    /// `[4, 11, 5]`
    output: Vec<f32>,
}

fn main() -> ExitCode {
    error::finish(run())
}

fn run() -> Result<(), Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/data");
    let device = device::open(DEFAULT_DEVICE.parse()?)?;
    let file = Tensors::open(folder.join("tagger.pt")).map_err(Error::other)?;
    for (name, tensor) in file.iter() {
        println!("{name:<32}{tensor:?}");
    }
    let tagger = Tagger::from_pytorch(&file, &device).map_err(Error::other)?;

    let text = std::fs::read(folder.join("tagger.json")).map_err(Error::other)?;
    let recorded: Recorded = serde_json::from_slice(&text).map_err(Error::other)?;
    let tensor = |values: Vec<f32>, features: usize| {
        Tensor::<3>::from_data(TensorData::new(values, [4, 11, features]), &device)
    };
    let input = tensor(recorded.input, 6);
    let expected = tensor(recorded.output, 5);
    let output = tagger.forward(input);
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let difference = (output.clone() - expected).abs().max().into_scalar::<f32>();
    println!(
        "outputs {:?} up to {largest:.3}, largest difference from PyTorch {difference:e}",
        output.dims()
    );
    // Rounding errors of f32, over two layers and eleven steps.
    if difference > 1e-5 {
        return Err(Error::other("the outputs are not PyTorch's"));
    }
    Ok(())
}

//! Storage in half the size, and quantised weights.

use burn::module::{Module, ModuleMapper, Param, Quantizer};
use burn::store::ModuleRecord;
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{DType, Tensor};
use recurrent_modules::import::{Dtype, ExportError, Source, SourceOptions, Tensors};
use recurrent_modules::{Lstm, LstmConfig, Recurrent, RecurrentConfig};

use crate::support::{device, largest_difference, output};

/// Half the bytes; the outputs differ by no more than the type's rounding lets them.
#[test]
fn f16_and_bf16_files_are_half_as_large() {
    let config = RecurrentConfig::Lstm(LstmConfig::new(24, 48).with_num_layers(2));
    let model = config.init(&device());
    let tensors = Source::PyTorch.export(&model).expect("PyTorch holds it");
    let folder = tempfile::tempdir().expect("a folder");
    let size = |tensors: &Tensors, name: &str| {
        let path = folder.path().join(name);
        tensors.save_safetensors(&path).expect("written");
        std::fs::metadata(path).expect("written").len()
    };
    let full = size(&tensors, "f32");
    // Weights are below 1/√48 = 0.14; a sum of 72 products of them, through two layers.
    for (dtype, tolerance) in [(Dtype::F16, 2e-4), (Dtype::Bf16, 2e-3)] {
        let half = tensors.cast(dtype).expect("in range");
        let bytes = size(&half, dtype.name());
        assert!(bytes * 100 < full * 55, "{dtype}: {bytes} of {full}");
        let file = Tensors::open(folder.path().join(dtype.name())).expect("read");
        assert_eq!(file.get("weight_ih_l0").expect("there").dtype(), dtype);
        let loaded = Source::PyTorch
            .load(&file, &SourceOptions::default(), &device())
            .expect("it fits");
        let difference = largest_difference(&output(&loaded), &output(&model));
        println!(
            "{dtype}: {bytes} of {full} bytes, largest difference of an output {difference:e}"
        );
        assert!(
            difference > 0.0 && difference < tolerance,
            "{dtype}: {difference}"
        );
    }
}

/// A value that the type cannot hold is an error, not an infinity.
#[test]
fn out_of_range_of_f16() {
    let mut tensors = Tensors::default();
    let data = burn::tensor::TensorData::new(vec![1.0f32, 70_000.0], [2]);
    tensors.insert("bias", data);
    let error = tensors.cast(Dtype::F16).expect_err("out of range");
    assert!(
        matches!(&error, ExportError::Range { name, index: 1, .. } if name == "bias"),
        "{error}"
    );
    assert!(
        tensors.cast(Dtype::Bf16).is_ok(),
        "bf16 has the range of f32"
    );
}

/// Checkpoints in half size come back as the device's own type.
#[test]
fn half_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = RecurrentConfig::Lstm(LstmConfig::new(24, 48)).init(&device());
    model.save(folder.path().join("full")).expect("saved");
    model
        .save_as(folder.path().join("half"), Dtype::F16)
        .expect("saved");
    let bytes = |name: &str| {
        let path = folder.path().join(name).join(recurrent_modules::MODEL_FILE);
        std::fs::metadata(path).expect("saved").len()
    };
    assert!(bytes("half") * 100 < bytes("full") * 55);
    let half = Recurrent::load(folder.path().join("half"), &device()).expect("loaded");
    let difference = largest_difference(&output(&half), &output(&model));
    assert!(difference > 0.0 && difference < 2e-4, "{difference}");
}

/// Gives quantised weights back as floats.
struct Dequantize;

impl ModuleMapper for Dequantize {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let tensor = param.val();
        match tensor.dtype() {
            DType::QFloat(_) => Param::initialized(param.id, tensor.dequantize()),
            _ => param,
        }
    }
}

/// What 8-bit weights through Burn cost, and what works: quantising, Burn's own record, and giving
/// the weights back as floats. Recorded in `docs/conversions.md`.
#[test]
fn eight_bit_weights() {
    let model = LstmConfig::new(24, 48).with_num_layers(2).init(&device());
    let quantization = device().settings().quantization;
    let scheme = quantization.scheme.with_value(QuantValue::Q8S);
    let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
    let quantised = model.clone().quantize_weights(&mut quantizer);
    let weight = quantised.layers[0].forward.gates.weight_hidden.val();
    assert!(matches!(weight.dtype(), DType::QFloat(_)));

    let bytes = |model: &Lstm| {
        let record = model.clone().into_record().into_bytes();
        record.expect("a record").len()
    };
    let sizes = [bytes(&model), bytes(&quantised)];
    let file = quantised
        .clone()
        .into_record()
        .into_bytes()
        .expect("a record");
    let record = ModuleRecord::from_bytes(file).expect("a record");
    let loaded = LstmConfig::new(24, 48).with_num_layers(2).init(&device());
    let restored = loaded.load_record(record).map(&mut Dequantize);
    let difference = largest_difference(
        &output(&Recurrent::Lstm(restored)),
        &output(&Recurrent::Lstm(model)),
    );
    println!(
        "8 bits: {} of {} bytes, largest difference {difference:e}",
        sizes[1], sizes[0]
    );
    assert!(sizes[1] * 100 < sizes[0] * 32, "{sizes:?}");
    assert!(difference > 0.0 && difference < 5e-3, "{difference}");

    // Our own files hold floating-point numbers only, and say so.
    let error = Tensors::of(&quantised)
        .save_burnpack("never-written")
        .expect_err("refused");
    assert!(error.to_string().contains("quantised numbers"), "{error}");

    // Burn gives a quantised tensor to no operation that is not its own matrix product. Should this
    // begin to work, the documentation has to say so.
    let input = Tensor::<3>::ones([1, 2, 24], &device());
    let run = || quantised.forward(input, None).0.into_data();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    assert!(ran.is_err(), "a quantised module runs as it is");
}

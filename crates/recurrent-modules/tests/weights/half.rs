//! Storage in half the size, and quantised weights.

use burn::module::{Module, Quantizer};
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{Device, Tensor};
use recurrent_modules::import::{Dtype, ExportError, Source, SourceOptions, Tensors};
use recurrent_modules::{LstmConfig, Recurrent, RecurrentConfig};

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

/// What quantising the weights to 8 bits through Burn costs: weights are quantised, and given back
/// for computing (`dequantize`), since no kernel of Burn's CPU backends multiplies a float matrix by
/// a quantised one in an LSTM. Recorded in `docs/conversions.md`.
#[test]
fn eight_bit_weights() {
    let model = LstmConfig::new(24, 48).with_num_layers(2).init(&device());
    let scheme = Device::flex()
        .settings()
        .quantization
        .scheme
        .with_value(QuantValue::Q8S);
    let mut quantizer = Quantizer::new(Calibration::MinMax, scheme);
    let quantised = model.clone().quantize_weights(&mut quantizer);
    let weight = quantised.layers[0].forward.gates.weight_hidden.val();
    assert!(matches!(weight.dtype(), burn::tensor::DType::QFloat(_)));
    let restored: Tensor<2> = weight.dequantize();
    let original = model.layers[0].forward.gates.weight_hidden.val();
    let difference = (restored - original).abs().max().into_scalar::<f32>();
    // 255 steps over ±0.144.
    assert!(
        difference > 0.0 && difference < 0.144 / 127.0,
        "{difference}"
    );
}

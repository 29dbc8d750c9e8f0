//! What the tests of this folder share.

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use recurrent_modules::import::{Source, SourceOptions, Tensors};
use recurrent_modules::{
    AdaptiveLstmConfig, CifgLstmConfig, Coupling, GruConfig, LayerNormLstmConfig, LstmConfig,
    MogrifierLstmConfig, Recurrent, RecurrentConfig, SlowLstmConfig, UrLstmConfig,
};

/// The plain CPU.
pub fn device() -> Device {
    Device::flex()
}

/// Every layout with models it can hold; sizes differ, gates and layers all have their own values.
pub fn cases() -> Vec<(Source, RecurrentConfig, SourceOptions)> {
    let plain = LstmConfig::new(5, 7);
    let options = SourceOptions::default;
    let lstms = || LayerNormLstmConfig::lstms_pth(5, 7);
    let mogrifier = MogrifierLstmConfig::new(5, 7);
    let notebook = |rounds| {
        mogrifier
            .clone()
            .with_rounds(rounds)
            .with_share_rounds(true)
    };
    let lamb = mogrifier
        .clone()
        .with_round_bias(true)
        .with_cap_input_gate(true);
    let coupled = CifgLstmConfig::new(5, 7).with_coupling(Coupling::ForgetFromInput);
    let rounds = |rounds| SourceOptions {
        rounds,
        ..options()
    };
    let gru = GruConfig::new(5, 7);
    let before = gru.clone().with_reset_after(false);
    let reset_before = || SourceOptions {
        reset_after: false,
        ..options()
    };
    use RecurrentConfig as R;
    vec![
        (Source::PyTorch, R::Lstm(plain.clone()), options()),
        (
            Source::PyTorch,
            R::Lstm(
                plain
                    .clone()
                    .with_num_layers(3)
                    .with_bidirectional(true)
                    .with_d_proj(Some(4)),
            ),
            options(),
        ),
        (
            Source::PyTorch,
            R::Lstm(plain.clone().with_num_layers(2).with_bias(false)),
            options(),
        ),
        (Source::BurnNn, R::Lstm(plain.clone()), options()),
        (
            Source::BurnNn,
            R::Lstm(plain.clone().with_bidirectional(true).with_bias(false)),
            options(),
        ),
        (
            Source::BurnNn,
            R::CifgLstm(coupled.with_bidirectional(true)),
            options(),
        ),
        (
            Source::UrLstm,
            R::UrLstm(UrLstmConfig::new(5, 7).with_num_layers(2)),
            options(),
        ),
        (Source::LstmsPth, R::Lstm(plain.clone()), options()),
        (
            Source::LstmsPth,
            R::Lstm(LstmConfig::stacked(5, [7, 6, 4])),
            options(),
        ),
        (
            Source::LstmsPth,
            R::SlowLstm(SlowLstmConfig::new(7, 7)),
            options(),
        ),
        (Source::LstmsPth, R::LayerNormLstm(lstms()), options()),
        (
            Source::LstmsPth,
            R::LayerNormLstm(
                lstms()
                    .with_norm_input(None)
                    .with_norm_hidden(None)
                    .with_num_layers(2),
            ),
            options(),
        ),
        (
            Source::Alstm,
            R::AdaptiveLstm(AdaptiveLstmConfig::stacked(5, [7, 6]).with_d_adapt(3)),
            options(),
        ),
        (
            Source::Alstm,
            R::AdaptiveLstm(
                AdaptiveLstmConfig::new(5, 7)
                    .with_d_adapt(3)
                    .with_bias(false),
            ),
            options(),
        ),
        (Source::Mogrifier, R::MogrifierLstm(notebook(5)), rounds(5)),
        (Source::Mogrifier, R::MogrifierLstm(notebook(1)), rounds(1)),
        (Source::Lamb, R::MogrifierLstm(lamb.clone()), options()),
        (
            Source::Lamb,
            R::MogrifierLstm(lamb.with_rounds(3).with_rank(Some(2))),
            options(),
        ),
        (Source::Haste, R::Lstm(plain.clone()), options()),
        (
            Source::PyTorch,
            R::Gru(gru.clone().with_num_layers(2).with_bidirectional(true)),
            options(),
        ),
        (
            Source::PyTorch,
            R::Gru(gru.clone().with_bias(false)),
            options(),
        ),
        (
            Source::BurnNn,
            R::Gru(gru.clone().with_bidirectional(true)),
            options(),
        ),
        (Source::BurnNn, R::Gru(before.clone()), reset_before()),
        (Source::Keras, R::Gru(gru.clone()), options()),
        (Source::Keras, R::Gru(before.clone()), options()),
        (
            Source::Keras,
            R::Gru(before.with_bias(false)),
            reset_before(),
        ),
        (Source::Recurrent, R::Gru(gru.with_num_layers(2)), options()),
        (Source::Keras, R::Lstm(plain.with_bias(false)), options()),
        (
            Source::Recurrent,
            R::LayerNormLstm(LayerNormLstmConfig::new(5, 7).with_bidirectional(true)),
            options(),
        ),
    ]
}

/// The output of a model on a fixed input.
pub fn output(model: &Recurrent) -> Vec<f32> {
    let steps = 6;
    let batch = 3;
    let count = batch * steps * model.d_input();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
    let input = TensorData::new(values, [batch, steps, model.d_input()]);
    let (output, _) = model.forward(Tensor::from_data(input, &device()), None);
    output.into_data().try_to_vec().expect("f32")
}

/// The largest difference of two lists of equal length.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// A model and its weights in PyTorch's layout.
pub fn torch_tensors() -> (Recurrent, Tensors) {
    let config = RecurrentConfig::Lstm(LstmConfig::new(5, 7).with_num_layers(2));
    let model = config.init(&device());
    let tensors = Source::PyTorch.export(&model).expect("PyTorch holds it");
    (model, tensors)
}

/// Random values.
pub fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &device())
}

//! What `forward` samples is what `sample_masks` gives.
//!
//! The one test that seeds the device's generator, which is shared by the whole process: hence it
//! is alone in its binary.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use recurrent_core::eval::compare::values;
use recurrent_modules::{
    ForwardOptions, GruConfig, LayerNormLstmConfig, Lengths, LstmConfig, PackedSequence, Recurrent,
    RecurrentConfig, RecurrentDropout, SlowLstmConfig,
};

const SHAPE: [usize; 3] = [3, 5, 7];

fn configs(kind: RecurrentDropout) -> Vec<RecurrentConfig> {
    let mut list = [
        RecurrentConfig::Lstm(LstmConfig::new(SHAPE[2], 11)),
        RecurrentConfig::SlowLstm(SlowLstmConfig::new(SHAPE[2], 11)),
        RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::new(SHAPE[2], 11)),
    ]
    .map(|config| config.with_d_proj(Some(6)).with_recurrent_dropout(kind))
    .to_vec();
    // A GRU has no cell state, and no masks on it.
    let kind = match kind {
        RecurrentDropout::Zoneout { hidden, .. } => RecurrentDropout::Zoneout { hidden, cell: 0.0 },
        kind => kind,
    };
    if !matches!(kind, RecurrentDropout::Moon { .. }) {
        let gru = RecurrentConfig::Gru(GruConfig::new(SHAPE[2], 11));
        list.push(gru.with_recurrent_dropout(kind));
    }
    list.into_iter()
        .map(|config| {
            config
                .with_num_layers(3)
                .with_bidirectional(true)
                .with_dropout(0.4)
        })
        .collect()
}

fn check(device: &Device) {
    let prob = 0.3;
    for kind in [
        RecurrentDropout::None,
        RecurrentDropout::Standard { prob },
        RecurrentDropout::Gal { prob },
        RecurrentDropout::Moon { prob },
        RecurrentDropout::Semeniuta { prob },
        RecurrentDropout::Zoneout {
            hidden: 0.2,
            cell: 0.6,
        },
    ] {
        for config in configs(kind) {
            let module: Recurrent = config.init(device);
            let list: Vec<f32> = (0..105).map(|k| (k as f32).sin()).collect();
            let input = Tensor::<1>::from_floats(list.as_slice(), device).reshape(SHAPE);
            // Draws the parameters.
            let _ = module.forward(input.clone(), None);

            device.seed(7);
            let (expected, _) = module.forward(input.clone(), None);
            device.seed(7);
            let masks = module.sample_masks(SHAPE[1], SHAPE[0], device);
            let options = ForwardOptions {
                masks: Some(&masks),
                ..ForwardOptions::default()
            };
            let (got, _) = module.forward_with(input.clone(), None, options);
            assert_eq!(
                values(&got),
                values(&expected),
                "{}, {kind:?}",
                config.name()
            );

            device.seed(8);
            let (other, _) = module.forward(input, None);
            assert_ne!(
                values(&other),
                values(&expected),
                "{}, {kind:?}",
                config.name()
            );
        }
    }
}

/// The same seed draws the same parameters.
fn check_parameters(device: &Device) {
    let draw = |seed: u64| {
        device.seed(seed);
        let lstm = LstmConfig::new(7, 11).init(device);
        let cell = &lstm.layers[0].forward;
        let bias = cell.gates.bias.as_ref().map(Param::val).expect("a bias");
        (values(&cell.gates.weight_input.val()), values(&bias))
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

/// In training the packed batch is dropped as the padded one: masks are in batch order.
fn check_packed(device: &Device) {
    let lstm = LstmConfig::new(SHAPE[2], 11)
        .with_num_layers(3)
        .with_bidirectional(true)
        .with_dropout(0.4)
        .with_weight_drop(0.3)
        .with_recurrent_dropout(RecurrentDropout::Standard { prob: 0.2 })
        .init(device);
    let list: Vec<f32> = (0..105).map(|k| (k as f32).sin()).collect();
    let input = Tensor::<1>::from_floats(list.as_slice(), device).reshape(SHAPE);
    // Draws the parameters.
    let _ = lstm.forward(input.clone(), None);

    let mut list = vec![2; SHAPE[0]];
    list[1] = SHAPE[1];
    let lengths = Lengths::new(list.clone(), SHAPE[1]).expect("lengths");
    let options = ForwardOptions {
        lengths: Some(&lengths),
        ..ForwardOptions::default()
    };
    device.seed(7);
    let (expected, _) = lstm.forward_with(input.clone(), None, options);
    device.seed(7);
    let packed = PackedSequence::pack(input, list, true, false).expect("packed");
    let (got, _) = lstm.forward_packed(&packed, None);
    for (got, expected) in values(&got.unpack(true).0).iter().zip(values(&expected)) {
        assert!((got - expected).abs() < 1e-6, "{got}, {expected}");
    }
}

#[test]
fn seeds_determine_masks_and_parameters() {
    #[allow(deprecated)]
    let ndarray = Device::ndarray().autodiff();
    for device in [Device::flex().autodiff(), ndarray] {
        check(&device);
        check_packed(&device);
        check_parameters(&device);
    }
}

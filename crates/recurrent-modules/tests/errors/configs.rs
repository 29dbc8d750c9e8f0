//! Configs that cannot be built.

use std::ops::{Deref, DerefMut};

use burn::nn::Initializer;
use burn::tensor::Device;
use recurrent_core::GateLayout;
use recurrent_modules::cells::{CellOptions, LstmCell, SharedConfig, VariantConfig};
use recurrent_modules::{
    GruConfig, InvalidConfig, LayerNormLstmConfig, LstmConfig, NormConfig, RecurrentConfig,
    RecurrentDropout, SlowLstmConfig, StackConfig, WeightInit, by_variant,
};

use crate::*;

/// `validate`, `try_init` and `init` say the same, which contains the given parts.
#[track_caller]
fn assert_invalid(config: &RecurrentConfig, parts: &[&str]) {
    let device = Device::flex();
    let error = config.validate().expect_err("an invalid config");
    assert_says(&error.to_string(), parts);
    assert_eq!(config.try_init(&device).map(|_| ()), Err(error.clone()));
    let text = panic_text(|| config.init(&device));
    assert_eq!(text, format!("{}: {error}", config.name()));
    // The variant's own config, and its bare cell.
    let name = format!("{}Config", config.name());
    by_variant!(RecurrentConfig: config, |config| {
        assert_eq!(config.validate(), Err(error.clone()));
        assert_eq!(config.try_init(&device).map(|_| ()), Err(error.clone()));
        let text = panic_text(|| config.init(&device));
        assert_eq!(text, format!("{name}: {error}"));
        let cell = config.try_init_cell(&device);
        assert_eq!(cell.map(|_| ()), Err(error.clone()));
        assert_eq!(panic_text(|| config.init_cell(&device)), text);
    });
}

/// A change that each variant refuses.
macro_rules! refused {
    (|$c:ident| $change:expr, $($part:expr),+ $(,)?) => {
        for config in variants() {
            assert!(config.validate().is_ok());
            assert_invalid(&{ let $c = config; $change }, &[$($part),+]);
        }
    };
}

#[test]
fn sizes_of_zero() {
    refused!(
        |c| {
            let mut c = c;
            c.d_input = 0;
            c
        },
        "`d_input` is 0, expected at least 1"
    );
    refused!(
        |c| {
            let mut c = c;
            c.d_hidden = 0;
            c
        },
        "`d_hidden` is 0, expected at least 1"
    );
    refused!(
        |c| c.with_num_layers(0),
        "`num_layers` is 0, expected at least 1"
    );
    refused!(
        |c| c.with_d_proj(Some(0)),
        "`d_proj` is 0, expected at least 1"
    );
}

#[test]
fn probabilities_outside_their_range() {
    let range = "expected a probability in [0, 1)";
    for (prob, got) in [
        (1.0, "1"),
        (1.5, "1.5"),
        (-0.1, "-0.1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ] {
        let got = format!("is {got}, ");
        refused!(
            |c| c.with_num_layers(2).with_dropout(prob),
            "`dropout` ",
            &got,
            range
        );
        for kind in [
            RecurrentDropout::Standard { prob },
            RecurrentDropout::Gal { prob },
            RecurrentDropout::Moon { prob },
            RecurrentDropout::Semeniuta { prob },
        ] {
            refused!(
                |c| c.with_recurrent_dropout(kind),
                "`recurrent_dropout.prob` ",
                &got,
                range
            );
        }
        let hidden = RecurrentDropout::Zoneout {
            hidden: prob,
            cell: 0.1,
        };
        refused!(
            |c| c.with_recurrent_dropout(hidden),
            "`recurrent_dropout.hidden` ",
            &got,
            range
        );
        let cell = RecurrentDropout::Zoneout {
            hidden: 0.1,
            cell: prob,
        };
        refused!(
            |c| c.with_recurrent_dropout(cell),
            "`recurrent_dropout.cell` ",
            &got,
            range
        );
        assert!(cell.validate().is_err());
    }
    // The ends that are allowed.
    for config in variants() {
        let config = config
            .with_num_layers(2)
            .with_dropout(0.0)
            .with_recurrent_dropout(RecurrentDropout::Gal { prob: 0.999 });
        assert_eq!(config.validate(), Ok(()));
    }
}

#[test]
fn bounds_that_are_not_positive() {
    for (clip, got) in [
        (0.0, "0"),
        (-1.0, "-1"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
    ] {
        refused!(
            |c| c.with_clip(Some(clip)),
            &format!("`clip` is {got}, expected a finite number greater than 0")
        );
    }
}

#[test]
fn projections_that_do_not_shrink() {
    for d_proj in [H, H + 1] {
        refused!(
            |c| c.with_d_proj(Some(d_proj)),
            &format!("`d_proj` is {d_proj}, expected less than d_hidden = {H}")
        );
    }
    // Each of the listed sizes counts.
    refused!(
        |c| c
            .with_num_layers(2)
            .with_layer_sizes(Some(vec![4, H]))
            .with_d_proj(Some(5)),
        "`d_proj` is 5, expected less than d_hidden = 4"
    );
}

#[test]
fn lists_of_sizes() {
    refused!(
        |c| c.with_num_layers(0).with_layer_sizes(Some(vec![])),
        "`layer_sizes` is [], expected at least one size"
    );
    for config in [
        RecurrentConfig::Lstm(LstmConfig::stacked(I, [])),
        RecurrentConfig::SlowLstm(SlowLstmConfig::stacked(I, [])),
        RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::stacked(I, [])),
    ] {
        assert_invalid(
            &config,
            &["`layer_sizes` is [], expected at least one size"],
        );
    }
    refused!(
        |c| c.with_num_layers(3).with_layer_sizes(Some(vec![4, 0, H])),
        "`layer_sizes` is [4, 0, 11], expected sizes of at least 1"
    );
    refused!(
        |c| c.with_num_layers(3).with_layer_sizes(Some(vec![4, H])),
        "`num_layers` and `layer_sizes` contradict each other: 3 layers, but 2 sizes"
    );
    refused!(
        |c| c.with_num_layers(2).with_layer_sizes(Some(vec![H, 4])),
        "`d_hidden` and `layer_sizes` contradict each other",
        "d_hidden is 11, the last layer has 4 units"
    );
}

#[test]
fn options_that_contradict_each_other() {
    refused!(
        |c| c.with_bidirectional(true).with_reverse(true),
        "`bidirectional` and `reverse` contradict each other"
    );
    refused!(
        |c| c.with_dropout(0.1),
        "`dropout` and `num_layers` contradict each other",
        "recurrent_dropout"
    );
    refused!(
        |c| c.with_layer_sizes(Some(vec![H])).with_dropout(0.1),
        "`dropout` and `num_layers` contradict each other"
    );
    refused!(
        |c| c.with_bias(false).with_forget_bias(Some(1.0)),
        "`bias` and `forget_bias` contradict each other"
    );
}

#[test]
fn initial_values() {
    for (value, got) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
    ] {
        let text = format!("`forget_bias` is {got}, expected a finite number");
        refused!(|c| c.with_forget_bias(Some(value)), &text);
        let error = WeightInit::new().with_forget_bias(Some(value)).validate();
        assert_says(&error.expect_err("not finite").to_string(), &[&text]);
    }
    refused!(
        |c| c.with_bias_initializer(Some(Initializer::Orthogonal { gain: 1.0 })),
        "`bias_initializer` is Orthogonal, expected an initializer for vectors"
    );
    // For the matrices it is fine.
    for config in variants() {
        let orthogonal = Some(Initializer::Orthogonal { gain: 1.0 });
        assert!(config.with_initializer(orthogonal).validate().is_ok());
    }
}

type Change = fn(LayerNormLstmConfig, Option<NormConfig>) -> LayerNormLstmConfig;

#[test]
fn normalisations() {
    let places: [(&str, Change); 3] = [
        ("norm_input", LayerNormLstmConfig::with_norm_input),
        ("norm_hidden", LayerNormLstmConfig::with_norm_hidden),
        ("norm_cell", LayerNormLstmConfig::with_norm_cell),
    ];
    let config = || LayerNormLstmConfig::new(I, H);
    for (field, with) in places {
        let refused = |norm: NormConfig, own: &str, expected: &str| {
            let text = format!("`{field}.{own}` {expected}");
            let config = RecurrentConfig::LayerNormLstm(with(config(), Some(norm.clone())));
            assert_invalid(&config, &[&text]);
            // On its own it has no path.
            let text = format!("`{own}` {expected}");
            let error = norm.validate().expect_err("an invalid normalisation");
            assert_says(&error.to_string(), &[&text]);
            let device = Device::flex();
            assert_eq!(norm.try_init(H, &device).map(|_| ()), Err(error.clone()));
            assert_eq!(
                panic_text(|| norm.init(H, &device)),
                format!("NormConfig: {error}")
            );
        };
        for (epsilon, got) in [(0.0, "0"), (-1e-5, "-0.00001"), (f64::NAN, "NaN")] {
            refused(
                NormConfig::new().with_epsilon(epsilon),
                "epsilon",
                &format!("is {got}, expected a finite number greater than 0"),
            );
        }
        let orthogonal = || Some(Initializer::Orthogonal { gain: 1.0 });
        let expected = "is Orthogonal, expected an initializer for vectors";
        refused(
            NormConfig::new().with_gain_initializer(orthogonal()),
            "gain_initializer",
            expected,
        );
        refused(
            NormConfig::new().with_shift_initializer(orthogonal()),
            "shift_initializer",
            expected,
        );
    }

    let carried = config().with_carry_normalized(true).with_norm_cell(None);
    assert_invalid(
        &RecurrentConfig::LayerNormLstm(carried),
        &["`carry_normalized` and `norm_cell` contradict each other"],
    );
    // One unit has no unbiased variance; four gates of one unit do.
    for d_hidden in [1, 2] {
        let config = RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::lstms_pth(I, d_hidden));
        match d_hidden {
            1 => assert_invalid(
                &config,
                &[
                    "`norm_cell` and `d_hidden` contradict each other",
                    "1 feature",
                    "at least 2",
                ],
            ),
            _ => assert_eq!(config.validate(), Ok(())),
        }
    }
    let listed = LayerNormLstmConfig::lstms_pth(I, H)
        .with_num_layers(2)
        .with_layer_sizes(Some(vec![1, H]));
    assert_invalid(
        &RecurrentConfig::LayerNormLstm(listed),
        &["`norm_cell` and `d_hidden` contradict each other"],
    );
    let device = Device::flex();
    assert!(NormConfig::bradbury().try_init(1, &device).is_err());
    assert!(NormConfig::new().try_init(1, &device).is_ok());
    let error = NormConfig::new()
        .try_init(0, &device)
        .expect_err("no features");
    assert_says(&error.to_string(), &["is 0, expected at least 1"]);
}

#[test]
fn bare_cells_have_no_layers() {
    let device = Device::flex();
    let configs = [
        LstmConfig::new(I, H).with_num_layers(2),
        LstmConfig::stacked(I, [8, H]),
        LstmConfig::stacked(I, [H]),
        LstmConfig::new(I, H).with_bidirectional(true),
        LstmConfig::new(I, H).with_reverse(true),
        LstmConfig::gal(I, H, 0.2),
    ];
    for config in configs {
        assert!(config.validate().is_ok());
        let error = config.try_init_cell(&device).expect_err("not a bare cell");
        assert!(matches!(error, InvalidConfig::Contradiction { .. }));
        assert_says(
            &error.to_string(),
            &["layers, directions or dropout", "a bare cell", "use `init`"],
        );
        let text = panic_text(|| config.init_cell(&device));
        assert_eq!(text, format!("LstmConfig: {error}"));
    }
    let single = LstmConfig::new(I, H)
        .with_d_proj(Some(4))
        .with_batch_first(false);
    assert!(single.try_init_cell(&device).is_ok());
}

/// What a GRU has not is refused with the reason, whatever its value; the rest is checked as elsewhere.
#[test]
fn a_gru_refuses_what_needs_a_cell_state() {
    let plain = || RecurrentConfig::Gru(GruConfig::new(I, H));
    let zoneout = |hidden, cell| RecurrentDropout::Zoneout { hidden, cell };
    let needs_cell = "`recurrent_dropout` and `GruConfig` contradict each other: a GRU has no cell state: \
                      use a kind that acts on the hidden state or the candidate";
    for (config, says) in [
        (
            plain().with_d_proj(Some(4)),
            "`d_proj` and `GruConfig` contradict each other: a GRU has no projection",
        ),
        (plain().with_d_proj(Some(0)), "a GRU has no projection"),
        (
            plain().with_clip(Some(1.0)),
            "`clip` and `GruConfig` contradict each other: a GRU has no cell state to clip",
        ),
        (
            plain().with_forget_bias(Some(1.0)),
            "`forget_bias` and `GruConfig` contradict each other: a GRU has no forget gate",
        ),
        (
            plain().with_recurrent_dropout(RecurrentDropout::Moon { prob: 0.5 }),
            needs_cell,
        ),
        (
            plain().with_recurrent_dropout(zoneout(0.1, 0.2)),
            needs_cell,
        ),
        (
            plain().with_recurrent_dropout(zoneout(0.0, f64::NAN)),
            needs_cell,
        ),
        (
            plain().with_recurrent_dropout(zoneout(1.0, 0.0)),
            "`recurrent_dropout.hidden` is 1, expected a probability in [0, 1)",
        ),
        (
            plain().with_recurrent_dropout(RecurrentDropout::Gal { prob: 1.5 }),
            "`recurrent_dropout.prob` is 1.5, expected a probability in [0, 1)",
        ),
        (
            RecurrentConfig::Gru(GruConfig::new(0, H)),
            "`d_input` is 0, expected at least 1",
        ),
        (
            RecurrentConfig::Gru(GruConfig::stacked(I, [4, 0])),
            "`layer_sizes` is [4, 0], expected sizes of at least 1",
        ),
        (
            plain().with_bidirectional(true).with_reverse(true),
            "`bidirectional` and `reverse` contradict each other",
        ),
        (
            plain().with_dropout(0.1),
            "`dropout` and `num_layers` contradict each other",
        ),
        (
            plain().with_bias_initializer(Some(Initializer::Orthogonal { gain: 1.0 })),
            "`bias_initializer` is Orthogonal, expected an initializer for vectors",
        ),
    ] {
        assert_invalid(&config, &[says]);
    }
    for kind in [
        RecurrentDropout::Standard { prob: 0.5 },
        RecurrentDropout::Gal { prob: 0.5 },
        RecurrentDropout::Semeniuta { prob: 0.5 },
        zoneout(0.5, 0.0),
    ] {
        assert_eq!(plain().with_recurrent_dropout(kind).validate(), Ok(()));
    }
    let around = plain().with_weight_drop(0.5).with_num_layers(2);
    assert_eq!(around.with_residual(true).validate(), Ok(()));
}

/// A variant that has only some of the shared options.
struct HiddenOnlyConfig(SharedConfig);

impl Deref for HiddenOnlyConfig {
    type Target = SharedConfig;

    fn deref(&self) -> &SharedConfig {
        &self.0
    }
}

impl DerefMut for HiddenOnlyConfig {
    fn deref_mut(&mut self) -> &mut SharedConfig {
        &mut self.0
    }
}

impl VariantConfig for HiddenOnlyConfig {
    const NAME: &'static str = "HiddenOnlyConfig";
    type Cell = LstmCell;

    fn layout(&self) -> GateLayout {
        GateLayout::PLAIN
    }

    fn new_cell(&self, options: &CellOptions, device: &Device) -> LstmCell {
        LstmConfig::new(options.d_input, options.d_hidden)
            .with_bias(options.bias)
            .init_cell(device)
    }

    fn of_cell(cell: &LstmCell) -> Self {
        let shared = SharedConfig::new(cell.d_input, cell.d_hidden);
        Self(shared.with_bias(cell.gates.bias.is_some()))
    }

    fn validate_own(&self) -> Result<(), InvalidConfig> {
        let moon = matches!(self.recurrent_dropout, RecurrentDropout::Moon { .. });
        for (set, field) in [
            (self.clip.is_some(), "clip"),
            (self.d_proj.is_some(), "d_proj"),
            (self.forget_bias.is_some(), "forget_bias"),
            (moon, "recurrent_dropout"),
        ] {
            InvalidConfig::refuse(set, field, "HiddenOnly", "its state is h alone")?;
        }
        Ok(())
    }
}

#[test]
fn a_variant_refuses_options_that_it_has_not() {
    let device = Device::flex();
    let mut config = HiddenOnlyConfig(SharedConfig::new(I, H).with_bias(false));
    config.num_layers = 2;
    config.bidirectional = true;
    let stack = config.init(&device);
    assert_eq!((stack.d_output(), stack.layers.len()), (2 * H, 2));
    assert_eq!(stack.layers[1].forward.d_input, 2 * H);
    assert_eq!(HiddenOnlyConfig::of(&stack).0, config.0);

    type Set = fn(&mut SharedConfig);
    let sets: [(&str, Set); 4] = [
        ("clip", |c| c.clip = Some(1.0)),
        // Not "at least 1": no value of it would do.
        ("d_proj", |c| c.d_proj = Some(0)),
        ("forget_bias", |c| c.forget_bias = Some(1.0)),
        ("recurrent_dropout", |c| {
            c.recurrent_dropout = RecurrentDropout::Moon { prob: 0.5 }
        }),
    ];
    for (field, set) in sets {
        let mut config = HiddenOnlyConfig(SharedConfig::new(I, H));
        config.recurrent_dropout = RecurrentDropout::Gal { prob: 0.5 };
        assert_eq!(config.validate(), Ok(()));
        set(&mut config);
        let expected = InvalidConfig::contradiction(field, "HiddenOnly", "its state is h alone");
        assert_eq!(config.validate(), Err(expected.clone()));
        let text = panic_text(|| config.init(&device));
        assert_eq!(text, format!("HiddenOnlyConfig: {expected}"));
    }
}

#[test]
fn stacks_of_own_cells() {
    let error = StackConfig::new(0, H).validate().expect_err("no input");
    assert_eq!(error, InvalidConfig::value("d_input", 0, "at least 1"));
    let result = StackConfig::new(I, H)
        .with_num_layers(0)
        .try_init_with(|d_input, d_hidden| {
            LstmConfig::new(d_input, d_hidden).try_init_cell(&Device::flex())
        });
    assert_eq!(
        result.map(|_| ()),
        Err(InvalidConfig::value("num_layers", 0, "at least 1"))
    );
    // The cell's own errors come through.
    let result = StackConfig::new(I, H).try_init_with(|d_input, d_hidden| {
        LstmConfig::new(d_input, d_hidden)
            .with_clip(Some(-1.0))
            .try_init_cell(&Device::flex())
    });
    assert_says(
        &result.expect_err("a bad clip").to_string(),
        &["`clip` is -1"],
    );
}

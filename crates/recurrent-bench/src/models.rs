//! The models that experiments compare, by name.

use burn::nn::Initializer;
use recurrent_modules::{
    AdaptiveLstmConfig, CifgLstmConfig, GateInit, GruConfig, LayerNormLstmConfig, LstmConfig,
    MogrifierLstmConfig, NormBias, NormConfig, PeepholeLstmConfig, RecurrentConfig,
    RecurrentDropout, SlowLstmConfig, UrLstmConfig,
};

use RecurrentConfig::{
    AdaptiveLstm, CifgLstm, Gru, LayerNormLstm, Lstm, MogrifierLstm, PeepholeLstm, SlowLstm, UrLstm,
};
use RecurrentDropout::{Gal, Moon, Semeniuta, Standard};

/// A model of the library as an experiment names it.
#[derive(Debug, Clone, Copy)]
pub struct ModelSpec {
    /// The name on the command line and in tables.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Whether it is a row of the table of lstms.pth.
    pub of_lstms_pth: bool,
    config: fn(usize, usize, f64) -> RecurrentConfig,
}

impl ModelSpec {
    /// The config for given sizes; `dropout` is the probability of zeroing, used where the model
    /// has dropout.
    pub fn config(&self, d_input: usize, d_hidden: usize, dropout: f64) -> RecurrentConfig {
        (self.config)(d_input, d_hidden, dropout)
    }
}

/// `LayerNormLSTM` of lstms.pth, whose gains and shifts are initialised randomly.
fn lstms_pth_layer_norm(d_input: usize, d_hidden: usize) -> LayerNormLstmConfig {
    let norm = |features| Some(NormConfig::lstms_pth().with_uniform_start(features));
    LayerNormLstmConfig::lstms_pth(d_input, d_hidden)
        .with_norm_input(norm(4 * d_hidden))
        .with_norm_hidden(norm(4 * d_hidden))
        .with_norm_cell(norm(d_hidden))
        .with_norm_bias(NormBias::Inside)
}

const fn spec(
    name: &'static str,
    about: &'static str,
    of_lstms_pth: bool,
    config: fn(usize, usize, f64) -> RecurrentConfig,
) -> ModelSpec {
    ModelSpec {
        name,
        about,
        of_lstms_pth,
        config,
    }
}

/// Every model, those of lstms.pth first, in the order of its table.
pub const MODELS: [ModelSpec; 22] = [
    spec("nn.LSTM", "LSTM without dropout", true, |i, h, _| {
        Lstm(LstmConfig::new(i, h))
    }),
    spec(
        "SlowLSTM",
        "per-gate linears, standard dropout",
        true,
        |i, h, prob| SlowLstm(SlowLstmConfig::new(i, h).with_recurrent_dropout(Standard { prob })),
    ),
    spec(
        "LSTM",
        "standard dropout on h, fed back",
        true,
        |i, h, prob| Lstm(LstmConfig::new(i, h).with_recurrent_dropout(Standard { prob })),
    ),
    spec(
        "GalLSTM",
        "one mask per sequence on h",
        true,
        |i, h, prob| Lstm(LstmConfig::gal(i, h, prob)),
    ),
    spec(
        "MoonLSTM",
        "one mask per sequence on c",
        true,
        |i, h, prob| Lstm(LstmConfig::moon(i, h, prob)),
    ),
    spec(
        "SemeniutaLSTM",
        "a mask per step on the candidate",
        true,
        |i, h, prob| Lstm(LstmConfig::semeniuta(i, h, prob)),
    ),
    spec(
        "LayerNormLSTM",
        "layer norm, standard dropout",
        true,
        |i, h, prob| {
            LayerNormLstm(lstms_pth_layer_norm(i, h).with_recurrent_dropout(Standard { prob }))
        },
    ),
    spec(
        "LayerNormGalLSTM",
        "layer norm, Gal dropout",
        true,
        |i, h, prob| LayerNormLstm(lstms_pth_layer_norm(i, h).with_recurrent_dropout(Gal { prob })),
    ),
    spec(
        "LayerNormMoonLSTM",
        "layer norm, Moon dropout",
        true,
        |i, h, prob| {
            LayerNormLstm(lstms_pth_layer_norm(i, h).with_recurrent_dropout(Moon { prob }))
        },
    ),
    spec(
        "LayerNormSemeniutaLSTM",
        "layer norm, Semeniuta dropout",
        true,
        |i, h, prob| {
            LayerNormLstm(lstms_pth_layer_norm(i, h).with_recurrent_dropout(Semeniuta { prob }))
        },
    ),
    spec(
        "ZoneoutLSTM",
        "units keep h and c at random",
        false,
        |i, h, prob| Lstm(LstmConfig::zoneout(i, h, prob, prob)),
    ),
    spec(
        "BaLayerNormLSTM",
        "layer norm of Ba et al., orthogonal start, forget bias 1",
        false,
        |i, h, _| {
            let orthogonal = Some(Initializer::Orthogonal { gain: 1.0 });
            LayerNormLstm(
                LayerNormLstmConfig::new(i, h)
                    .with_hidden_initializer(orthogonal)
                    .with_forget_bias(Some(1.0)),
            )
        },
    ),
    spec(
        "AdaptiveLSTM",
        "a small LSTM scales inputs and pre-activations; its masks on h and z",
        false,
        |i, h, prob| AdaptiveLstm(AdaptiveLstmConfig::gal(i, h, prob, prob)),
    ),
    spec("CifgLSTM", "i = 1 - f", false, |i, h, _| {
        CifgLstm(CifgLstmConfig::new(i, h))
    }),
    spec("PeepholeLSTM", "gates see the cell", false, |i, h, _| {
        PeepholeLstm(PeepholeLstmConfig::new(i, h))
    }),
    spec(
        "URLSTM",
        "refine gate, uniform gate initialisation",
        false,
        |i, h, _| UrLstm(UrLstmConfig::new(i, h)),
    ),
    spec("RLSTM", "refine gate alone", false, |i, h, _| {
        UrLstm(UrLstmConfig::refine_only(i, h))
    }),
    spec(
        "ULSTM",
        "LSTM with uniform gate initialisation",
        false,
        |i, h, _| Lstm(LstmConfig::new(i, h).with_gate_init(Some(GateInit::Uniform))),
    ),
    spec(
        "ChronoLSTM",
        "LSTM with chrono initialisation",
        false,
        |i, h, _| Lstm(LstmConfig::new(i, h).with_gate_init(Some(GateInit::Chrono { t_max: 10 }))),
    ),
    spec("OrderedLSTM", "master gates by cumax", false, |i, h, _| {
        UrLstm(UrLstmConfig::ordered(i, h))
    }),
    spec(
        "MogrifierLSTM",
        "5 rounds of mutual gating",
        false,
        |i, h, _| MogrifierLstm(MogrifierLstmConfig::new(i, h)),
    ),
    spec(
        "GRU",
        "reset and update gates, a hidden state alone",
        false,
        |i, h, _| Gru(GruConfig::new(i, h)),
    ),
];

//! The models that experiments compare, by name.

use burn::nn::Initializer;
use recurrent_modules::{
    LayerNormLstmConfig, LstmConfig, NormBias, NormConfig, RecurrentConfig, RecurrentDropout,
    SlowLstmConfig,
};

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

/// `LayerNormLSTM` of lstms.pth, whose gains and shifts start at random.
fn lstms_pth_layer_norm(d_input: usize, d_hidden: usize) -> LayerNormLstmConfig {
    let norm = |features| Some(NormConfig::lstms_pth().with_uniform_start(features));
    LayerNormLstmConfig::lstms_pth(d_input, d_hidden)
        .with_norm_input(norm(4 * d_hidden))
        .with_norm_hidden(norm(4 * d_hidden))
        .with_norm_cell(norm(d_hidden))
        .with_norm_bias(NormBias::Inside)
}

macro_rules! spec {
    ($name:literal, $about:literal, $of:literal, $Variant:ident, |$i:ident, $h:ident, $p:pat_param| $config:expr) => {
        ModelSpec {
            name: $name,
            about: $about,
            of_lstms_pth: $of,
            config: |$i, $h, $p| RecurrentConfig::$Variant($config),
        }
    };
}

/// Every model, those of lstms.pth first, in the order of its table.
pub const MODELS: [ModelSpec; 12] = [
    spec!("nn.LSTM", "LSTM without dropout", true, Lstm, |i, h, _| {
        LstmConfig::new(i, h)
    }),
    spec!(
        "SlowLSTM",
        "per-gate linears, standard dropout",
        true,
        SlowLstm,
        |i, h, prob| {
            SlowLstmConfig::new(i, h).with_recurrent_dropout(RecurrentDropout::Standard { prob })
        }
    ),
    spec!(
        "LSTM",
        "standard dropout on h, fed back",
        true,
        Lstm,
        |i, h, prob| {
            LstmConfig::new(i, h).with_recurrent_dropout(RecurrentDropout::Standard { prob })
        }
    ),
    spec!(
        "GalLSTM",
        "one mask per sequence on h",
        true,
        Lstm,
        |i, h, prob| { LstmConfig::gal(i, h, prob) }
    ),
    spec!(
        "MoonLSTM",
        "one mask per sequence on c",
        true,
        Lstm,
        |i, h, prob| { LstmConfig::moon(i, h, prob) }
    ),
    spec!(
        "SemeniutaLSTM",
        "a mask per step on the candidate",
        true,
        Lstm,
        |i, h, prob| { LstmConfig::semeniuta(i, h, prob) }
    ),
    spec!(
        "LayerNormLSTM",
        "layer norm, standard dropout",
        true,
        LayerNormLstm,
        |i, h, prob| {
            lstms_pth_layer_norm(i, h).with_recurrent_dropout(RecurrentDropout::Standard { prob })
        }
    ),
    spec!(
        "LayerNormGalLSTM",
        "layer norm, Gal dropout",
        true,
        LayerNormLstm,
        |i, h, prob| {
            lstms_pth_layer_norm(i, h).with_recurrent_dropout(RecurrentDropout::Gal { prob })
        }
    ),
    spec!(
        "LayerNormMoonLSTM",
        "layer norm, Moon dropout",
        true,
        LayerNormLstm,
        |i, h, prob| {
            lstms_pth_layer_norm(i, h).with_recurrent_dropout(RecurrentDropout::Moon { prob })
        }
    ),
    spec!(
        "LayerNormSemeniutaLSTM",
        "layer norm, Semeniuta dropout",
        true,
        LayerNormLstm,
        |i, h, prob| lstms_pth_layer_norm(i, h)
            .with_recurrent_dropout(RecurrentDropout::Semeniuta { prob })
    ),
    spec!(
        "ZoneoutLSTM",
        "units keep h and c at random",
        false,
        Lstm,
        |i, h, prob| { LstmConfig::zoneout(i, h, prob, prob) }
    ),
    spec!(
        "BaLayerNormLSTM",
        "layer norm of Ba et al., orthogonal start, forget bias 1",
        false,
        LayerNormLstm,
        |i, h, _| LayerNormLstmConfig::new(i, h)
            .with_hidden_initializer(Some(Initializer::Orthogonal { gain: 1.0 }))
            .with_forget_bias(Some(1.0))
    ),
];

//! Your own model with any variant: find the words in text without spaces.
//!
//! The model has an embedding, a bidirectional recurrent layer and a linear head. It reads the letters of the first
//! chapters of Pride and Prejudice, without spaces and punctuation, and predicts after which letters a
//! word ends. The example trains for about a minute, saves, reloads, and segments a held-out
//! sentence.
//!
//! `cargo run --release --example custom_model -- --variant mogrifier`

use std::process::ExitCode;

use burn::config::Config;
use burn::module::Module;
use burn::nn::loss::BinaryCrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use recurrent_bench::cli::{self, CommonArgs};
use recurrent_bench::error::{self, Error};
use recurrent_modules::{
    AdaptiveLstmConfig, CifgLstmConfig, GruConfig, LayerNormLstmConfig, LstmConfig,
    MogrifierLstmConfig, PeepholeLstmConfig, Recurrent, RecurrentConfig, UrLstmConfig,
};

const TEXT: &str = include_str!("../crates/recurrent-bench/data/pride_and_prejudice_1_to_8.txt");
/// a to z.
const LETTERS: usize = 26;
/// Letters of one training sequence.
const WINDOW: usize = 64;
const BATCH: usize = 32;

#[derive(Debug, Parser)]
#[command(
    about = "Find the words in text without spaces, with an embedding, a bidirectional variant and a head"
)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// The recurrent layer: lstm, gru, layernorm, cifg, peephole, ur, adaptive or mogrifier.
    #[arg(long, default_value = "lstm")]
    variant: String,
    /// Passes over the text.
    #[arg(long, default_value_t = 12)]
    epochs: usize,
}

/// A variant's name, and its config from (d_input, d_hidden).
type Variant = (&'static str, fn(usize, usize) -> RecurrentConfig);

const VARIANTS: [Variant; 8] = [
    ("lstm", |i, h| RecurrentConfig::Lstm(LstmConfig::new(i, h))),
    ("gru", |i, h| RecurrentConfig::Gru(GruConfig::new(i, h))),
    ("layernorm", |i, h| {
        RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::new(i, h))
    }),
    ("cifg", |i, h| {
        RecurrentConfig::CifgLstm(CifgLstmConfig::new(i, h))
    }),
    ("peephole", |i, h| {
        RecurrentConfig::PeepholeLstm(PeepholeLstmConfig::new(i, h))
    }),
    ("ur", |i, h| {
        RecurrentConfig::UrLstm(UrLstmConfig::new(i, h))
    }),
    ("adaptive", |i, h| {
        let config = AdaptiveLstmConfig::new(i, h).with_d_adapt(32);
        RecurrentConfig::AdaptiveLstm(config)
    }),
    ("mogrifier", |i, h| {
        RecurrentConfig::MogrifierLstm(MogrifierLstmConfig::new(i, h))
    }),
];

/// Everything needed to build the model again.
#[derive(Config, Debug)]
struct SegmenterConfig {
    recurrent: RecurrentConfig,
    #[config(default = 24)]
    d_embedding: usize,
}

#[derive(Module, Debug)]
struct Segmenter {
    embedding: Embedding,
    recurrent: Recurrent,
    head: Linear,
}

impl SegmenterConfig {
    fn init(&self, device: &Device) -> Segmenter {
        let recurrent = self.recurrent.init(device);
        Segmenter {
            embedding: EmbeddingConfig::new(LETTERS, self.d_embedding).init(device),
            head: LinearConfig::new(recurrent.d_output(), 1).init(device),
            recurrent,
        }
    }
}

impl Segmenter {
    /// Letters `[batch, time]` to the logit that a word ends there, `[batch, time]`.
    fn forward(&self, letters: Tensor<2, Int>) -> Tensor<2> {
        let (hidden, _) = self
            .recurrent
            .forward(self.embedding.forward(letters), None);
        self.head.forward(hidden).squeeze_dim::<2>(2)
    }
}

/// Letters, and whether a word ends after each.
fn letters_of(text: &str) -> Vec<(i64, bool)> {
    let mut letters: Vec<(i64, bool)> = Vec::new();
    for character in text.chars() {
        match character.to_ascii_lowercase() {
            letter @ 'a'..='z' => letters.push((i64::from(letter as u32 - 'a' as u32), false)),
            '\'' => {}
            _ => {
                if let Some((_, ends)) = letters.last_mut() {
                    *ends = true;
                }
            }
        }
    }
    letters
}

fn batch(windows: &[&[(i64, bool)]], device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>) {
    let shape = [windows.len(), windows[0].len()];
    let flat = || windows.iter().flat_map(|window| window.iter());
    let letters: Vec<i64> = flat().map(|&(letter, _)| letter).collect();
    let ends: Vec<i64> = flat().map(|&(_, end)| i64::from(end)).collect();
    (
        Tensor::from_data(TensorData::new(letters, shape), device),
        Tensor::from_data(TensorData::new(ends, shape), device),
    )
}

/// The F1 score of the predicted word ends: the harmonic mean of recall and precision.
fn f1(model: &Segmenter, letters: &[(i64, bool)], device: &Device) -> f64 {
    let (mut right, mut found, mut there) = (0, 0, 0);
    for window in letters.chunks(1024) {
        let (input, _) = batch(&[window], device);
        let logits: Vec<f32> = model.forward(input).try_into_vec_as().expect("floats");
        for (&(_, end), logit) in window.iter().zip(logits) {
            let said = logit > 0.0;
            right += usize::from(end && said);
            found += usize::from(said);
            there += usize::from(end);
        }
    }
    2.0 * right as f64 / (found + there).max(1) as f64
}

/// The letters of `text` with spaces where the model predicts word ends.
fn segment(model: &Segmenter, text: &str, device: &Device) -> String {
    let letters = letters_of(text);
    let (input, _) = batch(&[&letters], device);
    let logits: Vec<f32> = model.forward(input).try_into_vec_as().expect("floats");
    let mut words = String::new();
    for (&(letter, _), logit) in letters.iter().zip(logits) {
        words.push((b'a' + letter as u8) as char);
        if logit > 0.0 {
            words.push(' ');
        }
    }
    words
}

fn main() -> ExitCode {
    error::finish(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Error> {
    let variant = std::slice::from_ref(&args.variant);
    let (name, config) = cli::choose("variant", &VARIANTS, |(name, _)| name, variant)?[0];
    let out = args.common.prepare_out()?;
    let plain = args.common.open_device()?;
    let training = plain.clone().autodiff();
    training.seed(args.common.seed);
    let mut rng = ChaCha8Rng::seed_from_u64(args.common.seed);

    let letters = letters_of(TEXT);
    let (train, test) = letters.split_at(letters.len() * 9 / 10);
    let config = SegmenterConfig::new(config(24, 64).with_bidirectional(true));
    let mut model = config.init(&training);
    println!(
        "{name}: {} parameters, {} letters to train on, {} to test on",
        model.num_params(),
        train.len(),
        test.len(),
    );

    let loss = BinaryCrossEntropyLossConfig::new()
        .with_logits(true)
        .init(&training);
    let mut optimizer = AdamConfig::new().init();
    for epoch in 1..=args.epochs {
        let mut windows: Vec<_> = train.chunks_exact(WINDOW).collect();
        windows.shuffle(&mut rng);
        let (mut sum, mut batches) = (0.0, 0);
        for windows in windows.chunks(BATCH) {
            let (input, ends) = batch(windows, &training);
            let value = loss.forward(model.forward(input), ends);
            sum += f64::from(value.clone().into_scalar::<f32>());
            batches += 1;
            let gradients = GradientsParams::from_grads(value.backward(), &model);
            model = optimizer.step(3e-3, model, gradients);
        }
        let score = f1(&model.valid(), test, &plain);
        println!(
            "epoch {epoch:>2}: training loss {:.3}, word ends on the test text: F1 {score:.3}",
            sum / f64::from(batches),
        );
    }

    // Save the parameters and the config, and rebuild the model from both.
    let (weights, json) = (out.join("segmenter.bpk"), out.join("segmenter.json"));
    let model = model.valid();
    model
        .clone()
        .into_record()
        .save(&weights)
        .map_err(Error::other)?;
    config.save(&json).map_err(Error::other)?;
    let record = ModuleRecord::load(&weights).map_err(Error::other)?;
    let loaded = SegmenterConfig::load(&json).map_err(Error::other)?;
    let loaded = loaded.init(&plain).load_record(record);

    let sentence = "she was not handsome enough to tempt him to dance with her";
    let words = segment(&loaded, sentence, &plain);
    println!("\nreloaded from {}:\n  {words}", weights.display());
    assert_eq!(
        words,
        segment(&model, sentence, &plain),
        "the reloaded model differs"
    );
    Ok(())
}

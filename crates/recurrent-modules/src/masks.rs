//! Recurrent dropout: kinds, sampling, and masks as values.

use alloc::vec::Vec;

use burn::config::Config;
use burn::tensor::{DType, Distribution, Tensor, TensorCreationOptions, TensorData};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use recurrent_core::Target;
use recurrent_core::sequence::target;
pub use recurrent_core::{Mask, Masks};

use crate::error::{InvalidConfig, check_prob};

/// Where dropout acts inside a cell. `prob` is the probability of zeroing; kept values are scaled
/// by 1/(1 − prob). Equations and papers: [`recurrent_core::equations::dropout`].
///
/// It acts under the same conditions as all dropout of a stack: see [`Stack`](crate::Stack#dropout).
/// `device.seed(..)` makes the masks reproducible. On Flex and NdArray they are drawn by a generator of this crate,
/// seeded from the device's, so they differ from those of `Tensor::random`.
#[derive(Config, Debug, PartialEq, Copy)]
pub enum RecurrentDropout {
    /// None.
    None,
    /// On h', a new mask at each step; the dropped h' is fed back (as in lstms.pth; PyTorch's own
    /// LSTM never drops the fed-back state).
    Standard {
        /// Probability of zeroing.
        prob: f64,
    },
    /// On h', one mask per sequence (Gal & Ghahramani).
    Gal {
        /// Probability of zeroing.
        prob: f64,
    },
    /// On c', one mask per sequence (Moon et al., RNNDrop). The scale 1/(1 − prob) multiplies the
    /// carried cell at each step, so it compounds over time.
    Moon {
        /// Probability of zeroing.
        prob: f64,
    },
    /// On the candidate g, a new mask at each step (Semeniuta et al.).
    Semeniuta {
        /// Probability of zeroing.
        prob: f64,
    },
    /// Units keep their previous value with these probabilities (Krueger et al.). Evaluation uses the
    /// expectation.
    Zoneout {
        /// Probability that h keeps its value.
        hidden: f64,
        /// Probability that c keeps its value.
        cell: f64,
    },
}

impl RecurrentDropout {
    /// # Errors
    /// If a probability is not in [0, 1).
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        match *self {
            Self::None => Ok(()),
            Self::Standard { prob }
            | Self::Gal { prob }
            | Self::Moon { prob }
            | Self::Semeniuta { prob } => check_prob("recurrent_dropout.prob", prob),
            Self::Zoneout { hidden, cell } => {
                check_prob("recurrent_dropout.hidden", hidden)?;
                check_prob("recurrent_dropout.cell", cell)
            }
        }
    }

    /// The masks of one cell for one training call.
    ///
    /// # Arguments
    /// * `d_hidden` - features of c and g
    /// * `d_output` - features of h: `d_hidden`, or the projected size
    /// * `options` - a device, or a device and the type of the weights
    pub fn sample(
        &self,
        seq_length: usize,
        batch_size: usize,
        d_hidden: usize,
        d_output: usize,
        options: impl Into<TensorCreationOptions>,
    ) -> Masks {
        let options = options.into();
        let per_step = |keep: f64, scale: f64, features: usize| {
            (keep < 1.0).then(|| {
                let shape = [seq_length, batch_size, features];
                Mask::PerStep(bernoulli(shape, keep, scale, &options))
            })
        };
        let per_sequence = |keep: f64, features: usize| {
            (keep < 1.0).then(|| {
                let shape = [batch_size, features];
                Mask::PerSequence(bernoulli(shape, keep, 1.0 / keep, &options))
            })
        };
        match *self {
            Self::None => Masks::none(),
            Self::Standard { prob } => Masks {
                hidden: per_step(1.0 - prob, 1.0 / (1.0 - prob), d_output),
                ..Masks::none()
            },
            Self::Gal { prob } => Masks {
                hidden: per_sequence(1.0 - prob, d_output),
                ..Masks::none()
            },
            Self::Moon { prob } => Masks {
                cell: per_sequence(1.0 - prob, d_hidden),
                ..Masks::none()
            },
            Self::Semeniuta { prob } => Masks {
                candidate: per_step(1.0 - prob, 1.0 / (1.0 - prob), d_hidden),
                ..Masks::none()
            },
            Self::Zoneout { hidden, cell } => Masks {
                update_hidden: per_step(1.0 - hidden, 1.0, d_output),
                update_cell: per_step(1.0 - cell, 1.0, d_hidden),
                ..Masks::none()
            },
        }
    }

    /// The masks of one cell in evaluation: the expectation for zoneout, none for other kinds. Arguments as of
    /// [`sample`](Self::sample).
    pub fn expectation(
        &self,
        batch_size: usize,
        d_hidden: usize,
        d_output: usize,
        options: impl Into<TensorCreationOptions>,
    ) -> Masks {
        let options = options.into();
        let share = |keep_old: f64, features: usize| {
            (keep_old > 0.0).then(|| {
                let shape = [batch_size, features];
                Mask::PerSequence(Tensor::full(shape, 1.0 - keep_old, options.clone()))
            })
        };
        match *self {
            Self::Zoneout { hidden, cell } => Masks {
                update_hidden: share(hidden, d_output),
                update_cell: share(cell, d_hidden),
                ..Masks::none()
            },
            _ => Masks::none(),
        }
    }
}

/// `scale` with probability `keep`, else 0.
pub(crate) fn bernoulli<const D: usize>(
    shape: [usize; D],
    keep: f64,
    scale: f64,
    options: &TensorCreationOptions,
) -> Tensor<D> {
    if target(&options.device) == Some(Target::Cpu) {
        return bernoulli_on_cpu(shape, keep, scale, options);
    }
    let mask = Tensor::random(shape, Distribution::Bernoulli(keep), options.clone());
    if scale == 1.0 {
        mask
    } else {
        mask.mul_scalar(scale)
    }
}

/// The same with a generator seeded from the device's. Burn's own draws one number at a time and needs another pass
/// for the scale: with a mask per step, training steps of 32 sequences and 256 units took 1.3 times as long.
fn bernoulli_on_cpu<const D: usize>(
    shape: [usize; D],
    keep: f64,
    scale: f64,
    options: &TensorCreationOptions,
) -> Tensor<D> {
    // 256 bits, 16 in each number, for every data type of the mask.
    let words = f64::from(1_u32 << 16);
    let words = Distribution::Uniform(0.0, words);
    let seed = Tensor::<1>::random([16], words, (&options.device, DType::F32));
    let mut bytes = [0; 32];
    for (pair, word) in bytes
        .chunks_exact_mut(2)
        .zip(seed.into_data().iter::<f64>())
    {
        pair.copy_from_slice(&(word as u16).to_le_bytes());
    }
    let mut random = Xoshiro256PlusPlus::from_seed(bytes);
    // 2³² for keep = 1: nothing is dropped then.
    let below = (keep * (f64::from(u32::MAX) + 1.0)) as u64;
    // In other types than f32 the scale is rounded once, to that type.
    let in_f32 = options.dtype_or(DType::F32) == DType::F32;
    let kept = if in_f32 { scale as f32 } else { 1.0 };
    let mut mask = alloc::vec![0.0; shape.iter().product()];
    for pair in mask.chunks_mut(2) {
        let bits = random.next_u64();
        for (value, bits) in pair.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
            *value = if u64::from(bits) < below { kept } else { 0.0 };
        }
    }
    let mask = Tensor::from_data(TensorData::new(mask, shape), options.clone());
    match in_f32 || scale == 1.0 {
        true => mask,
        false => mask.mul_scalar(scale),
    }
}

/// The masks of a whole stack for one call.
///
/// Each `forward` in training samples new masks. To process one sequence in several calls with the same masks,
/// sample them once ([`Stack::sample_masks`](crate::Stack::sample_masks)) and pass them to each call.
#[derive(Debug, Clone, Default)]
pub struct StackMasks {
    /// Per layer and direction, ordered as the states; empty means none anywhere.
    pub cells: Vec<Masks>,
    /// On the recurrent weights (weight drop), per layer and direction one per recurrent weight
    /// ([`Step::recurrent_weights`](recurrent_core::Step::recurrent_weights)), each of its shape; empty means
    /// none, of a cell or anywhere.
    pub weights: Vec<Vec<Tensor<2>>>,
    /// On the output of each layer but the last, `[seq_length, batch_size, directions·d_output]`
    /// with at least `seq_length` steps; empty means none.
    pub between: Vec<Option<Tensor<3>>>,
}

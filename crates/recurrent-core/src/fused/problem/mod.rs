//! The description of a fused sequence that all backends share.
//!
//! ```text
//! FusedSpec     a cell as data: weights and options
//! Problem       a call without its tensors: sizes, options, which tensors are present
//! Parts, Part   the tensors of a call of the LSTM family, by name
//! Expected      the shape that a tensor must have
//! ```
//! A [`FusedSpec`] and the tensors of a call are turned into a [`Problem`] and a list of tensors. They are
//! checked against one table of shapes per family ([`lstm`], [`gru`], [`adaptive`]) before a backend runs.

pub mod adaptive;
mod coupling;
pub mod gru;
pub mod lstm;
mod parts;
mod shapes;
mod spec;
mod unfused;

use alloc::vec::Vec;

use burn::serde::{Deserialize, Serialize};

pub use coupling::Coupling;
pub use gru::GruSpec;
pub use parts::{Key, Part, Parts, RoundPart};
pub use shapes::{Axes, Expected, check_counts, check_order};
pub use spec::{
    AdaptiveLayerSpec, AdaptiveSpec, ForgetBias, FusedSpec, LstmSpec, Peepholes, RoundSpec,
};
pub use unfused::Unfused;

/// The precision in which recurrent weights are read in inference.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(crate = "burn::serde")]
pub enum Precision {
    /// Full precision.
    #[default]
    F32,
    /// Rounded to bf16 at the start of a run, if reading the weights limits the speed: one sequence
    /// of more than one step with more than 1 MiB of recurrent weights, without a backward, by a fused
    /// kernel of the LSTM family. Everything else runs in f32, as do all sums.
    Bf16,
}

/// A call without its tensors; a backend gets the problem and the list of tensors.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // one per call
pub enum Problem {
    /// One layer and direction of the LSTM family.
    Lstm {
        /// Sizes and options.
        problem: lstm::LstmProblem,
        /// Which tensors are present; the list is in the order of [`Parts::keys`].
        which: Parts<()>,
    },
    /// One layer and direction of the GRU.
    Gru {
        /// Sizes and options.
        problem: gru::GruProblem,
        /// Which tensors are present; the list is in the order of [`Parts::keys`].
        which: Parts<()>,
    },
    /// All layers of an adaptive LSTM; the list of tensors is that of [`adaptive::Tensors`].
    Adaptive(adaptive::AdaptiveProblem),
}

impl Problem {
    /// Length of the output.
    pub fn output_len(&self) -> usize {
        match self {
            Self::Lstm { problem, .. } => problem.output_len(),
            Self::Gru { problem, .. } => problem.output_len(),
            Self::Adaptive(problem) => problem.output_len(),
        }
    }
}

/// The first row of each step, and last the total number of rows.
pub fn offsets(counts: &[usize]) -> Vec<usize> {
    let mut offset = 0;
    let mut offsets = Vec::with_capacity(counts.len() + 1);
    offsets.push(0);
    for count in counts {
        offset += count;
        offsets.push(offset);
    }
    offsets
}

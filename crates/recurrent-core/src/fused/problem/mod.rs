//! What a fused sequence is, for every backend.
//!
//! ```text
//! FusedSpec     what a cell says of itself: weights and options
//! Problem       a call without its tensors: sizes, options, which tensors there are
//! Parts, Part   the tensors of a call of the LSTM family, by name
//! Expected      the shape that a tensor must have
//! ```
//! A [`FusedSpec`] and the tensors of a call become a [`Problem`] and a list of tensors, which are checked
//! against one table of shapes per family ([`lstm`], [`adaptive`]) before a backend sees them.

pub mod adaptive;
mod coupling;
pub mod lstm;
mod parts;
mod shapes;
mod spec;
mod unfused;

use alloc::vec::Vec;

use burn::serde::{Deserialize, Serialize};

pub use coupling::Coupling;
pub use parts::{Key, MASKS, Part, Parts, RoundPart};
pub use shapes::{Axes, Expected, check_counts};
pub use spec::{
    AdaptiveLayerSpec, AdaptiveSpec, ForgetBias, FusedSpec, LstmSpec, Peepholes, RoundSpec,
};
pub use unfused::Unfused;

/// How exactly recurrent weights are read in inference.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(crate = "burn::serde")]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 at the start of a run, where reading them is what takes the time: one sequence
    /// of more than one step with more than 1 MiB of recurrent weights, without a backward, by a fused
    /// kernel of the LSTM family. Everything else runs in f32, as do all sums.
    Bf16,
}

/// A call without its tensors: what a backend is given beside them.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // one per call
pub enum Problem {
    /// One layer and direction of the LSTM family.
    Lstm {
        /// Sizes and options.
        problem: lstm::Problem,
        /// Which tensors there are; their list is in the order of [`Parts::keys`].
        which: Parts<()>,
    },
    /// All layers of an adaptive LSTM; the list of tensors is that of [`adaptive::Tensors`].
    Adaptive(adaptive::Problem),
}

impl Problem {
    /// Values of the output.
    pub fn output_len(&self) -> usize {
        match self {
            Self::Lstm { problem, .. } => problem.output_len(),
            Self::Adaptive(problem) => problem.output_len(),
        }
    }
}

/// The first row of each step, and the number of rows.
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

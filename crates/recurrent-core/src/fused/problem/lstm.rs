//! A call of the LSTM family: its sizes and options, and the shape of each of its tensors.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{
    Axes, Coupling, Expected, Key, Part, Parts, RoundPart, check_counts, check_order, offsets,
};
use crate::equations::cifg;
use crate::equations::layer_norm::Normalizer;
use crate::equations::masks::{MaskPlace, MaskSizes, Masks};
use crate::gates::{Gate, GateLayout};

/// Maximum number of Mogrifier rounds, limited by the number of parents of an autodiff node (with low rank
/// and biases).
pub const MAX_ROUNDS: usize = 8;

impl From<cifg::Coupling> for Coupling {
    fn from(coupling: cifg::Coupling) -> Self {
        match coupling {
            cifg::Coupling::Independent => Self::Independent,
            cifg::Coupling::InputFromForget => Self::InputFromForget,
            cifg::Coupling::ForgetFromInput => Self::ForgetFromInput,
            cifg::Coupling::CappedInput => Self::CappedInput,
        }
    }
}

impl Coupling {
    /// The gates in packed order.
    pub const fn layout(self) -> GateLayout {
        match self {
            Self::Independent | Self::CappedInput => GateLayout::LSTM,
            Self::InputFromForget => GateLayout::FORGET_ONLY,
            Self::ForgetFromInput => GateLayout::INPUT_ONLY,
            Self::Refined => GateLayout::UR,
        }
    }
}

/// The sizes and options of a call, without its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct LstmProblem {
    /// I
    pub d_input: usize,
    /// H
    pub d_hidden: usize,
    /// Features of h.
    pub d_output: usize,
    /// How i and f are computed from the gates.
    pub coupling: Coupling,
    /// Number of rows of each step, non-increasing.
    pub counts: Vec<usize>,
    /// Gather order: for each row, its row of the input; `None` if the input is in running order. Not
    /// with rounds, and not for a backward.
    pub order: Option<Arc<[usize]>>,
    /// Bound of |c̃|; infinite if there is no clip.
    pub clip: f32,
    /// LN_x; not with rounds.
    pub norm_input: Option<Normalizer>,
    /// LN_h
    pub norm_hidden: Option<Normalizer>,
    /// LN_c
    pub norm_cell: Option<Normalizer>,
    /// Whether the normalised cell is carried.
    pub carry_normalized: bool,
    /// Whether the diagonal peephole of the output gate reads c̃ (otherwise c).
    pub output_sees_new: bool,
    /// Whether b_f is also subtracted from the refine gate's block.
    pub forget_bias_tied: bool,
    /// For each mask present, whether it has a row per step and sequence; otherwise it has one per
    /// sequence.
    pub masks: Masks<bool>,
    /// Whether c' of all rows is part of the output.
    pub histories: bool,
    /// Whether recurrent weights may be rounded to bf16 if that saves time: for one sequence whose
    /// weights are not packed, without a backward.
    pub bf16: bool,
    /// Rank of each round of the Mogrifier, `None` for a full matrix; no rounds: no Mogrifier.
    pub rounds: Vec<Option<usize>>,
}

/// The tensors that are present in every call.
const ALWAYS: [Part; 4] = [Part::Input, Part::WeightHidden, Part::Cell, Part::Hidden];

impl LstmProblem {
    /// G·H
    pub fn width(&self) -> usize {
        self.coupling.gates() * self.d_hidden
    }

    /// N: total number of rows of all steps.
    pub fn rows(&self) -> usize {
        self.counts.iter().sum()
    }

    /// B: sequences.
    pub fn batch_size(&self) -> usize {
        self.counts[0]
    }

    /// Length of the output: h' of all rows, the final h' and c' of each sequence, then with histories
    /// c' of all rows.
    pub fn output_len(&self) -> usize {
        let cells = if self.histories { self.rows() } else { 0 };
        self.cells_start() + cells * self.d_hidden
    }

    /// Offset of c' of all rows in the output.
    pub fn cells_start(&self) -> usize {
        self.rows() * self.d_output + self.batch_size() * (self.d_output + self.d_hidden)
    }

    /// The first row of each step, and last the total number of rows.
    pub fn offsets(&self) -> Vec<usize> {
        offsets(&self.counts)
    }

    /// Number of features that a round reads and number that it gates.
    pub fn round_shape(&self, round: usize) -> (usize, usize) {
        match round % 2 {
            0 => (self.d_output, self.d_input),
            _ => (self.d_input, self.d_output),
        }
    }

    /// Number of steps of sequence b.
    pub fn steps_of(&self, b: usize) -> usize {
        self.counts.partition_point(|&count| count > b)
    }

    /// Features of a mask.
    pub fn mask_features(&self, mask: MaskPlace) -> usize {
        MaskSizes::of(self.d_hidden, self.d_output).of_place(mask)
    }

    /// Whether a mask has a row per step and sequence.
    pub fn mask_per_step(&self, mask: MaskPlace) -> bool {
        self.masks.get(mask) == Some(&true)
    }

    /// The gate blocks to which b_f is added (1) or from which it is subtracted (−1).
    pub fn forget_blocks(&self) -> impl Iterator<Item = (usize, f32)> {
        let blocks = self.coupling.layout().gates().iter().enumerate();
        blocks.filter_map(|(block, gate)| match gate {
            Gate::Forget => Some((block, 1.0)),
            Gate::Refine if self.forget_bias_tied => Some((block, -1.0)),
            _ => None,
        })
    }

    /// Whether the second half of a step needs complete rows of the first half.
    pub fn by_row(&self) -> bool {
        self.norm_hidden.is_some() || self.norm_cell.is_some()
    }

    /// The shape that a tensor of this problem must have; all rows of a sequence form one axis.
    ///
    /// # Arguments
    /// * `projects` - whether the kernel computes x·W: a `WeightInput` is present
    pub fn expected(&self, key: Key, projects: bool) -> Expected {
        let (batch, rows) = (self.batch_size(), self.rows());
        let (units, d_output, d_input) = (self.d_hidden, self.d_output, self.d_input);
        let width = self.width();
        let part = match key {
            Key::Part(part) => part,
            Key::Round(round, part) => {
                let (from, to) = self.round_shape(round);
                return match (part, self.rounds.get(round).copied().flatten()) {
                    (RoundPart::Matrix, None) => Expected::new("[features in, out]", [from, to]),
                    (RoundPart::Matrix, Some(rank)) => {
                        Expected::new("[features in, rank]", [from, rank])
                    }
                    (RoundPart::Right, rank) => {
                        Expected::new("[rank, features out]", [rank.unwrap_or(0), to])
                    }
                    (RoundPart::Bias, _) => Expected::new("[features out]", [to]),
                };
            }
        };
        match part {
            Part::Input if projects => {
                Expected::new("[steps of all sequences, d_input]", [rows, d_input])
            }
            Part::Input => Expected::new("[steps of all sequences, gates·d_hidden]", [rows, width]),
            Part::WeightInput => Expected::new("[d_input, gates·d_hidden]", [d_input, width]),
            Part::WeightHidden => Expected::new("[d_output, gates·d_hidden]", [d_output, width]),
            Part::Bias
            | Part::BiasInput
            | Part::NormInputGain
            | Part::NormInputShift
            | Part::BiasHidden
            | Part::NormHiddenGain
            | Part::NormHiddenShift => Expected::new("[gates·d_hidden]", [width]),
            Part::Cell => Expected::new("[batch_size, d_hidden]", [batch, units]),
            Part::Hidden => Expected::new("[batch_size, d_output]", [batch, d_output]),
            Part::ForgetBias
            | Part::PeepholeFirst
            | Part::PeepholeSecond
            | Part::PeepholeOutput
            | Part::NormCellGain
            | Part::NormCellShift => Expected::new("[d_hidden]", [units]),
            Part::PeepholeFull => Expected::new("[d_hidden, gates·d_hidden]", [units, width]),
            Part::Projection => Expected::new("[d_hidden, d_output]", [units, d_output]),
            Part::Mask(place) => {
                let features = self.mask_features(place);
                match self.mask_per_step(place) {
                    true => Expected::new("[steps of all sequences, features]", [rows, features]),
                    false => Expected::new("[batch_size, features]", [batch, features]),
                }
            }
        }
    }

    /// Checks that the sizes of the problem are consistent, and which tensors are present.
    ///
    /// # Panics
    /// If they are inconsistent.
    #[track_caller]
    fn check_sizes<T>(&self, parts: &Parts<T>) {
        check_counts(&self.counts);
        for part in ALWAYS {
            assert!(parts.has(part), "missing tensor `{}`", Key::Part(part));
        }
        for place in MaskPlace::ALL {
            let wanted = self.masks.get(place).is_some();
            let what = if wanted { "missing" } else { "unexpected" };
            let key = Key::Part(Part::Mask(place));
            assert!(parts.has(key) == wanted, "{what} tensor `{key}`");
        }
        assert!(
            parts.has(Part::Projection) || self.d_output == self.d_hidden,
            "d_output is {}, expected d_hidden = {} without a projection",
            self.d_output,
            self.d_hidden,
        );
        assert!(
            parts.rounds() <= self.rounds.len(),
            "got tensors of {} rounds, expected those of {}",
            parts.rounds(),
            self.rounds.len(),
        );
        for (round, rank) in self.rounds.iter().enumerate() {
            for (part, wanted) in [
                (RoundPart::Matrix, true),
                (RoundPart::Right, rank.is_some()),
            ] {
                let key = Key::Round(round, part);
                let what = if wanted { "missing" } else { "unexpected" };
                assert!(parts.has(key) == wanted, "{what} tensor `{key}`");
            }
        }
    }

    /// Checks which tensors are present, the shapes of all tensors except weights, and the gather order
    /// of the input. Weights are checked by [`FusedSpec::check`](super::FusedSpec::check).
    ///
    /// # Arguments
    /// * `tensors` - which are present
    /// * `shapes` - of all tensors except weights; the rows of the input form one axis
    ///
    /// # Panics
    /// If a tensor is missing or has a wrong shape, or the gather order contains an invalid row.
    #[track_caller]
    pub fn check_call<T>(&self, tensors: &Parts<T>, shapes: &Parts<Axes>) {
        self.check_sizes(tensors);
        let projects = tensors.has(Part::WeightInput);
        for key in shapes.keys() {
            self.expected(key, projects).check(key, *shapes.of(key));
        }
        self.check_order();
    }

    /// Checks the lengths of the tensors passed to a CPU kernel, in running order or with a gather order.
    ///
    /// # Panics
    /// As [`check_call`](Self::check_call), for all tensors.
    #[track_caller]
    pub fn check_slices(&self, parts: &Parts<&[f32]>) {
        self.check_sizes(parts);
        assert!(
            parts.has(Part::WeightInput),
            "missing tensor `{}`",
            Key::Part(Part::WeightInput),
        );
        for key in parts.keys() {
            self.expected(key, true).check_len(key, parts.of(key).len());
        }
        self.check_order();
    }

    #[track_caller]
    fn check_order(&self) {
        let Some(order) = &self.order else { return };
        assert!(
            self.rounds.is_empty(),
            "got an order of the input, expected none with a Mogrifier",
        );
        check_order(order, self.rows());
    }
}

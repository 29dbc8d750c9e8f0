//! A call of the LSTM family: its sizes and options, and the shape of each of its tensors.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Axes, Coupling, Expected, Key, Part, Parts, RoundPart, check_counts, offsets};
use crate::equations::cifg;
use crate::equations::layer_norm::Normalizer;
use crate::gates::GateLayout;

/// Most rounds of a Mogrifier: as many as fit into a node of the autodiff graph, with low rank and biases.
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

/// A call without its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// I
    pub d_input: usize,
    /// H
    pub d_hidden: usize,
    /// Features of h.
    pub d_output: usize,
    /// How i and f follow from the gates.
    pub coupling: Coupling,
    /// Rows of each step, never rising.
    pub counts: Vec<usize>,
    /// Which row of the input each row is, where it lies in another order; not with rounds, and not
    /// for a backward.
    pub order: Option<Arc<[usize]>>,
    /// Bound of |c̃|; infinite for none.
    pub clip: f32,
    /// LN_x; without rounds.
    pub norm_input: Option<Normalizer>,
    /// LN_h
    pub norm_hidden: Option<Normalizer>,
    /// LN_c
    pub norm_cell: Option<Normalizer>,
    /// Whether the normalised cell is carried.
    pub carry_normalized: bool,
    /// Whether the output gate sees c̃ through its diagonal peephole, or c.
    pub output_sees_new: bool,
    /// Which masks have a row per step and sequence; the others have one per sequence.
    pub per_step: Parts<()>,
    /// Whether c' of all rows is part of the output.
    pub histories: bool,
    /// Whether recurrent weights may be rounded to bf16, where that saves time: for one sequence whose
    /// weights are not packed, without a backward.
    pub bf16: bool,
    /// Rank of each round of the Mogrifier, `None` for a full matrix; no rounds: no Mogrifier.
    pub rounds: Vec<Option<usize>>,
}

/// The tensors that every call has.
const ALWAYS: [Part; 4] = [Part::Input, Part::WeightHidden, Part::Cell, Part::Hidden];

impl Problem {
    /// G·H
    pub fn width(&self) -> usize {
        self.coupling.gates() * self.d_hidden
    }

    /// N: rows of all steps.
    pub fn rows(&self) -> usize {
        self.counts.iter().sum()
    }

    /// B: sequences.
    pub fn batch_size(&self) -> usize {
        self.counts[0]
    }

    /// Values of the output: h' of all rows, the last h' and c' of each sequence, then c' of all rows
    /// where it is asked for.
    pub fn output_len(&self) -> usize {
        let cells = if self.histories { self.rows() } else { 0 };
        self.cells_start() + cells * self.d_hidden
    }

    /// Where c' of all rows begins in the output.
    pub fn cells_start(&self) -> usize {
        self.rows() * self.d_output + self.batch_size() * (self.d_output + self.d_hidden)
    }

    /// The first row of each step, and the number of rows.
    pub fn offsets(&self) -> Vec<usize> {
        offsets(&self.counts)
    }

    /// Features that a round reads and features that it changes.
    pub fn round_shape(&self, round: usize) -> (usize, usize) {
        match round % 2 {
            0 => (self.d_output, self.d_input),
            _ => (self.d_input, self.d_output),
        }
    }

    /// Steps that sequence b has.
    pub fn steps_of(&self, b: usize) -> usize {
        self.counts.partition_point(|&count| count > b)
    }

    /// Features of a mask.
    pub fn mask_features(&self, mask: Part) -> usize {
        match mask {
            Part::MaskHidden | Part::UpdateHidden => self.d_output,
            _ => self.d_hidden,
        }
    }

    /// Whether a whole row must be done before the next half of a step can begin.
    pub fn by_row(&self) -> bool {
        self.norm_hidden.is_some() || self.norm_cell.is_some()
    }

    /// The shape that a tensor of this problem must have, all rows of a sequence in one axis.
    ///
    /// # Arguments
    /// * `projects` - whether x·W is part of the call: there is a `WeightInput`
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
            Part::PeepholeFirst
            | Part::PeepholeSecond
            | Part::PeepholeOutput
            | Part::NormCellGain
            | Part::NormCellShift => Expected::new("[d_hidden]", [units]),
            Part::PeepholeFull => Expected::new("[d_hidden, gates·d_hidden]", [units, width]),
            Part::Projection => Expected::new("[d_hidden, d_output]", [units, d_output]),
            Part::MaskCandidate
            | Part::MaskCell
            | Part::MaskHidden
            | Part::UpdateCell
            | Part::UpdateHidden => {
                let features = self.mask_features(part);
                match self.per_step.has(part) {
                    true => Expected::new("[steps of all sequences, features]", [rows, features]),
                    false => Expected::new("[batch_size, features]", [batch, features]),
                }
            }
        }
    }

    /// Checks the sizes of the problem against each other, and which tensors there are.
    ///
    /// # Panics
    /// If they contradict each other.
    #[track_caller]
    fn check_sizes<T>(&self, parts: &Parts<T>) {
        check_counts(&self.counts);
        for part in ALWAYS {
            assert!(parts.has(part), "missing tensor `{}`", Key::Part(part));
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

    /// Checks which tensors there are, the shapes of those that are no weights, and the order of the
    /// input's rows. Weights: [`FusedSpec::check`](super::FusedSpec::check).
    ///
    /// # Arguments
    /// * `tensors` - all of them
    /// * `shapes` - of those that are no weights; of the input all rows in one axis
    ///
    /// # Panics
    /// If a tensor is missing or has another shape, or the order names a row that is not there.
    #[track_caller]
    pub fn check_call<T>(&self, tensors: &Parts<T>, shapes: &Parts<Axes>) {
        self.check_sizes(tensors);
        let projects = tensors.has(Part::WeightInput);
        for key in shapes.keys() {
            self.expected(key, projects).check(key, *shapes.of(key));
        }
        self.check_order();
    }

    /// Checks the lengths of the tensors that a CPU kernel is given, all in running order or with an order.
    ///
    /// # Panics
    /// As [`check_call`](Self::check_call), for all of them.
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
        let rows = self.rows();
        assert!(
            order.len() == rows && self.rounds.is_empty(),
            "the order of the input has {} rows, expected one per step of a sequence: {rows}, and no \
             Mogrifier",
            order.len(),
        );
        if let Some(row) = order.iter().find(|&&row| row >= rows) {
            panic!("the order of the input names row {row}, expected rows below {rows}");
        }
    }
}

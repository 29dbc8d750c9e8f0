//! The table of shapes of the LSTM family.

use alloc::vec::Vec;
use core::fmt;

use super::Problem;
use super::rounds::shape;
use crate::kernel::cpu::parts::{Key, Part, Parts, RoundPart};
use crate::kernel::shapes::{Expected, check_counts};

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::Part(part) => match part {
                Part::Input => "input",
                Part::WeightInput => "weight_input",
                Part::Bias => "bias",
                Part::BiasInput => "bias of the input",
                Part::NormInputGain => "gain of norm_input",
                Part::NormInputShift => "shift of norm_input",
                Part::WeightHidden => "weight_hidden",
                Part::BiasHidden => "bias of the hidden state",
                Part::Cell => "state cell",
                Part::Hidden => "state hidden",
                Part::PeepholeFirst => "peephole of the first gate",
                Part::PeepholeSecond => "peephole of the second gate",
                Part::PeepholeOutput => "peephole of the output gate",
                Part::PeepholeFull => "full peepholes",
                Part::Projection => "projection",
                Part::NormHiddenGain => "gain of norm_hidden",
                Part::NormHiddenShift => "shift of norm_hidden",
                Part::NormCellGain => "gain of norm_cell",
                Part::NormCellShift => "shift of norm_cell",
                Part::MaskCandidate => "mask candidate",
                Part::MaskCell => "mask cell",
                Part::MaskHidden => "mask hidden",
                Part::UpdateCell => "mask update_cell",
                Part::UpdateHidden => "mask update_hidden",
            },
            Self::Round(round, part) => {
                let name = match part {
                    RoundPart::Matrix => "matrix",
                    RoundPart::Right => "right factor",
                    RoundPart::Bias => "bias",
                };
                return write!(f, "{name} of round {}", round + 1);
            }
        };
        f.write_str(name)
    }
}

/// The tensors that every call has.
const ALWAYS: [Part; 4] = [Part::Input, Part::WeightHidden, Part::Cell, Part::Hidden];

impl Problem {
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
                let (from, to) = shape(self, round);
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

    /// Checks the shape of every tensor of a call, and the order of the input's rows.
    ///
    /// # Arguments
    /// * `shapes` - of the tensors; of the input all rows in one axis
    ///
    /// # Panics
    /// If a tensor is missing or has another shape, or the order names a row that is not there.
    #[track_caller]
    pub fn check_shapes(&self, shapes: &Parts<Vec<usize>>) {
        self.check_sizes(shapes);
        let projects = shapes.has(Part::WeightInput);
        for key in shapes.keys() {
            self.expected(key, projects).check(key, shapes.of(key));
        }
        self.check_order();
    }

    /// Checks the lengths of the tensors that a CPU kernel is given, all in running order or with an order.
    ///
    /// # Panics
    /// As [`check_shapes`](Self::check_shapes).
    #[track_caller]
    pub(super) fn check_slices(&self, parts: &Parts<&[f32]>) {
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

//! The tensors of one call, by name.

use alloc::vec::Vec;
use core::fmt;

use crate::equations::masks::MaskPlace;

/// A tensor that a sequence kernel takes. G is the number of gate blocks. N is the number of rows: the
/// steps of all sequences, in running order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// x `[N, I]`; on CubeCL devices with LN_x the normalised x·W + b_x `[N, G·H]`, without
    /// `WeightInput`.
    Input,
    /// W `[I, G·H]`
    WeightInput,
    /// b `[G·H]`
    Bias,
    /// b_x `[G·H]`, inside LN_x
    BiasInput,
    /// LN_x's gain `[G·H]`
    NormInputGain,
    /// LN_x's shift `[G·H]`
    NormInputShift,
    /// R `[d_output, G·H]`
    WeightHidden,
    /// b_h `[G·H]`, inside LN_h
    BiasHidden,
    /// c_0 `[B, H]`
    Cell,
    /// h_0 `[B, d_output]`
    Hidden,
    /// v of the first mixing gate `[H]`
    PeepholeFirst,
    /// v of the second mixing gate `[H]`
    PeepholeSecond,
    /// v_o `[H]`
    PeepholeOutput,
    /// V of all gates on c `[H, G·H]`
    PeepholeFull,
    /// P `[H, d_output]`
    Projection,
    /// LN_h's gain `[G·H]`
    NormHiddenGain,
    /// LN_h's shift `[G·H]`
    NormHiddenShift,
    /// LN_c's gain `[H]`
    NormCellGain,
    /// LN_c's shift `[H]`
    NormCellShift,
    /// b_f `[H]`, added to the forget gate's block of b; CPU kernels only.
    ForgetBias,
    /// m_g, m_c and u `[B or N, H]`, m_h and v `[B or N, d_output]`
    Mask(MaskPlace),
}

/// Number of [`Part`]s.
const COUNT: usize = Part::FIRST_MASK + MaskPlace::ALL.len();

impl Part {
    /// All parts, in order.
    pub const ALL: [Self; COUNT] = [
        Self::Input,
        Self::WeightInput,
        Self::Bias,
        Self::BiasInput,
        Self::NormInputGain,
        Self::NormInputShift,
        Self::WeightHidden,
        Self::BiasHidden,
        Self::Cell,
        Self::Hidden,
        Self::PeepholeFirst,
        Self::PeepholeSecond,
        Self::PeepholeOutput,
        Self::PeepholeFull,
        Self::Projection,
        Self::NormHiddenGain,
        Self::NormHiddenShift,
        Self::NormCellGain,
        Self::NormCellShift,
        Self::ForgetBias,
        Self::Mask(MaskPlace::Candidate),
        Self::Mask(MaskPlace::Cell),
        Self::Mask(MaskPlace::Hidden),
        Self::Mask(MaskPlace::UpdateCell),
        Self::Mask(MaskPlace::UpdateHidden),
        Self::Mask(MaskPlace::Adapt),
    ];

    /// Index of the first mask in [`ALL`](Self::ALL): the masks come last.
    const FIRST_MASK: usize = 20;

    /// Its index in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        match self {
            Self::Input => 0,
            Self::WeightInput => 1,
            Self::Bias => 2,
            Self::BiasInput => 3,
            Self::NormInputGain => 4,
            Self::NormInputShift => 5,
            Self::WeightHidden => 6,
            Self::BiasHidden => 7,
            Self::Cell => 8,
            Self::Hidden => 9,
            Self::PeepholeFirst => 10,
            Self::PeepholeSecond => 11,
            Self::PeepholeOutput => 12,
            Self::PeepholeFull => 13,
            Self::Projection => 14,
            Self::NormHiddenGain => 15,
            Self::NormHiddenShift => 16,
            Self::NormCellGain => 17,
            Self::NormCellShift => 18,
            Self::ForgetBias => 19,
            Self::Mask(place) => Self::FIRST_MASK + place as usize,
        }
    }
}

/// The tensors of one round of the Mogrifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundPart {
    /// M `[from, to]`, or its left factor `[from, rank]`
    Matrix,
    /// Its right factor `[rank, to]`
    Right,
    /// `[to]`
    Bias,
}

/// The name of any tensor of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A tensor that occurs once per call.
    Part(Part),
    /// A tensor of a round, counted from 0.
    Round(usize, RoundPart),
}

impl From<Part> for Key {
    fn from(part: Part) -> Self {
        Self::Part(part)
    }
}

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
                Part::ForgetBias => "forget bias",
                Part::Mask(place) => return write!(f, "mask {}", place.name()),
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

/// Values by tensor, for all or some of the tensors of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<T> {
    once: [Option<T>; COUNT],
    rounds: Vec<[Option<T>; 3]>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self {
            once: core::array::from_fn(|_| None),
            rounds: Vec::new(),
        }
    }
}

impl<T> Parts<T> {
    /// The value for a tensor.
    pub fn get(&self, key: impl Into<Key>) -> Option<&T> {
        match key.into() {
            Key::Part(part) => self.once[part.index()].as_ref(),
            Key::Round(round, part) => self.rounds.get(round)?[part as usize].as_ref(),
        }
    }

    /// The value for a tensor, mutable.
    pub fn get_mut(&mut self, key: impl Into<Key>) -> Option<&mut T> {
        match key.into() {
            Key::Part(part) => self.once[part.index()].as_mut(),
            Key::Round(round, part) => self.rounds.get_mut(round)?[part as usize].as_mut(),
        }
    }

    /// The value for a tensor that every call has.
    ///
    /// # Panics
    /// If it is absent.
    #[track_caller]
    pub fn of(&self, key: impl Into<Key>) -> &T {
        let key = key.into();
        match self.get(key) {
            Some(value) => value,
            None => panic!("the kernel was called without {key:?}"),
        }
    }

    /// Whether a tensor has a value.
    pub fn has(&self, key: impl Into<Key>) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value for a tensor.
    pub fn set(&mut self, key: impl Into<Key>, value: impl Into<Option<T>>) {
        let slot = match key.into() {
            Key::Part(part) => &mut self.once[part.index()],
            Key::Round(round, part) => {
                while self.rounds.len() <= round {
                    self.rounds.push([None, None, None]);
                }
                &mut self.rounds[round][part as usize]
            }
        };
        *slot = value.into();
    }

    /// Removes and returns the value for a tensor.
    pub fn take(&mut self, key: impl Into<Key>) -> Option<T> {
        match key.into() {
            Key::Part(part) => self.once[part.index()].take(),
            Key::Round(round, part) => self.rounds.get_mut(round)?[part as usize].take(),
        }
    }

    /// Number of rounds.
    pub fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The names of the tensors that have a value, in order.
    pub fn keys(&self) -> Vec<Key> {
        let once = Part::ALL.map(Key::Part);
        let parts = [RoundPart::Matrix, RoundPart::Right, RoundPart::Bias];
        let rounds =
            (0..self.rounds.len()).flat_map(move |round| parts.map(|part| Key::Round(round, part)));
        once.into_iter()
            .chain(rounds)
            .filter(|&key| self.has(key))
            .collect()
    }

    /// The tensors of a list that are wanted.
    ///
    /// # Arguments
    /// * `wanted` - one flag per tensor, in the order of [`keys`](Self::keys)
    pub fn chosen(&self, wanted: &[bool]) -> Parts<()> {
        let mut chosen = Parts::default();
        for (key, wanted) in self.keys().into_iter().zip(wanted) {
            chosen.set(key, wanted.then_some(()));
        }
        chosen
    }

    /// Applies `f` to each value.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Parts<U> {
        Parts {
            once: self.once.map(|value| value.map(&mut f)),
            rounds: self
                .rounds
                .into_iter()
                .map(|round| round.map(|value| value.map(&mut f)))
                .collect(),
        }
    }

    /// The values in the order of [`keys`](Self::keys), and which tensors they belong to.
    pub fn into_list(self) -> (Vec<T>, Parts<()>) {
        let mut list = Vec::new();
        let which = self.map(|value| list.push(value));
        (list, which)
    }

    /// Inverse of [`into_list`](Self::into_list).
    ///
    /// # Panics
    /// If the list is too short.
    pub fn from_list(list: impl IntoIterator<Item = T>, which: Parts<()>) -> Self {
        let mut list = list.into_iter();
        which.map(|()| list.next().expect("as many tensors as parts"))
    }
}

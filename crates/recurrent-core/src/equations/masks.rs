//! Masks as values, and the one place that names where they multiply.

use burn::tensor::{DType, Tensor};

/// What a mask multiplies. Equations: [`dropout`](crate::equations::dropout).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaskPlace {
    /// The candidate g (Semeniuta).
    Candidate,
    /// c', before clip, normalisation and tanh (Moon).
    Cell,
    /// h' (standard, Gal).
    Hidden,
    /// The share of the new c' against the old c (zoneout).
    UpdateCell,
    /// The share of the new h' against the old h (zoneout).
    UpdateHidden,
    /// z, the hidden state of an adaptation cell (aLSTM only).
    Adapt,
}

impl MaskPlace {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Candidate,
        Self::Cell,
        Self::Hidden,
        Self::UpdateCell,
        Self::UpdateHidden,
        Self::Adapt,
    ];

    /// The name of its field in [`Masks`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Cell => "cell",
            Self::Hidden => "hidden",
            Self::UpdateCell => "update_cell",
            Self::UpdateHidden => "update_hidden",
            Self::Adapt => "adapt",
        }
    }
}

/// Something for each place where a mask multiplies; `None` leaves the value alone.
///
/// Of a cell for one call these are [`Mask`]s: values that a caller may hold, so that streaming a sequence
/// in pieces, or a test, can use one mask throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Masks<T = Mask> {
    /// On the candidate g (Semeniuta).
    pub candidate: Option<T>,
    /// On c', before clip, normalisation and tanh (Moon).
    pub cell: Option<T>,
    /// On h' (standard, Gal).
    pub hidden: Option<T>,
    /// Share of the new c' against the old c (zoneout).
    pub update_cell: Option<T>,
    /// Share of the new h' against the old h (zoneout).
    pub update_hidden: Option<T>,
    /// On z, the hidden state of an adaptation cell (aLSTM only).
    pub adapt: Option<T>,
}

// By hand: the derive would ask it of T.
impl<T> Default for Masks<T> {
    fn default() -> Self {
        Self::none()
    }
}

impl<T> Masks<T> {
    /// No dropout.
    pub const fn none() -> Self {
        Self {
            candidate: None,
            cell: None,
            hidden: None,
            update_cell: None,
            update_hidden: None,
            adapt: None,
        }
    }

    /// From what there is for each place.
    pub fn from_fn(mut at: impl FnMut(MaskPlace) -> Option<T>) -> Self {
        Self {
            candidate: at(MaskPlace::Candidate),
            cell: at(MaskPlace::Cell),
            hidden: at(MaskPlace::Hidden),
            update_cell: at(MaskPlace::UpdateCell),
            update_hidden: at(MaskPlace::UpdateHidden),
            adapt: at(MaskPlace::Adapt),
        }
    }

    /// What there is for a place.
    pub const fn get(&self, place: MaskPlace) -> Option<&T> {
        match place {
            MaskPlace::Candidate => self.candidate.as_ref(),
            MaskPlace::Cell => self.cell.as_ref(),
            MaskPlace::Hidden => self.hidden.as_ref(),
            MaskPlace::UpdateCell => self.update_cell.as_ref(),
            MaskPlace::UpdateHidden => self.update_hidden.as_ref(),
            MaskPlace::Adapt => self.adapt.as_ref(),
        }
    }

    /// The places for which there is something, with it, in order.
    pub fn iter(&self) -> impl Iterator<Item = (MaskPlace, &T)> {
        let all = MaskPlace::ALL.into_iter();
        all.filter_map(|place| Some((place, self.get(place)?)))
    }

    /// Whether there is nothing for any place.
    pub fn is_none(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Applies `f` to what there is.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Masks<U> {
        Masks::from_fn(|place| self.get(place).map(&mut f))
    }
}

/// A multiplier for one quantity during one call.
#[derive(Debug, Clone)]
pub enum Mask {
    /// `[batch_size, features]`: the same at each step of the sequence.
    PerSequence(Tensor<2>),
    /// `[seq_length, batch_size, features]`: anew at each step, in the order of the input.
    PerStep(Tensor<3>),
}

impl Mask {
    /// Panics with `name`, got and expected if the mask does not fit.
    #[track_caller]
    fn check(&self, name: &str, seq_length: usize, batch_size: usize, features: usize) {
        match self {
            Mask::PerSequence(mask) => assert!(
                mask.dims() == [batch_size, features],
                "mask `{name}` has shape {:?}, expected [batch_size, features] = [{batch_size}, {features}]",
                mask.dims(),
            ),
            Mask::PerStep(mask) => {
                let [steps, rows, columns] = mask.dims();
                assert!(
                    steps >= seq_length && [rows, columns] == [batch_size, features],
                    "mask `{name}` has shape {:?}, expected [seq_length, batch_size, features] = \
                     [{seq_length}, {batch_size}, {features}]",
                    mask.dims(),
                );
            }
        }
    }

    /// Its type of numbers.
    pub fn dtype(&self) -> DType {
        match self {
            Mask::PerSequence(mask) => mask.dtype(),
            Mask::PerStep(mask) => mask.dtype(),
        }
    }

    /// The multiplier of step `t`, `[batch_size, features]`.
    pub fn at(&self, t: usize) -> Tensor<2> {
        match self {
            Mask::PerSequence(mask) => mask.clone(),
            Mask::PerStep(mask) => {
                let [_, batch_size, features] = mask.dims();
                mask.clone()
                    .slice([t..t + 1, 0..batch_size, 0..features])
                    .reshape([batch_size, features])
            }
        }
    }
}

/// Features of the masks of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskSizes {
    /// Of the masks on c' and g.
    pub cell: usize,
    /// Of the masks on h'.
    pub hidden: usize,
    /// Of the mask on the adaptation cells' z; 0 in a variant without such cells.
    pub adapt: usize,
}

impl MaskSizes {
    /// Those of one cell without an adaptation cell.
    pub const fn of(d_hidden: usize, d_output: usize) -> Self {
        Self {
            cell: d_hidden,
            hidden: d_output,
            adapt: 0,
        }
    }

    /// Of the mask of a place.
    pub const fn of_place(self, place: MaskPlace) -> usize {
        match place {
            MaskPlace::Candidate | MaskPlace::Cell | MaskPlace::UpdateCell => self.cell,
            MaskPlace::Hidden | MaskPlace::UpdateHidden => self.hidden,
            MaskPlace::Adapt => self.adapt,
        }
    }
}

/// [`Masks`] at one step, each `[batch_size, features]`.
pub type StepMasks = Masks<Tensor<2>>;

impl StepMasks {
    /// Name and type of numbers of each mask that is set.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, DType)> {
        self.iter()
            .map(|(place, mask)| (place.name(), mask.dtype()))
    }
}

impl Masks {
    /// Name and type of numbers of each mask that is set.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, DType)> {
        self.iter()
            .map(|(place, mask)| (place.name(), mask.dtype()))
    }

    /// Checks every mask against the sizes of a call.
    ///
    /// # Panics
    /// If a mask's shape is not `[batch_size, ·]` or `[at least seq_length, batch_size, ·]` with
    /// the features of `sizes`.
    #[track_caller]
    pub fn check(&self, seq_length: usize, batch_size: usize, sizes: MaskSizes) {
        for (place, mask) in self.iter() {
            mask.check(place.name(), seq_length, batch_size, sizes.of_place(place));
        }
    }

    /// The masks of step `t`.
    pub fn at(&self, t: usize) -> StepMasks {
        self.map(|mask| mask.at(t))
    }
}

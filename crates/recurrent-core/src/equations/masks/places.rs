//! The places where masks multiply. The only type used here that holds tensors is [`Mask`].

use super::mask::Mask;

/// The quantity that a mask multiplies. Equations: [`dropout`](crate::equations::dropout).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaskPlace {
    /// The candidate: g, or n of a GRU (Semeniuta).
    Candidate,
    /// c', before clip, normalisation and tanh (Moon).
    Cell,
    /// h' (standard, Gal).
    Hidden,
    /// Weight of the new c' against the old c (zoneout).
    UpdateCell,
    /// Weight of the new h' against the old h (zoneout).
    UpdateHidden,
    /// z, the hidden state of an adaptation cell (aLSTM only).
    Adapt,
}

impl MaskPlace {
    /// All places, in order.
    pub const ALL: [Self; 6] = [
        Self::Candidate,
        Self::Cell,
        Self::Hidden,
        Self::UpdateCell,
        Self::UpdateHidden,
        Self::Adapt,
    ];

    /// The name of the place's field in [`Masks`].
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

/// One optional value per place where a mask multiplies; `None` leaves the quantity unchanged.
///
/// For one call of a cell the values are [`Mask`]s. A caller may keep them, for instance to use the same
/// mask for all pieces of a streamed sequence, or in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Masks<T = Mask> {
    /// On the candidate: g, or n of a GRU (Semeniuta).
    pub candidate: Option<T>,
    /// On c', before clip, normalisation and tanh (Moon).
    pub cell: Option<T>,
    /// On h' (standard, Gal).
    pub hidden: Option<T>,
    /// Weight of the new c' against the old c (zoneout).
    pub update_cell: Option<T>,
    /// Weight of the new h' against the old h (zoneout).
    pub update_hidden: Option<T>,
    /// On z, the hidden state of an adaptation cell (aLSTM only).
    pub adapt: Option<T>,
}

// Not derived: the derive would require `T: Default`.
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

    /// Calls `at` for each place.
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

    /// The value at a place.
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

    /// The places that are set, with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (MaskPlace, &T)> {
        let all = MaskPlace::ALL.into_iter();
        all.filter_map(|place| Some((place, self.get(place)?)))
    }

    /// Whether no place is set.
    pub fn is_none(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Applies `f` to each value.
    pub fn map<U>(&self, mut f: impl FnMut(&T) -> U) -> Masks<U> {
        Masks::from_fn(|place| self.get(place).map(&mut f))
    }
}

//! Masks as values, and the list of places where they multiply.

mod mask;
mod places;

use burn::tensor::{DType, Tensor};

pub use mask::Mask;
pub use places::{MaskPlace, Masks};

/// Numbers of features of the masks of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskSizes {
    /// Masks on g and, if there is a cell state, on c'.
    pub cell: usize,
    /// Masks on h'.
    pub hidden: usize,
    /// Mask on the adaptation cells' z; 0 for a variant without such cells.
    pub adapt: usize,
    /// Whether the cell has a cell state c; a GRU has none, and no masks on c.
    pub has_cell_state: bool,
}

impl MaskSizes {
    /// The sizes for one cell without an adaptation cell.
    pub const fn of(d_hidden: usize, d_output: usize) -> Self {
        Self {
            cell: d_hidden,
            hidden: d_output,
            adapt: 0,
            has_cell_state: true,
        }
    }

    /// The sizes for one cell whose only state is h.
    pub const fn without_cell_state(d_hidden: usize) -> Self {
        Self {
            has_cell_state: false,
            ..Self::of(d_hidden, d_hidden)
        }
    }

    /// The number of features of the mask at a place.
    ///
    /// # Panics
    /// If the cell does not have that place: the mask would never be used.
    #[track_caller]
    pub fn of_place(self, place: MaskPlace) -> usize {
        match place {
            MaskPlace::Cell | MaskPlace::UpdateCell if !self.has_cell_state => panic!(
                "got a mask `{}`, expected none: the cell has no cell state, only a hidden state",
                place.name(),
            ),
            MaskPlace::Adapt if self.adapt == 0 => panic!(
                "got a mask `{}`, expected none: the cell has no adaptation cell",
                place.name(),
            ),
            MaskPlace::Candidate | MaskPlace::Cell | MaskPlace::UpdateCell => self.cell,
            MaskPlace::Hidden | MaskPlace::UpdateHidden => self.hidden,
            MaskPlace::Adapt => self.adapt,
        }
    }
}

/// [`Masks`] at one step, each `[batch_size, features]`.
pub type StepMasks = Masks<Tensor<2>>;

impl StepMasks {
    /// Checks that the cell has the place of each mask.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn check_places(&self, sizes: MaskSizes) {
        for (place, _) in self.iter() {
            sizes.of_place(place);
        }
    }

    /// Name and element type of each mask that is set.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, DType)> {
        self.iter()
            .map(|(place, mask)| (place.name(), mask.dtype()))
    }
}

impl Masks {
    /// Name and element type of each mask that is set.
    pub fn types(&self) -> impl Iterator<Item = (&'static str, DType)> {
        self.iter()
            .map(|(place, mask)| (place.name(), mask.dtype()))
    }

    /// Checks every mask against the sizes of a call.
    ///
    /// # Panics
    /// If a mask's shape is not `[batch_size, ·]` or `[at least seq_length, batch_size, ·]` with
    /// the features of `sizes`, or the cell does not have the place of a mask.
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

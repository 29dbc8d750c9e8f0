//! The tensors of one call, by name.

use alloc::vec::Vec;

/// A tensor that a sequence kernel takes. G is the number of gate blocks, N the number of rows: the
/// steps of all sequences, in running order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// x `[N, I]`; the pre-activations from the input `[N, G·H]` where there is no `WeightInput`.
    Input,
    /// W `[I, G·H]`
    WeightInput,
    /// b `[G·H]`, only with `WeightInput`
    Bias,
    /// R `[d_output, G·H]`
    WeightHidden,
    /// b_h `[G·H]`, inside LN_h
    BiasHidden,
    /// c_0 `[B, H]`
    Cell,
    /// h_0 `[B, d_output]`
    Hidden,
    /// v of the first gate with weights `[H]`
    PeepholeFirst,
    /// v of the second gate with weights `[H]`
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
    /// m_g `[B or N, H]`
    MaskCandidate,
    /// m_c `[B or N, H]`
    MaskCell,
    /// m_h `[B or N, d_output]`
    MaskHidden,
    /// u `[B or N, H]`
    UpdateCell,
    /// v `[B or N, d_output]`
    UpdateHidden,
}

/// Number of [`Part`]s.
pub const COUNT: usize = Part::UpdateHidden as usize + 1;

impl Part {
    /// All of them, in order.
    pub const ALL: [Self; COUNT] = [
        Self::Input,
        Self::WeightInput,
        Self::Bias,
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
        Self::MaskCandidate,
        Self::MaskCell,
        Self::MaskHidden,
        Self::UpdateCell,
        Self::UpdateHidden,
    ];
}

/// Something for each tensor of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<T>([Option<T>; COUNT]);

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self(core::array::from_fn(|_| None))
    }
}

impl<T> Parts<T> {
    /// What there is for a part.
    pub fn get(&self, part: Part) -> Option<&T> {
        self.0[part as usize].as_ref()
    }

    /// What there is for a part, to change.
    pub fn get_mut(&mut self, part: Part) -> Option<&mut T> {
        self.0[part as usize].as_mut()
    }

    /// What there is for a part that every call has.
    ///
    /// # Panics
    /// If there is nothing.
    #[track_caller]
    pub fn of(&self, part: Part) -> &T {
        match self.get(part) {
            Some(value) => value,
            None => panic!("the kernel was called without {part:?}"),
        }
    }

    /// Whether there is something for a part.
    pub fn has(&self, part: Part) -> bool {
        self.get(part).is_some()
    }

    /// Sets a part.
    pub fn set(&mut self, part: Part, value: impl Into<Option<T>>) {
        self.0[part as usize] = value.into();
    }

    /// Takes out what there is for a part.
    pub fn take(&mut self, part: Part) -> Option<T> {
        self.0[part as usize].take()
    }

    /// Applies `f` to what there is.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Parts<U> {
        Parts(self.0.map(|value| value.map(&mut f)))
    }

    /// What there is, in order, and which parts that is.
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

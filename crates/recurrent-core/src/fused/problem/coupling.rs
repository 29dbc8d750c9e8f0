//! How the input and forget gates of a kernel follow from the gates with weights.

/// How i and f follow from the gates with weights, in packed order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coupling {
    /// Two gates, i and f.
    Independent,
    /// One gate f; i = 1 − f.
    InputFromForget,
    /// One gate i; f = 1 − i.
    ForgetFromInput,
    /// Two gates; i is 1 − f at most.
    CappedInput,
    /// Two gates r and f; r moves f (UR-LSTM), i = 1 − f.
    Refined,
}

impl Coupling {
    /// Gates with weights that weigh the candidate and the old cell.
    pub const fn shares(self) -> usize {
        match self {
            Self::InputFromForget | Self::ForgetFromInput => 1,
            _ => 2,
        }
    }

    /// Gate blocks of a packed row.
    pub const fn gates(self) -> usize {
        self.shares() + 2
    }
}

//! Input/forget gate coupling: how i and f are computed from the mixing gates.

/// How i and f are computed from the mixing gates, in packed order.
///
/// Mixing gates are the gates with weights that control the mixture of candidate and old cell; the output
/// gate is not one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coupling {
    /// Two gates, i and f.
    Independent,
    /// One gate f; i = 1 − f.
    InputFromForget,
    /// One gate i; f = 1 − i.
    ForgetFromInput,
    /// Two gates; i = min(i, 1 − f).
    CappedInput,
    /// Two gates r and f; r refines f (UR-LSTM), i = 1 − f.
    Refined,
}

impl Coupling {
    /// Number of mixing gates.
    pub const fn mixing_gates(self) -> usize {
        match self {
            Self::InputFromForget | Self::ForgetFromInput => 1,
            _ => 2,
        }
    }

    /// Number of gate blocks of a packed row.
    pub const fn gates(self) -> usize {
        self.mixing_gates() + 2
    }
}

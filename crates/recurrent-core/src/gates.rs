//! Gate order: the only place that knows it.
//!
//! Packed weights hold the columns of all gates side by side, `[·, gates·H]`. A [`GateLayout`]
//! names the order of those column blocks.

use alloc::vec::Vec;
use burn::tensor::Tensor;

/// One block of pre-activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gate {
    /// i: how much of the candidate enters the cell.
    Input,
    /// f: how much of the old cell stays.
    Forget,
    /// g: the proposed content, `tanh` of its pre-activation. burn-nn calls it `cell_gate`.
    Candidate,
    /// o: how much of the cell shows in the hidden state.
    Output,
    /// r: refines the forget gate (UR-LSTM).
    Refine,
}

/// The order of gate blocks in packed weights.
///
/// # Example
/// ```
/// use recurrent_core::{Gate, GateLayout};
///
/// assert_eq!(GateLayout::LSTM.len(), 4);
/// assert_eq!(GateLayout::LSTM.slot(Gate::Candidate), Some(2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLayout(&'static [Gate]);

impl GateLayout {
    /// Input, forget, candidate, output: PyTorch's order.
    pub const LSTM: Self = Self(&[Gate::Input, Gate::Forget, Gate::Candidate, Gate::Output]);
    /// Input, forget, output, candidate: the order of lstms.pth.
    pub const LSTMS_PTH: Self = Self(&[Gate::Input, Gate::Forget, Gate::Output, Gate::Candidate]);

    /// A single block, for weights that are not packed.
    pub const PLAIN: Self = Self(&[Gate::Candidate]);

    /// Number of gate blocks.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The gates in packed order.
    pub const fn gates(&self) -> &'static [Gate] {
        self.0
    }

    /// Index of the block of `gate`, if the layout has it.
    pub fn slot(&self, gate: Gate) -> Option<usize> {
        self.0.iter().position(|&other| other == gate)
    }

    /// Cuts `[rows, gates·H]` into one `[rows, H]` per gate, in packed order.
    ///
    /// # Panics
    /// If `N` is not [`len`](Self::len), or the columns do not divide by it.
    #[track_caller]
    pub fn split<const N: usize>(&self, packed: Tensor<2>) -> [Tensor<2>; N] {
        assert_eq!(
            N,
            self.len(),
            "a layout of {} gates was split into {N}",
            self.len()
        );
        let [rows, columns] = packed.dims();
        assert!(
            columns.is_multiple_of(N),
            "packed tensor has {columns} columns, expected a multiple of {N} gates",
        );
        let d_hidden = columns / N;
        core::array::from_fn(|slot| {
            packed
                .clone()
                .slice([0..rows, slot * d_hidden..(slot + 1) * d_hidden])
        })
    }

    /// Reorders the last axis of a packed tensor from the layout `from` to this one.
    ///
    /// # Panics
    /// If the layouts do not have the same gates, or the last axis does not divide by their number.
    #[track_caller]
    pub fn permute_from<const D: usize>(&self, from: GateLayout, packed: Tensor<D>) -> Tensor<D> {
        let last = D - 1;
        let columns = packed.dims()[last];
        assert!(
            columns.is_multiple_of(from.len()),
            "packed tensor has {columns} columns, expected a multiple of {} gates",
            from.len(),
        );
        let blocks = packed.chunk(from.len(), last);
        let picked: Vec<_> = self
            .0
            .iter()
            .map(|&gate| {
                let slot = from
                    .slot(gate)
                    .unwrap_or_else(|| panic!("layout {from:?} has no {gate:?} gate"));
                blocks[slot].clone()
            })
            .collect();
        assert_eq!(
            self.len(),
            from.len(),
            "layouts {self:?} and {from:?} differ in length"
        );
        Tensor::cat(picked, last)
    }
}

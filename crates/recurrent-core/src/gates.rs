//! Gate order. No other module encodes it.
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
    /// f: how much of the old cell is kept.
    Forget,
    /// g: the proposed content, `tanh` of its pre-activation. burn-nn calls it `cell_gate`.
    Candidate,
    /// o: how much of the cell is exposed in the hidden state.
    Output,
    /// r: refines the forget gate (UR-LSTM).
    Refine,
    /// ĩ: master input gate (ordered neurons).
    MasterInput,
    /// f̃: master forget gate (ordered neurons).
    MasterForget,
    /// r: how much of the old hidden state enters the candidate (GRU).
    Reset,
    /// z: how much of the old hidden state is kept (GRU).
    Update,
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

    /// Forget, candidate, output: coupled gates without input weights (i = 1 − f).
    pub const FORGET_ONLY: Self = Self(&[Gate::Forget, Gate::Candidate, Gate::Output]);
    /// Input, candidate, output: coupled gates without forget weights (f = 1 − i).
    pub const INPUT_ONLY: Self = Self(&[Gate::Input, Gate::Candidate, Gate::Output]);
    /// Refine, forget, candidate, output: UR-LSTM.
    pub const UR: Self = Self(&[Gate::Refine, Gate::Forget, Gate::Candidate, Gate::Output]);
    /// Master input, master forget, then as LSTM: ordered neurons.
    pub const MASTER: Self = Self(&[
        Gate::MasterInput,
        Gate::MasterForget,
        Gate::Input,
        Gate::Forget,
        Gate::Candidate,
        Gate::Output,
    ]);
    /// Forget, refine, candidate, output: the order of r0mainK/ur-lstm.
    pub const UR_ORIGINAL: Self =
        Self(&[Gate::Forget, Gate::Refine, Gate::Candidate, Gate::Output]);

    /// Input, candidate, forget, output: the order of haste.
    pub const HASTE: Self = Self(&[Gate::Input, Gate::Candidate, Gate::Forget, Gate::Output]);
    /// Candidate, output, forget, input: the order of lamb.
    pub const LAMB: Self = Self(&[Gate::Candidate, Gate::Output, Gate::Forget, Gate::Input]);

    /// Reset, update, candidate: GRU, PyTorch's order.
    pub const GRU: Self = Self(&[Gate::Reset, Gate::Update, Gate::Candidate]);
    /// Reset, update: the gates of a GRU whose candidate has a separate product.
    pub const GRU_GATES: Self = Self(&[Gate::Reset, Gate::Update]);
    /// Update, reset, candidate: GRU, the order of Keras.
    pub const GRU_KERAS: Self = Self(&[Gate::Update, Gate::Reset, Gate::Candidate]);

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

    /// Splits `[rows, gates·H]` into one `[rows, H]` per gate, in packed order.
    ///
    /// # Panics
    /// If `N` is not [`len`](Self::len), or the number of columns is not a multiple of it.
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

    /// Splits `[rows, gates·H]` into the first blocks, still packed, and the others.
    ///
    /// # Panics
    /// If the number of columns is not a multiple of the number of gates.
    #[track_caller]
    pub fn split_at(&self, blocks: usize, packed: Tensor<2>) -> [Tensor<2>; 2] {
        let [rows, columns] = packed.dims();
        let gates = self.len();
        assert!(
            columns.is_multiple_of(gates),
            "packed tensor has {columns} columns, expected a multiple of {gates} gates",
        );
        let middle = columns / gates * blocks;
        [0..middle, middle..columns].map(|part| packed.clone().slice([0..rows, part]))
    }

    /// [`split`](Self::split) for a number of gates known only at run time: the blocks by gate.
    #[track_caller]
    pub fn blocks(&self, packed: Tensor<2>) -> Blocks {
        let [rows, columns] = packed.dims();
        let gates = self.len();
        assert!(
            columns.is_multiple_of(gates),
            "packed tensor has {columns} columns, expected a multiple of {gates} gates",
        );
        let d_hidden = columns / gates;
        let parts = (0..gates)
            .map(|slot| {
                let columns = slot * d_hidden..(slot + 1) * d_hidden;
                packed.clone().slice([0..rows, columns])
            })
            .collect();
        Blocks {
            layout: *self,
            parts,
        }
    }

    /// Reorders the last axis of a packed tensor from the layout `from` to this one.
    ///
    /// # Panics
    /// If the layouts do not have the same gates, or the last axis is not a multiple of their number.
    #[track_caller]
    pub fn permute_from<const D: usize>(&self, from: GateLayout, packed: Tensor<D>) -> Tensor<D> {
        if *self == from {
            return packed;
        }
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

/// Pre-activations by gate, see [`GateLayout::blocks`].
#[derive(Debug, Clone)]
pub struct Blocks {
    layout: GateLayout,
    parts: Vec<Tensor<2>>,
}

impl Blocks {
    /// The block of `gate` `[rows, H]`, if the layout has it.
    pub fn get(&self, gate: Gate) -> Option<Tensor<2>> {
        self.layout.slot(gate).map(|slot| self.parts[slot].clone())
    }

    /// The block of `gate` `[rows, H]`.
    ///
    /// # Panics
    /// If the layout does not have it.
    #[track_caller]
    pub fn of(&self, gate: Gate) -> Tensor<2> {
        self.get(gate)
            .unwrap_or_else(|| panic!("layout {:?} has no {gate:?} gate", self.layout))
    }
}

//! The state of a stack of layers.

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;
pub use recurrent_core::{LstmState, State};

/// One state per layer and direction, ordered as in PyTorch: index = layer · directions +
/// direction, the forward direction first.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::LstmConfig;
///
/// let device = Device::flex();
/// let lstm = LstmConfig::new(3, 4).with_num_layers(2).init(&device);
/// let chunk = Tensor::<3>::ones([2, 5, 3], &device);
/// let (_, state) = lstm.forward(chunk.clone(), None);
/// // Carry the state to the next chunk, without its history.
/// let (_, state) = lstm.forward(chunk, Some(state.detach()));
/// assert_eq!(state.cells.len(), 2);
/// assert_eq!(state.last().hidden.dims(), [2, 4]);
/// ```
#[derive(Debug, Clone)]
pub struct StackState<S = LstmState<2>> {
    /// The states, layer by layer.
    pub cells: Vec<S>,
}

impl<S: State> StackState<S> {
    /// The state of the last layer (its backward direction, if it has one).
    ///
    /// # Panics
    /// If there are no states.
    #[track_caller]
    pub fn last(&self) -> &S {
        match self.cells.last() {
            Some(state) => state,
            None => panic!("state has 0 cells, expected at least 1"),
        }
    }

    /// The same values, cut off from the autodiff graph: truncated backpropagation through time.
    pub fn detach(self) -> Self {
        self.map(Tensor::detach)
    }

    /// Applies `f` to each tensor of each state.
    pub fn map(self, f: impl Fn(Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            cells: self.cells.into_iter().map(|state| state.map(&f)).collect(),
        }
    }
}

impl<S> From<S> for StackState<S> {
    /// The state of a stack with one layer and one direction.
    fn from(state: S) -> Self {
        Self { cells: vec![state] }
    }
}

impl StackState<LstmState<2>> {
    /// PyTorch's form: `cell` and `hidden` `[layers·directions, batch_size, ·]`.
    ///
    /// # Panics
    /// If the layers differ in size: such a state has no stacked form.
    #[track_caller]
    pub fn into_stacked(self) -> LstmState<3> {
        let first = self.last().hidden.dims();
        for (index, state) in self.cells.iter().enumerate() {
            assert!(
                state.hidden.dims() == first,
                "state {index} has hidden shape {:?}, expected {first:?} as in the last layer: \
                 layers of unequal sizes cannot be stacked",
                state.hidden.dims(),
            );
        }
        let (cells, hiddens): (Vec<_>, Vec<_>) = self
            .cells
            .into_iter()
            .map(|state| (state.cell, state.hidden))
            .unzip();
        LstmState {
            cell: Tensor::stack(cells, 0),
            hidden: Tensor::stack(hiddens, 0),
        }
    }

    /// From PyTorch's form, see [`into_stacked`](Self::into_stacked).
    ///
    /// # Panics
    /// If `cell` and `hidden` differ in their first axis.
    #[track_caller]
    pub fn from_stacked(state: LstmState<3>) -> Self {
        let [cells, ..] = state.cell.dims();
        let [hiddens, ..] = state.hidden.dims();
        assert!(
            cells == hiddens,
            "cell has {cells} states on its first axis, hidden has {hiddens}, expected as many",
        );
        let parts = |tensor: Tensor<3>| {
            let count = tensor.dims()[0];
            tensor
                .chunk(count, 0)
                .into_iter()
                .map(|part| part.squeeze_dim::<2>(0))
        };
        Self {
            cells: parts(state.cell)
                .zip(parts(state.hidden))
                .map(|(cell, hidden)| LstmState { cell, hidden })
                .collect(),
        }
    }
}

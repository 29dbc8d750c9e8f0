//! The state of a stack of layers, by type and by name.

use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;
pub use recurrent_core::{GruState, LstmState, State};

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
/// // Carry the state to the next chunk, detached from the graph.
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
        last(&self.cells)
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

impl StackState<GruState> {
    /// PyTorch's form: `[layers·directions, batch_size, d_hidden]`.
    ///
    /// # Panics
    /// If the layers differ in size: such a state has no stacked form.
    #[track_caller]
    pub fn into_stacked(self) -> Tensor<3> {
        let expected = self.last().hidden.dims();
        for (index, state) in self.cells.iter().enumerate() {
            let got = state.hidden.dims();
            assert!(
                got == expected,
                "state {index} has hidden shape {got:?}, expected {expected:?} as in the last layer: \
                 layers of unequal sizes cannot be stacked",
            );
        }
        let hiddens = self.cells.into_iter().map(|state| state.hidden);
        Tensor::stack(hiddens.collect(), 0)
    }

    /// From PyTorch's form, see [`into_stacked`](Self::into_stacked).
    pub fn from_stacked_hidden(hidden: Tensor<3>) -> Self {
        let count = hidden.dims()[0];
        let parts = hidden.chunk(count, 0).into_iter();
        let cells = parts.map(|part| GruState {
            hidden: part.squeeze_dim::<2>(0),
        });
        Self {
            cells: cells.collect(),
        }
    }
}

/// The state of a [`Recurrent`](crate::Recurrent), whose variant is known at run time: one list of
/// named tensors per layer and direction, index = layer · directions + direction, the forward
/// direction first.
///
/// The LSTM family has the parts `cell` and `hidden`, and its states convert from and to
/// [`StackState`]. The GRU has the part `hidden`; the aLSTM has `main cell`, `main hidden`, `adapt cell` and
/// `adapt hidden`.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use recurrent_modules::{LstmConfig, RecurrentConfig};
///
/// let device = Device::flex();
/// let config = LstmConfig::new(3, 4).with_num_layers(2);
/// let model = RecurrentConfig::Lstm(config).init(&device);
/// let chunk = Tensor::<3>::ones([2, 5, 3], &device);
/// let (_, state) = model.forward(chunk.clone(), None);
/// let (_, state) = model.forward(chunk, Some(state.detach()));
/// assert_eq!(state.cells.len(), 2);
/// assert_eq!(state.last().part("hidden").dims(), [2, 4]);
///
/// // PyTorch's form, for the LSTM family.
/// let stacked = state.into_lstm().into_stacked();
/// assert_eq!(stacked.hidden.dims(), [2, 2, 4]);
/// ```
#[derive(Debug, Clone)]
pub struct RecurrentState {
    /// The states, layer by layer.
    pub cells: Vec<NamedState>,
}

impl RecurrentState {
    /// The state of the last layer (its backward direction, if it has one).
    ///
    /// # Panics
    /// If there are no states.
    #[track_caller]
    pub fn last(&self) -> &NamedState {
        last(&self.cells)
    }

    /// The same values, cut off from the autodiff graph: truncated backpropagation through time.
    pub fn detach(self) -> Self {
        self.map(Tensor::detach)
    }

    /// Applies `f` to each tensor of each state.
    pub fn map(self, mut f: impl FnMut(Tensor<2>) -> Tensor<2>) -> Self {
        let cells = self.cells.into_iter();
        Self {
            cells: cells.map(|state| state.map(&mut f)).collect(),
        }
    }

    /// The state of a variant of the LSTM family.
    ///
    /// # Panics
    /// If the parts of a state are not `cell` and `hidden`.
    #[track_caller]
    pub fn into_lstm(self) -> StackState {
        let mut cells = Vec::with_capacity(self.cells.len());
        for (index, state) in self.cells.into_iter().enumerate() {
            let names: Vec<&str> = state.iter().map(|(name, _)| name).collect();
            assert!(
                names == LSTM_PARTS,
                "state of cell {index} has the parts {names:?}, expected {LSTM_PARTS:?}",
            );
            let tensors = state.parts.into_iter().map(|(_, tensor)| tensor);
            cells.push(LstmState::from_tensors(tensors.collect()));
        }
        StackState { cells }
    }
}

/// The parts of an LSTM's state, in the order of its tensors.
const LSTM_PARTS: [&str; 2] = ["cell", "hidden"];

impl From<StackState> for RecurrentState {
    fn from(state: StackState) -> Self {
        Self {
            cells: state.cells.into_iter().map(NamedState::from).collect(),
        }
    }
}

/// The state of one layer and direction, part by part.
#[derive(Debug, Clone)]
pub struct NamedState {
    /// Name and values `[batch_size, ·]` of each part, in the order of
    /// [`Step::state_parts`](recurrent_core::Step::state_parts).
    pub parts: Vec<(&'static str, Tensor<2>)>,
}

impl NamedState {
    /// A part by its name, if there is one of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor<2>> {
        self.iter()
            .find(|(other, _)| *other == name)
            .map(|(_, tensor)| tensor)
    }

    /// A part by its name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Tensor<2>> {
        let mut parts = self.parts.iter_mut();
        let part = parts.find(|(other, _)| *other == name);
        part.map(|(_, tensor)| tensor)
    }

    /// A part by its name: for the LSTM `cell` or `hidden`.
    ///
    /// # Panics
    /// If the state has no such part.
    #[track_caller]
    pub fn part(&self, name: &str) -> Tensor<2> {
        match self.get(name) {
            Some(tensor) => tensor.clone(),
            None => {
                let names: Vec<_> = self.iter().map(|(name, _)| name).collect();
                panic!("the state has no part `{name}`, its parts are {names:?}")
            }
        }
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Tensor<2>)> {
        self.parts.iter().map(|(name, tensor)| (*name, tensor))
    }

    /// Applies `f` to each part.
    pub fn map(self, mut f: impl FnMut(Tensor<2>) -> Tensor<2>) -> Self {
        let parts = self.parts.into_iter();
        Self {
            parts: parts.map(|(name, tensor)| (name, f(tensor))).collect(),
        }
    }
}

impl From<LstmState<2>> for NamedState {
    fn from(state: LstmState<2>) -> Self {
        let tensors = state.into_tensors();
        Self {
            parts: LSTM_PARTS.into_iter().zip(tensors).collect(),
        }
    }
}

#[track_caller]
fn last<S>(cells: &[S]) -> &S {
    match cells.last() {
        Some(state) => state,
        None => panic!("state has 0 cells, expected at least 1"),
    }
}

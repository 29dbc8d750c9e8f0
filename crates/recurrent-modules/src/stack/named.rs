//! Conversion between the typed state of a stack and a state of named tensors.

use alloc::vec::Vec;
use core::mem::take;

use recurrent_core::{History, State, Step};

use super::Stack;
use crate::cell::{Cell, StateOf};
use crate::layer::Layer;
use crate::state::{NamedState, RecurrentState, StackState};

/// The names of the state's parts of each cell of a stack.
pub(crate) struct StateNames {
    /// In the order of the stack's own state.
    cells: Vec<CellNames>,
    directions: usize,
}

/// The names of one cell's parts, for all its layers one after the other.
struct CellNames {
    parts: Vec<&'static str>,
    layers: usize,
}

impl CellNames {
    fn per_layer(&self) -> usize {
        self.parts.len() / self.layers
    }
}

impl StateNames {
    pub(crate) fn of<C: Cell>(stack: &Stack<C>) -> Self {
        let cells = stack.layers.iter().flat_map(Layer::cells);
        let names = |cell: &C| {
            let parts = cell.bind().state_parts().into_iter();
            CellNames {
                parts: parts.map(|(name, _)| name).collect(),
                layers: cell.layers(),
            }
        };
        Self {
            cells: cells.map(names).collect(),
            directions: stack.directions(),
        }
    }

    /// For each cell of the stack, the indices of its layers' states in a [`RecurrentState`].
    fn places(&self) -> Vec<Vec<usize>> {
        let mut first = 0;
        let mut places = Vec::with_capacity(self.cells.len());
        for (index, cell) in self.cells.iter().enumerate() {
            let direction = index % self.directions;
            let layers = first..first + cell.layers;
            places.push(
                layers
                    .map(|layer| layer * self.directions + direction)
                    .collect(),
            );
            if direction + 1 == self.directions {
                first += cell.layers;
            }
        }
        places
    }

    /// Names the values of each cell, layer by layer and direction by direction.
    ///
    /// # Arguments
    /// * `values` - of each cell one value per part
    fn name<T>(&self, values: impl IntoIterator<Item = Vec<T>>) -> Vec<Vec<(&'static str, T)>> {
        let mut placed = Vec::new();
        for ((cell, places), values) in self.cells.iter().zip(self.places()).zip(values) {
            let mut named = cell.parts.iter().copied().zip(values);
            for place in places {
                let layer: Vec<_> = named.by_ref().take(cell.per_layer()).collect();
                placed.push((place, layer));
            }
        }
        placed.sort_by_key(|(place, _)| *place);
        placed.into_iter().map(|(_, layer)| layer).collect()
    }

    pub(crate) fn name_state<S: State>(&self, state: StackState<S>) -> RecurrentState {
        let cells = self.name(state.cells.into_iter().map(State::into_tensors));
        RecurrentState {
            cells: cells
                .into_iter()
                .map(|parts| NamedState { parts })
                .collect(),
        }
    }

    pub(crate) fn name_histories(&self, histories: Vec<History>) -> Vec<History> {
        let values = histories.into_iter().map(|history| {
            let parts = history.parts.into_iter();
            parts.map(|(_, part)| part).collect()
        });
        let named = self.name(values).into_iter();
        named.map(|parts| History { parts }).collect()
    }

    /// Inverse of [`name_state`](Self::name_state).
    #[track_caller]
    pub(crate) fn type_state<S: State>(&self, mut state: RecurrentState) -> StackState<S> {
        let places = self.places();
        let expected = places.iter().map(Vec::len).sum::<usize>();
        let (got, directions) = (state.cells.len(), self.directions);
        assert!(
            got == expected,
            "state has {got} cells, expected layers × directions = {} × {directions} = {expected}",
            expected / directions,
        );
        let mut cells = Vec::with_capacity(self.cells.len());
        for (cell, places) in self.cells.iter().zip(places) {
            let mut tensors = Vec::with_capacity(cell.parts.len());
            for (place, expected) in places.into_iter().zip(cell.parts.chunks(cell.per_layer())) {
                let parts = take(&mut state.cells[place].parts);
                let got: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
                assert!(
                    got == expected,
                    "state of cell {place} has the parts {got:?}, expected {expected:?}",
                );
                tensors.extend(parts.into_iter().map(|(_, tensor)| tensor));
            }
            cells.push(S::from_tensors(tensors));
        }
        StackState { cells }
    }

    /// [`type_state`](Self::type_state) of an optional state. Not `map`, because a closure does not propagate
    /// `#[track_caller]`.
    #[track_caller]
    pub(crate) fn type_given<S: State>(
        &self,
        state: Option<RecurrentState>,
    ) -> Option<StackState<S>> {
        Some(self.type_state(state?))
    }
}

impl<C: Cell> Stack<C> {
    /// The state as named tensors, as [`Recurrent`](crate::Recurrent) takes and returns it.
    pub fn named_state(&self, state: StackState<StateOf<C>>) -> RecurrentState {
        StateNames::of(self).name_state(state)
    }

    /// Inverse of [`named_state`](Self::named_state).
    ///
    /// # Panics
    /// If the number of cells or the names of a cell's parts differ from those of the stack.
    #[track_caller]
    pub fn typed_state(&self, state: RecurrentState) -> StackState<StateOf<C>> {
        StateNames::of(self).type_state(state)
    }
}

//! The indices of the weights of a call, and their matrices.

use alloc::vec::Vec;

use crate::fused::cpu::driver::Matrix;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::view::View;
use crate::fused::problem::lstm::LstmProblem;
use crate::fused::problem::{Key, Part, Parts, RoundPart};

/// Number of weights that do not belong to a round.
const ONCE: usize = 4;

/// The index of a weight in the set.
pub fn index(key: impl Into<Key>) -> usize {
    match key.into() {
        Key::Round(round, RoundPart::Matrix) => ONCE + 2 * round,
        Key::Round(round, _) => ONCE + 2 * round + 1,
        Key::Part(Part::WeightHidden) => 0,
        Key::Part(Part::PeepholeFull) => 1,
        Key::Part(Part::Projection) => 2,
        Key::Part(_) => 3,
    }
}

/// Numbers of rows and columns of a weight.
fn size(problem: &LstmProblem, key: Key) -> (usize, usize) {
    let (width, units, d_output) = (problem.width(), problem.d_hidden, problem.d_output);
    match key {
        Key::Part(Part::WeightHidden) => (d_output, width),
        Key::Part(Part::PeepholeFull) => (units, width),
        Key::Part(Part::Projection) => (units, d_output),
        Key::Part(_) => (problem.d_input, width),
        Key::Round(round, part) => {
            let (from, to) = problem.round_shape(round);
            match (part, problem.rounds[round]) {
                (RoundPart::Matrix, Some(rank)) => (from, rank),
                (RoundPart::Right, Some(rank)) => (rank, to),
                _ => (from, to),
            }
        }
    }
}

/// How products read the weights of a call.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// `Some` for the backward, whose weights are transposed; the value holds the columns of a left
    /// factor in tiles.
    pub back: Option<Option<Columns>>,
    /// Columns of the gates.
    pub gates: Columns,
    /// Lanes per vector.
    pub lanes: usize,
    /// Number of shares of a product.
    pub sharers: usize,
    /// Whether the weights read by the steps are packed.
    pub pack_steps: bool,
    /// Whether W is packed.
    pub pack_input: bool,
}

impl Reading {
    /// The weights that a call has, by [`index`].
    pub fn matrices(&self, problem: &LstmProblem, parts: &Parts<&[f32]>) -> Vec<Option<Matrix>> {
        let once = [
            Part::WeightHidden,
            Part::PeepholeFull,
            Part::Projection,
            Part::WeightInput,
        ];
        let keys = once.map(Key::Part).into_iter();
        let rounds = 0..problem.rounds.len();
        let of_round = |round| [RoundPart::Matrix, RoundPart::Right].map(|p| Key::Round(round, p));
        keys.chain(rounds.flat_map(of_round))
            .map(|key| Some(self.matrix(problem, key, parts.get(key)?)))
            .collect()
    }

    fn matrix(&self, problem: &LstmProblem, key: Key, values: &[f32]) -> Matrix {
        let (rows, columns) = size(problem, key);
        let view = View::rows(values, columns);
        let of_gates = matches!(key, Key::Part(part) if part != Part::Projection);
        let pack = match key {
            Key::Part(Part::WeightInput) => self.pack_input,
            _ => self.pack_steps,
        };
        let plain = |count| Columns::plain(count, self.lanes, self.sharers);
        let matrix = match (self.back, of_gates) {
            (Some(tiles), true) => {
                Matrix::new(view.transposed(), columns, plain(rows)).by_tile(tiles)
            }
            (Some(_), false) => Matrix::new(view.transposed(), columns, plain(rows)),
            (None, true) => Matrix::new(view, rows, self.gates),
            (None, false) => Matrix::new(view, rows, plain(columns)),
        };
        matrix.packed(pack)
    }
}

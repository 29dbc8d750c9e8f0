//! What is where in the output of a call.
//!
//! ```text
//! y [N, H] | c, h, m, z of each layer [B, Σ(2H + 2A)] | with histories each of these [N, H] or [N, A]
//! ```
//! A history that is y is not there a second time.

use super::{Mask, Problem, StatePart};

impl Problem {
    /// Values of the output: y of all rows, the last states of each sequence, then with histories the
    /// parts of the states after all rows, one after the other.
    pub fn output_len(&self) -> usize {
        let features = match self.histories {
            true => self.state_size() - self.in_output(),
            false => 0,
        };
        self.histories_start() + self.rows() * features
    }

    /// Where a part of a layer's state after all rows begins in the output; none where it is not asked
    /// for, or is y.
    pub fn history(&self, layer: usize, part: StatePart) -> Option<usize> {
        if !self.histories || self.is_output(layer, part) {
            return None;
        }
        let before = match part {
            // After the h' that is y.
            StatePart::AdaptCell | StatePart::Z if self.is_output(layer, StatePart::Hidden) => {
                self.in_output()
            }
            _ => 0,
        };
        let features = self.state_part(layer, part) - before;
        Some(self.histories_start() + self.rows() * features)
    }

    /// Whether a part of a layer's state is y: h' of the top layer, where no mask comes between.
    pub(super) fn is_output(&self, layer: usize, part: StatePart) -> bool {
        let top = layer + 1 == self.layers.len();
        top && matches!(part, StatePart::Hidden) && !self.has(Mask::Hidden)
    }

    /// Features of the states that y has.
    fn in_output(&self) -> usize {
        match self.has(Mask::Hidden) {
            true => 0,
            false => self.d_output(),
        }
    }

    /// Where the states after all rows begin in the output.
    fn histories_start(&self) -> usize {
        self.rows() * self.d_output() + self.batch_size() * self.state_size()
    }
}

//! The table of shapes of the adaptive LSTM.

use alloc::vec::Vec;

use super::{Mask, Problem, Tensors, Weight};
use crate::kernel::shapes::{Expected, check_counts};

impl Weight {
    /// As in the cell.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdaptInput => "weight_input of the adaptation cell",
            Self::AdaptHidden => "weight_hidden of the adaptation cell",
            Self::Policy => "policy projection",
            Self::Input => "weight_input",
            Self::Hidden => "weight_hidden",
        }
    }
}

impl Mask {
    /// As in [`Masks`](crate::Masks).
    pub fn name(self) -> &'static str {
        match self {
            Self::Candidate => "mask candidate",
            Self::Cell => "mask cell",
            Self::Hidden => "mask hidden",
            Self::UpdateCell => "mask update_cell",
            Self::UpdateHidden => "mask update_hidden",
            Self::Adapt => "mask adapt",
        }
    }
}

impl Problem {
    /// The shape of a weight of a layer.
    pub fn expected_weight(&self, layer: usize, weight: Weight) -> Expected {
        let sizes = &self.layers[layer];
        let (d_input, d_hidden, d_adapt) = (sizes.d_input, sizes.d_hidden, sizes.d_adapt);
        match weight {
            Weight::AdaptInput => Expected::new(
                "[d_input + d_hidden + features of the z below, 4·d_adapt]",
                [self.d_seen(layer), 4 * d_adapt],
            ),
            Weight::AdaptHidden => Expected::new("[d_adapt, 4·d_adapt]", [d_adapt, 4 * d_adapt]),
            Weight::Policy => {
                Expected::new("[d_adapt, features of a policy]", [d_adapt, sizes.policy()])
            }
            Weight::Input => Expected::new("[d_input, 4·d_hidden]", [d_input, 4 * d_hidden]),
            Weight::Hidden => Expected::new("[d_hidden, 4·d_hidden]", [d_hidden, 4 * d_hidden]),
        }
    }

    /// The shape of the rows of the input.
    pub fn expected_input(&self) -> Expected {
        let dims = [self.rows(), self.layers[0].d_input];
        Expected::new("[steps of all sequences, d_input]", dims)
    }

    /// The shape of a mask that there is.
    pub fn expected_mask(&self, mask: Mask) -> Expected {
        let features = self.layers.iter();
        let features = features.map(|layer| Self::mask_size(layer, mask)).sum();
        match self.masks[mask as usize] {
            Some(true) => Expected::new(
                "[steps of all sequences, features of all layers]",
                [self.rows(), features],
            ),
            _ => Expected::new(
                "[batch_size, features of all layers]",
                [self.batch_size(), features],
            ),
        }
    }

    /// Checks the sizes of the layers against each other.
    ///
    /// # Panics
    /// If there is no layer, or one does not fit the one below.
    #[track_caller]
    pub fn check_sizes(&self) {
        check_counts(&self.counts);
        assert!(
            !self.layers.is_empty(),
            "there is no layer, expected at least 1"
        );
        for (index, pair) in self.layers.windows(2).enumerate() {
            assert!(
                pair[1].d_input == pair[0].d_hidden,
                "layer {} has d_input {}, expected d_hidden of layer {index} = {}",
                index + 1,
                pair[1].d_input,
                pair[0].d_hidden,
            );
        }
    }

    /// Checks the lengths of the tensors that a CPU kernel is given.
    ///
    /// # Panics
    /// If their number or the length of one is another than the problem says.
    #[track_caller]
    pub(super) fn check_slices(&self, tensors: Tensors<'_>) {
        self.check_sizes();
        let mut expected = alloc::vec![
            ("input", self.expected_input()),
            (
                "states",
                Expected::new(
                    "[batch_size, features of all states]",
                    [self.batch_size(), self.state_size()],
                ),
            ),
            (
                "biases",
                Expected::new(
                    "[values of all biases]",
                    [self.bias_start(self.layers.len())]
                ),
            ),
        ];
        for layer in 0..self.layers.len() {
            let weights =
                Weight::ALL.map(|weight| (weight.name(), self.expected_weight(layer, weight)));
            expected.extend(weights);
        }
        let masks = Mask::ALL.into_iter().filter(|&mask| self.has(mask));
        expected.extend(masks.map(|mask| (mask.name(), self.expected_mask(mask))));
        let lengths: Vec<usize> = tensors.0.iter().map(|tensor| tensor.len()).collect();
        assert!(
            lengths.len() == expected.len(),
            "got {} tensors, expected {}",
            lengths.len(),
            expected.len(),
        );
        for ((name, expected), len) in expected.into_iter().zip(lengths) {
            expected.check_len(name, len);
        }
    }
}

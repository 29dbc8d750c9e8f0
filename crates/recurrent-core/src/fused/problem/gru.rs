//! A call of the GRU: its cell, its sizes and options, and the shape of each of its tensors.
//!
//! Layout of the output:
//! ```text
//! h' of all rows [N, H] | the final h' of each sequence [B, H]
//! ```

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use burn::tensor::Tensor;

use super::{Axes, Expected, Key, Part, Parts, check_counts, offsets};
use crate::equations::masks::{MaskPlace, Masks};

/// Number of gate blocks: r, z and n.
pub const GATES: usize = 3;

/// A GRU. The equations are those of [`equations::gru`](crate::equations::gru), the gates in the order of
/// [`GateLayout::GRU`](crate::GateLayout::GRU).
#[derive(Debug, Clone)]
pub struct GruSpec {
    /// W `[I, 3H]`
    pub weight_input: Tensor<2>,
    /// b `[3H]`
    pub bias: Option<Tensor<1>>,
    /// R `[H, 3H]`
    pub weight_hidden: Tensor<2>,
    /// b_hn `[H]`, multiplied by the reset gate; only with `reset_after`.
    pub bias_candidate_hidden: Option<Tensor<1>>,
    /// Whether the reset gate multiplies h·R_n (PyTorch), or h before the product (Cho et al.).
    pub reset_after: bool,
}

impl GruSpec {
    /// The sizes and options of a call of this cell, without masks.
    pub fn problem(&self, counts: Vec<usize>) -> GruProblem {
        let [d_input, width] = self.weight_input.dims();
        GruProblem {
            d_input,
            d_hidden: width / GATES,
            reset_after: self.reset_after,
            counts,
            order: None,
            masks: Masks::none(),
        }
    }

    /// # Panics
    /// If a weight does not have the shape that the cell's sizes imply, or a bias is set that this form
    /// does not have.
    #[track_caller]
    pub fn check(&self) {
        let problem = self.problem(vec![1]);
        let check = |part: Part, dims: Axes| problem.expected(part).check(Key::Part(part), dims);
        check(Part::WeightInput, self.weight_input.dims().into());
        check(Part::WeightHidden, self.weight_hidden.dims().into());
        if let Some(bias) = &self.bias {
            check(Part::Bias, bias.dims().into());
        }
        if let Some(bias) = &self.bias_candidate_hidden {
            assert!(
                self.reset_after,
                "got `{}`, expected none where the reset gate acts before the product",
                Key::Part(Part::BiasHidden),
            );
            check(Part::BiasHidden, bias.dims().into());
        }
    }
}

/// The sizes and options of a call, without its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct GruProblem {
    /// I
    pub d_input: usize,
    /// H
    pub d_hidden: usize,
    /// Whether the reset gate acts after the product.
    pub reset_after: bool,
    /// Number of rows of each step, non-increasing.
    pub counts: Vec<usize>,
    /// Gather order: for each row, its row of the input; `None` if the input is in running order. Not
    /// for a backward.
    pub order: Option<Arc<[usize]>>,
    /// For each mask present, whether it has a row per step and sequence; otherwise it has one per
    /// sequence. Masks on a cell state are never present.
    pub masks: Masks<bool>,
}

/// The masks that a GRU can have.
pub const MASKS: [MaskPlace; 3] = [
    MaskPlace::Candidate,
    MaskPlace::Hidden,
    MaskPlace::UpdateHidden,
];

impl GruProblem {
    /// 3H
    pub fn width(&self) -> usize {
        GATES * self.d_hidden
    }

    /// N: total number of rows of all steps.
    pub fn rows(&self) -> usize {
        self.counts.iter().sum()
    }

    /// B: sequences.
    pub fn batch_size(&self) -> usize {
        self.counts[0]
    }

    /// Length of the output.
    pub fn output_len(&self) -> usize {
        (self.rows() + self.batch_size()) * self.d_hidden
    }

    /// The first row of each step, and last the total number of rows.
    pub fn offsets(&self) -> Vec<usize> {
        offsets(&self.counts)
    }

    /// Number of steps of sequence b.
    pub fn steps_of(&self, b: usize) -> usize {
        self.counts.partition_point(|&count| count > b)
    }

    /// The shape that a tensor of this problem must have; all rows of a sequence form one axis.
    /// `Part::Bias` is b, `Part::BiasHidden` is b_hn.
    ///
    /// # Panics
    /// If a GRU does not have that tensor.
    #[track_caller]
    pub fn expected(&self, part: Part) -> Expected {
        let (batch, rows) = (self.batch_size(), self.rows());
        let (units, d_input, width) = (self.d_hidden, self.d_input, self.width());
        match part {
            Part::Input => Expected::new("[steps of all sequences, d_input]", [rows, d_input]),
            Part::WeightInput => Expected::new("[d_input, 3·d_hidden]", [d_input, width]),
            Part::WeightHidden => Expected::new("[d_hidden, 3·d_hidden]", [units, width]),
            Part::Bias => Expected::new("[3·d_hidden]", [width]),
            Part::BiasHidden => Expected::new("[d_hidden]", [units]),
            Part::Hidden => Expected::new("[batch_size, d_hidden]", [batch, units]),
            Part::Mask(place) if MASKS.contains(&place) => match self.masks.get(place) {
                Some(true) => Expected::new("[steps of all sequences, d_hidden]", [rows, units]),
                _ => Expected::new("[batch_size, d_hidden]", [batch, units]),
            },
            part => panic!("a GRU has no tensor `{}`", Key::Part(part)),
        }
    }

    /// Checks which tensors are present.
    ///
    /// # Panics
    /// If a tensor is missing, or is not a tensor of a GRU.
    #[track_caller]
    fn check_parts<T>(&self, parts: &Parts<T>) {
        check_counts(&self.counts);
        let always = [
            Part::Input,
            Part::WeightInput,
            Part::WeightHidden,
            Part::Hidden,
        ];
        let masks = MASKS.map(|place| (Part::Mask(place), self.masks.get(place).is_some()));
        for (part, wanted) in always.map(|part| (part, true)).into_iter().chain(masks) {
            let what = if wanted { "missing" } else { "unexpected" };
            let key = Key::Part(part);
            assert!(parts.has(key) == wanted, "{what} tensor `{key}`");
        }
        assert!(
            self.reset_after || !parts.has(Part::BiasHidden),
            "unexpected tensor `{}` where the reset gate acts before the product",
            Key::Part(Part::BiasHidden),
        );
    }

    /// Checks which tensors are present, the shapes of all tensors except weights, and the gather order
    /// of the input.
    ///
    /// # Panics
    /// If a tensor is missing or has a wrong shape, or the gather order contains an invalid row.
    #[track_caller]
    pub fn check_call<T>(&self, tensors: &Parts<T>, shapes: &Parts<Axes>) {
        self.check_parts(tensors);
        for key in shapes.keys() {
            self.expected_of(key).check(key, *shapes.of(key));
        }
        self.check_order();
    }

    /// Checks the lengths of the tensors passed to a CPU kernel.
    ///
    /// # Panics
    /// As [`check_call`](Self::check_call), for all tensors.
    #[track_caller]
    pub fn check_slices(&self, parts: &Parts<&[f32]>) {
        self.check_parts(parts);
        for key in parts.keys() {
            self.expected_of(key).check_len(key, parts.of(key).len());
        }
        self.check_order();
    }

    #[track_caller]
    fn expected_of(&self, key: Key) -> Expected {
        match key {
            Key::Part(part) => self.expected(part),
            Key::Round(..) => panic!("a GRU has no tensor `{key}`"),
        }
    }

    #[track_caller]
    fn check_order(&self) {
        if let Some(order) = &self.order {
            super::check_order(order, self.rows());
        }
    }
}

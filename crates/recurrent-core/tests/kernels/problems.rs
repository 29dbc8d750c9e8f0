//! Calls of the recurrence on slices: a problem, its tensors, a gradient.

use recurrent_core::Masks;
use recurrent_core::equations::layer_norm::Normalizer;
use recurrent_core::fused::cpu::recurrence::{Gradient, Saved, backward, forward};
use recurrent_core::fused::cpu::simd::Isa;
use recurrent_core::fused::problem::Coupling;
use recurrent_core::fused::problem::lstm::LstmProblem;
use recurrent_core::fused::problem::{Part, Parts};

use crate::common::Random;
use crate::draw;

#[derive(Clone)]
pub struct Call {
    pub name: &'static str,
    pub problem: LstmProblem,
    tensors: Vec<(Part, Vec<f32>)>,
    /// Of the output.
    grad: Vec<f32>,
}

/// All gradients of a call, in the order of the parts.
pub type Gradients = Vec<(Part, Vec<f32>)>;

impl Call {
    fn parts(&self) -> Parts<&[f32]> {
        let mut parts = Parts::default();
        for (part, values) in &self.tensors {
            parts.set(*part, Some(&values[..]));
        }
        parts
    }

    /// Puts NaN into the first row of the input.
    pub fn spoil(&mut self) {
        let input = self
            .tensors
            .iter_mut()
            .find(|(part, _)| *part == Part::Input);
        input.expect("an input").1[0] = f32::NAN;
    }

    pub fn forward(&self, isa: Isa, workers: usize, save: bool) -> (Vec<f32>, Option<Saved>) {
        forward(isa, workers, &self.problem, &self.parts(), save)
    }

    pub fn backward(&self, isa: Isa, workers: usize, saved: &Saved, output: &[f32]) -> Gradients {
        let mut wanted = Parts::default();
        for (part, _) in &self.tensors {
            if !matches!(part, Part::Mask(_)) {
                wanted.set(*part, Some(()));
            }
        }
        let call = Gradient {
            parts: &self.parts(),
            saved,
            output,
            grad: &self.grad,
            wanted: &wanted,
        };
        let mut grads = backward(isa, workers, &self.problem, call);
        let all = self.tensors.iter().filter(|(part, _)| wanted.has(*part));
        all.map(|(part, values)| {
            let grad = grads.take(*part).expect("a gradient of every wanted part");
            assert_eq!(grad.len(), values.len(), "{part:?}");
            (*part, grad)
        })
        .collect()
    }

    /// The same with the last value of one tensor gone.
    pub fn cut_short(&self) -> impl Iterator<Item = Self> {
        (0..self.tensors.len()).map(|index| {
            let mut call = self.clone();
            call.tensors[index].1.pop();
            call
        })
    }

    /// Output and gradients of a training step.
    pub fn both(&self, isa: Isa, workers: usize) -> (Vec<f32>, Gradients) {
        let (output, saved) = self.forward(isa, workers, true);
        let grads = self.backward(isa, workers, &saved.expect("saved tensors"), &output);
        (output, grads)
    }
}

/// What a call has beside the plain weights.
#[derive(Debug, Clone, Copy)]
struct Has {
    name: &'static str,
    coupling: Coupling,
    project: bool,
    norms: bool,
    masks: bool,
    /// Diagonal, full
    peepholes: (bool, bool),
    /// LN_x
    norm_input: bool,
    /// c' of all rows.
    histories: bool,
    /// Of a gate family that has one.
    forget_bias: bool,
}

const PLAIN: Has = Has {
    name: "plain",
    coupling: Coupling::Independent,
    project: false,
    norms: false,
    masks: false,
    peepholes: (false, false),
    norm_input: false,
    histories: false,
    forget_bias: false,
};

const ALL: [Has; 13] = [
    PLAIN,
    Has {
        name: "projection",
        project: true,
        ..PLAIN
    },
    Has {
        name: "norms",
        norms: true,
        norm_input: true,
        ..PLAIN
    },
    Has {
        name: "masks and diagonal peepholes",
        masks: true,
        peepholes: (true, false),
        ..PLAIN
    },
    Has {
        name: "full peepholes",
        peepholes: (false, true),
        ..PLAIN
    },
    Has {
        name: "refine gate",
        coupling: Coupling::Refined,
        ..PLAIN
    },
    Has {
        name: "coupled gates",
        coupling: Coupling::ForgetFromInput,
        ..PLAIN
    },
    ALL_OF_IT,
    Has {
        name: "histories",
        histories: true,
        ..PLAIN
    },
    Has {
        name: "projection and histories",
        project: true,
        histories: true,
        ..PLAIN
    },
    Has {
        name: "masks, diagonal peepholes and histories",
        masks: true,
        peepholes: (true, false),
        histories: true,
        ..PLAIN
    },
    Has {
        name: "all of it and histories",
        histories: true,
        ..ALL_OF_IT
    },
    Has {
        name: "refine gate and forget bias",
        coupling: Coupling::Refined,
        forget_bias: true,
        ..PLAIN
    },
];

const ALL_OF_IT: Has = Has {
    name: "all of it",
    coupling: Coupling::Independent,
    project: true,
    norms: true,
    masks: true,
    peepholes: (false, true),
    ..PLAIN
};

/// The calls of some size; with `ragged`, sequences end at different steps.
pub fn calls(sizes: [usize; 4], ragged: bool) -> Vec<Call> {
    ALL.into_iter()
        .map(|has| call(has, sizes, ragged))
        .collect()
}

fn call(has: Has, [batch, steps, d_input, d_hidden]: [usize; 4], ragged: bool) -> Call {
    let counts: Vec<usize> = (0..steps)
        .map(|step| match ragged {
            true => batch - step * (batch - 1) / steps,
            false => batch,
        })
        .collect();
    let rows: usize = counts.iter().sum();
    let d_output = match has.project {
        true => d_hidden.div_ceil(2),
        false => d_hidden,
    };
    let norm = has.norms.then_some(Normalizer::STANDARD);
    let masks = match has.masks {
        true => Masks {
            candidate: Some(true),
            cell: Some(false),
            hidden: Some(true),
            update_cell: Some(true),
            update_hidden: Some(false),
            adapt: None,
        },
        false => Masks::none(),
    };
    let problem = LstmProblem {
        d_input,
        d_hidden,
        d_output,
        coupling: has.coupling,
        counts,
        order: None,
        clip: if has.masks { 0.7 } else { f32::INFINITY },
        norm_input: norm.filter(|_| has.norm_input),
        norm_hidden: norm,
        norm_cell: norm,
        carry_normalized: false,
        output_sees_new: has.peepholes.0,
        forget_bias_tied: true,
        masks,
        histories: has.histories,
        bf16: false,
        rounds: Vec::new(),
    };
    let width = problem.width();
    let random = &mut Random::new(17 + (rows + width) as u64);
    let mut tensors: Vec<(Part, Vec<f32>)> = vec![];
    let mut add = |part: Part, count: usize, scale: f32| {
        let values = draw(random, count).into_iter().map(|v| scale * v);
        tensors.push((part, values.collect()));
    };
    let scale = |fan_in: usize| (3.0 / fan_in as f32).sqrt().min(1.5);
    add(Part::Input, rows * d_input, 1.0);
    add(Part::WeightInput, d_input * width, scale(d_input));
    add(Part::Bias, width, 0.5);
    if has.norm_input {
        add(Part::BiasInput, width, 0.5);
        add(Part::NormInputGain, width, 0.7);
        add(Part::NormInputShift, width, 0.5);
    }
    add(Part::WeightHidden, d_output * width, scale(d_output));
    add(Part::Cell, batch * d_hidden, 1.0);
    add(Part::Hidden, batch * d_output, 1.0);
    if has.peepholes.0 {
        add(Part::PeepholeFirst, d_hidden, 1.0);
        add(Part::PeepholeSecond, d_hidden, 1.0);
        add(Part::PeepholeOutput, d_hidden, 1.0);
    }
    if has.peepholes.1 {
        add(Part::PeepholeFull, d_hidden * width, 0.5 * scale(d_hidden));
    }
    if has.project {
        add(Part::Projection, d_hidden * d_output, scale(d_hidden));
    }
    if has.norms {
        add(Part::BiasHidden, width, 0.5);
        add(Part::NormHiddenGain, width, 0.7);
        add(Part::NormHiddenShift, width, 0.5);
        add(Part::NormCellGain, d_hidden, 0.7);
        add(Part::NormCellShift, d_hidden, 0.5);
    }
    if has.forget_bias {
        add(Part::ForgetBias, d_hidden, 0.5);
    }
    for (place, &per_step) in problem.masks.iter() {
        let rows = if per_step { rows } else { batch };
        add(Part::Mask(place), rows * problem.mask_features(place), 1.0);
    }
    let grad = draw(random, problem.output_len());
    Call {
        name: has.name,
        problem,
        tensors,
        grad,
    }
}

//! The GRU: each instruction set against the widest, any number of workers, and what saved tensors are good
//! for. Against the composed steps: `fused`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::DType;
use recurrent_core::eval::compare::{Tolerance, close};
use recurrent_core::fused::cpu::gru::{Gradient, Saved, backward, forward};
use recurrent_core::fused::cpu::simd::Isa;
use recurrent_core::fused::problem::gru::GruProblem;
use recurrent_core::fused::problem::{Key, Part, Parts};
use recurrent_core::{MaskPlace, Masks};

/// Batch, steps, input, hidden: every way to read weights, and units around the tail of a vector.
const SIZES: [[usize; 4]; 9] = [
    [1, 9, 7, 11],
    [2, 5, 3, 1],
    [5, 9, 17, 33],
    [13, 2, 70, 17],
    [6, 3, 300, 65],
    [1, 1, 7, 40],
    [3, 1, 7, 40],
    [24, 12, 40, 64],
    [1, 40, 33, 100],
];

/// A problem with its tensors.
#[derive(Clone)]
pub struct Call {
    pub name: String,
    problem: GruProblem,
    tensors: Vec<(Part, Vec<f32>)>,
}

/// Values, and the gradient of each part that has one.
pub type Results = (Vec<f32>, Vec<(Key, Vec<f32>)>);

/// Numbers in (−1, 1) that depend on the place only.
fn numbers(count: usize, salt: usize) -> Vec<f32> {
    let number = |k: usize| ((k * 37 + salt * 101) as f32 * 0.7311).sin();
    (0..count).map(number).collect()
}

impl Call {
    fn new([batch, steps, d_input, d_hidden]: [usize; 4], ragged: bool, options: usize) -> Self {
        let (reset_after, bias, masked) = (options & 1 == 0, options & 2 == 0, options & 4 != 0);
        let problem = GruProblem {
            d_input,
            d_hidden,
            reset_after,
            counts: (0..steps)
                .map(|step| match ragged {
                    true => batch - step * (batch - 1) / steps,
                    false => batch,
                })
                .collect(),
            order: None,
            masks: match masked {
                true => Masks {
                    candidate: Some(true),
                    hidden: Some(false),
                    update_hidden: Some(true),
                    ..Masks::none()
                },
                false => Masks::none(),
            },
        };
        let rows = problem.rows();
        let mut sizes = vec![
            (Part::Input, rows * d_input),
            (Part::WeightInput, d_input * 3 * d_hidden),
            (Part::WeightHidden, d_hidden * 3 * d_hidden),
            (Part::Hidden, batch * d_hidden),
        ];
        if bias {
            sizes.push((Part::Bias, 3 * d_hidden));
        }
        if bias && reset_after {
            sizes.push((Part::BiasHidden, d_hidden));
        }
        let mut tensors: Vec<_> = sizes
            .into_iter()
            .enumerate()
            .map(|(salt, (part, size))| (part, numbers(size, salt)))
            .collect();
        for (place, &per_step) in problem.masks.iter() {
            let rows = if per_step { rows } else { batch };
            let values = numbers(rows * d_hidden, 50 + place as usize).into_iter();
            let on = if place == MaskPlace::UpdateHidden {
                1.0
            } else {
                1.25
            };
            let mask = values.map(|v| if v > -0.4 { on } else { 0.0 }).collect();
            tensors.push((Part::Mask(place), mask));
        }
        Self {
            name: format!(
                "{:?}, ragged {ragged}, reset_after {reset_after}, bias {bias}, masked {masked}",
                [batch, steps, d_input, d_hidden]
            ),
            problem,
            tensors,
        }
    }

    fn parts(&self) -> Parts<&[f32]> {
        let mut parts = Parts::default();
        for (part, values) in &self.tensors {
            parts.set(*part, Some(values.as_slice()));
        }
        parts
    }

    fn forward(&self, isa: Isa, workers: usize, save: bool) -> (Vec<f32>, Option<Saved>) {
        forward(isa, workers, &self.problem, &self.parts(), save)
    }

    fn backward(&self, isa: Isa, workers: usize, saved: &Saved, output: &[f32]) -> Results {
        let mut wanted = Parts::default();
        for (part, _) in &self.tensors {
            let differentiable = !matches!(part, Part::Mask(_));
            wanted.set(*part, differentiable.then_some(()));
        }
        let call = Gradient {
            parts: &self.parts(),
            saved,
            output,
            grad: &numbers(output.len(), 99),
            wanted: &wanted,
        };
        let mut grads = backward(isa, workers, &self.problem, call);
        let all = wanted.keys().into_iter();
        let all = all.map(|key| {
            let grad = grads.take(key).expect("a gradient of every wanted part");
            assert_eq!(grad.len(), self.parts().of(key).len(), "{key}");
            (key, grad)
        });
        (output.to_vec(), all.collect())
    }

    pub fn both(&self, isa: Isa, workers: usize) -> Results {
        let (output, saved) = self.forward(isa, workers, true);
        self.backward(isa, workers, &saved.expect("saved tensors"), &output)
    }
}

pub fn calls() -> impl Iterator<Item = Call> {
    let sizes = SIZES.into_iter().flat_map(|s| [(s, false), (s, true)]);
    sizes.flat_map(|(s, ragged)| (0..8).map(move |options| Call::new(s, ragged, options)))
}

#[test]
fn instruction_sets_agree() {
    let wide = |list: &[f32]| -> Vec<f64> { list.iter().map(|&v| v.into()).collect() };
    for call in calls() {
        let steps = call.problem.counts.len();
        let (output, grads) = call.both(Isa::best(), 1);
        for isa in Isa::all() {
            let (got, got_grads) = call.both(isa, 1);
            let name = format!("{isa:?}, {}", call.name);
            let tolerance = Tolerance::values(DType::F32, steps);
            close(&name, &wide(&got), &wide(&output), tolerance).unwrap();
            for ((key, got), (_, expected)) in got_grads.iter().zip(&grads) {
                let name = format!("{name}, gradient of {key}");
                let tolerance = Tolerance::gradients(DType::F32, steps);
                close(&name, &wide(got), &wide(expected), tolerance).unwrap();
            }
        }
    }
}

/// Who takes which columns changes no bit, and neither does saving tensors.
#[test]
fn workers_and_saving_change_nothing() {
    for isa in Isa::all() {
        for call in calls() {
            let alone = call.both(isa, 1);
            for workers in [2, 3] {
                assert!(call.both(isa, workers) == alone, "{isa:?}, {}", call.name);
            }
            let (output, saved) = call.forward(isa, 2, false);
            assert!(saved.is_none());
            assert!(output == alone.0, "{isa:?}, {}", call.name);
        }
    }
}

/// A backward changes nothing that a second one needs.
#[test]
fn saved_tensors_serve_twice() {
    for call in calls() {
        let (output, saved) = call.forward(Isa::best(), 2, true);
        let saved = saved.expect("saved tensors");
        let first = call.backward(Isa::best(), 2, &saved, &output);
        let second = call.backward(Isa::best(), 1, &saved, &output);
        assert!(second == first, "{}", call.name);
    }
}

/// A tensor of another size is refused before a pointer is made, and so are saved tensors of another call.
#[test]
fn what_does_not_fit_is_refused() {
    let panics = |run: &dyn Fn()| catch_unwind(AssertUnwindSafe(run)).is_err();
    let sizes = [3, 4, 5, 9];
    for options in 0..8 {
        let call = Call::new(sizes, true, options);
        let (output, saved) = call.forward(Isa::best(), 1, true);
        let saved = saved.expect("saved tensors");
        for index in 0..call.tensors.len() {
            let mut short = call.clone();
            short.tensors[index].1.pop();
            let run = || drop(short.forward(Isa::best(), 1, false));
            assert!(panics(&run), "{}: {index} one value short ran", call.name);
        }
        let other = Call::new([3, 4, 5, 8], true, options);
        let run = || drop(other.backward(Isa::best(), 1, &saved, &output));
        assert!(panics(&run), "{}", call.name);
    }
    let mut call = Call::new(sizes, false, 1);
    call.tensors.push((Part::BiasHidden, numbers(9, 7)));
    let run = || drop(call.forward(Isa::best(), 1, false));
    assert!(panics(&run), "b_hn without a place ran");
}

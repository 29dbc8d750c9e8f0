//! The adaptive LSTM: each instruction set against the widest, any number of workers, and what
//! saved tensors are good for. Against the composed steps: `adaptive` of the modules.

use burn::tensor::DType;
use recurrent_core::eval::compare::{Tolerance, close};
use recurrent_core::fused::cpu::adaptive::{Gradient, Saved, backward, forward};
use recurrent_core::fused::cpu::simd::Isa;
use recurrent_core::fused::problem::adaptive::{
    AdaptiveProblem, Layer, Tensors, Weight, weight_index,
};
use recurrent_core::{MaskPlace, Masks};

/// A problem with its tensors.
struct Call {
    name: String,
    problem: AdaptiveProblem,
    tensors: Vec<Vec<f32>>,
}

/// Values and gradients of the first tensors, those that have any.
type Results = (Vec<f32>, Vec<Option<Vec<f32>>>);

/// Numbers in (−1, 1) that depend on the place only.
fn numbers(count: usize, salt: usize) -> Vec<f32> {
    let number = |k: usize| ((k * 37 + salt * 101) as f32 * 0.7311).sin();
    (0..count).map(number).collect()
}

impl Call {
    fn new(units: &[[usize; 2]], counts: &[usize], options: usize) -> Self {
        let (overlapping, bias, masked) = (options & 1 != 0, options & 2 == 0, options & 4 != 0);
        let histories = options & 8 != 0;
        let mut d_input = 5;
        let layers = units.iter().map(|&[d_hidden, d_adapt]| {
            let layer = Layer {
                d_input,
                d_hidden,
                d_adapt,
                bias,
                overlapping,
                clip: if masked { 0.5 } else { f32::INFINITY },
                clip_adapt: f32::INFINITY,
            };
            d_input = d_hidden;
            layer
        });
        let problem = AdaptiveProblem {
            layers: layers.collect(),
            counts: counts.to_vec(),
            masks: Masks::from_fn(|place| masked.then_some((place as usize).is_multiple_of(2))),
            histories,
        };
        let (rows, batch) = (problem.rows(), problem.batch_size());
        let sum = |size: fn(&Layer) -> usize| problem.layers.iter().map(size).sum::<usize>();
        let mut sizes = vec![rows * 5, batch * problem.state_size()];
        sizes.push(4 * sum(|layer| layer.d_adapt) + 4 * sum(|l| l.d_hidden) * usize::from(bias));
        for (index, layer) in problem.layers.iter().enumerate() {
            let (hidden, adapt) = (layer.d_hidden, layer.d_adapt);
            let below = match units.len() {
                1 => 0,
                count => units[(index + count - 1) % count][1],
            };
            sizes.extend([
                (layer.d_input + hidden + below) * 4 * adapt,
                adapt * 4 * adapt,
                adapt * layer.policy(),
                layer.d_input * 4 * hidden,
                hidden * 4 * hidden,
            ]);
        }
        let mut tensors: Vec<_> = sizes
            .into_iter()
            .enumerate()
            .map(|(salt, size)| numbers(size, salt))
            .collect();
        for (mask, &per_step) in problem.masks.iter() {
            let features = match mask {
                MaskPlace::Adapt => sum(|layer| layer.d_adapt),
                _ => sum(|layer| layer.d_hidden),
            };
            let rows = if per_step { rows } else { batch };
            let values = numbers(rows * features, 50 + mask as usize).into_iter();
            tensors.push(values.map(|v| if v > -0.4 { 1.25 } else { 0.0 }).collect());
        }
        Self {
            name: format!("{units:?}, {counts:?}, options {options}"),
            problem,
            tensors,
        }
    }

    fn forward(&self, isa: Isa, workers: usize, save: bool) -> (Vec<f32>, Option<Saved>) {
        let tensors: Vec<_> = self.tensors.iter().map(Vec::as_slice).collect();
        forward(isa, workers, &self.problem, Tensors(&tensors), save)
    }

    fn backward(&self, isa: Isa, workers: usize, saved: &Saved, out: &[f32]) -> Results {
        let tensors: Vec<_> = self.tensors.iter().map(Vec::as_slice).collect();
        let summed = weight_index(self.problem.layers.len(), Weight::AdaptInput);
        let wanted: Vec<_> = (0..tensors.len()).map(|index| index < summed).collect();
        let grad = numbers(out.len(), 99);
        let call = Gradient {
            tensors: Tensors(&tensors),
            saved,
            output: out,
            grad: &grad,
            wanted: &wanted,
        };
        let grads = backward(isa, workers, &self.problem, call);
        (out.to_vec(), grads)
    }

    fn both(&self, isa: Isa, workers: usize) -> Results {
        let (out, saved) = self.forward(isa, workers, true);
        self.backward(isa, workers, &saved.expect("saved tensors"), &out)
    }
}

fn calls() -> impl Iterator<Item = Call> {
    let layers: [&[[usize; 2]]; 3] = [&[[7, 3]], &[[7, 3], [18, 17]], &[[7, 3], [33, 4], [5, 20]]];
    let counts: [&[usize]; 4] = [&[3, 3, 3], &[5, 4, 4, 1], &[1, 1, 1, 1], &[2]];
    layers.into_iter().flat_map(move |layers| {
        let with_counts =
            move |counts| (0..16).map(move |options| Call::new(layers, counts, options));
        counts.into_iter().flat_map(with_counts)
    })
}

#[test]
fn instruction_sets_agree() {
    let wide = |list: &[f32]| -> Vec<f64> { list.iter().map(|&v| v.into()).collect() };
    for call in calls() {
        let steps = call.problem.counts.len();
        let (out, grads) = call.both(Isa::best(), 1);
        for isa in Isa::all() {
            let (got, got_grads) = call.both(isa, 1);
            let name = format!("{isa:?}, {}", call.name);
            let tolerance = Tolerance::values(DType::F32, steps);
            close(&name, &wide(&got), &wide(&out), tolerance).unwrap();
            for (index, (got, expected)) in got_grads.iter().zip(&grads).enumerate() {
                let (Some(got), Some(expected)) = (got, expected) else {
                    assert!(got.is_none() && expected.is_none(), "{name}");
                    continue;
                };
                let name = format!("{name}, gradient {index}");
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
            let (out, saved) = call.forward(isa, 2, false);
            assert!(saved.is_none());
            assert!(out == alone.0, "{isa:?}, {}", call.name);
        }
    }
}

/// A backward changes nothing that a second one needs.
#[test]
fn saved_tensors_serve_twice() {
    for call in calls() {
        let (out, saved) = call.forward(Isa::best(), 2, true);
        let saved = saved.expect("saved tensors");
        let first = call.backward(Isa::best(), 2, &saved, &out);
        assert!(
            call.backward(Isa::best(), 1, &saved, &out) == first,
            "{}",
            call.name
        );
    }
}

/// Name, values and gradients of every call.
pub fn all_results(
    isa: Isa,
    workers: usize,
) -> impl Iterator<Item = (String, Vec<f32>, Vec<Option<Vec<f32>>>)> {
    calls().map(move |call| {
        let (out, grads) = call.both(isa, workers);
        (call.name, out, grads)
    })
}

//! Time and batch: folding, cutting, detaching, permuting.

use burn::tensor::{Tensor, TensorData};
use recurrent_core::eval::compare::values;
use recurrent_modules::{Recurrent, RecurrentConfig, by_variant};

use crate::support::*;

/// Steps `range` of a sequence.
fn steps(x: &Tensor<3>, batch_first: bool, range: std::ops::Range<usize>) -> Tensor<3> {
    let [a, b, features] = x.dims();
    if batch_first {
        x.clone().slice([0..a, range, 0..features])
    } else {
        x.clone().slice([range, 0..b, 0..features])
    }
}

/// One direction, also backward.
fn one_direction(config: &RecurrentConfig) -> Vec<(&'static str, RecurrentConfig)> {
    let mut list = containers(config);
    list.extend(
        all_containers(config)
            .into_iter()
            .filter(|(name, _)| *name == "reverse"),
    );
    list
}

fn is_reverse(module: &Recurrent) -> bool {
    by_variant!(Recurrent: module, |stack| stack.reverse)
}

#[test]
fn sequence_is_a_fold_of_steps() {
    for device in devices() {
        for_each(one_direction, &device, |name, config, module, problem| {
            let batch_first = config.batch_first;
            let axis = usize::from(batch_first);
            let expected = record(module, problem, |x, s| {
                let mut times: Vec<usize> = (0..T).collect();
                if is_reverse(module) {
                    times.reverse();
                }
                let mut outputs = vec![];
                let mut state = s;
                for &t in &times {
                    let x_t = steps(&x, batch_first, t..t + 1).squeeze_dim::<2>(axis);
                    let (y, next) = module.step(x_t, Some(state));
                    outputs.push((t, y.unsqueeze_dim::<3>(axis)));
                    state = next;
                }
                outputs.sort_by_key(|(t, _)| *t);
                let outputs = outputs.into_iter().map(|(_, y)| y).collect();
                (Tensor::cat(outputs, axis), state)
            });
            let got = record(module, problem, |x, s| module.forward(x, Some(s)));
            got.assert_close(&expected, name);
        });
    }
}

#[test]
fn cutting_the_sequence_changes_nothing() {
    for device in devices() {
        for_each(one_direction, &device, |name, config, module, problem| {
            let batch_first = config.batch_first;
            let axis = usize::from(batch_first);
            let expected = record(module, problem, |x, s| module.forward(x, Some(s)));
            for cut in 1..T {
                let got = record(module, problem, |x, s| {
                    let first = steps(&x, batch_first, 0..cut);
                    let second = steps(&x, batch_first, cut..T);
                    if is_reverse(module) {
                        let (late, state) = module.forward(second, Some(s));
                        let (early, state) = module.forward(first, Some(state));
                        (Tensor::cat(vec![early, late], axis), state)
                    } else {
                        let (early, state) = module.forward(first, Some(s));
                        let (late, state) = module.forward(second, Some(state));
                        (Tensor::cat(vec![early, late], axis), state)
                    }
                });
                got.assert_close(&expected, &format!("{name}, cut at {cut}"));
            }
        });
    }
}

#[test]
fn detach_stops_gradients_to_the_earlier_chunk() {
    let device = flex();
    for_each(containers, &device, |name, config, module, problem| {
        let batch_first = config.batch_first;
        let cut = 2;
        let run = |detach: bool| {
            let first = leaf(&steps(&problem.input, batch_first, 0..cut));
            let second = leaf(&steps(&problem.input, batch_first, cut..T));
            let (_, state) = module.forward(first.clone(), Some(problem.state.clone()));
            let carried = state.clone();
            let state = if detach { state.detach() } else { state };
            let (output, _) = module.forward(second.clone(), Some(state));
            let gradients = cotangent_loss(&output, 5).backward();
            let mut parameters = Results::default();
            each_parameter(module, |path, param| {
                if let Some(gradient) = param.gradient(&gradients) {
                    parameters.0.insert(format!("grad.{path}"), gradient);
                }
            });
            parameters.0.insert(
                "grad.second".into(),
                values(&second.grad(&gradients).expect("the second chunk is used")),
            );
            let first = first.grad(&gradients).map(|gradient| values(&gradient));
            (first, parameters, carried)
        };
        let (first, detached, carried) = run(true);
        if let Some(gradient) = first {
            assert!(gradient.iter().all(|&g| g == 0.0), "{name}: {gradient:?}");
        }
        // What is left are the gradients of the second chunk from a constant state.
        let constant = carried.map(|part| Tensor::from_data(part.to_data(), &device));
        let second = leaf(&steps(&problem.input, batch_first, cut..T));
        let (output, _) = module.forward(second.clone(), Some(constant));
        let gradients = cotangent_loss(&output, 5).backward();
        let mut expected = Results::default();
        each_parameter(module, |path, param| {
            if let Some(gradient) = param.gradient(&gradients) {
                expected.0.insert(format!("grad.{path}"), gradient);
            }
        });
        let gradient = second.grad(&gradients).expect("the second chunk is used");
        expected.0.insert("grad.second".into(), values(&gradient));
        detached.assert_same(&expected, name);

        // Without `detach` they do flow.
        let (first, attached, _) = run(false);
        assert!(
            first.expect("a gradient").iter().any(|&g| g != 0.0),
            "{name}"
        );
        let weight = attached
            .0
            .keys()
            .find(|key| key.contains("weight"))
            .expect("a weight");
        assert_ne!(attached.get(weight), detached.get(weight), "{name}");
    });
}

#[test]
fn permuting_the_batch_permutes_the_output() {
    for device in devices() {
        for_each(all_containers, &device, |name, config, module, problem| {
            let axis = usize::from(!config.batch_first);
            let order = |list: [i64; 3]| {
                Tensor::<1, burn::tensor::Int>::from_data(TensorData::from(list), &device)
            };
            // A permutation that is not its own inverse.
            let (there, back) = (order([2, 0, 1]), order([1, 2, 0]));
            let expected = record(module, problem, |x, s| module.forward(x, Some(s)));
            let got = record(module, problem, |x, s| {
                let state = s.map(|part| part.select(0, there.clone()));
                let (output, state) = module.forward(x.select(axis, there.clone()), Some(state));
                let state = state.map(|part| part.select(0, back.clone()));
                (output.select(axis, back.clone()), state)
            });
            got.assert_close(&expected, name);
        });
    }
}

/// Smallest sizes, and a long sequence, against the fold.
#[test]
fn sizes_of_one() {
    let device = flex();
    for (name, config) in variants() {
        // The unbiased variance needs two units.
        let d_hidden = if name.contains("Norm") { 2 } else { 1 };
        let mut config = config;
        config.d_input = 1;
        config.d_hidden = d_hidden;
        let module = build(&config, 11, &device);
        for (batch_size, seq_length) in [(1, 1), (1, 4), (4, 1), (1, 70)] {
            let problem = Problem::sized(&module, true, batch_size, seq_length, 12, &device);
            let got = record(&module, &problem, |x, s| module.forward(x, Some(s)));
            let expected = record(&module, &problem, |x, s| {
                let mut state = s;
                let mut outputs = vec![];
                for t in 0..seq_length {
                    let x_t = steps(&x, true, t..t + 1).squeeze_dim::<2>(1);
                    let (y, next) = module.step(x_t, Some(state));
                    outputs.push(y.unsqueeze_dim::<3>(1));
                    state = next;
                }
                (Tensor::cat(outputs, 1), state)
            });
            let name = format!("{name}, B = {batch_size}, T = {seq_length}");
            got.assert_close(&expected, &name);
            assert!(got.is_finite(), "{name}");
        }
    }
}

/// A non-contiguous input gives what its copy gives.
#[test]
fn strided_inputs_are_read_right() {
    for device in devices() {
        for (name, config) in variants() {
            let module = build(&config, 11, &device);
            let problem = Problem::new(&module, true, 12, &device);
            let strided =
                Tensor::<3>::from_data(problem.input.clone().permute([2, 0, 1]).to_data(), &device)
                    .permute([1, 2, 0]);
            let (expected, _) = module.forward(leaf(&problem.input), None);
            let (got, _) = module.forward(strided, None);
            assert_same(name, &values(&got), &values(&expected));
        }
    }
}

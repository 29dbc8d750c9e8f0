//! Dropout: when it acts, what its masks are, and how gradients pass them.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use recurrent_core::eval::compare::values;
use recurrent_core::{Mask, Masks};
use recurrent_modules::{
    Recurrent, RecurrentConfig, RecurrentDropout, StackMasks, StackState, by_variant,
};

use crate::support::*;

fn with_dropout(config: &RecurrentConfig, dropout: RecurrentDropout) -> RecurrentConfig {
    config.clone().with_recurrent_dropout(dropout)
}

fn output(module: &Recurrent, problem: &Problem) -> Vec<f64> {
    let (output, _) = module.forward(problem.input.clone(), Some(problem.state.clone()));
    values(&output)
}

#[test]
fn zero_probability_is_none() {
    for device in devices() {
        for (name, config) in variants() {
            for (layers, config) in [
                ("one layer", config.clone()),
                ("two layers", config.with_num_layers(2)),
            ] {
                let plain = build(&config, 11, &device);
                let problem = Problem::new(&plain, true, 12, &device);
                let expected = record(&plain, &problem, |x, s| plain.forward(x, Some(s)));
                for dropout in dropouts(&config, 0.0) {
                    let module = build(&with_dropout(&config, dropout), 11, &device);
                    let masks = module.sample_masks(T, B, &device);
                    assert!(masks.cells.iter().all(Masks::is_none), "{dropout:?}");
                    assert!(masks.between.iter().all(Option::is_none), "{dropout:?}");
                    let got = record(&module, &problem, |x, s| module.forward(x, Some(s)));
                    got.assert_same(&expected, &format!("{name}, {layers}, {dropout:?}"));
                }
            }
        }
    }
}

/// Multiplying by ones, and updating every unit, is the identity; values to the bit, gradients but
/// for the order of their sums.
#[test]
fn masks_of_ones_are_none() {
    let device = flex();
    for_each(all_containers, &device, |name, _, module, problem| {
        let mut masks = random_masks(module, T, B, 31, &device);
        let ones = |mask: &mut Option<Mask>| {
            *mask = mask.take().map(|mask| match mask {
                Mask::PerSequence(mask) => Mask::PerSequence(mask.ones_like()),
                Mask::PerStep(mask) => Mask::PerStep(mask.ones_like()),
            });
        };
        for cell in &mut masks.cells {
            ones(&mut cell.hidden);
            ones(&mut cell.cell);
            ones(&mut cell.candidate);
            ones(&mut cell.update_hidden);
            ones(&mut cell.update_cell);
        }
        for mask in masks.between.iter_mut().flatten() {
            *mask = mask.ones_like();
        }
        let got = record(module, problem, |x, s| {
            module.forward_with(x, Some(s), with_masks(&masks))
        });
        let expected = record(module, problem, |x, s| module.forward(x, Some(s)));
        let is_value = |entry: &str| !entry.starts_with("grad.");
        got.only(is_value)
            .assert_same(&expected.only(is_value), name);
        got.assert_close(&expected, name);
    });
}

/// Kinds that leave no trace in evaluation.
fn kinds_without_expectation(config: &RecurrentConfig) -> Vec<RecurrentDropout> {
    let mut kinds = dropouts(config, 0.5);
    kinds.retain(|kind| !matches!(kind, RecurrentDropout::Zoneout { .. }));
    kinds
}

#[test]
fn dropout_acts_in_training_only() {
    for device in devices() {
        let plain_device = device.clone().without_autodiff();
        for (name, config) in variants() {
            let reference = build(&config.clone().with_num_layers(2), 11, &device);
            let problem = Problem::new(&reference, true, 12, &device);
            let expected = output(&reference, &problem);
            let on_plain = Problem {
                input: problem.input.clone().without_autodiff(),
                state: problem.state.clone().map(Tensor::without_autodiff),
            };

            let mut configs: Vec<(String, RecurrentConfig)> = kinds_without_expectation(&config)
                .into_iter()
                .map(|kind| {
                    let config = config.clone().with_num_layers(2);
                    (format!("{name}, {kind:?}"), with_dropout(&config, kind))
                })
                .collect();
            configs.push((
                format!("{name}, between"),
                config.clone().with_num_layers(2).with_dropout(0.5),
            ));
            for (name, config) in configs {
                let module = build(&config, 11, &device);
                let training = output(&module, &problem);
                assert_differs(&name, &training, &expected);
                // A new mask in each call.
                assert_differs(&name, &training, &output(&module, &problem));
                // `no_grad` only stops gradients, as with Burn's Dropout.
                assert_differs(
                    &name,
                    &output(&module.clone().no_grad(), &problem),
                    &expected,
                );

                let frozen = module.clone().freeze();
                assert_same(&name, &output(&frozen, &problem), &expected);
                assert_differs(&name, &output(&frozen.unfreeze(), &problem), &expected);

                let valid = module.valid();
                assert_same(&name, &output(&valid, &on_plain), &expected);
                // Even with an input on an autodiff device.
                assert_same(&name, &output(&valid, &problem), &expected);
                assert_differs(&name, &output(&valid.train(), &problem), &expected);

                let never = build(&config, 11, &plain_device);
                assert_same(&name, &output(&never, &on_plain), &expected);
                // `step` asks the same questions.
                let step = |module: &Recurrent, problem: &Problem| {
                    let x = problem.input.clone().slice([0..B, 0..1, 0..I]);
                    let (y, _) = module.step(x.squeeze_dim(1), Some(problem.state.clone()));
                    values(&y)
                };
                let still = step(&reference, &problem);
                assert_same(&name, &step(&module.valid(), &on_plain), &still);
                assert_differs(&name, &step(&module, &problem), &still);
            }
        }
    }
}

/// Explicit masks act in evaluation too.
#[test]
fn explicit_masks_act_everywhere() {
    let device = flex();
    let plain = device.clone().inner();
    for (name, config) in variants() {
        let module = build(&config, 11, &device);
        let problem = Problem::new(&module, true, 12, &device);
        let masks = random_masks(&module, T, B, 31, &device);
        let masked = |module: &Recurrent, device: &Device| {
            let problem = Problem::new(module, true, 12, device);
            let masks = random_masks(module, T, B, 31, device);
            let state = Some(problem.state.clone());
            let (output, _) = module.forward_with(problem.input.clone(), state, with_masks(&masks));
            values(&output)
        };
        let expected = masked(&module, &device);
        assert_differs(name, &expected, &output(&module, &problem));
        assert_same(name, &masked(&module.valid(), &plain), &expected);
        // Twice the same masks, twice the same call; other masks, another.
        let run = |masks: &StackMasks| {
            record(&module, &problem, |x, s| {
                module.forward_with(x, Some(s), with_masks(masks))
            })
        };
        run(&masks).assert_same(&run(&masks), name);
        let others = random_masks(&module, T, B, 32, &device);
        assert_differs(name, run(&others).get("output"), run(&masks).get("output"));
    }
}

/// Sampled masks given twice give the same call twice; given masks are used instead of sampling.
#[test]
fn sampled_masks_are_reproducible_values() {
    for device in devices() {
        for (name, config) in variants() {
            for kind in dropouts(&config, 0.4) {
                let config = with_dropout(&config, kind)
                    .with_num_layers(2)
                    .with_dropout(0.3)
                    .with_bidirectional(true);
                let module = build(&config, 11, &device);
                let problem = Problem::new(&module, true, 12, &device);
                let masks = module.sample_masks(T, B, &device);
                let run = || {
                    record(&module, &problem, |x, s| {
                        module.forward_with(x, Some(s), with_masks(&masks))
                    })
                };
                run().assert_same(&run(), &format!("{name}, {kind:?}"));
            }
        }
    }
}

/// The zeros of a training output are its mask: with that mask given, the same call results.
#[test]
fn a_training_output_shows_its_masks() {
    for device in devices() {
        for (name, config) in variants() {
            for kind in [
                RecurrentDropout::Standard { prob: 0.5 },
                RecurrentDropout::Gal { prob: 0.5 },
            ] {
                let config = with_dropout(&config, kind).with_batch_first(false);
                let module = build(&config, 11, &device);
                let problem = Problem::new(&module, false, 12, &device);
                let (x, s) = (problem.input.clone(), problem.state.clone());
                let (output, state) = module.forward(x.clone(), Some(s.clone()));
                let mask = output.clone().not_equal_elem(0.0).float() * 2.0;
                let zeros = values(&mask).iter().filter(|&&m| m == 0.0).count();
                assert!(zeros > 0 && zeros < B * T * H, "{name}: {zeros} zeros");
                let first = mask.clone().slice([0..1, 0..B, 0..H]).squeeze_dim::<2>(0);
                let mask = match kind {
                    RecurrentDropout::Gal { .. } => {
                        let all = values(&mask);
                        let repeated: Vec<f64> = values(&first).repeat(T);
                        assert_same(&format!("{name}: one mask over time"), &all, &repeated);
                        Mask::PerSequence(first)
                    }
                    _ => Mask::PerStep(mask),
                };
                let masks = StackMasks {
                    cells: vec![Masks {
                        hidden: Some(mask),
                        ..Masks::none()
                    }],
                    ..StackMasks::default()
                };
                let (again, last) = module.forward_with(x, Some(s), with_masks(&masks));
                assert_same(name, &values(&again), &values(&output));
                for ((part, got), (_, expected)) in
                    named_state(&last).iter().zip(&named_state(&state))
                {
                    assert_same(&format!("{name}: {part}"), &values(got), &values(expected));
                }
            }
        }
    }
}

/// Rows (or steps) of a mask, each `width` values.
fn rows(mask: &Option<Mask>, width: usize) -> Vec<Vec<f64>> {
    let list = match mask.as_ref().expect("a mask") {
        Mask::PerSequence(mask) => values(mask),
        Mask::PerStep(mask) => values(mask),
    };
    list.chunks(width).map(<[f64]>::to_vec).collect()
}

fn is_per_step(mask: &Option<Mask>) -> bool {
    matches!(mask, Some(Mask::PerStep(_)))
}

/// Values are 0 or `scale`, and the share of `scale` is near `keep` (five standard deviations).
#[track_caller]
fn assert_distribution(name: &str, list: &[f64], keep: f64, scale: f64) {
    let scale = f64::from(scale as f32);
    assert!(
        list.iter()
            .all(|&v| v == 0.0 || (v - scale).abs() < 1e-6 * scale),
        "{name}: values other than 0 and {scale}"
    );
    let kept = list.iter().filter(|&&v| v != 0.0).count() as f64 / list.len() as f64;
    let allowed = 5.0 * (keep * (1.0 - keep) / list.len() as f64).sqrt();
    assert!(
        (kept - keep).abs() < allowed,
        "{name}: keep rate {kept}, expected {keep} ± {allowed}"
    );
}

#[test]
fn sampled_masks_have_their_form_and_rate() {
    const STEPS: usize = 40;
    const ROWS: usize = 50;
    for device in devices() {
        for (name, config) in variants() {
            let config = projected(config).with_num_layers(2);
            let d_output = projected_size(&config);
            let sample = |kind: RecurrentDropout| {
                let module = with_dropout(&config, kind).init(&device);
                module.sample_masks(STEPS, ROWS, &device).cells
            };
            let prob = 0.3;
            for (kind, on_hidden, on_cell, on_candidate) in [
                (RecurrentDropout::Standard { prob }, true, false, false),
                (RecurrentDropout::Gal { prob }, true, false, false),
                (RecurrentDropout::Moon { prob }, false, true, false),
                (RecurrentDropout::Semeniuta { prob }, false, false, true),
            ] {
                if on_cell && !has_cell_state(&config) {
                    continue;
                }
                let name = format!("{name}, {kind:?}");
                let per_step = matches!(
                    kind,
                    RecurrentDropout::Standard { .. } | RecurrentDropout::Semeniuta { .. }
                );
                let cells = sample(kind);
                assert_eq!(cells.len(), 2, "{name}");
                for masks in &cells {
                    let places = [&masks.hidden, &masks.cell, &masks.candidate];
                    let there = places.map(Option::is_some);
                    assert_eq!(there, [on_hidden, on_cell, on_candidate], "{name}");
                    assert!(masks.update_hidden.is_none() && masks.update_cell.is_none());
                    let mask = places.into_iter().find(|mask| mask.is_some()).expect("one");
                    assert_eq!(is_per_step(mask), per_step, "{name}");

                    let width = if on_hidden { d_output } else { H };
                    let rows = rows(mask, width);
                    assert_eq!(
                        rows.len(),
                        if per_step { STEPS * ROWS } else { ROWS },
                        "{name}"
                    );
                    assert_distribution(&name, &rows.concat(), 1.0 - prob, 1.0 / (1.0 - prob));
                    // Sequences differ, and so do steps.
                    assert!(
                        rows[..ROWS].windows(2).any(|pair| pair[0] != pair[1]),
                        "{name}"
                    );
                    if per_step {
                        let first: Vec<_> = rows.iter().step_by(ROWS).collect();
                        assert!(first.windows(2).any(|pair| pair[0] != pair[1]), "{name}");
                    }
                }
                // Layers and calls have masks of their own.
                let all = |cells: &[Masks], k: usize| {
                    let masks = &cells[k];
                    let mask = [&masks.hidden, &masks.cell, &masks.candidate]
                        .into_iter()
                        .find(|mask| mask.is_some())
                        .expect("one");
                    rows(mask, 1)
                };
                assert_ne!(
                    all(&cells, 0),
                    all(&cells, 1),
                    "{name}: layers share a mask"
                );
                assert_ne!(
                    all(&cells, 0),
                    all(&sample(kind), 0),
                    "{name}: calls share a mask"
                );
            }

            let cells = sample(zoneout(&config, 0.2, 0.45));
            for masks in &cells {
                assert!(masks.hidden.is_none() && masks.cell.is_none());
                assert!(masks.candidate.is_none());
                assert!(is_per_step(&masks.update_hidden));
                let hidden = rows(&masks.update_hidden, d_output).concat();
                assert_eq!(hidden.len(), STEPS * ROWS * d_output);
                assert_distribution(name, &hidden, 0.8, 1.0);
                assert_eq!(is_per_step(&masks.update_cell), has_cell_state(&config));
                if has_cell_state(&config) {
                    let cell = rows(&masks.update_cell, H).concat();
                    assert_eq!(cell.len(), STEPS * ROWS * H);
                    assert_distribution(name, &cell, 0.55, 1.0);
                }
            }
        }
    }
}

#[test]
fn dropout_between_layers_spares_the_last() {
    for device in devices() {
        for (name, config) in variants() {
            let config = config
                .with_num_layers(3)
                .with_layer_sizes(Some(vec![8, 13, H]))
                .with_bidirectional(true)
                .with_dropout(0.9);
            let module = build(&config, 11, &device);
            let masks = module.sample_masks(40, B, &device);
            let shapes: Vec<_> = masks
                .between
                .iter()
                .map(|mask| mask.as_ref().expect("a mask").dims())
                .collect();
            assert_eq!(shapes, [[40, B, 16], [40, B, 26]], "{name}");
            for mask in masks.between.iter().flatten() {
                assert_distribution(name, &values(mask), 0.1, 10.0);
            }
            assert!(masks.cells.iter().all(Masks::is_none), "{name}");

            let problem = Problem::new(&module, true, 12, &device);
            let list = output(&module, &problem);
            assert!(
                list.iter().all(|&v| v != 0.0),
                "{name}: the last layer is dropped"
            );
        }
    }
}

/// A mask between layers is a product of the first stack's output.
#[test]
fn masks_between_layers_multiply_outputs() {
    let device = flex();
    for (name, config) in variants() {
        let config = config.with_num_layers(2);
        let module = build(&config, 11, &device);
        let problem = Problem::new(&module, true, 12, &device);
        let mask = Numbers::new(8).mask([T, B, H], 0.5, 2.0, &device);
        let masks = StackMasks {
            between: vec![Some(mask.clone())],
            ..StackMasks::default()
        };
        let got = record(&module, &problem, |x, s| {
            module.forward_with(x, Some(s), with_masks(&masks))
        });
        let expected = record(&module, &problem, |x, s| {
            by_variant!(Recurrent: &module, |stack| {
                let half = |k: usize| {
                    let mut half = stack.clone();
                    half.layers = vec![stack.layers[k].clone()];
                    half
                };
                let s = stack.typed_state(s);
                let initial = |k: usize| Some(StackState::from(s.cells[k].clone()));
                let (x, first) = half(0).forward(x, initial(0));
                let (y, second) = half(1).forward(x * mask.swap_dims(0, 1), initial(1));
                let cells = vec![first.last().clone(), second.last().clone()];
                (y, stack.named_state(StackState { cells }))
            })
        });
        got.assert_same(&expected, name);
    }
}

/// Streaming with one set of masks is the sequence with them.
#[test]
fn step_with_reads_masks_at_its_time() {
    for device in devices() {
        for_each(containers, &device, |name, config, module, problem| {
            let axis = usize::from(config.batch_first);
            let masks = random_masks(module, T, B, 31, &device);
            let got = record(module, problem, |x, s| {
                let mut state = s;
                let mut outputs = vec![];
                for (t, x_t) in x.chunk(T, axis).into_iter().enumerate() {
                    let x_t = x_t.squeeze_dim::<2>(axis);
                    let (y, next) = module.step_with(x_t, Some(state), &masks, t);
                    outputs.push(y.unsqueeze_dim::<3>(axis));
                    state = next;
                }
                (Tensor::cat(outputs, axis), state)
            });
            let expected = record(module, problem, |x, s| {
                module.forward_with(x, Some(s), with_masks(&masks))
            });
            got.assert_close(&expected, name);
        });
    }
}

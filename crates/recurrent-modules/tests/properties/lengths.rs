//! Lengths: what lies past a sequence's end is never seen.

use burn::tensor::{Tensor, TensorData};
use recurrent_core::eval::compare::values;
use recurrent_core::{Mask, Masks};
use recurrent_modules::{ForwardOptions, Lengths, Recurrent, RecurrentState, StackMasks};

use crate::support::*;

/// In order, falling, rising, with ties, and with none that reaches the padded length.
const LENGTHS: [[usize; B]; 5] = [[3, 5, 1], [5, 3, 2], [1, 4, 5], [2, 4, 2], [3, 1, 2]];

fn lengths(list: [usize; B]) -> Lengths {
    Lengths::new(list, T).expect("valid lengths")
}

fn with_lengths(lengths: &Lengths) -> ForwardOptions<'_> {
    ForwardOptions {
        lengths: Some(lengths),
        ..ForwardOptions::default()
    }
}

/// The input with `fill` past each length.
fn padded(input: &Tensor<3>, batch_first: bool, list: [usize; B], fill: f32) -> Tensor<3> {
    let [a, b, features] = input.dims();
    let data: Vec<f32> = values(input)
        .into_iter()
        .enumerate()
        .map(|(index, value)| {
            let (first, second) = (index / features / b, index / features % b);
            let (row, t) = if batch_first {
                (first, second)
            } else {
                (second, first)
            };
            if t < list[row] { value as f32 } else { fill }
        })
        .collect();
    Tensor::from_data(TensorData::new(data, [a, b, features]), &input.device())
}

#[test]
fn padding_content_changes_nothing() {
    for device in devices() {
        for_each(all_containers, &device, |name, config, module, problem| {
            let batch_first = config.batch_first;
            for list in [LENGTHS[0], LENGTHS[4]] {
                let lengths = lengths(list);
                let run = |fill: f32| {
                    let problem = Problem {
                        input: padded(&problem.input, batch_first, list, fill),
                        state: problem.state.clone(),
                    };
                    record(module, &problem, |x, s| {
                        module.forward_with(x, Some(s), with_lengths(&lengths))
                    })
                };
                let zeros = run(0.0);
                assert!(zeros.is_finite(), "{name}");
                run(1e9).assert_same(&zeros, name);
                run(f32::NAN).assert_same(&zeros, name);
                run(f32::INFINITY).assert_same(&zeros, name);

                // Outputs and input gradients are zero there.
                for (entry, features) in [("output", module.d_output()), ("grad.input", I)] {
                    let list_of = zeros.get(entry).to_vec();
                    let shape = if batch_first {
                        [B, T, features]
                    } else {
                        [T, B, features]
                    };
                    let tensor = Tensor::<3>::from_data(
                        TensorData::new(list_of.iter().map(|&v| v as f32).collect(), shape),
                        &device,
                    );
                    let kept = padded(&tensor, batch_first, list, 0.0);
                    assert_same(
                        &format!("{name}: {entry}"),
                        &values(&kept),
                        zeros.get(entry),
                    );
                }
            }
        });
    }
}

/// Rows `row` of all masks, their first `length` steps.
fn masks_of(masks: &StackMasks, row: usize, length: usize) -> StackMasks {
    let cut = |mask: Tensor<3>| {
        let [_, _, features] = mask.dims();
        mask.slice([0..length, row..row + 1, 0..features])
    };
    let one = |mask: &Option<Mask>| {
        mask.clone().map(|mask| match mask {
            Mask::PerSequence(mask) => {
                let [_, features] = mask.dims();
                Mask::PerSequence(mask.slice([row..row + 1, 0..features]))
            }
            Mask::PerStep(mask) => Mask::PerStep(cut(mask)),
        })
    };
    StackMasks {
        cells: masks
            .cells
            .iter()
            .map(|masks| Masks {
                hidden: one(&masks.hidden),
                cell: one(&masks.cell),
                candidate: one(&masks.candidate),
                update_hidden: one(&masks.update_hidden),
                update_cell: one(&masks.update_cell),
                ..Masks::none()
            })
            .collect(),
        between: masks
            .between
            .iter()
            .map(|mask| mask.clone().map(cut))
            .collect(),
        ..StackMasks::default()
    }
}

/// Each sequence on its own, without lengths, put together again.
fn one_by_one(
    module: &Recurrent,
    batch_first: bool,
    list: [usize; B],
    masks: Option<&StackMasks>,
    x: Tensor<3>,
    state: RecurrentState,
) -> Output {
    let [.., features] = x.dims();
    let (batch, time) = if batch_first { (0, 1) } else { (1, 0) };
    let mut outputs = vec![];
    let mut finals: Vec<RecurrentState> = vec![];
    for (row, &length) in list.iter().enumerate() {
        let range = |axis: usize| {
            if axis == batch {
                row..row + 1
            } else {
                0..length
            }
        };
        let alone = x.clone().slice([range(0), range(1), 0..features]);
        let initial = state.clone().map(|part| part.narrow(0, row, 1));
        let masks = masks.map(|masks| masks_of(masks, row, length));
        let options = ForwardOptions {
            masks: masks.as_ref(),
            ..ForwardOptions::default()
        };
        let (output, last) = module.forward_with(alone, Some(initial), options);
        let mut shape = output.dims();
        shape[time] = T - length;
        let output = match length {
            T => output,
            _ => Tensor::cat(vec![output, Tensor::zeros(shape, &x.device())], time),
        };
        outputs.push(output);
        finals.push(last);
    }
    let mut parts = 0..;
    let state = state.map(|_| {
        let part = parts.next().expect("it does not end");
        let of = |state: &RecurrentState| named_state(state)[part].1.clone();
        Tensor::cat(finals.iter().map(of).collect(), 0)
    });
    (Tensor::cat(outputs, batch), state)
}

#[test]
fn lengths_are_each_sequence_alone() {
    let device = flex();
    for_each(all_containers, &device, |name, config, module, problem| {
        let batch_first = config.batch_first;
        for list in LENGTHS {
            let lengths = lengths(list);
            let expected = record(module, problem, |x, s| {
                one_by_one(module, batch_first, list, None, x, s)
            });
            let got = record(module, problem, |x, s| {
                module.forward_with(x, Some(s), with_lengths(&lengths))
            });
            got.assert_close(&expected, &format!("{name}, {list:?}"));
        }
    });
}

/// The same with masks of every kind at once: each belongs to its sequence and to its time.
#[test]
fn lengths_and_masks_are_each_sequence_alone() {
    let device = flex();
    for_each(all_containers, &device, |name, config, module, problem| {
        let batch_first = config.batch_first;
        let masks = random_masks(module, T, B, 31, &device);
        for list in LENGTHS {
            let lengths = lengths(list);
            let expected = record(module, problem, |x, s| {
                one_by_one(module, batch_first, list, Some(&masks), x, s)
            });
            let options = ForwardOptions {
                lengths: Some(&lengths),
                masks: Some(&masks),
            };
            let got = record(module, problem, |x, s| {
                module.forward_with(x, Some(s), options)
            });
            got.assert_close(&expected, &format!("{name}, {list:?}"));
        }
    });
}

#[test]
fn full_lengths_are_none() {
    for device in devices() {
        for_each(all_containers, &device, |name, _, module, problem| {
            let lengths = lengths([T; B]);
            let got = record(module, problem, |x, s| {
                module.forward_with(x, Some(s), with_lengths(&lengths))
            });
            let expected = record(module, problem, |x, s| module.forward(x, Some(s)));
            got.assert_close(&expected, name);
        });
    }
}

//! What dropout does to a step: gradients through masks, and zoneout's expectation.

use burn::tensor::Tensor;
use recurrent_core::eval::compare::{close, values};
use recurrent_core::eval::device::device;
use recurrent_core::eval::oracle::{GruOracle, LstmOracle, OracleMasks, OracleNorm};
use recurrent_core::{Mask, Masks};
use recurrent_modules::cells::{LayerNormLstmCell, LstmCell};
use recurrent_modules::{
    LayerNormLstmConfig, LstmConfig, Norm, Recurrent, RecurrentConfig, RecurrentDropout, StackMasks,
};

use crate::support::*;

/// Gradients of one step with cotangents on the output and the final cell.
fn one_step(
    module: &Recurrent,
    problem: &Problem,
    masks: Masks,
    on_output: Option<&Tensor<2>>,
    on_cell: Option<&Tensor<2>>,
) -> Results {
    let input = leaf(&problem.input);
    let initial = problem.state.clone().map(|tensor| leaf(&tensor));
    let masks = StackMasks {
        cells: vec![masks],
        ..StackMasks::default()
    };
    let (output, state) =
        module.forward_with(input.clone(), Some(initial.clone()), with_masks(&masks));
    let mut loss = Tensor::<1>::zeros([1], &input.device());
    if let Some(weights) = on_output {
        loss = loss + (output.squeeze_dim::<2>(1) * weights.clone()).sum();
    }
    if let Some(weights) = on_cell {
        loss = loss + (state.last().part("cell") * weights.clone()).sum();
    }
    let gradients = loss.backward();
    let mut results = Results::default();
    let mut insert = |name: &str, gradient: Option<Vec<f64>>| {
        results.0.insert(name.into(), gradient.unwrap_or_default());
    };
    insert("input", input.grad(&gradients).map(|g| values(&g)));
    let initial = initial.last();
    for (part, tensor) in initial.iter() {
        insert(part, tensor.grad(&gradients).map(|g| values(&g)));
    }
    each_parameter(module, |path, param| {
        insert(path, param.gradient(&gradients))
    });
    results
}

/// With p = 0.5 the scale 2 is exact: a dropped unit's path has gradient 0 and a kept one's twice
/// its own, which is to say that the mask acts on the cotangent.
#[test]
fn gradients_flow_through_masks() {
    let device = flex();
    for (name, config) in lstm_variants() {
        let module = build(&config, 11, &device);
        let problem = Problem::sized(&module, true, B, 1, 12, &device);
        let weights = Numbers::new(6).tensor::<2>([B, H], &device);
        let mask = Numbers::new(7).mask::<2>([B, H], 0.5, 2.0, &device);
        let masked_weights = weights.clone() * mask.clone();

        let on_hidden = Masks {
            hidden: Some(Mask::PerSequence(mask.clone())),
            ..Masks::none()
        };
        let got = one_step(&module, &problem, on_hidden, Some(&weights), None);
        let expected = one_step(
            &module,
            &problem,
            Masks::none(),
            Some(&masked_weights),
            None,
        );
        got.assert_same(&expected, &format!("{name}, hidden"));
        let unmasked = one_step(&module, &problem, Masks::none(), Some(&weights), None);
        assert_differs(name, got.get("input"), unmasked.get("input"));

        let carries_normalized =
            matches!(&config, RecurrentConfig::LayerNormLstm(c) if c.carry_normalized);
        if carries_normalized {
            continue; // the carried cell mixes the units
        }
        let on_cell = Masks {
            cell: Some(Mask::PerStep(mask.clone().unsqueeze_dim(0))),
            ..Masks::none()
        };
        let got = one_step(&module, &problem, on_cell, None, Some(&weights));
        let expected = one_step(
            &module,
            &problem,
            Masks::none(),
            None,
            Some(&masked_weights),
        );
        got.assert_same(&expected, &format!("{name}, cell"));
        let unmasked = one_step(&module, &problem, Masks::none(), None, Some(&weights));
        for (k, mask) in values(&mask).into_iter().enumerate() {
            assert_eq!(
                got.get("cell")[k],
                mask * unmasked.get("cell")[k],
                "{name}, unit {k}"
            );
        }
    }
}

/// The candidate's mask acts on its own gate's gradient and on no other path to c'.
#[test]
fn gradients_flow_through_candidate_masks() {
    let device = flex();
    let module = build(&RecurrentConfig::Lstm(LstmConfig::new(I, H)), 11, &device);
    // One sequence, so that the gradient of a bias is that of one unit.
    let problem = Problem::sized(&module, true, 1, 1, 12, &device);
    let weights = Numbers::new(6).tensor::<2>([1, H], &device);
    let mask = Numbers::new(7).mask::<2>([1, H], 0.5, 2.0, &device);
    let masks = Masks {
        candidate: Some(Mask::PerSequence(mask.clone())),
        ..Masks::none()
    };
    let got = one_step(&module, &problem, masks, None, Some(&weights));
    let unmasked = one_step(&module, &problem, Masks::none(), None, Some(&weights));
    let bias = "layers.0.forward.gates.bias";
    let mask = values(&mask);
    assert!(mask.contains(&0.0) && mask.contains(&2.0));
    for (k, mask) in mask.into_iter().enumerate() {
        let at = |results: &Results, gate: usize| results.get(bias)[gate * H + k];
        // c' = f⊙c + i⊙m⊙g: the input gate and the candidate are behind the mask.
        assert_eq!(at(&got, 0), mask * at(&unmasked, 0), "input gate {k}");
        assert_eq!(at(&got, 1), at(&unmasked, 1), "forget gate {k}");
        assert_eq!(at(&got, 2), mask * at(&unmasked, 2), "candidate {k}");
        assert_ne!(at(&unmasked, 2), 0.0);
    }
    assert_same("cell", got.get("cell"), unmasked.get("cell"));
}

/// Zoneout's gradient: what is kept passes the old state's gradient unchanged.
#[test]
fn gradients_flow_through_zoneout() {
    let device = flex();
    for (name, config) in variants() {
        let module = build(&config, 11, &device);
        let problem = Problem::sized(&module, true, B, 1, 12, &device);
        let weights = Numbers::new(6).tensor::<2>([B, H], &device);
        let none = Tensor::<2>::zeros([B, H], &device);
        // Nothing is updated: the state's gradient is the cotangent, all others are zero.
        let has_cell_state = has_cell_state(&config);
        let masks = Masks {
            update_hidden: Some(Mask::PerSequence(none.clone())),
            update_cell: has_cell_state.then(|| Mask::PerSequence(none)),
            ..Masks::none()
        };
        let on_cell = has_cell_state.then_some(&weights);
        let got = one_step(&module, &problem, masks, Some(&weights), on_cell);
        for (entry, list) in &got.0 {
            if entry == "cell" || entry == "hidden" {
                assert_same(&format!("{name}: {entry}"), list, &values(&weights));
            } else {
                assert!(list.iter().all(|&g| g == 0.0), "{name}: {entry}");
            }
        }
    }
}

fn oracle_norm(norm: &Option<Norm>) -> Option<OracleNorm> {
    use recurrent_modules::{EpsilonPlace, Variance};
    norm.as_ref().map(|norm| OracleNorm {
        unbiased: norm.normalizer.variance == Variance::Unbiased,
        epsilon: norm.normalizer.epsilon,
        inside_root: norm.normalizer.place == EpsilonPlace::InsideRoot,
        gain: norm
            .gain
            .as_ref()
            .map_or(vec![], |gain| values(&gain.val())),
        shift: norm
            .shift
            .as_ref()
            .map_or(vec![], |shift| values(&shift.val())),
    })
}

fn oracle_of_lstm(cell: &LstmCell) -> LstmOracle {
    LstmOracle {
        d_input: cell.d_input,
        d_hidden: cell.d_hidden,
        weight_input: values(&cell.gates.weight_input.val()),
        weight_hidden: values(&cell.gates.weight_hidden.val()),
        bias: cell
            .gates
            .bias
            .as_ref()
            .map_or(vec![], |bias| values(&bias.val())),
        clip: cell.update.clip,
        projection: cell
            .update
            .projection
            .as_ref()
            .map_or(vec![], |p| values(&p.val())),
        ..LstmOracle::default()
    }
}

fn oracle_of_layer_norm(cell: &LayerNormLstmCell) -> LstmOracle {
    let vector = |bias: &Option<burn::module::Param<Tensor<1>>>| {
        bias.as_ref().map_or(vec![], |bias| values(&bias.val()))
    };
    LstmOracle {
        d_input: cell.d_input,
        d_hidden: cell.d_hidden,
        weight_input: values(&cell.gates.weight_input.val()),
        weight_hidden: values(&cell.gates.weight_hidden.val()),
        bias: vector(&cell.gates.bias),
        bias_input: vector(&cell.gates.bias_input),
        bias_hidden: vector(&cell.gates.bias_hidden),
        norm_input: oracle_norm(&cell.gates.norm_input),
        norm_hidden: oracle_norm(&cell.gates.norm_hidden),
        norm_cell: oracle_norm(&cell.update.norm_cell),
        carry_normalized: cell.update.carry_normalized,
        clip: cell.update.clip,
        projection: cell
            .update
            .projection
            .as_ref()
            .map_or(vec![], |p| values(&p.val())),
    }
}

/// In evaluation zoneout is the expectation: c' = (1 − p)·c̃ + p·c, against a scalar loop in f64.
#[test]
fn zoneout_in_evaluation_is_its_expectation() {
    let device = device();
    let (hidden, cell) = (0.3, 0.6);
    for (name, config) in lstm_variants() {
        for (proj, clip) in [(None, None), (Some(P), Some(0.4))] {
            let config = config
                .clone()
                .with_recurrent_dropout(RecurrentDropout::Zoneout { hidden, cell })
                .with_d_proj(proj)
                .with_clip(clip);
            let module = build(&config, 11, &device);
            let oracle = match &module {
                Recurrent::Lstm(stack) => oracle_of_lstm(&stack.layers[0].forward),
                Recurrent::LayerNormLstm(stack) => oracle_of_layer_norm(&stack.layers[0].forward),
                // The twin with the same weights is the Lstm: `slow_lstm_is_the_lstm`.
                Recurrent::SlowLstm(_) => continue,
                // Other transitions than the oracle's.
                _ => panic!("no variant of this list"),
            };
            let problem = Problem::new(&module, true, 12, &device);
            let (output, state) =
                module.forward(problem.input.clone(), Some(problem.state.clone()));
            let d_output = module.d_output();
            let masks = OracleMasks {
                update_hidden: vec![1.0 - hidden; d_output],
                update_cell: vec![1.0 - cell; H],
                ..OracleMasks::default()
            };
            let (output, last) = (values(&output), values(&state.last().part("cell")));
            let inputs = values(&problem.input);
            let h0 = values(&problem.state.last().part("hidden"));
            let c0 = values(&problem.state.last().part("cell"));
            for row in 0..B {
                let xs: Vec<Vec<f64>> = (0..T)
                    .map(|t| inputs[(row * T + t) * I..][..I].to_vec())
                    .collect();
                let trace = oracle.run(
                    &xs,
                    &h0[row * d_output..][..d_output],
                    &c0[row * H..][..H],
                    &vec![masks.clone(); T],
                );
                let expected: Vec<f64> =
                    trace.iter().flat_map(|step| step.hidden.clone()).collect();
                let got = &output[row * T * d_output..][..T * d_output];
                close(name, got, &expected, value_tolerance()).unwrap();
                let cells = &trace[T - 1].cell;
                close(name, &last[row * H..][..H], cells, value_tolerance()).unwrap();
            }
            // `step` too, and a plain module is another function.
            let plain = build(
                &config.with_recurrent_dropout(RecurrentDropout::None),
                11,
                &device,
            );
            let (other, _) = plain.forward(problem.input.clone(), Some(problem.state.clone()));
            assert_differs(name, &values(&other), &output);
            let x = problem
                .input
                .clone()
                .slice([0..B, 0..1, 0..I])
                .squeeze_dim::<2>(1);
            let (y, _) = module.step(x, Some(problem.state.clone()));
            let first: Vec<f64> = (0..B)
                .flat_map(|row| output[row * T * d_output..][..d_output].to_vec())
                .collect();
            close(name, &values(&y), &first, value_tolerance()).unwrap();
        }
    }
}

/// The same of a GRU: h' = (1 − p)·h̃ + p·h.
#[test]
fn zoneout_of_a_gru_in_evaluation_is_its_expectation() {
    let device = device();
    let share = 0.3;
    for (name, config) in gru_variants() {
        let kind = zoneout(&config, share, share);
        let config = config.with_recurrent_dropout(kind);
        let module = build(&config, 11, &device);
        let Recurrent::Gru(stack) = &module else {
            panic!("a GRU")
        };
        let cell = &stack.layers[0].forward;
        let vector = |bias: &Option<burn::module::Param<Tensor<1>>>| {
            bias.as_ref().map_or(vec![], |bias| values(&bias.val()))
        };
        let oracle = GruOracle {
            d_input: I,
            d_hidden: H,
            reset_after: cell.reset_after,
            weight_input: values(&cell.weight_input.val()),
            weight_hidden: values(&cell.weight_hidden.val()),
            bias: vector(&cell.bias),
            bias_candidate_hidden: vector(&cell.bias_candidate_hidden),
        };
        let problem = Problem::new(&module, true, 12, &device);
        let (output, _) = module.forward(problem.input.clone(), Some(problem.state.clone()));
        let masks = OracleMasks {
            update_hidden: vec![1.0 - share; H],
            ..OracleMasks::default()
        };
        let inputs = values(&problem.input);
        let h0 = values(&problem.state.last().part("hidden"));
        let output = values(&output);
        for row in 0..B {
            let of_row = &inputs[row * T * I..][..T * I];
            let xs: Vec<Vec<f64>> = of_row.chunks(I).map(<[f64]>::to_vec).collect();
            let trace = oracle.run(&xs, &h0[row * H..][..H], &vec![masks.clone(); T]);
            let expected: Vec<f64> = trace.iter().flat_map(|step| step.hidden.clone()).collect();
            let got = &output[row * T * H..][..T * H];
            close(name, got, &expected, value_tolerance()).unwrap();
        }
        let plain = config.with_recurrent_dropout(RecurrentDropout::None);
        let plain = build(&plain, 11, &device);
        let (other, _) = plain.forward(problem.input.clone(), Some(problem.state.clone()));
        assert_differs(name, &values(&other), &output);
        let x = problem.input.clone().narrow(1, 0, 1).squeeze_dim::<2>(1);
        let (y, _) = module.step(x, Some(problem.state.clone()));
        let first: Vec<f64> = output
            .chunks(T * H)
            .flat_map(|row| row[..H].to_vec())
            .collect();
        close(name, &values(&y), &first, value_tolerance()).unwrap();
    }
}

/// One of the two rates at a time.
#[test]
fn zoneout_rates_are_apart() {
    let device = device();
    let config = |hidden, cell| {
        RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::zoneout(I, H, hidden, cell))
    };
    let run = |hidden: f64, cell: f64| {
        let module = build(&config(hidden, cell), 11, &device);
        let problem = Problem::sized(&module, true, B, 1, 12, &device);
        record(&module, &problem, |x, s| module.forward(x, Some(s)))
    };
    let none = run(0.0, 0.0);
    let hidden = run(0.5, 0.0);
    let cell = run(0.0, 0.5);
    assert_same("cell", hidden.get("state.0.cell"), none.get("state.0.cell"));
    assert_differs(
        "hidden",
        hidden.get("state.0.hidden"),
        none.get("state.0.hidden"),
    );
    assert_same(
        "hidden",
        cell.get("state.0.hidden"),
        none.get("state.0.hidden"),
    );
    assert_differs("cell", cell.get("state.0.cell"), none.get("state.0.cell"));
}

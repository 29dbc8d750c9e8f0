//! Relations between variants, and what a layer normalisation does not see.

use burn::module::Param;
use burn::tensor::Tensor;
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_core::eval::device::device;
use recurrent_core::{Gate, GateLayout};
use recurrent_modules::cells::{LayerNormLstmCell, LstmCell, SlowLstmCell};
use recurrent_modules::{
    Layer, LayerNormLstmConfig, Lstm, LstmConfig, Norm, NormConfig, Recurrent, RecurrentConfig,
    SlowLstm, SlowLstmConfig,
};

use crate::support::*;

const GATES: [(Gate, &str); 4] = [
    (Gate::Input, "input_gate"),
    (Gate::Forget, "forget_gate"),
    (Gate::Candidate, "cell_gate"),
    (Gate::Output, "output_gate"),
];

fn block<const D: usize>(packed: &Param<Tensor<D>>, gate: Gate) -> Param<Tensor<D>> {
    let slot = GateLayout::LSTM.slot(gate).expect("a gate of the LSTM");
    let block = packed.val().chunk(4, D - 1).swap_remove(slot);
    Param::from_tensor(leaf(&block))
}

fn copy_cell(from: &LstmCell, to: &mut SlowLstmCell) {
    for (gate, _) in GATES {
        let maps = match gate {
            Gate::Input => &mut to.input_gate,
            Gate::Forget => &mut to.forget_gate,
            Gate::Candidate => &mut to.cell_gate,
            _ => &mut to.output_gate,
        };
        maps.input_transform.weight = block(&from.gates.weight_input, gate);
        maps.hidden_transform.weight = block(&from.gates.weight_hidden, gate);
        maps.input_transform.bias = from.gates.bias.as_ref().map(|bias| block(bias, gate));
    }
    to.update.projection = from
        .update
        .projection
        .as_ref()
        .map(|projection| Param::from_tensor(leaf(&projection.val())));
}

fn copy(from: &Lstm, to: &mut SlowLstm) {
    for (from, to) in from.layers.iter().zip(&mut to.layers) {
        copy_cell(&from.forward, &mut to.forward);
        if let (Some(from), Some(to)) = (&from.backward, &mut to.backward) {
            copy_cell(from, to);
        }
    }
}

/// The four gates' gradients side by side, under the name that the packed weight has.
fn packed(slow: &Results, fast: &Results, rows: impl Fn(&str) -> usize) -> Results {
    let mut packed = slow.only(|name| !name.contains("_gate."));
    for name in fast.0.keys() {
        let parts = [
            ("gates.weight_input", "input_transform.weight"),
            ("gates.weight_hidden", "hidden_transform.weight"),
            ("gates.bias", "input_transform.bias"),
        ];
        for (field, per_gate) in parts {
            let Some(prefix) = name.strip_suffix(&format!(".{field}")) else {
                continue;
            };
            let blocks: Vec<&[f64]> = GATES
                .iter()
                .map(|(_, gate)| slow.get(&format!("{prefix}.{gate}.{per_gate}")))
                .collect();
            let rows = rows(name);
            let width = blocks[0].len() / rows;
            let list = (0..rows)
                .flat_map(|row| blocks.iter().map(move |block| (row, block)))
                .flat_map(|(row, block)| block[row * width..(row + 1) * width].to_vec())
                .collect();
            packed.0.insert(name.clone(), list);
        }
    }
    packed
}

#[test]
fn slow_lstm_is_the_lstm() {
    for device in devices() {
        let lstm = RecurrentConfig::Lstm(LstmConfig::new(I, H));
        let slow = RecurrentConfig::SlowLstm(SlowLstmConfig::new(I, H));
        let pairs = all_containers(&lstm).into_iter().zip(all_containers(&slow));
        for ((name, fast_config), (_, slow_config)) in pairs {
            let fast = build(&fast_config, 11, &device);
            let mut slow = build(&slow_config, 99, &device);
            let (Recurrent::Lstm(from), Recurrent::SlowLstm(to)) = (&fast, &mut slow) else {
                panic!("configs of other variants")
            };
            copy(from, to);
            let problem = Problem::new(&fast, fast_config.batch_first, 12, &device);
            let expected = record(&fast, &problem, |x, s| fast.forward(x, Some(s)));
            let got = record(&slow, &problem, |x, s| slow.forward(x, Some(s)));
            let mut heights = std::collections::BTreeMap::new();
            each_parameter(&fast, |path, param| {
                let shape = param.shape();
                let rows = if shape.num_dims() == 2 { shape[0] } else { 1 };
                heights.insert(format!("grad.{path}"), rows);
            });
            packed(&got, &expected, |name| heights[name]).assert_close(&expected, name);
        }
    }
}

/// Burn's own LSTM with the same weights gives the same values.
#[test]
fn lstm_is_that_of_burn_nn() {
    let device = device();
    let lstm = filled(LstmConfig::new(I, H).init(&device), 11);
    let mut theirs = burn::nn::LstmConfig::new(I, H, true).init(&device);
    let cell = &lstm.layers[0].forward;
    for (gate, _) in GATES {
        let maps = match gate {
            Gate::Input => &mut theirs.input_gate,
            Gate::Forget => theirs.forget_gate.as_mut().expect("not coupled"),
            Gate::Candidate => &mut theirs.cell_gate,
            _ => &mut theirs.output_gate,
        };
        maps.input_transform.weight = block(&cell.gates.weight_input, gate);
        maps.hidden_transform.weight = block(&cell.gates.weight_hidden, gate);
        maps.input_transform.bias = cell.gates.bias.as_ref().map(|bias| block(bias, gate));
        maps.hidden_transform.bias = None;
    }
    let module = Recurrent::Lstm(lstm);
    let problem = Problem::new(&module, true, 12, &device);
    let (output, state) = module.forward(problem.input.clone(), Some(problem.state.clone()));
    let (their_output, their_state) = theirs.forward(
        problem.input.clone(),
        Some(problem.state.clone().into_lstm().last().clone()),
    );
    for (name, got, expected) in [
        ("output", values(&output), values(&their_output)),
        (
            "cell",
            values(&state.last().part("cell")),
            values(&their_state.cell),
        ),
        (
            "hidden",
            values(&state.last().part("hidden")),
            values(&their_state.hidden),
        ),
    ] {
        close(name, &got, &expected, value_tolerance()).unwrap();
    }
}

/// A layer-normalised LSTM without its normalisations is the LSTM, to the bit.
#[test]
fn layer_norm_without_norms_is_the_lstm() {
    for device in devices() {
        let lstm = RecurrentConfig::Lstm(LstmConfig::new(I, H));
        let bare = RecurrentConfig::LayerNormLstm(
            LayerNormLstmConfig::new(I, H)
                .with_norm_input(None)
                .with_norm_hidden(None)
                .with_norm_cell(None),
        );
        for ((name, lstm), (_, bare)) in all_containers(&lstm).iter().zip(all_containers(&bare)) {
            // The same parameters in the same order, so the same filling.
            let (lstm, bare, first) = (
                build(lstm, 11, &device),
                build(&bare, 11, &device),
                lstm.batch_first,
            );
            let problem = Problem::new(&lstm, first, 12, &device);
            let expected = record(&lstm, &problem, |x, s| lstm.forward(x, Some(s)));
            let got = record(&bare, &problem, |x, s| bare.forward(x, Some(s)));
            got.assert_close(&expected, name);
        }
    }
}

fn layer_norm_cell(module: &mut Recurrent) -> &mut LayerNormLstmCell {
    match module {
        Recurrent::LayerNormLstm(stack) => &mut stack.layers[0].forward,
        other => panic!("not layer-normalised: {other:?}"),
    }
}

/// `weight` with the same random column added to its first `columns` columns.
fn shifted(weight: &Param<Tensor<2>>, columns: usize) -> Param<Tensor<2>> {
    let [rows, width] = weight.dims();
    let device = weight.device();
    let column = Numbers::new(77).tensor([rows, 1], &device);
    let moved = weight.val().slice([0..rows, 0..columns]) + column;
    let rest = weight.val().slice([0..rows, columns..width]);
    let weight = if columns == width {
        moved
    } else {
        Tensor::cat(vec![moved, rest], 1)
    };
    Param::from_tensor(leaf(&weight))
}

/// LN_x sees x·W up to a constant per row, so the same vector added to all 4H columns of W is not
/// seen; nor for R, nor a constant added to all biases inside a normalisation.
#[test]
fn layer_norm_ignores_a_common_shift() {
    let device = device();
    for config in [
        LayerNormLstmConfig::new(I, H),
        LayerNormLstmConfig::lstms_pth(I, H),
    ] {
        let inside = config.carry_normalized;
        let module = build(&RecurrentConfig::LayerNormLstm(config), 11, &device);
        let problem = Problem::new(&module, true, 12, &device);
        let run = |module: &Recurrent| record(module, &problem, |x, s| module.forward(x, Some(s)));
        let expected = run(&module);

        type Change = Box<dyn Fn(&mut LayerNormLstmCell, usize)>;
        let mut changes: Vec<(&str, Change)> = vec![
            (
                "input weights",
                Box::new(|cell, columns| {
                    cell.gates.weight_input = shifted(&cell.gates.weight_input, columns)
                }),
            ),
            (
                "hidden weights",
                Box::new(|cell, columns| {
                    cell.gates.weight_hidden = shifted(&cell.gates.weight_hidden, columns)
                }),
            ),
        ];
        if inside {
            changes.push((
                "input bias",
                Box::new(|cell, columns| {
                    cell.gates.bias_input = shifted_bias(&cell.gates.bias_input, columns)
                }),
            ));
            changes.push((
                "hidden bias",
                Box::new(|cell, columns| {
                    cell.gates.bias_hidden = shifted_bias(&cell.gates.bias_hidden, columns)
                }),
            ));
        }
        for (name, change) in changes {
            let mut moved = module.clone();
            change(layer_norm_cell(&mut moved), 4 * H);
            run(&moved).assert_close(&expected, name);
            // One gate's block alone is seen.
            let mut moved = module.clone();
            change(layer_norm_cell(&mut moved), H);
            assert_differs(name, run(&moved).get("output"), expected.get("output"));
        }
    }
}

fn shifted_bias(bias: &Option<Param<Tensor<1>>>, columns: usize) -> Option<Param<Tensor<1>>> {
    bias.as_ref().map(|bias| {
        let row = Param::from_tensor(bias.val().unsqueeze::<2>());
        Param::from_tensor(leaf(&shifted(&row, columns).val().squeeze_dim::<1>(0)))
    })
}

/// Every form: a constant added to a row changes nothing, neither does a factor (but for ε).
#[test]
fn norms_ignore_shift_and_scale() {
    let device = device();
    let forms = [
        NormConfig::new(),
        NormConfig::lstms_pth(),
        NormConfig::bradbury(),
        NormConfig::ba(),
    ];
    for form in forms {
        let norm: Norm = filled(form.init(H, &device), 3);
        let x = Numbers::new(4).tensor::<2>([B, H], &device);
        let expected = values(&norm.forward(x.clone()));
        let constant = Numbers::new(5).tensor::<2>([B, 1], &device);
        let got = values(&norm.forward(x.clone() + constant));
        close("shift", &got, &expected, value_tolerance()).unwrap();
        // ε = 1e-5 against a variance of 1/3.
        let got = values(&norm.forward(x.clone() * 3.0));
        close("scale", &got, &expected, Tolerance(1e-4)).unwrap();
        let bent = x.clone() + Numbers::new(5).tensor::<2>([1, H], &device);
        assert_differs("another row", &values(&norm.forward(bent)), &expected);
    }
}

/// LN_c sees the cell up to a constant: with it, a shift of c' by 1 does not change h'.
#[test]
fn cell_norm_ignores_a_shift_of_the_cell() {
    let device = device();
    let config = RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::new(I, H));
    let mut module = build(&config, 11, &device);
    // A saturated forget gate keeps c, so that a shift of c is one of c'.
    let bias = layer_norm_cell(&mut module)
        .gates
        .bias
        .as_mut()
        .expect("a bias");
    let list = values(&bias.val());
    let list: Vec<f32> = (0..4 * H)
        .map(|k| if k / H == 1 { 60.0 } else { list[k] as f32 })
        .collect();
    *bias = Param::from_tensor(Tensor::from_floats(list.as_slice(), &device));
    let problem = Problem::sized(&module, true, B, 1, 12, &device);
    let (expected, _) = module.forward(problem.input.clone(), Some(problem.state.clone()));
    let mut moved = problem.state.clone();
    let cell = moved.cells[0].get_mut("cell").expect("an LSTM");
    *cell = cell.clone() + 1.0;
    let (got, _) = module.forward(problem.input.clone(), Some(moved));
    close(
        "output",
        &values(&got),
        &values(&expected),
        value_tolerance(),
    )
    .unwrap();
    // Without LN_c it does.
    layer_norm_cell(&mut module).update.norm_cell = None;
    let (bare, _) = module.forward(problem.input.clone(), Some(problem.state.clone()));
    let mut moved = problem.state.clone();
    let cell = moved.cells[0].get_mut("cell").expect("an LSTM");
    *cell = cell.clone() + 1.0;
    let (got, _) = module.forward(problem.input, Some(moved));
    assert_differs("output", &values(&got), &values(&bare));
}

/// Clip bounds the cell, and a bound that is never reached changes nothing.
#[test]
fn clip_bounds_the_cell() {
    let device = device();
    let lstms = variants().into_iter();
    for (name, config) in lstms.filter(|(_, config)| has_cell_state(config)) {
        let run = |clip: Option<f64>| {
            let module = build(&config.clone().with_clip(clip), 11, &device);
            let problem = Problem::new(&module, true, 12, &device);
            record(&module, &problem, |x, s| module.forward(x, Some(s)))
        };
        run(Some(1e6)).assert_same(&run(None), name);
        let clipped = run(Some(0.05));
        assert_differs(name, clipped.get("output"), run(None).get("output"));
        let carried_raw =
            !matches!(&config, RecurrentConfig::LayerNormLstm(c) if c.carry_normalized);
        if carried_raw {
            let bound = f64::from(0.05f32);
            let cell = clipped.get("state.0.cell");
            assert!(cell.iter().all(|c| c.abs() <= bound), "{name}: {cell:?}");
            assert!(
                cell.iter().any(|c| c.abs() == bound),
                "{name}: never clipped"
            );
        }
    }
}

/// The layer's list of cells is in state order.
#[test]
fn cells_are_in_state_order() {
    let device = device();
    let lstm = LstmConfig::new(I, H).with_bidirectional(true).init(&device);
    let layer: &Layer<LstmCell> = &lstm.layers[0];
    let ids: Vec<_> = layer
        .cells()
        .map(|cell| cell.gates.weight_input.id)
        .collect();
    let backward = layer.backward.as_ref().expect("a backward cell");
    assert_eq!(
        ids,
        [
            layer.forward.gates.weight_input.id,
            backward.gates.weight_input.id
        ]
    );
}

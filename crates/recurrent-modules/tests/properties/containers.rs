//! Directions and layers are compositions of single cells.

use burn::tensor::Tensor;
use recurrent_modules::cells::Cell;
use recurrent_modules::{
    Layer, Recurrent, RecurrentConfig, RecurrentDropout, RecurrentState, Stack, StackState,
    Strategy, by_variant,
};

use crate::support::*;

/// A stack of one layer and one direction around the cell; parameters are shared.
fn around<C: Cell>(cell: &C, like: &Stack<C>, reverse: bool) -> Stack<C> {
    Stack {
        layers: vec![Layer {
            forward: cell.clone(),
            backward: None,
        }],
        training: like.training.clone(),
        reverse,
        batch_first: like.batch_first,
        dropout: 0.0,
        recurrent_dropout: RecurrentDropout::None,
        weight_drop: 0.0,
        residual: false,
        strategy: like.strategy,
        precision: like.precision,
    }
}

/// Layer by layer and direction by direction, states taken in PyTorch's order.
fn by_hand<C: Cell>(stack: &Stack<C>, input: Tensor<3>, state: RecurrentState) -> Output {
    let state = stack.typed_state(state);
    let directions = stack.directions();
    let mut finals = vec![];
    let mut x = input;
    for (index, layer) in stack.layers.iter().enumerate() {
        let initial = |direction: usize| {
            let state = state.cells[index * directions + direction].clone();
            Some(StackState::from(state))
        };
        let forward = around(&layer.forward, stack, stack.reverse);
        let (mut output, last) = forward.forward(x.clone(), initial(0));
        finals.push(last.last().clone());
        if let Some(backward) = &layer.backward {
            let backward = around(backward, stack, true);
            let (reversed, last) = backward.forward(x, initial(1));
            finals.push(last.last().clone());
            output = Tensor::cat(vec![output, reversed], 2);
        }
        x = output;
    }
    (x, stack.named_state(StackState { cells: finals }))
}

#[test]
fn stack_is_a_composition_of_cells() {
    for device in devices() {
        for_each(all_containers, &device, |name, _, module, problem| {
            let got = record(module, problem, |x, s| module.forward(x, Some(s)));
            let expected = record(
                module,
                problem,
                |x, s| by_variant!(Recurrent: module, |stack| by_hand(stack, x, s)),
            );
            got.assert_same(&expected, name);
        });
    }
}

/// Output sizes, and the sizes of each layer's state.
#[test]
fn sizes_follow_the_config() {
    let device = flex();
    let (_, config) = variants().remove(0);
    let config = config
        .with_num_layers(2)
        .with_layer_sizes(Some(vec![9, H]))
        .with_d_proj(Some(P))
        .with_bidirectional(true);
    let module = build(&config, 11, &device);
    assert_eq!((module.d_input(), module.d_output()), (I, 2 * P));
    let problem = Problem::new(&module, true, 12, &device);
    let (output, state) = module.forward(problem.input, None);
    assert_eq!(output.dims(), [B, T, 2 * P]);
    let sizes: Vec<_> = state
        .cells
        .iter()
        .map(|state| (state.part("cell").dims(), state.part("hidden").dims()))
        .collect();
    let of = |d_hidden: usize| ([B, d_hidden], [B, P]);
    assert_eq!(sizes, [of(9), of(9), of(H), of(H)]);
}

/// A GRU's state is its hidden state alone.
#[test]
fn a_gru_carries_its_hidden_state() {
    let device = flex();
    for (name, config) in gru_variants() {
        let config = config
            .with_num_layers(2)
            .with_layer_sizes(Some(vec![9, H]))
            .with_bidirectional(true);
        let module = build(&config, 11, &device);
        let problem = Problem::new(&module, true, 12, &device);
        let (output, state) = module.forward(problem.input, None);
        assert_eq!(output.dims(), [B, T, 2 * H], "{name}");
        let parts = state.cells.iter().map(|state| {
            let parts = state.iter().map(|(part, tensor)| (part, tensor.dims()));
            parts.collect::<Vec<_>>()
        });
        let of = |d_hidden: usize| vec![("hidden", [B, d_hidden])];
        assert_eq!(
            parts.collect::<Vec<_>>(),
            [of(9), of(9), of(H), of(H)],
            "{name}"
        );
    }
}

/// The final state of the forward direction is its last output, that of the backward direction its
/// first.
#[test]
fn final_hidden_states_are_outputs() {
    let device = flex();
    let two_ways =
        |config: &RecurrentConfig| vec![("bidirectional", config.clone().with_bidirectional(true))];
    for_each(two_ways, &device, |name, _, module, problem| {
        let (output, state) = module.forward(problem.input.clone(), Some(problem.state.clone()));
        let at = |t: usize, from: usize| {
            let part = output.clone().slice([0..B, t..t + 1, from..from + H]);
            recurrent_core::eval::compare::values(&part)
        };
        let hidden =
            |k: usize| recurrent_core::eval::compare::values(&state.cells[k].part("hidden"));
        assert_same(name, &hidden(0), &at(T - 1, 0));
        assert_same(name, &hidden(1), &at(0, H));
        assert_differs(name, &hidden(1), &at(T - 1, H));
    });
}

/// No state is the zero state, and a time-major stack is the batch-major one transposed.
#[test]
fn defaults_are_zero_and_transposed() {
    for device in devices() {
        for (name, config) in variants() {
            let module = build(&config, 11, &device);
            let turned = build(&config.with_batch_first(false), 11, &device);
            let mut problem = Problem::new(&module, true, 12, &device);
            problem.state = module.initial_state(B, &device);
            let inner = |results: Results| results.only(|entry| !entry.starts_with("grad.state"));
            let expected = inner(record(&module, &problem, |x, s| module.forward(x, Some(s))));
            let none = inner(record(&module, &problem, |x, _| module.forward(x, None)));
            none.assert_same(&expected, name);
            let got = inner(record(&turned, &problem, |x, _| {
                let (output, state) = turned.forward(x.swap_dims(0, 1), None);
                (output.swap_dims(0, 1), state)
            }));
            got.assert_same(&expected, name);
        }
    }
}

/// A reversed stack is the stack between two flips; that each layer flips on its own comes to the
/// same.
#[test]
fn reverse_is_flip_forward_flip() {
    for device in devices() {
        for (variant, config) in variants() {
            for (container, config) in containers(&config) {
                let forward = build(&config, 11, &device);
                let reversed = build(&config.clone().with_reverse(true), 11, &device);
                let axis = usize::from(config.batch_first);
                let problem = Problem::new(&forward, config.batch_first, 12, &device);
                let expected = record(&forward, &problem, |x, s| {
                    let (output, state) = forward.forward(x.flip([axis as isize]), Some(s));
                    (output.flip([axis as isize]), state)
                });
                let got = record(&reversed, &problem, |x, s| reversed.forward(x, Some(s)));
                got.assert_same(&expected, &format!("{variant}, {container}"));
                let straight = record(&forward, &problem, |x, s| forward.forward(x, Some(s)));
                assert_differs(container, straight.get("output"), got.get("output"));
            }
        }
    }
}

/// A bare cell's `step` is the stack's.
#[test]
fn bare_cells_step_as_the_stack() {
    let device = flex();
    for (variant, config) in variants() {
        let clip = has_cell_state(&config).then_some(0.3);
        let config = projected(config).with_clip(clip);
        // A bare cell steps by tensor operations.
        let module = build(&config, 11, &device).with_strategy(Strategy::Composed);
        let problem = Problem::sized(&module, true, B, 1, 12, &device);
        let expected = record(&module, &problem, |x, s| module.forward(x, Some(s)));
        macro_rules! bare {
            ($($Variant:ident),*) => {
                match (&config, &module) {
                    $((RecurrentConfig::$Variant(config), Recurrent::$Variant(stack)) => {
                        let cell = filled(config.init_cell(&device), 11);
                        let results = record(&cell, &problem, |x, s| {
                            let state = stack.typed_state(s).cells.into_iter().next();
                            let (output, state) = cell.step(x.squeeze_dim::<2>(1), state);
                            let state = stack.named_state(StackState::from(state));
                            (output.unsqueeze_dim::<3>(1), state)
                        });
                        let (zeros, _) = cell.step(problem.input.clone().squeeze_dim::<2>(1), None);
                        (results, zeros)
                    })*
                    _ => panic!("{variant} is not in the list"),
                }
            };
        }
        // The cell of an aLSTM takes a policy: tests/adaptive.rs.
        let (got, zeros) = bare!(
            Lstm,
            SlowLstm,
            LayerNormLstm,
            CifgLstm,
            PeepholeLstm,
            UrLstm,
            MogrifierLstm,
            Gru
        );
        let renamed = Results(
            got.0
                .into_iter()
                .map(|(name, values)| {
                    let parameter = name
                        .strip_prefix("grad.")
                        .filter(|name| *name != "input" && !name.starts_with("state."));
                    let name = match parameter {
                        Some(parameter) => format!("grad.layers.0.forward.{parameter}"),
                        None => name,
                    };
                    (name, values)
                })
                .collect(),
        );
        renamed.assert_same(&expected, variant);
        let (from_none, _) = module.forward(problem.input.clone(), None);
        let of = |tensor: Vec<f64>| tensor;
        assert_same(
            variant,
            &of(recurrent_core::eval::compare::values(&zeros)),
            &of(recurrent_core::eval::compare::values(&from_none)),
        );
    }
}

/// A module is unchanged by a forward and a backward: two of each agree, also interleaved.
#[test]
fn two_forwards_and_two_backwards_agree() {
    for device in devices() {
        for_each(all_containers, &device, |name, _, module, problem| {
            let run =
                |module: &Recurrent| record(module, problem, |x, s| module.forward(x, Some(s)));
            let first = run(module);
            // A second forward before the first's backward.
            let interleaved = record(module, problem, |x, s| {
                let output = module.forward(x, Some(s));
                let again = module.forward(problem.input.clone(), Some(problem.state.clone()));
                let _ = again.0.sum().backward();
                output
            });
            interleaved.assert_same(&first, name);
            run(module).assert_same(&first, name);
        });
    }
}

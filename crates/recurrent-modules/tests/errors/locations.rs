//! A panic names the line of the caller, not one of the library.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};
use recurrent_core::cell::drop_weights;
use recurrent_core::eval::device::device;
use recurrent_core::{Packing, SequenceOptions, sequence};
use recurrent_modules::cells::Cell;
use recurrent_modules::{
    AdaptiveLstmConfig, ForwardOptions, GruConfig, Lengths, LstmConfig, LstmState, Mask, Masks,
    NormConfig, PackedSequence, Recurrent, RecurrentConfig, RecurrentState, Stack, StackMasks,
    StackState, State, Strategy, by_variant,
};

use crate::*;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of this binary's tests are kept per thread.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let place = info.location().map(|at| at.file().to_string());
            LAST.with(|last| *last.borrow_mut() = place);
            before(info);
        }));
    });
}

/// Panics unless `call` does so at a line of this file, with that text.
#[track_caller]
fn points_here<R>(name: &str, says: &str, call: impl FnOnce() -> R) {
    listen();
    LAST.with(|last| *last.borrow_mut() = None);
    let Err(payload) = catch_unwind(AssertUnwindSafe(call)) else {
        panic!("{name}: expected a panic")
    };
    let text = match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().expect("a text").to_string(),
    };
    assert!(
        text.contains(says),
        "{name}: `{text}` does not say `{says}`"
    );
    let at = LAST.with(|last| last.borrow().clone());
    assert_eq!(at.as_deref(), Some(file!()), "{name}: `{text}`");
}

fn ones(shape: [usize; 3]) -> Tensor<3> {
    Tensor::ones(shape, &device())
}

fn row(features: usize) -> Tensor<2> {
    Tensor::ones([B, features], &device())
}

fn with_lengths(lengths: &Lengths) -> ForwardOptions<'_> {
    ForwardOptions {
        lengths: Some(lengths),
        ..ForwardOptions::default()
    }
}

fn with_masks(masks: &StackMasks) -> ForwardOptions<'_> {
    ForwardOptions {
        masks: Some(masks),
        ..ForwardOptions::default()
    }
}

/// A module's calls, the same for a stack and for the enum. `$step_with` is for the stack alone.
macro_rules! check_calls {
    ($name:expr, $module:expr, $both:expr) => {{
        let (name, module, both) = ($name, $module, $both);
        let device = device();
        let good = || ones([B, T, I]);
        let inconsistent = "input has inconsistent d_input";
        let all = ForwardOptions::default;
        points_here(name, inconsistent, || module.forward(ones([B, T, 1]), None));
        points_here(name, inconsistent, || {
            module.forward_with(ones([B, T, 1]), None, all())
        });
        points_here(name, inconsistent, || {
            module.forward_histories(ones([B, T, 1]), None, all())
        });
        points_here(name, inconsistent, || {
            let packed = PackedSequence::pack(ones([B, T, 1]), [T, 1, 2], true, false).unwrap();
            module.forward_packed(&packed, None)
        });

        // Another number of states, another batch, another type of numbers.
        let packed = PackedSequence::pack(good(), [T, 1, 2], true, false).unwrap();
        let mut fewer = module.initial_state(B, &device);
        fewer.cells.pop();
        let smaller = module.initial_state(B - 1, &device);
        let doubles = module
            .initial_state(B, &device)
            .map(|part| part.cast(DType::F64));
        for (says, state) in [
            ("expected layers × directions", fewer),
            ("expected [batch_size, features] = [3,", smaller),
            ("has type F64, expected F32", doubles),
        ] {
            let state = || Some(state.clone());
            points_here(name, says, || module.forward(good(), state()));
            points_here(name, says, || module.forward_with(good(), state(), all()));
            points_here(name, says, || {
                module.forward_histories(good(), state(), all())
            });
            points_here(name, says, || module.forward_packed(&packed, state()));
            if !both {
                points_here(name, says, || module.step(row(I), state()));
            }
        }
        let wide = || good().cast(DType::F64);
        let says = "input has type F64, expected F32";
        points_here(name, says, || module.forward(wide(), None));
        points_here(name, says, || module.forward_with(wide(), None, all()));
        points_here(name, says, || module.forward_histories(wide(), None, all()));
        points_here(name, says, || {
            let packed = PackedSequence::pack(wide(), [T, 1, 2], true, false).unwrap();
            module.forward_packed(&packed, None)
        });

        for (says, list, longest) in [
            ("got 2 lengths, expected one per sequence", vec![T, 1], T),
            ("longest length is 9, expected at most", vec![T, 9, 1], 9),
        ] {
            let list = Lengths::new(list, longest).unwrap();
            let options = || with_lengths(&list);
            points_here(name, says, || module.forward_with(good(), None, options()));
            points_here(name, says, || {
                module.forward_histories(good(), None, options())
            });
        }

        let count = StackMasks {
            cells: vec![Masks::none(); 7],
            ..StackMasks::default()
        };
        let shape = StackMasks {
            cells: vec![
                Masks {
                    hidden: Some(Mask::PerSequence(row(1))),
                    ..Masks::none()
                };
                module.sample_masks(T, B, &device).cells.len()
            ],
            ..StackMasks::default()
        };
        let weights_count = StackMasks {
            weights: vec![vec![]; 7],
            ..StackMasks::default()
        };
        let weights = StackMasks {
            weights: vec![vec![row(1); 3]; shape.cells.len()],
            ..StackMasks::default()
        };
        for (says, masks) in [
            ("got masks for 7 cells", &count),
            ("got masks on the weights of 7 cells", &weights_count),
            ("mask `hidden` has shape [3, 1]", &shape),
            ("got 3 masks `weights`", &weights),
        ] {
            let options = || with_masks(masks);
            points_here(name, says, || module.forward_with(good(), None, options()));
            points_here(name, says, || {
                module.forward_histories(good(), None, options())
            });
        }

        match both {
            true => points_here(name, "step needs one direction", || {
                module.step(row(I), None)
            }),
            false => {
                points_here(name, inconsistent, || module.step(row(1), None));
                let wide = row(I).cast(DType::F64);
                points_here(name, "input has type F64", || module.step(wide, None));
            }
        }
    }};
}

fn check_stack<C: Cell>(name: &str, stack: &Stack<C>, both: bool)
where
    <C::Step as recurrent_core::Step>::State: Clone,
{
    check_calls!(name, stack, both);
    if both {
        return;
    }
    let count = StackMasks {
        cells: vec![Masks::none(); 7],
        ..StackMasks::default()
    };
    points_here(name, "got masks for 7 cells", || {
        stack.step_with(row(I), None, &count, 0)
    });
    points_here(name, "input has inconsistent d_input", || {
        stack.step_with(row(1), None, &StackMasks::default(), 0)
    });
}

#[test]
fn calls() {
    let device: Device = device();
    let mut configs = variants();
    configs.push(RecurrentConfig::Gru(GruConfig::new(I, H)));
    configs.push(RecurrentConfig::AdaptiveLstm(
        AdaptiveLstmConfig::new(I, H).with_d_adapt(4),
    ));
    for config in configs {
        for both in [false, true] {
            for strategy in [Strategy::Auto, Strategy::Composed] {
                let config = config.clone().with_bidirectional(both);
                let module = config.init(&device).with_strategy(strategy);
                let name = format!("{}, both: {both}, {strategy:?}", config.name());
                check_calls!(&name, &module, both);
                by_variant!(Recurrent: &module, |stack| check_stack(&name, stack, both));
            }
        }
    }
    let lstm = variants().remove(0).with_num_layers(2).init(&device);
    check_calls!("two layers", &lstm, false);
}

#[test]
fn strategies() {
    let device = device();
    let cell = AdaptiveLstmConfig::new(I, H)
        .with_num_layers(2)
        .with_residual(true)
        .init(&device)
        .with_strategy(Strategy::Fused);
    let says = "the strategy is Fused, but there is no fused kernel";
    points_here("forward", says, || cell.forward(ones([B, T, I]), None));
    points_here("step", says, || cell.step(row(I), None));
    let cell = RecurrentConfig::AdaptiveLstm(
        AdaptiveLstmConfig::new(I, H)
            .with_num_layers(2)
            .with_residual(true),
    );
    let cell = cell.init(&device).with_strategy(Strategy::Fused);
    points_here("forward", says, || cell.forward(ones([B, T, I]), None));
    points_here("step", says, || cell.step(row(I), None));
    let packed = PackedSequence::pack(ones([B, T, I]), [T, 1, 2], true, false).unwrap();
    points_here("packed", says, || cell.forward_packed(&packed, None));
}

#[test]
fn configs_and_bare_cells() {
    let device = device();
    let zero = "`d_input` is 0, expected at least 1";
    points_here("init", zero, || LstmConfig::new(0, H).init(&device));
    points_here("init_cell", zero, || {
        LstmConfig::new(0, H).init_cell(&device)
    });
    points_here("Recurrent", zero, || {
        RecurrentConfig::Lstm(LstmConfig::new(0, H)).init(&device)
    });
    points_here("aLSTM", zero, || {
        AdaptiveLstmConfig::new(0, H).init(&device)
    });
    points_here("aLSTM", zero, || {
        AdaptiveLstmConfig::new(0, H).init_cell(&device)
    });
    points_here("norm", "`epsilon` is 0", || {
        NormConfig::new().with_epsilon(0.0).init(H, &device)
    });

    let cell = LstmConfig::new(I, H).init_cell(&device);
    let inconsistent = "input has inconsistent d_input";
    points_here("cell", inconsistent, || cell.step(row(1), None));
    let state = || LstmState {
        cell: row(H),
        hidden: row(1),
    };
    let shape = "state `hidden` has shape [3, 1]";
    points_here("cell", shape, || cell.step(row(I), Some(state())));
    let cell = AdaptiveLstmConfig::new(I, H).init_cell(&device);
    let policy = || row(cell.policy_size());
    points_here("aLSTM", inconsistent, || cell.step(row(1), policy(), None));
    points_here("aLSTM", "policy has shape [3, 1]", || {
        cell.step(row(I), row(1), None)
    });
    points_here("aLSTM", shape, || {
        cell.step(row(I), policy(), Some(state()))
    });
    points_here("aLSTM", "policy has type F64", || {
        cell.step(row(I), policy().cast(DType::F64), None)
    });
}

#[test]
fn sequences_of_core() {
    let device = device();
    let cell = LstmConfig::new(I, H).init_cell(&device);
    let cell = cell.bind();
    let all = SequenceOptions::default;
    let inconsistent = "input has inconsistent d_input";
    let wrong = || ones([T, B, 1]);
    points_here("run", inconsistent, || {
        sequence::run(&cell, wrong(), None, &all())
    });
    points_here("run_recorded", inconsistent, || {
        sequence::run_recorded(&cell, wrong(), None, &all())
    });
    points_here("run_packed", "packed rows need lengths", || {
        sequence::run_packed(&cell, row(I), None, &all())
    });
    let lengths = Lengths::new([1, 1, 0], 1).unwrap();
    let options = || SequenceOptions {
        lengths: Some(&lengths),
        ..all()
    };
    points_here("run_packed", "got 3 packed rows", || {
        sequence::run_packed(&cell, row(I), None, &options())
    });
    points_here("run", "got 3 lengths, expected one per sequence", || {
        sequence::run(&cell, ones([T, 2, I]), None, &options())
    });
    points_here("step", inconsistent, || {
        let state = recurrent_core::Step::initial_state(&cell, B, &device);
        sequence::step(&cell, row(1), state, &Default::default(), Strategy::Auto)
    });
    let mut dropped = cell;
    points_here("drop_weights", "got 2 masks `weights`", || {
        drop_weights(&mut dropped, &[row(1), row(1)])
    });
    points_here("drop_weights", "mask `weights[0]` has shape [3, 1]", || {
        drop_weights(&mut dropped, &[row(1)])
    });
    points_here("Packing", "longest length is 1, expected at most", || {
        Packing::new(&lengths, 0, &device)
    });
    let packing = Packing::new(&lengths, 1, &device);
    points_here("pack", "padded batch has shape [2, 3, 7]", || {
        packing.pack(ones([2, B, I]))
    });
    points_here("unpack", "got 3 packed rows", || packing.unpack(row(I)));
}

#[test]
fn states_and_histories() {
    let device = device();
    let none: StackState = StackState { cells: vec![] };
    points_here("last", "state has 0 cells", || none.last().clone());
    points_here("last", "state has 0 cells", || {
        RecurrentState { cells: vec![] }.last().clone()
    });
    let adaptive = RecurrentConfig::AdaptiveLstm(AdaptiveLstmConfig::new(I, H)).init(&device);
    let state = || adaptive.initial_state(B, &device);
    points_here(
        "part",
        "the state has no part `memory`, its parts are",
        || state().last().part("memory"),
    );
    points_here(
        "into_lstm",
        "state of cell 0 has the parts [\"main cell\"",
        || state().into_lstm(),
    );
    let stack = LstmConfig::new(I, H).init(&device);
    points_here("typed_state", "expected [\"cell\", \"hidden\"]", || {
        stack.typed_state(state())
    });
    let lstm = RecurrentConfig::Lstm(LstmConfig::new(I, H)).init(&device);
    points_here("forward", "expected [\"cell\", \"hidden\"]", || {
        lstm.forward(ones([B, T, I]), Some(state()))
    });
    points_here("step", "expected [\"cell\", \"hidden\"]", || {
        lstm.step(row(I), Some(state()))
    });
    let uneven = LstmConfig::stacked(I, [4, 5])
        .init(&device)
        .initial_state(B, &device);
    points_here("into_stacked", "state 0 has hidden shape [3, 4]", || {
        uneven.into_stacked()
    });
    points_here("from_stacked", "cell has 2 states", || {
        StackState::from_stacked(LstmState {
            cell: ones([2, B, H]),
            hidden: ones([3, B, H]),
        })
    });
    points_here("from_tensors", "an LSTM state has 2 tensors, got 1", || {
        LstmState::from_tensors(vec![row(H)])
    });
    points_here("from_tensors", "4 tensors per layer, got 1", || {
        recurrent_modules::AdaptiveState::from_tensors(vec![row(H)])
    });
    let lstm = LstmConfig::new(I, H).init(&device);
    let (_, _, histories) =
        lstm.forward_histories(ones([B, T, I]), None, ForwardOptions::default());
    points_here("part", "the state has no part `memory`", || {
        histories[0].part("memory")
    });
    let packed = PackedSequence::pack(ones([B, T, I]), [T, 1, 2], true, false).unwrap();
    points_here("with_data", "got 3 packed rows", || {
        packed.with_data(row(I))
    });
}

/// What `unwrap` prints of an error is its text.
#[test]
fn unwrapped_errors() {
    let text = panic_text(|| Lengths::new([1, 9], T).unwrap());
    assert_says(
        &text,
        &["length of sequence 1 is 9, expected at most seq_length = 5"],
    );
    let text = panic_text(|| PackedSequence::pack(ones([B, T, I]), [1], true, false).unwrap());
    assert_says(
        &text,
        &["got 1 lengths, expected one per sequence: batch_size = 3"],
    );
    let text = panic_text(|| LstmConfig::new(I, 0).try_init(&device()).unwrap());
    assert_says(
        &text,
        &["config field `d_hidden` is 0, expected at least 1"],
    );
    let text = panic_text(|| Recurrent::load("no such folder", &device()).unwrap());
    assert_says(&text, &["config.json in no such folder: cannot read"]);
    assert!(!text.contains("Load {"), "{text}");
}

/// Also where the directions run at the same time, on threads that do not know the caller.
#[test]
fn weights_of_another_shape() {
    let device = device();
    let mut lstm = LstmConfig::new(I, 32)
        .with_bidirectional(true)
        .init(&device);
    let says =
        "`weight_hidden` has shape [5, 128], expected [d_output, gates·d_hidden] = [32, 128]";
    for seq_length in [2, 60] {
        for direction in 0..2 {
            let mut spoilt = lstm.clone();
            let layer = &mut spoilt.layers[0];
            let cell = match direction {
                0 => &mut layer.forward,
                _ => layer.backward.as_mut().expect("both directions"),
            };
            cell.gates.weight_hidden = Param::from_tensor(Tensor::ones([5, 128], &device));
            points_here("forward", says, || {
                spoilt.forward(ones([B, seq_length, I]), None)
            });
        }
    }
    lstm.batch_first = false;
    let (output, _) = lstm.forward(ones([60, B, I]), None);
    assert_eq!(output.dims(), [60, B, 64]);
}

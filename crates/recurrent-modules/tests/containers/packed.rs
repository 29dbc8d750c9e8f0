//! Packed batches: the same numbers as with lengths on the padded batch.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_modules::{
    ForwardOptions, GruConfig, LayerNormLstmConfig, Lengths, LengthsError, LstmConfig, PackError,
    PackedSequence, Recurrent, RecurrentConfig, SlowLstmConfig,
};

use crate::support::*;

const LENGTHS: [usize; B] = [2, T, 3];

#[test]
fn round_trip() {
    let device = device();
    for batch_first in [true, false] {
        let shape = if batch_first { [B, T, I] } else { [T, B, I] };
        let padded = tensor(shape, 0.0, &device);
        let packed = PackedSequence::pack(padded.clone(), LENGTHS, batch_first, false).unwrap();
        assert_eq!(packed.batch_sizes(), [3, 3, 2, 1, 1]);
        assert_eq!(packed.sorted_indices(), [1, 2, 0]);
        assert_eq!(packed.data().dims(), [10, I]);
        let row = |t: usize, b: usize| {
            let at = if batch_first { b * T + t } else { t * B + b };
            values(&padded)[at * I..][..I].to_vec()
        };
        // Time by time, the longest first.
        let order = [
            (0, 1),
            (0, 2),
            (0, 0),
            (1, 1),
            (1, 2),
            (1, 0),
            (2, 1),
            (2, 2),
            (3, 1),
            (4, 1),
        ];
        let expected: Vec<f64> = order.iter().flat_map(|&(t, b)| row(t, b)).collect();
        assert_eq!(values(&packed.data()), expected);

        let (unpacked, lengths) = packed.unpack(batch_first);
        assert_eq!(lengths.as_slice(), LENGTHS);
        assert_eq!(unpacked.dims(), shape);
        let unpacked = values(&unpacked);
        for t in 0..T {
            for (b, &length) in LENGTHS.iter().enumerate() {
                let at = if batch_first { b * T + t } else { t * B + b };
                let expected = if t < length { row(t, b) } else { vec![0.0; I] };
                assert_eq!(unpacked[at * I..][..I], expected);
            }
        }
    }
}

/// A batch padded beyond its longest sequence comes back without the surplus.
#[test]
fn surplus_padding_is_dropped() {
    let device = device();
    let padded = tensor([B, T, I], 0.0, &device);
    let packed = PackedSequence::pack(padded, [3, 3, 1], true, true).unwrap();
    assert_eq!(packed.unpack(true).0.dims(), [B, 3, I]);
}

#[test]
fn errors() {
    let device = device();
    let pack = |lengths: &[usize], enforce_sorted: bool| {
        let padded = tensor([B, T, I], 0.0, &device);
        PackedSequence::pack(padded, lengths, true, enforce_sorted).map(|_| ())
    };
    assert_eq!(pack(&[5, 4, 4], true), Ok(()));
    assert_eq!(pack(&[2, 5, 4], false), Ok(()));
    assert_eq!(pack(&[5, 0, 4], false), Ok(()));
    let cases = [
        (
            pack(&[5, 4], false),
            PackError::Count {
                got: 2,
                batch_size: 3,
            },
            "got 2 lengths, expected one per sequence: batch_size = 3",
        ),
        (
            pack(&[5, 4, 6], false),
            PackError::Lengths(LengthsError::TooLong {
                index: 2,
                got: 6,
                seq_length: 5,
            }),
            "length of sequence 2 is 6, expected at most seq_length = 5",
        ),
        (
            pack(&[5, 3, 4], true),
            PackError::NotSorted {
                index: 2,
                got: 4,
                previous: 3,
            },
            "length of sequence 2 is 4, expected at most 3",
        ),
    ];
    for (got, expected, text) in cases {
        let error = got.expect_err("an error");
        assert_eq!(error, expected);
        assert!(error.to_string().contains(text), "{error}");
    }
}

fn modules(device: &Device) -> Vec<(RecurrentConfig, bool)> {
    let lstm = LstmConfig::new(I, H);
    let stacked = lstm.clone().with_num_layers(3);
    let gru = GruConfig::new(I, H);
    vec![
        (RecurrentConfig::Lstm(lstm.clone()), true),
        (
            RecurrentConfig::Lstm(lstm.with_reverse(true).with_batch_first(false)),
            false,
        ),
        (
            RecurrentConfig::Lstm(stacked.clone().with_bidirectional(true).with_residual(true)),
            true,
        ),
        (
            RecurrentConfig::Lstm(stacked.with_d_proj(Some(4)).with_bidirectional(true)),
            true,
        ),
        (
            RecurrentConfig::SlowLstm(SlowLstmConfig::new(I, H).with_bidirectional(true)),
            true,
        ),
        (
            RecurrentConfig::LayerNormLstm(LayerNormLstmConfig::new(I, H).with_num_layers(2)),
            true,
        ),
        (
            RecurrentConfig::Gru(gru.clone().with_num_layers(2).with_bidirectional(true)),
            true,
        ),
        (
            RecurrentConfig::Gru(gru.with_reset_after(false).with_batch_first(false)),
            false,
        ),
    ]
    .into_iter()
    .inspect(|(config, _)| assert!(config.try_init(device).is_ok()))
    .collect()
}

/// Values, final states and gradients; the order of the lengths is not that of the packed rows.
#[test]
fn packed_is_padded_with_lengths() {
    let device = autodiff();
    for (config, batch_first) in modules(&device) {
        let module = config.init(&device);
        let lengths = Lengths::new(LENGTHS, T).unwrap();
        let run = |packed: bool| {
            let shape = if batch_first { [B, T, I] } else { [T, B, I] };
            let input = tensor(shape, 0.0, &device).require_grad();
            let mut state = module.initial_state(B, &device);
            let mut leaves = vec![];
            for (index, cell) in state.cells.iter_mut().enumerate() {
                for (_, part) in &mut cell.parts {
                    *part = tensor(part.dims(), 0.3 + index as f32, &device).require_grad();
                    leaves.push(part.clone());
                }
            }
            let (output, last) = if packed {
                let rows = PackedSequence::pack(input.clone(), LENGTHS, batch_first, false);
                let (output, last) = module.forward_packed(&rows.unwrap(), Some(state));
                (output.unpack(batch_first).0, last)
            } else {
                let options = ForwardOptions {
                    lengths: Some(&lengths),
                    ..ForwardOptions::default()
                };
                module.forward_with(input.clone(), Some(state), options)
            };
            let mut loss = (output.clone() * tensor(output.dims(), 0.8, &device)).sum();
            let mut results = vec![values(&output)];
            for state in &last.cells {
                for (_, part) in state.iter() {
                    results.push(values(part));
                    loss = loss + (part.clone() * tensor(part.dims(), 1.1, &device)).sum();
                }
            }
            let grads = loss.backward();
            results.push(values(&input.grad(&grads).expect("a gradient")));
            for leaf in leaves {
                results.push(values(&leaf.grad(&grads).expect("a gradient")));
            }
            results.push(weight_gradient(&module, &grads));
            results
        };
        let (got, expected) = (run(true), run(false));
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert!(expected.iter().any(|&v| v != 0.0), "{}", config.name());
            assert_lists_close(got, expected);
        }
    }
}

/// All parameters' gradients in a row.
fn weight_gradient(module: &Recurrent, grads: &burn::tensor::Gradients) -> Vec<f64> {
    struct Collect<'a> {
        grads: &'a burn::tensor::Gradients,
        list: Vec<f64>,
    }
    impl burn::module::ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            let grad = param.val().grad(self.grads).expect("a gradient");
            self.list.extend(values(&grad));
        }
    }
    let mut collect = Collect {
        grads,
        list: vec![],
    };
    module.visit(&mut collect);
    collect.list
}

#[test]
#[should_panic(expected = "input has inconsistent d_input: got 6, expected 7")]
fn rows_of_another_size() {
    let device = device();
    let packed =
        PackedSequence::pack(tensor([B, T, I - 1], 0.0, &device), LENGTHS, true, false).unwrap();
    let _ = LstmConfig::new(I, H)
        .init(&device)
        .forward_packed(&packed, None);
}

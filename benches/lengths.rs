//! The time of a batch of unequal lengths compared with the padded one: `cargo bench --bench lengths`.
//!
//! Half of the steps of the padded batch are padding. The candidates are timed alternately, round by round, and
//! the medians are compared.

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use recurrent_bench::report::{Column, Table};
use recurrent_modules::{ForwardOptions, Lengths, LstmConfig, PackedSequence};

const ROUNDS: usize = 15;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let device = Device::default();
    let mut table = Table::new([
        Column::text("batch, steps, units"),
        Column::text("mode"),
        Column::number("padded", 2).unit("ms"),
        Column::number("with lengths", 2).unit("ms"),
        Column::number("packed", 2).unit("ms"),
        Column::number("lengths / padded", 2),
    ]);
    for (batch_size, seq_length, size) in [(32, 50, 128), (32, 200, 64), (8, 100, 256)] {
        // From full length down to almost none: half of the steps in all.
        let list: Vec<usize> = (0..batch_size)
            .map(|row| (seq_length * (batch_size - row) / batch_size).max(1))
            .collect();
        let lengths = Lengths::new(list, seq_length).expect("lengths of the batch");
        for training in [false, true] {
            let device = if training {
                device.clone().autodiff()
            } else {
                device.clone()
            };
            let lstm = LstmConfig::new(size, size).init(&device);
            let shape = [batch_size, seq_length, size];
            let input = Tensor::<3>::random(shape, Distribution::Default, &device);
            let finish = |output: Tensor<1>| {
                if training {
                    drop(output.backward());
                } else {
                    drop(output.into_data());
                }
            };
            let padded = || finish(lstm.forward(input.clone(), None).0.sum());
            let options = ForwardOptions {
                lengths: Some(&lengths),
                ..ForwardOptions::default()
            };
            let with_lengths = || finish(lstm.forward_with(input.clone(), None, options).0.sum());
            let packed = || {
                let packed = PackedSequence::pack(input.clone(), lengths.as_slice(), true, false);
                let packed = packed.expect("lengths of the batch");
                finish(lstm.forward_packed(&packed, None).0.data().sum());
            };
            let ways: [&dyn Fn(); 3] = [&padded, &with_lengths, &packed];
            let mut times = [vec![], vec![], vec![]];
            for round in 0..=ROUNDS {
                for (way, times) in ways.iter().zip(&mut times) {
                    let start = Instant::now();
                    way();
                    if round > 0 {
                        times.push(start.elapsed().as_secs_f64() * 1e3); // the first warms up
                    }
                }
            }
            let [padded, with_lengths, packed] = times.map(median);
            table.push([
                format!("{batch_size}, {seq_length}, {size}").into(),
                if training { "training" } else { "inference" }.into(),
                padded.into(),
                with_lengths.into(),
                packed.into(),
                (with_lengths / padded).into(),
            ]);
        }
    }
    println!("{table}");
}

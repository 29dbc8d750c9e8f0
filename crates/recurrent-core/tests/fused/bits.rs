//! Hashes of everything that the kernels give: see `common/bits.rs`.

use burn::tensor::{DType, Device};
use recurrent_core::Strategy;

use crate::agreement::cases;
use crate::bits_of::{Bits, record};
use crate::case::{Case, Results, dims};
use crate::kinds::KINDS;
use crate::leaves::Leaves;

/// Beside the sizes of `agreement`: units that threads share, groups of sequences, weights that are read
/// as they are, chunks of many rows.
const LARGE: [recurrent_core::Dims; 4] = [
    dims(24, 9, 40, 64),
    dims(3, 40, 96, 160),
    dims(1, 70, 33, 200),
    dims(1, 3, 64, 300),
];

fn line(case: &Case, what: &str, results: &Results) -> String {
    let mut bits = Bits::new();
    for (_, values) in &results.values {
        bits.add(values.iter().copied());
    }
    for (_, gradient) in &results.gradients {
        match gradient {
            Some(values) => bits.add(values.iter().copied()),
            None => bits.add([f64::MIN]),
        }
    }
    bits.line(&format!("{what}; {}", case.name()))
}

/// A line per case and way of running it.
fn lines() -> Vec<String> {
    let device = Device::flex().autodiff();
    let mut lines = vec![];
    for (index, kind) in KINDS.into_iter().enumerate() {
        let large = LARGE.into_iter().flat_map(|dims| {
            let case = Case::new(kind, "plain", dims);
            let longest = dims.seq_length;
            [case.clone(), case.ragged(longest).backward()]
        });
        for case in cases(kind, 4 * index).into_iter().chain(large) {
            lines.push(line(&case, "training", &case.fused(&device)));
            let leaves = Leaves {
                tracked: &|_| false,
                ..case.leaves(&device, DType::F32)
            };
            let results = |values| Results {
                values,
                gradients: vec![],
            };
            let outputs = case.run(&leaves, Strategy::Fused, false);
            lines.push(line(&case, "inference", &results(outputs.values())));
            let outputs = case.run_recorded(&leaves, Strategy::Fused);
            lines.push(line(&case, "histories", &results(outputs.values())));
        }
    }
    lines
}

/// A second run gives the same bits: its buffers come from the pool, with what the first one left in them.
#[test]
fn bits_of_a_second_run() {
    let first = lines();
    for (first, second) in first.iter().zip(lines()) {
        assert_eq!(*first, second);
    }
    record(first);
}

//! Hashes of what each instruction set gives: see `common/bits.rs`.

use recurrent_core::fused::cpu::simd::Isa;

use crate::adaptive;
use crate::bits_of::{Bits, record};
use crate::gru;
use crate::problems::calls;

/// Batch, steps, input, hidden.
const SIZES: [[usize; 4]; 8] = [
    [1, 9, 7, 11],
    [2, 5, 3, 1],
    [5, 9, 17, 33],
    [13, 2, 70, 17],
    [6, 3, 300, 65],
    [1, 1, 7, 40],
    [24, 12, 40, 64],
    [1, 40, 33, 200],
];

fn wide(list: &[f32]) -> impl Iterator<Item = f64> {
    list.iter().map(|&value| value.into())
}

/// A line per call.
fn lines(isa: Isa, workers: usize) -> Vec<String> {
    let mut lines = vec![];
    for (sizes, ragged) in SIZES.into_iter().flat_map(|s| [(s, false), (s, true)]) {
        for call in calls(sizes, ragged) {
            let (output, grads) = call.both(isa, workers);
            let mut bits = Bits::new();
            bits.add(wide(&output));
            for (_, grad) in &grads {
                bits.add(wide(grad));
            }
            lines.push(bits.line(&format!("{isa:?}; {}; {sizes:?} {ragged}", call.name)));
        }
    }
    for (name, output, grads) in adaptive::all_results(isa, workers) {
        let mut bits = Bits::new();
        bits.add(wide(&output));
        for grad in grads.iter().flatten() {
            bits.add(wide(grad));
        }
        lines.push(bits.line(&format!("{isa:?}; adaptive {name}")));
    }
    for call in gru::calls() {
        let (output, grads) = call.both(isa, workers);
        let mut bits = Bits::new();
        bits.add(wide(&output));
        for (_, grad) in &grads {
            bits.add(wide(grad));
        }
        lines.push(bits.line(&format!("{isa:?}; GRU {}", call.name)));
    }
    lines
}

/// Who takes which columns changes no bit.
#[test]
fn bits_of_any_number_of_workers() {
    for isa in Isa::all() {
        let alone = lines(isa, 1);
        for workers in [2, 3] {
            for (alone, together) in alone.iter().zip(lines(isa, workers)) {
                assert_eq!(*alone, together, "{workers} workers");
            }
        }
        record(alone);
    }
}

//! Hashes of what each instruction set gives: see `common/bits.rs`.

use recurrent_core::fused::cpu::simd::Isa;

use crate::adaptive;
use crate::bits_of::{Bits, record};
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

#[test]
#[ignore = "prints hashes, for a comparison of two versions"]
fn bits() {
    let mut lines = vec![];
    for isa in Isa::all() {
        for (sizes, ragged) in SIZES.into_iter().flat_map(|s| [(s, false), (s, true)]) {
            for call in calls(sizes, ragged) {
                let (output, grads) = call.both(isa, 2);
                let mut bits = Bits::new();
                bits.add(wide(&output));
                for (_, grad) in &grads {
                    bits.add(wide(grad));
                }
                lines.push(bits.line(&format!("{isa:?}; {}; {sizes:?} {ragged}", call.name)));
            }
        }
        for (name, output, grads) in adaptive::all_results(isa, 2) {
            let mut bits = Bits::new();
            bits.add(wide(&output));
            for grad in grads.iter().flatten() {
                bits.add(wide(grad));
            }
            lines.push(bits.line(&format!("{isa:?}; adaptive {name}")));
        }
    }
    record(lines);
}

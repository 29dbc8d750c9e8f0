//! The whole recurrence: each instruction set against the widest, and what saved tensors are good for.

use burn::tensor::DType;
use recurrent_core::eval::compare::{Tolerance, close};
use recurrent_core::fused::cpu::simd::Isa;

use crate::problems::{Call, calls};

/// Batch, steps, input, hidden.
const SIZES: [[usize; 4]; 6] = [
    [1, 9, 7, 11],
    [2, 5, 3, 1],
    [5, 9, 17, 33],
    [13, 2, 70, 17],
    [6, 3, 300, 65],
    [1, 1, 7, 40],
];

fn wide(list: &[f32]) -> Vec<f64> {
    list.iter().map(|&v| v.into()).collect()
}

#[test]
fn instruction_sets_agree() {
    for sizes in SIZES {
        for ragged in [false, true] {
            for call in calls(sizes, ragged) {
                // Two units are hardly more than a sign to a normalisation.
                if sizes[3] < 3 && call.problem.norm_cell.is_some() {
                    continue;
                }
                let (output, grads) = call.both(Isa::best(), 1);
                for isa in Isa::all() {
                    let what = format!("{isa:?}, {}, {sizes:?}, ragged {ragged}", call.name);
                    let (got, got_grads) = call.both(isa, 1);
                    let tolerance = Tolerance::values(DType::F32, sizes[1]);
                    let check = close(&what, &wide(&got), &wide(&output), tolerance);
                    check.unwrap_or_else(|message| panic!("{message}"));
                    for ((part, got), (_, expected)) in got_grads.iter().zip(&grads) {
                        let what = format!("{what}, gradient of {part:?}");
                        let tolerance = Tolerance::gradients(DType::F32, sizes[1]);
                        let check = close(&what, &wide(got), &wide(expected), tolerance);
                        check.unwrap_or_else(|message| panic!("{message}"));
                    }
                }
            }
        }
    }
}

/// The widest is the last of the list.
#[test]
fn best_is_last() {
    let all = Isa::all();
    let last = all.last().expect("an instruction set");
    assert_eq!(last.lanes(), Isa::best().lanes());
    assert_eq!(format!("{last:?}"), format!("{:?}", Isa::best()));
}

/// A backward changes nothing that a second one needs. (Burn itself follows a graph only once.)
#[test]
fn saved_tensors_serve_twice() {
    for isa in Isa::all() {
        for call in calls([5, 6, 7, 33], true) {
            let (output, saved) = call.forward(isa, 2, true);
            let saved = saved.expect("saved tensors");
            let kept = output.clone();
            let first = call.backward(isa, 2, &saved, &output);
            let second = call.backward(isa, 1, &saved, &output);
            assert!(first == second, "{isa:?}, {}", call.name);
            assert!(output == kept, "{isa:?}, {}", call.name);
        }
    }
}

/// Without saved tensors the same numbers come out, to the bit.
#[test]
fn inference_is_training() {
    for isa in Isa::all() {
        for sizes in SIZES {
            for ragged in [false, true] {
                for call in calls(sizes, ragged) {
                    let (training, saved) = call.forward(isa, 1, true);
                    let (inference, none) = call.forward(isa, 1, false);
                    assert!(saved.is_some() && none.is_none());
                    let what = format!("{isa:?}, {}, {sizes:?}, ragged {ragged}", call.name);
                    assert!(training == inference, "{what}");
                }
            }
        }
    }
}

/// A sequence whose input is spoilt has a spoilt output, also where the cell is bounded; the others
/// have not.
#[test]
fn nan_is_not_hidden() {
    for isa in Isa::all() {
        for mut call in calls([5, 6, 7, 33], false) {
            call.spoil();
            let size = call.problem.d_output;
            for keep in [false, true] {
                let (output, _) = call.forward(isa, 1, keep);
                let what = format!("{isa:?}, {}, keep {keep}", call.name);
                let nan = |row: usize| output[row * size..][..size].iter().any(|v| v.is_nan());
                assert!(nan(0), "{what}");
                assert!((1..5).all(|row| !nan(row)), "{what}");
            }
        }
    }
}

/// A tensor of another size is refused before a pointer is made.
#[test]
fn short_tensors_are_refused() {
    for call in calls([3, 4, 5, 9], true) {
        call.forward(Isa::best(), 1, true);
        for (index, short) in call.cut_short().enumerate() {
            let run = || short.forward(Isa::best(), 1, true);
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err();
            assert!(refused, "{}: tensor {index} one value short ran", call.name);
        }
    }
}

/// Saved tensors are one call's: neither another problem nor other vectors may read it.
#[test]
fn saved_tensors_of_another_call_are_refused() {
    let isas = Isa::all();
    let (first, last) = (isas[0], isas[isas.len() - 1]);
    let [call, other] = [[3, 4, 5, 9], [3, 4, 5, 8]].map(|sizes| calls(sizes, false).remove(0));
    let (output, saved) = call.forward(first, 1, true);
    let saved = saved.expect("saved tensors");
    let refused = |call: &Call, isa: Isa| {
        let run = || call.backward(isa, 1, &saved, &output);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
    };
    assert!(!refused(&call, first));
    assert!(refused(&other, first));
    assert!(isas.len() == 1 || last.lanes() == first.lanes() || refused(&call, last));
}

/// So are an order of rows that are not there, and numbers of rows that rise.
#[test]
fn orders_and_counts_are_checked() {
    let call = calls([2, 2, 3, 8], false).remove(0);
    let run = |counts: &[usize], order: Option<&[usize]>| {
        let mut call = call.clone();
        call.problem.counts = counts.to_vec();
        call.problem.order = order.map(Into::into);
        let run = || drop(call.forward(Isa::best(), 1, false));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()))
    };
    assert_eq!(run(&[2, 2], None), None);
    assert_eq!(run(&[2, 2], Some(&[3, 2, 1, 0])), None);
    for (counts, order, expected) in [
        (&[2, 2][..], Some(&[0, 1, 2, 4][..]), "row 4"),
        (&[2, 2], Some(&[0, 1]), "order of the input has 2 rows"),
        (&[2, 1], None, "`input` has 12 values"),
        (&[1, 2], None, "rows per step"),
        (&[2, 0], None, "rows per step"),
        (&[], None, "no steps"),
    ] {
        let text = run(counts, order).unwrap_or_default();
        assert!(text.contains(expected), "{counts:?} {order:?}: {text:?}");
    }
}

//! Tensors of other shapes than the sizes of a call are refused, whatever tensor it is: kernels follow raw
//! pointers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{DType, Device, Tensor};
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::{Preactivation, Transition};
use recurrent_core::{SequenceOptions, Strategy, sequence};
use rstest::rstest;

use crate::case::{Case, dims};
use crate::common::devices;
use crate::kinds::{KINDS, Kind};
use crate::leaves::Leaves;

/// The text of a panic, or none.
fn panic_of(run: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(run)).err()?;
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()))
}

fn cell(d_input: usize, d_hidden: usize, weight_hidden: [usize; 2], device: &Device) -> LstmStep {
    let weight_input = Tensor::ones([d_input, 4 * d_hidden], device);
    LstmStep {
        preact: Preactivation::plain(weight_input, Tensor::ones(weight_hidden, device), None),
        transition: Transition::default(),
    }
}

/// One value too few or too many along one axis of one leaf.
#[rstest]
fn every_leaf(
    #[values(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25
    )]
    kind: usize,
    #[values("two biases", "projection", "everything with norms")] name: &str,
) {
    let case = Case::new(KINDS[kind], name, dims(3, 4, 5, 9));
    if !case.kind.has(&case.options) {
        return;
    }
    for (device_name, device) in devices(DType::F32) {
        if let Some(reason) = case.unfused(&device) {
            println!("skipped on {device_name}: {reason}");
            continue;
        }
        let leaves = case.leaves(&device, DType::F32);
        case.run(&leaves, Strategy::Fused, false);
        let names = leaves.names();
        assert!(names.len() > 4, "{names:?}");
        // Made for a cell that does not take it.
        let unused = |name: &String| match case.kind {
            Kind::Peephole { input: false, .. } => name == "peephole_input",
            // Its gates are slices of the packed leaves.
            Kind::Slow => name.starts_with("weight") || name.starts_with("bias"),
            _ => false,
        };
        for altered in names.iter().filter(|name| !unused(name)) {
            for (axis, more) in [(0, true), (0, false), (1, true), (1, false)] {
                let resize = |name: &str, shape: &mut [usize]| {
                    if name == altered && axis < shape.len() {
                        shape[axis] = match more {
                            true => shape[axis] + 1,
                            false => shape[axis] - 1,
                        };
                    }
                };
                let leaves = Leaves {
                    resize: &resize,
                    ..case.leaves(&device, DType::F32)
                };
                let is_vector = leaves_rank(&case, &device, altered) == 1;
                // Another number of steps is no mistake.
                if axis == 1 && is_vector || axis == 0 && altered == "x" {
                    continue;
                }
                let text = panic_of(|| drop(case.run(&leaves, Strategy::Fused, false)));
                assert!(
                    text.is_some(),
                    "{device_name}; {}: {altered} with {} along axis {axis} ran",
                    case.name(),
                    if more { "one more" } else { "one less" },
                );
            }
        }
    }
}

/// Axes of a leaf.
fn leaves_rank(case: &Case, device: &Device, name: &str) -> usize {
    let rank = std::cell::Cell::new(0);
    let look = |other: &str, shape: &mut [usize]| {
        if other == name {
            rank.set(shape.len());
        }
    };
    let leaves = Leaves {
        resize: &look,
        ..case.leaves(device, DType::F32)
    };
    drop(case.run(&leaves, Strategy::Fused, false));
    rank.get()
}

/// A recurrent matrix of one row would be read past its end.
#[test]
fn the_message_names_shapes() {
    for (_, device) in devices(DType::F32) {
        let cell = cell(3, 64, [1, 4], &device);
        let input = Tensor::<3>::ones([5, 2, 3], &device);
        let options = SequenceOptions::default();
        let text = panic_of(|| drop(sequence::run(&cell, input, None, &options)));
        assert_eq!(
            text.as_deref(),
            Some(
                "`weight_hidden` has shape [1, 4], expected [d_output, gates·d_hidden] = [64, 256]"
            )
        );
    }
}

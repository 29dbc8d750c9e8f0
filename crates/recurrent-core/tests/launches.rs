//! Kernels that a step launches on a device of CubeCL, counted by CubeCL itself where they are issued.
//!
//! Runs on the device that `BURN_DEVICE` names, such as `BURN_DEVICE=wgpu cargo test --features wgpu
//! --test launches`; prints the counts of both ways to run a sequence.
#![cfg(feature = "cube")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Distribution, Tensor};
use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};
use recurrent_core::cell::lstm::LstmCell;
use recurrent_core::cell::{Affine, Preactivation, Transition};
use recurrent_core::eval::device::chosen;
use recurrent_core::{SequenceOptions, Strategy, Target, kernel, sequence};

#[derive(Default)]
struct Count(AtomicUsize);

impl LaunchObserver for Count {
    fn launched(&self, _kernel: &'static str) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Launches of a piece of work.
fn launches<R>(device: &Device, work: impl FnOnce() -> R) -> (usize, R) {
    device.sync().expect("what came before");
    let count = Arc::new(Count::default());
    let watching = LaunchObservation::new(count.clone());
    let result = work();
    device.sync().expect("the work itself");
    drop(watching);
    (count.0.load(Ordering::Relaxed), result)
}

const B: usize = 4;
const I: usize = 8;

/// What is run: units, and whether the cell is normalised.
type What = (usize, bool);

/// Small enough for one launch of all steps, too large for it, and with rows to normalise.
const ALL: [What; 3] = [(16, false), (96, false), (16, true)];

fn cell(device: &Device, (units, norm): What) -> LstmCell {
    let leaf = |rows, columns| {
        Tensor::<2>::random([rows, columns], Distribution::Uniform(-0.3, 0.3), device)
            .require_grad()
    };
    let mut transition = Transition::default();
    if norm {
        transition.norm_cell = Some(recurrent_core::equations::layer_norm::Norm {
            normalizer: recurrent_core::equations::layer_norm::Normalizer::STANDARD,
            gain: None,
            shift: None,
        });
    }
    LstmCell {
        preact: Preactivation {
            input: Affine {
                weight: leaf(I, 4 * units),
                bias: None,
            },
            hidden: Affine {
                weight: leaf(units, 4 * units),
                bias: None,
            },
            norm_input: None,
            norm_hidden: None,
            bias: Some(Tensor::<1>::zeros([4 * units], device).require_grad()),
        },
        transition,
    }
}

/// Launches of a forward and a backward over `steps` steps.
fn both(device: &Device, strategy: Strategy, steps: usize, what: What) -> [usize; 2] {
    let cell = cell(device, what);
    let input = Tensor::<3>::random([steps, B, I], Distribution::Default, device).require_grad();
    let options = SequenceOptions {
        strategy,
        ..SequenceOptions::default()
    };
    let (forward, output) = launches(device, || {
        sequence::run(&cell, input.clone(), None, &options)
    });
    let loss = (output.output.square()).sum() + output.state.cell.sum();
    let (backward, gradients) = launches(device, || loss.backward());
    assert!(input.grad(&gradients).is_some(), "a gradient of the input");
    [forward, backward]
}

#[test]
fn launches_per_step() {
    let Some((name, device)) = chosen() else {
        println!("skipped: BURN_DEVICE names no device");
        return;
    };
    assert_eq!(
        kernel::target(&device),
        Some(Target::Cube),
        "{name} is not a device of CubeCL with kernels"
    );
    let device = device.autodiff();
    for what in ALL {
        let per_step = |strategy| {
            // The first run of a shape may try out kernels.
            for steps in [8, 16] {
                both(&device, strategy, steps, what);
            }
            let (short, long) = (
                both(&device, strategy, 8, what),
                both(&device, strategy, 16, what),
            );
            let each = |way: usize| (long[way] - short[way]) as f64 / 8.0;
            ([each(0), each(1)], long)
        };
        let (fused, fused_all) = per_step(Strategy::Fused);
        let (composed, composed_all) = per_step(Strategy::Composed);
        let (units, norm) = what;
        let norm = if norm { ", LN of the cell" } else { "" };
        println!(
            "{name}, {units} units{norm}: launches per step, forward {} backward {}; the composed scan forward {} \
             backward {} (16 steps in all: {fused_all:?}, composed {composed_all:?})",
            fused[0], fused[1], composed[0], composed[1]
        );
        assert!(fused[0] <= 2.0, "forward: {}", fused[0]);
        assert!(fused[1] <= 2.0, "backward: {}", fused[1]);
        assert!(composed[0] > 4.0, "the composed scan is counted too");
    }
}

//! Kernels that a step launches on a device of CubeCL, counted by CubeCL itself where they are issued.
//!
//! Runs on the device that `BURN_DEVICE` names, such as `BURN_DEVICE=wgpu cargo test --features wgpu
//! --test launches`; prints the counts of both ways to run a sequence.
#![cfg(feature = "kernel-cube")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Distribution, Tensor};
use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};
use recurrent_core::cell::adaptive::{AdaptiveLayerStep, AdaptiveLayersStep, AdaptiveLstmStep};
use recurrent_core::cell::gru::GruStep;
use recurrent_core::cell::lstm::LstmStep;
use recurrent_core::cell::{Affine, Preactivation, Transition};
use recurrent_core::equations::adaptive::PolicyLayout;
use recurrent_core::eval::device::chosen;
use recurrent_core::{SequenceOptions, State, Step, Strategy, Target, sequence};

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

/// What is run.
#[derive(Debug, Clone, Copy)]
enum What {
    /// Units, and whether the cell is normalised.
    Lstm(usize, bool),
    /// Layers, each of 16 units; the adaptation cells have 8.
    Adaptive(usize),
    /// Of 16 units, and whether the reset gate acts after the product.
    Gru(bool),
}

/// What is run; an LSTM small enough for one launch of all steps, one too large for it, and one with
/// rows to normalise.
const ALL: [What; 7] = [
    What::Lstm(16, false),
    What::Lstm(96, false),
    What::Lstm(16, true),
    What::Adaptive(1),
    What::Adaptive(2),
    What::Gru(true),
    What::Gru(false),
];

impl What {
    /// Most launches of a step, each way: two for each product that waits for another.
    fn most(self) -> f64 {
        match self {
            What::Lstm(..) | What::Gru(true) => 2.0,
            What::Gru(false) => 4.0,
            What::Adaptive(layers) => 6.0 * layers as f64,
        }
    }
}

/// An LSTM cell of so many features of x.
fn cell(device: &Device, d_input: usize, units: usize, norm: bool) -> LstmStep {
    let mut transition = Transition::default();
    if norm {
        transition.norm_cell = Some(recurrent_core::equations::layer_norm::NormWeights {
            normalizer: recurrent_core::equations::layer_norm::Normalizer::STANDARD,
            gain: None,
            shift: None,
        });
    }
    LstmStep {
        preact: Preactivation::plain(
            leaf(device, d_input, 4 * units),
            leaf(device, units, 4 * units),
            Some(Tensor::<1>::zeros([4 * units], device).require_grad()),
        ),
        transition,
    }
}

fn leaf(device: &Device, rows: usize, columns: usize) -> Tensor<2> {
    Tensor::random([rows, columns], Distribution::Uniform(-0.3, 0.3), device).require_grad()
}

fn gru(device: &Device, reset_after: bool) -> GruStep {
    let units = 16;
    let bias = |size: usize| Tensor::<1>::zeros([size], device).require_grad();
    GruStep {
        input: Affine {
            weight: leaf(device, I, 3 * units),
            bias: Some(bias(3 * units)),
        },
        weight_hidden: leaf(device, units, 3 * units),
        bias_candidate_hidden: reset_after.then(|| bias(units)),
        reset_after,
    }
}

fn adaptive(device: &Device, layers: usize) -> AdaptiveLayersStep {
    let (units, adapt) = (16, 8);
    let layer = |index: usize| {
        let d_input = if index == 0 { I } else { units };
        let seen = d_input + units + if layers > 1 { adapt } else { 0 };
        let LstmStep { preact, transition } = cell(device, d_input, units, false);
        AdaptiveLayerStep {
            adapt: cell(device, seen, adapt, false),
            policy_projection: leaf(
                device,
                adapt,
                PolicyLayout::size(d_input, units, units, true),
            ),
            cell: AdaptiveLstmStep {
                preact,
                transition,
                policy_layout: PolicyLayout::Cumulative,
            },
        }
    };
    AdaptiveLayersStep {
        layers: (0..layers).map(layer).collect(),
        residual: false,
    }
}

/// Launches of a forward and a backward over `steps` steps.
fn both(device: &Device, strategy: Strategy, steps: usize, what: What) -> [usize; 2] {
    match what {
        What::Lstm(units, norm) => run(device, strategy, steps, &cell(device, I, units, norm)),
        What::Gru(reset_after) => run(device, strategy, steps, &gru(device, reset_after)),
        What::Adaptive(layers) => run(device, strategy, steps, &adaptive(device, layers)),
    }
}

fn run<C: Step>(device: &Device, strategy: Strategy, steps: usize, cell: &C) -> [usize; 2] {
    let input = Tensor::<3>::random([steps, B, I], Distribution::Default, device).require_grad();
    let options = SequenceOptions {
        strategy,
        ..SequenceOptions::default()
    };
    let (forward, output) = launches(device, || {
        sequence::run(cell, input.clone(), None, &options)
    });
    let first = output.state.into_tensors().swap_remove(0);
    let loss = (output.output.square()).sum() + first.sum();
    let (backward, gradients) = launches(device, || loss.backward());
    assert!(input.grad(&gradients).is_some(), "a gradient of the input");
    [forward, backward]
}

/// Steps of the two runs whose launches are compared. Both so many that the output of each cell is most of
/// what its kernel gives: an output that is not is copied, by a launch of its own.
const SHORT: usize = 64;
const LONG: usize = 72;

#[test]
fn launches_per_step() {
    let Some((name, device)) = chosen() else {
        println!("skipped: BURN_DEVICE names no device");
        return;
    };
    assert_eq!(
        sequence::target(&device),
        Some(Target::Cube),
        "{name} is not a device of CubeCL with kernels"
    );
    let device = device.autodiff();
    for what in ALL {
        let per_step = |strategy| {
            // The first run of a shape may try out kernels.
            for steps in [SHORT, LONG] {
                both(&device, strategy, steps, what);
            }
            let (short, long) = (
                both(&device, strategy, SHORT, what),
                both(&device, strategy, LONG, what),
            );
            let each = |way: usize| (long[way] - short[way]) as f64 / (LONG - SHORT) as f64;
            ([each(0), each(1)], long)
        };
        let (fused, fused_all) = per_step(Strategy::Fused);
        let (composed, composed_all) = per_step(Strategy::Composed);
        println!(
            "{name}, {what:?}: launches per step, forward {} backward {}; the composed scan forward {} \
             backward {} ({LONG} steps in all: {fused_all:?}, composed {composed_all:?})",
            fused[0], fused[1], composed[0], composed[1]
        );
        assert!(fused[0] <= what.most(), "forward: {}", fused[0]);
        assert!(fused[1] <= what.most(), "backward: {}", fused[1]);
        // Burn's fusion leaves 3 of the composed scan's 27.
        assert!(composed[0] > fused[0], "the composed scan is counted too");
    }
}

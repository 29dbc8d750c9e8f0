//! Amplified gradients: masks that multiply by 10 at every step, cells up to 10⁸, gates saturated on both
//! sides.
//!
//! An error of one unit in the last place of a saturated function is nothing in itself. Where a mask
//! of p = 0.9 multiplies what is carried by 10 at each of ten steps, it becomes a gradient that trains. The
//! gradient of the output alone shows it: the units whose cell is large have none. What f32 itself cannot
//! hold is taken from the composed scan in f32, which the kernel must not be behind.

use burn::tensor::{DType, Device};
use recurrent_core::eval::compare::Tolerance;
use recurrent_core::{Dims, Strategy};
use rstest::rstest;

use crate::case::{Case, Results, dims};
use crate::common::devices;
use crate::kinds::{KINDS, Kind};
use crate::leaves::Leaves;
use crate::options::Drop;

/// By what a kept unit is multiplied: p = 0.9.
const SCALE: f64 = 10.0;

/// The largest cell.
const LARGEST: f64 = 1e8;

/// Option sets with a mask that amplifies: of Moon's, of Gal's, of both with layer normalisation.
const MASKED: [&str; 4] = [
    "cell mask per sequence (Moon)",
    "hidden mask per sequence (Gal)",
    "Ba et al.: bias outside, raw cell carried",
    "lstms.pth: biases inside, normalised cell carried",
];

/// σ⁻¹
fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

/// Pre-activations on both sides of where σ and tanh become 0 or ±1, and some between.
const PREACTIVATIONS: [f64; 9] = [-40.0, -17.5, -9.1, -8.2, 0.3, 2.2, 8.2, 9.1, 40.0];

/// What is put in place of drawn values.
fn altered(case: &Case, name: &str, values: &mut [f64]) {
    let Dims {
        seq_length,
        d_hidden,
        ..
    } = case.dims;
    match name {
        "mask.cell" | "mask.hidden" => {
            values
                .iter_mut()
                .filter(|v| **v != 0.0)
                .for_each(|v| *v = SCALE);
        }
        _ if name == case.carried() => {
            // From 10⁻² to the largest, of either sign.
            let range = LARGEST.log10() + 2.0;
            for (index, value) in values.iter_mut().enumerate() {
                let share = match case.grows(index % d_hidden) {
                    true => 0.0,
                    false => (index % 7) as f64 / 6.0,
                };
                *value = value.signum() * 10f64.powf(range * share - 2.0);
            }
        }
        "bias" => {
            let blocks = values.len() / d_hidden;
            for block in 0..blocks {
                for unit in 0..d_hidden {
                    let value = &mut values[block * d_hidden + unit];
                    *value = match case.forget(block) {
                        Some(sign) if case.grows(unit) => {
                            // From 10⁻² to the largest in all steps together.
                            let growth = (LARGEST * 1e2).powf(1.0 / seq_length as f64);
                            let mut gate = (growth / SCALE).min(1.0 - 1e-12);
                            if matches!(case.kind, Kind::Ur { .. }) {
                                // The effective gate is 1 − (1 − f)² at most.
                                gate = 1.0 - (1.0 - gate).sqrt();
                            }
                            sign * (logit(gate) - case.margin())
                        }
                        Some(sign) if unit % 2 == 0 => sign * (logit(0.08) - case.margin()),
                        Some(sign) => sign * -40.0,
                        None => PREACTIVATIONS[(unit + 4 * block) % PREACTIVATIONS.len()],
                    };
                }
            }
        }
        // Beside cells that large.
        _ if name.starts_with("peephole") => values.iter_mut().for_each(|v| *v /= LARGEST),
        // What grows in a GRU is also what R multiplies.
        "weight_hidden" if !case.kind.has_cell_state() => {
            values.iter_mut().for_each(|v| *v /= LARGEST);
        }
        _ => {}
    }
}

impl Case {
    /// What products and normalised rows add to a pre-activation at most, or nearly so.
    fn margin(&self) -> f64 {
        match self.options.form {
            Some(_) => 4.0,
            // A forget bias of its own.
            None if matches!(self.kind, Kind::Ur { .. }) => 2.0,
            None => 1.0,
        }
    }

    /// The part of the state that masks amplify: c, or h where there is no other.
    fn carried(&self) -> &'static str {
        match self.kind.has_cell_state() {
            true => "cell",
            false => "hidden",
        }
    }

    /// Whether a unit's cell grows from step to step.
    fn grows(&self, unit: usize) -> bool {
        unit.is_multiple_of(3)
    }

    /// Whether a block of the bias is that of the gate on the old cell, and with which sign.
    fn forget(&self, block: usize) -> Option<f64> {
        use recurrent_core::Gate;
        use recurrent_core::equations::cifg::Coupling;
        let coupling = match self.kind {
            Kind::Cifg(coupling) | Kind::Peephole { coupling, .. } => coupling,
            Kind::Ur { mechanism, .. } => {
                let layout = mechanism.layout();
                return (layout.slot(Gate::Forget) == Some(block)).then_some(1.0);
            }
            _ => Coupling::Independent,
        };
        match coupling {
            Coupling::ForgetFromInput => (block == 0).then_some(-1.0),
            Coupling::InputFromForget => (block == 0).then_some(1.0),
            Coupling::Independent | Coupling::CappedInput => (block == 1).then_some(1.0),
        }
    }

    /// Values, and the gradients of the output alone or of everything.
    fn amplified(&self, leaves: Leaves<'_>, strategy: Strategy, output_only: bool) -> Results {
        let alter = |name: &str, values: &mut Vec<f64>| altered(self, name, values);
        let leaves = Leaves {
            alter: &alter,
            ..leaves
        };
        let mut outputs = self.run(&leaves, strategy, false);
        let values = outputs.values();
        if output_only {
            outputs.state.clear();
        }
        let grads = self.loss(&leaves, &outputs).backward();
        Results {
            values,
            gradients: leaves.gradients(&grads),
        }
    }
}

/// The largest difference as a share of the largest value.
fn error(got: &[f64], expected: &[f64]) -> f64 {
    let scale = expected.iter().fold(1e-3, |max: f64, b| max.max(b.abs()));
    let difference = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let finite = got.iter().all(|v| v.is_finite());
    assert!(
        expected.iter().all(|v| v.is_finite()),
        "the reference overflows"
    );
    match finite {
        true => difference.fold(0.0, f64::max) / scale,
        false => f64::INFINITY,
    }
}

/// Values and gradients by name.
fn all(results: &Results) -> impl Iterator<Item = (String, &[f64])> {
    let values = results.values.iter();
    let values = values.map(|(name, values)| (name.clone(), &values[..]));
    let gradients = results.gradients.iter().filter_map(|(name, values)| {
        let values = values.as_ref()?;
        Some((format!("gradient of {name}"), &values[..]))
    });
    values.chain(gradients)
}

#[track_caller]
fn check(case: &Case, largest: &mut f64) {
    for output_only in [true, false] {
        let flex = Device::flex().autodiff();
        let run = |device: &Device, dtype: DType, strategy: Strategy| {
            case.amplified(case.leaves(device, dtype), strategy, output_only)
        };
        let expected = run(&flex, DType::F64, Strategy::Composed);
        for (name, values) in all(&expected) {
            if name.ends_with(case.carried()) && name.starts_with("final") {
                *largest = values.iter().fold(*largest, |max, v| max.max(v.abs()));
            }
        }
        let composed = run(&flex, DType::F32, Strategy::Composed);
        for (device_name, device) in devices(DType::F32) {
            if case.unfused(&device).is_some() {
                continue;
            }
            let fused = run(&device, DType::F32, Strategy::Fused);
            let rows = all(&fused).zip(all(&composed)).zip(all(&expected));
            for (((name, fused), (_, composed)), (_, expected)) in rows {
                let (fused, composed) = (error(fused, expected), error(composed, expected));
                let tolerance = match name.starts_with("gradient") {
                    true => Tolerance::gradients(DType::F32, case.dims.seq_length),
                    false => Tolerance::values(DType::F32, case.dims.seq_length),
                };
                assert!(
                    fused <= 4.0 * composed + tolerance.0,
                    "{device_name}; {}; {}: {name} is off by {fused:.1e} of the largest value, the composed \
                     scan in f32 by {composed:.1e}",
                    case.name(),
                    if output_only {
                        "output alone"
                    } else {
                        "output and states"
                    },
                );
            }
        }
    }
}

/// Every cell with a kernel, 10 to 40 steps.
#[rstest]
fn amplified_gradients(
    #[values(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24,
        25
    )]
    kind: usize,
) {
    let kind = KINDS[kind];
    let mut largest = 0.0;
    for name in MASKED {
        // The policy of the aLSTM scales its biases, so that its cells grow as they like.
        let lengths: &[usize] = match kind {
            Kind::Adaptive { .. } => &[10, 12],
            _ => &[10, 25, 40],
        };
        for (index, &steps) in lengths.iter().enumerate() {
            let mut case = Case::new(kind, name, dims(3, steps, 5, 19));
            // Without a cell state Moon's mask multiplies nothing.
            let masked = kind.has_cell_state() || case.options.cell == Drop::None;
            if !kind.has(&case.options) || !masked {
                continue;
            }
            if case.options.form.is_some() {
                case.options.cell = Drop::PerSequence;
            }
            if index == 1 {
                case = case.ragged(steps).backward();
            }
            check(&case, &mut largest);
        }
    }
    println!("{kind:?}: cells up to {largest:.1e}");
    assert!(largest < 1e14, "{kind:?}: a cell of {largest:e}");
    assert!(largest > 1e4, "{kind:?}: no cell beyond {largest:e}");
}

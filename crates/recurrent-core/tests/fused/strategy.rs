//! Which way a call goes, and what is said where there is no kernel.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{DType, Device, Tensor};
use recurrent_core::equations::dropout::StepMasks;
use recurrent_core::eval::compare::values;
use recurrent_core::{Mask, SequenceOptions, State, Step, Strategy, Unfused, sequence};
use rstest::rstest;

use crate::case::{Case, dims};
use crate::common::devices;
use crate::kinds::{KINDS, Kind, UNFUSED};
use crate::options::FEW_AND_ALL;

/// The message of a panic.
fn message(call: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(call)).expect_err("a panic");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .expect("a panic with a text")
}

fn few() -> impl Iterator<Item = Case> {
    let kinds = KINDS.into_iter();
    kinds.flat_map(|kind| {
        let cases = FEW_AND_ALL.map(|name| Case::new(kind, name, dims(3, 5, 7, 11)).ragged(5));
        cases
            .into_iter()
            .filter(move |case| kind.has(&case.options))
    })
}

#[test]
fn every_cell_says_that_it_has_a_kernel() {
    let device = Device::flex().autodiff();
    for case in few() {
        let leaves = case.leaves(&device, DType::F32);
        assert_eq!(case.cell(&leaves).reason(&device), None, "{}", case.name());
    }
}

/// Auto takes the kernel, and Composed does not: they differ in some last bit.
#[test]
fn auto_is_fused() {
    for case in few() {
        for (_, device) in devices(DType::F32) {
            let results = |strategy| {
                let leaves = case.leaves(&device, DType::F32);
                case.results_on(&leaves, strategy, false)
            };
            let fused = results(Strategy::Fused);
            assert!(results(Strategy::Auto) == fused, "{}", case.name());
            assert!(results(Strategy::Composed) != fused, "{}", case.name());
        }
    }
    assert_eq!(Strategy::default(), Strategy::Auto);
}

#[test]
fn auto_is_composed_in_f64() {
    let device = Device::flex().autodiff();
    for case in few() {
        let leaves = case.leaves(&device, DType::F64);
        let got = case.results_on(&leaves, Strategy::Auto, false);
        assert!(got == case.reference(), "{}", case.name());
    }
}

#[test]
fn fused_in_f64_panics() {
    let device = Device::flex().autodiff();
    let expected =
        "the strategy is Fused, but there are fused kernels for f32 only, the input is F64";
    let case = Case::new(Kind::Lstm, "plain", dims(3, 5, 7, 11)).ragged(5);
    for packed in [false, true] {
        let leaves = case.leaves(&device, DType::F64);
        let text = message(|| drop(case.run(&leaves, Strategy::Fused, packed)));
        assert_eq!(text, expected);
    }
    let leaves = case.leaves(&device, DType::F64);
    let cell = case.cell(&leaves);
    let input = Tensor::zeros([3, 7], (&device, DType::F64));
    let state = case.state(&*cell, &leaves);
    let text = message(|| {
        cell.step_by(input, state, &StepMasks::default(), Strategy::Fused);
    });
    assert_eq!(text, expected);
}

#[test]
fn cells_without_a_kernel() {
    for (kind, what) in UNFUSED {
        let case = Case::new(kind, "plain", dims(3, 5, 7, 11));
        for (_, device) in devices(DType::F32) {
            let leaves = case.leaves(&device, DType::F32);
            assert_eq!(
                case.cell(&leaves).reason(&device),
                Some(Unfused::Cell(what))
            );
            let text = message(|| drop(case.run(&leaves, Strategy::Fused, false)));
            assert_eq!(
                text,
                format!("the strategy is Fused, but there is no fused kernel for {what}")
            );
            let results = |strategy| {
                let leaves = case.leaves(&device, DType::F32);
                case.results_on(&leaves, strategy, false)
            };
            assert!(results(Strategy::Auto) == results(Strategy::Composed));
        }
    }
}

#[derive(Clone)]
struct Sum(Tensor<2>);

impl State for Sum {
    fn into_tensors(self) -> Vec<Tensor<2>> {
        vec![self.0]
    }

    fn from_tensors(mut tensors: Vec<Tensor<2>>) -> Self {
        Self(tensors.remove(0))
    }
}

/// A cell of a user's own: it adds up its input.
struct Own;

impl Step for Own {
    type State = Sum;

    fn d_input(&self) -> usize {
        2
    }

    fn d_hidden(&self) -> usize {
        2
    }

    fn state_parts(&self) -> Vec<(&'static str, usize)> {
        vec![("sum", 2)]
    }

    fn step(&self, x: Tensor<2>, state: Sum, _: &StepMasks) -> (Tensor<2>, Sum) {
        let sum = state.0 + x;
        (sum.clone(), Sum(sum))
    }
}

#[test]
fn own_cells_are_composed() {
    let device = Device::flex();
    let input = Tensor::<3>::ones([4, 3, 2], &device);
    let run = |strategy| {
        let options = SequenceOptions {
            strategy,
            ..SequenceOptions::default()
        };
        sequence::run(&Own, input.clone(), None, &options)
    };
    assert_eq!(values(&run(Strategy::Auto).state.0), [4.0; 6]);
    assert_eq!(
        message(|| drop(run(Strategy::Fused))),
        "the strategy is Fused, but there is no fused kernel for cells of this kind"
    );
}

/// A step is a run of one step, to the bit, and the composed step up to rounding.
#[rstest]
fn a_step_is_a_run_of_length_one(#[values(0, 1, 4, 6, 10, 13, 15, 22, 24, 25)] kind: usize) {
    let kind = KINDS[kind];
    for name in FEW_AND_ALL {
        for dims in [dims(3, 1, 7, 11), dims(1, 1, 9, 33)] {
            let case = Case::new(kind, name, dims);
            if !kind.has(&case.options) {
                continue;
            }
            for (_, device) in devices(DType::F32) {
                let leaves = case.leaves(&device, DType::F32);
                let run = case.run(&leaves, Strategy::Fused, false);
                let cell = case.cell(&leaves);
                let masks = case.masks(&*cell, &leaves);
                let at = |mask: &Option<Mask>| mask.as_ref().map(|mask| mask.at(0));
                let masks = StepMasks {
                    hidden: at(&masks.hidden),
                    cell: at(&masks.cell),
                    candidate: at(&masks.candidate),
                    update_hidden: at(&masks.update_hidden),
                    update_cell: at(&masks.update_cell),
                    adapt: at(&masks.adapt),
                };
                let input = || case.input(&leaves).squeeze_dim::<2>(0);
                let state = || case.state(&*cell, &leaves);
                let (output, after) = cell.step_by(input(), state(), &masks, Strategy::Fused);
                assert_eq!(values(&output), values(&run.output), "{}", case.name());
                for (part, (_, expected)) in after.iter().zip(&run.state) {
                    assert_eq!(values(part), values(expected), "{}", case.name());
                }
                let (composed, _) = cell.step_by(input(), state(), &masks, Strategy::Composed);
                for (got, expected) in values(&output).iter().zip(values(&composed)) {
                    assert!((got - expected).abs() < 1e-5, "{}", case.name());
                }
            }
        }
    }
}

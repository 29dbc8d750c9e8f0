//! The kernels of the GRU.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_cubecl::cubecl::prelude::*;

use crate::equations::masks::Masks;
use crate::pointwise::gru::{
    GruCallBuffersCompilationArg, GruGivenBuffersCompilationArg, GruGradBuffersCompilationArg,
    GruKind, GruSavedBuffersCompilationArg, GruScalarsCompilationArg,
    GruStateBuffersCompilationArg, mix, mix_back, open_gates, reset_back, step, step_back,
};
use crate::source::{ALL_MASKS, buffer, mask_starts, properties, settings};

fn scalars() -> GruScalarsCompilationArg {
    GruScalarsCompilationArg {
        units: (),
        rows: (),
        row: (),
        saved_row: (),
        previous_row: (),
        is_first_step: (),
        masks: mask_starts(),
    }
}

fn call<N: Size>() -> GruCallBuffersCompilationArg<N> {
    GruCallBuffersCompilationArg {
        projected: buffer(),
        vectors: buffer(),
        masks: buffer(),
    }
}

fn state<N: Size>() -> GruStateBuffersCompilationArg<N> {
    GruStateBuffersCompilationArg {
        hidden: buffer(),
        out: buffer(),
        saved: buffer(),
    }
}

fn given<N: Size>() -> GruGivenBuffersCompilationArg<N> {
    GruGivenBuffersCompilationArg {
        out: buffer(),
        hidden: buffer(),
    }
}

fn saved<N: Size>() -> GruSavedBuffersCompilationArg<N> {
    GruSavedBuffersCompilationArg {
        saved: buffer(),
        out: buffer(),
        first_hidden: buffer(),
        masks: buffer(),
    }
}

fn grads<N: Size>() -> GruGradBuffersCompilationArg<N> {
    GruGradBuffersCompilationArg {
        direct: buffer(),
        preact: buffer(),
        left: buffer(),
        before: buffer(),
    }
}

/// Kinds that between them take every branch, but for where the reset gate acts.
fn kinds(reset_after: bool) -> [(&'static str, GruKind); 3] {
    let plain = GruKind {
        bias: true,
        bias_hidden: reset_after,
        reset_after,
        masks: Masks::none(),
        save: true,
    };
    let masked = GruKind {
        bias: false,
        bias_hidden: false,
        masks: ALL_MASKS,
        ..plain
    };
    let inference = GruKind {
        save: false,
        ..plain
    };
    [
        ("plain", plain),
        ("masked", masked),
        ("inference", inference),
    ]
}

/// A kernel: its type, its arguments, and what it is compiled for.
macro_rules! kernel {
    ($kernel:ty; $($rest:expr),*) => {
        Box::new(<$kernel>::new(
            settings(0),
            properties(),
            Arc::new(TargetProperties::default()),
            $($rest),*
        )) as Box<dyn CubeKernel>
    };
}

/// Every kernel with its name, for vectors of 1 and 4 values.
pub fn kernels() -> Vec<(String, Box<dyn CubeKernel>)> {
    let mut kernels = Vec::new();
    for lanes in [1, 4] {
        let mut add = |of: &str, name: &str, kernel: Box<dyn CubeKernel>| {
            kernels.push((format!("gru_{of}_{name}_{lanes}"), kernel));
        };
        for (name, kind) in kinds(true) {
            let kernel = kernel!(step::Step; buffer(), call(), state(), scalars(), lanes, kind);
            add("step", name, kernel);
            if kind.save {
                let kernel = kernel!(
                    step_back::StepBack;
                    given(), saved(), grads(), buffer(), scalars(), lanes, kind
                );
                add("step_back", name, kernel);
            }
        }
        for (name, kind) in kinds(false) {
            let kernel = kernel!(
                open_gates::OpenGates;
                buffer(), call(), state(), buffer(), scalars(), lanes, kind
            );
            add("open_gates", name, kernel);
            let kernel = kernel!(mix::Mix; buffer(), call(), state(), scalars(), lanes, kind);
            add("mix", name, kernel);
            if kind.save {
                let kernel = kernel!(
                    mix_back::MixBack;
                    given(), saved(), grads(), buffer(), scalars(), lanes, kind
                );
                add("mix_back", name, kernel);
                let kernel = kernel!(
                    reset_back::ResetBack;
                    buffer(), buffer(), grads(), buffer(), scalars(), lanes, kind
                );
                add("reset_back", name, kernel);
            }
        }
    }
    kernels
}

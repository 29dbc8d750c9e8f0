//! Initial values of packed weights, gate by gate.

use alloc::vec::Vec;

use burn::config::Config;
use burn::module::{Param, ParamId};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};
#[cfg(not(feature = "std"))]
#[allow(unused_imports)] // unused where a dependency brings std in all the same
use num_traits::Float as _;
use recurrent_core::{Gate, GateLayout};

use crate::error::{InvalidConfig, check_finite};

/// How the weights of a cell start.
///
/// Without any setting all are drawn from U(−1/√H, 1/√H), as `torch.nn.LSTM` does. Weight matrices
/// are drawn gate by gate, so that `Orthogonal` gives each gate an orthogonal block and Xavier's
/// fans are those of one gate.
#[derive(Config, Debug, PartialEq)]
pub struct WeightInit {
    /// Input weights W.
    pub input: Option<Initializer>,
    /// Recurrent weights R.
    pub hidden: Option<Initializer>,
    /// Biases.
    pub bias: Option<Initializer>,
    /// Value of the forget gate's bias, in pre-activation units; over `bias`.
    pub forget_bias: Option<f64>,
}

impl WeightInit {
    /// # Errors
    /// If `forget_bias` is not finite, or `bias` is orthogonal, which needs a matrix.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if let Some(forget_bias) = self.forget_bias {
            check_finite("forget_bias", forget_bias)?;
        }
        check_vector_initializer("bias_initializer", &self.bias)
    }
}

/// A vector has no rows and columns to be orthogonal in.
pub(crate) fn check_vector_initializer(
    field: &str,
    initializer: &Option<Initializer>,
) -> Result<(), InvalidConfig> {
    match initializer {
        Some(Initializer::Orthogonal { .. }) => Err(InvalidConfig::value(
            field,
            "Orthogonal",
            "an initializer for vectors; orthogonal needs a matrix",
        )),
        _ => Ok(()),
    }
}

/// U(−1/√n, 1/√n)
pub(crate) fn uniform_by(n: usize) -> Initializer {
    let bound = 1.0 / (n as f64).sqrt();
    Initializer::Uniform {
        min: -bound,
        max: bound,
    }
}

/// A weight `[d_in, gates·H]`, each gate's block `[d_in, H]` drawn on its own.
pub(crate) fn packed_weight(
    layout: GateLayout,
    d_in: usize,
    d_hidden: usize,
    initializer: &Option<Initializer>,
    device: &Device,
) -> Param<Tensor<2>> {
    let initializer = initializer.clone().unwrap_or_else(|| uniform_by(d_hidden));
    let gates = layout.len();
    lazy(
        [d_in, gates * d_hidden],
        move |device| {
            let blocks: Vec<Tensor<2>> = (0..gates)
                .map(|_| {
                    initializer
                        .init_with([d_in, d_hidden], Some(d_in), Some(d_hidden), device)
                        .val()
                        .detach()
                })
                .collect();
            Tensor::cat(blocks, 1)
        },
        device,
    )
}

/// A bias `[gates·H]`; `forget_bias` fills the forget gate's block.
pub(crate) fn packed_bias(
    layout: GateLayout,
    d_hidden: usize,
    initializer: &Option<Initializer>,
    forget_bias: Option<f64>,
    device: &Device,
) -> Param<Tensor<1>> {
    let initializer = initializer.clone().unwrap_or_else(|| uniform_by(d_hidden));
    lazy(
        [layout.len() * d_hidden],
        move |device| {
            let blocks: Vec<Tensor<1>> = layout
                .gates()
                .iter()
                .map(|gate| match (gate, forget_bias) {
                    (Gate::Forget, Some(value)) => Tensor::full([d_hidden], value, device),
                    _ => initializer
                        .init_with([d_hidden], Some(d_hidden), Some(d_hidden), device)
                        .val()
                        .detach(),
                })
                .collect();
            Tensor::cat(blocks, 0)
        },
        device,
    )
}

/// A parameter that is computed at its first use, as Burn's own are.
fn lazy<const D: usize>(
    shape: [usize; D],
    make: impl Fn(&Device) -> Tensor<D> + Send + Sync + 'static,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| {
            // What is joined from parts is no leaf of a graph until it is detached.
            let tensor = make(device).detach();
            if require_grad {
                tensor.require_grad()
            } else {
                tensor
            }
        },
        device.clone(),
        true,
        shape.into(),
    )
}

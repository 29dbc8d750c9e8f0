//! Initial values of packed weights, gate by gate.

use alloc::vec::Vec;

use burn::config::Config;
use burn::module::{Param, ParamId};
use burn::nn::Initializer;
use burn::tensor::{Device, Distribution, Tensor};
#[cfg(not(feature = "std"))]
#[allow(unused_imports)] // unused where a dependency brings std in all the same
use num_traits::Float as _;
use recurrent_core::equations::ur::{chrono_bias, uniform_gate_bias};
use recurrent_core::{Gate, GateLayout};

use crate::error::{InvalidConfig, check_finite};

/// The initialisation of a cell's weights.
///
/// Without any setting all are drawn from U(−1/√H, 1/√H), as `torch.nn.LSTM` does. Weight matrices
/// are drawn gate by gate: `Orthogonal` makes the block of each gate orthogonal, and the fan-in and fan-out of
/// Xavier are those of one gate.
#[derive(Config, Debug, PartialEq)]
pub struct WeightInit {
    /// Input weights W.
    pub input: Option<Initializer>,
    /// Recurrent weights R.
    pub hidden: Option<Initializer>,
    /// Biases.
    pub bias: Option<Initializer>,
    /// Value of the forget gate's bias, in pre-activation units; overrides `bias`.
    pub forget_bias: Option<f64>,
    /// Distribution of the forget gate's bias; overrides `bias`.
    pub gate_init: Option<GateInit>,
}

/// The initialisation of the forget gate's bias, which decides how long the cell remembers before training.
#[derive(Config, Debug, PartialEq, Copy)]
pub enum GateInit {
    /// The same value everywhere, in pre-activation units.
    Constant {
        /// The value.
        value: f64,
    },
    /// Uniform gate initialisation: σ(b) ~ U[1/H, 1 − 1/H] (Gu et al., arXiv:1910.09890).
    Uniform,
    /// Chrono initialisation: b = log(u), u ~ U[1, t_max − 1]; the input gate, where it has a bias
    /// of its own, gets −b (Tallec & Ollivier, arXiv:1804.11188).
    Chrono {
        /// The longest dependency expected, in steps.
        t_max: usize,
    },
}

impl GateInit {
    /// # Errors
    /// If a constant is not finite, or `t_max` is below 3, where the range of u is empty.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        match *self {
            Self::Constant { value } => check_finite("gate_init.value", value),
            Self::Chrono { t_max } if t_max < 3 => {
                Err(InvalidConfig::value("gate_init.t_max", t_max, "at least 3"))
            }
            _ => Ok(()),
        }
    }

    /// A bias `[d_hidden]`.
    fn draw(self, d_hidden: usize, device: &Device) -> Tensor<1> {
        let unit = || Tensor::<1>::random([d_hidden], Distribution::Uniform(0.0, 1.0), device);
        match self {
            Self::Constant { value } => Tensor::full([d_hidden], value, device),
            Self::Uniform => uniform_gate_bias(unit()),
            Self::Chrono { t_max } => chrono_bias(unit(), t_max),
        }
    }
}

/// The bias b `[H]` of the UR family.
pub(crate) fn gate_bias(
    d_hidden: usize,
    gate_init: GateInit,
    trainable: bool,
    device: &Device,
) -> Param<Tensor<1>> {
    let bias = lazy(
        [d_hidden],
        move |device| gate_init.draw(d_hidden, device),
        device,
    );
    if trainable {
        bias
    } else {
        bias.set_require_grad(false)
    }
}

impl WeightInit {
    /// # Errors
    /// If `forget_bias` is not finite or set together with `gate_init`, `gate_init` is invalid, or
    /// `bias` is orthogonal, which needs a matrix.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if let Some(gate_init) = self.gate_init {
            gate_init.validate()?;
            if self.forget_bias.is_some() {
                return Err(InvalidConfig::contradiction(
                    "forget_bias",
                    "gate_init",
                    "both set the forget gate's bias",
                ));
            }
        }
        if let Some(forget_bias) = self.forget_bias {
            check_finite("forget_bias", forget_bias)?;
        }
        check_vector_initializer("bias_initializer", &self.bias)
    }

    /// The distribution of the forget gate's bias, if one is set.
    pub(crate) fn forget(&self) -> Option<GateInit> {
        let constant = self.forget_bias.map(|value| GateInit::Constant { value });
        self.gate_init.or(constant)
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

/// A weight `[d_in, gates·H]`, each gate's block `[d_in, H]` drawn separately.
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

/// A bias `[gates·H]`; `forget` is the distribution of the forget gate's block.
pub(crate) fn packed_bias(
    layout: GateLayout,
    d_hidden: usize,
    initializer: &Option<Initializer>,
    forget: Option<GateInit>,
    device: &Device,
) -> Param<Tensor<1>> {
    let initializer = initializer.clone().unwrap_or_else(|| uniform_by(d_hidden));
    lazy(
        [layout.len() * d_hidden],
        move |device| {
            let forget_block = forget.map(|forget| forget.draw(d_hidden, device));
            let blocks: Vec<Tensor<1>> = layout
                .gates()
                .iter()
                .map(|gate| match (gate, &forget_block, forget) {
                    (Gate::Forget, Some(block), _) => block.clone(),
                    (Gate::Input, Some(block), Some(GateInit::Chrono { .. })) => {
                        block.clone().neg()
                    }
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

/// A lazily initialised parameter, like those of Burn's modules.
fn lazy<const D: usize>(
    shape: [usize; D],
    make: impl Fn(&Device) -> Tensor<D> + Send + Sync + 'static,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| {
            // A concatenation is not a leaf of the graph until it is detached.
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

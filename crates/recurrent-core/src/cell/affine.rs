//! The affine map `x·W + b`.

use burn::tensor::Tensor;

/// Weights and optional bias of an affine map on row vectors.
#[derive(Debug, Clone)]
pub struct Affine {
    /// W `[d_in, d_out]`
    pub weight: Tensor<2>,
    /// b `[d_out]`
    pub bias: Option<Tensor<1>>,
}

impl Affine {
    /// An affine map without a bias.
    pub fn linear(weight: Tensor<2>) -> Self {
        Self { weight, bias: None }
    }

    /// `x·W + b`
    ///
    /// # Shapes
    /// - x `[rows, d_in]`, output `[rows, d_out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let product = x.matmul(self.weight.clone());
        match &self.bias {
            Some(bias) => product + bias.clone().unsqueeze(),
            None => product,
        }
    }

    /// Rows of the weight.
    pub fn d_in(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Columns of the weight.
    pub fn d_out(&self) -> usize {
        self.weight.dims()[1]
    }
}

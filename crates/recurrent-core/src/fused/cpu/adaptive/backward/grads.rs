//! The gradients of a layer, for all rows.

use crate::fused::cpu::buffer::Buffer;
use crate::fused::cpu::layout::Layout;
use crate::fused::cpu::product::Columns;
use crate::fused::cpu::simd::Isa;
use crate::fused::problem::adaptive::{AdaptiveProblem, WEIGHTS, Weight, weight_index};

/// A layer's gradients for all rows, and the transposed left factors of its wanted weights.
pub struct LayerGrads {
    /// ∂z `[N, 4H]`, in tiles
    preact: Buffer,
    /// ∂a, ∂b `[N, 4H]`, in tiles
    from: [Buffer; 2],
    /// ∂(z'·P) for p_x `[N, I]` and p_h `[N, H]`
    policy_scales: [Buffer; 2],
    /// The same for p_i, p_g, p_b `[N, 4H]`, in tiles
    policy_gates: [Buffer; 3],
    /// ∂q `[N, 4A]`
    adapt: Buffer,
    /// The left factor of each weight, transposed: `[features, N]`.
    factors: [Buffer; WEIGHTS],
}

/// The addresses of these buffers.
pub struct Pointers {
    /// ∂z
    pub preact: *mut f32,
    /// ∂a, ∂b
    pub from: [*mut f32; 2],
    /// ∂(z'·P) for p_x, p_h
    pub policy_scales: [*mut f32; 2],
    /// The same for p_i, p_g, p_b
    pub policy_gates: [*mut f32; 3],
    /// ∂q
    pub adapt: *mut f32,
    /// Transposed left factors; dangling for weights that are not wanted.
    pub factors: [*mut f32; WEIGHTS],
}

/// Number of features of the left factor of a weight.
pub fn features(problem: &AdaptiveProblem, layer: usize, weight: Weight) -> usize {
    let sizes = &problem.layers[layer];
    match weight {
        Weight::AdaptInput => problem.d_seen(layer),
        Weight::AdaptHidden | Weight::Policy => sizes.d_adapt,
        Weight::Input => sizes.d_input,
        Weight::Hidden => sizes.d_hidden,
    }
}

impl LayerGrads {
    /// Allocates the buffers of a layer.
    pub fn new(
        isa: Isa,
        problem: &AdaptiveProblem,
        layout: Layout,
        index: usize,
        wanted: &[bool],
    ) -> Self {
        let rows = problem.rows();
        let layer = &problem.layers[index];
        let room = |size: usize| Buffer::new(rows * size);
        let tiles = || Buffer::new(layout.size);
        let mut preact = tiles();
        layout.clear_padding(&Columns::gates(4, layer.d_hidden, isa.lanes()), &mut preact);
        let of_bias = if layer.bias {
            tiles()
        } else {
            Buffer::default()
        };
        let factor = |weight| match wanted[weight_index(index, weight)] {
            true => room(features(problem, index, weight)),
            false => Buffer::default(),
        };
        Self {
            preact,
            from: [tiles(), tiles()],
            policy_scales: [room(layer.d_input), room(layer.d_hidden)],
            policy_gates: [tiles(), tiles(), of_bias],
            adapt: room(4 * layer.d_adapt),
            factors: Weight::ALL.map(factor),
        }
    }

    /// The addresses of the buffers.
    pub fn pointers(&mut self) -> Pointers {
        Pointers {
            preact: self.preact.as_mut_ptr(),
            from: self.from.each_mut().map(|from| from.as_mut_ptr()),
            policy_scales: (self.policy_scales.each_mut()).map(|part| part.as_mut_ptr()),
            policy_gates: (self.policy_gates.each_mut()).map(|part| part.as_mut_ptr()),
            adapt: self.adapt.as_mut_ptr(),
            factors: self.factors.each_mut().map(|factor| factor.as_mut_ptr()),
        }
    }
}

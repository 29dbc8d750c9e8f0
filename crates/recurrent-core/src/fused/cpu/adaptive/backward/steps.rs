//! The phases of a step in the backward.

use super::super::ops::{CarryBack, MixBack, ScaleBack};
use super::super::{Factor, NO_PEEPHOLES, kind, tile_of};
use super::Backward;
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::buffer::Buffer;
use crate::fused::cpu::pointwise::{self, Half};
use crate::fused::cpu::product::{Onto, Term};
use crate::fused::cpu::view::Rows;
use crate::fused::problem::adaptive::StatePart;

impl Backward<'_> {
    /// The backward of the main cell's gates at a step.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn main(&self, step: usize, layer: usize, share: usize) {
        let sizes = &self.problem.layers[layer];
        let (rows, d_hidden) = (self.problem.counts[step], sizes.d_hidden);
        let offset = self.offsets[step];
        // The columns of ∂h that this share has passed back; they start at a vector boundary.
        let columns = &self.weight(layer, Factor::Hidden).columns;
        let units = columns.units(&self.crew.panels(columns, share));
        let columns = self.gates(layer);
        let panels = match units.is_empty() {
            true => 0..0,
            false => units.start / columns.lanes..units.end.div_ceil(columns.lanes),
        };
        let mask = |mask| {
            let rows = self.masks.get(mask, layer, offset);
            rows.unwrap_or(Rows::NONE)
        };
        let saved = &self.saved.layers[layer];
        let grads = &self.layers[layer];
        let grad_hidden = Rows {
            ptr: self.grad_hidden,
            stride: d_hidden,
        };
        let carry = CarryBack {
            rows,
            units: units.clone(),
            grad_hidden: self.grad_state(layer, StatePart::Hidden),
            grad_output: match layer + 1 == self.problem.layers.len() {
                true => self.rows_saved(self.grad_output, step, d_hidden),
                false => Rows::NONE,
            },
            mask: mask(MaskPlace::Hidden),
            update: mask(MaskPlace::UpdateHidden),
            grad: grad_hidden,
        };
        let tiles = |buffer: *const f32| saved.layout.rows(buffer.cast_mut(), offset);
        let backward = pointwise::LstmBackward {
            rows,
            units: units.clone(),
            gates: tiles(saved.gates.as_ptr()),
            cell: self.before(step, layer, StatePart::Cell),
            normalized: Rows::NONE,
            carry_normalized: false,
            grad_hidden,
            grad_output: Rows::NONE,
            grad_cell: self.grad_state(layer, StatePart::Cell),
            grad_normalized: Rows::NONE,
            grad_raw: Rows::NONE,
            grad_preact: tiles(grads.preact),
            masks: self.masks.inside(layer, offset, false),
            peepholes: NO_PEEPHOLES,
            clip: sizes.clip,
        };
        // SAFETY: this share's own units, of which ∂h' and ∂c' are complete.
        unsafe {
            for part in [StatePart::Cell, StatePart::Hidden] {
                self.add_given(step, layer, part, units.clone());
            }
            carry.run(self.crew.isa);
            backward.run(self.crew.isa, kind(self.masks.masked), Half::Both);
            for panel in panels {
                let read = |buffer: &Buffer| tile_of(tiles(buffer.as_ptr()), panel).cast_const();
                let write = |buffer: *mut f32| tile_of(tiles(buffer), panel);
                let mix = MixBack {
                    rows,
                    width: columns.width(),
                    grad: write(grads.preact).cast_const(),
                    from: saved.from.each_ref().map(read),
                    policy: saved.policy_gates.each_ref().map(read),
                    bias: match sizes.bias {
                        true => self.biases[layer].as_ptr().add(panel * columns.width()),
                        false => core::ptr::null(),
                    },
                    grad_from: grads.from.map(write),
                    grad_policy: grads.policy_gates.map(write),
                };
                mix.run(self.crew.isa);
            }
        }
    }

    /// The gradients that pass through the scaled input and hidden state.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn scaled(&self, step: usize, layer: usize, share: usize) {
        let sizes = &self.problem.layers[layer];
        let (saved, own) = (&self.saved.layers[layer], &self.layers[layer]);
        let (rows, offset) = (self.problem.counts[step], self.offsets[step]);
        let features = [sizes.d_input, sizes.d_hidden];
        let values = [
            self.input(layer).from_row(self.offsets[step]),
            self.before(step, layer, StatePart::Hidden),
        ];
        let grads = [
            // For layer 0 this is the first part of ∂x; the gradient of a layer below already holds
            // another part.
            (self.grad_input(step, layer), layer > 0),
            // Under zoneout, the direct part is already there.
            (
                self.grad_state(layer, StatePart::Hidden),
                self.problem.has(MaskPlace::UpdateHidden),
            ),
        ];
        for (which, factor) in [Factor::Input, Factor::Hidden].into_iter().enumerate() {
            let matrix = self.weight(layer, factor);
            let columns = &matrix.columns;
            let panels = self.crew.panels(columns, share);
            let (from, pieces) = saved.layout.factor(own.from[which], offset);
            let policy = self.rows_saved(&saved.policy_scales[which], step, features[which]);
            let (grad, add) = grads[which];
            // SAFETY: ∂a and ∂b are complete; the scratch and the columns of this share.
            unsafe {
                let scratch = self.crew.scratch(share);
                let finish = |panel: usize, tile| {
                    let back = ScaleBack {
                        rows,
                        columns: columns.units(&(panel..panel + 1)),
                        tile,
                        value: values[which],
                        policy,
                        grad_policy: self.rows_of(own.policy_scales[which], step, features[which]),
                        grad,
                        add,
                    };
                    back.run(self.crew.isa);
                };
                let terms = [Term {
                    pieces,
                    ..matrix.term(from)
                }];
                self.product(step, &terms, matrix)
                    .each_tile(scratch, panels, finish);
            }
        }
    }

    /// The backward of the adaptation cell's gates at a step.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn adapt(&self, step: usize, layer: usize, share: usize) {
        let sizes = &self.problem.layers[layer];
        let (rows, d_adapt) = (self.problem.counts[step], sizes.d_adapt);
        let columns = &self.weight(layer, Factor::PolicyInput).columns;
        let panels = self.crew.panels(columns, share);
        let grad_z = self.grad_state(layer, StatePart::Z);
        let grads = &self.layers[layer];
        let [grad_x, grad_h] = [(0, sizes.d_input), (1, sizes.d_hidden)].map(|(which, size)| {
            let rows = self.rows_of(grads.policy_scales[which], step, size);
            (rows.view(), None)
        });
        let layout = &self.saved.layers[layer].layout;
        let [grad_i, grad_g, grad_b] =
            (grads.policy_gates).map(|grad| layout.factor(grad, self.offsets[step]));
        let lefts = [grad_x, grad_h, grad_i, grad_g, grad_b];
        let terms: [Term; 5] = core::array::from_fn(|part| {
            let (a, pieces) = lefts[part];
            let matrix = self.weight(layer, Factor::POLICY[part]);
            Term {
                pieces,
                ..matrix.term(a)
            }
        });
        // p_b is the last one.
        let terms = &terms[..if sizes.bias { 5 } else { 4 }];
        let backward = pointwise::LstmBackward {
            rows,
            units: columns.units(&panels),
            gates: self
                .rows_saved(&self.saved.layers[layer].adapt_gates, step, 4 * d_adapt)
                .gates(d_adapt, self.crew.isa),
            cell: self.before(step, layer, StatePart::AdaptCell),
            normalized: Rows::NONE,
            carry_normalized: false,
            grad_hidden: grad_z,
            grad_output: Rows::NONE,
            grad_cell: self.grad_state(layer, StatePart::AdaptCell),
            grad_normalized: Rows::NONE,
            grad_raw: Rows::NONE,
            grad_preact: self
                .rows_of(grads.adapt, step, 4 * d_adapt)
                .gates(d_adapt, self.crew.isa),
            masks: self.masks.adapt(layer, self.offsets[step]),
            peepholes: NO_PEEPHOLES,
            clip: sizes.clip_adapt,
        };
        // SAFETY: ∂(z'·P) is complete, and so are the gradients that later steps pass to ∂z' and ∂m';
        // the scratch and the units belong to this share.
        unsafe {
            for part in [StatePart::AdaptCell, StatePart::Z] {
                self.add_given(step, layer, part, columns.units(&panels));
            }
            let scratch = self.crew.scratch(share);
            let matrix = self.weight(layer, Factor::PolicyInput);
            let product = self.product(step, terms, matrix);
            product.write(scratch, panels, grad_z, Onto::Sum);
            let kind = kind(self.problem.has(MaskPlace::Adapt));
            backward.run(self.crew.isa, kind, Half::Both);
        }
    }

    /// From ∂q to ∂x, ∂h, ∂z and ∂z_below, for this share's columns of each.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn pass_back(&self, step: usize, layer: usize, share: usize) {
        let width = 4 * self.problem.layers[layer].d_adapt;
        let grad = self.rows_of(self.layers[layer].adapt, step, width).view();
        let below = self.problem.below(layer);
        let results = [
            (Factor::AdaptInput, self.grad_input(step, layer), Onto::Sum),
            (
                Factor::AdaptHidden,
                self.grad_state(layer, StatePart::Hidden),
                Onto::Sum,
            ),
            (
                Factor::AdaptRecurrent,
                self.grad_state(layer, StatePart::Z),
                Onto::Fresh,
            ),
            // For the first layer this is ∂z of the top layer at the previous step; the top layer's own
            // part is already stored there.
            (
                Factor::AdaptBelow,
                self.grad_state(below, StatePart::Z),
                Onto::Sum,
            ),
        ];
        for (factor, out, onto) in results {
            if out.is_none() {
                continue;
            }
            let matrix = self.weight(layer, factor);
            let columns = &matrix.columns;
            let panels = self.crew.panels(columns, share);
            // SAFETY: ∂q is complete; the scratch and the columns of this share.
            unsafe {
                let scratch = self.crew.scratch(share);
                let terms = [matrix.term(grad)];
                let product = self.product(step, &terms, matrix);
                product.write(scratch, panels, out, onto);
            }
        }
    }
}

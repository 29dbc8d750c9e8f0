//! The phases of a step in the forward.

use core::ops::Range;

use super::super::ops::{Carry, Mix, Scale};
use super::super::{Factor, NO_PEEPHOLES, Tiles, kind, tile_of};
use super::Forward;
use crate::equations::masks::MaskPlace;
use crate::fused::cpu::pointwise::{self, Half};
use crate::fused::cpu::product::serpentine;
use crate::fused::cpu::view::Rows;
use crate::fused::problem::adaptive::{BIASES, Layer, StatePart};

/// The arguments of the main cell of a step, for all units.
struct MainStep {
    step: usize,
    layer: usize,
    gates: pointwise::LstmForward,
    /// Computes h' from y, if h' is masked.
    carry: Option<Carry>,
}

impl Forward<'_> {
    /// The adaptation cell of a step.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn adapt(&self, step: usize, layer: usize, share: usize) {
        let rows = self.problem.counts[step];
        let tracks = &self.tracks[layer];
        let hidden = self.before(step, layer, StatePart::Hidden);
        let z = self.before(step, layer, StatePart::Z);
        let term = |factor: Factor, rows: Rows| self.weight(layer, factor).term(rows.view());
        let terms = [
            term(Factor::AdaptInput, self.input(step, layer)),
            term(Factor::AdaptHidden, hidden),
            term(Factor::AdaptBelow, self.below(step, layer)),
            term(Factor::AdaptRecurrent, z),
        ];
        let matrix = self.weight(layer, Factor::AdaptInput);
        let columns = &matrix.columns;
        let bias = self.tensors.0[BIASES].as_ptr();
        let bias = bias.wrapping_add(self.problem.bias_start(layer));
        let Layer {
            d_adapt,
            clip_adapt,
            ..
        } = self.problem.layers[layer];
        let forward = pointwise::LstmForward {
            rows,
            units: 0..0,
            tile: None,
            preact: Rows::read(bias, 0).gates(d_adapt, self.crew.isa),
            gates: self
                .after(tracks.adapt_gates, step)
                .gates(d_adapt, self.crew.isa),
            cell: self.before(step, layer, StatePart::AdaptCell),
            cell_next: self.after(tracks.adapt_cells, step),
            raw: Rows::NONE,
            normalized: Rows::NONE,
            carry_normalized: false,
            hidden: z,
            hidden_next: self.after(tracks.z, step),
            masks: self.masks.adapt(layer, self.offsets[step]),
            peepholes: NO_PEEPHOLES,
            clip: clip_adapt,
        };
        let kind = kind(self.problem.has(MaskPlace::Adapt));
        let panels = self.crew.panels(columns, share);
        // SAFETY: the scratch and the units belong to this share; the phases before are complete. z is
        // read by all shares, and z' is in other memory.
        unsafe {
            let scratch = self.crew.scratch(share);
            let finish = |panel: usize, tile| {
                let forward = pointwise::LstmForward {
                    units: columns.units(&(panel..panel + 1)),
                    tile: Some(tile),
                    ..forward.clone()
                };
                forward.run(self.crew.isa, kind, Half::Both);
            };
            self.product(step, &terms, matrix)
                .each_tile(scratch, panels, finish);
        }
    }

    /// The policy of a step, and the values that it scales.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn policy(&self, step: usize, layer: usize, share: usize) {
        let rows = self.problem.counts[step];
        let tracks = &self.tracks[layer];
        let z = self.after(tracks.z, step).view();
        let values = [
            (Factor::PolicyInput, self.input(step, layer)),
            (
                Factor::PolicyHidden,
                self.before(step, layer, StatePart::Hidden),
            ),
        ];
        for (which, (factor, values)) in values.into_iter().enumerate() {
            let matrix = self.weight(layer, factor);
            let columns = &matrix.columns;
            let panels = self.crew.panels(columns, share);
            // SAFETY: the scratch and the columns of this share; z' is complete.
            unsafe {
                let scratch = self.crew.scratch(share);
                let finish = |panel: usize, tile| {
                    let scale = Scale {
                        rows,
                        columns: columns.units(&(panel..panel + 1)),
                        tile,
                        policy: self.after(tracks.policy_scales[which], step),
                        values,
                        scaled: self.after(tracks.scaled[which], step),
                    };
                    scale.run(self.crew.isa);
                };
                let terms = [matrix.term(z)];
                self.product(step, &terms, matrix)
                    .each_tile(scratch, panels, finish);
            }
        }
    }

    /// The main cell of a step.
    ///
    /// # Safety
    /// As [`work`](crate::fused::cpu::driver::Run::work), for this phase.
    pub(super) unsafe fn main(&self, step: usize, layer: usize, share: usize) {
        let columns = &self.weight(layer, Factor::Hidden).columns;
        let panels = self.crew.panels(columns, share);
        let main = self.main_step(step, layer);
        // SAFETY: this share's own panels.
        unsafe {
            if self.problem.counts[step] == 1 {
                // For one sequence, the gates of one panel are a serial dependency chain; those of all
                // its panels overlap.
                self.main_panels(&main, panels, share);
            } else {
                for panel in serpentine(panels, step) {
                    self.main_panels(&main, panel..panel + 1, share);
                }
            }
        }
    }

    /// The arguments of the main cell of a step.
    fn main_step(&self, step: usize, layer: usize) -> MainStep {
        let tracks = &self.tracks[layer];
        let sizes = &self.problem.layers[layer];
        let offset = self.offsets[step];
        let hidden = self.before(step, layer, StatePart::Hidden);
        let mask = self.masks.get(MaskPlace::Hidden, layer, offset);
        let output = match (tracks.output, mask) {
            (Some(output), _) => self.after(output, step),
            (None, None) => self.after(tracks.hidden, step),
            (None, Some(_)) => Rows {
                ptr: self.unmasked,
                stride: sizes.d_hidden,
            },
        };
        let gates = tracks.gates.at(offset);
        let rows = self.problem.counts[step];
        let update = self.masks.get(MaskPlace::UpdateHidden, layer, offset);
        let carry = |mask| Carry {
            rows,
            units: 0..0,
            output,
            mask,
            update: update.unwrap_or(Rows::NONE),
            hidden,
            hidden_next: self.after(tracks.hidden, step),
        };
        MainStep {
            step,
            layer,
            gates: pointwise::LstmForward {
                rows,
                units: 0..0,
                tile: None,
                preact: gates,
                gates,
                cell: self.before(step, layer, StatePart::Cell),
                cell_next: self.after(tracks.cells, step),
                raw: Rows::NONE,
                normalized: Rows::NONE,
                carry_normalized: false,
                hidden,
                hidden_next: output,
                masks: self.masks.inside(layer, offset, true),
                peepholes: NO_PEEPHOLES,
                clip: sizes.clip,
            },
            carry: mask.map(carry),
        }
    }

    /// The main cell of a step for some panels: products, policy, gates.
    ///
    /// # Safety
    /// The panels are this share's own; x ⊙ p_x, h ⊙ p_h and z' are complete.
    unsafe fn main_panels(&self, main: &MainStep, panels: Range<usize>, share: usize) {
        let &MainStep { step, layer, .. } = main;
        let (tracks, isa) = (&self.tracks[layer], self.crew.isa);
        let (rows, offset) = (self.problem.counts[step], self.offsets[step]);
        let bias = self.problem.layers[layer].bias;
        let columns = &self.weight(layer, Factor::Hidden).columns;
        let units = columns.units(&panels);
        // SAFETY: by the contract of this function. h and c are read only at this share's own units,
        // before they are written.
        unsafe {
            for panel in serpentine(panels.clone(), step) {
                self.main_products(step, layer, panel, share);
            }
            for panel in panels {
                let tile = |tiles: Tiles| tile_of(tiles.at(offset), panel);
                let width = columns.width();
                let mix = Mix {
                    rows,
                    width,
                    policy: tracks.policy_gates.map(tile),
                    from: tracks.from.map(tile).map(|from| from.cast_const()),
                    bias: match bias {
                        true => self.biases[layer].as_ptr().add(panel * width),
                        false => core::ptr::null(),
                    },
                    preact: tile(tracks.gates),
                };
                mix.run(isa);
            }
            let forward = pointwise::LstmForward {
                units: units.clone(),
                ..main.gates.clone()
            };
            forward.run(isa, kind(self.masks.masked), Half::Both);
            if let Some(carry) = &main.carry {
                let carry = Carry {
                    units,
                    ..carry.clone()
                };
                carry.run(isa);
            }
        }
    }

    /// The products of a panel of the main cell, each in separate tiles.
    ///
    /// # Safety
    /// As [`main_panels`](Self::main_panels).
    unsafe fn main_products(&self, step: usize, layer: usize, panel: usize, share: usize) {
        let tracks = &self.tracks[layer];
        let z = self.after(tracks.z, step);
        let [x, h] = tracks.scaled.map(|track| self.after(track, step));
        let [p_i, p_g, p_b] = tracks.policy_gates;
        let [from_x, from_h] = tracks.from;
        let products = [
            (Factor::PolicyFromInput, z, p_i),
            (Factor::PolicyFromHidden, z, p_g),
            (Factor::Input, x, from_x),
            (Factor::Hidden, h, from_h),
            (Factor::PolicyBias, z, p_b),
        ];
        // p_b is the last one.
        let bias = self.problem.layers[layer].bias;
        for &(factor, a, tiles) in &products[..if bias { 5 } else { 4 }] {
            let matrix = self.weight(layer, factor);
            let terms = [matrix.term(a.view())];
            let sums = tiles.sums(self.offsets[step]);
            // SAFETY: by the contract of this function; the scratch of this share.
            unsafe {
                let scratch = self.crew.scratch(share);
                let product = self.product(step, &terms, matrix);
                product.sum_into(scratch, [panel], sums, |_, _| ());
            }
        }
    }
}

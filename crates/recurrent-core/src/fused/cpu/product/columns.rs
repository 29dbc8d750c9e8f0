//! How the columns of a product are grouped into panels and divided into shares.

use core::ops::Range;

/// Maximum number of vectors per row of a panel.
pub const MAX_VECTORS: usize = 4;

/// How columns are grouped into panels.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// Vectors per row of a panel.
    pub vectors: usize,
    /// Lanes per vector.
    pub lanes: usize,
    /// Columns per gate; all columns if there are no gates.
    per_gate: usize,
    /// Whether each vector of a panel belongs to a different gate.
    gated: bool,
}

impl Columns {
    /// Vector v of panel p holds the units `p·lanes..` of gate v.
    pub fn gates(gates: usize, units: usize, lanes: usize) -> Self {
        Self {
            vectors: gates,
            lanes,
            per_gate: units,
            gated: true,
        }
    }

    /// Consecutive columns; panels are as wide as possible, but there are enough of them for `shares`.
    pub fn plain(columns: usize, lanes: usize, shares: usize) -> Self {
        let vectors = columns.div_ceil(lanes).div_ceil(shares);
        Self {
            vectors: vectors.clamp(1, MAX_VECTORS),
            lanes,
            per_gate: columns,
            gated: false,
        }
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        let width = if self.gated { self.lanes } else { self.width() };
        self.per_gate.div_ceil(width)
    }

    /// Number of columns.
    pub fn count(&self) -> usize {
        self.per_gate * if self.gated { self.vectors } else { 1 }
    }

    /// Number of columns including the padding of the last panel.
    pub fn padded(&self) -> usize {
        self.panels() * self.width()
    }

    /// Number of values in a row of a panel.
    pub fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// The columns in vector `vector` of panel `panel`; fewer than the number of lanes at the end.
    pub fn of(&self, panel: usize, vector: usize) -> Range<usize> {
        let (offset, first) = if self.gated {
            (vector * self.per_gate, panel * self.lanes)
        } else {
            (0, (panel * self.vectors + vector) * self.lanes)
        };
        let first = first.min(self.per_gate);
        let end = (first + self.lanes).min(self.per_gate);
        offset + first..offset + end
    }

    /// The column ranges of some panels, one per gate.
    pub fn ranges(self, panels: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (units, all) = (self.units(&panels), self.per_gate);
        let gates = if self.gated { self.vectors } else { 1 };
        (0..gates).map(move |gate| gate * all + units.start..gate * all + units.end)
    }

    /// The vectors of some panels as (panel, vector), in the order in which they occur in a row-major row.
    pub fn along_row(&self, panels: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        let (start, count, vectors, gated) = (panels.start, panels.len(), self.vectors, self.gated);
        (0..count * vectors).map(move |index| match gated {
            true => (start + index % count, index / count),
            false => (start + index / vectors, index % vectors),
        })
    }

    /// The panels of one of `shares` equal parts.
    pub fn share(&self, share: usize, shares: usize) -> Range<usize> {
        part(self.panels(), share, shares)
    }

    /// The columns (of each gate) in the given panels.
    pub fn units(&self, panels: &Range<usize>) -> Range<usize> {
        let width = if self.gated { self.lanes } else { self.width() };
        (panels.start * width).min(self.per_gate)..(panels.end * width).min(self.per_gate)
    }
}

/// A range in serpentine order: ascending at even steps, descending at odd ones. The items that a step
/// reads last are still in the cache, and the next step reads them first.
pub fn serpentine(range: Range<usize>, step: usize) -> impl Iterator<Item = usize> {
    let (start, end) = (range.start, range.end);
    range.map(move |index| match step % 2 {
        0 => index,
        _ => start + end - 1 - index,
    })
}

/// Part `share` of `count` items divided into `shares` parts.
pub fn part(count: usize, share: usize, shares: usize) -> Range<usize> {
    count * share / shares..count * (share + 1) / shares
}

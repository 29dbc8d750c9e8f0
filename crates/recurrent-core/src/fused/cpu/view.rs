//! Strided views of matrices, rows and rows of gates.

use super::simd::Isa;

/// A strided matrix.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The first value.
    pub ptr: *const f32,
    /// Row stride.
    pub row: usize,
    /// Column stride.
    pub column: usize,
}

// SAFETY: a view is an address; the unsafe functions that read through it have their own contracts.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// Row-major values, `width` columns.
    pub fn rows(values: &[f32], width: usize) -> Self {
        Self {
            ptr: values.as_ptr(),
            row: width,
            column: 1,
        }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        Self {
            ptr: self.ptr,
            row: self.column,
            column: self.row,
        }
    }

    /// The matrix starting at row `row`.
    pub fn from_row(self, row: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(row * self.row),
            ..self
        }
    }

    /// The matrix starting at column `column`.
    pub fn from_column(self, column: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(column * self.column),
            ..self
        }
    }
}

/// One row of values per sequence of a step: row `b` begins at `ptr + b·stride`.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Row 0.
    pub ptr: *mut f32,
    /// Row stride; 0 if all rows are the same.
    pub stride: usize,
}

impl Rows {
    /// No rows: for arguments that are not accessed.
    pub const NONE: Self = Self {
        ptr: core::ptr::null_mut(),
        stride: 0,
    };

    /// Rows for reading.
    pub fn read(ptr: *const f32, stride: usize) -> Self {
        Self {
            ptr: ptr.cast_mut(),
            stride,
        }
    }

    /// Whether this is [`NONE`](Self::NONE).
    pub fn is_none(&self) -> bool {
        self.ptr.is_null()
    }

    /// The rows starting at row `b`.
    pub fn from_row(self, b: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(b * self.stride),
            ..self
        }
    }

    /// The rows as a matrix, for a product.
    pub fn view(self) -> View {
        View {
            ptr: self.ptr,
            row: self.stride,
            column: 1,
        }
    }

    /// The rows as rows of gates, with all units of a gate before the next gate.
    pub fn gates(self, units: usize, isa: Isa) -> GateRows {
        GateRows {
            ptr: self.ptr,
            row: self.stride,
            gate: units,
            panel: isa.lanes(),
        }
    }

    /// The address of the values starting at a unit.
    #[inline(always)]
    pub fn at(self, b: usize, unit: usize) -> *mut f32 {
        self.ptr.wrapping_add(b * self.stride + unit)
    }
}

/// Rows of gate values for the sequences of one step. The units of a vector are contiguous; a panel
/// consists of the vectors of the same units of all gates, which need not be contiguous.
#[derive(Debug, Clone, Copy)]
pub struct GateRows {
    /// The first unit of the first gate in row 0.
    pub ptr: *mut f32,
    /// Row stride; 0 if all rows are the same.
    pub row: usize,
    /// Gate stride.
    pub gate: usize,
    /// Panel stride.
    pub panel: usize,
}

impl GateRows {
    /// No rows: for arguments that are not accessed.
    pub const NONE: Self = Self {
        ptr: core::ptr::null_mut(),
        row: 0,
        gate: 0,
        panel: 0,
    };

    /// Whether this is [`NONE`](Self::NONE).
    pub fn is_none(&self) -> bool {
        self.ptr.is_null()
    }

    /// The rows starting at row `b`.
    pub fn from_row(self, b: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(b * self.row),
            ..self
        }
    }

    /// The address of the values of a vector of units.
    #[inline(always)]
    pub fn at(self, b: usize, gate: usize, panel: usize) -> *mut f32 {
        self.ptr
            .wrapping_add(b * self.row + gate * self.gate + panel * self.panel)
    }
}

//! A matrix somewhere in memory.

/// A matrix somewhere in memory.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The first value.
    pub ptr: *const f32,
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub column: usize,
}

// SAFETY: a view is an address; what is read through it is up to the unsafe functions that do so.
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

    /// The same matrix with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            ptr: self.ptr,
            row: self.column,
            column: self.row,
        }
    }

    /// The matrix from row `row` on.
    pub fn from_row(self, row: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(row * self.row),
            ..self
        }
    }

    /// The matrix from column `column` on.
    pub fn from_column(self, column: usize) -> Self {
        Self {
            ptr: self.ptr.wrapping_add(column * self.column),
            ..self
        }
    }
}

//! Named sizes for tests and benches.

use crate::dims::Dims;

/// A named size.
#[derive(Debug, Clone, Copy)]
pub struct Problem {
    /// The property that the problem tests.
    pub name: &'static str,
    /// The sizes.
    pub dims: Dims,
}

const fn problem(name: &'static str, b: usize, t: usize, i: usize, h: usize) -> Problem {
    Problem {
        name,
        dims: Dims {
            batch_size: b,
            seq_length: t,
            d_input: i,
            d_hidden: h,
        },
    }
}

/// Small problems for correctness tests: all sizes are distinct, none is a multiple of a vector width, and
/// each of B, T, I, H is 1 in one of them.
pub const SMALL: [Problem; 6] = [
    problem("odd sizes", 3, 5, 7, 11),
    problem("one sequence", 1, 4, 3, 5),
    problem("one step", 2, 1, 5, 3),
    problem("one unit", 2, 3, 4, 1),
    problem("one feature", 4, 3, 1, 6),
    problem("long", 2, 70, 3, 4),
];

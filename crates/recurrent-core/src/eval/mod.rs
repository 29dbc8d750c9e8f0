//! Reference implementations and comparisons, shared by tests and benches (feature `eval`).

pub mod compare;
pub mod device;
pub mod oracle;
pub mod problems;

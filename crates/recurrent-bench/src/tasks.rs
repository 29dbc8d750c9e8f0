//! The tasks: data, model, training loop and metric of each experiment.

pub mod capacity;
pub mod speed;

//! Results of the original code in the capacity task.
//!
//! `data/capacity_reference.json` was made by running the script of lstms.pth under PyTorch 2.13
//! with its Gal and Moon masks written as ordinary operations (`visible`; the original way of writing
//! them has no effect on a current PyTorch). The values of its README are in
//! [`lstms_pth`](crate::lstms_pth).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::report::Summary;

/// Errors of the original.
#[derive(Debug, Deserialize)]
pub struct Reference {
    results: BTreeMap<String, BTreeMap<String, Columns>>,
    constant_outputs: BTreeMap<String, Values>,
}

#[derive(Debug, Deserialize)]
struct Columns {
    protocol: Values,
    eval_mode: Values,
}

#[derive(Debug, Deserialize)]
struct Values {
    values: Vec<f64>,
}

impl Reference {
    /// The committed file.
    ///
    /// # Errors
    /// If it does not have the expected form.
    pub fn load() -> Result<Self, serde_json::Error> {
        serde_json::from_str(include_str!("../../../data/capacity_reference.json"))
    }

    /// The errors of the original code today: with dropout active, and in evaluation mode.
    pub fn today(&self, model: &str) -> Option<(Summary, Summary)> {
        let columns = self.results.get(model)?.get("visible")?;
        Some((
            Summary::of(&columns.protocol.values)?,
            Summary::of(&columns.eval_mode.values)?,
        ))
    }

    /// The error when every output is 1, which a hidden state without dropout cannot exceed.
    pub fn saturated(&self) -> Option<f64> {
        Some(Summary::of(&self.constant_outputs.get("all outputs 1")?.values)?.mean)
    }
}

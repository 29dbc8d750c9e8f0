//! What the README of lstms.pth publishes: its capacity table in two versions, and its speed table.
//!
//! Models have the names of [`MODELS`](crate::models::MODELS).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The tables, from `data/lstms_pth_readme.json`.
#[derive(Debug, Deserialize)]
pub struct Readme {
    first: Version,
    later: Version,
    speed: Vec<SpeedRow>,
}

#[derive(Debug, Deserialize)]
struct Version {
    capacity: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
struct SpeedRow {
    model: String,
    size: usize,
    #[serde(flatten)]
    times: PublishedSpeed,
}

/// A cell of the published speed table.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct PublishedSpeed {
    /// Seconds of torch's `nn.LSTM` for 1000 calls of one step.
    pub nn_lstm_s: f64,
    /// Seconds of the layer.
    pub layer_s: f64,
    /// The first over the second.
    pub speedup: f64,
}

impl Readme {
    /// The committed file.
    ///
    /// # Errors
    /// If it does not have the expected form.
    pub fn load() -> Result<Self, serde_json::Error> {
        serde_json::from_str(include_str!("../data/lstms_pth_readme.json"))
    }

    /// The capacity error in the first README.
    pub fn first_capacity(&self, model: &str) -> Option<f64> {
        self.first.capacity.get(model).copied()
    }

    /// The capacity error in a later README.
    pub fn later_capacity(&self, model: &str) -> Option<f64> {
        self.later.capacity.get(model).copied()
    }

    /// The times at as many inputs and units as `size`.
    pub fn speed(&self, model: &str, size: usize) -> Option<PublishedSpeed> {
        let mut rows = self.speed.iter();
        let row = rows.find(|row| row.model == model && row.size == size)?;
        Some(row.times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::MODELS;
    use crate::problems::LSTMS_PTH_SIZES;

    #[test]
    fn the_models_are_known_and_the_speed_table_is_whole() {
        let readme = Readme::load().unwrap();
        let known = |name: &String| MODELS.iter().any(|model| model.name == name);
        let capacities = readme.first.capacity.keys();
        assert!(capacities.chain(readme.later.capacity.keys()).all(known));
        let layers = ["SlowLSTM", "LSTM", "GalLSTM", "MoonLSTM", "SemeniutaLSTM"];
        for model in layers {
            for size in LSTMS_PTH_SIZES {
                let row = readme.speed(model, size).expect("a row of the table");
                // All three are rounded to three decimals.
                let rounding = 5.1e-4 * (1.0 + (1.0 + row.speedup) / row.layer_s);
                let ratio = row.nn_lstm_s / row.layer_s;
                assert!((ratio - row.speedup).abs() < rounding, "{model} {size}");
            }
        }
        assert_eq!(readme.speed.len(), layers.len() * LSTMS_PTH_SIZES.len());
        assert_eq!(readme.speed("nn.LSTM", 128), None);
    }

    #[test]
    fn the_later_table_is_that_of_the_reference() {
        let file = include_str!("../data/capacity_reference.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let published = &file["published"]["values"];
        let later = Readme::load().unwrap().later.capacity;
        assert_eq!(serde_json::to_value(later).unwrap(), *published);
    }
}

//! The reference: scalar loops in f64 over one sequence, written from the equations.
//!
//! It is slow on purpose, and independent of the tensor code: no Burn operation, no shared helper. It
//! returns the intermediate values, so that each part can be tested alone.

use alloc::vec;
use alloc::vec::Vec;

/// Layer normalisation of a vector, see [`crate::equations::layer_norm`].
#[derive(Debug, Clone)]
pub struct OracleNorm {
    /// Whether the variance is divided by n − 1.
    pub unbiased: bool,
    /// ε
    pub epsilon: f64,
    /// Whether ε is added under the root.
    pub inside_root: bool,
    /// Empty: no gain.
    pub gain: Vec<f64>,
    /// Empty: no shift.
    pub shift: Vec<f64>,
}

impl OracleNorm {
    /// Normalises `x`.
    pub fn forward(&self, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let squares: f64 = x.iter().map(|v| (v - mean).powi(2)).sum();
        let variance = squares / if self.unbiased { n - 1.0 } else { n };
        let deviation = if self.inside_root {
            (variance + self.epsilon).sqrt()
        } else {
            variance.sqrt() + self.epsilon
        };
        (0..x.len())
            .map(|k| {
                let unit = (x[k] - mean) / deviation;
                self.gain.get(k).unwrap_or(&1.0) * unit + self.shift.get(k).unwrap_or(&0.0)
            })
            .collect()
    }
}

/// Multipliers of one step for one sequence; empty means none.
#[derive(Debug, Clone, Default)]
pub struct OracleMasks {
    /// On h'.
    pub hidden: Vec<f64>,
    /// On c'.
    pub cell: Vec<f64>,
    /// On g.
    pub candidate: Vec<f64>,
    /// Weight of the new h' (zoneout).
    pub update_hidden: Vec<f64>,
    /// Weight of the new c' (zoneout).
    pub update_cell: Vec<f64>,
}

/// The LSTM with every option of [`Transition`](crate::cell::Transition) and of the
/// layer-normalised cell. Matrices are row-major `[rows, columns]`; gates in the order input,
/// forget, candidate, output; an empty vector means "none".
#[derive(Debug, Clone, Default)]
pub struct LstmOracle {
    /// I
    pub d_input: usize,
    /// H
    pub d_hidden: usize,
    /// W `[I, 4H]`
    pub weight_input: Vec<f64>,
    /// R `[d_output, 4H]`
    pub weight_hidden: Vec<f64>,
    /// b `[4H]`, outside the normalisations
    pub bias: Vec<f64>,
    /// `[4H]`, inside LN_x
    pub bias_input: Vec<f64>,
    /// `[4H]`, inside LN_h
    pub bias_hidden: Vec<f64>,
    /// LN_x
    pub norm_input: Option<OracleNorm>,
    /// LN_h
    pub norm_hidden: Option<OracleNorm>,
    /// LN_c
    pub norm_cell: Option<OracleNorm>,
    /// Whether LN_c(c') is carried.
    pub carry_normalized: bool,
    /// Bound of |c'|.
    pub clip: Option<f64>,
    /// P `[H, d_output]`
    pub projection: Vec<f64>,
}

/// All values that one step computes.
#[derive(Debug, Clone)]
pub struct Trace {
    /// i
    pub input_gate: Vec<f64>,
    /// f
    pub forget_gate: Vec<f64>,
    /// g, before its mask
    pub candidate: Vec<f64>,
    /// o
    pub output_gate: Vec<f64>,
    /// c', as carried
    pub cell: Vec<f64>,
    /// h', as carried and returned
    pub hidden: Vec<f64>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `x·M + b`
fn affine(x: &[f64], matrix: &[f64], columns: usize, bias: &[f64]) -> Vec<f64> {
    let mut y = if bias.is_empty() {
        vec![0.0; columns]
    } else {
        bias.to_vec()
    };
    for (row, value) in x.iter().enumerate() {
        for column in 0..columns {
            y[column] += value * matrix[row * columns + column];
        }
    }
    y
}

fn normalized(norm: &Option<OracleNorm>, x: Vec<f64>) -> Vec<f64> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => x,
    }
}

fn mask_at(mask: &[f64], k: usize) -> f64 {
    if mask.is_empty() { 1.0 } else { mask[k] }
}

impl LstmOracle {
    /// Size of h.
    pub fn d_output(&self) -> usize {
        if self.projection.is_empty() {
            self.d_hidden
        } else {
            self.projection.len() / self.d_hidden
        }
    }

    /// One step.
    pub fn step(&self, x: &[f64], h: &[f64], c: &[f64], masks: &OracleMasks) -> Trace {
        let n = self.d_hidden;
        let from_input = normalized(
            &self.norm_input,
            affine(x, &self.weight_input, 4 * n, &self.bias_input),
        );
        let from_hidden = normalized(
            &self.norm_hidden,
            affine(h, &self.weight_hidden, 4 * n, &self.bias_hidden),
        );
        let z: Vec<f64> = (0..4 * n)
            .map(|k| from_input[k] + from_hidden[k] + self.bias.get(k).unwrap_or(&0.0))
            .collect();
        let input_gate: Vec<f64> = z[..n].iter().map(|&v| sigmoid(v)).collect();
        let forget_gate: Vec<f64> = z[n..2 * n].iter().map(|&v| sigmoid(v)).collect();
        let candidate: Vec<f64> = z[2 * n..3 * n].iter().map(|v| v.tanh()).collect();
        let output_gate: Vec<f64> = z[3 * n..].iter().map(|&v| sigmoid(v)).collect();

        let raw: Vec<f64> = (0..n)
            .map(|k| {
                let proposed = input_gate[k] * mask_at(&masks.candidate, k) * candidate[k];
                let sum = (forget_gate[k] * c[k] + proposed) * mask_at(&masks.cell, k);
                self.clip.map_or(sum, |clip| sum.clamp(-clip, clip))
            })
            .collect();
        let visible = normalized(&self.norm_cell, raw.clone());
        let carried = if self.carry_normalized {
            &visible
        } else {
            &raw
        };
        let exposed: Vec<f64> = (0..n).map(|k| output_gate[k] * visible[k].tanh()).collect();
        let projected = if self.projection.is_empty() {
            exposed
        } else {
            affine(&exposed, &self.projection, self.d_output(), &[])
        };

        let blend = |update: f64, new: f64, old: f64| update * new + (1.0 - update) * old;
        let cell = (0..n)
            .map(|k| blend(mask_at(&masks.update_cell, k), carried[k], c[k]))
            .collect();
        let hidden = (0..self.d_output())
            .map(|k| {
                let dropped = projected[k] * mask_at(&masks.hidden, k);
                blend(mask_at(&masks.update_hidden, k), dropped, h[k])
            })
            .collect();
        Trace {
            input_gate,
            forget_gate,
            candidate,
            output_gate,
            cell,
            hidden,
        }
    }

    /// Runs a whole sequence: one trace per step. `masks` has one entry per step, or is empty.
    pub fn run(&self, xs: &[Vec<f64>], h: &[f64], c: &[f64], masks: &[OracleMasks]) -> Vec<Trace> {
        let none = OracleMasks::default();
        let mut traces: Vec<Trace> = Vec::with_capacity(xs.len());
        for (t, x) in xs.iter().enumerate() {
            let (h, c) = traces.last().map_or((h, c), |last| {
                (last.hidden.as_slice(), last.cell.as_slice())
            });
            let trace = self.step(x, h, c, masks.get(t).unwrap_or(&none));
            traces.push(trace);
        }
        traces
    }

    /// Every parameter tensor with its name, for finite differences.
    pub fn parameters_mut(&mut self) -> Vec<(&'static str, &mut Vec<f64>)> {
        let mut parameters = vec![
            ("weight_input", &mut self.weight_input),
            ("weight_hidden", &mut self.weight_hidden),
            ("bias", &mut self.bias),
            ("bias_input", &mut self.bias_input),
            ("bias_hidden", &mut self.bias_hidden),
            ("projection", &mut self.projection),
        ];
        let norms = [
            ("norm_input.gain", "norm_input.shift", &mut self.norm_input),
            (
                "norm_hidden.gain",
                "norm_hidden.shift",
                &mut self.norm_hidden,
            ),
            ("norm_cell.gain", "norm_cell.shift", &mut self.norm_cell),
        ];
        for (gain, shift, norm) in norms {
            if let Some(norm) = norm {
                parameters.push((gain, &mut norm.gain));
                parameters.push((shift, &mut norm.shift));
            }
        }
        parameters.retain(|(_, values)| !values.is_empty());
        parameters
    }
}

/// The GRU. Matrices are row-major `[rows, columns]`; gates in the order reset, update, candidate; an
/// empty vector means "none".
#[derive(Debug, Clone, Default)]
pub struct GruOracle {
    /// I
    pub d_input: usize,
    /// H
    pub d_hidden: usize,
    /// Whether the reset gate multiplies `h·R_n + b_hn`, or h before the product.
    pub reset_after: bool,
    /// W `[I, 3H]`
    pub weight_input: Vec<f64>,
    /// R `[H, 3H]`
    pub weight_hidden: Vec<f64>,
    /// b `[3H]`
    pub bias: Vec<f64>,
    /// b_hn `[H]`
    pub bias_candidate_hidden: Vec<f64>,
}

/// All values that one step of a GRU computes.
#[derive(Debug, Clone)]
pub struct GruTrace {
    /// r
    pub reset_gate: Vec<f64>,
    /// z
    pub update_gate: Vec<f64>,
    /// n, before its mask
    pub candidate: Vec<f64>,
    /// h', as carried and returned
    pub hidden: Vec<f64>,
}

impl GruOracle {
    /// One step.
    ///
    /// # Panics
    /// If a mask on a cell state is given.
    pub fn step(&self, x: &[f64], h: &[f64], masks: &OracleMasks) -> GruTrace {
        assert!(
            masks.cell.is_empty() && masks.update_cell.is_empty(),
            "a GRU has no cell state to mask"
        );
        let n = self.d_hidden;
        let from_input = affine(x, &self.weight_input, 3 * n, &self.bias);
        let from_hidden = affine(h, &self.weight_hidden, 3 * n, &[]);
        let gate = |block: usize| -> Vec<f64> {
            let places = block * n..(block + 1) * n;
            places
                .map(|k| sigmoid(from_input[k] + from_hidden[k]))
                .collect()
        };
        let (reset_gate, update_gate) = (gate(0), gate(1));
        let candidate: Vec<f64> = (0..n)
            .map(|k| {
                let bias = self.bias_candidate_hidden.get(k).unwrap_or(&0.0);
                let seen = if self.reset_after {
                    reset_gate[k] * (from_hidden[2 * n + k] + bias)
                } else {
                    let column = |j: usize| self.weight_hidden[j * 3 * n + 2 * n + k];
                    (0..n)
                        .map(|j| reset_gate[j] * h[j] * column(j))
                        .sum::<f64>()
                        + bias
                };
                (from_input[2 * n + k] + seen).tanh()
            })
            .collect();
        let hidden = (0..n)
            .map(|k| {
                let z = update_gate[k];
                let mixed = (1.0 - z) * mask_at(&masks.candidate, k) * candidate[k] + z * h[k];
                let update = mask_at(&masks.update_hidden, k);
                update * mask_at(&masks.hidden, k) * mixed + (1.0 - update) * h[k]
            })
            .collect();
        GruTrace {
            reset_gate,
            update_gate,
            candidate,
            hidden,
        }
    }

    /// Runs a whole sequence: one trace per step. `masks` has one entry per step, or is empty.
    pub fn run(&self, xs: &[Vec<f64>], h: &[f64], masks: &[OracleMasks]) -> Vec<GruTrace> {
        let none = OracleMasks::default();
        let mut traces: Vec<GruTrace> = Vec::with_capacity(xs.len());
        for (t, x) in xs.iter().enumerate() {
            let h = traces.last().map_or(h, |last| last.hidden.as_slice());
            let trace = self.step(x, h, masks.get(t).unwrap_or(&none));
            traces.push(trace);
        }
        traces
    }

    /// Every parameter tensor with its name, for finite differences.
    pub fn parameters_mut(&mut self) -> Vec<(&'static str, &mut Vec<f64>)> {
        let mut parameters = vec![
            ("weight_input", &mut self.weight_input),
            ("weight_hidden", &mut self.weight_hidden),
            ("bias", &mut self.bias),
            ("bias_candidate_hidden", &mut self.bias_candidate_hidden),
        ];
        parameters.retain(|(_, values)| !values.is_empty());
        parameters
    }
}

//! Level 1: values against scalar loops in f64, derivatives against autodiff and slopes.

mod common;

use burn::tensor::{DType, Device, Tensor};
use recurrent_core::equations::dropout::{Mask, MaskSizes, Masks, StepMasks, apply, zoneout};
use recurrent_core::equations::layer_norm::{EpsilonPlace, NormWeights, Normalizer, Variance};
use recurrent_core::equations::{gru, lstm};
use recurrent_core::eval::compare::{Tolerance, assert_close, close, values};
use recurrent_core::eval::oracle::OracleNorm;
use recurrent_core::{Gate, GateLayout};
use rstest::rstest;

use common::{Random, devices, dot, slopes, tensor};

const B: usize = 3;
const H: usize = 5;
const VALUES: Tolerance = Tolerance(5e-6);
const GRADIENTS: Tolerance = Tolerance(5e-5);
/// For f64 derivatives against central differences.
const SLOPES: Tolerance = Tolerance(1e-8);

// --- lstm

/// Both next states of one step from `[B, 4H]` pre-activations, one scalar at a time.
fn scalar_step(preact: &[f64], cell: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut next_cell = Vec::new();
    let mut hidden = Vec::new();
    for row in 0..B {
        let z = &preact[row * 4 * H..(row + 1) * 4 * H];
        for unit in 0..H {
            let (i, f) = (sigmoid(z[unit]), sigmoid(z[H + unit]));
            let (g, o) = (z[2 * H + unit].tanh(), sigmoid(z[3 * H + unit]));
            let next = f * cell[row * H + unit] + i * g;
            next_cell.push(next);
            hidden.push(o * next.tanh());
        }
    }
    (next_cell, hidden)
}

/// Numbers of one step.
struct LstmStep {
    preact: Vec<f64>,
    cell: Vec<f64>,
    grad_hidden: Vec<f64>,
    grad_cell: Vec<f64>,
}

impl LstmStep {
    fn new() -> Self {
        let mut random = Random::new(1);
        Self {
            preact: random.values(B * 4 * H, 2.0),
            cell: random.values(B * H, 1.5),
            grad_hidden: random.values(B * H, 1.0),
            grad_cell: random.values(B * H, 1.0),
        }
    }

    fn loss(&self, preact: &[f64], cell: &[f64]) -> f64 {
        let (next_cell, hidden) = scalar_step(preact, cell);
        dot(&next_cell, &self.grad_cell) + dot(&hidden, &self.grad_hidden)
    }

    /// Slopes with respect to the pre-activations and the cell.
    fn slopes(&self) -> (Vec<f64>, Vec<f64>) {
        (
            slopes(&self.preact, |z| self.loss(z, &self.cell)),
            slopes(&self.cell, |c| self.loss(&self.preact, c)),
        )
    }

    fn preact(&self, device: &Device, dtype: DType) -> Tensor<2> {
        tensor(&self.preact, [B, 4 * H], device, dtype)
    }

    fn rows(&self, of: &[f64], device: &Device, dtype: DType) -> Tensor<2> {
        tensor(of, [B, H], device, dtype)
    }

    /// `lstm::backward` from the given gates.
    fn backward(&self, gates: &lstm::Gates, device: &Device, dtype: DType) -> lstm::Gradients {
        let cell = self.rows(&self.cell, device, dtype);
        let next = lstm::cell(
            gates.forget.clone(),
            cell.clone(),
            gates.input.clone(),
            gates.candidate.clone(),
        );
        let grad_hidden = self.rows(&self.grad_hidden, device, dtype);
        let grad_cell = self.rows(&self.grad_cell, device, dtype);
        lstm::backward(gates, cell, next, grad_hidden, grad_cell)
    }
}

#[test]
fn lstm_step_has_the_scalar_values() {
    let step = LstmStep::new();
    let (next_cell, hidden) = scalar_step(&step.preact, &step.cell);
    for (name, device) in devices(DType::F32) {
        let gates = lstm::gates(step.preact(&device, DType::F32));
        let cell = step.rows(&step.cell, &device, DType::F32);
        let cell = lstm::cell(gates.forget, cell, gates.input, gates.candidate);
        assert_close(&format!("{name}: cell"), &cell, &next_cell, VALUES);
        let got = lstm::hidden(gates.output, cell);
        assert_close(&format!("{name}: hidden"), &got, &hidden, VALUES);
    }
}

#[rstest]
#[case(DType::F32, GRADIENTS)]
#[case(DType::F64, SLOPES)]
fn lstm_backward_is_the_slope_and_autodiff(#[case] dtype: DType, #[case] tolerance: Tolerance) {
    let step = LstmStep::new();
    let (preact_slope, cell_slope) = step.slopes();
    for (name, device) in devices(dtype) {
        let preact = step.preact(&device, dtype).require_grad();
        let cell = step.rows(&step.cell, &device, dtype).require_grad();
        let gates = lstm::gates(preact.clone());
        let next = lstm::cell(
            gates.forget.clone(),
            cell.clone(),
            gates.input.clone(),
            gates.candidate.clone(),
        );
        let hidden = lstm::hidden(gates.output.clone(), next.clone());
        let loss = (hidden * step.rows(&step.grad_hidden, &device, dtype)).sum()
            + (next * step.rows(&step.grad_cell, &device, dtype)).sum();
        let grads = loss.backward();
        let auto_preact = values(&preact.grad(&grads).expect("gradient of preact"));
        let auto_cell = values(&cell.grad(&grads).expect("gradient of cell"));

        let ours = step.backward(&lstm::gates(step.preact(&device, dtype)), &device, dtype);
        let label = |what: &str| format!("{name} {dtype:?}: {what}");
        assert_close(
            &label("preact, slope"),
            &ours.preact,
            &preact_slope,
            tolerance,
        );
        assert_close(&label("cell, slope"), &ours.cell, &cell_slope, tolerance);
        let same = Tolerance::values(dtype, 1);
        assert_close(&label("preact, autodiff"), &ours.preact, &auto_preact, same);
        assert_close(&label("cell, autodiff"), &ours.cell, &auto_cell, same);
    }
}

/// The comparison must be able to fail: any two gates swapped in `backward`.
#[test]
fn swapped_gates_are_noticed_in_backward() {
    let step = LstmStep::new();
    let (preact_slope, _) = step.slopes();
    let device = Device::flex();
    let good = lstm::gates(step.preact(&device, DType::F32));
    let lstm::Gates {
        input,
        forget,
        candidate,
        output,
    } = good.clone();
    let swapped = [
        ("input, forget", [&forget, &input, &candidate, &output]),
        ("input, output", [&output, &forget, &candidate, &input]),
        ("forget, output", [&input, &output, &candidate, &forget]),
        ("input, candidate", [&candidate, &forget, &input, &output]),
    ];
    for (name, [input, forget, candidate, output]) in swapped {
        let gates = lstm::Gates {
            input: input.clone(),
            forget: forget.clone(),
            candidate: candidate.clone(),
            output: output.clone(),
        };
        let got = values(&step.backward(&gates, &device, DType::F32).preact);
        assert!(
            close(name, &got, &preact_slope, GRADIENTS).is_err(),
            "swapped {name} went unnoticed"
        );
    }
    let got = values(&step.backward(&good, &device, DType::F32).preact);
    close("not swapped", &got, &preact_slope, GRADIENTS).unwrap();
}

// --- gru

/// Where the reset gate acts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reset {
    After,
    Before,
}

/// Numbers of one GRU step. What depends on h: with reset after the product `[B, 3H]`, given as it is;
/// with reset before, h itself, times R_n.
struct GruStep {
    form: Reset,
    /// `x·W + b`, reset, update, candidate `[B, 3H]`; with reset before, r and z hold `h·R` as well
    preact: Vec<f64>,
    /// `h·R_n + b_hn` `[B, H]`, with reset after
    product: Vec<f64>,
    hidden: Vec<f64>,
    /// R_n `[H, H]`, with reset before
    weight: Vec<f64>,
    grad_hidden: Vec<f64>,
}

impl GruStep {
    fn new(form: Reset) -> Self {
        let mut random = Random::new(8);
        Self {
            form,
            preact: random.values(B * 3 * H, 2.0),
            product: random.values(B * H, 1.5),
            hidden: random.values(B * H, 0.9),
            weight: random.values(H * H, 0.7),
            grad_hidden: random.values(B * H, 1.0),
        }
    }

    /// h' of one step, one scalar at a time.
    fn scalar(&self, preact: &[f64], product: &[f64], hidden: &[f64]) -> Vec<f64> {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut next = Vec::new();
        for row in 0..B {
            let a = &preact[row * 3 * H..(row + 1) * 3 * H];
            let h = &hidden[row * H..(row + 1) * H];
            let reset = |unit: usize| sigmoid(a[unit]);
            for unit in 0..H {
                let z = sigmoid(a[H + unit]);
                let s = match self.form {
                    Reset::After => reset(unit) * product[row * H + unit],
                    Reset::Before => (0..H)
                        .map(|k| reset(k) * h[k] * self.weight[k * H + unit])
                        .sum(),
                };
                let n = (a[2 * H + unit] + s).tanh();
                next.push((1.0 - z) * n + z * h[unit]);
            }
        }
        next
    }

    fn loss(&self, preact: &[f64], product: &[f64], hidden: &[f64]) -> f64 {
        dot(&self.scalar(preact, product, hidden), &self.grad_hidden)
    }

    /// Slopes with respect to the pre-activations, the product and h.
    fn slopes(&self) -> [(&'static str, Vec<f64>); 3] {
        let Self {
            preact,
            product,
            hidden,
            ..
        } = self;
        [
            ("preact", slopes(preact, |a| self.loss(a, product, hidden))),
            ("product", slopes(product, |u| self.loss(preact, u, hidden))),
            ("hidden", slopes(hidden, |h| self.loss(preact, product, h))),
        ]
    }

    fn tensors(&self, device: &Device, dtype: DType) -> [Tensor<2>; 3] {
        [
            tensor(&self.preact, [B, 3 * H], device, dtype),
            tensor(&self.product, [B, H], device, dtype),
            tensor(&self.hidden, [B, H], device, dtype),
        ]
    }

    fn weight(&self, device: &Device, dtype: DType) -> Tensor<2> {
        tensor(&self.weight, [H, H], device, dtype)
    }

    /// The gates, from tensors.
    fn gates(&self, [preact, product, hidden]: [Tensor<2>; 3]) -> gru::Gates {
        let weight = self.weight(&preact.device(), preact.dtype());
        let [reset, update, candidate] = GateLayout::GRU.split(preact);
        let preact = gru::Preactivations {
            reset,
            update,
            candidate,
        };
        gru::gates(preact, |r| match self.form {
            Reset::After => gru::reset(r.clone(), product),
            Reset::Before => gru::reset(r.clone(), hidden).matmul(weight),
        })
    }

    /// The derivatives of `equations::gru`, put together around the product: of the pre-activations, of
    /// the product and of h.
    fn backward(&self, gates: &gru::Gates, device: &Device, dtype: DType) -> [Tensor<2>; 3] {
        let [_, product, hidden] = self.tensors(device, dtype);
        let grad = tensor(&self.grad_hidden, [B, H], device, dtype);
        let gru::Gradients {
            update,
            candidate,
            hidden: mixed,
        } = gru::backward(gates, hidden.clone(), grad);
        let reset = gates.reset.clone();
        let (reset, product, hidden) = match self.form {
            Reset::After => {
                let through = gru::backward_reset(reset, product, candidate.clone());
                (through.reset, through.of, mixed)
            }
            Reset::Before => {
                let weight = self.weight(device, dtype);
                let back = candidate.clone().matmul(weight.transpose());
                let through = gru::backward_reset(reset, hidden, back);
                (through.reset, product.zeros_like(), mixed + through.of)
            }
        };
        [
            Tensor::cat(vec![reset, update, candidate], 1),
            product,
            hidden,
        ]
    }
}

#[rstest]
fn gru_step_has_the_scalar_values(#[values(Reset::After, Reset::Before)] form: Reset) {
    let step = GruStep::new(form);
    let expected = step.scalar(&step.preact, &step.product, &step.hidden);
    for (name, device) in devices(DType::F32) {
        let tensors = step.tensors(&device, DType::F32);
        let hidden = tensors[2].clone();
        let gates = step.gates(tensors);
        let got = gru::hidden(gates.update, gates.candidate, hidden);
        assert_close(&format!("{name}: hidden"), &got, &expected, VALUES);
    }
}

#[rstest]
#[case(DType::F32, GRADIENTS)]
#[case(DType::F64, SLOPES)]
fn gru_backward_is_the_slope_and_autodiff(
    #[case] dtype: DType,
    #[case] tolerance: Tolerance,
    #[values(Reset::After, Reset::Before)] form: Reset,
) {
    let step = GruStep::new(form);
    let slopes = step.slopes();
    for (name, device) in devices(dtype) {
        let leaves = step.tensors(&device, dtype).map(Tensor::require_grad);
        let gates = step.gates(leaves.clone());
        let hidden = gru::hidden(gates.update, gates.candidate, leaves[2].clone());
        let grad = tensor(&step.grad_hidden, [B, H], &device, dtype);
        let grads = (hidden * grad).sum().backward();

        let gates = step.gates(step.tensors(&device, dtype));
        let ours = step.backward(&gates, &device, dtype);
        for (index, (part, slope)) in slopes.iter().enumerate() {
            let label = |what: &str| format!("{name} {dtype:?}: {part}, {what}");
            assert_close(&label("slope"), &ours[index], slope, tolerance);
            let Some(auto) = leaves[index].grad(&grads) else {
                assert_eq!((form, *part), (Reset::Before, "product"), "no gradient");
                continue;
            };
            let same = Tolerance::values(dtype, 1);
            assert_close(&label("autodiff"), &ours[index], &values(&auto), same);
        }
    }
}

/// The comparison must be able to fail: any two gates swapped in `backward`.
#[rstest]
fn swapped_gru_gates_are_noticed_in_backward(#[values(Reset::After, Reset::Before)] form: Reset) {
    let step = GruStep::new(form);
    let [(_, slope), ..] = step.slopes();
    let device = Device::flex();
    let good = step.gates(step.tensors(&device, DType::F32));
    let [r, z, n] = [&good.reset, &good.update, &good.candidate];
    let swapped = [
        ("reset, update", [z, r, n]),
        ("reset, candidate", [n, z, r]),
        ("update, candidate", [r, n, z]),
    ];
    let preact = |[reset, update, candidate]: [&Tensor<2>; 3]| {
        let gates = gru::Gates {
            reset: reset.clone(),
            update: update.clone(),
            candidate: candidate.clone(),
        };
        let [preact, ..] = step.backward(&gates, &device, DType::F32);
        values(&preact)
    };
    for (name, gates) in swapped {
        assert!(
            close(name, &preact(gates), &slope, GRADIENTS).is_err(),
            "swapped {name} went unnoticed"
        );
    }
    close("not swapped", &preact([r, z, n]), &slope, GRADIENTS).unwrap();
}

// --- layer normalisation

fn oracle(form: Normalizer) -> OracleNorm {
    OracleNorm {
        unbiased: form.variance == Variance::Unbiased,
        epsilon: form.epsilon,
        inside_root: form.place == EpsilonPlace::InsideRoot,
        gain: vec![],
        shift: vec![],
    }
}

fn by_rows(x: &[f64], features: usize, norm: &OracleNorm) -> Vec<f64> {
    x.chunks(features)
        .flat_map(|row| norm.forward(row))
        .collect()
}

/// Rows of ordinary size, plus one so small that ε weighs as much as the variance.
fn norm_input(features: usize) -> Vec<f64> {
    let mut random = Random::new(2);
    let mut x = random.values(3 * features, 1.0);
    x.extend(random.values(features, 3e-3));
    x
}

#[rstest]
#[case::standard(Normalizer::STANDARD)]
#[case::lstms_pth(Normalizer::LSTMS_PTH)]
#[case::bradbury(Normalizer::BRADBURY)]
#[case::ba(Normalizer::BA)]
fn normalizer_has_the_value_of_the_oracle(
    #[case] form: Normalizer,
    #[values(2, 5, 44)] features: usize,
) {
    let x = norm_input(features);
    let mut random = Random::new(3);
    let (gain, shift) = (random.values(features, 1.0), random.values(features, 1.0));
    for dtype in [DType::F32, DType::F64] {
        for (name, device) in devices(dtype) {
            let input = tensor(&x, [4, features], &device, dtype);
            let tolerance = Tolerance::values(dtype, 1);
            let expected = by_rows(&x, features, &oracle(form));
            let got = form.normalize(input.clone());
            assert_close(&format!("{name} {dtype:?}"), &got, &expected, tolerance);

            let parts = [(true, true), (true, false), (false, true)];
            for (has_gain, has_shift) in parts {
                let vector = |values: &[f64]| tensor(values, [features], &device, dtype);
                let norm = NormWeights {
                    normalizer: form,
                    gain: has_gain.then(|| vector(&gain)),
                    shift: has_shift.then(|| vector(&shift)),
                };
                let oracle = OracleNorm {
                    gain: if has_gain { gain.clone() } else { vec![] },
                    shift: if has_shift { shift.clone() } else { vec![] },
                    ..oracle(form)
                };
                assert_close(
                    &format!("{name} {dtype:?}: gain {has_gain}, shift {has_shift}"),
                    &norm.forward(input.clone()),
                    &by_rows(&x, features, &oracle),
                    tolerance,
                );
            }
        }
    }
}

/// The four forms differ: none can stand in for another unnoticed.
#[test]
fn the_forms_are_told_apart() {
    let forms = [
        Normalizer::STANDARD,
        Normalizer::LSTMS_PTH,
        Normalizer::BRADBURY,
        Normalizer::BA,
    ];
    let x = norm_input(5);
    let device = Device::flex();
    for (a, form) in forms.iter().enumerate() {
        let got = values(&form.normalize(tensor(&x, [4, 5], &device, DType::F32)));
        for (b, &other) in forms.iter().enumerate() {
            let expected = by_rows(&x, 5, &oracle(other));
            let same = close("form", &got, &expected, VALUES).is_ok();
            assert_eq!(same, a == b, "{form:?} against {other:?}");
        }
    }
}

#[rstest]
#[case::standard(Normalizer::STANDARD)]
#[case::lstms_pth(Normalizer::LSTMS_PTH)]
#[case::bradbury(Normalizer::BRADBURY)]
#[case::ba(Normalizer::BA)]
fn normalizer_backward_is_the_slope_and_autodiff(
    #[case] form: Normalizer,
    #[values(2, 5, 44)] features: usize,
) {
    let mut random = Random::new(4);
    let shape = [3, features];
    let x = random.values(3 * features, 1.0);
    let cotangent = random.values(3 * features, 1.0);
    let norm = oracle(form);
    let slope = slopes(&x, |x| dot(&by_rows(x, features, &norm), &cotangent));
    for dtype in [DType::F32, DType::F64] {
        for (name, device) in devices(dtype) {
            let input = tensor(&x, shape, &device, dtype).require_grad();
            let grad = tensor(&cotangent, shape, &device, dtype);
            let loss = (form.normalize(input.clone()) * grad.clone()).sum();
            let auto = input.grad(&loss.backward()).expect("gradient of x");
            let ours = form.backward(input.clone().detach(), grad);
            let label = |what: &str| format!("{name} {dtype:?}: {what}");
            if features == 2 && dtype == DType::F32 {
                // x̂ of two features is ±1 whatever x is: what ε leaves of the slope is below the
                // rounding of f32. Checked in f64.
                continue;
            }
            // Slopes of the scalar loop are good to 1e-8 of the largest.
            let tolerance = if dtype == DType::F64 {
                Tolerance(1e-7)
            } else {
                GRADIENTS
            };
            assert_close(&label("slope"), &ours, &slope, tolerance);
            assert_close(&label("autodiff"), &ours, &values(&auto), tolerance);
        }
    }
}

/// At a constant row x̂ = 0. Inside the root the derivative is `(δ − mean δ) / √ε`; outside, where
/// it does not exist, both ways take `(δ − mean δ) / ε`, the derivative with s held at 0.
#[rstest]
#[case::standard(Normalizer::STANDARD)]
#[case::lstms_pth(Normalizer::LSTMS_PTH)]
#[case::bradbury(Normalizer::BRADBURY)]
#[case::ba(Normalizer::BA)]
fn a_constant_row_gives_no_nan(#[case] form: Normalizer, #[values(0.0, 1.5)] constant: f64) {
    let mut random = Random::new(5);
    // An ordinary row beside it.
    let mut x = vec![constant; H];
    x.extend(random.values(H, 1.0));
    let cotangent = random.values(2 * H, 1.0);
    let mean = cotangent[..H].iter().sum::<f64>() / H as f64;
    let divisor = match form.place {
        EpsilonPlace::InsideRoot => form.epsilon.sqrt(),
        EpsilonPlace::OutsideRoot => form.epsilon,
    };
    let expected: Vec<f64> = cotangent[..H]
        .iter()
        .map(|d| (d - mean) / divisor)
        .collect();
    for dtype in [DType::F32, DType::F64] {
        for (name, device) in devices(dtype) {
            let label = |what: &str| format!("{name} {dtype:?}: {what}");
            let input = tensor(&x, [2, H], &device, dtype).require_grad();
            let y = form.normalize(input.clone());
            let all = values(&y);
            assert!(all.iter().all(|v| v.is_finite()), "{}: {all:?}", label("y"));
            assert_eq!(all[..H], [0.0; H], "{}", label("y of the constant row"));

            let grad = tensor(&cotangent, [2, H], &device, dtype);
            let auto = input.grad(&(y * grad.clone()).sum().backward());
            let auto = values(&auto.expect("gradient of x"));
            let ours = values(&form.backward(input.detach(), grad));
            for (way, got) in [("autodiff", auto), ("backward", ours)] {
                assert!(got.iter().all(|v| v.is_finite()), "{}: {got:?}", label(way));
                let tolerance = Tolerance::gradients(dtype, 1);
                close(&label(way), &got[..H], &expected, tolerance).unwrap();
            }
        }
    }
}

// --- gates

#[test]
fn split_cuts_the_columns_in_packed_order() {
    let device = Device::flex();
    let packed: Vec<f64> = (0..2 * 4 * 3).map(f64::from).collect();
    let packed = tensor(&packed, [2, 12], &device, DType::F32);
    let blocks: [Tensor<2>; 4] = GateLayout::LSTM.split(packed);
    for (slot, block) in blocks.iter().enumerate() {
        let first = 3.0 * slot as f64;
        let expected = [0.0, 1.0, 2.0, 12.0, 13.0, 14.0].map(|k| first + k);
        assert_eq!(block.dims(), [2, 3]);
        assert_eq!(values(block), expected, "slot {slot}");
    }
}

#[test]
fn permute_from_moves_blocks_by_gate_and_back() {
    let device = Device::flex();
    let (ours, theirs) = (GateLayout::LSTM, GateLayout::LSTMS_PTH);
    // Two columns per gate: input, forget, output, candidate.
    let packed = tensor(
        &[0.0, 1.0, 10.0, 11.0, 20.0, 21.0, 30.0, 31.0],
        [1, 8],
        &device,
        DType::F32,
    );
    let permuted = ours.permute_from(theirs, packed.clone());
    let expected = [0.0, 1.0, 10.0, 11.0, 30.0, 31.0, 20.0, 21.0];
    assert_eq!(values(&permuted), expected);
    let back = theirs.permute_from(ours, permuted);
    assert_eq!(values(&back), values(&packed));
    assert_eq!(
        values(&ours.permute_from(ours, packed.clone())),
        values(&packed)
    );

    // The last axis of a bias and of a stack of weights alike.
    let x = Random::new(6).values(3 * 2 * 12, 1.0);
    let stack = tensor(&x, [3, 2, 12], &device, DType::F32);
    let back = theirs.permute_from(ours, ours.permute_from(theirs, stack.clone()));
    assert_eq!(values(&back), values(&stack));
    let bias = tensor(&[1.0, 2.0, 3.0, 4.0], [4], &device, DType::F32);
    assert_eq!(
        values(&ours.permute_from(theirs, bias)),
        [1.0, 2.0, 4.0, 3.0]
    );
}

#[test]
fn slots_are_where_the_gates_are() {
    let layouts = [
        GateLayout::LSTM,
        GateLayout::LSTMS_PTH,
        GateLayout::GRU,
        GateLayout::GRU_KERAS,
        GateLayout::PLAIN,
    ];
    for layout in layouts {
        assert_eq!(layout.len(), layout.gates().len());
        for (slot, &gate) in layout.gates().iter().enumerate() {
            assert_eq!(layout.slot(gate), Some(slot), "{layout:?}");
        }
        assert_eq!(layout.slot(Gate::Refine), None, "{layout:?}");
    }
}

fn zeros(columns: usize) -> Tensor<2> {
    Tensor::zeros([2, columns], &Device::flex())
}

#[test]
#[should_panic(expected = "a layout of 4 gates was split into 3")]
fn split_into_too_few() {
    let _: [Tensor<2>; 3] = GateLayout::LSTM.split(zeros(12));
}

#[test]
#[should_panic(expected = "packed tensor has 10 columns, expected a multiple of 4 gates")]
fn split_of_indivisible_columns() {
    let _: [Tensor<2>; 4] = GateLayout::LSTM.split(zeros(10));
}

#[test]
#[should_panic(expected = "has no Input gate")]
fn permute_from_a_layout_without_the_gate() {
    GateLayout::LSTM.permute_from(GateLayout::PLAIN, zeros(4));
}

#[test]
#[should_panic(expected = "differ in length")]
fn permute_from_a_longer_layout() {
    GateLayout::PLAIN.permute_from(GateLayout::LSTM, zeros(4));
}

#[test]
#[should_panic(expected = "packed tensor has 10 columns, expected a multiple of 4 gates")]
fn permute_from_of_indivisible_columns() {
    GateLayout::LSTM.permute_from(GateLayout::LSTMS_PTH, zeros(10));
}

// --- dropout

fn rows(values: &[f64]) -> Tensor<2> {
    tensor(values, [1, values.len()], &Device::flex(), DType::F32)
}

#[test]
fn zoneout_mixes_new_and_old() {
    let (new, old) = ([0.3, -0.7, 5.0, 1e30], [-0.9, 0.2, 1.0, 3.0]);
    assert_eq!(
        values(&zoneout(&None, rows(&new), rows(&old))),
        values(&rows(&new))
    );
    let update = Some(rows(&[1.0, 0.0, 0.25, 0.0]));
    let got = values(&zoneout(&update, rows(&new), rows(&old)));
    // u = 1 and u = 0 give new and old to the last bit, however large the other is.
    assert_eq!(got[..2], [f64::from(0.3f32), f64::from(0.2f32)]);
    assert_eq!(got[2..], [0.25 * 5.0 + 0.75, 3.0]);
}

#[test]
fn zoneout_passes_gradients_by_share() {
    let device = Device::flex().autodiff();
    let [new, old] = [[0.3, -0.7, 5.0], [-0.9, 0.2, 1.0]]
        .map(|x| tensor(&x, [1, 3], &device, DType::F32).require_grad());
    let update = Some(tensor(&[1.0, 0.0, 0.25], [1, 3], &device, DType::F32));
    let grads = zoneout(&update, new.clone(), old.clone()).sum().backward();
    assert_eq!(values(&new.grad(&grads).expect("new")), [1.0, 0.0, 0.25]);
    assert_eq!(values(&old.grad(&grads).expect("old")), [0.0, 1.0, 0.75]);
}

#[test]
fn apply_multiplies() {
    let x = rows(&[1.0, -2.0, 3.0]);
    assert_eq!(values(&apply(&None, x.clone())), [1.0, -2.0, 3.0]);
    let mask = Some(rows(&[0.0, 2.0, 1.5]));
    assert_eq!(values(&apply(&mask, x)), [0.0, -4.0, 4.5]);
}

/// Where a mask is 0 nothing flows back; elsewhere the gradient grows with the value.
#[test]
fn apply_passes_gradients_through_the_mask() {
    let device = Device::flex().autodiff();
    let mut random = Random::new(7);
    let mask = random.mask(2 * 9, 0.5, 2.0);
    assert!(mask.contains(&0.0) && mask.contains(&2.0));
    let x = tensor(&random.values(2 * 9, 1.0), [2, 9], &device, DType::F32).require_grad();
    let multiplier = tensor(&mask, [2, 9], &device, DType::F32);
    let grads = apply(&Some(multiplier), x.clone()).sum().backward();
    assert_eq!(values(&x.grad(&grads).expect("x")), mask);
}

fn per_step(steps: usize, rows: usize, columns: usize) -> Mask {
    let all: Vec<f64> = (0..steps * rows * columns).map(|k| k as f64).collect();
    let shape = [steps, rows, columns];
    Mask::PerStep(tensor(&all, shape, &Device::flex(), DType::F32))
}

fn per_sequence(rows: usize, columns: usize) -> Mask {
    let all: Vec<f64> = (0..rows * columns).map(|k| k as f64).collect();
    let shape = [rows, columns];
    Mask::PerSequence(tensor(&all, shape, &Device::flex(), DType::F32))
}

#[test]
fn masks_give_each_step_its_rows() {
    let masks = Masks {
        hidden: Some(per_sequence(2, 3)),
        cell: Some(per_step(4, 2, 3)),
        ..Masks::none()
    };
    masks.check(4, 2, MaskSizes::of(3, 3));
    assert!(!masks.is_none());
    for t in 0..4 {
        let StepMasks {
            hidden,
            cell,
            candidate,
            update_hidden,
            update_cell,
            adapt,
        } = masks.at(t);
        let hidden = hidden.expect("hidden");
        assert_eq!(values(&hidden), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let cell = cell.expect("cell");
        assert_eq!(cell.dims(), [2, 3]);
        let expected: Vec<f64> = (0..6).map(|k| (6 * t + k) as f64).collect();
        assert_eq!(values(&cell), expected, "step {t}");
        assert!(candidate.is_none() && update_hidden.is_none());
        assert!(update_cell.is_none() && adapt.is_none());
    }
}

#[test]
fn no_masks_are_none() {
    assert!(<Masks>::none().is_none());
    Masks::none().check(4, 2, MaskSizes::of(3, 3));
    let step = Masks::none().at(7);
    let StepMasks {
        hidden,
        cell,
        candidate,
        update_hidden,
        update_cell,
        adapt,
    } = step;
    for mask in [hidden, cell, candidate, update_hidden, update_cell, adapt] {
        assert!(mask.is_none());
    }
}

/// Masks on h have `d_output` features, the others `d_hidden`; more steps than needed are fine.
#[test]
fn masks_on_h_have_the_projected_size() {
    let masks = Masks {
        hidden: Some(per_sequence(2, 3)),
        cell: Some(per_sequence(2, 5)),
        candidate: Some(per_step(9, 2, 5)),
        update_hidden: Some(per_step(4, 2, 3)),
        update_cell: Some(per_sequence(2, 5)),
        adapt: None,
    };
    masks.check(4, 2, MaskSizes::of(5, 3));
}

#[rstest]
#[case::hidden("hidden", Masks { hidden: Some(per_sequence(2, 5)), ..Masks::none() }, 3)]
#[case::cell("cell", Masks { cell: Some(per_sequence(2, 3)), ..Masks::none() }, 5)]
#[case::candidate("candidate", Masks { candidate: Some(per_sequence(2, 3)), ..Masks::none() }, 5)]
#[case::update_hidden(
    "update_hidden", Masks { update_hidden: Some(per_sequence(2, 5)), ..Masks::none() }, 3
)]
#[case::update_cell(
    "update_cell", Masks { update_cell: Some(per_sequence(2, 3)), ..Masks::none() }, 5
)]
fn a_misfit_is_named(#[case] name: &str, #[case] masks: Masks, #[case] expected: usize) {
    let panic =
        std::panic::catch_unwind(|| masks.check(4, 2, MaskSizes::of(5, 3))).expect_err("a panic");
    let text = panic.downcast_ref::<String>().expect("a formatted panic");
    let start = format!("mask `{name}` has shape [2, ");
    let end = format!("expected [batch_size, features] = [2, {expected}]");
    assert!(text.starts_with(&start) && text.ends_with(&end), "{text}");
}

/// Nothing would read such a mask, whatever its shape.
#[rstest]
#[case::adapt(
    Masks { adapt: Some(per_sequence(2, 3)), ..Masks::none() },
    MaskSizes::of(5, 3),
    "got a mask `adapt`, expected none: the cell has no adaptation cell"
)]
#[case::cell(
    Masks { cell: Some(per_sequence(2, 5)), ..Masks::none() },
    MaskSizes::without_cell_state(5),
    "got a mask `cell`, expected none: the cell has no cell state, only a hidden state"
)]
#[case::update_cell(
    Masks { update_cell: Some(per_step(4, 2, 5)), ..Masks::none() },
    MaskSizes::without_cell_state(5),
    "got a mask `update_cell`, expected none: the cell has no cell state, only a hidden state"
)]
fn a_mask_without_a_place_is_refused(
    #[case] masks: Masks,
    #[case] sizes: MaskSizes,
    #[case] expected: &str,
) {
    let checks: [&dyn Fn(); 2] = [&|| masks.check(4, 2, sizes), &|| {
        masks.at(0).check_places(sizes)
    }];
    for check in checks {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        let panic = panic.expect_err("a panic");
        assert_eq!(panic.downcast_ref::<String>().expect("a text"), expected);
    }
}

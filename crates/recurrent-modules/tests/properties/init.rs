//! Initial values, on plain and on autodiff devices. Nothing here is filled by the tests: the
//! parameters are the lazy ones that the configs make.

use burn::module::Module;
use burn::nn::Initializer;
use burn::tensor::Device;
use recurrent_core::eval::compare::values;
use recurrent_core::eval::device::device;
use recurrent_modules::{
    GruConfig, LayerNormLstmConfig, LstmConfig, NormConfig, Recurrent, RecurrentConfig,
    RecurrentDropout, SlowLstmConfig,
};

use crate::support::*;

fn all_devices() -> Vec<Device> {
    devices()
        .into_iter()
        .flat_map(|device| [device.clone().without_autodiff(), device])
        .collect()
}

/// `[rows, columns]` blocks of a packed matrix.
fn blocks(packed: &[f64], rows: usize, count: usize) -> Vec<Vec<f64>> {
    let width = packed.len() / rows / count;
    (0..count)
        .map(|block| {
            (0..rows)
                .flat_map(|row| packed[(row * count + block) * width..][..width].to_vec())
                .collect()
        })
        .collect()
}

/// The gate blocks of the recurrent weights of the first cell, with their number of rows.
fn hidden_blocks(module: &Recurrent) -> (usize, Vec<Vec<f64>>) {
    macro_rules! packed {
        ($gates:expr) => {{
            let weight = $gates.weight_hidden.val();
            let [rows, columns] = weight.dims();
            (rows, blocks(&values(&weight), rows, columns / H))
        }};
    }
    match module {
        Recurrent::Lstm(stack) => packed!(stack.layers[0].forward.gates),
        Recurrent::LayerNormLstm(stack) => packed!(stack.layers[0].forward.gates),
        Recurrent::Gru(stack) => packed!(stack.layers[0].forward),
        Recurrent::SlowLstm(stack) => {
            let cell = &stack.layers[0].forward;
            let gates = [
                &cell.input_gate,
                &cell.forget_gate,
                &cell.cell_gate,
                &cell.output_gate,
            ];
            let weights = gates.map(|gate| gate.hidden_transform.weight.val());
            (weights[0].dims()[0], weights.iter().map(values).collect())
        }
        _ => panic!("no case of these tables"),
    }
}

fn projection(module: &Recurrent) -> Vec<f64> {
    let update = match module {
        Recurrent::Lstm(stack) => &stack.layers[0].forward.update,
        Recurrent::SlowLstm(stack) => &stack.layers[0].forward.update,
        Recurrent::LayerNormLstm(stack) => &stack.layers[0].forward.update,
        _ => panic!("no case of these tables"),
    };
    values(&update.projection.as_ref().expect("a projection").val())
}

/// Rows (of a wide matrix) or columns (of a tall one) are orthonormal, times `gain`.
#[track_caller]
fn assert_orthogonal(name: &str, matrix: &[f64], rows: usize, gain: f64) {
    let columns = matrix.len() / rows;
    let wide = rows <= columns;
    let (count, length) = if wide {
        (rows, columns)
    } else {
        (columns, rows)
    };
    let at = |vector: usize, k: usize| {
        let (row, column) = if wide { (vector, k) } else { (k, vector) };
        matrix[row * columns + column]
    };
    for a in 0..count {
        for b in 0..count {
            let dot: f64 = (0..length).map(|k| at(a, k) * at(b, k)).sum();
            let expected = if a == b { gain * gain } else { 0.0 };
            assert!(
                (dot - expected).abs() < 1e-5,
                "{name}: vectors {a} and {b} have product {dot}, expected {expected}"
            );
        }
    }
}

/// The variants that have nothing beside their gates' weights: the plain LSTMs, and the GRU.
fn simple_variants() -> Vec<(&'static str, RecurrentConfig)> {
    let mut list = lstm_variants();
    list.extend(gru_variants());
    list
}

#[test]
fn orthogonal_is_per_gate() {
    for device in all_devices() {
        for (variant, config) in simple_variants() {
            let gates = if has_cell_state(&config) { 4 } else { 3 };
            let mut projections = vec![None, projected(config.clone()).d_proj];
            projections.dedup();
            for proj in projections {
                let config = config
                    .clone()
                    .with_d_proj(proj)
                    .with_hidden_initializer(Some(Initializer::Orthogonal { gain: 1.5 }));
                let module = config.init(&device);
                let name = format!("{variant}, {proj:?}, {device:?}");
                let (rows, blocks) = hidden_blocks(&module);
                assert_eq!(rows, proj.unwrap_or(H));
                assert_eq!(blocks.len(), gates);
                for block in &blocks {
                    assert_orthogonal(&name, block, rows, 1.5);
                }
                assert_ne!(blocks[0], blocks[1], "{name}: gates share a draw");
                if proj.is_some() {
                    assert_orthogonal(&name, &projection(&module), H, 1.5);
                }
            }
        }
    }
}

/// `initializer` is for both matrices, the others override it; a constant shows which is which.
#[test]
fn initializers_have_their_place() {
    let constant = |value: f64| Some(Initializer::Constant { value });
    for device in all_devices() {
        for (name, config) in lstm_variants() {
            let config = config
                .with_d_proj(Some(P))
                .with_initializer(constant(0.25))
                .with_hidden_initializer(constant(0.5))
                .with_bias_initializer(constant(0.75));
            let expect = |config: &RecurrentConfig, input: f64, hidden: f64| {
                let mut seen = 0;
                each_parameter(&config.init(&device), |path, param| {
                    let expected = match path.rsplit('.').next().expect("a name") {
                        "weight_input" => input,
                        "weight_hidden" | "projection" => hidden,
                        "weight" if path.contains("input_transform") => input,
                        "weight" => hidden,
                        "gain" => 1.0,
                        "shift" => 0.0,
                        _ => 0.75,
                    };
                    let list = param.values();
                    assert!(
                        list.iter().all(|&v| v == expected),
                        "{name}: {path}: {list:?}"
                    );
                    seen += 1;
                });
                assert!(seen >= 4, "{name}");
            };
            expect(&config, 0.25, 0.5);
            expect(&config.clone().with_hidden_initializer(None), 0.25, 0.25);
            let config = config.with_input_initializer(constant(0.125));
            expect(&config, 0.125, 0.5);
        }
    }
}

#[test]
fn forget_bias_fills_the_forget_gate() {
    for device in all_devices() {
        for (name, config) in lstm_variants() {
            let config = config
                .with_num_layers(2)
                .with_bidirectional(true)
                .with_forget_bias(Some(1.5));
            let module = config.init(&device);
            let mut cells = 0;
            each_parameter(&module, |path, param| {
                let list = param.values();
                let field = path.rsplit('.').next().expect("a name");
                let is = |list: &[f64], value: f64| list.iter().all(|&v| v == value);
                match field {
                    "bias" if path.contains("forget_gate") => {
                        assert!(is(&list, 1.5), "{name}: {path}: {list:?}");
                        cells += 1;
                    }
                    "bias" if path.contains("_gate") => assert!(!is(&list, 1.5), "{path}"),
                    "bias" | "bias_input" => {
                        assert!(is(&list[H..2 * H], 1.5), "{name}: {path}: {list:?}");
                        for gate in [0, 2, 3] {
                            let block = &list[gate * H..(gate + 1) * H];
                            assert!(block.iter().all(|v| v.abs() < 1.0), "{name}: {path}");
                            assert!(block.iter().any(|&v| v != block[0]), "{name}: {path}");
                        }
                        cells += 1;
                    }
                    // The second bias adds nothing: the forget bias is counted once.
                    "bias_hidden" => {
                        assert!(is(&list[H..2 * H], 0.0), "{name}: {path}: {list:?}");
                        assert!(list[..H].iter().any(|&v| v != 0.0), "{name}: {path}");
                    }
                    _ => {}
                }
            });
            assert_eq!(cells, 4, "{name}");
        }
    }
}

/// U(−1/√H, 1/√H), with H of the layer itself; gains one and shifts zero.
#[test]
fn defaults_are_uniform_by_the_layer() {
    const SIZES: [usize; 2] = [64, 25];
    for device in all_devices() {
        for (name, config) in simple_variants() {
            let d_proj = has_cell_state(&config).then_some(20);
            let mut config = config
                .with_num_layers(2)
                .with_layer_sizes(Some(SIZES.to_vec()))
                .with_d_proj(d_proj);
            config.d_hidden = SIZES[1];
            each_parameter(&config.init(&device), |path, param| {
                let list = param.values();
                match path.rsplit('.').next().expect("a name") {
                    "gain" => return assert!(list.iter().all(|&v| v == 1.0), "{path}"),
                    "shift" => return assert!(list.iter().all(|&v| v == 0.0), "{path}"),
                    _ => {}
                }
                let layer = usize::from(path.contains("layers.1."));
                let bound = 1.0 / (SIZES[layer] as f64).sqrt();
                let largest = list.iter().fold(0.0f64, |max, v| max.max(v.abs()));
                assert!(
                    largest <= bound + 1e-6,
                    "{name}: {path}: {largest} > {bound}"
                );
                let count = list.len() as f64;
                // Missed once in 1e9 draws of `count` values.
                let least = bound * 1e-9f64.powf(1.0 / count);
                assert!(largest > least, "{name}: {path}: {largest} of {bound}");
                let share = |test: fn(f64) -> bool| {
                    list.iter().filter(|&&v| test(v)).count() as f64 / count
                };
                // Five standard deviations; the shortest vector has 25 values, not all of one sign.
                let allowed = 0.5 - 5.0 * 0.5 / count.sqrt();
                assert!(share(|v| v > 0.0) > allowed, "{name}: {path}");
                assert!(share(|v| v < 0.0) > allowed, "{name}: {path}");
            });
        }
    }
}

/// Two modules of one config differ, and clones do not.
#[test]
fn each_init_draws_anew() {
    for device in all_devices() {
        for (name, config) in variants() {
            let module = config.init(&device);
            let copy = module.clone(); // before anything is drawn
            let list = |module: &Recurrent| {
                let mut list = vec![];
                each_parameter(module, |_, param| list.extend(param.values()));
                list
            };
            assert_same(name, &list(&module), &list(&copy));
            assert_ne!(list(&module), list(&config.init(&device)), "{name}");
        }
    }
}

/// Counted from the equations.
#[test]
fn number_of_parameters() {
    let device = device();
    let cell = |name: &str, d_in: usize, h: usize, proj: Option<usize>| {
        let d_out = proj.unwrap_or(h);
        let weights = 4 * h * (d_in + d_out) + proj.map_or(0, |proj| h * proj);
        weights
            + match name {
                "Lstm" | "SlowLstm" => 4 * h,
                "LayerNormLstm" => 4 * h + 2 * (4 * h + 4 * h + h),
                "LayerNormLstm, lstms_pth" => 2 * 4 * h + 2 * (4 * h + 4 * h + h),
                "LayerNormLstm, cell only" => 4 * h + 2 * h,
                other => panic!("{other}"),
            }
    };
    for (name, config) in lstm_variants() {
        let count = |config: RecurrentConfig| config.init(&device).num_params();
        let single = || config.clone();
        assert_eq!(count(single()), cell(name, I, H, None), "{name}");
        assert_eq!(
            count(single().with_d_proj(Some(P))),
            cell(name, I, H, Some(P)),
            "{name}, projected"
        );
        assert_eq!(
            count(
                single()
                    .with_num_layers(2)
                    .with_layer_sizes(Some(vec![8, H]))
                    .with_bidirectional(true)
                    .with_d_proj(Some(P))
            ),
            2 * cell(name, I, 8, Some(P)) + 2 * cell(name, 2 * P, H, Some(P)),
            "{name}, bidirectional"
        );
        let biases = if name.contains("lstms_pth") {
            8 * H
        } else {
            4 * H
        };
        assert_eq!(
            count(single().with_bias(false)),
            cell(name, I, H, None) - biases,
            "{name}, no bias"
        );
    }
    for (name, config) in gru_variants() {
        let count = |config: RecurrentConfig| config.init(&device).num_params();
        // b_hn is a vector of its own only where the reset gate multiplies it.
        let biases = if name == "Gru" { 4 * H } else { 3 * H };
        let weights = |d_in: usize| 3 * H * (d_in + H);
        assert_eq!(count(config.clone()), weights(I) + biases, "{name}");
        let unbiased = config.clone().with_bias(false);
        assert_eq!(count(unbiased), weights(I), "{name}, no bias");
        let both = config.with_num_layers(2).with_bidirectional(true);
        let expected = 2 * (weights(I) + weights(2 * H)) + 4 * biases;
        assert_eq!(count(both), expected, "{name}, bidirectional");
    }
    let fixed = NormConfig::new().with_learnable(false);
    let config = LayerNormLstmConfig::new(I, H)
        .with_norm_input(Some(fixed.clone()))
        .with_norm_hidden(Some(fixed.clone()))
        .with_norm_cell(Some(fixed));
    assert_eq!(config.init(&device).num_params(), cell("Lstm", I, H, None));
}

/// Every option that changes which parameters there are or how they are used.
fn options(config: &RecurrentConfig) -> Vec<(String, RecurrentConfig)> {
    let mut list: Vec<(String, RecurrentConfig)> = all_containers(config)
        .into_iter()
        .map(|(name, config)| (name.to_string(), config))
        .collect();
    for kind in dropouts(config, 0.3) {
        let config = config
            .clone()
            .with_recurrent_dropout(kind)
            .with_num_layers(2)
            .with_dropout(0.2);
        list.push((format!("{kind:?}"), config));
    }
    for initializer in [
        Initializer::Orthogonal { gain: 1.0 },
        Initializer::XavierNormal { gain: 1.0 },
        Initializer::KaimingUniform {
            gain: 1.0,
            fan_out_only: false,
        },
        Initializer::Normal {
            mean: 0.0,
            std: 0.3,
        },
    ] {
        let name = format!("{initializer:?}");
        let config = projected(config.clone())
            .with_initializer(Some(initializer))
            .with_forget_bias(has_cell_state(config).then_some(1.0));
        list.push((name, config));
    }
    if let RecurrentConfig::LayerNormLstm(config) = config {
        for norm in [
            NormConfig::ba(),
            NormConfig::bradbury().with_uniform_start(H),
            NormConfig::new().with_learnable(false),
        ] {
            let config = config
                .clone()
                .with_norm_hidden(Some(norm.clone()))
                .with_norm_cell(Some(norm.clone()));
            let name = format!("{norm:?}");
            list.push((name, RecurrentConfig::LayerNormLstm(config)));
        }
    }
    list
}

/// A parameter's first reading draws it; on an autodiff device it must come out as a leaf that
/// requires a gradient, and get one.
#[test]
fn gradients_arrive_at_every_parameter() {
    for device in devices() {
        for (variant, config) in variants() {
            for (option, config) in options(&config) {
                let name = format!("{variant}, {option}, {device:?}");
                let module = config.init(&device);
                let problem = Problem::new(&module, config.batch_first, 12, &device);
                // The first reading is that of `forward`, not ours.
                let (output, state) = module.forward(problem.input, Some(problem.state));
                let mut loss = cotangent_loss(&output, 1);
                if let Some(cell) = state.last().get("cell") {
                    loss = loss + cotangent_loss(cell, 2);
                }
                let gradients = loss.backward();
                let mut count = 0;
                each_parameter(&module, |path, param| {
                    assert!(param.requires_grad(), "{name}: {path} requires no gradient");
                    let gradient = param
                        .gradient(&gradients)
                        .unwrap_or_else(|| panic!("{name}: no gradient at {path}"));
                    assert_eq!(
                        gradient.len(),
                        param.shape().num_elements(),
                        "{name}: {path}"
                    );
                    assert!(gradient.iter().all(|g| g.is_finite()), "{name}: {path}");
                    assert!(gradient.iter().any(|&g| g != 0.0), "{name}: {path} is zero");
                    count += gradient.len();
                });
                assert_eq!(count, module.num_params(), "{name}");
            }
        }
    }
}

/// Read before any call; on a plain device nothing requires a gradient until `train`.
#[test]
fn parameters_require_gradients_where_they_can() {
    for device in all_devices() {
        for (name, config) in variants() {
            let forget_bias = has_cell_state(&config).then_some(1.0);
            let config = projected(config).with_forget_bias(forget_bias);
            let module = config.init(&device);
            each_parameter(&module, |path, param| {
                assert_eq!(
                    param.requires_grad(),
                    device.is_autodiff(),
                    "{name}: {path}"
                );
            });
            let trained = config.init(&device).train();
            each_parameter(&trained, |path, param| {
                assert!(param.requires_grad(), "{name}: {path} after train");
            });
            each_parameter(&config.init(&device).freeze(), |path, param| {
                assert!(!param.requires_grad(), "{name}: {path} after freeze");
            });
            let moved = config.init(&device).fork(&device);
            each_parameter(&moved, |path, param| {
                assert_eq!(
                    param.requires_grad(),
                    device.is_autodiff(),
                    "{name}: {path} forked"
                );
            });
        }
    }
}

/// The constructors set what they say.
#[test]
fn constructors_set_their_fields() {
    let kinds = [
        (
            LstmConfig::gal(I, H, 0.3),
            RecurrentDropout::Gal { prob: 0.3 },
        ),
        (
            LstmConfig::moon(I, H, 0.3),
            RecurrentDropout::Moon { prob: 0.3 },
        ),
        (
            LstmConfig::semeniuta(I, H, 0.3),
            RecurrentDropout::Semeniuta { prob: 0.3 },
        ),
        (
            LstmConfig::zoneout(I, H, 0.1, 0.2),
            RecurrentDropout::Zoneout {
                hidden: 0.1,
                cell: 0.2,
            },
        ),
    ];
    for (config, kind) in kinds {
        assert_eq!(config.recurrent_dropout, kind);
        assert_eq!((config.d_input, config.d_hidden), (I, H));
    }
    let kinds = [
        (
            GruConfig::gal(I, H, 0.3),
            RecurrentDropout::Gal { prob: 0.3 },
        ),
        (
            GruConfig::semeniuta(I, H, 0.3),
            RecurrentDropout::Semeniuta { prob: 0.3 },
        ),
        (
            GruConfig::zoneout(I, H, 0.1),
            RecurrentDropout::Zoneout {
                hidden: 0.1,
                cell: 0.0,
            },
        ),
    ];
    for (config, kind) in kinds {
        assert_eq!(config.recurrent_dropout, kind);
        assert_eq!((config.d_input, config.d_hidden), (I, H));
        assert_eq!(config.validate(), Ok(()));
    }
    let config = SlowLstmConfig::stacked(I, [8, H]);
    assert_eq!((config.num_layers, config.d_hidden), (2, H));
    assert_eq!(config.sizes(), [8, H]);
}

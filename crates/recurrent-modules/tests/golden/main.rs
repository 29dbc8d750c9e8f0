//! Outputs, final states and all gradients against the original implementations.
//!
//! Every `*.safetensors` file of `tests/golden/data` (or of `RECURRENT_GOLDEN_DIR`) is one case;
//! its metadata says which module runs it. See `tests/golden/data/SOURCE.md` for where the files
//! come from. The parameters of a file are the leaves of the graph, under the original's names and
//! in its layout; the conversion to ours is differentiable, so that each gradient of the file is
//! compared as it stands. Each file runs step by step and, where there is one, by a fused kernel.
//!
//! Options may be left out or null, which means off. A variant, an option or a mask that nothing here
//! has read fails its file: what the file is about would not be computed.

mod adaptive;
mod exercise;
mod file;
mod gru;
mod kernels;
mod lstms;
mod mogrifier;
mod torch;
mod ur;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use recurrent_core::Target;
use recurrent_core::eval::compare::{Tolerance, close, values};
use recurrent_core::eval::device::chosen;
use recurrent_core::sequence::target;
use recurrent_modules::Strategy;

use file::{Golden, Outputs};

fn run(golden: &Golden) -> Result<Outputs, String> {
    match golden.variant.as_str() {
        "torch_lstm" | "ulstm" => torch::lstm(golden),
        "torch_lstmcell" => torch::cell(golden),
        "exercise_lstmcell" => torch::exercise_cell(golden),
        "naive_lstm" => torch::naive(golden),
        "cifg" | "cifg_peephole" | "peephole_diag" | "peephole_full" => exercise::lstm(golden),
        "gru" => gru::gru(golden),
        "gru_cell" => gru::cell(golden),
        "urlstm" | "rlstm" => ur::lstm(golden),
        "urlstm_cell" => ur::cell(golden),
        "alstm" => adaptive::model(golden),
        "alstm_cell" | "alstm_cell_asshipped" => adaptive::cell(golden),
        "mogrifier" => mogrifier::notebook(golden),
        "mogrifier_paper" => mogrifier::paper(golden),
        "lstms_norm" => lstms::norm(golden),
        "lstms_multilayer" => lstms::multilayer(golden),
        "lstms_slow"
        | "lstms_lstm"
        | "lstms_gal"
        | "lstms_moon"
        | "lstms_semeniuta"
        | "lstms_layernorm"
        | "lstms_layernorm_gal"
        | "lstms_layernorm_moon"
        | "lstms_layernorm_semeniuta" => lstms::single(golden),
        other => Err(format!("unknown variant `{other}`")),
    }
}

/// What values and gradients may differ by. GPUs compute tanh of small numbers through exp, with an
/// absolute error of a rounding of 1: twice as much there, see docs/gpu.md.
fn tolerances(device: &Device, seq_length: usize) -> [Tolerance; 2] {
    let of = [
        Tolerance::values(DType::F32, seq_length),
        Tolerance::gradients(DType::F32, seq_length),
    ];
    match target(device) {
        Some(Target::Cpu) => of,
        _ => of.map(|tolerance| Tolerance(2.0 * tolerance.0)),
    }
}

/// Runs one file; returns its variant and whether a kernel can run it, or every difference.
fn check(path: &Path, device: &Device, strategy: Strategy) -> Result<(String, bool), Vec<String>> {
    let golden = Golden::open(path, device, strategy).map_err(|error| vec![error])?;
    let outputs = run(&golden).map_err(|error| vec![error])?;
    let seq_length = golden.usize("seq").unwrap_or(1);
    let mut errors = Vec::new();
    errors.extend(golden.unknown());
    match kernels::expected(&golden) {
        Ok(expected) => {
            let expected = expected && target(device).is_some();
            if golden.has_kernel() != expected {
                let got = golden.has_kernel();
                errors.push(format!(
                    "has a kernel: {got}, by docs/kernels.md: {expected}"
                ));
            }
        }
        Err(error) => errors.push(error),
    }

    let tolerances = tolerances(device, seq_length);
    let mut loss = Tensor::<1>::zeros([1], device);
    for (name, output) in &outputs {
        match golden.values(name) {
            Some(expected) => {
                errors.extend(close(name, &values(output), &expected, tolerances[0]).err());
            }
            None => errors.push(format!("the file has no output `{name}`")),
        }
        let weights = golden.tensor::<1>(&format!("loss_w.{name}"));
        loss = loss + (output.clone() * weights).sum();
    }
    for name in golden.names_after("loss_w.") {
        if !outputs.iter().any(|(other, _)| *other == name) {
            errors.push(format!("output `{name}` of the file was not computed"));
        }
    }
    let (got, expected) = (values(&loss)[0], golden.values("loss").expect("loss")[0]);
    if (got - expected).abs() > 1e-4 + 1e-5 * expected.abs() {
        errors.push(format!("loss: got {got}, expected {expected}"));
    }

    let gradients = loss.backward();
    let unused = golden.strings("zero_grad_params");
    for name in golden.names_after("grad.") {
        let expected = golden.values(&format!("grad.{name}")).expect("listed");
        let got = match golden.gradient(&name, &gradients) {
            Ok(Some(gradient)) => gradient,
            Ok(None) if unused.iter().any(|p| name == format!("param.{p}")) => {
                vec![0.0; expected.len()]
            }
            Ok(None) => {
                errors.push(format!("grad.{name}: no gradient arrived"));
                continue;
            }
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        errors.extend(close(&format!("grad.{name}"), &got, &expected, tolerances[1]).err());
    }
    if errors.is_empty() {
        let has_kernel = golden.has_kernel();
        Ok((golden.variant, has_kernel))
    } else {
        Err(errors)
    }
}

fn directory() -> PathBuf {
    std::env::var_os("RECURRENT_GOLDEN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data"),
        PathBuf::from,
    )
}

/// A device on which Burn's own products take seconds (docs/gpu.md): what is composed is not run there.
const KERNELS_ALONE: &str = "cpu";

/// Each file step by step, as it comes, and by a kernel where there is one.
fn check_all(name: &str, device: Device) {
    let directory = directory();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("directory entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "safetensors"))
        .collect();
    paths.sort();
    assert!(
        !paths.is_empty(),
        "no golden files in {}",
        directory.display()
    );

    // Files of a variant, and those of them by a kernel.
    let mut checked: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    let started = std::time::Instant::now();
    for path in &paths {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut run = |strategy: Strategy| match check(path, &device, strategy) {
            Ok(done) => Some(done),
            Err(errors) => {
                let text = |error| format!("{file}, {strategy:?}: {error}");
                failures.extend(errors.into_iter().map(text));
                None
            }
        };
        if name == KERNELS_ALONE {
            let golden = Golden::open(path, &device, Strategy::Fused);
            if golden.is_ok_and(|golden| kernels::expected(&golden) == Ok(false)) {
                continue;
            }
            if let Some((variant, _)) = run(Strategy::Fused) {
                let counts = checked.entry(variant).or_default();
                *counts = (counts.0 + 1, counts.1 + 1);
            }
            println!("{file} ({:.0} s)", started.elapsed().as_secs_f64());
            continue;
        }
        run(Strategy::Composed);
        let Some((variant, has_kernel)) = run(Strategy::Auto) else {
            continue;
        };
        let fused = has_kernel && run(Strategy::Fused).is_some();
        let counts = checked.entry(variant).or_default();
        counts.0 += 1;
        counts.1 += usize::from(fused);
    }
    let total = |of: fn(&(usize, usize)) -> usize| checked.values().map(of).sum::<usize>();
    println!(
        "golden files checked on {name}: {}, by a kernel: {}",
        total(|counts| counts.0),
        total(|counts| counts.1)
    );
    for (variant, (all, fused)) in &checked {
        println!("  {variant:<28}{all:>4}{fused:>4}");
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    if std::env::var_os("RECURRENT_GOLDEN_DIR").is_none() {
        let counts = [total(|counts| counts.0), total(|counts| counts.1)];
        let fused = target(&device).map_or(0, |_| 157);
        let all = if name == KERNELS_ALONE { fused } else { 181 };
        assert_eq!(counts, [all, fused], "files, and those by a kernel");
    }
}

#[test]
fn golden_files_on_flex() {
    check_all("flex", Device::flex().autodiff());
}

#[test]
#[allow(deprecated)] // upstream drops it; this library still supports it
fn golden_files_on_ndarray() {
    check_all("ndarray", Device::ndarray().autodiff());
}

/// On the device that `BURN_DEVICE` names, whichever it is.
#[test]
fn golden_files_on_the_chosen_device() {
    if let Some((name, device)) = chosen() {
        check_all(&name, device.autodiff());
    }
}

/// The comparison itself must be able to fail: two gates swapped in a file.
#[test]
fn swapped_gates_are_noticed() {
    let device = Device::flex().autodiff();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    for file in [
        "torch_lstm__l1_state",
        "gru__l1_state",
        "gru__original_l1_state",
    ] {
        let path = data.join(file).with_extension("safetensors");
        let mut golden = Golden::open(&path, &device, Strategy::Auto).expect("a golden file");
        golden.swap_rows("param.weight_ih_l0", 0, 6, 6);
        let outputs = run(&golden).expect("the case runs");
        let (name, y) = &outputs[0];
        let expected = golden.values(name).expect("y");
        let tolerance = Tolerance::values(DType::F32, 7);
        assert!(
            close(name, &values(y), &expected, tolerance).is_err(),
            "{file}"
        );
    }
}

/// What a file says and nothing reads must not pass in silence.
#[test]
fn unknown_options_and_masks_are_noticed() {
    let device = Device::flex().autodiff();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    let open = |name: &str| {
        let path = data.join(name).with_extension("safetensors");
        Golden::open(&path, &device, Strategy::Auto).expect("a golden file")
    };
    let mut golden = open("cifg__l1_state");
    golden.set_option("zoneout", 0.1.into());
    run(&golden).expect("the case runs");
    assert_eq!(
        golden.unknown(),
        ["option `zoneout` = 0.1 is not known for `cifg`"]
    );

    let mut golden = open("alstm__l2_dropout_train");
    golden.set_option("dropout_adapt", serde_json::Value::Null);
    let error = run(&golden).err();
    let expected = "`mask.adapt.0` is there, `dropout_adapt` is not";
    assert_eq!(error.as_deref(), Some(expected));

    let mut golden = open("alstm__l2_dropout_h_only");
    golden.set_option("dropout_adapt", 0.25.into());
    let error = run(&golden).err();
    let expected = "`dropout_adapt` is there, `mask.adapt.0` is not";
    assert_eq!(error.as_deref(), Some(expected));

    // Before the case has run, nothing has been read.
    let unknown = open("torch_lstm__l2_dropout_train").unknown();
    assert!(
        unknown.contains(&"`mask.y.0` was not applied".to_string()),
        "{unknown:?}"
    );
}

//! Converts weights: from files of PyTorch, Keras and the original implementations to a folder that
//! [`Recurrent::load`] reads, and back to SafeTensors files in their layouts.
//!
//! `cargo run --release --example convert -- model.pt converted --prefix encoder.lstm`
//!
//! It lists each tensor of the file and the parameter it maps to. It writes to a temporary folder first, reads
//! that back and compares; the output is written only if both agree, so a failed conversion
//! leaves no files. `docs/conversions.md` describes the layouts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use comfy_table::{LineStyle, Table, TableStyle};
use recurrent_bench::device::{self, DEFAULT_DEVICE};
use recurrent_bench::error::{self, Error};
use recurrent_modules::import::{Dtype, ImportError, Mapping, Source, SourceOptions, Tensors};
use recurrent_modules::{CONFIG_FILE, PolicyLayout, Recurrent, RecurrentConfig};
use tempfile::TempDir;

/// A line under the heading.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

#[derive(Debug, Parser)]
#[command(about = "Convert weights between PyTorch, Keras, the originals and this library")]
struct Args {
    /// A .pt, .pth, .safetensors or .bpk file, or a folder written by this library
    input: PathBuf,
    /// A folder, or a file that ends in .safetensors
    output: PathBuf,
    /// Layout of the input: recurrent, pytorch, burn-nn, ur-lstm, lstms-pth, alstm, mogrifier,
    /// lamb, haste or keras [default: detected from the names]
    #[arg(long, value_name = "SOURCE")]
    from: Option<Source>,
    /// Layout of a .safetensors output
    #[arg(long, value_name = "SOURCE", default_value = "recurrent")]
    to: Source,
    /// The variant the input must hold, such as Lstm or LayerNormLstm [default: detected from the names]
    #[arg(long)]
    variant: Option<String>,
    /// The part of a larger model whose names begin with this, such as encoder.lstm
    #[arg(long, default_value = "")]
    prefix: String,
    /// Data type of the output
    #[arg(long, value_enum, default_value_t = Numbers::F32)]
    dtype: Numbers,
    /// Rounds of a Mogrifier notebook's model, which its file does not contain
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The file comes from the published alstm code, whose parts of the policy overlap
    #[arg(long)]
    overlapping_policy: bool,
    /// `reset_after` is false, for a GRU of burn-nn or of Keras without biases, whose file does not
    /// contain that setting
    #[arg(long)]
    reset_before: bool,
    /// Check and show everything, write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Numbers {
    F32,
    F16,
    Bf16,
}

impl Numbers {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::Bf16,
        }
    }
}

/// A parsed input.
struct Read {
    model: Recurrent,
    source: Source,
}

fn main() -> ExitCode {
    error::finish(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Error> {
    let device = device::open(DEFAULT_DEVICE.parse()?)?;
    let Read { model, source } = read(args, &device)?;
    let config = RecurrentConfig::of(&model);
    println!(
        "{} from {source}: {} inputs, {} outputs",
        config.name(),
        model.d_input(),
        model.d_output()
    );

    let to_file = args
        .output
        .extension()
        .is_some_and(|ext| ext == "safetensors");
    // Also in a dry run, to report whether the other layout can express the model.
    let tensors = match to_file {
        true => {
            let tensors = args.to.export(&model).map_err(Error::other)?;
            Some(tensors.cast(args.dtype.dtype()).map_err(Error::other)?)
        }
        false if args.to != Source::Recurrent => {
            return Err(Error::other(format!(
                "--to {} writes a SafeTensors file: {} must end in .safetensors",
                args.to,
                args.output.display()
            )));
        }
        false => None,
    };
    if args.dry_run {
        println!("dry run: {} is not written", args.output.display());
        return Ok(());
    }
    let write = |path: &Path| match &tensors {
        Some(tensors) => tensors.save_safetensors(path).map_err(Error::other),
        None => model
            .save_as(path, args.dtype.dtype())
            .map_err(Error::other),
    };
    let check = |path: &Path| {
        let again = match to_file {
            true => {
                let file = Tensors::open(path).map_err(Error::other)?;
                let options = options(args, Some(&config));
                let again = args.to.load(&file, &options, &device);
                again.map_err(Error::other)?
            }
            false => Recurrent::load(path, &device).map_err(Error::other)?,
        };
        compare(&model, &again, args)
    };
    let report = write_checked(&args.output, write, check)?;
    println!("{}: {report}", args.output.display());
    Ok(())
}

/// Writes the output after the same files, in a temporary folder, have passed the check.
fn write_checked<T>(
    output: &Path,
    write: impl Fn(&Path) -> Result<(), Error>,
    check: impl FnOnce(&Path) -> Result<T, Error>,
) -> Result<T, Error> {
    let trial = trial_folder(output)?;
    let path = trial.path().join(output.file_name().unwrap_or_default());
    write(&path)?;
    let passed = check(&path)?;
    write(output)?;
    Ok(passed)
}

/// A temporary folder on the output's file system; removed with its contents when dropped.
fn trial_folder(output: &Path) -> Result<TempDir, Error> {
    let parents = output.ancestors().skip(1);
    let mut parents = parents.map(|path| match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    });
    let parent = parents.find(|path| path.is_dir());
    let parent = parent.unwrap_or(Path::new("."));
    let folder = tempfile::Builder::new()
        .prefix(".convert-")
        .tempdir_in(parent);
    folder.map_err(|error| Error::other(format!("cannot write to {}: {error}", parent.display())))
}

/// Settings that the tensors do not contain, from the options or, for the output, from its config.
fn options(args: &Args, output: Option<&RecurrentConfig>) -> SourceOptions {
    let variant = output.map(|config| config.name().to_string());
    SourceOptions {
        variant: variant.or_else(|| args.variant.clone()),
        rounds: args.rounds,
        policy: match args.overlapping_policy {
            true => PolicyLayout::Overlapping,
            false => PolicyLayout::Cumulative,
        },
        reset_after: match output {
            Some(RecurrentConfig::Gru(config)) => config.reset_after,
            _ => !args.reset_before,
        },
    }
}

/// Reads the input and lists its tensors.
fn read(args: &Args, device: &Device) -> Result<Read, Error> {
    if args.input.join(CONFIG_FILE).is_file() {
        let model = Recurrent::load(&args.input, device).map_err(Error::other)?;
        println!("{}: a folder of this library", args.input.display());
        return Ok(Read {
            model,
            source: Source::Recurrent,
        });
    }
    let whole = Tensors::open(&args.input).map_err(|error| at(&args.input, error))?;
    let file = whole
        .under(&args.prefix)
        .map_err(|error| at(&args.input, error))?;
    println!(
        "{}: {} tensors, {} bytes{}",
        args.input.display(),
        file.len(),
        file.byte_len(),
        match args.prefix.is_empty() {
            true => String::new(),
            false => format!(" under `{}` (of {} tensors)", args.prefix, whole.len()),
        }
    );
    let Some(source) = args.from.or_else(|| Source::guess(&file)) else {
        show(&file, None);
        return Err(Error::other(format!(
            "the names do not show whose layout this is; name it with --from, or the part of the \
             model with --prefix{}",
            parts(&file)
        )));
    };
    let options = options(args, None);
    let config = match source.config(&file, &options) {
        Ok(config) => config,
        Err(error) => {
            show(&file, None);
            return Err(at(&args.input, error));
        }
    };
    let mapping = config
        .try_init(device)
        .map_err(ImportError::from)
        .and_then(|model| source.mapping_of(&model, &file));
    let mapping = mapping.map_err(|error| at(&args.input, error))?;
    show(&file, Some(&mapping));
    for (name, tensor) in file
        .iter()
        .filter(|(_, tensor)| tensor.dtype() != Dtype::F32)
    {
        println!("`{name}` is {} in the file, F32 here", tensor.dtype());
    }
    let model = source.load(&file, &options, device);
    Ok(Read {
        model: model.map_err(|error| at(&args.input, error))?,
        source,
    })
}

/// Prefixes under which the names of a file match a layout.
fn parts(file: &Tensors) -> String {
    let prefixes: BTreeSet<&str> = file
        .names()
        .flat_map(|name| name.match_indices('.').map(|(end, _)| &name[..end]))
        .collect();
    let part = |prefix: &str| {
        Some((
            prefix.to_string(),
            Source::guess(&file.under(prefix).ok()?)?,
        ))
    };
    let found: Vec<String> = prefixes
        .into_iter()
        .filter_map(part)
        .map(|(prefix, source)| format!("{prefix} ({source})"))
        .collect();
    match found.is_empty() {
        true => String::new(),
        false => format!(": {}", found.join(", ")),
    }
}

/// An error with the file name.
fn at(path: &Path, error: ImportError) -> Error {
    match error {
        error @ ImportError::Read { .. } => Error::other(error),
        error => Error::other(format!("{}: {error}", path.display())),
    }
}

/// Each tensor of the file, and the parameter it maps to.
fn show(file: &Tensors, mapping: Option<&Mapping>) {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(["tensor", "shape", "type", "goes to"]);
    for (name, tensor) in file.iter() {
        let to = match mapping {
            Some(mapping) => {
                let targets: Vec<&str> = mapping
                    .targets(name)
                    .map(|entry| entry.param.as_str())
                    .collect();
                match targets.is_empty() {
                    true => "nothing here".to_string(),
                    false => targets.join(", "),
                }
            }
            None => String::new(),
        };
        let shape = format!("{:?}", tensor.shape());
        let dtype = tensor.dtype().to_string();
        let name = name.escape_debug().to_string();
        table.add_row([name, shape, dtype, to]);
    }
    println!("{}", table.trim_fmt());
}

/// Compares the written weights with their source, and reports the largest difference.
fn compare(model: &Recurrent, again: &Recurrent, args: &Args) -> Result<String, Error> {
    let values = |model: &Recurrent| Source::Recurrent.export(model).map_err(Error::other);
    let (expected, got) = (values(model)?, values(again)?);
    let (mut largest, mut count) = (0.0f64, 0usize);
    for (name, tensor) in expected.iter() {
        let got = got.get(name);
        let got = got.ok_or_else(|| Error::other(format!("`{name}` did not come back")))?;
        let [a, b] = [tensor, got].map(|tensor| tensor.values(name).map_err(Error::other));
        let (a, b) = (a?, b?);
        if a.shape() != b.shape() {
            return Err(Error::other(format!("`{name}` came back in another shape")));
        }
        count += a.num_elements();
        let differences = a
            .iter::<f64>()
            .zip(b.iter::<f64>())
            .map(|(a, b)| (a - b).abs());
        largest = differences.fold(largest, f64::max);
    }
    if args.dtype == Numbers::F32 && largest > 0.0 {
        return Err(Error::other(format!(
            "what was read back differs from what was written by {largest:e}, expected no difference"
        )));
    }
    Ok(format!(
        "{count} weights as {}, read back, largest difference {largest:e}",
        args.dtype.dtype()
    ))
}

#[cfg(test)]
mod tests {
    use burn::config::Config;

    use super::*;

    const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../recurrent-modules");

    /// Runs the program on an input and an output.
    fn convert(input: &Path, output: &Path, options: &[&str]) -> Result<(), Error> {
        let paths = [input, output].map(|path| path.to_str().expect("UTF-8"));
        let args = ["convert"].iter().chain(&paths).chain(options);
        run(&Args::try_parse_from(args).expect("proper arguments"))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort();
        names
    }

    /// The header of the file has 896 bytes: its first two are those of a pickle.
    #[test]
    fn a_checkpoint_of_pytorch_becomes_safetensors_and_a_folder() {
        let input = Path::new(MODULES).join("tests/weights/data/lstm_8_8.pt");
        let folder = tempfile::tempdir().expect("a folder");
        let [file, own] = ["lstm.safetensors", "own"].map(|name| folder.path().join(name));
        convert(&input, &file, &[]).expect("converted");
        convert(&file, &own, &[]).expect("converted again");
        convert(&own, &file, &["--to", "pytorch", "--dtype", "f16"]).expect("and back, replaced");
        assert_eq!(names(folder.path()), ["lstm.safetensors", "own"]);
        assert_eq!(names(&own), [CONFIG_FILE, "model.bpk"]);
    }

    #[test]
    fn a_gru_goes_through_every_source_that_has_one() {
        let data = Path::new(MODULES).join("tests");
        let torch = data.join("golden/data/gru__l1_none.safetensors");
        let keras = data.join("weights/data/keras_gru.safetensors");
        let folder = tempfile::tempdir().expect("a folder");
        let [own, file] = ["own", "gru.safetensors"].map(|name| folder.path().join(name));
        convert(&torch, &own, &["--prefix", "param", "--variant", "Gru"]).expect("read");
        for to in ["pytorch", "burn-nn", "keras"] {
            convert(&own, &file, &["--to", to]).expect("written");
            let again = folder.path().join(to);
            convert(&file, &again, &[]).expect("found and read");
            let config = RecurrentConfig::load(again.join(CONFIG_FILE)).expect("a config");
            assert_eq!(config.name(), "Gru", "{to}");
        }

        // The other form, which burn-nn's record does not show.
        let before = folder.path().join("before");
        convert(&keras, &before, &["--prefix", "gru"]).expect("read");
        let error = convert(&before, &file, &["--to", "pytorch"]).expect_err("refused");
        assert!(error.to_string().contains("`reset_after`"), "{error}");
        convert(&before, &file, &["--to", "burn-nn"]).expect("written");
        for (options, expected) in [(&["--reset-before"][..], false), (&[], true)] {
            let again = folder.path().join(format!("again-{expected}"));
            convert(&file, &again, options).expect("read");
            let config = RecurrentConfig::load(again.join(CONFIG_FILE)).expect("a config");
            let RecurrentConfig::Gru(config) = config else {
                panic!("a GRU")
            };
            assert_eq!(config.reset_after, expected);
        }

        let lstm = &["--prefix", "param", "--variant", "Lstm"];
        let error = convert(&torch, &own, lstm).expect_err("refused");
        assert!(
            error.to_string().contains("holds a Gru of pytorch"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_read_back_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("out");
        let file = |path: &Path| std::fs::write(path, b"new").map_err(Error::other);
        let own = |path: &Path| {
            std::fs::create_dir(path).map_err(Error::other)?;
            file(&path.join(CONFIG_FILE))
        };
        let refuse = |path: &Path| -> Result<(), Error> {
            assert!(path.exists(), "the check reads what was written");
            Err(Error::other("another value"))
        };
        write_checked(&output, file, refuse).expect_err("refused");
        write_checked(&output, own, refuse).expect_err("refused");
        assert!(names(folder.path()).is_empty());

        std::fs::write(&output, b"old").expect("written");
        write_checked(&output, file, refuse).expect_err("refused");
        assert_eq!(std::fs::read(&output).expect("there"), b"old");
        write_checked(&output, file, |_| Ok(())).expect("passed");
        assert_eq!(std::fs::read(&output).expect("there"), b"new");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn an_output_that_cannot_be_written_leaves_nothing() {
        let input = Path::new(MODULES).join("tests/weights/data/lstm_8_8.pt");
        let folder = tempfile::tempdir().expect("a folder");
        let taken = folder.path().join("taken.safetensors");
        std::fs::create_dir(&taken).expect("a folder in the way");
        convert(&input, &taken, &[]).expect_err("a folder has that name");
        let missing = folder.path().join("missing").join("lstm.safetensors");
        convert(&input, &missing, &[]).expect_err("no such folder");
        let below_a_file = input.join("own");
        convert(&input, &below_a_file, &[]).expect_err("a file is no folder");
        assert_eq!(names(folder.path()), ["taken.safetensors"]);
        assert!(names(&taken).is_empty());
    }
}

//! Damaged and hostile files: an error or a correct reading, never a panic, never more memory than a
//! small multiple of the file.
//!
//! A seeded mutator makes the files from correct ones of each format; a few are made by hand. The
//! allocator of this binary counts what is held, so that the bound is measured and not argued. The
//! same files can be searched for further with `cargo fuzz`, see `fuzz/`.

mod allocator;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use recurrent_modules::import::{Source, SourceOptions, Tensors};
use recurrent_modules::{GruConfig, LstmConfig, MogrifierLstmConfig, Recurrent, RecurrentConfig};

/// Damaged files of each format; `RECURRENT_HOSTILE_FILES` asks for more.
fn files() -> usize {
    let asked = std::env::var("RECURRENT_HOSTILE_FILES").ok();
    asked.map_or(400, |count| count.parse().expect("a number of files"))
}

/// Most bytes held at once while a file of so many is read and loaded. Reading holds the file, the
/// names, and of one parameter at a time its values (f16 becomes f32) and a copy in another order;
/// the module itself is as large as the file or, from f16, twice that.
fn bound(length: usize) -> usize {
    // serde allocates up to 1 MiB for a list before it sees its items.
    (1 << 21) + 12 * length
}

/// Reads bytes as any caller would, and loads what can be loaded. Gives the most bytes held, and
/// whether a model came of it.
fn read(bytes: Vec<u8>, what: &str) -> (usize, bool) {
    let length = bytes.len();
    let device = Device::flex();
    let (result, peak) = allocator::measure(|| {
        catch_unwind(AssertUnwindSafe(|| {
            let Ok(file) = Tensors::from_bytes(bytes) else {
                return false;
            };
            let Some(source) = Source::guess(&file) else {
                return false;
            };
            source
                .load(&file, &SourceOptions::default(), &device)
                .is_ok()
        }))
    });
    let loaded = result.unwrap_or_else(|_| panic!("{what}: a panic"));
    assert!(
        peak <= bound(length),
        "{what}: {peak} bytes held for a file of {length}, expected at most {}",
        bound(length)
    );
    (peak, loaded)
}

/// Mutations of correct files, all of a format.
fn check(format: &str, seeds: &[Vec<u8>]) {
    // The backend's own one-time allocations.
    for seed in seeds {
        let (_, loaded) = read(seed.clone(), format);
        assert!(loaded, "{format}: the file without damage must load");
    }
    let count = files();
    let mut rng = ChaCha8Rng::seed_from_u64(2024);
    let (mut most, mut read_all_the_same) = (0.0f64, 0);
    for index in 0..count {
        let seed = &seeds[index % seeds.len()];
        let damaged = mutate::mutate(seed, &mut rng);
        let length = damaged.len().max(1);
        let (peak, loaded) = read(damaged, &format!("{format} {index}"));
        // Of a file of a few bytes any message is many times as much.
        if length > 1024 {
            most = most.max(peak as f64 / length as f64);
        }
        read_all_the_same += usize::from(loaded);
    }
    println!(
        "{format}: {count} damaged files, {read_all_the_same} of them still a model, \
         at most {most:.1} times the file held"
    );
    assert!(
        read_all_the_same < count / 2,
        "{format}: most damage must be noticed, {read_all_the_same} of {count} loaded"
    );
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights/data");
    std::fs::read(folder.join(name)).expect("a committed file")
}

fn models() -> Vec<Recurrent> {
    let mogrifier = MogrifierLstmConfig::new(5, 7).with_rounds(3);
    let configs = [
        RecurrentConfig::Lstm(LstmConfig::new(5, 7).with_num_layers(2)),
        RecurrentConfig::MogrifierLstm(mogrifier),
        RecurrentConfig::Gru(GruConfig::new(5, 7).with_bidirectional(true)),
    ];
    configs.map(|config| config.init(&Device::flex())).into()
}

fn written(write: impl Fn(&Tensors, &Path)) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let bytes = |model: &Recurrent| {
        write(&Source::Recurrent.export(model).expect("exported"), &path);
        std::fs::read(&path).expect("written")
    };
    models().iter().map(bytes).collect()
}

/// One after another: they share the counting allocator.
#[test]
fn damaged_files() {
    std::panic::set_hook(Box::new(|_| {})); // hundreds of caught panics would hide the message
    let result = catch_unwind(|| {
        check("PyTorch", &["all_options.pt", "f16.pt"].map(fixture));
        check("PyTorch before 1.6", &[fixture("old_format.pt")]);
        check(
            "SafeTensors",
            &written(|file, path| {
                file.save_safetensors(path).expect("written");
            }),
        );
        check(
            "burnpack",
            &written(|file, path| {
                file.save_burnpack(path).expect("written");
            }),
        );
        by_hand();
        checkpoints();
    });
    let _ = std::panic::take_hook();
    if let Err(payload) = result {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        panic!(
            "{}",
            text.or(payload.downcast_ref::<&str>().copied())
                .unwrap_or("a panic")
        );
    }
}

/// A SafeTensors file of a header.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// What a random mutation hardly finds.
fn by_hand() {
    let max = u64::MAX;
    let tensor = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "huge header",
            max.to_le_bytes().iter().copied().chain(*b"{}").collect(),
        ),
        (
            "a length that begins like a pickle",
            b"\x80\x02\xff\xff\xff\xff\xff\x7f{}".to_vec(),
        ),
        (
            "an archive of 65 278 entries without any",
            [
                &b"PK\x03\x04"[..],
                &[0; 40],
                b"PK\x05\x06",
                &[0xfe; 8],
                &[0; 10],
            ]
            .concat(),
        ),
        (
            "huge shape",
            safetensors(
                &format!(r#"{{"a":{}}}"#, tensor("[4294967296,4294967296]", 0, 8)),
                8,
            ),
        ),
        (
            "no elements, huge axis",
            safetensors(
                &format!(
                    r#"{{"weight_ih_l0":{}}}"#,
                    tensor("[0,18446744073709551615]", 0, 0)
                ),
                0,
            ),
        ),
        (
            "an end that overflows",
            safetensors(&format!(r#"{{"a":{}}}"#, tensor("[1]", max - 3, max)), 4),
        ),
        ("deep JSON", safetensors(&"[".repeat(100_000), 0)),
        (
            "overlap",
            safetensors(
                &format!(
                    r#"{{"a":{},"b":{}}}"#,
                    tensor("[2]", 0, 8),
                    tensor("[2]", 0, 8)
                ),
                8,
            ),
        ),
        // Pickles behind the magic number and protocol of the old form.
        (
            "deep tuples",
            stream(&[b"N".to_vec(), vec![0x85; 200_000], b".".to_vec()].concat()),
        ),
        ("deep lists", stream(&b"]".repeat(200_000))),
        // Each tuple holds the one before twice: 2^5000 values if copied.
        (
            "doubling",
            stream(&[b"N".to_vec(), b"2\x86".repeat(5000), b".".to_vec()].concat()),
        ),
        ("itself", stream(b"]q\x00h\x00a.")),
        ("huge text", stream(b"X\xff\xff\xff\xff")),
        (
            "huge bytes",
            stream(&[&[0x8e][..], &max.to_le_bytes()].concat()),
        ),
        ("huge memo", stream(b"Nr\xff\xff\xff\xff.")),
        ("only marks", stream(&b"(".repeat(200_000))),
        ("only dictionaries", stream(&b"}".repeat(200_000))),
        (
            "only memos",
            stream(&[b"N".to_vec(), vec![0x94; 200_000]].concat()),
        ),
    ];
    for (name, bytes) in cases {
        let (_, loaded) = read(bytes, name);
        assert!(!loaded, "{name}: nothing to load");
    }
}

/// An old-form file whose saved object is a pickle.
fn stream(object: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    bytes.extend(b"\x80\x02}q\x00X\x0d\x00\x00\x00little_endianq\x01\x88s.");
    bytes.extend(object);
    bytes
}

/// Folders: the config may ask for anything.
fn checkpoints() {
    let device = Device::flex();
    let folder = tempfile::tempdir().expect("a folder");
    let model = &models()[0];
    model.save(folder.path()).expect("saved");
    let config_path = folder.path().join(recurrent_modules::CONFIG_FILE);
    let config = std::fs::read_to_string(&config_path).expect("saved");
    let weights = folder.path().join(recurrent_modules::MODEL_FILE);
    // Without the config inside, so that the one beside it is all there is to check.
    let Recurrent::Lstm(lstm) = model else {
        unreachable!("the first model is an LSTM");
    };
    let record = lstm.clone().into_record();
    record.save(&weights).expect("saved");
    let length = std::fs::metadata(weights).expect("saved").len() as usize;

    let large = [
        "1000000000000",
        "18446744073709551615",
        "4611686018427387904",
        "0",
        "-1",
        "1e300",
    ];
    let fields = [
        ("\"num_layers\":2", "num_layers"),
        ("\"d_input\":5", "d_input"),
        ("\"d_hidden\":7", "d_hidden"),
        ("\"d_proj\":null", "d_proj"),
        ("\"layer_sizes\":null", "layer_sizes"),
        ("\"clip\":null", "clip"),
        ("\"dropout\":0.0", "dropout"),
    ];
    let plain: String = config.split_whitespace().collect();
    let mut tried = 0;
    for (found, field) in fields {
        assert!(plain.contains(found), "{plain} has no {found}");
        for value in large {
            let value = match field {
                "layer_sizes" => format!("[{value},{value}]"),
                _ => value.to_string(),
            };
            let changed = plain.replacen(found, &format!("\"{field}\":{value}"), 1);
            std::fs::write(&config_path, &changed).expect("written");
            let (result, peak) = allocator::measure(|| {
                catch_unwind(AssertUnwindSafe(|| {
                    Recurrent::load(folder.path(), &device).is_ok()
                }))
            });
            let loaded = result.unwrap_or_else(|_| panic!("{field} = {value}: a panic"));
            // These two say nothing of the weights.
            if !["clip", "dropout"].contains(&field) {
                assert!(
                    !loaded,
                    "{field} = {value}: the weights are of another config"
                );
            }
            assert!(
                peak <= bound(length),
                "{field} = {value}: {peak} bytes held"
            );
            tried += 1;
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for index in 0..files() {
        std::fs::write(&config_path, mutate::mutate(config.as_bytes(), &mut rng)).expect("written");
        let (result, peak) = allocator::measure(|| {
            catch_unwind(AssertUnwindSafe(|| {
                Recurrent::load(folder.path(), &device).is_ok()
            }))
        });
        assert!(result.is_ok(), "config {index}: a panic");
        assert!(peak <= bound(length), "config {index}: {peak} bytes held");
        tried += 1;
    }
    println!("checkpoints: {tried} changed configs");
}

//! Each fault has its own message, with the tensor's name, what was got and what was expected.

use std::path::Path;

use burn::tensor::TensorData;
use recurrent_modules::import::{ImportError, Names, Source, SourceOptions, Tensors};
use recurrent_modules::{CONFIG_FILE, MODEL_FILE, Recurrent};

use crate::support::{device, output, random, torch_tensors};

fn load(file: &Tensors) -> ImportError {
    Source::PyTorch
        .load(file, &SourceOptions::default(), &device())
        .expect_err("the file has a fault")
}

/// The file without one tensor.
fn without(file: &Tensors, name: &str) -> Tensors {
    let mut rest = Tensors::default();
    for (other, tensor) in file.iter().filter(|(other, _)| *other != name) {
        rest.insert(other, tensor.values(other).expect("finite"));
    }
    rest
}

#[test]
fn a_missing_tensor() {
    let (_, file) = torch_tensors();
    let error = load(&without(&file, "bias_hh_l1"));
    assert!(
        matches!(&error, ImportError::Missing { name, expected, .. }
            if name == "bias_hh_l1" && expected == &[28]),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("tensor `bias_hh_l1` is missing, expected shape [28]")
    );
}

#[test]
fn a_forgotten_prefix_is_named() {
    let (_, file) = torch_tensors();
    let error = load(&file.with_prefix("encoder.rnn")).to_string();
    assert!(error.contains("under the prefix `encoder.rnn`"), "{error}");
}

#[test]
fn an_unknown_prefix() {
    let (_, file) = torch_tensors();
    let error = file.under("decoder").expect_err("not there");
    assert!(
        error
            .to_string()
            .starts_with("no tensor lies under `decoder`; the file has `bias_")
    );
}

#[test]
fn tensors_too_many() {
    let (_, mut file) = torch_tensors();
    file.insert("head.weight", random([2, 3]).into_data());
    let error = load(&file);
    let names = Names(vec!["head.weight".into()]);
    assert_eq!(error, ImportError::Unexpected { names });
}

#[test]
fn another_shape() {
    let (_, mut file) = torch_tensors();
    file.insert("weight_hh_l1", random([28, 6]).into_data());
    let error = load(&file).to_string();
    assert_eq!(
        error,
        "tensor `weight_hh_l1` has shape [28, 6], expected [28, 7]"
    );
}

#[test]
fn a_shape_without_four_gates() {
    let (_, mut file) = torch_tensors();
    file.insert("weight_hh_l0", random([30, 7]).into_data());
    let error = load(&file).to_string();
    assert!(error.contains("`weight_hh_l0` has shape [30, 7], expected axis 0 to divide into 4"));
}

#[test]
fn integers() {
    let (_, mut file) = torch_tensors();
    file.insert("bias_ih_l0", TensorData::new(vec![1i32; 28], [28]));
    let error = load(&file);
    assert!(
        matches!(&error, ImportError::Dtype { name, .. } if name == "bias_ih_l0"),
        "{error}"
    );
}

#[test]
fn weights_that_are_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (_, mut file) = torch_tensors();
        let mut values = vec![0.5f32; 28];
        values[11] = bad;
        file.insert("bias_hh_l0", TensorData::new(values, [28]));
        let error = load(&file);
        let expected = ImportError::NotFinite {
            name: "bias_hh_l0".into(),
            got: bad.to_string(),
            index: 11,
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn files_that_are_not_there_or_something_else() {
    let error = Tensors::open("/nowhere/model.pt").expect_err("not there");
    assert!(
        error
            .to_string()
            .starts_with("cannot read /nowhere/model.pt: "),
        "{error}"
    );
    let error = Tensors::from_bytes(b"hello, world".to_vec()).expect_err("text");
    assert!(
        error
            .to_string()
            .contains("it has 12 bytes and begins with"),
        "{error}"
    );
    let error = Tensors::from_bytes(Vec::new()).expect_err("empty");
    assert!(error.to_string().contains("it has 0 bytes"), "{error}");
}

/// A failed write leaves what was there.
#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, file) = torch_tensors();
    let path = folder.path().join("missing").join("model.safetensors");
    let error = file.save_safetensors(&path).expect_err("no such folder");
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );

    // Where the name is a folder, the rename fails after all bytes are written.
    let path = folder.path().join("model.safetensors");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::write(path.join("kept"), b"kept").expect("written");
    file.save_safetensors(&path)
        .expect_err("a folder is in the way");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["model.safetensors"], "no scratch file stays");
    assert!(path.join("kept").exists());
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.into_string().expect("UTF-8")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// A folder is written as a whole or not at all.
#[test]
fn a_failed_save_of_a_folder_leaves_what_was_there() {
    let root = tempfile::tempdir().expect("a folder");
    let (model, _) = torch_tensors();
    let (other, _) = torch_tensors();

    // Folders that were made on the way: the last name is longer than file systems allow.
    let path = root.path().join("a").join("b").join("n".repeat(300));
    let error = model.save(&path).expect_err("no such name");
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert!(names(root.path()).is_empty(), "{:?}", names(root.path()));

    // The second file cannot be put into place, when the first one is.
    let folder = root.path().join("model");
    model.save(&folder).expect("saved");
    assert_eq!(names(&folder), [CONFIG_FILE, MODEL_FILE]);
    let weights = std::fs::read(folder.join(MODEL_FILE)).expect("saved");
    std::fs::remove_file(folder.join(CONFIG_FILE)).expect("saved");
    std::fs::create_dir(folder.join(CONFIG_FILE)).expect("a folder in the way");
    let error = other.save(&folder).expect_err("a folder is in the way");
    assert!(
        error
            .to_string()
            .contains("config.json: a folder has this name"),
        "{error}"
    );
    assert_eq!(names(&folder), [CONFIG_FILE, MODEL_FILE]);
    let after = std::fs::read(folder.join(MODEL_FILE)).expect("still there");
    assert!(after == weights, "the old weights are back");

    // The same where there were no weights before.
    std::fs::remove_file(folder.join(MODEL_FILE)).expect("there");
    other.save(&folder).expect_err("a folder is in the way");
    assert_eq!(names(&folder), [CONFIG_FILE]);

    // And without the obstacle, the second model replaces the first.
    std::fs::remove_dir(folder.join(CONFIG_FILE)).expect("empty");
    model.save(&folder).expect("saved");
    other.save(&folder).expect("saved over it");
    assert_eq!(names(&folder), [CONFIG_FILE, MODEL_FILE]);
    let loaded = Recurrent::load(&folder, &device()).expect("whole");
    assert_eq!(output(&loaded), output(&other));
}

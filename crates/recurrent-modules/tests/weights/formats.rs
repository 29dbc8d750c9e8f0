//! The format of a file is found from its structure, whatever its first bytes are.

use std::path::Path;

use burn::tensor::TensorData;
use recurrent_modules::Recurrent;
use recurrent_modules::import::{Source, Tensors, pytorch};

use crate::support::device;

/// Header lengths up to which every one is tried: 640, 896, 1152 and 1408 begin like a pickle.
const LONGEST: usize = 4096;

fn one_number(name: &str) -> Tensors {
    let mut tensors = Tensors::default();
    tensors.insert(name, TensorData::new(vec![0.25f32], [1]));
    tensors
}

fn the_number(file: &Tensors, name: &str) -> Vec<f32> {
    let tensor = file.get(name).unwrap_or_else(|| panic!("`{name}` is lost"));
    let values = tensor.values(name).expect("finite");
    values.try_to_vec().expect("f32")
}

/// The length of the JSON header of a SafeTensors file.
fn header_length(bytes: &[u8]) -> usize {
    u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes")) as usize
}

fn error_of(bytes: impl Into<Vec<u8>>) -> String {
    let error = Tensors::from_bytes(bytes.into()).expect_err("not a file of weights");
    error.to_string()
}

/// Our own files: a longer name makes a longer header, in steps of 8 bytes.
#[test]
fn every_header_length_that_is_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file.safetensors");
    let mut lengths = Vec::new();
    for length in (1..).step_by(8) {
        let name = "n".repeat(length);
        one_number(&name).save_safetensors(&path).expect("written");
        let header = header_length(&std::fs::read(&path).expect("written"));
        if header > LONGEST {
            break;
        }
        let file = Tensors::open(&path).unwrap_or_else(|error| panic!("{header}: {error}"));
        assert_eq!(the_number(&file, &name), [0.25], "a header of {header}");
        lengths.push(header);
    }
    let expected: Vec<usize> = (lengths[0]..=LONGEST).step_by(8).collect();
    assert_eq!(lengths, expected, "every length was written");
    assert!(lengths[0] <= 128, "short ones too");
}

/// Others do not round the length up. A header too short for a tensor has none.
#[test]
fn every_header_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file.safetensors");
    one_number("a").save_safetensors(&path).expect("written");
    let bytes = std::fs::read(&path).expect("written");
    let (header, data) = bytes[8..].split_at(header_length(&bytes));
    let header = header.trim_ascii_end();

    for length in 8..=LONGEST {
        let holds = length >= header.len();
        let (header, data) = if holds {
            (header, data)
        } else {
            (b"{}".as_slice(), b"".as_slice())
        };
        let mut bytes = (length as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.resize(8 + length, b' ');
        bytes.extend(data);

        let file = Tensors::from_bytes(bytes.clone());
        let file = file.unwrap_or_else(|error| panic!("a header of {length}: {error}"));
        if holds {
            assert_eq!(the_number(&file, "a"), [0.25], "a header of {length}");
        }
        assert_eq!(file.len(), usize::from(holds));

        // Cut off in the header: still named, with both lengths.
        bytes.truncate(8 + length / 2);
        let expected = format!(
            "not a SafeTensors file that can be read: its header declares {length} bytes, the file \
             has {}",
            bytes.len()
        );
        assert_eq!(error_of(bytes), expected);
    }
}

/// The first four bytes of a ZIP archive, as a length.
#[test]
fn a_header_length_that_begins_like_an_archive() {
    let length = u32::from_le_bytes(*b"PK\x03\x04") as usize;
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend(b"{}");
    bytes.resize(8 + length, b' ');
    assert!(Tensors::from_bytes(bytes).expect("no tensors").is_empty());
}

/// From a checkpoint of PyTorch to a file whose header of 896 bytes begins like a pickle.
#[test]
fn a_converted_lstm_of_eight_units() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights/data/lstm_8_8.pt");
    let lstm = pytorch::lstm(&Tensors::open(data).expect("PyTorch's"), &device()).expect("loaded");
    let tensors = Source::Recurrent.export(&Recurrent::Lstm(lstm));
    let tensors = tensors.expect("exported");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lstm.safetensors");
    tensors.save_safetensors(&path).expect("written");
    assert_eq!(std::fs::read(&path).expect("written")[..2], [0x80, 3]);
    let again = Tensors::open(&path).expect("read");
    assert!(again.names().eq(tensors.names()));
    for (name, tensor) in tensors.iter() {
        let again = again.get(name).expect("the same names");
        assert_eq!(again.to_bytes(), tensor.to_bytes(), "{name}");
    }
}

/// A pickle is one, and an archive too, however they go on.
#[test]
fn pickles_and_archives_are_not_safetensors() {
    // `{"a": 1}` of protocol 4, and of protocol 2 with a `{` at byte 8.
    let four = b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.".as_slice();
    let two = b"\x80\x02X\x09\x00\x00\x00a{bcdefgh.".as_slice();
    for pickle in [four, two] {
        let error = error_of(pickle);
        assert!(error.contains("it is a pickle, but not one"), "{error}");
    }
    let error = error_of(*b"PK\x03\x04\x14\x00\x00\x00{\x00");
    assert!(error.contains("ZIP directory is missing"), "{error}");
    let error = error_of(*b"NRUB\x01\x00\xff\x00\x00\x00");
    assert!(error.starts_with("not a burnpack file"), "{error}");
}

/// A ZIP archive of empty entries.
fn archive(names: &[&str], method: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for name in names {
        let place = (bytes.len() as u32).to_le_bytes();
        let length = [name.len() as u8, 0];
        let sizes = [0; 8];
        // Versions, flags, method, time and checksum; two sizes; lengths of name, extra and comment.
        let common = [
            &[20, 0, 0, 0, method, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &sizes,
            &length,
        ]
        .concat();
        bytes.extend([b"PK\x03\x04", &common[..], &[0, 0], name.as_bytes()].concat());
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 12], &place].concat());
        directory.extend(name.as_bytes());
    }
    let count = [names.len() as u8, 0];
    let [start, size] = [bytes.len(), directory.len()].map(|n| (n as u32).to_le_bytes());
    bytes.extend(directory);
    bytes.extend(
        [
            b"PK\x05\x06\0\0\0\0",
            &count[..],
            &count,
            &size,
            &start,
            &[0, 0],
        ]
        .concat(),
    );
    bytes
}

/// Compressed entries or not, the message says whose archive it is.
#[test]
fn archives_of_other_programs() {
    let stored = 0;
    let deflated = 8;
    for (names, expected) in [
        (
            &["m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"][..],
            "it is a TorchScript archive; `torch.save(torch.jit.load(file).state_dict(), ",
        ),
        (
            &["m/models/model.json", "m/archive_format"],
            "it is a torch.export archive; `torch.save(torch.export.load(file).state_dict, ",
        ),
        (
            &["metadata.json", "config.json", "model.weights.h5"],
            "it is a Keras model",
        ),
        (&["a.npy", "b.npy"], "it is a NumPy archive"),
    ] {
        for method in [stored, deflated] {
            let error = error_of(archive(names, method));
            assert!(error.contains(expected), "{error}");
        }
    }
    let error = error_of(archive(&["m/data.pkl"], deflated));
    assert!(error.contains("`m/data.pkl` is compressed"), "{error}");
    let error = error_of(archive(&["readme.txt"], stored));
    assert!(error.contains("no `data.pkl`"), "{error}");
}

/// Formats without a reader are named where their beginning tells.
#[test]
fn what_a_file_looks_like() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, like) in [
        (b"\x89HDF\r\n\x1a\n\0\0".to_vec(), Some("an HDF5 file")),
        (b"\x93NUMPY\x01\x00".to_vec(), Some("a NumPy array")),
        (
            b"\x08\x09:\xc2\x02\x0av\x0a\x01X".to_vec(),
            Some("an ONNX model"),
        ),
        (b"GGUF\x03\0\0\0".to_vec(), Some("a GGUF file")),
        (
            b"\x1f\x8b\x08\0".to_vec(),
            Some("a file compressed by gzip"),
        ),
        (tar, Some("a tar archive")),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(),
            Some("a pointer of Git LFS"),
        ),
        (b"\n<!DOCTYPE html><html>".to_vec(), Some("a web page")),
        (b"{\"model\": []}".to_vec(), Some("text")),
        (b"\xff\xfe\x00\x01".to_vec(), None),
        (Vec::new(), None),
    ] {
        let error = error_of(bytes);
        let head = "not a PyTorch, SafeTensors or burnpack file that can be read: it ";
        let rest = error.strip_prefix(head);
        let rest = rest.unwrap_or_else(|| panic!("{error}"));
        match like {
            Some(like) => assert!(rest.starts_with(&format!("looks like {like}")), "{error}"),
            None => assert!(rest.starts_with("has "), "{error}"),
        }
    }
}

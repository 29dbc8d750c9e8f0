//! The kernels as CUDA C++: that CubeCL can translate them, and, where `RECURRENT_CUDA_SOURCES` names a
//! folder, as files for a compiler (`.ci/cuda-source.sh`).
#![cfg(feature = "cuda-source")]

use recurrent_core::kernel::cube::source::cuda;

#[test]
fn kernels_as_cuda() {
    let sources = cuda();
    let mut names: Vec<_> = sources.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), sources.len(), "each has a name of its own");
    for (name, source) in &sources {
        assert!(source.contains("__global__"), "{name}:\n{source}");
        assert!(source.contains("tanh"), "{name}:\n{source}");
    }
    if let Some(folder) = std::env::var_os("RECURRENT_CUDA_SOURCES") {
        for (name, source) in &sources {
            let path = std::path::Path::new(&folder).join(format!("{name}.cu"));
            std::fs::write(&path, source).expect("a folder to write to");
        }
        println!("{} kernels written", sources.len());
    }
}

//! Writes every kernel of `crates/recurrent-core/src/fused/cube/pointwise` into a folder, as CUDA C++,
//! SPIR-V and, with the feature `ptx`, PTX: `kernel-source FOLDER`.

extern crate alloc;

#[path = "../../../crates/recurrent-core/src/fused/problem/coupling.rs"]
mod coupling;
mod gru;

/// A mask as a value holds tensors of Burn; kernels are compiled for which masks there are.
mod mask {
    pub struct Mask;
}

#[allow(dead_code)]
#[path = "../../../crates/recurrent-core/src/equations/masks/places.rs"]
mod places;

/// The library's modules, as far as the kernels need them.
mod equations {
    pub mod masks {
        pub use crate::places::{MaskPlace, Masks};
    }
}

/// The same.
mod fused {
    pub mod problem {
        pub use crate::coupling::Coupling;
    }
}

#[allow(dead_code, unused_imports)]
#[path = "../../../crates/recurrent-core/src/fused/cube/pointwise/mod.rs"]
mod pointwise;
mod source;

fn main() {
    let folder = std::env::args_os().nth(1).expect("a folder to write to");
    let write = |name: String, text: &[u8]| {
        let path = std::path::Path::new(&folder).join(name);
        std::fs::write(path, text).expect("a folder to write to");
    };
    let kernels = source::kernels();
    let count = kernels.len();
    for (name, kernel) in kernels {
        write(format!("{name}.cu"), source::cpp(&*kernel).as_bytes());
        write(format!("{name}.spv"), &source::spirv(&*kernel));
        #[cfg(feature = "ptx")]
        write(format!("{name}.ptx"), source::ptx(&*kernel).as_bytes());
    }
    println!("{count} kernels written");
}

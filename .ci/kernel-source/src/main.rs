//! Writes every kernel of `crates/recurrent-core/src/kernel/cube/pointwise` into a folder, as CUDA C++,
//! SPIR-V and, with the feature `ptx`, PTX: `kernel-source FOLDER`.

extern crate alloc;

/// The library's modules, as far as the kernels need them.
#[allow(dead_code)]
mod kernel {
    pub mod cpu {
        pub mod pointwise {
            /// As the library's type of that name.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum Coupling {
                Independent,
                InputFromForget,
                ForgetFromInput,
                CappedInput,
                Refined,
            }

            impl Coupling {
                pub const fn shares(self) -> usize {
                    match self {
                        Self::InputFromForget | Self::ForgetFromInput => 1,
                        _ => 2,
                    }
                }

                pub const fn gates(self) -> usize {
                    self.shares() + 2
                }
            }
        }
    }
}

#[allow(dead_code, unused_imports)]
#[path = "../../../crates/recurrent-core/src/kernel/cube/pointwise/mod.rs"]
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

//! Writes every kernel of `crates/recurrent-core/src/kernel/cube/pointwise` into a folder, as CUDA C++:
//! `cuda-source FOLDER`.

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
    let sources = source::cuda();
    for (name, source) in &sources {
        let path = std::path::Path::new(&folder).join(format!("{name}.cu"));
        std::fs::write(path, source).expect("a folder to write to");
    }
    println!("{} kernels written", sources.len());
}

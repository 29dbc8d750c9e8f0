//! The kernels as CUDA C++, without a CUDA device: what CubeCL would hand to NVRTC.
//!
//! For checking that they compile (`.ci/cuda-source.sh`), and for reading.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::Compiler;
use burn_cubecl::cubecl::ir::features::Features;
use burn_cubecl::cubecl::ir::{DeviceIdentity, HardwareProperties, MemoryDeviceProperties};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::profile::TimingMethod;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler};
use cubecl_cpp::target::Cuda;

use super::pointwise::{self, Coupling, Kind, MaskKinds, NormKind};

/// What is assumed of a device: the least that CUDA devices have had for years.
fn properties() -> Arc<DeviceProperties> {
    Arc::new(DeviceProperties::new(
        Features::default(),
        MemoryDeviceProperties::new(u64::MAX, 256),
        HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: 32,
            plane_size_max: 32,
            max_bindings: 32,
            max_shared_memory_size: 49152,
            max_cube_count: (u32::MAX, u16::MAX as u32, u16::MAX as u32),
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: None,
            num_tensor_cores: None,
            min_tensor_cores_dim: None,
            num_cpu_cores: None,
            last_level_cache_size: None,
            max_vector_size: VectorSize::MAX,
            cube_mma_reserved_shared_memory: 0,
        },
        TimingMethod::Device,
        DeviceIdentity {
            name: "source".to_string(),
            fingerprint: "source".to_string(),
            physical: None,
        },
    ))
}

fn settings(threads: usize) -> KernelSettings {
    let units = if threads == 0 { 256 } else { threads };
    let mode = ExecutionMode::Checked;
    KernelSettings::new(*CubeDim::new_1d(units as u32), mode, AddressType::U32)
}

fn source(kernel: impl CubeKernel) -> String {
    let options = CompilationOptions::default();
    let compiled = CppCompiler::<Cuda>::default().compile(kernel.define(), &options);
    compiled.expect("a kernel that CUDA can run").source
}

/// Kinds that take every branch of the kernels between them.
fn kinds() -> Vec<(String, Kind)> {
    let norm = |outside| NormKind {
        outside,
        gain: true,
        shift: true,
    };
    let all = MaskKinds {
        candidate: true,
        cell: true,
        hidden: true,
        update_cell: true,
        update_hidden: true,
    };
    let mut kinds = Vec::new();
    for coupling in [
        Coupling::Independent,
        Coupling::InputFromForget,
        Coupling::ForgetFromInput,
        Coupling::CappedInput,
        Coupling::Refined,
    ] {
        let plain = Kind {
            coupling,
            bias: true,
            peepholes: false,
            output_sees_new: false,
            full: false,
            masks: MaskKinds::default(),
            clip: false,
            keep: true,
            projected: false,
            bias_hidden: false,
            norm_hidden: None,
            norm_cell: None,
            carry_normalized: false,
            threads: 0,
        };
        let masked = Kind {
            peepholes: true,
            full: true,
            masks: all,
            clip: true,
            ..plain
        };
        let normed = Kind {
            output_sees_new: true,
            bias_hidden: true,
            norm_hidden: Some(norm(true)),
            norm_cell: Some(norm(false)),
            carry_normalized: true,
            threads: 128,
            ..masked
        };
        let inference = Kind {
            keep: false,
            projected: true,
            ..plain
        };
        for (name, kind) in [
            ("plain", plain),
            ("masked", masked),
            ("normed", normed),
            ("inference", inference),
        ] {
            kinds.push((format!("{coupling:?}_{name}"), kind));
        }
    }
    kinds
}

/// Every kernel as (name, CUDA C++), for vectors of 1 and 4 values.
///
/// # Panics
/// If CubeCL cannot translate one.
pub fn cuda() -> Vec<(String, String)> {
    let buffer = || BufferCompilationArg { inplace: None };
    let target = || Arc::new(TargetProperties::default());
    let mut sources = Vec::new();
    for lanes in [1, 4] {
        for (name, kind) in kinds() {
            let step = pointwise::step::Step::new(
                settings(kind.threads),
                properties(),
                target(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                buffer(),
                Default::default(),
                kind,
                lanes,
            );
            sources.push((format!("step_{name}_{lanes}"), source(step)));
            if kind.keep {
                let back = pointwise::step_back::StepBack::new(
                    settings(kind.threads),
                    properties(),
                    target(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    Default::default(),
                    kind,
                    lanes,
                );
                sources.push((format!("step_back_{name}_{lanes}"), source(back)));
            }
        }
    }
    sources
}

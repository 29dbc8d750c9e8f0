//! The kernels as CubeCL hands them to the drivers of GPUs.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_cubecl::cubecl::Compiler;
use burn_cubecl::cubecl::ir::features::Features;
use burn_cubecl::cubecl::ir::{DeviceIdentity, HardwareProperties, MemoryDeviceProperties};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::profile::TimingMethod;
use burn_cubecl::cubecl::{VulkanCompilationOptions, WgpuCompilationOptions};
use cubecl_cpp::register_supported_types;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;
use cubecl_spirv::SpirvCompiler;

use crate::pointwise::adaptive::{
    LayerAtCompilationArg, LayerKind, adapt, adapt_back, advance, advance_back, scale, scale_back,
};
use crate::pointwise::{
    AtCompilationArg, Coupling, Kind, MaskKinds, NormKind, accumulate, project, project_back,
    round, round_back, step, step_back, steps, steps_back,
};

/// What is assumed of a device: the least that CUDA devices have had for years.
fn properties() -> Arc<DeviceProperties> {
    let mut properties = DeviceProperties::new(
        Features::default(),
        MemoryDeviceProperties::new(1 << 32, 256),
        HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: 32,
            plane_size_max: 32,
            max_bindings: 32,
            max_shared_memory_size: 48 << 10,
            max_cube_count: (i32::MAX as u32, u16::MAX as u32, u16::MAX as u32),
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
        DeviceIdentity::default(),
    );
    register_supported_types(&mut properties);
    Arc::new(properties)
}

fn settings(threads: usize) -> KernelSettings {
    let units = if threads == 0 { 256 } else { threads };
    let dim = CubeDim::new_1d(units as u32).into();
    KernelSettings::new(dim, ExecutionMode::Checked, AddressType::U32)
}

/// CUDA C++: what CubeCL hands to NVRTC with its feature `cuda-cpp`.
///
/// # Panics
/// If CubeCL cannot translate it.
pub fn cpp(kernel: &dyn CubeKernel) -> String {
    let options = CompilationOptions {
        // As the CUDA runtime sets it for every device.
        supports_features: CppSupportedFeatures {
            fast_math: true,
            ..Default::default()
        },
        ..Default::default()
    };
    let compiled = CppCompiler::<Cuda>::default().compile(kernel.define(), &options);
    compiled
        .unwrap_or_else(|error| panic!("a kernel that CUDA can run: {error:?}"))
        .source
}

/// SPIR-V: what CubeCL hands to Vulkan with its feature `vulkan`.
///
/// # Panics
/// If CubeCL cannot translate it.
pub fn spirv(kernel: &dyn CubeKernel) -> Vec<u8> {
    let options = WgpuCompilationOptions {
        supports_u64: true,
        supports_vulkan_compiler: true,
        // Of a driver with VK_KHR_workgroup_memory_explicit_layout: docs/gpu.md says what happens without.
        vulkan: VulkanCompilationOptions {
            supports_explicit_smem: true,
            supports_uniform_standard_layout: true,
            max_spirv_version: (1, 6),
            max_vector_size: 4,
            push_constant_size: 128,
            ..Default::default()
        },
        ..Default::default()
    };
    let compiled = SpirvCompiler.compile(kernel.define(), &options);
    let kernel = compiled.unwrap_or_else(|error| panic!("a kernel that Vulkan can run: {error:?}"));
    let words = kernel.assembled_module.iter();
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// PTX: what CubeCL hands to the driver by default, by its own LLVM.
///
/// # Panics
/// If CubeCL cannot translate it.
#[cfg(feature = "ptx")]
pub fn ptx(kernel: &dyn CubeKernel) -> String {
    use burn_cubecl::cubecl::ir::nvidia::SmArch;
    use cubecl_llvm::nvptx::ptx_version::PtxVersion;
    use cubecl_llvm::{LlvmTarget, PlironArtifact, PlironCompiler, PlironOptions};

    let options = PlironOptions {
        sm_arch: Some(SmArch::new(75, true)),
        ptx_version: PtxVersion::for_driver(12080),
        // As the CUDA runtime sets it from compute capability 7.0 on.
        grid_constants: true,
        ..Default::default()
    };
    let target = LlvmTarget::Nvptx;
    match (PlironCompiler { target }).compile(kernel.define(), &options) {
        Ok(PlironArtifact::NvptxCode(module)) => {
            let text = module.ptx.iter().map(|&byte| byte as u8 as char);
            text.take_while(|&byte| byte != '\0').collect()
        }
        Ok(_) => unreachable!("the target is NVPTX"),
        Err(error) => panic!("a kernel that CUDA can run: {error:?}"),
    }
}

fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

fn at() -> AtCompilationArg {
    AtCompilationArg {
        units: (),
        rows: (),
        row: (),
        projected_row: (),
        tape_row: (),
        other_row: (),
        next_rows: (),
        first: (),
        mask_candidate: (),
        mask_cell: (),
        mask_hidden: (),
        update_cell: (),
        update_hidden: (),
        clip: (),
        epsilon_hidden: (),
        share_hidden: (),
        epsilon_cell: (),
        share_cell: (),
    }
}

fn layer_at() -> LayerAtCompilationArg {
    LayerAtCompilationArg {
        input: (),
        hidden: (),
        adapt: (),
        policy: (),
        pair: (),
        states: (),
        state: (),
        state_below: (),
        biases: (),
        preact_input: (),
        preact_hidden: (),
        preact_bias: (),
        seen: (),
        seen_hidden: (),
        above: (),
        above_below: (),
        rows: (),
        row: (),
        kept_row: (),
        other_row: (),
        next_rows: (),
        first: (),
        mask_size: (),
        mask_adapt_size: (),
        mask_candidate: (),
        mask_cell: (),
        mask_hidden: (),
        update_cell: (),
        update_hidden: (),
        mask_adapt: (),
        clip: (),
        clip_adapt: (),
    }
}

/// Kinds that between them take every branch of the aLSTM's kernels.
fn layer_kinds() -> [(&'static str, LayerKind); 4] {
    let plain = LayerKind {
        first: true,
        top: true,
        stacked: false,
        bias: true,
        clip: false,
        clip_adapt: false,
        masks: MaskKinds::default(),
        mask_adapt: false,
        keep: true,
    };
    let masked = LayerKind {
        bias: false,
        clip: true,
        clip_adapt: true,
        masks: ALL_MASKS,
        mask_adapt: true,
        ..plain
    };
    let lowest = LayerKind {
        top: false,
        stacked: true,
        ..masked
    };
    let inference = LayerKind {
        first: false,
        stacked: true,
        keep: false,
        ..plain
    };
    [
        ("plain", plain),
        ("masked", masked),
        ("lowest", lowest),
        ("inference", inference),
    ]
}

/// A kernel: its type and units of a cube; a word per buffer; what follows them, and then
/// what it is compiled for.
macro_rules! kernel {
    ($kernel:ty, $threads:expr; $($buffer:ident)*; $($rest:expr),*) => {
        Box::new(<$kernel>::new(
            settings($threads),
            properties(),
            Arc::new(TargetProperties::default()),
            $({ let $buffer = buffer(); $buffer },)*
            $($rest),*
        ))
    };
}

const ALL_MASKS: MaskKinds = MaskKinds {
    candidate: true,
    cell: true,
    hidden: true,
    update_cell: true,
    update_hidden: true,
};

/// Kinds that between them take every branch of the kernels.
fn kinds() -> Vec<(String, Kind)> {
    let norm = |outside| NormKind {
        outside,
        gain: true,
        shift: true,
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
        let inference = Kind {
            keep: false,
            ..plain
        };
        let projected = Kind {
            projected: true,
            ..plain
        };
        let masked = Kind {
            peepholes: true,
            masks: ALL_MASKS,
            clip: true,
            ..plain
        };
        let full = Kind {
            full: true,
            output_sees_new: true,
            ..masked
        };
        let normed = Kind {
            bias_hidden: true,
            norm_hidden: Some(norm(true)),
            norm_cell: Some(norm(false)),
            carry_normalized: true,
            threads: 128,
            ..full
        };
        for (name, kind) in [
            ("plain", plain),
            ("inference", inference),
            ("projected", projected),
            ("masked", masked),
            ("full", full),
            ("normed", normed),
        ] {
            kinds.push((format!("{coupling:?}_{name}"), kind));
        }
    }
    kinds
}

/// Hidden units of the kernels that run all steps: R and one row take 44 KiB.
const SMALL: usize = 52;

/// Every kernel with its name, for vectors of 1 and 4 values.
pub fn kernels() -> Vec<(String, Box<dyn CubeKernel>)> {
    let mut kernels = Vec::new();
    let mut add = |name: String, kernel: Box<dyn CubeKernel>| kernels.push((name, kernel));
    for (name, kind) in kinds() {
        for lanes in [1, 4] {
            add(
                format!("step_{name}_{lanes}"),
                kernel!(step::Step, kind.threads; x x x x x x x x x x x; at(), lanes, kind),
            );
            if kind.keep {
                add(
                    format!("step_back_{name}_{lanes}"),
                    kernel!(step_back::StepBack, kind.threads; x x x x x x x x x x x x x x; at(), lanes, kind),
                );
            }
        }
        if !kind.by_row() && !kind.full && !kind.projected {
            add(
                format!("steps_{name}"),
                kernel!(steps::Steps, 64; x x x x x x x x x x; at(), (), 1, kind, kind.masks, SMALL),
            );
            if kind.keep {
                add(
                    format!("steps_back_{name}"),
                    kernel!(steps_back::StepsBack, 64; x x x x x x x x x x x x x; at(), (), 1, kind, kind.masks, SMALL),
                );
            }
        }
    }
    for lanes in [1, 4] {
        for yes in [false, true] {
            let masks = if yes { ALL_MASKS } else { MaskKinds::default() };
            let name = format!("{lanes}_{yes}");
            add(
                format!("project_{name}"),
                kernel!(project::Project, 0; x x x x x; at(), lanes, masks, yes),
            );
            add(
                format!("project_back_{name}"),
                kernel!(project_back::ProjectBack, 0; x x x x x x; at(), lanes, masks),
            );
            add(
                format!("round_{name}"),
                kernel!(round::Round, 0; x x x x x x; (), (), (), (), lanes, yes, yes),
            );
            add(
                format!("round_back_{name}"),
                kernel!(round_back::RoundBack, 0; x x x x x x x; (), (), (), (), lanes, yes, yes),
            );
        }
        for (name, kind) in layer_kinds() {
            let mut add =
                |of: &str, kernel: Box<dyn CubeKernel>| add(format!("{of}_{name}_{lanes}"), kernel);
            add(
                "adapt",
                kernel!(adapt::Adapt, 0; x x x x x x x x x x x x; layer_at(), lanes, kind),
            );
            add(
                "scale",
                kernel!(scale::Scale, 0; x x x x x x x; layer_at(), lanes, kind),
            );
            add(
                "advance",
                kernel!(advance::Advance, 0; x x x x x x x x x x x; layer_at(), lanes, kind),
            );
            if !kind.keep {
                continue;
            }
            add(
                "adapt_back",
                kernel!(adapt_back::AdaptBack, 0; x x x x x x x x x; layer_at(), lanes, kind),
            );
            add(
                "scale_back",
                kernel!(scale_back::ScaleBack, 0; x x x x x x x x x; layer_at(), lanes, kind),
            );
            add(
                "advance_back",
                kernel!(advance_back::AdvanceBack, 0; x x x x x x x x x x x x x x; layer_at(), lanes, kind),
            );
        }
        add(
            format!("accumulate_{lanes}"),
            kernel!(accumulate::Accumulate, 0; x x; (), lanes),
        );
    }
    kernels
}

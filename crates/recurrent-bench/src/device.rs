//! From the name of a device on the command line to an open Burn device.
//!
//! A device is written `NAME` or `NAME:INDEX`, such as `flex`, `cuda` or `vulkan:1`. Every name is
//! a Cargo feature of this crate. With an index, `wgpu`, `vulkan`, `metal` and `webgpu` take the
//! discrete GPU with that number; without one they use what the graphics API considers the best
//! device, which can be an integrated GPU or a software renderer. `cuda` and `rocm` without an
//! index use GPU 0. `flex`, `ndarray` and `cpu` run on the CPU and take no index.

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "webgpu"
))]
use burn::tensor::DeviceKind;
use burn::tensor::{Device, Tensor};
use thiserror::Error;

use crate::names::nearest;

/// The backends of Burn an experiment can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Burn's own CPU backend.
    Flex,
    /// The CPU backend on top of `ndarray`.
    NdArray,
    /// GPUs through the graphics API wgpu picks.
    Wgpu,
    /// GPUs through Vulkan.
    Vulkan,
    /// GPUs of Apple machines through Metal.
    Metal,
    /// GPUs through WebGPU.
    WebGpu,
    /// NVIDIA GPUs through CUDA.
    Cuda,
    /// AMD GPUs through ROCm.
    Rocm,
    /// The CPU through CubeCL's just-in-time compiler.
    Cpu,
}

impl Backend {
    /// All backends, in the order in which the default is searched.
    pub const ALL: [Self; 9] = [
        Self::Flex,
        Self::NdArray,
        Self::Wgpu,
        Self::Vulkan,
        Self::Metal,
        Self::WebGpu,
        Self::Cuda,
        Self::Rocm,
        Self::Cpu,
    ];

    /// The name on the command line, which is also the name of the Cargo feature.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::NdArray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::WebGpu => "webgpu",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Cpu => "cpu",
        }
    }

    /// Whether the backend runs on the CPU, so that its memory is host memory.
    pub const fn is_processor(self) -> bool {
        matches!(self, Self::Flex | Self::NdArray | Self::Cpu)
    }

    /// Whether this program was built with the backend.
    pub const fn is_compiled_in(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::WebGpu => cfg!(feature = "webgpu"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
            Self::Cpu => cfg!(feature = "cpu"),
        }
    }

    fn takes_index(self) -> bool {
        !matches!(self, Self::Flex | Self::NdArray | Self::Cpu)
    }

    /// The hardware and software the backend needs, for the message when it does not start.
    fn needs(self) -> &'static str {
        match self {
            Self::Flex | Self::NdArray => "the processor",
            Self::Cpu => "the processor through CubeCL's compiler",
            Self::Wgpu => "a GPU with a Vulkan, Metal or DirectX 12 driver",
            Self::Vulkan => "a GPU with a Vulkan driver",
            Self::Metal => "an Apple GPU with Metal",
            Self::WebGpu => "a GPU that WebGPU can reach",
            Self::Cuda => "an NVIDIA GPU with its driver and the CUDA toolkit",
            Self::Rocm => "an AMD GPU with its driver and ROCm",
        }
    }

    /// What to try when the backend does not start.
    fn hint(self) -> &'static str {
        match self {
            Self::Flex | Self::NdArray => "this is an error of the backend",
            Self::Cuda => {
                "install NVIDIA's driver and the CUDA toolkit and see what `nvidia-smi` lists, or run \
                 with `--device flex`"
            }
            Self::Rocm => {
                "install AMD's driver and ROCm and see what `rocminfo` lists, or run with `--device \
                 flex`"
            }
            Self::Vulkan | Self::Wgpu => {
                "install the Vulkan driver of the GPU (without one: Mesa's software renderer, \
                 `mesa-vulkan-drivers` on Debian) and see what `vulkaninfo` lists, or run with \
                 `--device flex`"
            }
            Self::Metal | Self::WebGpu | Self::Cpu => "run with `--device flex`",
        }
    }
}

/// The device of `--device` if that is not given: flex if it is compiled in, otherwise the first
/// backend which is.
///
/// In a program without any backend this is flex, so that the message says how to get one.
pub const DEFAULT_DEVICE: &str = default_backend().name();

const fn default_backend() -> Backend {
    let mut i = 0;
    while i < Backend::ALL.len() {
        if Backend::ALL[i].is_compiled_in() {
            return Backend::ALL[i];
        }
        i += 1;
    }
    Backend::Flex
}

/// A device as written on the command line, of a backend that is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSpec {
    backend: Backend,
    index: Option<u8>,
}

impl DeviceSpec {
    /// The backend.
    pub fn backend(self) -> Backend {
        self.backend
    }

    /// The number of the GPU, if one was given.
    pub fn index(self) -> Option<usize> {
        self.index.map(usize::from)
    }

    /// Reads a name and an index, whether the backend is compiled in or not.
    fn read(text: &str) -> Result<Self, DeviceError> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, Some(index)),
            None => (text, None),
        };
        let backend = Backend::ALL
            .into_iter()
            .find(|backend| backend.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| unknown(name))?;
        let index = index.map(|index| read_index(backend, index)).transpose()?;
        Ok(Self { backend, index })
    }
}

fn read_index(backend: Backend, text: &str) -> Result<u8, DeviceError> {
    if !backend.takes_index() {
        return Err(DeviceError::NoIndexTaken {
            name: backend.name(),
            got: text.to_string(),
        });
    }
    text.parse().map_err(|_| DeviceError::BadIndex {
        name: backend.name(),
        got: text.to_string(),
    })
}

fn unknown(name: &str) -> DeviceError {
    DeviceError::Unknown {
        got: name.to_string(),
        nearest: nearest(name, &Backend::ALL.map(Backend::name)),
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let spec = Self::read(text.trim())?;
        if spec.backend.is_compiled_in() {
            Ok(spec)
        } else {
            Err(DeviceError::NotCompiledIn {
                name: spec.backend.name(),
            })
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend.name())?;
        match self.index {
            Some(index) => write!(f, ":{index}"),
            None => Ok(()),
        }
    }
}

/// A device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// There is no device of that name.
    #[error("unknown device `{got}`{}; known are: {}", guess(*nearest), known_names())]
    Unknown {
        /// The name given.
        got: String,
        /// The known name most like it, if one is at all like it.
        nearest: Option<&'static str>,
    },
    /// The program was built without the backend.
    #[error("device `{name}` is not compiled in: run again with `--features {name}`")]
    NotCompiledIn {
        /// The name of the device.
        name: &'static str,
    },
    /// The part after the colon is not the number of a GPU.
    #[error(
        "`{got}` is not a number of a `{name}` device; expected a whole number from 0 to 255, \
         such as `{name}:0`"
    )]
    BadIndex {
        /// The name of the device.
        name: &'static str,
        /// What was given as its index.
        got: String,
    },
    /// There is only one device of this name, but an index was given.
    #[error("device `{name}` takes no index, but got `{got}`; expected just `{name}`")]
    NoIndexTaken {
        /// The name of the device.
        name: &'static str,
        /// What was given as its index.
        got: String,
    },
    /// The backend is compiled in but does not work on this machine.
    #[error(
        "device `{name}` does not work on this machine: looked for {what_was_looked_for}, \
         but the backend said: {reason}; {hint}"
    )]
    Unavailable {
        /// The device as written on the command line.
        name: String,
        /// The hardware and software that would be needed.
        what_was_looked_for: String,
        /// What to try.
        hint: String,
        /// The message of the backend.
        reason: String,
    },
}

fn known_names() -> String {
    Backend::ALL.map(Backend::name).join(", ")
}

fn guess(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// Opens a device and computes a sum on it, as a test.
///
/// Burn's GPU backends panic on a machine without the GPU or its driver. The test converts the panic into
/// an error with one clear sentence. During the test, panics of all threads of the process are silenced.
///
/// # Errors
///
/// Returns [`DeviceError::Unavailable`] if the device does not work on this machine and
/// [`DeviceError::NotCompiledIn`] if the backend is not compiled in.
pub fn open(spec: DeviceSpec) -> Result<Device, DeviceError> {
    let trial = quietly(|| {
        let device = build(spec)?;
        try_out(&device).map_err(|reason| unavailable(spec, &reason))?;
        Ok(device)
    });
    trial.unwrap_or_else(|reason| Err(unavailable(spec, &reason)))
}

/// A name of the device for reports: as on the command line, with the name of the GPU if it has
/// one, such as `cuda:0 (NVIDIA H100 PCIe)`.
pub fn describe(spec: DeviceSpec, device: &Device) -> String {
    match hardware_name(device) {
        Some(name) => format!("{spec} ({name})"),
        None => spec.to_string(),
    }
}

#[cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "webgpu",
    feature = "cuda",
    feature = "rocm",
    feature = "cpu"
))]
fn hardware_name(device: &Device) -> Option<String> {
    device.identity().map(|identity| identity.name)
}

#[cfg(not(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "webgpu",
    feature = "cuda",
    feature = "rocm",
    feature = "cpu"
)))]
fn hardware_name(_: &Device) -> Option<String> {
    None
}

fn build(spec: DeviceSpec) -> Result<Device, DeviceError> {
    match spec.backend {
        #[cfg(feature = "flex")]
        Backend::Flex => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[expect(deprecated, reason = "kept for comparison until Burn removes it")]
        Backend::NdArray => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => Ok(Device::wgpu(device_kind(spec))),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => Ok(Device::vulkan(device_kind(spec))),
        #[cfg(feature = "metal")]
        Backend::Metal => Ok(Device::metal(device_kind(spec))),
        #[cfg(feature = "webgpu")]
        Backend::WebGpu => Ok(Device::webgpu(device_kind(spec))),
        #[cfg(feature = "cuda")]
        Backend::Cuda => Ok(Device::cuda(spec.index().unwrap_or(0))),
        #[cfg(feature = "rocm")]
        Backend::Rocm => Ok(Device::rocm(spec.index().unwrap_or(0))),
        #[cfg(feature = "cpu")]
        Backend::Cpu => Ok(Device::cpu()),
        #[allow(unreachable_patterns, reason = "with all features nothing is left")]
        absent => Err(DeviceError::NotCompiledIn {
            name: absent.name(),
        }),
    }
}

#[cfg(any(
    feature = "wgpu",
    feature = "vulkan",
    feature = "metal",
    feature = "webgpu"
))]
fn device_kind(spec: DeviceSpec) -> DeviceKind {
    spec.index()
        .map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu)
}

/// Computes on the device and compares the result; the error is the reason.
fn try_out(device: &Device) -> Result<(), String> {
    let sum = Tensor::<1>::from_floats([1.0, 2.0, 4.0], device)
        .sum()
        .try_into_scalar::<f32>()
        .map_err(|error| error.to_string())?;
    if sum == 7.0 {
        Ok(())
    } else {
        Err(format!("1 + 2 + 4 = {sum}"))
    }
}

fn unavailable(spec: DeviceSpec, reason: &str) -> DeviceError {
    let number = spec
        .index
        .map_or_else(String::new, |index| format!(" (number {index})"));
    DeviceError::Unavailable {
        name: spec.to_string(),
        what_was_looked_for: format!("{}{number}", spec.backend.needs()),
        hint: spec.backend.hint().to_string(),
        reason: shortened(reason),
    }
}

/// The first line of a reason without what Rust puts in front, so that the message stays one
/// sentence.
fn shortened(reason: &str) -> String {
    const MOST: usize = 200;
    const UNWRAPPED: &str = "called `Result::unwrap()` on an `Err` value: ";
    let line = reason.trim().lines().next().unwrap_or_default();
    let line = line.strip_prefix(UNWRAPPED).unwrap_or(line);
    if line.chars().count() <= MOST {
        line.to_string()
    } else {
        line.chars().take(MOST).chain(['…']).collect()
    }
}

/// Runs `work` with the panic hook silenced and gives the message of its panic, if it panics.
///
/// Backends run on their own threads. The panic that reaches this thread often says only that a channel was
/// closed, so the message of the first panic in the process is preferred.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The hook belongs to the whole process: two trials at a time would restore each other's.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let first_message = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&first_message);
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let mut first = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = message_of(info.payload());
        }
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(previous);

    result.map_err(|payload| {
        let first = first_message
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        first
            .or_else(|| message_of(&*payload))
            .unwrap_or_else(|| "a panic without a message".to_string())
    })
}

fn message_of(payload: &(dyn Any + Send)) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> DeviceError {
        DeviceSpec::read(text).unwrap_err()
    }

    #[test]
    fn every_name_is_read_back() {
        for backend in Backend::ALL {
            let spec = DeviceSpec::read(backend.name()).unwrap();
            assert_eq!((spec.backend(), spec.index()), (backend, None));
            assert_eq!(spec.to_string(), backend.name());
        }
    }

    #[test]
    fn gpus_take_an_index() {
        for name in ["wgpu", "vulkan", "metal", "webgpu", "cuda", "rocm"] {
            let spec = DeviceSpec::read(&format!("{name}:3")).unwrap();
            assert_eq!(spec.index(), Some(3));
            assert_eq!(spec.to_string(), format!("{name}:3"));
        }
    }

    #[test]
    fn case_does_not_matter() {
        assert_eq!(
            DeviceSpec::read("CUDA:1").unwrap(),
            DeviceSpec::read("cuda:1").unwrap()
        );
    }

    #[test]
    fn an_unknown_name_lists_the_names() {
        assert_eq!(
            error("vulcan:0").to_string(),
            "unknown device `vulcan` (did you mean `vulkan`?); known are: \
             flex, ndarray, wgpu, vulkan, metal, webgpu, cuda, rocm, cpu"
        );
        let nothing = error("");
        assert!(matches!(
            nothing,
            DeviceError::Unknown { nearest: None, .. }
        ));
    }

    #[test]
    fn a_bad_index_is_refused() {
        for wrong in ["", "one", "-1", "256", "0:0", "1.5"] {
            let expected = DeviceError::BadIndex {
                name: "cuda",
                got: wrong.to_string(),
            };
            assert_eq!(error(&format!("cuda:{wrong}")), expected);
        }
    }

    #[test]
    fn the_processor_takes_no_index() {
        for name in ["flex", "ndarray", "cpu"] {
            let got = error(&format!("{name}:0"));
            assert!(matches!(got, DeviceError::NoIndexTaken { .. }), "{got}");
        }
    }

    #[test]
    fn only_what_is_compiled_in_is_accepted() {
        for backend in Backend::ALL {
            let result: Result<DeviceSpec, _> = backend.name().parse();
            match result {
                Ok(_) => assert!(backend.is_compiled_in(), "{}", backend.name()),
                Err(error) => {
                    assert!(!backend.is_compiled_in(), "{}", backend.name());
                    let name = backend.name();
                    let expected = format!(
                        "device `{name}` is not compiled in: run again with `--features {name}`"
                    );
                    assert_eq!(error.to_string(), expected);
                }
            }
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn flex_is_the_default_and_opens() {
        let spec: DeviceSpec = DEFAULT_DEVICE.parse().unwrap();
        let device = open(spec).unwrap();
        assert_eq!(device, Device::flex());
        assert_eq!(describe(spec, &device), "flex");
    }

    #[test]
    fn a_panic_on_another_thread_gives_the_reason() {
        let result = quietly(|| {
            let thread = std::thread::spawn(|| panic!("no driver {}", 7));
            thread.join().expect("the other side hung up");
        });
        assert_eq!(result, Err("no driver 7".to_string()));
        assert_eq!(quietly(|| 1), Ok(1));
    }

    #[test]
    fn an_unavailable_device_is_one_sentence() {
        let spec = DeviceSpec::read("cuda:1").unwrap();
        let reason = "called `Result::unwrap()` on an `Err` value: NO_DEVICE\nat somewhere\n";
        let error = unavailable(spec, reason);
        assert_eq!(
            error.to_string(),
            "device `cuda:1` does not work on this machine: looked for an NVIDIA GPU with its \
             driver and the CUDA toolkit (number 1), but the backend said: NO_DEVICE; \
             install NVIDIA's driver and the CUDA toolkit and see what `nvidia-smi` lists, or run \
             with `--device flex`"
        );
    }
}

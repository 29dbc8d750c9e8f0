//! The device on which the tests run.

use alloc::string::String;

use burn::tensor::Device;

/// Burn's environment variable that selects a device: `BURN_DEVICE=wgpu cargo test --features wgpu`.
pub const VARIABLE: &str = "BURN_DEVICE";

/// The selected device and its name; `None` if [`VARIABLE`] is not set.
///
/// # Panics
/// If the backend of that name is not compiled in.
pub fn chosen() -> Option<(String, Device)> {
    let name = std::env::var(VARIABLE).ok()?;
    Some((name, Device::default()))
}

/// The selected device, or Flex.
///
/// # Panics
/// As [`chosen`].
#[cfg(feature = "flex")]
pub fn device() -> Device {
    chosen().map_or_else(Device::flex, |(_, device)| device)
}

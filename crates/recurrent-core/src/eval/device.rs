//! The device that a run of the tests is about.

use alloc::string::String;

use burn::tensor::Device;

/// The variable of Burn that names a device: `BURN_DEVICE=wgpu cargo test --features wgpu`.
pub const VARIABLE: &str = "BURN_DEVICE";

/// The device that was asked for, and its name; none where [`VARIABLE`] is not set.
///
/// # Panics
/// If the backend of that name is not compiled in.
pub fn chosen() -> Option<(String, Device)> {
    let name = std::env::var(VARIABLE).ok()?;
    Some((name, Device::default()))
}

/// The device that was asked for, or Flex.
///
/// # Panics
/// As [`chosen`].
#[cfg(feature = "flex")]
pub fn device() -> Device {
    chosen().map_or_else(Device::flex, |(_, device)| device)
}

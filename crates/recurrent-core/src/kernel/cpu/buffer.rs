//! Working memory that is kept between calls.
//!
//! A training step needs buffers of some ten times the size of its output, and needs them again in
//! the next step. Asking the system for them each time costs a page fault per 4 KiB, and clearing
//! them: up to a tenth of a step. Buffers therefore go back to a pool, up to [`KEEP`] bytes in all.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// Bytes that the pool keeps; what goes beyond is given back to the system.
pub const KEEP: usize = 512 << 20;

/// Size in bytes from which on huge pages are asked for: a few of them.
#[cfg(target_os = "linux")]
const WORTH_HUGE_PAGES: usize = 4 << 20;

/// f32 values of any content, back in the pool when dropped.
#[derive(Debug, Default)]
pub struct Buffer(Vec<f32>);

impl Buffer {
    /// `len` values, which nobody has set.
    pub fn new(len: usize) -> Self {
        if len == 0 {
            return Self(Vec::new());
        }
        let mut values = pool::take(len).unwrap_or_else(|| zeros(len));
        if values.len() < len {
            values.resize(len, 0.0);
        }
        values.truncate(len);
        Self(values)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        pool::put(core::mem::take(&mut self.0));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// Gives the memory that the pool keeps back to the system.
pub fn release() {
    pool::clear();
}

/// Zeros. Large ones are put on huge pages where the system lends them: 32 MiB cost 8192 page faults
/// otherwise, and a matrix that is read column by column a page walk per row.
pub fn zeros(len: usize) -> Vec<f32> {
    // Fresh memory, not yet touched, when it is large.
    let buffer = alloc::vec![0.0; len];
    #[cfg(target_os = "linux")]
    if len * size_of::<f32>() >= WORTH_HUGE_PAGES {
        const PAGE: usize = 4096;
        let start = (buffer.as_ptr() as usize).next_multiple_of(PAGE);
        let end = (buffer.as_ptr() as usize + len * size_of::<f32>()) / PAGE * PAGE;
        // SAFETY: whole pages inside the buffer; the advice changes no contents, and a refusal
        // changes nothing.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    buffer
}

mod pool {
    use alloc::vec::Vec;
    use std::sync::{Mutex, PoisonError};

    use super::KEEP;

    /// Free buffers, the smallest first.
    static FREE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

    /// The smallest free buffer with room for `len` values, if it is not far too large.
    pub fn take(len: usize) -> Option<Vec<f32>> {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.partition_point(|buffer| buffer.capacity() < len);
        let fits = free.get(index)?.capacity() <= 2 * len + 1024;
        fits.then(|| free.remove(index))
    }

    /// Keeps a buffer; the largest go where there are too many.
    pub fn put(buffer: Vec<f32>) {
        if buffer.capacity() == 0 {
            return;
        }
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.partition_point(|other| other.capacity() < buffer.capacity());
        free.insert(index, buffer);
        let mut bytes: usize = free.iter().map(|buffer| 4 * buffer.capacity()).sum();
        while bytes > KEEP {
            let Some(largest) = free.pop() else { return };
            bytes -= 4 * largest.capacity();
        }
    }

    pub fn clear() {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

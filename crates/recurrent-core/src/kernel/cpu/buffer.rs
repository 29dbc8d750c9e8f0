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

/// f32 values of any content, back in the pool when dropped. The first begins a cache line: a vector
/// that lies across two lines costs two reads, half of what the second-level cache gives.
#[derive(Debug, Default)]
pub struct Buffer {
    values: Vec<f32>,
    /// Where the first line begins.
    start: usize,
}

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

impl Buffer {
    /// `len` values, which nobody has set.
    pub fn new(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let room = len + LINE / size_of::<f32>();
        let mut values = pool::take(room).unwrap_or_else(|| zeros(room));
        if values.len() < room {
            values.resize(room, 0.0);
        }
        let start = values.as_ptr().align_offset(LINE).min(room - len);
        values.truncate(start + len);
        Self { values, start }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        pool::put(core::mem::take(&mut self.values));
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..]
    }
}

/// Gives the memory that the pool keeps back to the system.
pub fn release() {
    pool::clear();
}

/// Zeros.
pub fn zeros(len: usize) -> Vec<f32> {
    // Fresh memory, not yet touched, when it is large.
    let buffer = alloc::vec![0.0; len];
    advise(buffer.as_ptr(), len);
    buffer
}

/// Room for `len` values, whose length is to be set when they are: for what is written as a whole by
/// several threads, which would wait while one clears it.
pub fn room(len: usize) -> Vec<f32> {
    let buffer = Vec::with_capacity(len);
    advise(buffer.as_ptr(), len);
    buffer
}

/// Asks for huge pages where it is worth it: 32 MiB cost 8192 page faults otherwise, and a matrix that is
/// read column by column a page walk per row.
fn advise(values: *const f32, len: usize) {
    #[cfg(target_os = "linux")]
    if len * size_of::<f32>() >= WORTH_HUGE_PAGES {
        const PAGE: usize = 4096;
        let start = (values as usize).next_multiple_of(PAGE);
        let end = (values as usize + len * size_of::<f32>()) / PAGE * PAGE;
        // SAFETY: whole pages inside the allocation; the advice changes no contents, and a refusal
        // changes nothing.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (values, len);
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

//! Pools of memory that is reused between calls.
//!
//! A training step needs buffers of about ten times the size of its output, and the next step needs them
//! again. Newly allocated memory costs a page fault per 4 KiB, and is cleared by the system: up to a
//! tenth of a step. Buffers therefore return to a pool of up to [`KEEP`] bytes. Results have a separate
//! pool, filled by the backends that return their memory here ([`give_back`]). It is separate because on
//! a backend that does not return results, they would drain the pool of the buffers.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum size of each pool in bytes; memory beyond it is returned to the system.
pub const KEEP: usize = 512 << 20;

/// Minimum size in bytes of a result that is pooled: small results can be numerous, and the allocator
/// handles them well.
const WORTH_KEEPING: usize = 1 << 16;

/// Minimum size in bytes for which huge pages are requested: several huge pages.
#[cfg(target_os = "linux")]
const WORTH_HUGE_PAGES: usize = 4 << 20;

/// f32 values of unspecified content, returned to the pool when dropped. The first one starts a cache
/// line: a vector that straddles two lines costs two reads, which halves the bandwidth of the
/// second-level cache.
#[derive(Debug, Default)]
pub struct Buffer {
    values: Vec<f32>,
    /// Index of the first value that starts a cache line.
    start: usize,
}

/// Size of a cache line in bytes, which is also that of the widest vector.
const LINE: usize = 64;

impl Buffer {
    /// `len` values of unspecified content.
    pub fn new(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let room = len + LINE / size_of::<f32>();
        let mut values = BUFFERS
            .take(room, 2 * room + 1024)
            .unwrap_or_else(|| fresh(room));
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
        BUFFERS.put(core::mem::take(&mut self.values));
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

/// Returns the memory held by the pools to the system.
pub fn release() {
    BUFFERS.clear();
    RESULTS.clear();
}

/// Values of unspecified content for a result; the caller sets all of them.
pub fn unset(len: usize) -> Vec<f32> {
    // A result may be long-lived, so it gets little more memory than it needs.
    let mut values = (RESULTS.take(len, len + len / 4)).unwrap_or_else(|| fresh(len));
    values.resize(len, 0.0);
    if cfg!(debug_assertions) {
        values.fill(f32::NAN); // makes values visible that were never set
    }
    values
}

/// Returns the memory of a result that is no longer used.
#[cfg_attr(not(feature = "flex"), allow(dead_code))] // NdArray has no hook for it
pub fn give_back(values: Vec<f32>) {
    RESULTS.put(values);
}

/// Newly allocated zeros; for a large size, memory that has not been touched yet.
fn fresh(len: usize) -> Vec<f32> {
    let values = alloc::vec![0.0; len];
    advise(values.as_ptr(), len);
    values
}

/// Requests huge pages for large buffers: 32 MiB cost 8192 page faults otherwise, and reading a matrix
/// column by column costs a page walk per row.
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

static BUFFERS: Pool = Pool::new(0);
static RESULTS: Pool = Pool::new(WORTH_KEEPING);

/// Unused memory.
struct Pool {
    /// Minimum size in bytes of a piece that is kept.
    least: usize,
    free: Mutex<Free>,
}

struct Free {
    /// Sorted by size, smallest first.
    list: Vec<Vec<f32>>,
    /// Total size in bytes.
    bytes: usize,
}

fn bytes(values: &Vec<f32>) -> usize {
    values.capacity() * size_of::<f32>()
}

impl Pool {
    const fn new(least: usize) -> Self {
        Self {
            least,
            free: Mutex::new(Free {
                list: Vec::new(),
                bytes: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest piece with room for `len` values, if it has room for at most `most`.
    fn take(&self, len: usize, most: usize) -> Option<Vec<f32>> {
        if len * size_of::<f32>() < self.least {
            return None;
        }
        let mut free = self.lock();
        let index = free.list.partition_point(|other| other.capacity() < len);
        if free.list.get(index)?.capacity() > most {
            return None;
        }
        let values = free.list.remove(index);
        free.bytes -= bytes(&values);
        Some(values)
    }

    /// Adds memory; if the pool is too large, the largest piece is freed.
    fn put(&self, values: Vec<f32>) {
        if values.capacity() == 0 || bytes(&values) < self.least {
            return;
        }
        let mut free = self.lock();
        let index = (free.list).partition_point(|other| other.capacity() < values.capacity());
        free.bytes += bytes(&values);
        free.list.insert(index, values);
        while free.bytes > KEEP {
            let Some(largest) = free.list.pop() else {
                return;
            };
            free.bytes -= bytes(&largest);
        }
    }

    fn clear(&self) {
        let mut free = self.lock();
        free.list.clear();
        free.bytes = 0;
    }
}

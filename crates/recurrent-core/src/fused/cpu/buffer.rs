//! Memory that is kept between calls.
//!
//! A training step needs buffers of some ten times the size of its output, and needs them again in
//! the next step. Asking the system for them each time costs a page fault per 4 KiB, and clearing
//! them: up to a tenth of a step. Buffers therefore go back to a pool, up to [`KEEP`] bytes. Results have a
//! pool of their own, filled by backends that let go of them here ([`give_back`]): where none does, they
//! must not use up the memory of the buffers.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that each pool keeps; what goes beyond is given back to the system.
pub const KEEP: usize = 512 << 20;

/// Size in bytes from which on results go to their pool: there may be any number of small ones, which the
/// allocator serves well.
const WORTH_KEEPING: usize = 1 << 16;

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

/// Gives the memory that the pools keep back to the system.
pub fn release() {
    BUFFERS.clear();
    RESULTS.clear();
}

/// Values of any content for a result, all of which the caller sets.
pub fn unset(len: usize) -> Vec<f32> {
    // A result may live long, so little more than it needs.
    let mut values = (RESULTS.take(len, len + len / 4)).unwrap_or_else(|| fresh(len));
    values.resize(len, 0.0);
    if cfg!(debug_assertions) {
        values.fill(f32::NAN); // what is forgotten shows
    }
    values
}

/// Memory of a result that nobody needs any more.
#[cfg_attr(not(feature = "flex"), allow(dead_code))] // NdArray takes its own
pub fn give_back(values: Vec<f32>) {
    RESULTS.put(values);
}

/// Zeros that no buffer has been before: memory not yet touched, when it is large.
fn fresh(len: usize) -> Vec<f32> {
    let values = alloc::vec![0.0; len];
    advise(values.as_ptr(), len);
    values
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

static BUFFERS: Pool = Pool::new(0);
static RESULTS: Pool = Pool::new(WORTH_KEEPING);

/// Memory that nobody uses.
struct Pool {
    /// Bytes of the smallest piece that is kept.
    least: usize,
    free: Mutex<Free>,
}

struct Free {
    /// The smallest first.
    list: Vec<Vec<f32>>,
    /// Of all of them.
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

    /// The smallest with room for `len` values, if it has room for no more than `most`.
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

    /// Keeps memory; the largest goes where there is too much.
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

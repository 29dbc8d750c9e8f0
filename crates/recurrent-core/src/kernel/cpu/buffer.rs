//! Large buffers.

use alloc::vec;
use alloc::vec::Vec;

/// Size in bytes from which on huge pages are asked for: a few of them.
#[cfg(target_os = "linux")]
const WORTH_HUGE_PAGES: usize = 4 << 20;

/// Zeros. Large buffers are put on huge pages where the system lends them: a gate buffer of 32 MiB
/// costs 8192 page faults otherwise, and a panel that is read row by row a page walk per row.
pub fn zeros(len: usize) -> Vec<f32> {
    // Fresh memory, not yet touched, when it is large.
    let buffer = vec![0.0; len];
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

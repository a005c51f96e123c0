//! How the process keeps memory that it has freed.
//!
//! The C library gives the top of a heap back to the kernel as soon as 128 KiB of it are free, and
//! takes buffers of that size from the kernel each time. Threads that work in batches, as the
//! committer does, would so unmap and fault the same pages hundreds of times a second, and every
//! unmapping interrupts the other processors.
#![expect(unsafe_code, reason = "mallopt(3) is a C function")]

use std::ffi::c_int;

/// Bytes that a heap keeps at its top, and size from which on a buffer is a mapping of its own.
const KEPT: c_int = 4 << 20;

/// Has freed memory be kept for the next use. To be called before there are threads.
pub(crate) fn keep_freed() {
    for parameter in [libc::M_TRIM_THRESHOLD, libc::M_MMAP_THRESHOLD] {
        // SAFETY: both parameters take a number of bytes, and no other thread runs yet.
        let done = unsafe { libc::mallopt(parameter, KEPT) };
        debug_assert_eq!(done, 1, "both are below the C library's limits");
    }
}

//! System calls that the standard library has no safe form of.
#![expect(unsafe_code, reason = "raw system calls")]
#![expect(
    clippy::missing_errors_doc,
    reason = "every function gives the error of its system call"
)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most buffers of one `pwritev(2)`.
pub const IOV_MAX: usize = 1024;

fn check(result: i64) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn offset(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Runs a call again that a signal interrupted.
fn retry(mut call: impl FnMut() -> i64) -> io::Result<usize> {
    loop {
        match check(call()) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// `pwritev(2)` of at most [`IOV_MAX`] buffers; gives the bytes written.
pub fn pwritev(fd: RawFd, bufs: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
    let at = offset(at)?;
    let count = i32::try_from(bufs.len().min(IOV_MAX)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `IoSlice` has the layout of `iovec`, and the `count` buffers live across the call.
    retry(|| unsafe { libc::pwritev(fd, bufs.as_ptr().cast(), count, at) } as i64)
}

/// `fallocate(2)` of the first `len` bytes.
pub(crate) fn fallocate(fd: RawFd, len: u64) -> io::Result<()> {
    let len = offset(len)?;
    // SAFETY: no memory is passed.
    retry(|| i64::from(unsafe { libc::fallocate(fd, 0, 0, len) })).map(drop)
}

/// Gives the space of a range back to the file system, with `fallocate(2)`; the range reads as
/// zeros from then on, and the file keeps its length.
pub fn punch_hole(fd: RawFd, at: u64, len: u64) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no memory is passed.
    retry(|| i64::from(unsafe { libc::fallocate(fd, mode, at, len) })).map(drop)
}

/// Where the first data at or after a place of a file is; `None` if there is none.
pub fn seek_data(fd: RawFd, at: u64) -> io::Result<Option<u64>> {
    seek(fd, at, libc::SEEK_DATA)
}

/// Where the first hole at or after a place of a file is, its end being one; `None` if the place is
/// not in the file.
pub fn seek_hole(fd: RawFd, at: u64) -> io::Result<Option<u64>> {
    seek(fd, at, libc::SEEK_HOLE)
}

fn seek(fd: RawFd, at: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let at = offset(at)?;
    // SAFETY: no memory is passed.
    match retry(|| unsafe { libc::lseek(fd, at, whence) }) {
        Ok(found) => Ok(Some(found as u64)),
        Err(err) if err.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(err) => Err(err),
    }
}

/// `copy_file_range(2)` until `len` bytes are copied; falls short only with an error.
pub(crate) fn copy_file_range(
    from: RawFd,
    from_at: u64,
    to: RawFd,
    to_at: u64,
    len: u64,
) -> io::Result<()> {
    let (mut from_at, mut to_at, mut left) = (offset(from_at)?, offset(to_at)?, len);
    while left > 0 {
        let piece = usize::try_from(left.min(1 << 30)).expect("at most 1 GiB");
        // SAFETY: both offsets are live `i64`s that the call reads and writes.
        let copied = retry(|| unsafe {
            libc::copy_file_range(from, &raw mut from_at, to, &raw mut to_at, piece, 0)
        } as i64)?;
        if copied == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= copied as u64;
    }
    Ok(())
}

/// `fsetxattr(2)`.
pub(crate) fn fsetxattr(fd: RawFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let (name, len, value) = (name.as_ptr(), value.len(), value.as_ptr().cast());
    // SAFETY: the name is a C string and the value is `len` bytes; both live across the call.
    let set = || i64::from(unsafe { libc::fsetxattr(fd, name, value, len, 0) });
    retry(set).map(drop)
}

/// `fgetxattr(2)` of up to 64 KiB; `None` if the file has no such attribute.
pub(crate) fn fgetxattr(fd: RawFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 64 << 10];
    // SAFETY: the name is a C string and `value` has room for `value.len()` bytes.
    let got = retry(|| unsafe {
        libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    } as i64);
    match got {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(err) if err.raw_os_error() == Some(libc::ENODATA) => Ok(None),
        Err(err) => Err(err),
    }
}

/// `statvfs(3)`: bytes in all, bytes available, inodes available.
pub fn statvfs(path: &Path) -> io::Result<(u64, u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a C string and `stat` has room for the answer.
    retry(|| i64::from(unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) }))?;
    // SAFETY: the call succeeded, so it has filled `stat`.
    let stat = unsafe { stat.assume_init() };
    Ok((
        stat.f_blocks * stat.f_frsize,
        stat.f_bavail * stat.f_frsize,
        stat.f_favail,
    ))
}

/// `flock(2)`, exclusive, without waiting; false if another process has the lock.
pub fn try_lock(fd: RawFd) -> io::Result<bool> {
    // SAFETY: no memory is passed.
    match retry(|| i64::from(unsafe { libc::flock(fd, libc::LOCK_EX | libc::LOCK_NB) })) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(err) => Err(err),
    }
}

/// What became of pages that a read brought in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unkept {
    /// They are dropped, unless somebody else wanted them by then.
    Dropped,
    /// They may be in memory still.
    MayBeKept,
}

/// Reads exactly `buffer` with `preadv2(2)`, and `RWF_DONTCACHE` where the file system knows it.
pub(crate) fn read_unkept(file: &File, buffer: &mut [u8], at: u64) -> io::Result<Unkept> {
    /// Of `linux/fs.h`, since 6.14.
    const RWF_DONTCACHE: libc::c_int = 0x80;
    let mut at = offset(at)?;
    let (mut rest, mut flags) = (buffer, RWF_DONTCACHE);
    while !rest.is_empty() {
        let iov = libc::iovec {
            iov_base: rest.as_mut_ptr().cast(),
            iov_len: rest.len(),
        };
        let fd = file.as_raw_fd();
        // SAFETY: `iov` names `rest`, which lives across the call and which nobody else uses.
        let read = || unsafe { libc::preadv2(fd, &raw const iov, 1, at, flags) } as i64;
        match retry(read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                rest = &mut rest[len..];
                at += i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
            }
            Err(err) if flags != 0 && is_unknown(&err) => flags = 0,
            Err(err) => return Err(err),
        }
    }
    Ok(if flags == 0 {
        Unkept::MayBeKept
    } else {
        Unkept::Dropped
    })
}

/// What a kernel says to a flag that it, or the file system, does not know.
fn is_unknown(err: &io::Error) -> bool {
    matches!(
        err.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS)
    )
}

/// Has the kernel drop whole pages of a file, with `posix_fadvise(2)`, as far as nobody maps them.
pub(crate) fn drop_pages(file: &File, at: u64, len: u64) -> io::Result<()> {
    advise(file, at, len, libc::POSIX_FADV_DONTNEED)
}

/// Has the kernel read nothing but what is asked for by this descriptor.
pub(crate) fn no_read_ahead(file: &File) -> io::Result<()> {
    advise(file, 0, 0, libc::POSIX_FADV_RANDOM)
}

fn advise(file: &File, at: u64, len: u64, advice: libc::c_int) -> io::Result<()> {
    let (at, len) = (offset(at)?, offset(len)?);
    // SAFETY: no memory is passed. The error is the result, not `errno`.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), at, len, advice) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Another open file description of the same file, for reading; also if its name is gone.
pub(crate) fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

//! System calls that the standard library has no safe form of.
#![expect(unsafe_code, reason = "raw system calls")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use forebay_store::time::Timestamp;

fn done(result: i64) -> io::Result<i64> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// `mount(2)`.
pub(crate) fn mount(
    source: &CStr,
    target: &Path,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the four strings are C strings and live across the call.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    done(result.into()).map(drop)
}

/// `umount2(2)`.
pub(crate) fn unmount(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the path is a C string and lives across the call.
    done(unsafe { libc::umount2(target.as_ptr(), flags) }.into()).map(drop)
}

/// `futimens(2)`, the access time left as it is.
pub(crate) fn set_mtime(file: &File, at: Timestamp) -> io::Result<()> {
    let times = [
        libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
        libc::timespec {
            tv_sec: at.seconds(),
            tv_nsec: at.subsec_nanos().into(),
        },
    ];
    // SAFETY: `times` is an array of two, which the call reads.
    done(unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) }.into()).map(drop)
}

/// `fallocate(2)`.
pub(crate) fn fallocate(file: &File, mode: i32, offset: i64, len: i64) -> io::Result<()> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, len) }.into()).map(drop)
}

/// `lseek(2)`. Nobody reads or writes at this description's own offset.
pub(crate) fn seek(file: &File, offset: i64, whence: i32) -> io::Result<i64> {
    // SAFETY: no memory is passed.
    done(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) })
}

/// `copy_file_range(2)`, once; the bytes copied.
pub(crate) fn copy_range(
    from: &File,
    mut from_at: i64,
    to: &File,
    mut to_at: i64,
    len: usize,
) -> io::Result<usize> {
    // SAFETY: both offsets are live `i64`s that the call reads and writes.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            &raw mut from_at,
            to.as_raw_fd(),
            &raw mut to_at,
            len,
            0,
        )
    };
    done(copied as i64).map(|copied| usize::try_from(copied).unwrap_or(0))
}

/// Makes `device`, newly opened, another way into the FUSE connection of `connected`.
pub(crate) fn clone_device(device: &File, connected: &File) -> io::Result<()> {
    /// `FUSE_DEV_IOC_CLONE` of `linux/fuse.h`.
    const CLONE: libc::c_ulong = 0x8004_e500;
    let fd = u32::try_from(connected.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `fd` is a live `u32`, which the call reads.
    done(unsafe { libc::ioctl(device.as_raw_fd(), CLONE as _, &raw const fd) }.into()).map(drop)
}

/// What kind of file system something lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// overlayfs, on which passing through needs a deeper stack.
    Overlay,
    /// FUSE.
    Fuse,
    /// Another.
    Other,
}

/// `fstatfs(2)`.
pub(crate) fn file_system(file: &File) -> io::Result<FileSystem> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `stat` has room for the answer.
    done(unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call succeeded, so it has filled `stat`.
    Ok(kind(&unsafe { stat.assume_init() }))
}

/// `statfs(2)`. Unlike `stat(2)` it always asks the file system, so it sees one that is dead.
pub(crate) fn file_system_at(path: &Path) -> io::Result<FileSystem> {
    let path = c_path(path)?;
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string and `stat` has room for the answer.
    done(unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) }.into())?;
    // SAFETY: the call succeeded, so it has filled `stat`.
    Ok(kind(&unsafe { stat.assume_init() }))
}

/// By the numbers of `linux/magic.h`.
fn kind(stat: &libc::statfs) -> FileSystem {
    match stat.f_type {
        0x794c_7630 => FileSystem::Overlay,
        0x6573_5546 => FileSystem::Fuse,
        _ => FileSystem::Other,
    }
}

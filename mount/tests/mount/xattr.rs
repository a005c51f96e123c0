//! Extended attributes by system calls, for tests of mounts.
#![expect(
    unsafe_code,
    reason = "the standard library has no extended attributes"
)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(crate) const CONTROL: &str = "user.forebay.cache-control";
pub(crate) const STATUS: &str = "user.forebay.cache-status";

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

fn len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// `getxattr(2)` into so much room.
pub(crate) fn get_into(path: &Path, name: &str, room: usize) -> io::Result<Vec<u8>> {
    let (path, name) = (c_path(path), CString::new(name).expect("no NUL"));
    let mut value = vec![0_u8; room];
    // SAFETY: both strings are C strings, and `value` has `room` bytes.
    let got = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            room,
        )
    };
    let got = len(got)?;
    value.resize(got, 0);
    Ok(value)
}

/// The value of an attribute.
pub(crate) fn get(path: &Path, name: &str) -> io::Result<String> {
    let value = get_into(path, name, 256)?;
    Ok(String::from_utf8(value).expect("text"))
}

/// `setxattr(2)`.
pub(crate) fn set(path: &Path, name: &str, value: &str, flags: i32) -> io::Result<()> {
    let (path, name) = (c_path(path), CString::new(name).expect("no NUL"));
    // SAFETY: both strings are C strings, and the value has its length.
    let done = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags,
        )
    };
    len(done as isize).map(drop)
}

/// `removexattr(2)`.
pub(crate) fn remove(path: &Path, name: &str) -> io::Result<()> {
    let (path, name) = (c_path(path), CString::new(name).expect("no NUL"));
    // SAFETY: both strings are C strings.
    let done = unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
    len(done as isize).map(drop)
}

/// `listxattr(2)`.
pub(crate) fn list(path: &Path) -> io::Result<Vec<String>> {
    let path = c_path(path);
    let mut names = vec![0_u8; 1024];
    // SAFETY: the path is a C string, and `names` has its length.
    let got = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(len(got)?);
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

/// How many pages of a range of a file are in memory, and how many it has.
pub(crate) fn resident(file: &std::fs::File, offset: usize, len: usize) -> (usize, usize) {
    use std::os::fd::AsRawFd;
    let start = offset / 4096 * 4096;
    let pages = (offset + len - start).div_ceil(4096);
    let mut bytes = vec![0_u8; pages];
    // SAFETY: a new map of the file, which is that long.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            pages * 4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            i64::try_from(start).expect("a file's offset"),
        )
    };
    assert_ne!(map, libc::MAP_FAILED);
    // SAFETY: the map has `pages` pages, and `bytes` a byte for each.
    let done = unsafe { libc::mincore(map, pages * 4096, bytes.as_mut_ptr()) };
    assert_eq!(done, 0);
    // SAFETY: it is the map made above, which nobody uses.
    unsafe { libc::munmap(map, pages * 4096) };
    (bytes.iter().filter(|byte| *byte & 1 == 1).count(), pages)
}

/// Has the kernel drop a file from memory.
pub(crate) fn evict(file: &std::fs::File) {
    use std::os::fd::AsRawFd;
    file.sync_all().expect("synced");
    // SAFETY: no memory is passed.
    let done = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(done, 0);
}

//! The mount itself: `mount(2)`, the threads that serve it, `umount2(2)`.
//!
//! This file and `fs.rs` are the only ones that know `fuser`. Of `fuser` the protocol and the event
//! loops are used; mounting and unmounting are done here, because 0.18 never detaches a busy mount
//! and may, when it ends, unmount what someone else has mounted at the same path since.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use fuser::{Config, SessionACL};

use crate::fs::Fs;
use crate::invalidate::Kernel;
use crate::sys::{self, FileSystem};

/// Read-ahead of the mount, in KiB; the kernel offers 128 and takes more only by way of sysfs.
const READ_AHEAD_KIB: u32 = 1024;
/// What the table of mounts shows as the device, unless it is to show something else.
pub const DEVICE: &str = "forebay";
/// What the table of mounts shows as the type.
pub const KIND: &str = "fuse.forebay";
/// How long a mount may take to say that it is alive.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Mounts of killed processes that may lie on top of one another.
const STALE_MAX: usize = 16;

/// A file that the kernel passes opens through to, until this is dropped.
#[derive(Debug)]
pub(crate) struct Backing(pub(crate) fuser::BackingId);

/// A mount that is being served.
#[derive(Debug)]
pub(crate) struct Session {
    mountpoint: PathBuf,
    serving: JoinHandle<io::Result<()>>,
}

impl Session {
    /// Mounts and begins to serve, as what the table of mounts is to show, and where; gives also
    /// the way to notify the kernel.
    pub(crate) fn start(
        (source, mountpoint): (&str, &Path),
        read_only: bool,
        threads: usize,
        fs: Fs,
    ) -> io::Result<(Self, Notifier)> {
        detach_stale(mountpoint)?;
        let mountpoint = mountpoint.canonicalize()?;
        let device = mount(source, &mountpoint, read_only)?;
        let started =
            Notifier::new(&device).and_then(|notifier| Ok((serve(device, threads, fs)?, notifier)));
        let (serving, notifier) = match started {
            Ok(started) => started,
            Err(err) => {
                sys::unmount(&mountpoint, libc::MNT_DETACH)?;
                return Err(err);
            }
        };
        set_read_ahead(&mountpoint);
        Ok((
            Self {
                mountpoint,
                serving,
            },
            notifier,
        ))
    }

    /// Unmounts if nobody uses the mount.
    ///
    /// # Errors
    /// `EBUSY` if someone does.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        match sys::unmount(&self.mountpoint, 0) {
            // It is not ours any more: someone else has unmounted it.
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            done => done,
        }
    }

    /// Unmounts whoever uses the mount.
    pub(crate) fn force(&self) -> io::Result<()> {
        sys::unmount(&self.mountpoint, libc::MNT_FORCE | libc::MNT_DETACH)
    }

    /// Waits until the last request is answered.
    pub(crate) fn join(self) -> io::Result<()> {
        match self.serving.join() {
            Ok(done) => done,
            Err(_) => Err(io::Error::other("a thread of the mount panicked")),
        }
    }

    pub(crate) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }
}

/// Detaches what a killed process has left mounted.
///
/// # Errors
/// `EBUSY` if a living forebay is mounted there.
fn detach_stale(mountpoint: &Path) -> io::Result<()> {
    for _ in 0..STALE_MAX {
        let Some(device) = mounted_at(mountpoint)? else {
            return Ok(());
        };
        match probe(mountpoint) {
            Some(Err(err)) if err.raw_os_error() == Some(libc::ENOTCONN) => {}
            Some(Err(err)) => return Err(err),
            Some(Ok(_)) => return Err(io::Error::from_raw_os_error(libc::EBUSY)),
            // Whoever waits for the one that was killed gets ENOTCONN now.
            None => fs::write(format!("/sys/fs/fuse/connections/{device}/abort"), "1")?,
        }
        tracing::warn!(path = %mountpoint.display(), "replacing the mount of a process that is gone");
        sys::unmount(mountpoint, libc::MNT_DETACH)?;
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Whether a file system answers; `None` if it does not.
fn probe(mountpoint: &Path) -> Option<io::Result<FileSystem>> {
    let (answer, answered) = mpsc::channel();
    let path = mountpoint.to_owned();
    // It may wait for ever.
    std::thread::spawn(move || drop(answer.send(sys::file_system_at(&path))));
    answered.recv_timeout(PROBE_WAIT).ok()
}

/// The device number of the forebay that is mounted at a path on top of others, by the table of
/// mounts.
///
/// The path itself is not touched: a dead mount may answer nothing ever.
fn mounted_at(path: &Path) -> io::Result<Option<u32>> {
    let absolute = std::path::absolute(path)?;
    let parent = absolute
        .parent()
        .ok_or(io::ErrorKind::InvalidInput)?
        .canonicalize()?;
    let path = parent.join(absolute.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // The table writes such bytes as octal numbers.
    let mut path = path.to_string_lossy().replace('\\', "\\134");
    for (byte, number) in [(' ', "\\040"), ('\t', "\\011"), ('\n', "\\012")] {
        path = path.replace(byte, number);
    }
    Ok(topmost(&table, &path))
}

/// See `proc_pid_mountinfo(5)`: device and mount point are the third and fifth field, the type
/// follows a hyphen.
fn topmost(table: &str, path: &str) -> Option<u32> {
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(path))?;
    let kind = line.split_once(" - ")?.1.split(' ').next()?;
    let minor = line.split(' ').nth(2)?.split_once(':')?.1;
    (kind == KIND).then(|| minor.parse().ok())?
}

fn open_device() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse")
}

/// Opens the device and mounts it. Objects can carry any mode, so neither set-user-id bits nor
/// devices among them count.
fn mount(source: &str, mountpoint: &Path, read_only: bool) -> io::Result<File> {
    let device = open_device()?;
    let stat = fs::metadata(mountpoint)?;
    let data = format!(
        "fd={},rootmode={:o},user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd(),
        stat.mode() & libc::S_IFMT,
    );
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOATIME;
    let flags = if read_only {
        flags | libc::MS_RDONLY
    } else {
        flags
    };
    let (source, kind, data) = (
        CString::new(source)?,
        CString::new(KIND)?,
        CString::new(data)?,
    );
    sys::mount(&source, mountpoint, &kind, flags, &data)?;
    Ok(device)
}

fn serve(device: File, threads: usize, fs: Fs) -> io::Result<JoinHandle<io::Result<()>>> {
    let mut config = Config::default();
    config.n_threads = Some(threads.max(2));
    config.clone_fd = true;
    let session = fuser::Session::from_fd(fs, OwnedFd::from(device), SessionACL::All, config)?;
    std::thread::Builder::new()
        .name("mount".into())
        .spawn(move || session.run())
}

/// Raises the read-ahead; without it the mount is slower, not wrong.
fn set_read_ahead(mountpoint: &Path) {
    let set = || {
        let dev = fs::metadata(mountpoint)?.dev();
        let (major, minor) = (libc::major(dev), libc::minor(dev));
        let knob = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        fs::write(knob, READ_AHEAD_KIB.to_string())
    };
    if let Err(err) = set() {
        tracing::warn!(%err, "the read-ahead of the mount stays at the kernel's 128 KiB");
    }
}

/// Notifies the kernel, by a way of its own into the connection.
///
/// If the daemon is killed while a notification waits for the lock of a directory, what keeps this
/// way open is that very notification. On a way of its own it keeps no request from failing: those
/// being answered fail with the ways that they came by, and with them goes the lock.
#[derive(Debug)]
pub(crate) struct Notifier(File);

impl Notifier {
    fn new(connected: &File) -> io::Result<Self> {
        let device = open_device()?;
        sys::clone_device(&device, connected)?;
        Ok(Self(device))
    }

    /// Sends `struct fuse_out_header`, with the kind where the error would be, and what follows it.
    fn send(&self, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
        /// Bytes of `struct fuse_out_header`.
        const HEADER_LEN: usize = 16;
        let len = HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut message = Vec::with_capacity(len);
        let len = u32::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        message.extend_from_slice(&ne(len));
        message.extend_from_slice(&ne(kind));
        message.extend_from_slice(&[0; 8]);
        for part in parts {
            message.extend_from_slice(part);
        }
        match (&self.0).write(&message) {
            // The kernel does not know it.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            sent => sent.map(drop),
        }
    }
}

#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel on this side of the device"
)]
fn ne(value: u32) -> [u8; 4] {
    value.to_ne_bytes()
}

#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel on this side of the device"
)]
fn ne64(value: u64) -> [u8; 8] {
    value.to_ne_bytes()
}

impl Kernel for Notifier {
    fn forget_entry(&self, dir: u64, name: &str) -> io::Result<()> {
        /// `FUSE_NOTIFY_INVAL_ENTRY`.
        const KIND: u32 = 3;
        let len = u32::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.send(KIND, &[&ne64(dir), &ne(len), &ne(0), name.as_bytes(), &[0]])
    }

    fn forget_attributes(&self, ino: u64) -> io::Result<()> {
        /// `FUSE_NOTIFY_INVAL_INODE`.
        const KIND: u32 = 2;
        // An offset of -1 leaves the pages alone.
        self.send(KIND, &[&ne64(ino), &ne64(u64::MAX), &ne64(0)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_in_the_table_under_what_is_on_top() {
        let table = "\
36 35 8:1 / /mnt rw,noatime shared:1 - ext4 /dev/sda1 rw
37 36 0:45 / /mnt/a rw - fuse.forebay forebay rw,user_id=0
38 36 0:46 / /mnt/b rw master:1 - fuse.forebay forebay rw
39 38 0:47 / /mnt/b rw - tmpfs tmpfs rw
";
        assert_eq!(topmost(table, "/mnt/a"), Some(45));
        assert_eq!(topmost(table, "/mnt/b"), None);
        assert_eq!(topmost(table, "/mnt"), None);
    }
}

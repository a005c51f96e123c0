//! The disk, as far as the store changes it.
//!
//! All writes, syncs, renames and removals of data files go through [`Disk`], so that a test can
//! own them: stop at the n-th sync, fail the n-th write, keep what was synced apart from what was
//! written. Files are real files all the same: they are mapped, and handed to the kernel.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::crc64;
use crate::sys;

/// A data file that is open for reading and writing.
#[derive(Debug)]
pub struct DiskFile {
    /// The file.
    pub file: File,
    /// Where it was made or opened.
    pub path: PathBuf,
}

/// What the store does to the disk. The errors are the system's own.
#[expect(
    clippy::missing_errors_doc,
    reason = "every method gives the error of the system call"
)]
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a directory, mode 0700; an existing one is no error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file that must not exist, mode 0600.
    fn create(&self, path: &Path) -> io::Result<Arc<DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<DiskFile>>;
    /// Writes all of `bufs` at `offset`.
    fn write_at(&self, file: &DiskFile, bufs: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Allocates the first `len` bytes of a file, and makes it that long.
    fn allocate(&self, file: &DiskFile, len: u64) -> io::Result<()>;
    /// Cuts or extends a file.
    fn set_len(&self, file: &DiskFile, len: u64) -> io::Result<()>;
    /// Copies bytes between files within the kernel, sharing them where the file system can.
    fn copy(
        &self,
        from: &File,
        from_offset: u64,
        to: &DiskFile,
        to_offset: u64,
        len: u64,
    ) -> io::Result<()>;
    /// Sets the extended attribute that says what a data file holds.
    fn set_label(&self, file: &DiskFile, label: &[u8]) -> io::Result<()>;
    /// `fdatasync(2)`. After an error the file's state is unknown: it must not be called again.
    fn sync_data(&self, file: &DiskFile) -> io::Result<()>;
    /// `fsync(2)` of a file, its label included. As for [`sync_data`](Self::sync_data).
    fn sync_all(&self, file: &DiskFile) -> io::Result<()>;
    /// `fsync(2)` of a directory: what was made in, renamed to or removed from it.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a file within its file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes of the file system under `path`, and bytes and inodes left on it.
    fn space(&self, path: &Path) -> io::Result<(u64, u64, u64)>;
    /// A number of the machine's start and of a directory: as long as it is the same, what was
    /// written below the directory is there to be read, synced or not. `None` if it is not known.
    fn boot_id(&self, path: &Path) -> Option<u64>;
    /// The `SQLite` VFS to open the index with; `None` for the default.
    fn vfs(&self) -> Option<&str>;
}

/// Extended attribute of a data file: what it holds, as a segment record's head says it.
pub const LABEL: &std::ffi::CStr = c"user.forebay";

/// The machine's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            done => done,
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        Ok(Arc::new(DiskFile {
            file,
            path: path.to_owned(),
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        Ok(Arc::new(DiskFile {
            file,
            path: path.to_owned(),
        }))
    }

    fn write_at(&self, file: &DiskFile, bufs: &[&[u8]], mut offset: u64) -> io::Result<()> {
        // One buffer is the common case of large bodies; several are a record's head and data.
        if let [buf] = bufs {
            return file.file.write_all_at(buf, offset);
        }
        let mut slices: Vec<IoSlice<'_>> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let batch = &left[..left.len().min(sys::IOV_MAX)];
            let written = sys::pwritev(file.file.as_raw_fd(), batch, offset)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    fn allocate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        sys::fallocate(file.file.as_raw_fd(), len)
    }

    fn set_len(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        file.file.set_len(len)
    }

    fn copy(
        &self,
        from: &File,
        from_offset: u64,
        to: &DiskFile,
        to_offset: u64,
        len: u64,
    ) -> io::Result<()> {
        sys::copy_file_range(
            from.as_raw_fd(),
            from_offset,
            to.file.as_raw_fd(),
            to_offset,
            len,
        )
    }

    fn set_label(&self, file: &DiskFile, label: &[u8]) -> io::Result<()> {
        sys::fsetxattr(file.file.as_raw_fd(), LABEL, label)
    }

    fn sync_data(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_data()
    }

    fn sync_all(&self, file: &DiskFile) -> io::Result<()> {
        file.file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place; callers sync the directory"
    )]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64, u64)> {
        sys::statvfs(path)
    }

    fn boot_id(&self, path: &Path) -> Option<u64> {
        // `random(4)`: made anew at each start of the kernel.
        let mut id = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        // A snapshot or a copy lacks what was not synced when it was made.
        let metadata = fs::metadata(path).ok()?;
        id.extend(metadata.dev().to_le_bytes());
        id.extend(metadata.ino().to_le_bytes());
        Some(crc64(&id))
    }

    fn vfs(&self) -> Option<&str> {
        None
    }
}

/// Where the store takes random bytes from.
pub trait Rng: fmt::Debug + Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The system's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system gives random bytes once it has booted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_buffers_are_written_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f")).unwrap();
        let pieces: Vec<Vec<u8>> = (0..3000u32)
            .map(|n| vec![(n % 251) as u8; (n % 7) as usize])
            .collect();
        let bufs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        RealDisk.write_at(&file, &bufs, 5).unwrap();
        let written = fs::read(dir.path().join("f")).unwrap();
        assert_eq!(&written[..5], &[0; 5]);
        assert_eq!(&written[5..], pieces.concat());
    }

    #[test]
    fn copies_arrive_where_they_should() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let (from, to) = (
            RealDisk.create(&from).unwrap(),
            RealDisk.create(&to).unwrap(),
        );
        RealDisk.write_at(&from, &[b"hello world"], 0).unwrap();
        RealDisk.copy(&from.file, 6, &to, 2, 5).unwrap();
        assert_eq!(fs::read(&to.path).unwrap(), b"\0\0world");
    }
}

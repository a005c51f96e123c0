//! Reading what is open, symbolic links, and copying within the mount.

use bytes::Bytes;

use crate::errno::Errno;
use crate::open::Source;
use crate::sys;
use crate::view::View;

impl View {
    /// Up to `len` bytes of an open file; fewer only at its end.
    pub(crate) fn read(&self, fh: u64, offset: u64, len: u32) -> Result<Bytes, Errno> {
        let handle = self.handles.file(fh).ok_or(Errno(libc::EBADF))?;
        let ino = handle.file.ino;
        match handle.file.read_at(handle.said.as_ref(), offset, len) {
            Ok((bytes, status)) => {
                self.statuses.note(ino, status);
                Ok(bytes)
            }
            Err(errno) => {
                if errno == Errno(libc::ESTALE) {
                    // Who opens it again is to get the version that took its place.
                    self.recent.changed(Some(ino));
                }
                Err(errno)
            }
        }
    }

    /// Where a symbolic link leads.
    pub(crate) fn read_link(&self, ino: u64) -> Result<Bytes, Errno> {
        let _paths = self.paths();
        let (_, entry) = self.current(ino)?;
        Ok(self.files.open(&entry)?.read_at_blocking(0, entry.size)?)
    }

    /// `lseek` to data or to a hole. A published version has no holes.
    pub(crate) fn seek(&self, fh: u64, offset: i64, whence: i32) -> Result<i64, Errno> {
        let handle = self.handles.file(fh).ok_or(Errno(libc::EBADF))?;
        match handle.file.source() {
            Source::Staging(staging) => Ok(sys::seek(staging.file(), offset, whence)?),
            Source::Published(content) => {
                let size =
                    i64::try_from(content.entry().size).map_err(|_| Errno(libc::EOVERFLOW))?;
                match whence {
                    _ if offset < 0 || offset >= size => Err(Errno(libc::ENXIO)),
                    libc::SEEK_DATA => Ok(offset),
                    libc::SEEK_HOLE => Ok(size),
                    _ => Err(Errno(libc::EINVAL)),
                }
            }
            Source::Unknown => Err(Errno(libc::EBADF)),
        }
    }

    /// Copies from one open file to another in the kernel; the bytes copied.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where there is no file to copy from: the kernel then reads and writes.
    pub(crate) fn copy_range(
        &self,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
    ) -> Result<u32, Errno> {
        let source = self.handles.file(from.0).ok_or(Errno(libc::EBADF))?;
        let target = self
            .handles
            .file(to.0)
            .filter(|handle| handle.writable)
            .ok_or(Errno(libc::EBADF))?;
        let signed = |value: u64| i64::try_from(value).map_err(|_| Errno(libc::EFBIG));
        let (from_at, to_at) = (signed(from.1)?, signed(to.1)?);
        // A reply has 32 bits for the count.
        let len = usize::try_from(len.min(1 << 30)).expect("at most 1 GiB");
        let Source::Staging(target) = target.file.source() else {
            return Err(Errno(libc::EBADF));
        };
        let copied = match source.file.source() {
            Source::Staging(source) => {
                sys::copy_range(source.file(), from_at, target.file(), to_at, len)?
            }
            Source::Published(content) => {
                let file = content.file().ok_or(Errno(libc::EOPNOTSUPP))?;
                sys::copy_range(file, from_at, target.file(), to_at, len)?
            }
            Source::Unknown => return Err(Errno(libc::EBADF)),
        };
        Ok(u32::try_from(copied).expect("at most 1 GiB"))
    }
}

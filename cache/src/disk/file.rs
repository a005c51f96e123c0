//! Files of cached bytes that are open and mapped.
//!
//! A file is as long as what it is for from the start, sparse, and a block is written at its place
//! in it: one map is good for everything that the file will ever hold.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use forebay_store::map::Map;
use forebay_store::sys;
use lru::LruCache;

use super::dir::{Directory, FileKey};

/// Files held open and mapped.
const OPEN_FILES_MAX: usize = 512;

/// A file that is open and mapped.
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) map: Arc<Map>,
    /// The whole map, to be sliced.
    pub(super) bytes: Bytes,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The files that are open, the least recently used closed first.
#[derive(Debug)]
pub(super) struct OpenFiles {
    directory: Arc<Directory>,
    open: Mutex<LruCache<FileKey, Arc<OpenFile>>>,
}

impl OpenFiles {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        let capacity = NonZeroUsize::new(OPEN_FILES_MAX).expect("a limit is not zero");
        Self {
            directory,
            open: Mutex::new(LruCache::new(capacity)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<FileKey, Arc<OpenFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file, if it is open; never waits for the disk.
    pub(super) fn get(&self, key: FileKey) -> Option<Arc<OpenFile>> {
        self.lock().get(&key).cloned()
    }

    /// A file of `len` bytes, opened if it is not open; made if `make` says so.
    pub(super) fn open(&self, key: FileKey, len: u64, make: bool) -> io::Result<Arc<OpenFile>> {
        if let Some(open) = self.get(key) {
            return Ok(open);
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(make)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.directory.path(key))?;
        // A power cut may have lost the length. What is missing reads as zeros, and fails its CRC.
        if file.metadata()?.len() != len {
            file.set_len(len)?;
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = Arc::new(Map::new(&file, len)?);
        let open = Arc::new(OpenFile {
            file,
            bytes: Arc::clone(&map).into_bytes(),
            map,
        });
        // Closing a file may take long: not under the lock.
        let closed;
        let mut files = self.lock();
        if let Some(other) = files.get(&key) {
            return Ok(Arc::clone(other));
        }
        closed = files.push(key, Arc::clone(&open));
        drop(files);
        drop(closed);
        Ok(open)
    }

    /// Forgets a file, so that it is opened anew; who holds it may go on reading.
    pub(super) fn forget(&self, key: FileKey) {
        let closed = self.lock().pop(&key);
        drop(closed);
    }

    /// Gives the space of a range back. A file that is gone takes none.
    pub(super) fn punch(&self, key: FileKey, at: u64, len: u64) -> io::Result<()> {
        if let Some(open) = self.get(key) {
            return sys::punch_hole(open.file.as_raw_fd(), at, len);
        }
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.directory.path(key));
        match file {
            Ok(file) => sys::punch_hole(file.as_raw_fd(), at, len),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(err),
        }
    }

    /// Removes a file whose space was given back.
    pub(super) fn remove(&self, key: FileKey) {
        self.forget(key);
        let path = self.directory.path(key);
        match fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                // It is empty; the next start after a crash tries again.
                tracing::debug!(path = %path.display(), %err, "can't remove an empty cache file");
            }
            _ => {}
        }
    }
}

/// Writes all of `bufs` at `offset`.
pub(super) fn write_all_at(file: &File, bufs: &[Bytes], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let batch = &left[..left.len().min(sys::IOV_MAX)];
        let written = sys::pwritev(file.as_raw_fd(), batch, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += written as u64;
        IoSlice::advance_slices(&mut left, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_length_and_gives_back_its_space() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path()).unwrap();
        directory.prepare().unwrap();
        let directory = Arc::new(directory);
        let files = OpenFiles::new(Arc::clone(&directory));
        let key = FileKey::Object(1);
        assert!(files.open(key, 3 << 20, false).is_err());
        let open = files.open(key, 3 << 20, true).unwrap();
        let parts = [
            Bytes::from_static(b"abc"),
            Bytes::new(),
            Bytes::from(vec![7; 8189]),
        ];
        write_all_at(&open.file, &parts, 1 << 20).unwrap();
        assert_eq!(&open.bytes[1 << 20..(1 << 20) + 4], b"abc\x07");
        files.punch(key, 1 << 20, 8192).unwrap();
        let metadata = open.file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.blocks()), (3 << 20, 0));
        assert_eq!(open.bytes[1 << 20], 0);
        files.remove(key);
        assert!(files.get(key).is_none());
        files.punch(key, 0, 4096).unwrap();
    }
}

//! The cache's directory.
//!
//! ```text
//! forebay-cache                    one line, the format: "forebay-cache 1"
//! index.sqlite                     what is here; see index.rs
//! objects/01/000000000000013f.obj  one object of several blocks, sparse, each block at its place
//! segments/0000000001.seg          objects of one block; see segment.rs
//! admin.sock                       where who has the directory may listen; nothing of this crate
//! ```
//!
//! The directory may be removed at any time while nobody uses it. One process has it at a time: it
//! holds a lock on the directory itself (`flock(2)`) as long as anybody has bytes of it.
//!
//! # Invariants
//! 1. Nothing is ever removed from a directory that holds a name that is not of this list, so that
//!    a wrong option destroys nobody's files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use forebay_store::sys;

use super::error::{DiskError, IoContext};

/// The format's file; it names every version of it.
const FORMAT_FILE: &str = "forebay-cache";
/// What the format's file says.
const FORMAT: &str = "forebay-cache 1\n";
/// What it says when the index could not be written: begin anew.
const FORMAT_DAMAGED: &str = "forebay-cache damaged\n";
const OBJECTS: &str = "objects";
const SEGMENTS: &str = "segments";
/// What a program may listen on in the directory.
const ADMIN_SOCKET: &str = "admin.sock";
/// Made and removed when opening.
const PROBE: &str = "probe";
/// Directories of objects' files.
const OBJECT_DIRS: u64 = 256;
/// The index and what goes with it.
const INDEX_FILES: [&str; 4] = [
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
    "index.sqlite-journal",
];
/// What `stat(2)` counts in.
const STAT_BLOCK: u64 = 512;
/// What a new file system has in its root.
const LOST_AND_FOUND: &str = "lost+found";

/// A file of cached bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum FileKey {
    /// Of one object, by its number.
    Object(u64),
    /// A segment, by its number.
    Segment(u32),
}

/// The directory, locked.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    /// Keeps the directory locked.
    _lock: File,
}

/// What a directory was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Empty, or new.
    New,
    /// A cache of this format.
    Ours,
    /// A cache of another format, or a damaged one.
    Other,
}

impl Directory {
    /// Locks a directory, made if it is not there, and looks what it is. Nothing in it is changed.
    pub(super) fn open(root: &Path) -> Result<(Self, Found), DiskError> {
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(root)
            .io("make the directory", root)?;
        let root = fs::canonicalize(root).io("find", root)?;
        let lock = File::open(&root).io("open", &root)?;
        if !sys::try_lock(lock.as_raw_fd()).io("lock", &root)? {
            return Err(DiskError::Locked(root));
        }
        let directory = Self { root, _lock: lock };
        let found = directory.look()?;
        Ok((directory, found))
    }

    /// What the directory is.
    ///
    /// # Errors
    /// `Foreign` if anything in it is not the cache's.
    fn look(&self) -> Result<Found, DiskError> {
        let mut empty = true;
        for item in fs::read_dir(&self.root).io("read", &self.root)? {
            let item = item.io("read", &self.root)?;
            let kind = item.file_type().io("stat", &item.path())?;
            let name = item.file_name();
            let ours = match name.to_str() {
                Some(LOST_AND_FOUND) => continue,
                // Left behind by a process that was killed.
                Some(ADMIN_SOCKET) if kind.is_socket() => continue,
                Some(OBJECTS | SEGMENTS) => kind.is_dir(),
                Some(name) => kind.is_file() && is_ours(name),
                None => false,
            };
            if !ours {
                return Err(self.foreign(&name.to_string_lossy()));
            }
            empty = false;
        }
        if empty {
            return Ok(Found::New);
        }
        match fs::read(self.format_file()) {
            Ok(format) if format == FORMAT.as_bytes() => Ok(Found::Ours),
            Ok(_) => Ok(Found::Other),
            // The names are common ones; without the format's file they are not known to be ours.
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Err(self.foreign("files, but none that says that it is a cache"))
            }
            Err(err) => Err(err).io("read", &self.format_file()),
        }
    }

    fn foreign(&self, name: &str) -> DiskError {
        DiskError::Foreign {
            dir: self.root.clone(),
            name: name.to_owned(),
        }
    }

    fn format_file(&self) -> PathBuf {
        self.root.join(FORMAT_FILE)
    }

    /// Removes all cached files. [`prepare`](Self::prepare) makes the directory anew.
    pub(super) fn empty(&self) -> Result<(), DiskError> {
        // Until it is all gone, the next start must not take the rest for whole.
        self.mark_damaged()?;
        for name in INDEX_FILES.into_iter().chain([PROBE]) {
            let path = self.root.join(name);
            match fs::remove_file(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(err).io("remove", &path);
                }
                _ => {}
            }
        }
        for name in [OBJECTS, SEGMENTS] {
            let path = self.root.join(name);
            match fs::remove_dir_all(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(err).io("remove", &path);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes what a cache of this format has before anything is in it, as far as it is not there.
    pub(super) fn prepare(&self) -> Result<(), DiskError> {
        // First, so that what a crash leaves half made is known to be ours.
        if self.look()? != Found::Ours {
            self.write_format(FORMAT)?;
        }
        for dir in [OBJECTS, SEGMENTS] {
            make_dir(&self.root.join(dir))?;
        }
        for number in 0..OBJECT_DIRS {
            make_dir(&self.object_dir(number << 8))?;
        }
        self.probe()
    }

    /// Says that the next start is to begin anew.
    pub(super) fn mark_damaged(&self) -> Result<(), DiskError> {
        self.write_format(FORMAT_DAMAGED)
    }

    fn write_format(&self, format: &str) -> Result<(), DiskError> {
        let path = self.format_file();
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)?;
            file.write_all(format.as_bytes())?;
            file.sync_all()
        };
        write().io("write", &path)
    }

    /// Checks that space within a file can be given back, which evicting does.
    fn probe(&self) -> Result<(), DiskError> {
        let path = self.root.join(PROBE);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .io("make", &path)?;
        file.set_len(2 << 20).io("extend", &path)?;
        let punched = sys::punch_hole(file.as_raw_fd(), 0, 1 << 20);
        fs::remove_file(&path).io("remove", &path)?;
        match punched {
            Err(err) if err.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Err(DiskError::Unsupported {
                    dir: self.root.clone(),
                    missing: "it can't give back space within a file (fallocate punch hole)",
                })
            }
            done => done.io("punch a hole in", &path),
        }
    }

    /// The directory itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    /// Bytes that the index's files take on the disk.
    pub(super) fn index_bytes(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for name in INDEX_FILES {
            match fs::symlink_metadata(self.root.join(name)) {
                Ok(found) => bytes += found.blocks() * STAT_BLOCK,
                // They come and go.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        Ok(bytes)
    }

    fn object_dir(&self, number: u64) -> PathBuf {
        let byte = number >> 8 & 0xff;
        self.root.join(OBJECTS).join(format!("{byte:02x}"))
    }

    /// Where a file is.
    pub(super) fn path(&self, key: FileKey) -> PathBuf {
        match key {
            FileKey::Object(number) => self.object_dir(number).join(format!("{number:016x}.obj")),
            FileKey::Segment(number) => self.root.join(SEGMENTS).join(format!("{number:010}.seg")),
        }
    }

    /// Every file there is, with the key that its name gives; `None` for a name that is not ours.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, Option<FileKey>)>, DiskError> {
        let mut files = Vec::new();
        let dirs = (0..OBJECT_DIRS)
            .map(|byte| self.object_dir(byte << 8))
            .chain([self.root.join(SEGMENTS)]);
        for dir in dirs {
            for item in fs::read_dir(&dir).io("read", &dir)? {
                let path = item.io("read", &dir)?.path();
                let key = path.file_name().and_then(|name| parse(name.to_str()?));
                // A right name in a wrong place is not ours either.
                let key = key.filter(|key| self.path(*key) == path);
                files.push((path, key));
            }
        }
        Ok(files)
    }
}

/// Whether a file of this name is the cache's.
fn is_ours(name: &str) -> bool {
    name == FORMAT_FILE || name == PROBE || INDEX_FILES.contains(&name)
}

fn make_dir(path: &Path) -> Result<(), DiskError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.io("make the directory", path),
    }
}

/// The key that a file's name gives.
fn parse(name: &str) -> Option<FileKey> {
    if let Some(number) = name.strip_suffix(".seg") {
        return Some(FileKey::Segment(number.parse().ok()?));
    }
    let number = u64::from_str_radix(name.strip_suffix(".obj")?, 16).ok()?;
    Some(FileKey::Object(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_back_the_key_it_was_made_of() {
        let root = tempfile::tempdir().unwrap();
        let (directory, found) = Directory::open(root.path()).unwrap();
        assert_eq!(found, Found::New);
        directory.prepare().unwrap();
        for key in [
            FileKey::Object(0x13f),
            FileKey::Object(u64::MAX),
            FileKey::Segment(7),
        ] {
            fs::write(directory.path(key), "x").unwrap();
        }
        let stray = directory.root().join("segments/0000000000000001.obj");
        fs::write(&stray, "x").unwrap();
        let keys = directory.files().unwrap();
        assert_eq!(keys.len(), 4);
        assert!(keys.contains(&(stray, None)));
        assert!(keys.contains(&(
            directory.path(FileKey::Segment(7)),
            Some(FileKey::Segment(7))
        )));
    }

    #[test]
    fn what_is_not_a_cache_is_refused_and_left_as_it_is() {
        for name in ["letter.txt", "index.sqlite", ".hidden"] {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(name), "dear").unwrap();
            let err = Directory::open(root.path()).unwrap_err();
            assert!(matches!(err, DiskError::Foreign { .. }), "{err}");
            assert_eq!(fs::read(root.path().join(name)).unwrap(), b"dear");
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_cache_with_something_foreign_in_it_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path()).unwrap();
        directory.prepare().unwrap();
        drop(directory);
        fs::create_dir(root.path().join("thesis")).unwrap();
        let err = Directory::open(root.path()).unwrap_err();
        assert!(err.to_string().contains("thesis"), "{err}");
    }

    #[test]
    fn the_root_of_a_new_file_system_will_do() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(LOST_AND_FOUND)).unwrap();
        let (directory, found) = Directory::open(root.path()).unwrap();
        assert_eq!(found, Found::New);
        directory.prepare().unwrap();
        directory.empty().unwrap();
        assert!(root.path().join(LOST_AND_FOUND).is_dir());
    }

    #[test]
    fn two_do_not_get_the_same_directory() {
        let root = tempfile::tempdir().unwrap();
        let (first, _) = Directory::open(root.path()).unwrap();
        let err = Directory::open(root.path()).unwrap_err();
        assert!(matches!(err, DiskError::Locked(_)), "{err}");
        drop(first);
        Directory::open(root.path()).unwrap();
    }
}

//! What all open handles of one inode share: its bytes, its staging file, its way of being open.
//!
//! An inode has one staging file however many handles write to it, and its readers read that while
//! there is one. When the last writable handle goes, [`crate::write`] publishes it.
//!
//! # Invariants
//! 1. `source` is the staging file exactly while there is one.
//! 2. `mode` counts exactly the handles that the kernel was told of and has not released.
//!
//! Locks are taken in this order: the namespace, the states of files by inode number, the tree,
//! `source`. None is held while the kernel is called.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use forebay_store::entry::{BucketId, Entry};
use forebay_store::name::ObjectKey;
use forebay_store::stage::StagingFile;
use forebay_store::time::Timestamp;
use forebay_store::{CacheStatus, Content};

use crate::errno::Errno;
use crate::passthrough::Mode;
use crate::session::Backing;
use crate::sys;

/// Where an inode's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Nowhere yet: the first open says.
    Unknown,
    /// In a published version.
    Published(Content),
    /// In a file that may still change.
    Staging(Arc<StagingFile>),
}

/// A file that the kernel reads and writes by itself, held until the last handle that does is
/// released.
#[derive(Debug)]
pub(crate) struct Through {
    pub(crate) backing: Backing,
    /// A staging file is used again, from empty, when it is let go of.
    _source: Source,
}

impl Through {
    pub(crate) fn new(backing: Backing, source: Source) -> Self {
        Self {
            backing,
            _source: source,
        }
    }
}

/// The state shared by the open handles of an inode.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) ino: u64,
    state: Mutex<State>,
    source: RwLock<Source>,
    staged: AtomicBool,
}

/// What opening, closing and publishing go by.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) mode: Mode,
    /// What the present opens go through to.
    pub(crate) through: Option<Arc<Through>>,
    /// Handles.
    pub(crate) opens: u32,
    /// Handles that may write.
    pub(crate) writers: u32,
    /// The version that was opened or published last.
    pub(crate) base: Option<Arc<Entry>>,
    pub(crate) staging: Option<Staging>,
    /// What S3 was told is being closed.
    pub(crate) closing: Option<(BucketId, ObjectKey)>,
    /// The tree has let go of it: look the inode's state up again.
    pub(crate) dead: bool,
}

/// A staging file and what it was like when it was last known to hold nothing new.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) file: Arc<StagingFile>,
    /// Something changed for certain.
    changed: bool,
    seen: Seen,
}

/// What shows that a file was written to, also by those who pass the daemon by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
}

impl Seen {
    fn of(file: &File) -> io::Result<Self> {
        let stat = file.metadata()?;
        let nanos = u32::try_from(stat.mtime_nsec()).unwrap_or(0);
        Ok(Self {
            size: stat.len(),
            mtime: Timestamp::from_parts(stat.mtime(), nanos),
        })
    }
}

impl Staging {
    /// A new file without content, or with what an object had that was last changed at `mtime`.
    pub(crate) fn new(file: StagingFile, mtime: Option<Timestamp>) -> io::Result<Self> {
        if let Some(at) = mtime {
            // So that the next write can be told by its time.
            sys::set_mtime(file.file(), at)?;
        }
        let seen = Seen::of(file.file())?;
        Ok(Self {
            file: Arc::new(file),
            changed: mtime.is_none(),
            seen,
        })
    }

    /// Size and time of last change as they are now.
    pub(crate) fn now(&self) -> io::Result<Seen> {
        Seen::of(self.file.file())
    }

    /// Whether it was written to since it was last published or made.
    pub(crate) fn is_changed(&self) -> io::Result<bool> {
        Ok(self.changed || self.now()? != self.seen)
    }

    pub(crate) fn set_mtime(&mut self, at: Timestamp) -> io::Result<()> {
        self.changed = self.is_changed()?;
        sys::set_mtime(self.file.file(), at)?;
        self.seen = self.now()?;
        Ok(())
    }

    pub(crate) fn set_len(&mut self, size: u64) -> io::Result<()> {
        self.changed = true;
        self.file.file().set_len(size)
    }

    /// Notes that everything up to `seen` has been published.
    pub(crate) fn published(&mut self, seen: Seen) {
        self.changed = false;
        self.seen = seen;
    }
}

impl OpenFile {
    pub(crate) fn new(ino: u64) -> Self {
        Self {
            ino,
            state: Mutex::default(),
            source: RwLock::new(Source::Unknown),
            staged: AtomicBool::new(false),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic left half done shows as a count that is too high: the file stays open.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn source(&self) -> Source {
        self.source
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says where the bytes are from now on.
    pub(crate) fn set_source(&self, source: Source) {
        self.staged
            .store(matches!(source, Source::Staging(_)), Ordering::Release);
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// Whether it has a staging file, so that what the store says of its size and times is old.
    pub(crate) fn is_staged(&self) -> bool {
        self.staged.load(Ordering::Acquire)
    }

    /// Size and time of last change while there is a staging file.
    pub(crate) fn staged_now(&self) -> io::Result<Option<Seen>> {
        match self.source() {
            Source::Staging(staging) => Seen::of(staging.file()).map(Some),
            Source::Unknown | Source::Published(_) => Ok(None),
        }
    }

    /// Up to `len` bytes from `offset`; `said` are the published bytes for a reader who said
    /// something of the cache. Gives also what is known of what reads found in the cache.
    pub(crate) fn read_at(
        &self,
        said: Option<&Content>,
        offset: u64,
        len: u32,
    ) -> Result<(Bytes, Option<CacheStatus>), Errno> {
        match self.source() {
            Source::Published(content) => {
                let content = said.unwrap_or(&content);
                let bytes = content.read_at_blocking(offset, len.into())?;
                Ok((bytes, content.status()))
            }
            Source::Staging(staging) => Ok((read_at(staging.file(), offset, len)?, None)),
            Source::Unknown => Err(Errno(libc::EBADF)),
        }
    }
}

/// Reads until `len` bytes are there or the file ends.
fn read_at(file: &File, offset: u64, len: u32) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; usize::try_from(len).expect("32 bits fit")];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

//! What can go wrong with the cache's directory.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process, or another [`Disk`](super::Disk) of this one, has it.
    #[error("{}: another process uses this cache", .0.display())]
    Locked(PathBuf),
    /// It holds something that is not the cache's, which emptying it would destroy.
    #[error(
        "{}: not a cache: it holds {name:?}; give an empty directory or a new one",
        dir.display()
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// One name in it.
        name: String,
    },
    /// The file system can't do something that is needed.
    #[error("{}: this file system can't be used: {missing}", dir.display())]
    Unsupported {
        /// The directory.
        dir: PathBuf,
        /// What it can't do.
        missing: &'static str,
    },
    /// A system call failed.
    #[error("can't {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index failed.
    #[error("the cache's index: can't {action}")]
    Index {
        /// What was tried.
        action: &'static str,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// The index says what can't be.
    #[error("the cache's index is damaged: {0}")]
    Damaged(String),
    /// The cache was closed.
    #[error("the cache is closed")]
    Closed,
}

impl DiskError {
    /// Whether the index itself is wrong, and will not get better.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Index { source, .. } => !matches!(
                source.sqlite_error_code(),
                // The disk's faults, which pass.
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::ReadOnly
                        | ErrorCode::CannotOpen
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::OutOfMemory
                        | ErrorCode::PermissionDenied
                )
            ),
            _ => false,
        }
    }
}

/// Adds what was tried, and with what, to an [`io::Error`].
pub(super) trait IoContext<T> {
    fn io(self, action: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn io(self, action: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|source| DiskError::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

/// Adds what was tried to a [`rusqlite::Error`].
pub(super) trait IndexContext<T> {
    fn index(self, action: &'static str) -> Result<T, DiskError>;
}

impl<T> IndexContext<T> for rusqlite::Result<T> {
    fn index(self, action: &'static str) -> Result<T, DiskError> {
        self.map_err(|source| DiskError::Index { action, source })
    }
}

/// Why a block can't be read, though it was there. It is not any more: fetch it again.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Its bytes are not those that were put.
    #[error("a cached block is corrupt")]
    Corrupt,
    /// The disk failed, or somebody took the file away.
    #[error("a cached block can't be read")]
    Io(#[source] io::Error),
}

/// Why a block was not kept. The bytes are good all the same.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// What could go is too little.
    #[error("no room in the cache: {needed} bytes more than {limit} would be needed")]
    NoRoom {
        /// Bytes that are missing.
        needed: u64,
        /// Bytes that there may be.
        limit: u64,
    },
    /// What is pinned leaves no room.
    #[error("no room in the cache: {pinned} of {limit} bytes are pinned")]
    Pinned {
        /// Bytes that are pinned.
        pinned: u64,
        /// Bytes that there may be.
        limit: u64,
    },
    /// Somebody writes the same block, or reads the one that is to be replaced.
    #[error("the block's place in the cache is in use")]
    Busy,
    /// The disk failed several times; it is tried again from time to time.
    #[error("the cache's disk is degraded: {0}")]
    Degraded(String),
    /// The disk failed.
    #[error("can't write to the cache")]
    Io(#[source] io::Error),
    /// These are not as many bytes as the block has.
    #[error("a block of {expected} bytes was given {found}")]
    Length {
        /// Bytes of the block.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// Objects of this size are not kept.
    #[error("an object of {size} bytes is too large for the cache: at most {max}")]
    TooLarge {
        /// Bytes of the object.
        size: u64,
        /// Bytes that one may have.
        max: u64,
    },
    /// The object has no such block.
    #[error("the object has no block {0}")]
    NoSuchBlock(u64),
    /// The cache was opened a moment ago after a crash and still counts what it has, or it was
    /// closed.
    #[error("the cache is not open for writing")]
    NotReady,
}

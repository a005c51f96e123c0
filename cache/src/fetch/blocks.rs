//! What fetching needs of the disk, so that tests can put one in its place that forgets blocks,
//! refuses and corrupts them when they say so.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{BlockError, CompleteFile, Disk, Object, PutError};
use crate::version::{BLOCK_SIZE, Version};

/// Where blocks are kept.
pub(crate) trait Blocks: fmt::Debug + Send + Sync + 'static {
    /// What is kept of one version; cheap, no input or output.
    fn object(&self, version: &Arc<Version>) -> Arc<dyn ObjectBlocks>;

    /// Writes down what a restart would otherwise lose. Nothing is kept after this.
    fn close_blocking(&self);
}

/// A block, as far as can be said without blocking.
#[derive(Debug)]
pub(crate) enum Probe {
    /// In memory and verified: its bytes.
    Ready(Bytes),
    /// On the disk: to be loaded.
    Cold,
    /// Not here.
    Missing,
}

/// What loading a block came to.
#[derive(Debug)]
pub(crate) enum Load {
    /// Its bytes, verified.
    Loaded(Bytes),
    /// It is not here any more.
    Missing,
    /// Its bytes were not those that were kept; it has been dropped.
    Corrupt,
    /// The disk did not give it.
    Failed,
}

/// Why a block was not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotKept {
    /// There is no room, and none can be made.
    #[error("{0}")]
    NoRoom(String),
    /// The disk fails; it says so in the log by itself.
    #[error("{0}")]
    Failed(String),
    /// What was there before is still being read.
    #[error("{0}")]
    InUse(String),
}

/// What is kept of one version.
pub(crate) trait ObjectBlocks: fmt::Debug + Send + Sync + 'static {
    /// Whether a block is here. Never blocks: it is asked under a lock.
    fn has(&self, block: u64) -> bool;

    /// How many blocks are here.
    fn present(&self) -> u64;

    /// A block without blocking.
    fn probe(&self, block: u64) -> Probe;

    /// A block, read in and verified.
    fn load_blocking(&self, block: u64) -> Load;

    /// Keeps a block: the pieces are its bytes in order.
    ///
    /// # Errors
    /// The disk is full or broken; nothing is kept then.
    fn put_blocking(&self, block: u64, pieces: &[Bytes]) -> Result<(), NotKept>;

    /// Whether it is held against eviction.
    fn pinned(&self) -> bool;

    /// Whether all of it is here and known to be right.
    fn verified(&self) -> bool {
        false
    }

    /// All of it as one file, if it is kept so; what is not known to be right is read first.
    fn complete_file_blocking(&self) -> Option<CompleteFile> {
        None
    }

    /// Holds what is here against eviction, or lets it go.
    fn pin(&self, pinned: bool);

    /// Gives back what is here, but for what is pinned or being read.
    fn discard_blocking(&self) {}
}

/// Bytes that are here.
pub(crate) fn present_bytes(version: &Version, object: &dyn ObjectBlocks) -> u64 {
    let present = object.present();
    if present == 0 {
        return 0;
    }
    let last = version.blocks() - 1;
    let range = version.block_range(last);
    let shortfall = if object.has(last) {
        BLOCK_SIZE - (range.end - range.start)
    } else {
        0
    };
    present * BLOCK_SIZE - shortfall
}

impl Blocks for Disk {
    fn object(&self, version: &Arc<Version>) -> Arc<dyn ObjectBlocks> {
        Disk::object(self, version)
    }

    fn close_blocking(&self) {
        Disk::close_blocking(self);
    }
}

impl ObjectBlocks for Object {
    fn has(&self, block: u64) -> bool {
        Object::has(self, block)
    }

    fn present(&self) -> u64 {
        Object::present(self)
    }

    fn probe(&self, block: u64) -> Probe {
        match self.get(block) {
            None => Probe::Missing,
            Some(block) => block.ready().map_or(Probe::Cold, Probe::Ready),
        }
    }

    fn load_blocking(&self, block: u64) -> Load {
        let Some(found) = self.get(block) else {
            return Load::Missing;
        };
        match found.load_blocking() {
            Ok(bytes) => Load::Loaded(bytes),
            Err(BlockError::Corrupt) => Load::Corrupt,
            Err(err @ BlockError::Io(_)) => {
                tracing::debug!(err = &err as &dyn std::error::Error, block, "{err}");
                Load::Failed
            }
        }
    }

    fn put_blocking(&self, block: u64, pieces: &[Bytes]) -> Result<(), NotKept> {
        Object::put_blocking(self, block, pieces).map_err(|err| match &err {
            PutError::NoRoom { .. } | PutError::Pinned { .. } => NotKept::NoRoom(err.to_string()),
            PutError::Busy => NotKept::InUse(err.to_string()),
            PutError::Io(source) => NotKept::Failed(format!("{err}: {source}")),
            _ => NotKept::Failed(err.to_string()),
        })
    }

    fn pinned(&self) -> bool {
        Object::pinned(self)
    }

    fn verified(&self) -> bool {
        Object::verified(self)
    }

    fn complete_file_blocking(&self) -> Option<CompleteFile> {
        match self.complete_file() {
            Ok(file) => file,
            Err(err) => {
                let key = &self.version().key;
                tracing::warn!(%key, %err, "a cached object is not what was kept; what is wrong is fetched anew");
                None
            }
        }
    }

    fn pin(&self, pinned: bool) {
        Object::pin(self, pinned);
    }

    fn discard_blocking(&self) {
        Object::discard_blocking(self);
    }
}

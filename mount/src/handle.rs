//! Open files and directories, by the number the kernel gives back with each call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use forebay_store::Content;

use crate::dir::Stream;
use crate::open::{OpenFile, Through};

/// One `open(2)`.
#[derive(Debug)]
pub(crate) struct FileHandle {
    pub(crate) file: Arc<OpenFile>,
    /// The published bytes for a reader who said something of the cache.
    pub(crate) said: Option<Content>,
    pub(crate) writable: bool,
    /// Whether each write is to be durable (`O_SYNC`, `O_DSYNC`).
    pub(crate) sync: bool,
    /// What it goes through to: held only so that the kernel does not lose it before the release.
    pub(crate) _through: Option<Arc<Through>>,
}

/// What a number stands for.
#[derive(Clone, Debug)]
pub(crate) enum Handle {
    File(Arc<FileHandle>),
    Directory(Arc<Mutex<Stream>>),
}

/// All open handles.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Handle>>,
}

impl Handles {
    /// Keeps a handle; its number is never used twice.
    pub(crate) fn insert(&self, handle: Handle) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(fh, handle);
        fh
    }

    pub(crate) fn remove(&self, fh: u64) -> Option<Handle> {
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&fh)
    }

    pub(crate) fn file(&self, fh: u64) -> Option<Arc<FileHandle>> {
        match self
            .open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&fh)?
        {
            Handle::File(file) => Some(Arc::clone(file)),
            Handle::Directory(_) => None,
        }
    }

    pub(crate) fn directory(&self, fh: u64) -> Option<Arc<Mutex<Stream>>> {
        match self
            .open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&fh)?
        {
            Handle::Directory(stream) => Some(Arc::clone(stream)),
            Handle::File(_) => None,
        }
    }
}

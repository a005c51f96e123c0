//! Where the bytes of a remote origin's objects are read.

use std::fmt;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::TryStreamExt as _;
use lru::LruCache;

use crate::cache::Cache;
use crate::directive::Directive;
use crate::disk::CompleteFile;
use crate::fetch::ReadError;
use crate::source::{Chunks, FetchError, Source};
use crate::version::Version;

/// A file whose bytes are exactly a version's. They stay while this is held.
pub trait WholeFile: fmt::Debug + Send + Sync + 'static {
    /// The file, which must never be written to.
    fn file(&self) -> &File;
}

/// Reads bytes of versions, from a cache or past it.
pub trait Reader: fmt::Debug + Send + Sync + 'static {
    /// The bytes of a range that is not empty, or an error.
    fn read(&self, version: &Arc<Version>, directive: Directive, range: Range<u64>) -> Chunks;

    /// A local file with all of the bytes, if there is one. Blocks.
    fn whole_file(&self, version: &Arc<Version>) -> Option<Box<dyn WholeFile>>;
}

/// Largest version that is checked while somebody waits for its file, in bytes.
const CHECKED_SIZE_MAX: u64 = 64 << 20;
/// Versions that are remembered to have been checked, or to be so at the moment.
const CHECKED_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Reads from the cache, and from the origin what is not there.
#[derive(Debug)]
pub struct Cached {
    cache: Cache,
    source: Arc<dyn Source>,
    runtime: tokio::runtime::Handle,
    checked: Mutex<LruCache<Arc<Version>, ()>>,
}

impl Cached {
    /// A reader of `cache` on behalf of whoever `source` speaks for.
    pub fn new(cache: Cache, source: Arc<dyn Source>, runtime: tokio::runtime::Handle) -> Self {
        Self {
            cache,
            source,
            runtime,
            checked: Mutex::new(LruCache::new(CHECKED_MAX)),
        }
    }

    /// Has a large version checked meanwhile, once.
    fn check_soon(&self, version: &Arc<Version>) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.put(Arc::clone(version), ()).is_none() {
            let (cache, version) = (self.cache.clone(), Arc::clone(version));
            self.runtime
                .spawn_blocking(move || drop(cache.complete_file_blocking(&version)));
        }
    }
}

impl Reader for Cached {
    fn read(&self, version: &Arc<Version>, directive: Directive, range: Range<u64>) -> Chunks {
        let source = Arc::clone(&self.source);
        let read = self.cache.read(version, source, directive, range);
        Box::pin(read.map_err(|err| match err {
            ReadError::Changed => FetchError::Changed,
            ReadError::Denied(why) => FetchError::Denied(why),
            ReadError::Unavailable(why) => FetchError::Unavailable(why),
            ReadError::Corrupt(why) => FetchError::Corrupt(why),
        }))
    }

    fn whole_file(&self, version: &Arc<Version>) -> Option<Box<dyn WholeFile>> {
        if self.cache.present(version) < version.size {
            return None;
        }
        if version.size > CHECKED_SIZE_MAX && !self.cache.verified(version) {
            // Until then it is read block by block.
            self.check_soon(version);
            return None;
        }
        let file = self.cache.complete_file_blocking(version)?;
        Some(Box::new(file))
    }
}

impl WholeFile for CompleteFile {
    fn file(&self) -> &File {
        self
    }
}

/// Reads from the origin and keeps nothing.
#[derive(Debug)]
pub struct Uncached(pub Arc<dyn Source>);

impl Reader for Uncached {
    fn read(&self, version: &Arc<Version>, _: Directive, range: Range<u64>) -> Chunks {
        Box::pin(futures_util::stream::once(self.0.fetch(version, range)).try_flatten())
    }

    fn whole_file(&self, _: &Arc<Version>) -> Option<Box<dyn WholeFile>> {
        None
    }
}

//! Where the bytes of a remote origin's objects are read.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use forebay_store::CacheStatus;
use futures_util::TryStreamExt as _;

use crate::cache::Cache;
use crate::directive::Directive;
use crate::disk::CompleteFile;
use crate::fetch::ReadError;
use crate::source::{Chunks, FetchError, Source};
use crate::version::Version;
use crate::whole::WholeFiles;

/// A file whose bytes are exactly a version's. They stay while this is held.
pub trait WholeFile: fmt::Debug + Send + Sync + 'static {
    /// The file, which must never be written to.
    fn file(&self) -> &File;
}

/// A range that is being read.
pub struct Reading {
    /// Its bytes, or an error.
    pub chunks: Chunks,
    /// How much of it is in the cache.
    pub status: CacheStatus,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Reads bytes of versions, from a cache or past it.
pub trait Reader: fmt::Debug + Send + Sync + 'static {
    /// Reads a range that is not empty.
    fn read(&self, version: &Arc<Version>, directive: Directive, range: Range<u64>) -> Reading;

    /// Has all of a version brought into the cache some time soon, if there is one and it has room
    /// for it in its queue.
    fn prestage(&self, version: &Arc<Version>);

    /// A local file with all of the bytes, if there is one. Blocks.
    fn whole_file(&self, version: &Arc<Version>) -> Option<Box<dyn WholeFile>>;
}

/// Reads from the cache, and from the origin what is not there.
#[derive(Debug)]
pub struct Cached {
    cache: Cache,
    source: Arc<dyn Source>,
    whole: WholeFiles,
}

impl Cached {
    /// A reader of `cache` on behalf of whoever `source` speaks for.
    pub fn new(cache: Cache, source: Arc<dyn Source>, runtime: tokio::runtime::Handle) -> Self {
        Self {
            whole: WholeFiles::new(cache.clone(), runtime),
            cache,
            source,
        }
    }
}

impl Reader for Cached {
    fn read(&self, version: &Arc<Version>, directive: Directive, range: Range<u64>) -> Reading {
        let source = Arc::clone(&self.source);
        let read = self.cache.read(version, source, directive, range);
        let status = read.status().into();
        let chunks = Box::pin(read.map_err(|err| match err {
            ReadError::Changed => FetchError::Changed,
            ReadError::Denied(why) => FetchError::Denied(why),
            ReadError::Unavailable(why) => FetchError::Unavailable(why),
            ReadError::Corrupt(why) => FetchError::Corrupt(why),
        }));
        Reading { chunks, status }
    }

    fn prestage(&self, version: &Arc<Version>) {
        // What does not fit is counted, and read when it is asked for.
        let _queued: bool = self.cache.prestage(version, Arc::clone(&self.source));
    }

    fn whole_file(&self, version: &Arc<Version>) -> Option<Box<dyn WholeFile>> {
        let file = self.whole.file(version)?;
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
    fn read(&self, version: &Arc<Version>, _: Directive, range: Range<u64>) -> Reading {
        let fetched = futures_util::stream::once(self.0.fetch(version, range));
        Reading {
            chunks: Box::pin(fetched.try_flatten()),
            status: CacheStatus::Bypass,
        }
    }

    fn prestage(&self, _: &Arc<Version>) {}

    fn whole_file(&self, _: &Arc<Version>) -> Option<Box<dyn WholeFile>> {
        None
    }
}

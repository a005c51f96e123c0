//! What the faces call.

use std::ops::Range;
use std::sync::Arc;

use crate::directive::Directive;
use crate::disk::{CompleteFile, Disk};
use crate::fetch::{
    Blocks, Engine, FetchConfig, FillError, FillReport, Keep, Pinning, Read, Statistics,
    present_bytes,
};
use crate::source::Source;
use crate::version::Version;

/// The read cache.
///
/// Cloning it gives the same cache. Its tasks run on the runtime that it was made in; reads may be
/// polled on any.
#[derive(Clone, Debug)]
pub struct Cache {
    engine: Arc<Engine>,
}

impl Cache {
    /// A cache over a disk. Whoever wants to look at the disk besides keeps an `Arc` of his own.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(disk: Arc<Disk>, config: FetchConfig) -> Self {
        Self::over(disk, config)
    }

    /// A cache over blocks that are kept somewhere.
    pub(crate) fn over(blocks: Arc<dyn Blocks>, config: FetchConfig) -> Self {
        Self {
            engine: Engine::new(blocks, config),
        }
    }

    /// Reads a range of a version; `source` brings what is not here.
    ///
    /// Nothing is asked of the source before the read is polled. The caller has made sure that
    /// the reader may have these bytes.
    ///
    /// # Panics
    /// If the range does not lie in the object: callers check what clients ask for.
    pub fn read(
        &self,
        version: &Arc<Version>,
        source: Arc<dyn Source>,
        directive: Directive,
        range: Range<u64>,
    ) -> Read {
        assert!(
            range.start <= range.end && range.end <= version.size,
            "a range within the object"
        );
        let target = self.engine.target(version, source);
        Read::new(&self.engine, target, directive, range)
    }

    /// Has all of an object brought in some time soon. `false` if it won't be, because too many
    /// wait already; that is counted.
    pub fn prestage(&self, version: &Arc<Version>, source: Arc<dyn Source>) -> bool {
        self.engine.prestage(version, source)
    }

    /// Brings all of an object in, and pins it if `keep` says so.
    ///
    /// `progress` is called with the bytes of each block that is there, also of those that were
    /// there before; together they are the object's size. Dropping the future ends it.
    ///
    /// # Errors
    /// Not all of it is there; then it is pinned only if it was before. What came stays as any
    /// block does.
    pub async fn fill(
        &self,
        version: &Arc<Version>,
        source: Arc<dyn Source>,
        keep: Keep,
        progress: impl Fn(u64) + Sync,
    ) -> Result<FillReport, FillError> {
        let target = self.engine.target(version, source);
        // Before, so that it is not evicted while it comes.
        let pinning = Pinning::new(&*target.object, keep);
        let report = self.engine.fill(&target, &progress).await?;
        pinning.keep();
        Ok(report)
    }

    /// Bytes of a version that are here.
    pub fn present(&self, version: &Arc<Version>) -> u64 {
        present_bytes(version, &*self.engine.blocks.object(version))
    }

    /// Whether all of a version is here and known to be right.
    pub fn verified(&self, version: &Arc<Version>) -> bool {
        self.engine.blocks.object(version).verified()
    }

    /// All of a version as one file, if it is kept so. What is not known to be right is read first,
    /// which takes as long as the disk does. Blocks.
    pub fn complete_file_blocking(&self, version: &Arc<Version>) -> Option<CompleteFile> {
        self.engine.blocks.object(version).complete_file_blocking()
    }

    /// What is counted.
    pub fn statistics(&self) -> Statistics {
        self.engine.statistics()
    }

    /// Fetches nothing more into the cache, waits a short while for blocks at hand, and closes the
    /// disk. Reads that go on get their bytes from their sources.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

#[cfg(test)]
impl Cache {
    /// Objects and blocks in flight.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        self.engine.in_flight()
    }
}

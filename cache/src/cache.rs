//! What the faces call.

use std::ops::Range;
use std::sync::Arc;

use crate::directive::Directive;
use crate::disk::{CompleteFile, Disk};
use crate::fetch::{
    Blocks, Engine, FetchConfig, FillError, FillReport, HotPrefix, Keep, Pinning, Read, Statistics,
    Target, present_bytes,
};
use crate::peer::{Help, Peers};
use crate::source::Source;
use crate::version::Version;

/// The read cache.
///
/// Cloning it gives the same cache. Its tasks run on the runtime that it was made in; reads may be
/// polled on any.
#[derive(Clone, Debug)]
pub struct Cache {
    engine: Arc<Engine>,
    /// Nodes that are asked before the origin.
    peers: Option<Arc<Peers>>,
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
            peers: None,
        }
    }

    /// The same cache, which asks these for blocks that they are home to.
    #[must_use]
    pub fn with_peers(self, peers: Option<Arc<Peers>>) -> Self {
        Self { peers, ..self }
    }

    /// Who is asked before the origin.
    pub fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    /// What is read, with the peers' help.
    fn target(&self, version: &Arc<Version>, source: Arc<dyn Source>, fills: bool) -> Target {
        let target = self.engine.target(version, Arc::clone(&source));
        let Some(peers) = &self.peers else {
            return target;
        };
        let help = Help::new(peers, source, fills);
        Target {
            source: help.source(),
            help: Some(help),
            ..target
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
        let target = if directive.looks() {
            self.target(version, source, directive.fills())
        } else {
            // Nobody's cache is to hear of it.
            self.engine.target(version, source)
        };
        Read::new(&self.engine, target, directive, range)
    }

    /// Reads a range for a peer: no peer is asked for it, nor waited for.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub fn lend(
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
        let target = Target {
            lends: true,
            ..self.engine.target(version, source)
        };
        Read::new(&self.engine, target, directive, range)
    }

    /// Has all of an object brought in some time soon. `false` if it won't be, because too many
    /// wait already; that is counted.
    pub fn prestage(&self, version: &Arc<Version>, source: Arc<dyn Source>) -> bool {
        let target = self.target(version, source, true);
        self.engine.prestage(target)
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
        let target = self.target(version, source, true);
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

    /// Whether what is missing would be put here now; not while the disk takes nothing.
    pub fn fills(&self) -> bool {
        self.engine.fills() && !self.engine.is_closing()
    }

    /// Drops what is here of a version, but for what is pinned or being read. Blocks.
    pub fn discard_blocking(&self, version: &Arc<Version>) {
        self.engine.blocks.object(version).discard_blocking();
    }

    /// Whether all of a version is here and known to be right.
    pub fn verified(&self, version: &Arc<Version>) -> bool {
        self.engine.blocks.object(version).verified()
    }

    /// All of a version as one file, if it is kept so. What is not known to be right is read first,
    /// which takes as long as the disk does. Blocks.
    pub fn complete_file_blocking(&self, version: &Arc<Version>) -> Option<CompleteFile> {
        if self.engine.calls.is_stuck() {
            return None;
        }
        self.engine.blocks.object(version).complete_file_blocking()
    }

    /// As [`complete_file_blocking`](Self::complete_file_blocking), for who can't wait for a disk
    /// that hangs.
    pub async fn complete_file(&self, version: &Arc<Version>) -> Option<CompleteFile> {
        let object = self.engine.blocks.object(version);
        let find = move || object.complete_file_blocking();
        self.engine.calls.run(find).await.ok().flatten()
    }

    /// The prefixes that were read most from the cache lately, up to `count`, the first one first.
    pub fn hottest(&self, count: usize) -> Vec<HotPrefix> {
        self.engine.hot.hottest(count)
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

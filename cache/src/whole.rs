//! Versions that are whole in a cache's directory, as files that the kernel can read by itself.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::cache::Cache;
use crate::disk::CompleteFile;
use crate::version::Version;

/// Largest version that is checked while somebody waits for its file, in bytes.
const CHECKED_SIZE_MAX: u64 = 64 << 20;
/// Versions that are remembered to have been checked, or to be so at the moment.
const CHECKED_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Hands out complete files, each checked before.
#[derive(Debug)]
pub(crate) struct WholeFiles {
    cache: Cache,
    runtime: tokio::runtime::Handle,
    checked: Mutex<LruCache<Arc<Version>, ()>>,
}

impl WholeFiles {
    /// Those of `cache`; what takes long is checked on `runtime`.
    pub(crate) fn new(cache: Cache, runtime: tokio::runtime::Handle) -> Self {
        Self {
            cache,
            runtime,
            checked: Mutex::new(LruCache::new(CHECKED_MAX)),
        }
    }

    /// The file of a version, if all of it is there. Blocks.
    pub(crate) fn file(&self, version: &Arc<Version>) -> Option<CompleteFile> {
        if self.cache.present(version) < version.size {
            return None;
        }
        if self.cache.verified(version) {
            return self.cache.complete_file_blocking(version);
        }
        if version.size > CHECKED_SIZE_MAX {
            // Until then it is read block by block.
            self.check_soon(version);
            return None;
        }
        self.runtime.block_on(self.cache.complete_file(version))
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

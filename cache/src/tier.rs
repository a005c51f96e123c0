//! The cache as a tier in front of a local store, on a faster disk than the store's.
//!
//! The store says what there is and what is current, as ever: its index is asked for every read.
//! Only the bytes of bodies come by way of the cache, from the store's data files where the cache
//! lacks them. Writes are the store's alone and pass by here.
//!
//! # Invariants
//! 1. A cached byte belongs to bucket, key, entity tag, size and *the extents* it was read from:
//!    whoever is given an entry by the store gets the bytes of that entry.
//! 2. What the cache can't give the store does, also in the middle of a read. The only errors are
//!    the store's own.
//! 3. The data files are held open as long as a content is, as without a tier: what was opened
//!    stays readable, whatever happens to its key.
//! 4. A body that is read whole is checked against the CRC that the store has of it, once in a
//!    process, wherever its bytes come from.

mod content;
mod files;
mod read;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use forebay_store::digest::crc64;
use forebay_store::entry::Entry;
use forebay_store::error::{Error, Result};
use forebay_store::{Buckets as _, Content, Store};

pub use self::content::TierContent;
pub use self::files::TierFiles;
pub use self::read::TierRead;
use crate::Directive;
use crate::cache::Cache;
use crate::version::Version;
use crate::whole::WholeFiles;

/// A local store and the cache in front of it. Cloning it gives the same one.
#[derive(Clone, Debug)]
pub struct Tier(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    store: Store,
    cache: Cache,
    whole: WholeFiles,
    runtime: tokio::runtime::Handle,
}

impl Tier {
    /// Puts `cache` in front of `store`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(store: Store, cache: Cache) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self(Arc::new(Parts {
            store,
            whole: WholeFiles::new(cache.clone(), runtime.clone()),
            cache,
            runtime,
        }))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Opens an entry's bytes. Opens the store's files, and reads nothing.
    ///
    /// # Errors
    /// As [`Buckets::open`](forebay_store::Buckets::open).
    pub fn open(&self, entry: &Arc<Entry>, directive: Directive) -> Result<TierContent> {
        let content = self.0.store.open(entry)?;
        let version = self.version(entry)?;
        Ok(TierContent::new(self, version, content, directive))
    }

    /// Has all of an object brought in some time soon; `false` if it won't be, because too many
    /// wait already.
    ///
    /// # Errors
    /// `Superseded`: its bucket is gone.
    pub fn prestage(&self, entry: &Arc<Entry>) -> Result<bool> {
        let version = self.version(entry)?;
        let source = read::source_of(&self.0.store, entry);
        Ok(self.0.cache.prestage(&version, source))
    }

    /// Bytes of an entry that are in the cache.
    ///
    /// # Errors
    /// `Superseded`: its bucket is gone.
    pub fn present(&self, entry: &Arc<Entry>) -> Result<u64> {
        Ok(self.0.cache.present(&self.version(entry)?))
    }

    /// What the cache knows an entry's bytes by.
    ///
    /// # Errors
    /// `Superseded`: its bucket is gone.
    pub fn version(&self, entry: &Entry) -> Result<Arc<Version>> {
        let bucket = self.0.store.bucket_by_id(entry.bucket);
        let bucket = bucket.ok_or_else(|| Error::Superseded(entry.key.clone()))?;
        Ok(Arc::new(Version {
            bucket: bucket.name.as_str().to_owned(),
            key: entry.key.as_str().to_owned(),
            etag: tag(entry),
            version_id: None,
            size: entry.size,
        }))
    }
}

/// The entity tag, and the numbers of the extents, none of which is used twice. They stay when
/// the bytes move in the store and when only attributes change.
fn tag(entry: &Entry) -> String {
    let ids: Vec<u8> = entry
        .extents
        .iter()
        .flat_map(|extent| extent.id.to_le_bytes())
        .collect();
    format!("{}.{:016x}", entry.etag, crc64(&ids))
}

/// The store's own bytes of an entry, past the cache.
fn plain(content: &Content, from: u64, to: u64) -> forebay_store::ContentStream {
    content.range(from, to - from)
}

//! What `forebay cache` asks, and how a node answers.

use std::sync::Arc;

use forebay_cache::disk::{Health, ListPosition, Which as OfCache};
use forebay_cache::{Cache, Disk, DiskError};

use crate::admin::{CacheStatus, CachedObject, CachedPage, ListPlace, Reply, Request, Which};

/// Objects of one answer, at most.
const PAGE_MAX: usize = 1000;

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The origin, as it is shown.
    pub(crate) origin: String,
    /// What reads go through.
    pub(crate) cache: Cache,
    /// What it keeps.
    pub(crate) disk: Arc<Disk>,
}

/// Does what is asked. Blocks.
pub(crate) fn perform(asked: &Asked, request: Request) -> Reply {
    match try_perform(asked, request) {
        Ok(reply) => reply,
        Err(err) => Reply::Refused(format!("{:#}", anyhow::Error::from(err))),
    }
}

fn try_perform(asked: &Asked, request: Request) -> Result<Reply, DiskError> {
    Ok(match request {
        Request::CacheStatus => Reply::CacheStatus(Box::new(status(asked))),
        Request::ListCache { which, after } => Reply::Cached(list(&asked.disk, &which, after)?),
        Request::EvictCache { which } => Reply::Bytes(asked.disk.evict(of_cache(&which))?),
        Request::PinCache { which, pinned } => {
            Reply::Objects(asked.disk.pin_prefix(of_cache(&which), pinned)?)
        }
        Request::CreateAccount { .. }
        | Request::ListAccounts
        | Request::RemoveAccount { .. }
        | Request::CreateKey { .. }
        | Request::ListKeys { .. }
        | Request::RemoveKey { .. } => {
            Reply::Refused("this is a node: accounts and keys are the origin's".to_owned())
        }
    })
}

fn of_cache(which: &Which) -> OfCache<'_> {
    match &which.bucket {
        None => OfCache::All,
        Some(bucket) => OfCache::Prefix {
            bucket,
            prefix: &which.prefix,
        },
    }
}

fn status(asked: &Asked) -> CacheStatus {
    let (held, done) = (asked.disk.status(), asked.cache.statistics());
    CacheStatus {
        origin: asked.origin.clone(),
        bytes: held.bytes,
        capacity_bytes: held.cap,
        pinned_bytes: held.pinned_bytes,
        objects: held.objects,
        blocks: held.blocks,
        hits: done.hits,
        partial_hits: done.partials,
        misses: done.misses,
        bypasses: done.bypasses,
        bytes_from_cache: done.bytes_from_cache,
        bytes_fetched: done.bytes_fetched,
        evicted_blocks: held.evictions,
        corrupt_blocks: held.corrupt,
        prestage_queued: done.prestage_queued,
        degraded: match held.health {
            Health::Good => None,
            Health::Degraded(why) => Some(why),
        },
    }
}

fn list(disk: &Disk, which: &Which, after: Option<ListPlace>) -> Result<CachedPage, DiskError> {
    let after = after.map(ListPosition::from_parts);
    let page = disk.list(of_cache(which), after.as_ref(), PAGE_MAX)?;
    let shown = page.objects.into_iter().map(|listed| CachedObject {
        bucket: listed.bucket,
        key: listed.key,
        size: listed.size,
        // In whole pages there, of which the last may go over the end.
        cached_bytes: listed.present_bytes.min(listed.size),
        pinned: listed.pinned,
    });
    Ok(CachedPage {
        objects: shown.collect(),
        next: page.next.map(ListPosition::into_parts),
    })
}

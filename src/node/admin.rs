//! What `forebay cache` asks, and how a node answers.

use std::sync::Arc;

use anyhow::Result;
use forebay_cache::disk::{Health, ListPosition, Which as OfCache};
use forebay_cache::peer::Peers;
use forebay_cache::{Cache, Disk};

use super::warm::Behind;
use crate::admin::{
    CacheStatus, CachedObject, CachedPage, HotPrefix, ListPlace, MountShown, PeerStatus, Reply,
    Request, Which,
};

/// Objects of one answer, at most.
const PAGE_MAX: usize = 1000;
/// Prefixes that a status shows, at most.
const HOTTEST_MAX: usize = 10;

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The origin, as it is shown.
    pub(crate) origin: String,
    /// What reads go through.
    pub(crate) cache: Cache,
    /// What it keeps.
    pub(crate) disk: Arc<Disk>,
    /// What objects are brought in from.
    pub(crate) behind: Behind,
    /// What is mounted.
    pub(crate) mount: MountShown,
}

/// Does what is asked. Blocks.
pub(crate) fn perform(asked: &Asked, request: Request) -> Reply {
    match try_perform(asked, request) {
        Ok(reply) => reply,
        Err(err) => Reply::Refused(format!("{err:#}")),
    }
}

fn try_perform(asked: &Asked, request: Request) -> Result<Reply> {
    Ok(match request {
        Request::ShowMount => Reply::Mount(asked.mount.clone()),
        Request::Warm { object, bring } => {
            Reply::Warmth(asked.behind.warm_blocking(&asked.cache, &object, bring)?)
        }
        Request::PinObject { object, etag } => {
            asked.behind.pin_blocking(&asked.disk, &object, &etag)?;
            Reply::Done
        }
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
    let peers = asked.cache.peers().map(|peers| peer_status(peers));
    let from_peers = peers.as_ref().map_or(0, |peers| peers.bytes_from);
    CacheStatus {
        origin: asked.origin.clone(),
        bytes: held.bytes,
        index_bytes: held.index_bytes,
        capacity_bytes: held.cap,
        pinned_bytes: held.pinned_bytes,
        objects: held.objects,
        blocks: held.blocks,
        hits: done.hits,
        partial_hits: done.partials,
        misses: done.misses,
        bypasses: done.bypasses,
        bytes_from_cache: done.bytes_from_cache,
        bytes_fetched: done.bytes_fetched.saturating_sub(from_peers),
        evicted_blocks: held.evictions,
        corrupt_blocks: held.corrupt,
        prestage_queued: done.prestage_queued,
        hottest: hottest(&asked.cache),
        peers,
        degraded: match held.health {
            Health::Good if done.disk_stuck => Some("the disk does not answer".to_owned()),
            Health::Good => None,
            Health::Degraded(why) => Some(why),
        },
    }
}

fn peer_status(peers: &Peers) -> PeerStatus {
    let done = peers.statistics();
    let list = peers.list().into_iter();
    PeerStatus {
        list: list
            .map(|(address, standing)| (address, standing.word().to_owned()))
            .collect(),
        hits: done.hits,
        misses: done.misses,
        passed_over: done.passed_over,
        bytes_from: done.bytes_from,
        bytes_to: done.bytes_to,
    }
}

fn hottest(cache: &Cache) -> Vec<HotPrefix> {
    let hottest = cache.hottest(HOTTEST_MAX).into_iter();
    let shown = hottest.map(|hot| HotPrefix {
        bucket: hot.bucket,
        prefix: hot.prefix,
        bytes: hot.bytes,
    });
    shown.collect()
}

fn list(disk: &Disk, which: &Which, after: Option<ListPlace>) -> Result<CachedPage> {
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

//! Entries held in memory, absence included, that can't go stale.
//!
//! The committer puts what it has committed before it wakes anybody. A reader that missed asks the
//! index and fills in what it found, unless a key of the same shard has changed since it looked:
//! then what it found may be old, and is dropped.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::entry::{BucketId, Entry};
use crate::limits::ENTRY_CACHE_MAX;
use crate::name::ObjectKey;

const SHARDS: usize = 32;

type Slot = (BucketId, ObjectKey);

#[derive(Debug)]
struct Shard {
    entries: LruCache<Slot, Option<Arc<Entry>>>,
    /// Counts the changes of this shard's keys.
    changes: u64,
}

/// The entries.
#[derive(Debug)]
pub(crate) struct Entries {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

/// Says since when a reader has been looking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    shard: usize,
    changes: u64,
}

impl Entries {
    pub(crate) fn new() -> Self {
        let capacity = NonZeroUsize::new(ENTRY_CACHE_MAX / SHARDS).expect("a limit is not zero");
        let shard = || {
            Mutex::new(Shard {
                entries: LruCache::new(capacity),
                changes: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, slot: &Slot) -> usize {
        usize::try_from(self.hasher.hash_one(slot) % SHARDS as u64).expect("less than SHARDS")
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held of a key; else a ticket to fill it in with.
    pub(crate) fn get(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
    ) -> Result<Option<Arc<Entry>>, Ticket> {
        let slot = (bucket, key.clone());
        let shard = self.shard(&slot);
        let mut held = self.lock(shard);
        match held.entries.get(&slot) {
            Some(entry) => Ok(entry.clone()),
            None => Err(Ticket {
                shard,
                changes: held.changes,
            }),
        }
    }

    /// Fills in what the index had, unless the shard has changed since the ticket was given.
    pub(crate) fn fill(
        &self,
        ticket: Ticket,
        bucket: BucketId,
        key: &ObjectKey,
        entry: Option<Arc<Entry>>,
    ) {
        let mut held = self.lock(ticket.shard);
        if held.changes == ticket.changes {
            held.entries.put((bucket, key.clone()), entry);
        }
    }

    /// Takes in what was committed.
    pub(crate) fn commit(&self, bucket: BucketId, key: &ObjectKey, entry: Option<Arc<Entry>>) {
        let slot = (bucket, key.clone());
        let mut held = self.lock(self.shard(&slot));
        held.changes += 1;
        held.entries.put(slot, entry);
    }

    /// Forgets everything: more keys changed than are worth naming.
    pub(crate) fn clear(&self) {
        for shard in 0..SHARDS {
            let mut held = self.lock(shard);
            held.changes += 1;
            held.entries.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_that_began_before_a_change_is_dropped() {
        let entries = Entries::new();
        let (bucket, key) = (BucketId(1), ObjectKey::parse("k").unwrap());
        let early = entries.get(bucket, &key).unwrap_err();
        entries.commit(bucket, &key, None);
        entries.clear();
        let late = entries.get(bucket, &key).unwrap_err();
        entries.fill(early, bucket, &key, None);
        assert!(
            entries.get(bucket, &key).is_err(),
            "the early fill may be old"
        );
        entries.fill(late, bucket, &key, None);
        assert!(entries.get(bucket, &key).is_ok_and(|entry| entry.is_none()));
    }
}

//! All entries, by identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::{Entry, Identity};

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 64;

type Shard = HashMap<Identity, Arc<Entry>>;

/// The entries of everything that is kept or open.
#[derive(Debug)]
pub(super) struct Table {
    shards: Vec<Mutex<Shard>>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, identity: &Identity) -> MutexGuard<'_, Shard> {
        // An identity is a hash, so each byte of it is as good as another.
        let shard = &self.shards[usize::from(identity[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of an identity, with one more handle; made if there is none.
    pub(super) fn open(&self, identity: Identity, size: u64) -> Arc<Entry> {
        let mut shard = self.shard(&identity);
        let entry = shard
            .entry(identity)
            .or_insert_with(|| Arc::new(Entry::new(identity, size, true)));
        entry.lock().handles += 1;
        Arc::clone(entry)
    }

    /// Takes a handle away.
    pub(super) fn close(&self, entry: &Arc<Entry>) {
        let mut shard = self.shard(&entry.identity);
        let blank = {
            let mut state = entry.lock();
            state.handles -= 1;
            state.is_blank()
        };
        if blank {
            shard.remove(&entry.identity);
        }
    }

    /// Forgets an entry that says nothing any more.
    pub(super) fn tidy(&self, entry: &Arc<Entry>) {
        let mut shard = self.shard(&entry.identity);
        // It may have been forgotten before, and be another by now.
        let known = shard
            .get(&entry.identity)
            .is_some_and(|found| Arc::ptr_eq(found, entry));
        if known && entry.lock().is_blank() {
            shard.remove(&entry.identity);
        }
    }

    /// Takes in what the index knows; false if there is one of that identity already.
    pub(super) fn insert(&self, entry: &Arc<Entry>) -> bool {
        self.shard(&entry.identity)
            .insert(entry.identity, Arc::clone(entry))
            .is_none()
    }

    /// The entry of an identity, if there is one.
    pub(super) fn find(&self, identity: &Identity) -> Option<Arc<Entry>> {
        self.shard(identity).get(identity).cloned()
    }

    /// Does something with every entry, a shard at a time.
    pub(super) fn for_each(&self, mut act: impl FnMut(&Arc<Entry>)) {
        for shard in &self.shards {
            let entries: Vec<_> = {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.values().cloned().collect()
            };
            entries.iter().for_each(&mut act);
        }
    }
}

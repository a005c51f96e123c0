//! Entries that were looked up and are likely to be opened next.
//!
//! `open` follows `lookup` within microseconds, and must know that the version looked up is still
//! the current one. An entry kept here is: whatever changes a name drops its inode from here, S3's
//! changes before their answer. An entry that was read from the store before a change and is
//! offered after it is not taken. Where not every change is told, it is kept no longer than the
//! kernel would believe it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_store::entry::Entry;
use lru::LruCache;

/// Entries kept.
const RECENT_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// A moment between two changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

/// Entries by inode number.
#[derive(Debug)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    changes: u64,
    entries: LruCache<u64, (Instant, Arc<Entry>)>,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Self {
            kept: Mutex::new(Kept {
                changes: 0,
                entries: LruCache::new(RECENT_MAX),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be taken before the store is asked.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.lock().changes)
    }

    /// Keeps what the store said of an inode, unless something has changed since `asked`.
    pub(crate) fn keep(&self, asked: Moment, ino: u64, entry: &Arc<Entry>) {
        let mut kept = self.lock();
        if kept.changes == asked.0 {
            kept.entries.put(ino, (Instant::now(), Arc::clone(entry)));
        }
    }

    /// An entry that is not older than `age_max`.
    pub(crate) fn get(&self, ino: u64, age_max: Duration) -> Option<Arc<Entry>> {
        let mut kept = self.lock();
        let (at, entry) = kept.entries.get(&ino)?;
        (at.elapsed() < age_max).then(|| Arc::clone(entry))
    }

    /// Notes a change, of this inode if it is known which.
    pub(crate) fn changed(&self, ino: Option<u64>) {
        let mut kept = self.lock();
        kept.changes += 1;
        if let Some(ino) = ino {
            kept.entries.pop(&ino);
        }
    }

    /// Notes a change of who knows how many inodes.
    pub(crate) fn all_changed(&self) {
        let mut kept = self.lock();
        kept.changes += 1;
        kept.entries.clear();
    }
}

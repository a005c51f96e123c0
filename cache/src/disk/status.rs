//! What the cache holds, and telling it what to keep.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_store::time::Timestamp;

use super::Disk;
use super::entry::{Entry, Identity};
use super::error::DiskError;
use super::health::Health;
use super::index::{NamePosition, NameRow};

/// Objects of a page of [`Disk::list`] at most.
pub const LIST_MAX: usize = 1000;

/// What is counted while the cache is open.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) objects: AtomicU64,
    pub(super) blocks: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) read_errors: AtomicU64,
    pub(super) write_errors: AtomicU64,
}

/// How the cache does. What is counted is counted since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes on the disk, what is being written included; those of other origins too, and those of
    /// the index.
    pub bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// Bytes that there may be: what was asked for.
    pub limit: u64,
    /// Bytes that there may be now; less than the limit if the file system is too full.
    pub cap: u64,
    /// Objects of which there is something.
    pub objects: u64,
    /// Blocks that can be read.
    pub blocks: u64,
    /// Bytes that are pinned.
    pub pinned_bytes: u64,
    /// Bytes that were read again.
    pub protected_bytes: u64,
    /// Blocks that were given back to make room.
    pub evictions: u64,
    /// Blocks that were dropped because their CRC was wrong.
    pub corrupt: u64,
    /// Blocks that were dropped because they could not be read.
    pub read_errors: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Whether blocks can be put.
    pub health: Health,
}

/// Which objects are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// All of this origin.
    All,
    /// All versions of a key.
    Key {
        /// The bucket.
        bucket: &'a str,
        /// The key.
        key: &'a str,
    },
    /// All keys of a bucket that begin like this.
    Prefix {
        /// The bucket.
        bucket: &'a str,
        /// The beginning; empty for the whole bucket.
        prefix: &'a str,
    },
}

impl Which<'_> {
    /// The place before the first of them, in the order of names.
    fn start(self) -> NamePosition {
        let (bucket, key) = match self {
            Self::All => ("", ""),
            Self::Key { bucket, key } => (bucket, key),
            Self::Prefix { bucket, prefix } => (bucket, prefix),
        };
        (bucket.to_owned(), key.to_owned(), 0)
    }

    /// Whether an object is one of them. Those that are come one after the other.
    fn matches(self, name: &NameRow) -> bool {
        match self {
            Self::All => true,
            Self::Key { bucket, key } => name.bucket == bucket && name.key == key,
            Self::Prefix { bucket, prefix } => {
                name.bucket == bucket && name.key.starts_with(prefix)
            }
        }
    }
}

/// An object of which there is something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The entity tag, without quotes.
    pub etag: String,
    /// Bytes of the object.
    pub size: u64,
    /// Bytes of it that are there, in whole pages of 4 KiB.
    pub present_bytes: u64,
    /// Whether it is pinned.
    pub pinned: bool,
    /// When it was last read or written.
    pub last_used: Timestamp,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The objects, in the order of bucket and key.
    pub objects: Vec<Listed>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<ListPosition>,
}

/// A place in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPosition(NamePosition);

impl ListPosition {
    /// A place that was sent away as bucket, key and number of the version.
    pub fn from_parts(parts: (String, String, u64)) -> Self {
        Self(parts)
    }

    /// As it can be sent away.
    pub fn into_parts(self) -> (String, String, u64) {
        self.0
    }
}

impl Disk {
    /// How the cache does. Cheap.
    pub fn status(&self) -> Status {
        let (room, counters) = (&self.shared.room, &self.shared.counters);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            bytes: room.used() + room.index(),
            index_bytes: room.index(),
            limit: room.limit(),
            cap: room.cap().saturating_add(room.index()),
            objects: read(&counters.objects),
            blocks: read(&counters.blocks),
            pinned_bytes: read(&room.pinned),
            protected_bytes: read(&room.protected),
            evictions: read(&counters.evictions),
            corrupt: read(&counters.corrupt),
            read_errors: read(&counters.read_errors),
            write_errors: read(&counters.write_errors),
            health: self.health(),
        }
    }

    /// Whether blocks can be put, and why not.
    pub fn health(&self) -> Health {
        self.shared.condition.health()
    }

    /// A page of what is there of this origin, of up to `limit` objects ([`LIST_MAX`] at most),
    /// after a place that a page before gave. Blocks.
    ///
    /// # Errors
    /// The index can't be read, or the cache is closed.
    pub fn list(
        &self,
        which: Which<'_>,
        after: Option<&ListPosition>,
        limit: usize,
    ) -> Result<Page, DiskError> {
        let limit = limit.clamp(1, LIST_MAX);
        let start = after.map_or_else(|| which.start(), |position| position.0.clone());
        let mut names = self.names(which, &start, limit)?;
        let more = names.len() > limit;
        names.truncate(limit);
        let next = names.last().filter(|_| more).map(position);
        let objects = names.into_iter().filter_map(|name| self.listed(name));
        Ok(Page {
            objects: objects.collect(),
            next,
        })
    }

    /// Up to one name more than `limit`.
    fn names(
        &self,
        which: Which<'_>,
        after: &NamePosition,
        limit: usize,
    ) -> Result<Vec<NameRow>, DiskError> {
        self.shared.changes.flush_blocking()?;
        let mut names = Vec::new();
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.names(after, |name| {
            let wanted = which.matches(&name);
            if wanted {
                names.push(name);
            }
            wanted && names.len() <= limit
        })?;
        Ok(names)
    }

    fn listed(&self, name: NameRow) -> Option<Listed> {
        let entry = self.shared.table.find(&name.identity)?;
        let state = entry.lock();
        if state.number != name.number {
            return None;
        }
        let used = (0..state.runs())
            .filter_map(|run| state.run(run))
            .map(|(rank, _)| rank.used)
            .max()
            .unwrap_or_default();
        Some(Listed {
            present_bytes: state.bytes,
            pinned: state.pinned,
            last_used: Timestamp(i64::try_from(used).unwrap_or(i64::MAX)),
            bucket: name.bucket,
            key: name.key,
            etag: name.etag,
            size: name.size,
        })
    }

    /// Gives back objects, other than those that are pinned or being read; gives how many bytes
    /// that were. Blocks.
    ///
    /// # Errors
    /// The index can't be read, or the cache is closed.
    pub fn evict(&self, which: Which<'_>) -> Result<u64, DiskError> {
        self.shared
            .room
            .wait_ready()
            .map_err(|_| DiskError::Closed)?;
        let mut freed = 0;
        self.for_each(which, |entry| {
            freed += self.shared.evict_object(entry);
        })?;
        self.shared.sweep_ranks();
        Ok(freed)
    }

    /// Pins the objects that are there now, or unpins them; gives how many they are. What of them
    /// is not there yet is kept once it is put. Blocks.
    ///
    /// # Errors
    /// The index can't be read, or the cache is closed.
    pub fn pin_prefix(&self, which: Which<'_>, pinned: bool) -> Result<u64, DiskError> {
        let mut count = 0;
        self.for_each(which, |entry| {
            if self.shared.pin(entry, None, pinned) {
                self.shared.table.tidy(entry);
            }
            count += u64::from(entry.lock().pinned == pinned);
        })?;
        Ok(count)
    }

    /// Does something with every object of which there is something.
    fn for_each(
        &self,
        which: Which<'_>,
        mut act: impl FnMut(&std::sync::Arc<Entry>),
    ) -> Result<(), DiskError> {
        let mut after = which.start();
        loop {
            let names = self.names(which, &after, LIST_MAX)?;
            let Some(last) = names.last() else {
                return Ok(());
            };
            after = position(last).0;
            let identities: Vec<Identity> = names.iter().map(|name| name.identity).collect();
            for identity in identities {
                if let Some(entry) = self.shared.table.find(&identity) {
                    act(&entry);
                }
            }
        }
    }
}

fn position(name: &NameRow) -> ListPosition {
    ListPosition((name.bucket.clone(), name.key.clone(), name.number))
}

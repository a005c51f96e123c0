//! What the store's threads share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::accounts::Accounts;
use crate::closing::Closing;
use crate::data::{Layout, OpenFiles};
use crate::disk::{Disk, Rng};
use crate::entries::Entries;
use crate::entry::{Bucket, BucketId, Entry, FileId};
use crate::error::{Error, IndexContext, IoContext, Result};
use crate::event::Feed;
use crate::index::{self, Index, signed, unsigned};
use crate::limits::RESERVE_SIZE;
use crate::name::BucketName;
use crate::stage::Stager;
use crate::time::Clock;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code here leaves what a mutex guards half changed, so a panic elsewhere does not matter.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the store's threads share. Locks are held for lines, one at a time.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    /// Whether anything is ever synced.
    pub(crate) syncs: bool,
    pub(crate) index: Index,
    pub(crate) accounts: Accounts,
    pub(crate) buckets: Buckets,
    pub(crate) entries: Entries,
    pub(crate) files: OpenFiles,
    pub(crate) feed: Feed,
    /// Sequence of the last change posted.
    pub(crate) sequence: AtomicU64,
    pub(crate) ids: Ids,
    pub(crate) stager: Stager,
    pub(crate) space: Space,
    pub(crate) unsynced: Unsynced,
    pub(crate) dead_files: DeadFiles,
    pub(crate) closing: Closing,
    broken: Mutex<Option<PathBuf>>,
}

/// What [`Shared`] is made of that can't be derived.
pub(crate) struct Parts {
    pub(crate) layout: Layout,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) syncs: bool,
    pub(crate) index: Index,
    pub(crate) stager: Stager,
}

impl Shared {
    /// Reads what is held in memory from the index.
    pub(crate) fn load(parts: Parts, connection: &Connection) -> Result<Self> {
        let Parts {
            layout,
            disk,
            clock,
            rng,
            syncs,
            index,
            stager,
        } = parts;
        let mut epoch = [0; 8];
        rng.fill(&mut epoch);
        let epoch = u64::from_le_bytes(epoch);
        let shared = Self {
            files: OpenFiles::new(layout.clone(), Arc::clone(&disk)),
            ids: Ids::load(connection)?,
            space: Space::default(),
            layout,
            disk,
            clock,
            rng,
            syncs,
            index,
            stager,
            accounts: Accounts::default(),
            buckets: Buckets::default(),
            entries: Entries::new(),
            feed: Feed::new(epoch),
            sequence: AtomicU64::new(0),
            unsynced: Unsynced::default(),
            dead_files: DeadFiles::default(),
            closing: Closing::default(),
            broken: Mutex::default(),
        };
        shared.load_accounts(connection)?;
        let buckets = index::bucket::load(connection, &shared.accounts)?;
        let buckets: Vec<_> = buckets.into_iter().map(Arc::new).collect();
        shared.buckets.apply(&buckets, &[]);
        Ok(shared)
    }

    /// Reads accounts and keys from the index.
    pub(crate) fn load_accounts(&self, connection: &Connection) -> Result<()> {
        let (accounts, keys) = index::account::load(connection)?;
        self.accounts.replace(accounts, keys);
        Ok(())
    }

    /// The file whose sync failed, if one has.
    pub(crate) fn broken(&self) -> Option<PathBuf> {
        lock(&self.broken).clone()
    }

    /// From here on writes are refused.
    pub(crate) fn break_at(&self, path: &Path) {
        lock(&self.broken).get_or_insert_with(|| path.to_owned());
    }

    /// Syncs a data file's bytes, length and label; a failure concerns that file alone.
    pub(crate) fn sync_all(&self, file: &crate::disk::DiskFile) -> Result<()> {
        if self.syncs {
            self.disk.sync_all(file).io("sync", &file.path)
        } else {
            Ok(())
        }
    }
}

/// All buckets, by name and by number.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    inner: RwLock<(ByName, ById)>,
}

type ByName = HashMap<BucketName, Arc<Bucket>>;
type ById = HashMap<BucketId, Arc<Bucket>>;

impl Buckets {
    pub(crate) fn apply(&self, made: &[Arc<Bucket>], deleted: &[BucketId]) {
        if made.is_empty() && deleted.is_empty() {
            return;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for bucket in made {
            inner.0.insert(bucket.name.clone(), Arc::clone(bucket));
            inner.1.insert(bucket.id, Arc::clone(bucket));
        }
        for id in deleted {
            if let Some(bucket) = inner.1.remove(id) {
                inner.0.remove(&bucket.name);
            }
        }
    }

    pub(crate) fn by_name(&self, name: &BucketName) -> Option<Arc<Bucket>> {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .get(name)
            .cloned()
    }

    pub(crate) fn by_id(&self, id: BucketId) -> Option<Arc<Bucket>> {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .get(&id)
            .cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Bucket>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = inner.0.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// Numbers that are given away this far ahead of what the index knows.
const IDS_AHEAD: u64 = 1 << 20;

/// Gives numbers to versions, extents, files, buckets and inodes; none is given twice.
///
/// # Invariants
/// 1. A number that is committed is below the limit that is committed with it or before it.
/// 2. After opening, numbers begin at the limit.
#[derive(Debug)]
pub(crate) struct Ids {
    next: AtomicU64,
    limit: AtomicU64,
}

impl Ids {
    fn load(connection: &Connection) -> Result<Self> {
        let limit = connection
            .query_row(
                "SELECT coalesce(max(value), 1) FROM meta WHERE name = 'id_limit'",
                [],
                |row| row.get(0),
            )
            .index("read the limit of numbers")?;
        let limit = unsigned(limit);
        Ok(Self {
            next: AtomicU64::new(limit),
            limit: AtomicU64::new(limit),
        })
    }

    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a higher limit is to be written soon.
    pub(crate) fn is_limit_near(&self) -> bool {
        self.next.load(Ordering::Relaxed) + IDS_AHEAD / 2 >= self.limit.load(Ordering::Relaxed)
    }

    /// Writes a higher limit if numbers come near it; it is in force once it is
    /// [raised](Self::raise).
    pub(crate) fn persist(&self, connection: &Connection) -> Result<Option<u64>> {
        if !self.is_limit_near() {
            return Ok(None);
        }
        let limit = self.next.load(Ordering::Relaxed) + IDS_AHEAD;
        let mut statement = connection
            .prepare_cached("REPLACE INTO meta (name, value) VALUES ('id_limit', ?1)")
            .index("prepare")?;
        statement
            .execute(params![signed(limit)])
            .index("raise the limit of numbers")?;
        Ok(Some(limit))
    }

    /// Takes note of a limit that is committed.
    pub(crate) fn raise(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }
}

/// Keeps deletes possible on a full disk.
#[derive(Debug, Default)]
pub(crate) struct Space {
    refusing: AtomicBool,
}

/// Size of the reserve on a file system of `total` bytes.
fn reserve_size(total: u64) -> u64 {
    (total / 32).clamp(1 << 20, RESERVE_SIZE)
}

impl Space {
    /// Whether the disk is so full that only what frees space may go on; gives up the reserve then.
    pub(crate) fn refuses_growth(&self, shared: &Shared) -> bool {
        let Ok((total, available, _)) = shared.disk.space(shared.layout.root()) else {
            return false;
        };
        let reserve = reserve_size(total);
        if available < reserve / 4 {
            let path = shared.layout.reserve();
            if !self.refusing.swap(true, Ordering::AcqRel) {
                tracing::error!(available, "the disk is full: only deletes go on");
                if let Err(err) = shared.disk.remove(&path)
                    && err.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::error!(path = %path.display(), %err, "the reserve could not be given up");
                }
            }
            return true;
        }
        // What the reserve gave is for deletes; writes begin again when there is room for both.
        if self.refusing.load(Ordering::Acquire) && available < 2 * reserve {
            return true;
        }
        if self.refusing.swap(false, Ordering::AcqRel) {
            tracing::info!(available, "the disk has room again");
            Self::provide(shared);
        }
        false
    }

    /// Sets space aside, if there is enough.
    pub(crate) fn provide(shared: &Shared) {
        let path = shared.layout.reserve();
        let Ok((total, available, _)) = shared.disk.space(shared.layout.root()) else {
            return;
        };
        let size = reserve_size(total);
        if path.exists() || available < 2 * size {
            return;
        }
        let made = shared
            .disk
            .create(&path)
            .and_then(|file| shared.disk.allocate(&file, size));
        if let Err(err) = made {
            tracing::warn!(path = %path.display(), %err, "no space could be set aside for deletes on a full disk");
        }
    }
}

/// Tells threads that they are to end.
#[derive(Debug, Default)]
pub(crate) struct Stopping {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stopping {
    pub(crate) fn set(&self) {
        *lock(&self.set) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *lock(&self.set)
    }

    /// Waits for `wait`, or until it is set; says whether it is.
    pub(crate) fn wait(&self, wait: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(lock(&self.set), wait, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What makes a commit good after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Promise {
    /// The sync of the index that it waits for.
    Synced,
    /// The records of its objects, which are synced: the next start makes it anew out of them.
    Logged,
    /// Nothing yet.
    Deferred,
}

/// Versions whose bytes are yet to be synced.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    /// The weakest [`Promise`] of the commits since the last sync of the index.
    weakest: AtomicU8,
    waiting: Mutex<Vec<Arc<Entry>>>,
    /// Those whose bytes could not be synced, and that could not be taken back yet. A sync that
    /// failed is never tried again as if it could succeed.
    pub(crate) lost: Mutex<Vec<Arc<Entry>>>,
    arrived: Condvar,
    /// Why changes were taken back behind their answers: the next to ask for a sync is told.
    pub(crate) failed: Mutex<Option<Error>>,
    /// Held by the one that flushes, taken before all other locks.
    pub(crate) flushing: Mutex<()>,
}

impl Unsynced {
    pub(crate) fn add(&self, mut entries: Vec<Arc<Entry>>) {
        if entries.is_empty() {
            return;
        }
        lock(&self.waiting).append(&mut entries);
        self.arrived.notify_one();
    }

    /// Takes note of a commit; one whose index is synced makes all before it durable.
    pub(crate) fn note_commit(&self, promise: Promise) {
        let weakest = promise as u8;
        let before = if promise == Promise::Synced {
            self.weakest.swap(weakest, Ordering::AcqRel)
        } else {
            self.weakest.fetch_max(weakest, Ordering::AcqRel)
        };
        if before == Promise::Synced as u8 && promise != Promise::Synced {
            self.wake();
        }
    }

    /// Whether a commit or a version waits for a sync of the index.
    pub(crate) fn is_pending(&self) -> bool {
        !self.is_index_synced() || !lock(&self.waiting).is_empty() || !lock(&self.lost).is_empty()
    }

    /// Whether the index is on the disk as it is.
    pub(crate) fn is_index_synced(&self) -> bool {
        self.weakest.load(Ordering::Acquire) == Promise::Synced as u8
    }

    pub(crate) fn take(&self) -> Vec<Arc<Entry>> {
        std::mem::take(&mut *lock(&self.waiting))
    }

    /// Whether a commit since the last sync of the index was deferred.
    pub(crate) fn is_deferred(&self) -> bool {
        self.weakest.load(Ordering::Acquire) == Promise::Deferred as u8
    }

    pub(crate) fn wake(&self) {
        // Whoever has looked and is about to wait holds this lock until it waits.
        drop(lock(&self.waiting));
        self.arrived.notify_all();
    }

    /// Waits until there is one, or for `wait`.
    pub(crate) fn wait(&self, wait: Duration, stopping: &Stopping) {
        let waiting = lock(&self.waiting);
        if waiting.is_empty() && self.is_index_synced() && !stopping.is_set() {
            drop(
                self.arrived
                    .wait_timeout(waiting, wait)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }
}

/// A data file that no row refers to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeadFile {
    pub(crate) id: FileId,
    pub(crate) packed: bool,
}

/// Data files to be removed once the commit that dropped them is durable.
#[derive(Debug, Default)]
pub(crate) struct DeadFiles {
    inner: Mutex<(Vec<DeadFile>, Vec<DeadFile>)>,
}

impl DeadFiles {
    /// Takes in what a commit dropped; `durable` says that this commit and all before it are.
    pub(crate) fn add(&self, mut dead: Vec<DeadFile>, durable: bool) {
        let (waiting, removable) = &mut *lock(&self.inner);
        waiting.append(&mut dead);
        if durable {
            removable.append(waiting);
        }
    }

    /// Those that may be removed now.
    pub(crate) fn take(&self) -> Vec<DeadFile> {
        std::mem::take(&mut lock(&self.inner).1)
    }
}

/// The error of an operation that needs space on a full disk.
pub(crate) fn no_space(layout: &Layout) -> Error {
    let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
    Error::Io {
        action: "write to",
        path: layout.root().to_owned(),
        source,
    }
}

//! The cache's directory: blocks of objects on a local disk.
//!
//! ```text
//! Disk ── Object ── Block ── Bytes      what callers see; each holds what is before it
//!  │        │
//!  │      table.rs, entry.rs            everything that is there, in memory
//!  ├─ file.rs, segment.rs, dir.rs       where the bytes are
//!  ├─ room.rs, rank.rs, evict.rs        how much there may be, and what goes first
//!  └─ changes.rs, index.rs, load.rs     what outlives the process
//! ```
//! An object of several blocks is a file, each block at its place in it, so that a complete one can
//! be handed to the kernel. Objects of one block share files.
//!
//! Whatever is lost or found wrong here is fetched again: a crash, a full disk or a flipped bit
//! costs time and no byte. Nothing here is async: what ends in `_blocking`, or says that it blocks,
//! waits for the disk, the rest never does.
//!
//! # Invariants
//! 1. A block is read only as what its CRC says it is.
//! 2. What is on the disk is never more than the limit, but for what the index has grown by in the
//!    last second; see `room.rs`.
//! 3. Everything is kept by origin, bucket, key, entity tag and size: nobody sees another origin's
//!    bytes, though they take space until they are evicted.

mod block;
mod changes;
mod dir;
mod entry;
mod error;
mod evict;
mod file;
mod health;
mod index;
mod load;
mod object;
mod put;
mod rank;
mod room;
mod segment;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use block::Block;
pub use error::{BlockError, DiskError, PutError};
pub use health::Health;
pub use object::{CompleteFile, Object};
pub use status::{LIST_MAX, ListPosition, Listed, Page, Status, Which};

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use forebay_store::time::{Clock, SystemClock};

use crate::version::Version;
use changes::{Changes, Writer};
use dir::{Directory, Found};
use entry::Slot;
use error::IoContext;
use evict::Space;
use file::OpenFiles;
use health::Condition;
use index::{Index, Reader};
use load::Known;
use rank::Ranks;
use room::Room;
use segment::Segments;
use status::Counters;
use table::Table;

/// By how much the index may be behind about when something was used when the cache is closed, in
/// seconds.
const USED_BEHIND_AT_CLOSE_MAX: u32 = 60;

/// Where a cache is, and how much it may take.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The directory; made if it is not there. It must hold nothing else.
    pub dir: PathBuf,
    /// Bytes that the cache may take on the disk: its blocks, and its index.
    pub size_limit: u64,
    /// Whose objects these are: what is kept for one origin is never given out for another.
    pub origin: String,
    /// Bytes of the file system that are left free. By default 1 % of it but at least 1 GiB, or
    /// 10 % of one so small that this would be more.
    pub free_floor: Option<u64>,
}

impl DiskConfig {
    /// With defaults for the rest.
    pub fn new(dir: impl Into<PathBuf>, size_limit: u64, origin: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            size_limit,
            origin: origin.into(),
            free_floor: None,
        }
    }
}

/// What only tests choose.
#[derive(Debug)]
struct Tuning {
    clock: Arc<dyn Clock>,
    seed: Option<u64>,
    /// Whether space is given back ahead of need.
    ahead: bool,
    /// Whether the index is within the limit.
    counts_index: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            seed: None,
            ahead: true,
            counts_index: true,
        }
    }
}

/// What all handles share.
#[derive(Debug)]
struct Shared {
    directory: Arc<Directory>,
    origin: String,
    clock: Arc<dyn Clock>,
    table: Table,
    files: OpenFiles,
    segments: Segments,
    ranks: Ranks,
    room: Room,
    changes: Changes,
    condition: Condition,
    counters: Counters,
    next_number: AtomicU64,
    counts_index: bool,
}

impl Shared {
    /// Nanoseconds since 1970.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().0).unwrap_or_default()
    }

    /// Notes that the disk did not take something.
    fn write_failed(&self, err: &io::Error) {
        self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
        self.condition.failed(err, self.now());
        if err.kind() == io::ErrorKind::StorageFull {
            // Somebody else filled the file system: go down to what the floor allows, at once, so
            // that the next one finds room.
            self.look();
            self.room.want();
        }
    }

    /// Looks up how full the file system is, and how large the index.
    fn look(&self) {
        if let Err(err) = self.try_look() {
            tracing::debug!(%err, "can't see how full the cache's file system is");
        }
    }

    fn try_look(&self) -> io::Result<()> {
        let index = if self.counts_index {
            self.directory.index_bytes()?
        } else {
            0
        };
        self.room.look(self.directory.root(), index)
    }

    /// Gives back blocks that are not to be used any more, before the end.
    fn settle(&self) {
        self.table.for_each(|entry| {
            let mut dead: Vec<u64> = Vec::new();
            let mut state = entry.lock();
            for run in 0..state.runs() {
                let Some((rank, blocks)) = state.run(run) else {
                    continue;
                };
                let first = (run * entry::RUN_BLOCKS) as u64;
                let gone = (first..)
                    .zip(blocks)
                    .filter(|(_, block)| block.slot == Slot::Dead && block.leases == 0)
                    .map(|(at, _)| at);
                dead.extend(gone);
                let behind = changes::seconds(rank.used).saturating_sub(rank.used_saved);
                if behind > USED_BEHIND_AT_CLOSE_MAX
                    && let Some(rank) = state.rank_mut(run)
                {
                    rank.changed = true;
                    self.changes.save(entry, &mut state);
                }
            }
            for block in &dead {
                state.set(*block, Slot::Busy);
            }
            drop(state);
            for block in dead {
                self.give_back(entry, &[block], Space::Taken);
            }
        });
    }

    /// Whether everything on the disk can be read, and so is in the index once that is written.
    fn is_settled(&self) -> bool {
        let mut settled = true;
        self.table.for_each(|entry| {
            let state = entry.lock();
            settled &= state.occupied == state.present;
        });
        settled
    }
}

/// A cache's directory, open. Dropping it closes it properly; bytes that somebody still has stay
/// readable, and the directory stays locked as long.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    reader: Mutex<Reader>,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    evictor: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

impl Disk {
    /// Opens a cache, made if it is not there. Blocks; reads the index, but no data.
    ///
    /// A cache of another format, or one whose index is damaged, is emptied, with a warning.
    ///
    /// # Errors
    /// `Locked`, `Foreign`, `Unsupported`, or that the directory or a new index can't be used.
    pub fn open(config: &DiskConfig) -> Result<Self, DiskError> {
        Self::open_tuned(config, Tuning::default())
    }

    fn open_tuned(config: &DiskConfig, tuning: Tuning) -> Result<Self, DiskError> {
        let (directory, found) = Directory::open(&config.dir)?;
        let directory = Arc::new(directory);
        if found == Found::Other {
            tracing::warn!(
                dir = %directory.root().display(),
                "the cache is of another format or damaged: it is emptied"
            );
            directory.empty()?;
        }
        directory.prepare()?;
        let ahead = tuning.ahead;
        let tuning = Arc::new(tuning);
        let started = match start(config, &tuning, &directory) {
            Ok(started) => started,
            Err(err) if found == Found::Ours && err.is_damage() => {
                tracing::warn!(
                    err = &err as &dyn std::error::Error,
                    dir = %directory.root().display(),
                    "the cache's index is damaged: the cache is emptied"
                );
                directory.empty()?;
                directory.prepare()?;
                start(config, &tuning, &directory)?
            }
            Err(err) => return Err(err),
        };
        let disk = Self {
            shared: started.shared,
            reader: Mutex::new(started.reader),
            threads: Mutex::default(),
        };
        disk.spawn(started.index, started.unclean, ahead)?;
        Ok(disk)
    }

    fn spawn(&self, index: Index, unclean: Option<Known>, ahead: bool) -> Result<(), DiskError> {
        let root = self.shared.directory.root();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::clone(&self.shared);
        let writer = Writer::new(index);
        let thread = std::thread::Builder::new().name("cache-index".to_owned());
        let spawned = thread.spawn(move || writer.run(&shared));
        threads.writer = Some(spawned.io("start a thread for", root)?);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("cache-room".to_owned());
        if unclean.is_none() {
            shared.room.set_ready();
        }
        let spawned = thread.spawn(move || {
            if let Some(known) = unclean
                && let Err(err) = load::reclaim(&shared, &known)
            {
                tracing::warn!(
                    err = &err as &dyn std::error::Error,
                    "can't look at the files of a cache that was not closed properly"
                );
            }
            shared.room.set_ready();
            if ahead {
                shared.keep_room();
            }
        });
        threads.evictor = Some(spawned.io("start a thread for", root)?);
        Ok(())
    }

    /// A handle of an object, for one visit: a request, or an open file. Cheap; never waits for the
    /// disk.
    pub fn object(&self, version: &Arc<Version>) -> Arc<Object> {
        Arc::new(Object::new(&self.shared, version))
    }

    /// The directory.
    pub fn dir(&self) -> &std::path::Path {
        self.shared.directory.root()
    }

    /// Waits until everything that was put so far would be found after a crash of this process.
    /// Otherwise that takes a second. Blocks.
    ///
    /// # Errors
    /// `Closed`: the cache was closed, or the index can't be written.
    pub fn flush_blocking(&self) -> Result<(), DiskError> {
        self.shared.changes.flush_blocking()
    }

    /// Closes the cache: everything is written to the index. Handles read on, but nothing is put
    /// any more. Blocks.
    pub fn close_blocking(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.room.stop();
        if let Some(thread) = threads.evictor.take() {
            join(thread);
        }
        if let Some(thread) = threads.writer.take() {
            self.shared.settle();
            self.shared.changes.close();
            join(thread);
        }
    }

    /// Ends as a process that is killed.
    #[cfg(test)]
    fn crash(self) {
        self.shared.changes.abandon();
        self.shared.room.stop();
        let mut threads = std::mem::take(&mut *self.threads.lock().unwrap());
        for thread in [threads.writer.take(), threads.evictor.take()] {
            join(thread.expect("a thread that was started"));
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the cache's disk panicked");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close_blocking();
    }
}

/// What a cache is made of, before its threads run.
struct Started {
    shared: Arc<Shared>,
    index: Index,
    reader: Reader,
    /// What the index knows, if the cache was not closed properly.
    unclean: Option<Known>,
}

/// Opens the index and takes in what it knows.
fn start(
    config: &DiskConfig,
    tuning: &Tuning,
    directory: &Arc<Directory>,
) -> Result<Started, DiskError> {
    let index = Index::open(&directory.index(), &config.origin)?;
    let shared = Shared {
        directory: Arc::clone(directory),
        origin: config.origin.clone(),
        clock: Arc::clone(&tuning.clock),
        table: Table::new(),
        files: OpenFiles::new(Arc::clone(directory)),
        segments: Segments::default(),
        ranks: Ranks::new(tuning.seed),
        room: Room::new(config.size_limit, config.free_floor),
        changes: Changes::default(),
        condition: Condition::default(),
        counters: Counters::default(),
        next_number: AtomicU64::new(1),
        counts_index: tuning.counts_index,
    };
    let known = load::load(&shared, &index)?;
    shared
        .try_look()
        .io("see how full the file system is of", directory.root())?;
    let reader = index.reader()?;
    let clean = index.begin()?;
    Ok(Started {
        shared: Arc::new(shared),
        index,
        reader,
        unclean: (!clean).then_some(known),
    })
}

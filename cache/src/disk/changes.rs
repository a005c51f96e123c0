//! What the index does not know yet, and the thread that tells it.
//!
//! Who changes an object only puts it in a queue; the writer looks once a second what has become of
//! everything in it. So an object that changes often is written once.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Shared;
use super::entry::{Entry, Part, RUN_BLOCKS, State};
use super::error::DiskError;
use super::index::{Change, Index, ObjectRow, RunRow};

/// How often the index is written.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// How long [`Changes::flush_blocking`] waits.
const FLUSH_WAIT_MAX: Duration = Duration::from_mins(1);
/// Changes of one transaction.
const BATCH_MAX: usize = 50_000;
/// Changes that may wait while the index can't be written.
const PENDING_MAX: usize = 1_000_000;

/// What the writer is to look at.
#[derive(Debug)]
pub(super) enum Item {
    /// An entry that changed.
    Save(Arc<Entry>),
    /// The number of an object that is gone.
    Delete(u64),
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// How often it was asked that everything be written now.
    asked: u64,
    /// Up to which of these it is.
    done: u64,
    closing: bool,
    /// For tests: end like a process that is killed.
    abandoned: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Changes {
    queue: Mutex<Queue>,
    wake: Condvar,
    written: Condvar,
}

impl Changes {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the writer look at an entry, whose state this is.
    pub(super) fn save(&self, entry: &Arc<Entry>, state: &mut State) {
        if !state.queued && state.number != 0 {
            state.queued = true;
            self.lock().items.push_back(Item::Save(Arc::clone(entry)));
        }
    }

    /// Has the writer delete an object.
    pub(super) fn delete(&self, number: u64) {
        self.lock().items.push_back(Item::Delete(number));
    }

    /// Waits until the index knows everything that was changed before.
    ///
    /// # Errors
    /// `Closed` if the cache was closed, or the index does not get on.
    pub(super) fn flush_blocking(&self) -> Result<(), DiskError> {
        let mut queue = self.lock();
        if queue.closing {
            return Err(DiskError::Closed);
        }
        queue.asked += 1;
        let asked = queue.asked;
        self.wake.notify_all();
        let deadline = Instant::now() + FLUSH_WAIT_MAX;
        while queue.done < asked {
            let left = deadline
                .checked_duration_since(Instant::now())
                .ok_or(DiskError::Closed)?;
            let woken = self.written.wait_timeout(queue, left);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Has the writer write everything and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Has the writer end at once.
    #[cfg(test)]
    pub(super) fn abandon(&self) {
        let mut queue = self.lock();
        (queue.closing, queue.abandoned) = (true, true);
        self.wake.notify_all();
    }
}

/// A change, and whose it is.
#[derive(Debug)]
struct Pending {
    change: Change,
    entry: Option<Arc<Entry>>,
}

/// The thread that writes the index.
#[derive(Debug)]
pub(super) struct Writer {
    index: Index,
    /// Taken from the queue, not written yet.
    pending: Vec<Change>,
    /// The new ones among them, with their numbers.
    new: Vec<(Arc<Entry>, u64)>,
    failing: bool,
    broken: bool,
}

impl Writer {
    pub(super) fn new(index: Index) -> Self {
        Self {
            index,
            pending: Vec::new(),
            new: Vec::new(),
            failing: false,
            broken: false,
        }
    }

    /// Writes until the cache is closed.
    pub(super) fn run(mut self, shared: &Shared) {
        loop {
            let (asked, closing) = {
                let queue = shared.changes.lock();
                let waited = shared
                    .changes
                    .wake
                    .wait_timeout_while(queue, FLUSH_AFTER, |q| q.asked == q.done && !q.closing);
                let queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                if queue.abandoned {
                    return;
                }
                (queue.asked, queue.closing)
            };
            self.write_all(shared);
            shared.changes.lock().done = asked;
            shared.changes.written.notify_all();
            if closing {
                break;
            }
        }
        let whole = self.pending.is_empty() && !self.broken;
        if whole
            && shared.is_settled()
            && let Err(err) = self.index.close_clean()
        {
            tracing::warn!(
                err = &err as &dyn std::error::Error,
                "the cache's index was not closed properly"
            );
        }
    }

    fn write_all(&mut self, shared: &Shared) {
        // That these are gone is in the queue.
        let freed = shared.segments.take_freed();
        if self.write_queue(shared) {
            shared.segments.reuse(freed);
        } else {
            shared.segments.keep_freed(freed);
        }
    }

    /// Writes what is in the queue; false if that failed, and is to be tried again.
    fn write_queue(&mut self, shared: &Shared) -> bool {
        loop {
            let items: Vec<_> = {
                let mut queue = shared.changes.lock();
                let count = queue.items.len().min(BATCH_MAX);
                queue.items.drain(..count).collect()
            };
            for item in items {
                self.take(item);
            }
            if self.pending.is_empty() || self.broken {
                self.pending.clear();
                return true;
            }
            if let Err(err) = self.index.write(&self.pending) {
                self.failed(shared, &err);
                return false;
            }
            self.failing = false;
            self.pending.clear();
            for (entry, number) in self.new.drain(..) {
                let mut state = entry.lock();
                if state.number == number {
                    state.unsaved = None;
                }
            }
        }
    }

    fn take(&mut self, item: Item) {
        let pending = match item {
            Item::Delete(number) => Some(Pending {
                change: Change::Delete(number),
                entry: None,
            }),
            Item::Save(entry) => snapshot(&entry).map(|change| Pending {
                change,
                entry: Some(entry),
            }),
        };
        let Some(Pending { change, entry }) = pending else {
            return;
        };
        if let (
            Change::Save {
                row,
                names: Some(_),
                ..
            },
            Some(entry),
        ) = (&change, entry)
        {
            self.new.push((entry, row.number));
        }
        self.pending.push(change);
    }

    fn failed(&mut self, shared: &Shared, err: &DiskError) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                err = err as &dyn std::error::Error,
                "can't write the cache's index; it is tried again"
            );
        }
        if !err.is_damage() && self.pending.len() < PENDING_MAX {
            return;
        }
        // What is read is checked by CRC, so nothing is wrong but the next start.
        self.broken = true;
        self.new.clear();
        tracing::error!(
            err = err as &dyn std::error::Error,
            "the cache's index is given up: the cache will be empty after the next start"
        );
        if let Err(err) = shared.directory.mark_damaged() {
            tracing::warn!(
                err = &err as &dyn std::error::Error,
                "can't mark the cache as damaged"
            );
        }
    }
}

/// Nanoseconds as whole seconds.
pub(super) fn seconds(nanos: u64) -> u32 {
    u32::try_from(nanos / 1_000_000_000).unwrap_or(u32::MAX)
}

/// What the index is to say of an entry; nothing if it is gone.
fn snapshot(entry: &Arc<Entry>) -> Option<Change> {
    let mut state = entry.lock();
    state.queued = false;
    if state.number == 0 {
        return None;
    }
    let mut runs = Vec::new();
    let mut used = 0;
    for run in 0..state.runs() {
        let Some(rank) = state.rank_mut(run) else {
            continue;
        };
        used = used.max(seconds(rank.used));
        if !std::mem::take(&mut rank.changed) {
            continue;
        }
        rank.used_saved = seconds(rank.used);
        if !entry.is_small() {
            let number = u32::try_from(run).expect("an object has fewer runs");
            runs.push((number, run_row(&state, run)?));
            state.shrink(run);
        }
    }
    let block = state.block(0);
    let small = state
        .place()
        .filter(|_| block.slot.is_readable())
        .map(|place| (place, block.crc));
    let part = match state.run(0) {
        Some((rank, _)) if entry.is_small() => rank.part,
        _ => Part::default(),
    };
    Some(Change::Save {
        row: ObjectRow {
            number: state.number,
            identity: entry.identity,
            size: entry.size,
            pinned: state.pinned,
            used,
            part,
            small,
        },
        names: state.unsaved.clone(),
        runs,
    })
}

fn run_row(state: &State, run: usize) -> Option<RunRow> {
    let (rank, blocks) = state.run(run)?;
    let mut row = RunRow {
        part: rank.part,
        used: seconds(rank.used),
        present: 0,
        crcs: [0; RUN_BLOCKS],
    };
    for (at, block) in blocks.iter().enumerate() {
        if block.slot.is_readable() {
            row.present |= 1 << at;
            row.crcs[at] = block.crc;
        }
    }
    Some(row)
}

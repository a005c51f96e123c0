//! How much space there is, and who has how much of it.
//!
//! Space is reserved before anything is written, and counted as free only after it was given back:
//! what is counted is never less than what is on the disk. Every block counts as whole pages of
//! 4 KiB.
//!
//! The index is within the limit too. How large it is is looked up once a second: what it has grown
//! by since, some hundred bytes for each object that came, is not counted yet.
//!
//! Besides the limit there is a floor: so much of the file system is left free. How much may be
//! used because of it is looked up once a second; what the cache itself writes or gives back does
//! not change it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_store::sys;

use super::error::PutError;

/// How long a writer waits for the cache to have counted what a crash left.
const READY_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a writer waits for another one's evictions.
const TURN_WAIT_MAX: Duration = Duration::from_millis(50);
/// From where on space is given back ahead of need, in percent of what may be used.
const HIGH_PERCENT: u64 = 95;
/// Down to where it is given back.
const LOW_PERCENT: u64 = 90;
/// What is left of a file system that nobody said anything about: a hundredth, but at least this.
const FLOOR_MIN: u64 = 1 << 30;

#[derive(Debug, Default)]
struct Gate {
    stopping: bool,
    /// Whether somebody wants space to be given back.
    wanted: bool,
    /// Threads that evict.
    evicting: u32,
    /// How often a thread has ended evicting.
    evicted: u64,
}

/// The space.
#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    floor: Option<u64>,
    /// What blocks may use now: the limit but for the index, or less because of the floor.
    cap: AtomicU64,
    /// Bytes of blocks.
    used: AtomicU64,
    /// Bytes of the index.
    index: AtomicU64,
    pub(super) protected: AtomicU64,
    pub(super) pinned: AtomicU64,
    /// Whether things may be put.
    ready: AtomicBool,
    gate: Mutex<Gate>,
    wake: Condvar,
    changed: Condvar,
}

impl Room {
    pub(super) fn new(limit: u64, floor: Option<u64>) -> Self {
        Self {
            limit,
            floor,
            cap: AtomicU64::new(limit),
            used: AtomicU64::new(0),
            index: AtomicU64::new(0),
            protected: AtomicU64::new(0),
            pinned: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            gate: Mutex::default(),
            wake: Condvar::new(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that blocks use, what is being written included.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Bytes that the index takes.
    pub(super) fn index(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// Bytes that blocks may use now.
    pub(super) fn cap(&self) -> u64 {
        self.cap.load(Ordering::Acquire)
    }

    /// The limit that was asked for.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Counts what is there already.
    pub(super) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Counts what has been given back.
    pub(super) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Reserves bytes, or says how many have to go first.
    pub(super) fn try_reserve(&self, bytes: u64) -> Result<(), u64> {
        let cap = self.cap();
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= cap)
            })
            .map(drop)
            .map_err(|used| used.saturating_add(bytes).saturating_sub(cap).max(1))
    }

    /// Looks up how much may be used because of the floor, and of an index of so many bytes.
    pub(super) fn look(&self, root: &Path, index: u64) -> io::Result<()> {
        let used = self.used();
        let (total, free, _) = sys::statvfs(root)?;
        let floor = self.floor.unwrap_or_else(|| {
            // A file system so small that 1 GiB is much of it is a test's, or a RAM disk.
            (total / 100).max(FLOOR_MIN).min(total / 10)
        });
        let most = (used.saturating_add(free)).saturating_sub(floor);
        self.index.store(index, Ordering::Release);
        // What is free of the file system is so without the index already.
        let cap = self.limit.saturating_sub(index).min(most);
        self.cap.store(cap, Ordering::Release);
        Ok(())
    }

    /// How many bytes are to go now, ahead of need.
    pub(super) fn excess(&self) -> u64 {
        let (used, cap) = (self.used(), self.cap());
        if used <= percent(cap, HIGH_PERCENT) {
            return 0;
        }
        used - percent(cap, LOW_PERCENT)
    }

    /// Wakes the thread that gives space back.
    pub(super) fn want(&self) {
        self.lock().wanted = true;
        self.wake.notify_all();
    }

    /// Waits until space is wanted, or for a while; false if it is time to end.
    pub(super) fn wait_wanted(&self, at_most: Duration) -> bool {
        let waited = self
            .wake
            .wait_timeout_while(self.lock(), at_most, |gate| !gate.wanted && !gate.stopping);
        let mut gate = waited.unwrap_or_else(PoisonError::into_inner).0;
        gate.wanted = false;
        !gate.stopping
    }

    /// Lets things be put from now on.
    pub(super) fn set_ready(&self) {
        let gate = self.lock();
        if !gate.stopping {
            self.ready.store(true, Ordering::Release);
        }
        drop(gate);
        self.changed.notify_all();
    }

    /// Lets nothing be put any more, and ends the thread that gives space back.
    pub(super) fn stop(&self) {
        let mut gate = self.lock();
        gate.stopping = true;
        self.ready.store(false, Ordering::Release);
        drop(gate);
        self.wake.notify_all();
        self.changed.notify_all();
    }

    /// Waits until things may be put.
    pub(super) fn wait_ready(&self) -> Result<(), PutError> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), READY_WAIT_MAX, |gate| {
                !self.ready.load(Ordering::Acquire) && !gate.stopping
            });
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        if self.ready.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(PutError::NotReady)
        }
    }

    /// Notes that this thread begins to evict; gives what [`end_evicting`](Self::end_evicting)
    /// needs to know.
    pub(super) fn begin_evicting(&self) -> u64 {
        let mut gate = self.lock();
        gate.evicting += 1;
        gate.evicted
    }

    /// Notes that this thread has ended to evict. If it found nothing, waits for another one that
    /// began before; whether it makes sense to try again.
    pub(super) fn end_evicting(&self, began: u64, found: bool) -> bool {
        let mut gate = self.lock();
        gate.evicting -= 1;
        // What another thread took and could not use is back now.
        let others_ended = gate.evicted != began;
        gate.evicted += 1;
        self.changed.notify_all();
        if found || others_ended {
            return true;
        }
        if gate.evicting == 0 {
            return false;
        }
        let before = gate.evicted;
        let waited = self
            .changed
            .wait_timeout_while(gate, TURN_WAIT_MAX, |gate| gate.evicted == before);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// Until when a writer may go on trying to find room.
    pub(super) fn deadline() -> Instant {
        Instant::now() + READY_WAIT_MAX
    }
}

/// A part of some bytes.
pub(super) fn percent(of: u64, percent: u64) -> u64 {
    of / 100 * percent + of % 100 * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_reserved_than_there_is() {
        let room = Room::new(100, None);
        room.try_reserve(60).unwrap();
        assert_eq!(room.try_reserve(50), Err(10));
        room.try_reserve(40).unwrap();
        assert_eq!((room.used(), room.excess()), (100, 10));
        room.release(60);
        assert_eq!((room.used(), room.excess()), (40, 0));
    }

    #[test]
    fn the_floor_lowers_what_may_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(1 << 20, Some(u64::MAX));
        room.add(4096);
        room.look(dir.path(), 0).unwrap();
        assert_eq!(room.cap(), 0);
        assert_eq!(room.excess(), 4096);
        let room = Room::new(1 << 20, Some(0));
        room.look(dir.path(), 0).unwrap();
        assert_eq!(room.cap(), 1 << 20);
        room.look(dir.path(), 4096).unwrap();
        assert_eq!((room.cap(), room.index()), ((1 << 20) - 4096, 4096));
        room.look(dir.path(), 2 << 20).unwrap();
        assert_eq!(room.cap(), 0, "an index alone may be too much");
    }

    #[test]
    fn nothing_is_put_before_it_is_ready_or_after_the_end() {
        let room = Room::new(1, None);
        room.set_ready();
        room.wait_ready().unwrap();
        room.stop();
        room.set_ready();
        assert!(matches!(room.wait_ready(), Err(PutError::NotReady)));
        assert!(!room.wait_wanted(Duration::from_secs(9)));
    }
}

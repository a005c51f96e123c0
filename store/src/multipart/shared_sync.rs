//! Syncing the file that an upload's parts share.
//!
//! Linux tells of a page that could not be written once per descriptor, and counts the page as
//! clean from then on. Parts that sync one file each for itself could so be told that all is well
//! by a sync beside the one that failed. Here one sync runs at a time, for everybody who waits; a
//! sync counts for those whose bytes were written before it began.
//!
//! # Invariants
//! 1. After a failed sync none is tried again, and nobody is told that bytes are safe.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::Result;
use crate::shared::lock;

#[derive(Debug, Default)]
struct State {
    /// Syncs that have begun.
    begun: u64,
    /// The last sync that succeeded.
    done: u64,
    running: bool,
    failed: bool,
}

/// The syncs of one file.
#[derive(Debug, Default)]
pub(crate) struct SharedSync {
    state: Mutex<State>,
    ended: Condvar,
}

impl SharedSync {
    /// Whether a sync has failed.
    pub(super) fn has_failed(&self) -> bool {
        lock(&self.state).failed
    }

    /// Has everything that is written so far synced by `sync`, which may run for others, too; false
    /// if a sync failed that somebody else has run. Blocks.
    ///
    /// # Errors
    /// What `sync` gave.
    pub(super) fn sync_blocking(&self, sync: impl FnOnce() -> Result<()>) -> Result<bool> {
        let mut state = lock(&self.state);
        // One that is running may have passed the bytes before they were written.
        let wanted = state.begun + 1;
        while state.running && state.done < wanted {
            let woken = self.ended.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed {
            return Ok(false);
        }
        if state.done >= wanted {
            return Ok(true);
        }
        state.begun += 1;
        state.running = true;
        let mine = state.begun;
        drop(state);
        let synced = sync();
        let mut state = lock(&self.state);
        state.running = false;
        match synced {
            Ok(()) => state.done = mine,
            Err(_) => state.failed = true,
        }
        drop(state);
        self.ended.notify_all();
        synced.map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::error::Error;

    #[test]
    fn a_sync_counts_for_those_who_waited_for_it_to_begin() {
        let shared = Arc::new(SharedSync::default());
        let (syncs, written) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let (shared, syncs, written) = (
                    Arc::clone(&shared),
                    Arc::clone(&syncs),
                    Arc::clone(&written),
                );
                thread::spawn(move || {
                    let before = written.fetch_add(1, Ordering::SeqCst) + 1;
                    let mut covered = usize::MAX;
                    let done = shared.sync_blocking(|| {
                        covered = written.load(Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(5));
                        syncs.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    });
                    assert!(done.unwrap());
                    assert!(covered >= before);
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let syncs = syncs.load(Ordering::SeqCst);
        assert!((1..=16).contains(&syncs), "{syncs} syncs");
    }

    #[test]
    fn nobody_is_told_that_all_is_well_after_a_failure() {
        let shared = Arc::new(SharedSync::default());
        let other = Arc::clone(&shared);
        let mut beside = None;
        let failed = shared.sync_blocking(|| {
            // Another part's bytes are there; its own sync would find nothing wrong.
            beside = Some(thread::spawn(move || other.sync_blocking(|| Ok(()))));
            thread::sleep(Duration::from_millis(20));
            Err(Error::Closed)
        });
        assert!(failed.is_err() && shared.has_failed());
        assert!(!beside.unwrap().join().unwrap().unwrap());
        assert!(!shared.sync_blocking(|| Ok(())).unwrap());
    }
}

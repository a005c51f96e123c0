//! Whether the disk takes blocks.
//!
//! A disk that keeps nothing would make reads dearer than they are without a cache, since each
//! fetches whole blocks. So after a few refusals in a row reads fetch only what they ask for, and
//! from time to time they try to fill again to see whether that works.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fetch::blocks::NotKept;

/// Refusals in a row after which reads don't fill.
const REFUSALS_MAX: u32 = 3;
/// How long it is not said again in the log that there is no room.
const SILENCE: Duration = Duration::from_mins(10);

#[derive(Debug, Default)]
struct Moments {
    /// When to try again.
    retry_at: Option<Instant>,
    /// When it was last said that there is no room.
    said_at: Option<Instant>,
}

/// How the disk took the last blocks.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    in_a_row: AtomicU32,
    moments: Mutex<Moments>,
}

impl Refusals {
    fn moments(&self) -> MutexGuard<'_, Moments> {
        // Two values that don't depend on each other.
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block was kept.
    pub(crate) fn kept(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// A block was not kept; try again after a while.
    pub(crate) fn refused(&self, err: &NotKept, retry_after: Duration) {
        if let NotKept::InUse(_) = err {
            return;
        }
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut moments = self.moments();
        moments.retry_at = Some(now + retry_after);
        if let NotKept::NoRoom(why) = err
            && moments.said_at.is_none_or(|said| now - said > SILENCE)
        {
            moments.said_at = Some(now);
            tracing::warn!("blocks are not kept: {why}; reads go past the cache meanwhile");
        }
    }

    /// Whether there is no point in filling now.
    pub(crate) fn is_futile(&self) -> bool {
        // No lock as long as all is well.
        self.in_a_row.load(Ordering::Relaxed) >= REFUSALS_MAX
            && self
                .moments()
                .retry_at
                .is_some_and(|at| Instant::now() < at)
    }
}

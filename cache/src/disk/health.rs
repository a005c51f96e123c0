//! Whether the disk takes what is written.
//!
//! After [`FAILURES_MAX`] failures in a row nothing is written any more, except for one attempt
//! every [`RETRY_AFTER`]. What is there can still be read.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::PutError;

/// Failures in a row after which the disk is degraded.
const FAILURES_MAX: u32 = 3;
/// How long a degraded disk is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// How the disk does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes what is written.
    Good,
    /// Nothing is cached any more; what is there is read. It says why.
    Degraded(String),
}

#[derive(Debug)]
struct Trouble {
    why: String,
    /// In nanoseconds since 1970.
    retry_at: u64,
}

/// What is known of the disk's health.
#[derive(Debug, Default)]
pub(super) struct Condition {
    failures: AtomicU32,
    trouble: Mutex<Option<Trouble>>,
}

impl Condition {
    fn lock(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something may be written at this time.
    pub(super) fn admit(&self, now: u64) -> Result<(), PutError> {
        if self.failures.load(Ordering::Relaxed) < FAILURES_MAX {
            return Ok(());
        }
        match &mut *self.lock() {
            Some(trouble) if now < trouble.retry_at => Err(PutError::Degraded(trouble.why.clone())),
            Some(trouble) => {
                trouble.retry_at = retry_at(now);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Notes that a write failed.
    pub(super) fn failed(&self, err: &io::Error, now: u64) {
        let failures = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                Some(count.saturating_add(1))
            })
            .unwrap_or_default()
            .saturating_add(1);
        if failures < FAILURES_MAX {
            return;
        }
        let mut trouble = self.lock();
        if trouble.is_none() {
            tracing::warn!(%err, "the cache's disk fails: nothing is cached until it recovers");
        }
        *trouble = Some(Trouble {
            why: err.to_string(),
            retry_at: retry_at(now),
        });
    }

    /// Notes that a write was done.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.failures.store(0, Ordering::Relaxed);
        if self.lock().take().is_some() {
            tracing::info!("the cache's disk works again");
        }
    }

    pub(super) fn health(&self) -> Health {
        match &*self.lock() {
            Some(trouble) => Health::Degraded(trouble.why.clone()),
            None => Health::Good,
        }
    }
}

fn retry_at(now: u64) -> u64 {
    let after = u64::try_from(RETRY_AFTER.as_nanos()).expect("seconds fit");
    now.saturating_add(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_goes_on_failing_is_left_alone_and_tried_again() {
        let condition = Condition::default();
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let second = 1_000_000_000;
        for _ in 0..FAILURES_MAX {
            condition.admit(0).unwrap();
            assert_eq!(condition.health(), Health::Good);
            condition.failed(&full, 0);
        }
        assert!(matches!(condition.health(), Health::Degraded(_)));
        assert!(condition.admit(29 * second).is_err());
        condition.admit(30 * second).unwrap();
        assert!(
            condition.admit(31 * second).is_err(),
            "one attempt at a time"
        );
        condition.succeeded();
        assert_eq!(condition.health(), Health::Good);
        condition.admit(31 * second).unwrap();
    }

    #[test]
    fn a_success_between_failures_forgives_them() {
        let condition = Condition::default();
        let full = io::Error::from(io::ErrorKind::StorageFull);
        for _ in 0..5 {
            condition.failed(&full, 0);
            condition.succeeded();
        }
        assert_eq!(condition.health(), Health::Good);
    }
}

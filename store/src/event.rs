//! What changed, in order.
//!
//! The committer posts a change after its transaction is committed and the in-memory caches have
//! dropped the key. A subscriber takes changes one by one and acknowledges each; an S3 change is
//! answered only when every subscriber has acknowledged it, or after
//! [`DELIVERY_WAIT_MAX`](crate::api::DELIVERY_WAIT_MAX).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::Face;
use crate::entry::{Bucket, BucketId};
use crate::name::ObjectKey;

/// What happened to a key or a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The key has a new current version, with this inode number.
    Published {
        /// Inode number of the new version.
        ino: u64,
    },
    /// The key has no current version any more.
    Deleted,
    /// All keys that begin with the key now begin with this instead; a directory was renamed.
    RenamedTree {
        /// The new beginning.
        to: String,
    },
    /// The bucket was made; the key is empty.
    BucketCreated(Arc<Bucket>),
    /// The bucket was deleted; the key is empty.
    BucketDeleted(Arc<Bucket>),
}

/// A change that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order of all changes.
    pub sequence: u64,
    /// Where.
    pub bucket: BucketId,
    /// What; `None` if the bucket itself changed.
    pub key: Option<ObjectKey>,
    /// What happened.
    pub kind: ChangeKind,
    /// Which face made it.
    pub face: Face,
}

#[derive(Debug)]
struct Queue {
    skip: Face,
    waiting: Mutex<VecDeque<Change>>,
    arrived: Condvar,
    /// Highest sequence that the subscriber has dealt with.
    acknowledged: AtomicU64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Change>> {
        // A panic elsewhere leaves the queue itself whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subscriber's end of the change feed.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    progress: Arc<Notify>,
}

impl Subscription {
    /// The next change; `None` if none came within `wait`.
    pub fn next_blocking(&self, wait: Duration) -> Option<Change> {
        let deadline = Instant::now() + wait;
        let mut waiting = self.queue.lock();
        loop {
            if let Some(change) = waiting.pop_front() {
                return Some(change);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.queue.arrived.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says that this change, and all before it, have been dealt with.
    pub fn acknowledge(&self, sequence: u64) {
        self.queue
            .acknowledged
            .fetch_max(sequence, Ordering::AcqRel);
        self.progress.notify_waiters();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.acknowledge(u64::MAX);
    }
}

/// The store's end of the change feed.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    subscribers: Mutex<Vec<Weak<Queue>>>,
    progress: Arc<Notify>,
}

impl Feed {
    pub(crate) fn subscribe(&self, skip: Face, from: u64) -> Subscription {
        let queue = Arc::new(Queue {
            skip,
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            acknowledged: AtomicU64::new(from),
        });
        self.lock().push(Arc::downgrade(&queue));
        Subscription {
            queue,
            progress: Arc::clone(&self.progress),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands committed changes to every subscriber, in the order given.
    pub(crate) fn post(&self, changes: &[Change]) {
        let mut subscribers = self.lock();
        subscribers.retain(|queue| queue.strong_count() > 0);
        for queue in subscribers.iter().filter_map(Weak::upgrade) {
            let mut waiting = queue.lock();
            let wanted = changes.iter().filter(|change| change.face != queue.skip);
            let before = waiting.len();
            waiting.extend(wanted.cloned());
            if waiting.len() > before {
                queue.arrived.notify_one();
            }
        }
    }

    /// Waits until every subscriber that must see it has dealt with `sequence`; false after `wait`.
    pub(crate) async fn delivered(&self, sequence: u64, face: Face, wait: Duration) -> bool {
        let done = || {
            let subscribers = self.lock();
            let mut behind = subscribers
                .iter()
                .filter_map(Weak::upgrade)
                .filter(|queue| queue.skip != face);
            behind.all(|queue| queue.acknowledged.load(Ordering::Acquire) >= sequence)
        };
        let all = async {
            loop {
                let progress = self.progress.notified();
                tokio::pin!(progress);
                progress.as_mut().enable();
                if done() {
                    return;
                }
                progress.await;
            }
        };
        done() || tokio::time::timeout(wait, all).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(sequence: u64, face: Face) -> Change {
        Change {
            sequence,
            bucket: BucketId(1),
            key: None,
            kind: ChangeKind::Deleted,
            face,
        }
    }

    #[test]
    fn a_subscriber_gets_the_others_changes_in_order() {
        let feed = Feed::default();
        let subscription = feed.subscribe(Face::Mount, 0);
        feed.post(&[
            change(1, Face::S3),
            change(2, Face::Mount),
            change(3, Face::S3),
        ]);
        let next = || {
            subscription
                .next_blocking(Duration::ZERO)
                .map(|change| change.sequence)
        };
        assert_eq!([next(), next(), next()], [Some(1), Some(3), None]);
    }

    #[tokio::test]
    async fn a_change_is_delivered_when_it_is_acknowledged() {
        let feed = Feed::default();
        assert!(
            feed.delivered(1, Face::S3, Duration::ZERO).await,
            "nobody listens"
        );
        let subscription = feed.subscribe(Face::Mount, 0);
        feed.post(&[change(1, Face::S3)]);
        assert!(!feed.delivered(1, Face::S3, Duration::from_millis(1)).await);
        assert!(
            feed.delivered(1, Face::Mount, Duration::ZERO).await,
            "its own change"
        );
        subscription.acknowledge(1);
        assert!(feed.delivered(1, Face::S3, Duration::ZERO).await);
        drop(subscription);
        assert!(feed.delivered(9, Face::S3, Duration::ZERO).await);
    }
}

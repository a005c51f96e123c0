//! What changed, in order.
//!
//! The committer posts a change after its transaction is committed and the in-memory caches have
//! dropped the key. A subscriber takes changes one by one and acknowledges each; an S3 change is
//! answered only when every subscriber has acknowledged it, or after
//! [`DELIVERY_WAIT_MAX`](crate::api::DELIVERY_WAIT_MAX).
//!
//! Who is far away asks for what came after a [`Position`] instead, and holds up nobody. The last
//! changes are kept in memory for that, up to [`TAIL_SIZE_MAX`]; who is further behind, or asks
//! after a restart, is told that there is a gap. Sequences are not kept over a restart: a deferred
//! change is made known before it is durable, so one that a power cut took back may have been seen.
//!
//! # Invariants
//! 1. Whoever is told no gap has been given every change since, in order.
//! 2. What is looked at after a position was given holds every change up to it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::Face;
use crate::entry::{Bucket, BucketId};
use crate::name::ObjectKey;

/// What the changes that are kept for who asks later take in memory, in bytes.
pub const TAIL_SIZE_MAX: usize = 4 << 20;

/// What happened to a key or a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The key has a new current version, with this inode number.
    Published {
        /// Inode number of the new version; 0 if it is not known yet.
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
    /// Accounts or access keys changed; it is of no bucket ([`NO_BUCKET`]).
    AccountsChanged,
}

/// The bucket of a change that is of none; no bucket has this number.
pub const NO_BUCKET: BucketId = BucketId(0);

/// A change that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order of all changes.
    pub sequence: u64,
    /// Where; [`NO_BUCKET`] if nothing in a bucket changed.
    pub bucket: BucketId,
    /// What; `None` if the bucket itself changed, or no bucket did.
    pub key: Option<ObjectKey>,
    /// What happened.
    pub kind: ChangeKind,
    /// Which face made it.
    pub face: Face,
}

/// A place in the change feed: after one change and before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which run of the store: chosen at random when it is opened.
    pub epoch: u64,
    /// The last change before it; 0 at the beginning.
    pub sequence: u64,
}

/// What came after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// All changes, or the first of them.
    Changes {
        /// In order; empty if there was none.
        changes: Vec<Change>,
        /// Where to go on.
        next: Position,
    },
    /// What came is not known any more: look at everything anew.
    Gap {
        /// Where to go on: taken before the look, so that nothing is missed between.
        now: Position,
    },
}

/// The last changes.
#[derive(Debug, Default)]
struct Tail {
    changes: VecDeque<Change>,
    /// What they take, in bytes.
    size: usize,
    /// Sequence of the last change posted.
    last: u64,
}

/// What a change takes in memory, in bytes.
fn memory_of(change: &Change) -> usize {
    let key = change.key.as_ref().map_or(0, |key| key.as_str().len());
    let to = match &change.kind {
        ChangeKind::RenamedTree { to } => to.len(),
        _ => 0,
    };
    size_of::<Change>() + key + to
}

impl Tail {
    fn push(&mut self, change: &Change) {
        self.last = change.sequence;
        self.size += memory_of(change);
        self.changes.push_back(change.clone());
        while self.size > TAIL_SIZE_MAX
            && let Some(oldest) = self.changes.pop_front()
        {
            self.size -= memory_of(&oldest);
        }
    }

    /// Up to `limit` changes after a sequence; `None` if some are not kept any more, or the
    /// sequence was never given.
    fn after(&self, sequence: u64, limit: usize) -> Option<Vec<Change>> {
        let before = self.changes.front().map_or(self.last, |oldest| {
            // The first change has sequence 1.
            oldest.sequence.saturating_sub(1)
        });
        if !(before..=self.last).contains(&sequence) {
            return None;
        }
        let from = self
            .changes
            .partition_point(|change| change.sequence <= sequence);
        Some(self.changes.range(from..).take(limit).cloned().collect())
    }
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

/// The end of the change feed of whoever knows of the changes.
#[derive(Debug)]
pub struct Feed {
    epoch: u64,
    subscribers: Mutex<Vec<Weak<Queue>>>,
    progress: Arc<Notify>,
    tail: Mutex<Tail>,
    grown: Notify,
}

impl Feed {
    /// A feed without changes; `epoch` is to be another than that of every feed before.
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            subscribers: Mutex::default(),
            progress: Arc::default(),
            tail: Mutex::default(),
            grown: Notify::new(),
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // A panic elsewhere leaves the tail itself whole.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, sequence: u64) -> Position {
        Position {
            epoch: self.epoch,
            sequence,
        }
    }

    /// Where the feed is now.
    pub(crate) fn position(&self) -> Position {
        self.at(self.tail().last)
    }

    /// What came after a position so far.
    fn since_now(&self, after: Position, limit: usize) -> Since {
        let tail = self.tail();
        let known = (after.epoch == self.epoch).then(|| tail.after(after.sequence, limit));
        match known.flatten() {
            Some(changes) => {
                let last = changes.last().map_or(after.sequence, |last| last.sequence);
                let next = self.at(last);
                Since::Changes { changes, next }
            }
            None => Since::Gap {
                now: self.at(tail.last),
            },
        }
    }

    /// Up to `limit` (at least one) changes after a position; waits up to `wait` for the first.
    pub(crate) async fn since(&self, after: Position, limit: usize, wait: Duration) -> Since {
        let some = async {
            loop {
                let grown = self.grown.notified();
                tokio::pin!(grown);
                grown.as_mut().enable();
                match self.since_now(after, limit.max(1)) {
                    Since::Changes { changes, .. } if changes.is_empty() => grown.await,
                    since => return since,
                }
            }
        };
        let waited = tokio::time::timeout(wait, some).await;
        waited.unwrap_or_else(|_| self.since_now(after, limit.max(1)))
    }

    /// All changes posted from now on that `skip` did not make; those up to `from` count as
    /// acknowledged.
    pub fn subscribe(&self, skip: Face, from: u64) -> Subscription {
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
    pub fn post(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut tail = self.tail();
        for change in changes {
            tail.push(change);
        }
        drop(tail);
        self.grown.notify_waiters();
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
        let feed = Feed::new(7);
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
        let feed = Feed::new(7);
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

    fn sequences(since: &Since) -> Option<Vec<u64>> {
        match since {
            Since::Changes { changes, next } => {
                let all: Vec<u64> = changes.iter().map(|change| change.sequence).collect();
                assert!(all.last().is_none_or(|last| *last == next.sequence));
                Some(all)
            }
            Since::Gap { .. } => None,
        }
    }

    #[tokio::test]
    async fn who_asks_gets_what_came_since_from_any_face_page_by_page() {
        let feed = Feed::new(7);
        let start = feed.position();
        assert_eq!((start.epoch, start.sequence), (7, 0));
        let none = feed.since(start, 10, Duration::ZERO).await;
        assert_eq!(sequences(&none), Some(Vec::new()));
        feed.post(&[change(1, Face::S3), change(2, Face::Mount)]);
        feed.post(&[change(3, Face::S3)]);
        let first = feed.since(start, 2, Duration::ZERO).await;
        assert_eq!(sequences(&first), Some(vec![1, 2]));
        let Since::Changes { next, .. } = first else {
            unreachable!("looked at above")
        };
        let second = feed.since(next, 2, Duration::ZERO).await;
        assert_eq!(sequences(&second), Some(vec![3]));
    }

    #[tokio::test]
    async fn who_asks_early_waits_for_the_next_change() {
        let feed = Arc::new(Feed::new(7));
        let position = feed.position();
        let waiting = Arc::clone(&feed);
        let asked = tokio::spawn(async move {
            let wait = Duration::from_mins(1);
            waiting.since(position, 10, wait).await
        });
        tokio::task::yield_now().await;
        feed.post(&[change(1, Face::S3)]);
        assert_eq!(sequences(&asked.await.unwrap()), Some(vec![1]));
    }

    #[tokio::test]
    async fn who_is_too_far_behind_is_told_of_a_gap() {
        let feed = Feed::new(7);
        let start = feed.position();
        let key = ObjectKey::parse(&"k".repeat(1000)).unwrap();
        let count = (TAIL_SIZE_MAX / 1000) as u64;
        for sequence in 1..=count {
            feed.post(&[Change {
                key: Some(key.clone()),
                ..change(sequence, Face::S3)
            }]);
        }
        let (oldest, size) = {
            let tail = feed.tail();
            (tail.changes.front().unwrap().sequence, tail.size)
        };
        assert!(oldest > 1 && size <= TAIL_SIZE_MAX);
        let gap = feed.since(start, 10, Duration::ZERO).await;
        assert_eq!(
            gap,
            Since::Gap {
                now: feed.at(count)
            }
        );
        let just_lost = feed.since(feed.at(oldest - 2), 1, Duration::ZERO).await;
        assert_eq!(sequences(&just_lost), None);
        let just_kept = feed.since(feed.at(oldest - 1), 1, Duration::ZERO).await;
        assert_eq!(sequences(&just_kept), Some(vec![oldest]));
    }

    #[tokio::test]
    async fn a_position_of_another_run_or_of_the_future_is_a_gap() {
        let feed = Feed::new(7);
        feed.post(&[change(1, Face::S3)]);
        for (epoch, sequence) in [(6, 0), (6, 1), (8, 1), (7, 2), (7, u64::MAX)] {
            let since = feed.since(Position { epoch, sequence }, 10, Duration::ZERO);
            assert_eq!(since.await, Since::Gap { now: feed.at(1) });
        }
    }
}

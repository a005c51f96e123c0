//! Keys whose files are being closed on the mount.
//!
//! `close(2)` does not wait for the kernel's last word about a file, upon which the file is
//! published. So that an S3 request after `close` sees what was written, the mount announces a key
//! when it hears of a `close`, and S3 waits for the publication.
//!
//! A `close` of one of several descriptors looks the same and is followed by nothing: an
//! announcement counts for [`CLOSING_WAIT_MAX`]. Once the publication has begun it will end, and is
//! waited for as long as a disk may take.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::api::CLOSING_WAIT_MAX;
use crate::entry::BucketId;
use crate::name::ObjectKey;
use crate::shared::lock;

/// How long a publication that has begun is waited for.
const PUBLISHING_WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
struct Announced {
    /// Until when it counts.
    until: Instant,
}

/// The keys, with what was announced of each.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    count: AtomicUsize,
    keys: Mutex<HashMap<(BucketId, ObjectKey), Announced>>,
    closed: Notify,
}

impl Closing {
    /// A descriptor of the key's file was closed.
    pub(crate) fn begin(&self, bucket: BucketId, key: &ObjectKey) {
        self.announce(bucket, key, CLOSING_WAIT_MAX);
    }

    /// The key's file is being published.
    pub(crate) fn publishing(&self, bucket: BucketId, key: &ObjectKey) {
        self.announce(bucket, key, PUBLISHING_WAIT_MAX);
    }

    fn announce(&self, bucket: BucketId, key: &ObjectKey, wait: Duration) {
        let announced = Announced {
            until: Instant::now() + wait,
        };
        let mut keys = lock(&self.keys);
        keys.insert((bucket, key.clone()), announced);
        self.count.store(keys.len(), Ordering::Release);
    }

    /// The key's file was published, or will not be.
    pub(crate) fn end(&self, bucket: BucketId, key: &ObjectKey) {
        let mut keys = lock(&self.keys);
        if keys.remove(&(bucket, key.clone())).is_some() {
            self.count.store(keys.len(), Ordering::Release);
            drop(keys);
            self.closed.notify_waiters();
        }
    }

    /// Whether nothing is being closed: the common case, without a lock.
    pub(crate) fn is_idle(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Until when a file of the key (of any key, if `None`) may be being closed; drops what does
    /// not count any more.
    fn busy_until(&self, bucket: BucketId, key: Option<&ObjectKey>) -> Option<Instant> {
        let now = Instant::now();
        let mut keys = lock(&self.keys);
        keys.retain(|_, announced| announced.until > now);
        self.count.store(keys.len(), Ordering::Release);
        let announced = if let Some(key) = key {
            keys.get(&(bucket, key.clone())).copied()
        } else {
            let all = keys.iter().filter(|((of, _), _)| *of == bucket);
            all.map(|(_, announced)| *announced)
                .max_by_key(|it| it.until)
        };
        announced.map(|announced| announced.until)
    }

    /// Waits until no file of the key (of any key, if `None`) is being closed; not forever.
    pub(crate) async fn wait(&self, bucket: BucketId, key: Option<&ObjectKey>) {
        if self.is_idle() {
            return;
        }
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            let Some(until) = self.busy_until(bucket, key) else {
                return;
            };
            // Whether it was closed or the time is over, the next look says.
            let _waited = tokio::time::timeout_at(until.into(), closed).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_publication_is_waited_for_and_a_mere_close_not_for_long() {
        let (closing, key) = (Closing::default(), ObjectKey::parse("k").unwrap());
        let bucket = BucketId(1);
        let wait = || closing.wait(bucket, Some(&key));
        wait().await;
        closing.begin(bucket, &key);
        assert!(!closing.is_idle());
        wait().await;
        assert!(closing.is_idle(), "an announcement does not count for ever");
        closing.publishing(bucket, &key);
        let short = tokio::time::timeout(2 * CLOSING_WAIT_MAX, wait());
        assert!(short.await.is_err(), "a publication is waited for");
        let other = ObjectKey::parse("other").unwrap();
        closing.wait(bucket, Some(&other)).await;
        closing.end(bucket, &key);
        wait().await;
        assert!(closing.is_idle());
    }
}

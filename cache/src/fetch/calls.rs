//! Calls of the disk, which block, and how long they may take.
//!
//! A disk that fails says so; one that hangs says nothing, and whoever waits for it would wait for
//! ever, with the memory of what it was to keep, and the threads. So each call has until
//! [`FetchConfig::disk_wait`](super::FetchConfig::disk_wait); then its caller goes on without it.
//! The thread can't be had back, but from then on the disk is taken for *stuck* until every call
//! that is overdue has ended: nothing is begun that might hang too, and reads go past the disk.
//!
//! # Invariants
//! 1. No more than [`CALLS_MAX`] threads are in calls: a disk that hangs leaves threads to others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Calls at a time.
const CALLS_MAX: usize = 128;

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It took too long, or others do.
    #[error("the cache's disk does not answer")]
    Overdue,
    /// It panicked, or the runtime stops.
    #[error("a call of the cache's disk broke off")]
    Broken,
}

/// Calls that are under way: when they began, in that order.
#[derive(Debug, Default)]
struct Running {
    began: BTreeMap<u64, Instant>,
    next: u64,
}

#[derive(Debug)]
struct Shared {
    running: Mutex<Running>,
    wait: Duration,
    /// Whether it was said that the disk is stuck.
    said: AtomicBool,
}

/// The calls.
#[derive(Clone, Debug)]
pub(crate) struct DiskCalls {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    runtime: Handle,
}

/// A call that is under way.
struct Call {
    shared: Arc<Shared>,
    id: u64,
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, Running> {
        // Each change is one call on a map.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stuck(&self) -> bool {
        let first = self.running().began.first_key_value().map(|(_, at)| *at);
        let stuck = first.is_some_and(|at| at.elapsed() >= self.wait);
        if stuck && !self.said.swap(true, Ordering::Relaxed) {
            let wait_s = self.wait.as_secs_f32();
            tracing::warn!(
                "the cache's disk has not answered for {wait_s} s: reads go past it until it does"
            );
        }
        stuck
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.shared.running().began.remove(&self.id);
        if self.shared.said.load(Ordering::Relaxed)
            && !self.shared.is_stuck()
            && self.shared.said.swap(false, Ordering::Relaxed)
        {
            tracing::info!("the cache's disk answers again");
        }
    }
}

impl DiskCalls {
    /// None is under way; threads are the runtime's.
    pub(crate) fn new(runtime: Handle, wait: Duration) -> Self {
        let shared = Shared {
            running: Mutex::default(),
            wait,
            said: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            permits: Arc::new(Semaphore::new(CALLS_MAX)),
            runtime,
        }
    }

    /// Whether the disk hangs, as far as is known. Never waits for it.
    pub(crate) fn is_stuck(&self) -> bool {
        self.shared.is_stuck()
    }

    /// Runs what blocks on a thread of its own, and waits for it as long as may be.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        if self.is_stuck() {
            return Err(Unanswered::Overdue);
        }
        let deadline = Instant::now() + self.shared.wait;
        let permit = timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit
            .map_err(|_| Unanswered::Overdue)?
            .map_err(|_| Unanswered::Broken)?;
        let call = self.begin();
        let running = self.runtime.spawn_blocking(move || {
            let result = work();
            drop(call);
            drop(permit);
            result
        });
        match timeout_at(deadline, running).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(err)) => {
                tracing::error!("a call of the cache's disk: {err}");
                Err(Unanswered::Broken)
            }
            Err(_) => Err(Unanswered::Overdue),
        }
    }

    fn begin(&self) -> Call {
        let mut running = self.shared.running();
        let id = running.next;
        running.next += 1;
        running.began.insert(id, Instant::now());
        drop(running);
        Call {
            shared: Arc::clone(&self.shared),
            id,
        }
    }
}

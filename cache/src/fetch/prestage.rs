//! Objects that are brought in because somebody said that they will be read.
//!
//! A hint and no promise: the queue is bounded, and what does not fit is dropped and counted.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fetch::engine::{Engine, Target};
use crate::version::Version;

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Target>,
    /// Those that wait or are under way.
    known: HashSet<Arc<Version>>,
    workers: usize,
}

/// Objects to be brought in.
#[derive(Debug, Default)]
pub(crate) struct Prestage {
    queue: Mutex<Queue>,
}

impl Prestage {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // At worst an object stays known that is not under way, until the process ends.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue().waiting.len()
    }

    /// Forgets those that wait.
    pub(crate) fn clear(&self) {
        let queue = &mut *self.queue();
        for target in queue.waiting.drain(..) {
            queue.known.remove(&target.version);
        }
    }
}

impl Engine {
    /// Has an object brought in some time; `false` if too many wait already.
    pub(crate) fn prestage(self: &Arc<Self>, target: Target) -> bool {
        let version = &target.version;
        if target.object.present() == version.blocks() {
            return true;
        }
        let mut queue = self.prestage.queue();
        if queue.known.contains(version) {
            return true;
        }
        if queue.waiting.len() >= self.config.prestage_max || self.is_closing() {
            self.counters.prestage_dropped.add(1);
            return false;
        }
        queue.known.insert(Arc::clone(version));
        queue.waiting.push_back(target);
        if queue.workers < self.config.prestage_workers.max(1) {
            queue.workers += 1;
            let worker = Worker {
                engine: Arc::clone(self),
                counted: true,
            };
            drop(self.runtime.spawn(worker.run()));
        }
        true
    }
}

/// One that brings objects in until none waits.
struct Worker {
    engine: Arc<Engine>,
    /// Whether the queue counts it.
    counted: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.counted {
            self.engine.prestage.queue().workers -= 1;
        }
    }
}

/// An object under way; it is known until this is dropped, also by a panic.
struct Known<'a>(&'a Engine, Arc<Version>);

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.0.prestage.queue().known.remove(&self.1);
    }
}

impl Worker {
    async fn run(mut self) {
        while let Some(target) = self.next() {
            let known = Known(&self.engine, Arc::clone(&target.version));
            let counters = &self.engine.counters;
            match self.engine.fill(&target, &|_| {}).await {
                Ok(_) => counters.prestage_done.add(1),
                Err(err) => {
                    tracing::debug!("prestaging {}/{}: {err}", known.1.bucket, known.1.key);
                    counters.prestage_failed.add(1);
                }
            }
        }
    }

    fn next(&mut self) -> Option<Target> {
        let mut queue = self.engine.prestage.queue();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            // Under the lock that found nothing, or what is queued next would have no worker.
            queue.workers -= 1;
            self.counted = false;
        }
        next
    }
}

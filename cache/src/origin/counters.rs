//! What a client counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::breaker::BreakerState;

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: Counter,
    pub(super) errors: Counter,
    pub(super) retries: Counter,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) connections_opened: Counter,
}

/// What a client has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Requests that were sent, each try for itself.
    pub requests: u64,
    /// Those that got no answer, a broken one, or a status of 500 and above.
    pub errors: u64,
    /// Those that were tries after the first.
    pub retries: u64,
    /// Bytes of bodies received.
    pub bytes_in: u64,
    /// Bytes of bodies sent.
    pub bytes_out: u64,
    /// Connections that were opened.
    pub connections_opened: u64,
    /// Requests under way, with the bodies of their answers.
    pub in_flight: u64,
    /// How often the origin was taken for dead.
    pub breaker_opened: u64,
    /// Whether it is now.
    pub breaker: BreakerState,
}

impl Counters {
    pub(super) fn statistics(&self, breaker: (BreakerState, u64), in_flight: u64) -> Statistics {
        Statistics {
            requests: self.requests.get(),
            errors: self.errors.get(),
            retries: self.retries.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            connections_opened: self.connections_opened.get(),
            in_flight,
            breaker_opened: breaker.1,
            breaker: breaker.0,
        }
    }
}

//! Trying again: how often, and when.
//!
//! Pauses are random between nothing and a bound that doubles ("full jitter"), so that nodes which
//! failed together do not come back together. All requests of a client share a budget, so that an
//! origin which fails much of the time is not asked several times as much.
//!
//! # Invariants
//! 1. No try begins after the deadline.
//! 2. In the long run there is at most one retry in [`TENTHS`] requests, plus the first
//!    [`BUDGET_MAX`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::config::Retries;

/// Requests that earn a retry.
const TENTHS: u32 = 10;
/// Most retries that can be saved up.
const BUDGET_MAX: u32 = 200;

/// Retries that a client has left.
#[derive(Debug)]
pub(super) struct Budget {
    /// In parts of a retry: one request earns one, a retry costs [`TENTHS`].
    left: AtomicU32,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            left: AtomicU32::new(BUDGET_MAX * TENTHS),
        }
    }

    fn earn(&self) {
        self.change(|left| (left < BUDGET_MAX * TENTHS).then_some(left + 1));
    }

    fn spend(&self) -> bool {
        self.change(|left| left.checked_sub(TENTHS))
    }

    fn change(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        let left = &self.left;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .is_ok()
    }
}

/// The tries of one request.
#[derive(Debug)]
pub(super) struct Tries {
    budget: Arc<Budget>,
    retries: Retries,
    deadline: Instant,
    made: u32,
}

impl Tries {
    /// Before the first try.
    pub(super) fn new(budget: Arc<Budget>, retries: Retries, total: Duration) -> Self {
        budget.earn();
        Self {
            budget,
            retries,
            deadline: Instant::now() + total,
            made: 0,
        }
    }

    /// How long the next try may take for what would take `wait`.
    pub(super) fn at_most(&self, wait: Duration) -> Duration {
        wait.min(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// The pause before another try; `None` if there is to be none.
    ///
    /// `after` is what the origin asked for.
    pub(super) fn again(&mut self, after: Option<Duration>) -> Option<Duration> {
        if self.made >= self.retries.max {
            return None;
        }
        let pause =
            pause(self.retries, self.made, random()).saturating_add(after.unwrap_or_default());
        let left = self.deadline.saturating_duration_since(Instant::now());
        if pause >= left || !self.budget.spend() {
            return None;
        }
        self.made += 1;
        Some(pause)
    }
}

/// The pause before a try: a part of its bound, of 2³².
fn pause(retries: Retries, made: u32, random: u32) -> Duration {
    let bound = retries
        .pause_min
        .saturating_mul(1 << made.min(20))
        .min(retries.pause_max);
    bound.mul_f64(f64::from(random) / (f64::from(u32::MAX) + 1.0))
}

fn random() -> u32 {
    // A machine without random numbers still has a pause, if one like all others'.
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// Whether an answer says that the same request may succeed later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What `Retry-After` asks for, if it is a number of seconds.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tries(budget: &Arc<Budget>, total: Duration) -> Tries {
        Tries::new(Arc::clone(budget), Retries::default(), total)
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let retries = Retries::default();
        let longest = |made| pause(retries, made, u32::MAX).as_secs_f64();
        for (made, expected) in [
            (0, 0.05),
            (1, 0.1),
            (4, 0.8),
            (6, 2.0),
            (4_000_000_000, 2.0),
        ] {
            assert!((longest(made) - expected).abs() < 1e-6, "{made}");
        }
        assert_eq!(pause(retries, 3, 0), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn no_try_begins_after_the_deadline() {
        let two = Some(Duration::from_secs(2));
        let mut tries = tries(&Arc::new(Budget::new()), Duration::from_secs(3));
        tokio::time::sleep(tries.again(two).unwrap()).await;
        assert!(tries.at_most(Duration::from_secs(10)) <= Duration::from_secs(1));
        assert_eq!(tries.again(two), None);
    }

    #[test]
    fn tries_are_counted() {
        let mut tries = tries(&Arc::new(Budget::new()), Duration::from_hours(1));
        for _ in 0..Retries::default().max {
            assert!(tries.again(None).is_some());
        }
        assert_eq!(tries.again(None), None);
    }

    #[test]
    fn a_budget_is_spent_and_earned() {
        let budget = Arc::new(Budget::new());
        let again = || {
            tries(&budget, Duration::from_hours(1))
                .again(None)
                .is_some()
        };
        let mut made = 0;
        while again() {
            made += 1;
        }
        assert!((BUDGET_MAX..BUDGET_MAX + 30).contains(&made), "{made}");
        let mut refused = 0;
        while !again() {
            refused += 1;
        }
        assert!(refused < TENTHS, "{refused}");
    }

    #[test]
    fn seconds_are_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(RETRY_AFTER, "2".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(2)));
        headers.insert(RETRY_AFTER, "later".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }
}

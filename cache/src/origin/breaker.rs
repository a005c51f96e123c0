//! A dead origin is left alone.
//!
//! After some failures in a row, with nothing but failures for a while, every request is refused at
//! once. From time to time one of them is let through to see whether the origin lives again.
//! Failures are those of connections, and silence; an origin that answers with an error lives.
//!
//! # Invariants
//! 1. While the origin is taken for dead, at most one request at a time asks it.
//! 2. Whatever becomes of that request, also if it is dropped, another can ask later.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row, at least, until the origin is taken for dead.
const FAILURES_MIN: u32 = 3;
/// The same for a peer.
const PEER_FAILURES_MIN: u32 = 1;

/// Whose breaker it is.
#[derive(Clone, Debug)]
pub(super) enum Whom {
    /// The origin's.
    Origin,
    /// That of a peer at this address.
    Peer(String),
}

/// Whether requests are let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// All of them.
    #[default]
    Closed,
    /// None but for a try now and then: the origin is taken for dead.
    Open,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success.
    failures: u32,
    /// When the first of these requests began.
    failing_since: Option<Instant>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// When the origin was last found dead.
    since: Instant,
    /// The last failure.
    reason: String,
    probing: bool,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Breaker {
    whom: Whom,
    dead_after: Duration,
    probe_after: Duration,
    /// Guards what it holds, for lines; no other lock is taken meanwhile.
    state: Mutex<State>,
    /// Whether there is anything in `state`, so that a success mostly takes no lock.
    troubled: AtomicBool,
    opened: AtomicU64,
}

/// A request that was let through. It says what became of it, or nothing.
#[derive(Debug)]
pub(super) struct Pass {
    breaker: Arc<Breaker>,
    began_at: Instant,
    probes: bool,
}

impl Breaker {
    pub(super) fn new(whom: Whom, dead_after: Duration, probe_after: Duration) -> Self {
        Self {
            whom,
            dead_after,
            probe_after,
            state: Mutex::default(),
            troubled: AtomicBool::new(false),
            opened: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the origin is taken for dead, and how often it was.
    pub(super) fn state(&self) -> (BreakerState, u64) {
        let state = match self.lock().open {
            Some(_) => BreakerState::Open,
            None => BreakerState::Closed,
        };
        (state, self.opened.load(Ordering::Relaxed))
    }

    /// Whether it is taken for dead.
    pub(super) fn is_open(&self) -> bool {
        self.troubled.load(Ordering::Relaxed) && self.lock().open.is_some()
    }

    fn failures_min(&self) -> u32 {
        match self.whom {
            Whom::Origin => FAILURES_MIN,
            Whom::Peer(_) => PEER_FAILURES_MIN,
        }
    }

    /// Lets a request through, or says why not.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Pass, String> {
        let now = Instant::now();
        let mut probes = false;
        if self.troubled.load(Ordering::Relaxed)
            && let Some(open) = &mut self.lock().open
        {
            if open.probing || now < open.since + self.probe_after {
                return Err(format!("it does not answer ({})", open.reason));
            }
            open.probing = true;
            probes = true;
        }
        Ok(Pass {
            breaker: Arc::clone(self),
            began_at: now,
            probes,
        })
    }
}

impl Pass {
    /// The origin answered.
    pub(super) fn answered(mut self) {
        self.probes = false;
        if !self.breaker.troubled.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.breaker.lock();
        if state.open.is_some() {
            match &self.breaker.whom {
                Whom::Origin => tracing::info!("the origin answers again"),
                Whom::Peer(peer) => tracing::info!(peer, "a peer answers again"),
            }
        }
        *state = State::default();
        self.breaker.troubled.store(false, Ordering::Relaxed);
    }

    /// The origin did not answer, or could not be reached.
    pub(super) fn failed(mut self, reason: &str) {
        let probed = std::mem::take(&mut self.probes);
        let now = Instant::now();
        let mut state = self.breaker.lock();
        self.breaker.troubled.store(true, Ordering::Relaxed);
        state.failures = state.failures.saturating_add(1);
        let since = *state.failing_since.get_or_insert(self.began_at);
        if let Some(open) = &mut state.open {
            reason.clone_into(&mut open.reason);
            if probed {
                open.since = now;
                open.probing = false;
            }
        } else if state.failures >= self.breaker.failures_min()
            && now >= since + self.breaker.dead_after
        {
            match &self.breaker.whom {
                Whom::Origin => {
                    tracing::warn!(reason, "the origin does not answer; requests fail at once");
                }
                Whom::Peer(peer) => {
                    tracing::warn!(peer, reason, "a peer does not answer; it is passed over");
                }
            }
            self.breaker.opened.fetch_add(1, Ordering::Relaxed);
            state.open = Some(Open {
                since: now,
                reason: reason.to_owned(),
                probing: false,
            });
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probes
            && let Some(open) = &mut self.breaker.lock().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Duration = Duration::from_secs(2);
    const PROBE: Duration = Duration::from_secs(1);

    fn breaker() -> Arc<Breaker> {
        Arc::new(Breaker::new(Whom::Origin, DEAD, PROBE))
    }

    async fn dead() -> Arc<Breaker> {
        let breaker = breaker();
        let passes: Vec<_> = (0..3).map(|_| breaker.enter().unwrap()).collect();
        tokio::time::advance(DEAD).await;
        for pass in passes {
            pass.failed("silence");
        }
        assert_eq!(breaker.state(), (BreakerState::Open, 1));
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_trouble_is_no_death() {
        let breaker = breaker();
        for _ in 0..100 {
            breaker.enter().unwrap().failed("refused");
        }
        assert_eq!(breaker.state(), (BreakerState::Closed, 0));
        tokio::time::advance(DEAD).await;
        breaker.enter().unwrap().answered();
        for _ in 0..100 {
            breaker.enter().unwrap().failed("refused");
        }
        assert_eq!(breaker.state(), (BreakerState::Closed, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_request_tries_a_dead_origin() {
        let breaker = dead().await;
        let refused = breaker.enter().unwrap_err();
        assert_eq!(refused, "it does not answer (silence)");
        tokio::time::advance(PROBE).await;
        let probe = breaker.enter().unwrap();
        assert!(breaker.enter().is_err());
        probe.failed("refused");
        assert!(breaker.enter().unwrap_err().contains("refused"));
        tokio::time::advance(PROBE).await;
        breaker.enter().unwrap().answered();
        assert_eq!(breaker.state(), (BreakerState::Closed, 1));
        drop((breaker.enter().unwrap(), breaker.enter().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_of_a_peer_is_enough() {
        let whom = Whom::Peer("http://a:1".to_owned());
        let breaker = Arc::new(Breaker::new(whom, Duration::ZERO, PROBE));
        assert!(!breaker.is_open());
        breaker.enter().unwrap().failed("refused");
        assert!(breaker.is_open() && breaker.enter().is_err());
        tokio::time::advance(PROBE).await;
        breaker.enter().unwrap().answered();
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_given_up_lets_another_try() {
        let breaker = dead().await;
        tokio::time::advance(PROBE).await;
        drop(breaker.enter().unwrap());
        drop(breaker.enter().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_an_older_request_revives_it() {
        let breaker = breaker();
        let old = breaker.enter().unwrap();
        let passes: Vec<_> = (0..3).map(|_| breaker.enter().unwrap()).collect();
        tokio::time::advance(DEAD).await;
        for pass in passes {
            pass.failed("silence");
        }
        old.answered();
        assert_eq!(breaker.state(), (BreakerState::Closed, 1));
    }
}

//! What is under `/-/` on a node: its own health and metrics, never the origin's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::metric::NodeMetrics;
use super::origin::Upstream;
use crate::metric::Metrics;

/// How long an answer of the origin shows that it is there.
const FRESH_MAX: Duration = Duration::from_secs(5);
/// How long the origin may take to show it when it is asked for that alone.
const REACH_WAIT_MAX: Duration = Duration::from_secs(3);

/// Whether the origin is there.
#[derive(Debug)]
pub(super) struct Reach {
    origin: Arc<dyn Upstream>,
    began_at: Instant,
    /// Milliseconds from `began_at` to the last answer, plus 1; 0 before the first.
    answered_ms: AtomicU64,
}

impl Reach {
    /// It has not answered yet.
    pub(super) fn new(origin: Arc<dyn Upstream>) -> Self {
        Self {
            origin,
            began_at: Instant::now(),
            answered_ms: AtomicU64::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// It has answered just now.
    pub(super) fn note(&self) {
        let now_ms = self.now_ms().saturating_add(1);
        self.answered_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether there is anything to be read while it does not answer.
    fn has_stale(&self) -> bool {
        self.origin
            .leases()
            .is_some_and(|leases| leases.has_stale())
    }

    /// Whether it has answered lately, or does when it is asked.
    async fn is_there(&self) -> bool {
        let answered_ms = self.answered_ms.load(Ordering::Relaxed);
        let age_ms = self.now_ms().saturating_add(1).saturating_sub(answered_ms);
        if answered_ms > 0 && u128::from(age_ms) <= FRESH_MAX.as_millis() {
            return true;
        }
        let reached = tokio::time::timeout(REACH_WAIT_MAX, self.origin.reach()).await;
        let is_there = matches!(reached, Ok(Ok(())));
        if is_there {
            self.note();
        }
        is_there
    }
}

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    /// What is counted of requests.
    pub(super) metrics: Arc<Metrics>,
    /// What is counted of the cache.
    pub(super) counters: Arc<NodeMetrics>,
    /// Whether the origin is there.
    pub(super) reach: Arc<Reach>,
    /// Whether the node is stopping.
    pub(super) stopping: Arc<AtomicBool>,
}

/// The routes.
pub(super) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/-/health/live", get(|| async { "live\n" }))
        .route("/-/health/ready", get(ready))
        .route("/-/metrics", get(metrics))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.stopping.load(Ordering::Acquire) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    if admin.reach.is_there().await {
        (StatusCode::OK, "ready\n")
    } else if admin.reach.has_stale() {
        // What is cached goes on being read.
        (
            StatusCode::OK,
            "the origin does not answer; what was known is read\n",
        )
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the origin does not answer\n",
        )
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = admin.metrics.text();
    text.push_str(&admin.counters.text());
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        Body::from(text),
    )
}

//! What is under `/-/`: health and metrics. A bucket's name can't begin with `-`.
//!
//! Nothing here needs a signature, so nothing here says anything of what is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use forebay_store::Objects;

use crate::metric::Metrics;

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// Whether writes can be taken.
    pub(crate) objects: Arc<dyn Objects>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Whether the server is stopping.
    pub(crate) stopping: Arc<AtomicBool>,
}

/// The routes.
pub(crate) fn router(admin: Admin) -> Router {
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
    match admin.objects.writable() {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(why) => {
            tracing::warn!(why, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "read-only\n")
        }
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        Body::from(admin.metrics.text()),
    )
}

//! What is under `/-/`: health, metrics, the change feed. A bucket's name can't begin with `-`.
//!
//! Nothing here needs a signature, so nothing here says anything of what is stored; but the change
//! feed, which is for nodes that prove the cluster's key.

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
use forebay_store::time::Clock;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower_service::Service as _;

use crate::changes;
use crate::cluster::Cluster;
use crate::metric::Metrics;
use crate::reply::{self, ReplyBody, Response};
use crate::tier::TierFace;

/// Largest answer, in bytes.
const ANSWER_SIZE_MAX: usize = 4 << 20;

/// What the answers are made of.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// Whether writes can be taken.
    pub(crate) objects: Arc<dyn Objects>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What is counted of the cache, if there is one.
    pub(crate) tier: Option<Arc<TierFace>>,
    /// Whether the server is stopping.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Who may follow the changes.
    pub(crate) cluster: Option<Cluster>,
    /// What time it is.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The routes.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/-/health/live", get(|| async { "live\n" }))
        .route("/-/health/ready", get(ready))
        .route("/-/metrics", get(metrics))
        .route("/-/changes", get(changes::get))
        .with_state(admin)
}

/// Answers a request by routes that make their answers here, whole.
pub(crate) async fn answer(router: &Router, request: Request<Incoming>) -> Response {
    let Ok(answer) = router.clone().call(request).await;
    let (parts, body) = answer.into_parts();
    let body = http_body_util::Limited::new(body, ANSWER_SIZE_MAX)
        .collect()
        .await;
    match body {
        Ok(body) => http::Response::from_parts(parts, ReplyBody::Bytes(body.to_bytes())),
        Err(err) => {
            tracing::error!(%err, "an answer of /-/ failed");
            reply::empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
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
    let mut text = admin.metrics.text();
    if let Some(tier) = &admin.tier {
        text.push_str(&tier.metrics());
    }
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        Body::from(text),
    )
}

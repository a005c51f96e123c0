//! From a request to its answer: what is named, what is called, who asks, then the call itself.
//!
//! Whatever happens, the answer has a request id, and the request is counted and logged once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use base64::Engine as _;
use forebay_store::Objects;
use forebay_store::time::Clock;
use http::header::{CONNECTION, EXPECT, HOST, SERVER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower_service::Service as _;

use crate::admin::{self, Admin};
use crate::auth::{Asked, Authenticator};
use crate::body::RequestBody;
use crate::call::{self, CALLS, Call};
use crate::compat::Compat;
use crate::error::{Code, Result, S3Error};
use crate::framing;
use crate::metric::Metrics;
use crate::ops;
use crate::query::Query;
use crate::reply::{self, ReplyBody, Response};
use crate::serve::ServerConfig;
use crate::target::Target;

/// Largest answer of `/-/`, in bytes; they are made here.
const ADMIN_ANSWER_MAX: usize = 4 << 20;

/// What answers requests.
#[derive(Debug)]
pub(crate) struct Service {
    /// What is stored.
    pub(crate) objects: Arc<dyn Objects>,
    /// Whose behaviour is followed where services differ.
    pub(crate) compat: Compat,
    /// The region that buckets are in unless they say otherwise.
    pub(crate) region: String,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    base_domains: Vec<String>,
    clock: Arc<dyn Clock>,
    authenticator: Authenticator,
    admin: axum::Router,
    stopping: Arc<AtomicBool>,
    host_id: String,
    request_ids: RequestIds,
}

/// One request, as far as its head says.
#[derive(Debug)]
pub(crate) struct S3Request {
    /// What it names.
    pub(crate) target: Target,
    /// Its parameters.
    pub(crate) query: Query,
    /// Its headers; those that stood in a presigned query are among them.
    pub(crate) headers: HeaderMap,
    /// What it calls.
    pub(crate) call: &'static Call,
    /// When it came, in seconds since 1970.
    pub(crate) now_s: i64,
}

/// Request ids: a counter, scrambled by a number of this process, so that ids look random and none
/// comes twice.
#[derive(Debug)]
struct RequestIds {
    next: AtomicU64,
    key: u64,
}

impl RequestIds {
    fn next(&self) -> String {
        let mut id = self
            .next
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(self.key);
        // Steps of SplitMix64: each is a bijection.
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("{:016X}", id ^ (id >> 31))
    }
}

/// What the log and the counters want to know, beside the answer.
#[derive(Debug, Default)]
struct Trace {
    call: Option<usize>,
    key_id: Option<String>,
    error: Option<S3Error>,
}

impl Service {
    /// Nothing is answered yet.
    pub(crate) fn new(
        config: ServerConfig,
        objects: Arc<dyn Objects>,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let metrics = Arc::new(Metrics::new());
        let stopping = Arc::new(AtomicBool::new(false));
        let admin = admin::router(Admin {
            objects: Arc::clone(&objects),
            metrics: Arc::clone(&metrics),
            stopping: Arc::clone(&stopping),
        });
        let strict_region = config.compat.strict_region();
        Ok(Self {
            objects,
            compat: config.compat,
            authenticator: Authenticator::new(config.region.clone(), strict_region),
            region: config.region,
            metrics,
            base_domains: config.base_domains,
            clock,
            admin,
            stopping,
            host_id: base64::engine::general_purpose::STANDARD.encode(random),
            request_ids: RequestIds {
                next: AtomicU64::new(0),
                key: u64::from_le_bytes(random[..8].try_into().expect("8 of 32 bytes")),
            },
        })
    }

    /// From here the server says that it is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let (parts, incoming) = request.into_parts();
        let clear = framing::check(&parts);
        let is_clear = clear.is_ok();
        if is_clear && parts.uri.path().starts_with("/-/") {
            return self
                .answer_admin(Request::from_parts(parts, incoming))
                .await;
        }
        let began_at = Instant::now();
        let id = self.request_ids.next();
        let mut body = RequestBody::new(incoming);
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let waits_for_continue = parts.headers.contains_key(EXPECT);
        let mut trace = Trace::default();
        let result = match clear {
            Ok(()) => self.answer_call(parts, &mut body, &mut trace).await,
            Err(error) => Err(error),
        };
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                let response = self.error_response(&error, &method, uri.path(), &id);
                trace.error = Some(error);
                response
            }
        };
        if is_clear && !body.is_ended() && !waits_for_continue {
            body.drain().await;
        }
        if !is_clear || !body.is_ended() {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.finish(&mut response, &id);
        let bytes_out = response.body().size_hint().exact().unwrap_or(0);
        let status = response.status().as_u16();
        self.metrics
            .count(trace.call, status, began_at.elapsed(), bytes_out);
        log(
            &trace,
            &method,
            uri.path(),
            &id,
            status,
            bytes_out,
            began_at,
            peer,
        );
        response
    }

    async fn answer_call(
        &self,
        parts: Parts,
        body: &mut RequestBody,
        trace: &mut Trace,
    ) -> Result<Response> {
        let Parts {
            method,
            uri,
            mut headers,
            ..
        } = parts;
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or(uri.host()).unwrap_or_default();
        let target = Target::parse(host, uri.path(), &self.base_domains, self.compat)?;
        let query = Query::parse(uri.query().unwrap_or_default())?;
        let index = call::route(&method, target.level(), &query, &headers)?;
        trace.call = Some(index);
        let call = &CALLS[index];
        let now_s = self.clock.now().seconds();
        let asked = Asked {
            method: &method,
            path: &target.path,
            query: &query,
            call,
        };
        let find_key = |id: &str| self.objects.access_key(id);
        let auth = self
            .authenticator
            .authenticate(&asked, &mut headers, &find_key, now_s)?;
        trace.key_id = auth.key_id().map(str::to_owned);
        let request = S3Request {
            target,
            query,
            headers,
            call,
            now_s,
        };
        ops::run(
            &ops::Context {
                service: self,
                request: &request,
            },
            auth,
            body,
        )
        .await
    }

    fn error_response(&self, error: &S3Error, method: &Method, path: &str, id: &str) -> Response {
        let mut response = if *method == Method::HEAD {
            // An answer to HEAD has no body, and so no document.
            reply::empty(error.status())
        } else {
            reply::xml_status(error.status(), error.document(path, id, &self.host_id))
        };
        for (name, value) in error.headers() {
            response.headers_mut().insert(name, value.clone());
        }
        if error.code() == Code::SlowDown || error.code() == Code::ServiceUnavailable {
            let name = HeaderName::from_static("retry-after");
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static("1"));
        }
        response
    }

    fn finish(&self, response: &mut Response, id: &str) {
        let headers = response.headers_mut();
        let text = |text: &str| HeaderValue::from_str(text).expect("ids are ASCII");
        headers.insert(HeaderName::from_static("x-amz-request-id"), text(id));
        headers.insert(HeaderName::from_static("x-amz-id-2"), text(&self.host_id));
        headers.insert(SERVER, HeaderValue::from_static("forebay"));
        // What is stored here is not for a browser to guess at.
        let name = HeaderName::from_static("x-content-type-options");
        headers.insert(name, HeaderValue::from_static("nosniff"));
    }

    async fn answer_admin(&self, request: Request<Incoming>) -> Response {
        let Ok(answer) = self.admin.clone().call(request).await;
        let (parts, body) = answer.into_parts();
        let body = http_body_util::Limited::new(body, ADMIN_ANSWER_MAX)
            .collect()
            .await;
        let mut response = match body {
            Ok(body) => http::Response::from_parts(parts, ReplyBody::Bytes(body.to_bytes())),
            Err(err) => {
                tracing::error!(%err, "an answer of /-/ failed");
                reply::empty(http::StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        self.finish(&mut response, &self.request_ids.next());
        response
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of one log line")]
fn log(
    trace: &Trace,
    method: &Method,
    path: &str,
    id: &str,
    status: u16,
    bytes_out: u64,
    began_at: Instant,
    peer: SocketAddr,
) {
    let call = trace.call.map_or("None", |index| CALLS[index].name);
    let code = trace
        .error
        .as_ref()
        .map_or("-", |error| error.code().name());
    if let Some(cause) = trace.error.as_ref().and_then(S3Error::cause)
        && status >= 500
    {
        tracing::error!(
            id,
            call,
            path,
            error = cause as &dyn std::error::Error,
            "a request failed"
        );
    }
    // The query is left out: it may hold a signature.
    tracing::debug!(
        target: "forebay::access",
        %peer, id, call, %method, path, status, code, bytes_out,
        key_id = trace.key_id.as_deref().unwrap_or("-"),
        us = began_at.elapsed().as_micros(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_differ() {
        let ids = RequestIds {
            next: AtomicU64::new(0),
            key: 7,
        };
        let many: std::collections::HashSet<String> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(many.len(), 10_000);
        assert!(many.iter().all(|id| id.len() == 16));
    }
}

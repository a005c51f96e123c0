//! What every answer has, be it of a server or of a node: an id, a line in the log, a count.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use base64::Engine as _;
use http::header::{RETRY_AFTER, SERVER};
use http::{HeaderName, HeaderValue, Method};
use http_body::Body as _;

use crate::call::CALLS;
use crate::error::{Code, S3Error};
use crate::metric::Metrics;
use crate::reply::{self, Response};

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

/// What says whose answer it is, and to which request.
#[derive(Debug)]
pub(crate) struct Marks {
    host_id: String,
    request_ids: RequestIds,
}

impl Marks {
    /// Of this process.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self {
            host_id: base64::engine::general_purpose::STANDARD.encode(random),
            request_ids: RequestIds {
                next: AtomicU64::new(0),
                key: u64::from_le_bytes(random[..8].try_into().expect("8 of 32 bytes")),
            },
        })
    }

    /// The next request's id.
    pub(crate) fn next_id(&self) -> String {
        self.request_ids.next()
    }

    /// The answer to a request that is refused, or failed.
    pub(crate) fn refusal(
        &self,
        error: &S3Error,
        method: &Method,
        path: &str,
        id: &str,
    ) -> Response {
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
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, soon);
        }
        response
    }

    /// Marks an answer that was made here.
    pub(crate) fn put(&self, response: &mut Response, id: &str) {
        let headers = response.headers_mut();
        let text = |text: &str| HeaderValue::from_str(text).expect("ids are ASCII");
        headers.insert(HeaderName::from_static("x-amz-request-id"), text(id));
        headers.insert(HeaderName::from_static("x-amz-id-2"), text(&self.host_id));
        headers.insert(SERVER, HeaderValue::from_static("forebay"));
        // What is stored here is not for a browser to guess at.
        let name = HeaderName::from_static("x-content-type-options");
        headers.insert(name, HeaderValue::from_static("nosniff"));
    }
}

/// What the log and the counters want to know, beside the answer.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Place of the call in the table.
    pub(crate) call: Option<usize>,
    /// The access key that signed.
    pub(crate) key_id: Option<String>,
    /// Why it was refused, or failed.
    pub(crate) error: Option<S3Error>,
}

/// A request, as its line in the log has it.
#[derive(Debug)]
pub(crate) struct Line<'r> {
    pub(crate) method: &'r Method,
    pub(crate) path: &'r str,
    pub(crate) id: &'r str,
    pub(crate) peer: SocketAddr,
    pub(crate) began_at: Instant,
}

impl Trace {
    /// Counts and logs an answer.
    pub(crate) fn end(&self, metrics: &Metrics, response: &Response, line: &Line<'_>) {
        let bytes_out = response.body().size_hint().exact().unwrap_or(0);
        let status = response.status().as_u16();
        let took = line.began_at.elapsed();
        metrics.count(self.call, status, took, bytes_out);
        let call = self.call.map_or("None", |index| CALLS[index].name);
        let code = self.error.as_ref().map_or("-", |error| error.code().name());
        let Line {
            method,
            path,
            id,
            peer,
            ..
        } = line;
        if let Some(cause) = self.error.as_ref().and_then(S3Error::cause)
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
            key_id = self.key_id.as_deref().unwrap_or("-"),
            us = took.as_micros(),
        );
    }
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

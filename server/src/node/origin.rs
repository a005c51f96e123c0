//! The origin that a node stands in front of.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use forebay_cache::cluster::NODE_HEADER;
use forebay_cache::origin::{Body, Client, OriginError};
use forebay_cache::{Directive, Source, Version};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};

use super::lease::{Leased, Leases};
use super::outcome::Outcome;
use super::reading::Reading;
use super::source::Granted;
use super::told::{self, Told};
use super::upload::Upload;
use crate::cluster::UNPROVEN;
use crate::error::{Code, Result, S3Error};
use crate::head::Found;
use crate::reply::{self, RemoteError, ReplyBody, Response};

/// The beginning of what nodes and origins say to each other.
const OWN: &str = "x-forebay-";

/// What an origin is asked, and comes to.
pub(super) type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What an origin is to a node: it decides who may read what, and does everything else.
pub(super) trait Upstream: fmt::Debug + Send + Sync + 'static {
    /// Asks whether a client may read, and what.
    fn ask<'a>(&'a self, reading: &'a Arc<Reading>) -> Answering<'a, Asked>;

    /// Has a request carried out as it is; no header of nodes' own is in it.
    fn pass(&self, request: Request<Upload>) -> Answering<'_, Response>;

    /// Finds out whether the origin is there at all.
    fn reach(&self) -> Answering<'_, ()>;

    /// What is held of leases, if there can be any.
    fn leases(&self) -> Option<&Arc<Leases>> {
        None
    }
}

/// What came of asking.
#[derive(Debug)]
pub(super) enum Asked {
    /// An answer for the client: a refusal, `304`, or one with its bytes.
    Answer(Response),
    /// Leave to read.
    Readable(Readable),
    /// Nothing to go by: the request is to be passed on.
    Nothing,
}

/// Leave to read.
#[derive(Debug)]
pub(super) struct Readable {
    /// Status of the client's answer.
    pub(super) status: StatusCode,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// What is read.
    pub(super) version: Arc<Version>,
    /// Which of its bytes are the answer.
    pub(super) range: Range<u64>,
    /// Brings its bytes, on behalf of this client.
    pub(super) source: Arc<dyn Source>,
    /// Who said so.
    pub(super) by: By,
}

/// Who has allowed a read, and says the head of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The origin, just now.
    Origin,
    /// This node, by a lease; also in an answer's extensions.
    Lease,
    /// This node, while the origin is down; also in an answer's extensions.
    Stale,
}

/// A forebay: it verifies what clients sign, and grants their node what they may read.
#[derive(Clone, Debug)]
pub(super) struct Forebay {
    client: Client,
    leases: Option<Arc<Leases>>,
    warned: Arc<AtomicBool>,
}

impl Forebay {
    /// The origin that this client speaks to, and what it leases.
    pub(super) fn new(client: Client, leases: Option<Arc<Leases>>) -> Self {
        Self {
            client,
            leases,
            warned: Arc::new(AtomicBool::new(false)),
        }
    }

    async fn ask_once(&self, reading: &Arc<Reading>) -> Result<Asked> {
        let Some(leases) = &self.leases else {
            return self.ask_origin(reading).await;
        };
        if let Some(leased) = leases.fresh(reading) {
            return self.leased(reading, leased, By::Lease);
        }
        let asked = self.ask_origin(reading).await;
        if !is_down(&asked) {
            leases.answered();
            return asked;
        }
        match leases.stale(reading) {
            Some(leased) => self.leased(reading, leased, By::Stale),
            None => asked,
        }
    }

    async fn ask_origin(&self, reading: &Arc<Reading>) -> Result<Asked> {
        let (ask, proof) = (
            self.leases.as_ref().map(|leases| leases.ask()),
            prove(&self.client, reading),
        );
        let response = ask_with_proof(&self.client, reading, proof.clone())
            .await
            .map_err(|err| refuse(&err))?;
        let (status, headers) = (response.status(), response.headers());
        if let (Some(leases), Some(ask)) = (&self.leases, ask) {
            leases.take(ask, reading, &proof, headers);
        }
        let allowed = match told::read(reading, status, headers) {
            Told::Answer => return Ok(Asked::Answer(answer(response))),
            Told::Allowed(allowed) => allowed,
            Told::Unusable(why) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        why,
                        "what the origin tells of a read can't be used; it is not cached"
                    );
                }
                return Ok(Asked::Nothing);
            }
        };
        let mut headers = response.into_parts().0.headers;
        clean(&mut headers);
        let len = allowed.range.end - allowed.range.start;
        headers.insert(CONTENT_LENGTH, len.into());
        let grant = Some(allowed.grant);
        let source = Granted::new(self.client.clone(), Arc::clone(reading), grant);
        Ok(Asked::Readable(Readable {
            status,
            headers,
            version: allowed.version,
            range: allowed.range,
            source: Arc::new(source),
            by: By::Origin,
        }))
    }

    /// What is answered here; bytes that are not cached are still asked for, for the client.
    fn leased(&self, reading: &Arc<Reading>, leased: Leased, by: By) -> Result<Asked> {
        let Leased { found, version } = leased;
        let (slice, headers) = match found? {
            Found::Slice(slice, headers) => (slice, headers),
            Found::NotModified(mut headers) => {
                if by == By::Stale {
                    Outcome::Stale.push(&mut headers, Directive::Use);
                }
                let status = StatusCode::NOT_MODIFIED;
                let mut response = reply::with_headers(status, headers, ReplyBody::Empty);
                response.extensions_mut().insert(by);
                return Ok(Asked::Answer(response));
            }
        };
        let source = Granted::new(self.client.clone(), Arc::clone(reading), None);
        Ok(Asked::Readable(Readable {
            status: slice.status(),
            headers,
            version,
            range: slice.offset..slice.offset + slice.len,
            source: Arc::new(source),
            by,
        }))
    }
}

/// Whether an answer is none of the origin itself.
fn is_down(asked: &Result<Asked>) -> bool {
    match asked {
        Ok(Asked::Answer(response)) => matches!(
            response.status(),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ),
        Ok(_) => false,
        Err(error) => error.code() == Code::ServiceUnavailable,
    }
}

impl Upstream for Forebay {
    fn ask<'a>(&'a self, reading: &'a Arc<Reading>) -> Answering<'a, Asked> {
        Box::pin(self.ask_once(reading))
    }

    fn pass(&self, request: Request<Upload>) -> Answering<'_, Response> {
        Box::pin(async {
            let response = self
                .client
                .send(request)
                .await
                .map_err(|err| refuse(&err))?;
            Ok(answer(response))
        })
    }

    fn reach(&self) -> Answering<'_, ()> {
        Box::pin(async {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.uri_mut() = Uri::from_static("/-/health/live");
            let response = self
                .client
                .send(request)
                .await
                .map_err(|err| refuse(&err))?;
            drop(response);
            Ok(())
        })
    }

    fn leases(&self) -> Option<&Arc<Leases>> {
        self.leases.as_ref()
    }
}

/// What a node says of itself when it asks.
fn prove(client: &Client, reading: &Reading) -> HeaderValue {
    let proof = client.cluster_proof(&reading.method, reading.target.as_str());
    proof.unwrap_or(HeaderValue::from_static(UNPROVEN))
}

/// Passes a read on and asks for the head of its answer.
pub(super) async fn ask_for_head(
    client: &Client,
    reading: &Reading,
) -> Result<http::Response<Body>, OriginError> {
    ask_with_proof(client, reading, prove(client, reading)).await
}

async fn ask_with_proof(
    client: &Client,
    reading: &Reading,
    proof: HeaderValue,
) -> Result<http::Response<Body>, OriginError> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = reading.method.clone();
    *request.uri_mut() = Uri::from(reading.target.clone());
    *request.headers_mut() = reading.headers.clone();
    request.headers_mut().insert(NODE_HEADER, proof);
    client.send(request).await
}

/// An origin's answer, for the client.
pub(super) fn answer(response: http::Response<Body>) -> Response {
    let (mut parts, mut body) = response.into_parts();
    clean(&mut parts.headers);
    // However slowly clients read, there are no more of these than clients' connections.
    body.give_back();
    let body = body.map_err(|err| {
        // The client sees a connection that breaks off.
        tracing::debug!(%err, "an origin's answer breaks off");
        RemoteError(err.to_string())
    });
    reply::with_headers(
        parts.status,
        parts.headers,
        ReplyBody::Remote(body.boxed_unsync()),
    )
}

/// Takes away what nodes and origins say to each other only.
pub(super) fn clean(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OWN))
        .cloned()
        .collect();
    for name in &own {
        headers.remove(name);
    }
}

/// Whether an answer that can't be used was told of: mostly a wrong URL, and then all are like it.
static TOLD_OF_CORRUPT: AtomicBool = AtomicBool::new(false);

/// What a client reads when the origin does not answer. Why, is in the log; that an origin is dead,
/// its client says there.
pub(super) fn refuse(err: &OriginError) -> S3Error {
    tracing::debug!(%err, "the origin does not do as it is asked");
    let is_corrupt = matches!(err, OriginError::Corrupt(_));
    if is_corrupt && !TOLD_OF_CORRUPT.swap(true, Ordering::Relaxed) {
        tracing::warn!(%err, "what the origin answers can't be used; is it an S3 service?");
    }
    let unavailable = |why| S3Error::with(Code::ServiceUnavailable, why);
    match err {
        OriginError::Unavailable(_) => unavailable(
            "This node can't reach its origin, or the origin does not answer in time. Please try again.",
        ),
        OriginError::Corrupt(_) | OriginError::Refused(_) => unavailable(
            "This node can't use what its origin answers; the node's log says why. Please try again.",
        ),
        OriginError::Body(_) => S3Error::new(Code::IncompleteBody),
        OriginError::Invalid(_) => S3Error::request("The request can't be passed on."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_and_origins_say_is_for_them() {
        let mut headers = HeaderMap::new();
        for name in ["x-forebay-node", "x-forebay-grant", "x-forebay-new", "etag"] {
            headers.append(name, HeaderValue::from_static("1"));
            headers.append(name, HeaderValue::from_static("2"));
        }
        clean(&mut headers);
        assert_eq!(headers.len(), 2);
        assert!(headers.contains_key("etag"));
    }

    #[test]
    fn a_client_reads_what_he_can_do_and_nothing_of_the_network() {
        let secret = || "10.0.0.7:9000 refused".to_owned();
        let rows = [
            (OriginError::Unavailable(secret()), Code::ServiceUnavailable),
            (OriginError::Corrupt(secret()), Code::ServiceUnavailable),
            (OriginError::Body(secret()), Code::IncompleteBody),
            (OriginError::Invalid(secret()), Code::InvalidRequest),
        ];
        for (error, code) in rows {
            let refused = refuse(&error);
            assert_eq!(refused.code(), code);
            assert!(!refused.message().contains("10.0.0.7"));
        }
    }
}

//! One request, one answer.
//!
//! [`Client::send`] passes a request on as it is. Everything else (`call`, `source`) makes requests
//! of its own, and tries again what may be tried again.
//!
//! # Invariants
//! 1. A redirect is never followed and never handed on: what a client believes to be the origin's
//!    word comes from the origin's address.
//! 2. Every wait has a deadline: for a connection, for the head of an answer, for the next bytes of
//!    its body, and for whoever sends a body through here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_store::time::{Clock, SystemClock, Timestamp};
use http::header::{AUTHORIZATION, EXPECT, HOST, LOCATION};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::Body;
use super::breaker::{Breaker, Whom};
use super::config::{ClientConfig, ClientError, Deadlines, Role};
use super::connect::Connector;
use super::counters::{Counters, Statistics};
use super::endpoint::{Addressing, Endpoint};
use super::error::{OriginError, chain};
use super::hop;
use super::outgoing::{AnyBody, BoxError, Outgoing, Progress, Turn};
use super::retry::{Budget, Tries};
use crate::cluster::ClusterKey;
use crate::sign::{Payload, Signer};

/// Largest head of an answer, in bytes.
const HEAD_SIZE_MAX: usize = 512 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 256;

/// A connection to an origin that is shared by everybody; a clone is the same one.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: legacy::Client<Connector, Outgoing>,
    endpoint: Endpoint,
    addressing: Addressing,
    signer: Option<Signer>,
    region: String,
    cluster_key: Option<ClusterKey>,
    deadlines: Deadlines,
    retries: super::config::Retries,
    clock: Arc<dyn Clock>,
    permits: Arc<Semaphore>,
    permits_max: usize,
    breaker: Arc<Breaker>,
    budget: Arc<Budget>,
    counters: Arc<Counters>,
    is_peer: bool,
    /// What the origin turned out to be.
    kind: AtomicU8,
}

/// What an origin may be, as far as its answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// It has not been asked.
    Unknown = 0,
    /// Another service, or a forebay of before there were mounts elsewhere.
    Other = 1,
    /// It has answered as only a forebay does.
    Forebay = 2,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.endpoint).finish()
    }
}

/// Why a request got no answer, and whether it is worth another try.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: OriginError,
    pub(super) again: Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Nothing would change.
    No,
    /// Certainly: nothing of it was sent.
    Unsent,
    /// If the request may be made twice.
    Yes,
    /// Likewise, and at once: a kept connection was closed from the other side just then.
    Lost,
}

impl Fault {
    pub(super) fn last(error: OriginError) -> Self {
        Self {
            error,
            again: Again::No,
        }
    }
}

impl Client {
    /// Makes a client; nothing is connected yet. Reads certificates, so it blocks a little.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// As [`new`](Self::new), with the clock that signatures and proofs go by.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_clock(config: ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        let counters = Arc::new(Counters::default());
        let connector = Connector::new_blocking(&config, Arc::clone(&counters))?;
        let permits_max = config.connections_max.clamp(1, Semaphore::MAX_PERMITS);
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.deadlines.idle)
            .pool_max_idle_per_host(permits_max)
            .http1_max_buf_size(HEAD_SIZE_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(connector);
        let signer = config
            .credentials
            .map(|credentials| Signer::new(credentials, &config.region))
            .transpose()?;
        let deadlines = config.deadlines;
        let whom = match config.role {
            Role::Origin => Whom::Origin,
            Role::Peer => Whom::Peer(config.endpoint.to_string()),
        };
        let breaker = Breaker::new(whom, deadlines.dead_after, deadlines.probe_after);
        Ok(Self(Arc::new(Inner {
            http,
            endpoint: config.endpoint,
            addressing: config.addressing,
            signer,
            region: config.region,
            cluster_key: config.cluster_key,
            deadlines,
            retries: config.retries,
            clock,
            permits: Arc::new(Semaphore::new(permits_max)),
            permits_max,
            breaker: Arc::new(breaker),
            budget: Arc::new(Budget::new()),
            counters,
            is_peer: config.role == Role::Peer,
            kind: AtomicU8::new(Kind::Unknown as u8),
        })))
    }

    /// Where the origin is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        let inner = &self.0;
        let free = inner.permits.available_permits();
        let in_flight = inner.permits_max.saturating_sub(free) as u64;
        inner.counters.statistics(inner.breaker.state(), in_flight)
    }

    /// Whether the other side is taken for dead; cheap.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.breaker.is_open()
    }

    /// Whether it signs its own requests.
    pub fn has_credentials(&self) -> bool {
        self.0.signer.is_some()
    }

    /// The proof that this node is of the cluster, for
    /// [`NODE_HEADER`](crate::cluster::NODE_HEADER); `None` without a cluster key.
    pub fn cluster_proof(&self, method: &Method, path_and_query: &str) -> Option<HeaderValue> {
        let key = self.0.cluster_key.as_ref()?;
        Some(key.prove(method, path_and_query, self.now()))
    }

    /// A key of the cluster for one use, [derived](ClusterKey::derive) from its key; `None`
    /// without a cluster key.
    pub fn cluster_derived_key(&self, label: &str) -> Option<[u8; 32]> {
        Some(self.0.cluster_key.as_ref()?.derive(label))
    }

    /// Signs a request that will be [sent](Self::send), with the client's own credentials. `Host`
    /// becomes the origin's, and buckets must be in the path. Without credentials the request
    /// becomes an anonymous one.
    pub fn sign(&self, request: &mut Parts, payload: Payload) {
        request.headers.insert(HOST, self.0.endpoint.host());
        self.sign_as_is(request, payload);
    }

    pub(super) fn sign_as_is(&self, request: &mut Parts, payload: Payload) {
        match &self.0.signer {
            Some(signer) => signer.sign(request, payload, self.now()),
            None => drop(request.headers.remove(AUTHORIZATION)),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    pub(super) fn region(&self) -> &str {
        &self.0.region
    }

    pub(super) fn kind(&self) -> Kind {
        match self.0.kind.load(Ordering::Relaxed) {
            0 => Kind::Unknown,
            1 => Kind::Other,
            _ => Kind::Forebay,
        }
    }

    /// Notes what the origin turned out to be; that it is a forebay stays.
    pub(super) fn note_kind(&self, kind: Kind) {
        self.0.kind.fetch_max(kind as u8, Ordering::Relaxed);
    }

    pub(super) fn deadlines(&self) -> &Deadlines {
        &self.0.deadlines
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The tries of one request of the client's own, which may take `total` together.
    pub(super) fn tries(&self, total: Duration) -> Tries {
        Tries::new(Arc::clone(&self.0.budget), self.0.retries, total)
    }

    pub(super) fn locate(
        &self,
        bucket: Option<&str>,
        key: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<Uri, OriginError> {
        let addressing = self.0.addressing;
        self.0.endpoint.locate(addressing, bucket, key, query)
    }

    /// Passes a request on: method, path, query and headers byte for byte, but for the headers that
    /// belong to a connection. The answer comes back the same way, whatever its status is.
    ///
    /// It is not tried again, with one exception: a request that only reads and has no body, if the
    /// connection is lost before the answer.
    ///
    /// # Errors
    /// [`OriginError::Unavailable`]; [`OriginError::Corrupt`] for what is not HTTP, and for a
    /// redirect; [`OriginError::Body`] if `request`'s body breaks off or stalls.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Body>, OriginError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        hop::strip(&mut parts.headers);
        let root = || PathAndQuery::from_static("/");
        let target = parts.uri.path_and_query().cloned().unwrap_or_else(root);
        parts.uri = self.0.endpoint.uri(target);
        parts.version = Version::HTTP_11;
        // What belongs to the connection it came by.
        parts.extensions.clear();
        let wait = self.wait_for_head(&parts.method);
        let body = body.map_err(Into::into).boxed_unsync();
        let copy = (body.is_end_stream() && parts.method.is_safe()).then(|| parts.clone());
        let first = self.exchange(parts, body, wait).await;
        let answered = match (first, copy) {
            (Err(fault), Some(copy)) if fault.again == Again::Lost => {
                self.0.counters.retries.add(1);
                self.exchange(copy, nothing(), wait).await
            }
            (first, _) => first,
        };
        answered.map_err(|fault| fault.error)
    }

    pub(super) fn wait_for_head(&self, method: &Method) -> Duration {
        if method.is_safe() {
            self.0.deadlines.head
        } else {
            self.0.deadlines.head_of_write
        }
    }

    /// Sends one request, once, and waits for the head of its answer.
    pub(super) async fn exchange(
        &self,
        parts: Parts,
        body: AnyBody,
        wait: Duration,
    ) -> Result<Response<Body>, Fault> {
        let inner = &self.0;
        let permit = self.permit(wait).await?;
        let down = |why| Fault::last(OriginError::Unavailable(why));
        let pass = inner.breaker.enter().map_err(down)?;
        inner.counters.requests.add(1);
        let progress = Progress::new();
        let holds_back = parts.headers.contains_key(EXPECT) && !body.is_end_stream();
        let body = Outgoing::new(body, Arc::clone(&progress), Arc::clone(&inner.counters));
        let mut request = Request::from_parts(parts, body);
        if holds_back {
            hold_back(&mut request, &progress);
        }
        match self.answer(request, &progress, wait).await {
            Ok(response) => {
                pass.answered();
                progress.answered();
                self.take(response, permit, progress)
            }
            Err((fault, blame)) => {
                inner.counters.errors.add(1);
                match blame {
                    // A peer that was started anew has closed what was kept; who tries again
                    // learns whether it is there.
                    Blame::Origin if inner.is_peer && fault.again == Again::Lost => drop(pass),
                    Blame::Origin => pass.failed(fault.error.why()),
                    Blame::Answer => pass.answered(),
                    Blame::Sender => drop(pass),
                }
                Err(fault)
            }
        }
    }

    /// A place among those who may ask.
    async fn permit(&self, wait: Duration) -> Result<OwnedSemaphorePermit, Fault> {
        let permits = Arc::clone(&self.0.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return Ok(permit);
        }
        match tokio::time::timeout(wait, permits.acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("it is never closed")),
            Err(_) => Err(Fault::last(OriginError::Unavailable(format!(
                "all {} connections to it are busy",
                self.0.permits_max
            )))),
        }
    }

    /// Waits for the head, as long as it is the origin's turn.
    async fn answer(
        &self,
        request: Request<Outgoing>,
        progress: &Progress,
        wait: Duration,
    ) -> Result<Response<Incoming>, (Fault, Blame)> {
        let answering = self.0.http.request(request);
        tokio::pin!(answering);
        loop {
            let (turn, since) = progress.turn();
            let due = match turn {
                Turn::Origin => since + wait,
                Turn::Sender => since + self.0.deadlines.sender,
            };
            let Ok(answered) = tokio::time::timeout_at(due, &mut answering).await else {
                if progress.turn() != (turn, since) {
                    continue;
                }
                return Err(silent(turn, due - since));
            };
            return answered.map_err(|err| classify(&err, progress));
        }
    }

    /// Looks at the head.
    fn take(
        &self,
        response: Response<Incoming>,
        permit: OwnedSemaphorePermit,
        progress: Arc<Progress>,
    ) -> Result<Response<Body>, Fault> {
        let (mut head, body) = response.into_parts();
        let inner = &self.0;
        if head.status.is_server_error() {
            inner.counters.errors.add(1);
        }
        let silence = inner.deadlines.silence;
        let counters = Arc::clone(&inner.counters);
        // From here on, whatever becomes of it is seen by the request's body.
        let body = Body::new(body, silence, permit, progress, counters);
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            inner.counters.errors.add(1);
            return Err(Fault::last(redirect(head.status, &head.headers)));
        }
        hop::strip(&mut head.headers);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        Ok(Response::from_parts(head, body))
    }
}

/// Whose fault it is that there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// The origin's, or the network's.
    Origin,
    /// The origin lives, but what it says is not HTTP.
    Answer,
    /// Whoever sends the body.
    Sender,
}

/// A body of nothing.
pub(super) fn nothing() -> AnyBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn hold_back(request: &mut Request<Outgoing>, progress: &Arc<Progress>) {
    progress.ask_first();
    let progress = Arc::clone(progress);
    hyper::ext::on_informational(request, move |head| {
        if head.status() == StatusCode::CONTINUE {
            progress.wanted();
        }
    });
}

fn silent(turn: Turn, wait: Duration) -> (Fault, Blame) {
    let seconds = wait.as_secs_f64();
    match turn {
        Turn::Origin => {
            let error = OriginError::Unavailable(format!("no answer for {seconds} seconds"));
            let again = Again::Yes;
            (Fault { error, again }, Blame::Origin)
        }
        Turn::Sender => {
            let error = OriginError::Body(format!("nothing came for {seconds} seconds"));
            (Fault::last(error), Blame::Sender)
        }
    }
}

fn classify(err: &legacy::Error, progress: &Progress) -> (Fault, Blame) {
    if let Some(broke) = progress.broke() {
        return (Fault::last(OriginError::Body(broke)), Blame::Sender);
    }
    let text = chain(err);
    let source = std::error::Error::source(err);
    let protocol = source.and_then(|source| source.downcast_ref::<hyper::Error>());
    if protocol.is_some_and(hyper::Error::is_parse) {
        let error = OriginError::Corrupt(text);
        let again = Again::Yes;
        return (Fault { error, again }, Blame::Answer);
    }
    let again = if err.is_connect() {
        Again::Unsent
    } else {
        Again::Lost
    };
    let error = OriginError::Unavailable(text);
    (Fault { error, again }, Blame::Origin)
}

fn redirect(status: StatusCode, headers: &HeaderMap) -> OriginError {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let uri: Option<Uri> = location.and_then(|location| location.parse().ok());
    let host = uri.as_ref().and_then(Uri::host);
    let region = headers.get("x-amz-bucket-region");
    let to = match (location, host) {
        (_, Some(host)) => format!("to {host}"),
        (Some(_), None) => "to another path".to_owned(),
        (None, _) => "without saying where".to_owned(),
    };
    let status = status.as_u16();
    let mut text = format!("it redirects ({status}) {to}");
    if let Some(region) = region.and_then(|region| region.to_str().ok()) {
        text.push_str("; the bucket is in the region ");
        text.push_str(region);
    }
    OriginError::Corrupt(text)
}

//! From a request to its answer, on a node.
//!
//! What the origin answers is passed back as it is, with the origin's request id; what is said here
//! has an id of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use forebay_cache::origin::Client;
use forebay_cache::{Cache, Directive, Read, ReadError, Status};
use forebay_store::time::Clock;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use super::NodeConfig;
use super::admin::{self, Admin, Reach};
use super::cached::Cached;
use super::foreign::Foreign;
use super::lease::Leases;
use super::lend::{self, Lending};
use super::metric::NodeMetrics;
use super::origin::{self, Asked, By, Forebay, Readable, Upstream};
use super::outcome::{self, Outcome};
use super::reading::{self, Plan, Reading};
use super::upload::Upload;
use crate::answer::{Line, Marks, Trace};
use crate::error::{Code, Result, S3Error};
use crate::framing;
use crate::metric::Metrics;
use crate::reply::{self, ReplyBody, Response};
use crate::serve::Answers;

/// How often a read asks anew because its version was replaced before its first byte.
const ASK_MAX: usize = 4;

/// What answers requests.
#[derive(Debug)]
pub(super) struct Node {
    cache: Cache,
    origin: Arc<dyn Upstream>,
    base_domains: Vec<String>,
    metrics: Arc<Metrics>,
    counters: Arc<NodeMetrics>,
    reach: Arc<Reach>,
    admin: axum::Router,
    lending: Lending,
    stopping: Arc<AtomicBool>,
    marks: Marks,
    warned: AtomicBool,
    /// Hears what ends leases.
    _follower: Option<Follower>,
}

/// A task that ends with the node.
#[derive(Debug)]
struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Node {
    /// Nothing is answered yet. To be called within a runtime.
    pub(super) fn new(
        config: NodeConfig,
        cache: Cache,
        client: Client,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, getrandom::Error> {
        let metrics = Arc::new(Metrics::new());
        let stopping = Arc::new(AtomicBool::new(false));
        let domains = config.base_domains.clone();
        let lending = Lending::new(cache.clone(), client.clone(), Arc::clone(&clock));
        let origin: Arc<dyn Upstream> = match config.keys {
            None => {
                let leases = config
                    .leases
                    .map(|terms| Leases::new(terms, &client, domains, clock).map(Arc::new));
                Arc::new(Forebay::new(client.clone(), leases.flatten()))
            }
            Some(keys) => Arc::new(Foreign::new(client.clone(), keys, domains, clock)),
        };
        let leases = origin.leases().cloned();
        let follower = leases
            .clone()
            .map(|leases| Follower(tokio::spawn(leases.follow(client.clone()))));
        let counters = NodeMetrics::new(cache.clone(), config.disk, client, leases);
        let counters = Arc::new(counters);
        let reach = Arc::new(Reach::new(Arc::clone(&origin)));
        let admin = admin::router(Admin {
            metrics: Arc::clone(&metrics),
            counters: Arc::clone(&counters),
            reach: Arc::clone(&reach),
            stopping: Arc::clone(&stopping),
        });
        Ok(Self {
            cache,
            origin,
            base_domains: config.base_domains,
            metrics,
            counters,
            reach,
            admin,
            lending,
            stopping,
            marks: Marks::new()?,
            warned: AtomicBool::new(false),
            _follower: follower,
        })
    }

    async fn answer_one(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let (mut parts, incoming) = request.into_parts();
        let clear = framing::check(&parts);
        let is_clear = clear.is_ok();
        if is_clear && lend::is_for(parts.uri.path()) {
            let mut response = self.lending.answer(&parts, !incoming.is_end_stream());
            self.marks.put(&mut response, &self.marks.next_id());
            return response;
        }
        if is_clear && parts.uri.path().starts_with("/-/") {
            let request = Request::from_parts(parts, incoming);
            let mut response = crate::admin::answer(&self.admin, request).await;
            self.marks.put(&mut response, &self.marks.next_id());
            return response;
        }
        let began_at = Instant::now();
        let id = self.marks.next_id();
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        origin::clean(&mut parts.headers);
        let (upload, end) = Upload::new(incoming);
        let waits_for_continue = parts.headers.contains_key(EXPECT);
        let planned = reading::plan(&parts, !end.is_reached(), &self.base_domains);
        let mut trace = Trace {
            call: planned.call,
            ..Trace::default()
        };
        let result = match clear {
            Ok(()) => self.carry_out(planned.plan, parts, upload).await,
            Err(error) => Err(error),
        };
        let mut response = match result {
            Ok(mut response) => {
                if response.extensions().get::<By>().is_some() {
                    self.marks.put(&mut response, &id);
                }
                response
            }
            Err(error) => {
                let mut response = self.marks.refusal(&error, &method, uri.path(), &id);
                self.marks.put(&mut response, &id);
                trace.error = Some(error);
                // What the origin refuses it has dealt with; this is the node's own word.
                if is_clear && !end.is_reached() && !waits_for_continue {
                    end.drain().await;
                }
                response
            }
        };
        if !is_clear || !end.is_reached() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let line = Line {
            method: &method,
            path: uri.path(),
            id: &id,
            peer,
            began_at,
        };
        trace.end(&self.metrics, &response, &line);
        response
    }

    async fn carry_out(&self, plan: Plan, parts: Parts, upload: Upload) -> Result<Response> {
        match plan {
            Plan::Read(reading, directive) => self.read(Arc::new(reading), directive, parts).await,
            Plan::Prestage(reading, directive) => self.prestage(Arc::new(reading), directive).await,
            Plan::Head(reading) => self.head(Arc::new(reading), parts).await,
            Plan::Bypass => self.bypass(parts).await,
            Plan::Pass => self.pass(Request::from_parts(parts, upload)).await,
            Plan::Write(bucket, key) => {
                let response = self.pass(Request::from_parts(parts, upload)).await;
                self.wrote(&bucket, key.as_deref(), &response);
                response
            }
        }
    }

    /// Whatever became of a write: before its client knows, nothing that was leased before is used
    /// any more. Of what is refused for a whole bucket, nothing can have come.
    fn wrote(&self, bucket: &str, key: Option<&str>, response: &Result<Response>) {
        let is_done = response
            .as_ref()
            .is_ok_and(|response| response.status().is_success());
        if let Some(leases) = self.origin.leases()
            && (key.is_some() || is_done)
        {
            leases.wrote(bucket, key);
        }
    }

    /// Passes a request on, and its answer back.
    async fn pass(&self, request: Request<Upload>) -> Result<Response> {
        self.counters.passed();
        self.noted(self.origin.pass(request).await)
    }

    /// Passes a read on, past the cache.
    async fn bypass(&self, parts: Parts) -> Result<Response> {
        let request = Request::from_parts(parts, Upload::nothing());
        let mut response = self.pass(request).await?;
        self.past_the_cache(&mut response);
        Ok(response)
    }

    /// Says of an answer that has bytes of an object that they did not come by way of the cache.
    fn past_the_cache(&self, response: &mut Response) {
        if response.status().is_success() {
            self.counters.read(Outcome::Bypass, response.status());
            Outcome::Bypass.push(response.headers_mut(), Directive::Bypass);
        }
    }

    async fn read(
        &self,
        reading: Arc<Reading>,
        directive: Directive,
        parts: Parts,
    ) -> Result<Response> {
        for _ in 0..ASK_MAX {
            let readable = match self.ask(&reading).await? {
                Asked::Readable(readable) => readable,
                Asked::Nothing => break,
                Asked::Answer(mut response) => {
                    self.past_the_cache(&mut response);
                    return Ok(response);
                }
            };
            if let Some(response) = self.answer_with(readable, directive).await? {
                return Ok(response);
            }
            if let Some(leases) = self.origin.leases() {
                leases.forget(&reading.bucket, &reading.key);
            }
        }
        // It changes all the time, or the grants do not hold: the origin's own answer does.
        self.bypass(parts).await
    }

    /// Answers with bytes from the cache, or through it; `None` if they are of a version that is
    /// gone, or may not be read, or are not what was asked for, and nothing was answered yet.
    async fn answer_with(
        &self,
        readable: Readable,
        directive: Directive,
    ) -> Result<Option<Response>> {
        let Readable {
            status,
            mut headers,
            version,
            range,
            source,
            by,
        } = readable;
        let len = range.end - range.start;
        let mut read = self.cache.read(&version, source, directive, range);
        let outcome = match read.status() {
            Status::Hit if by == By::Stale => Outcome::Stale,
            _ if by == By::Stale => return Err(self.not_here()),
            Status::Hit => Outcome::Hit,
            Status::Partial => Outcome::Partial,
            Status::Miss => Outcome::Miss,
            Status::Bypass => Outcome::Bypass,
        };
        let body = if len == 0 {
            ReplyBody::Empty
        } else {
            // Before the head is answered: until then, all can still be asked again.
            match first_bytes(&mut read).await {
                Ok(first) => ReplyBody::Remote(Cached::new(first, read, len).boxed_unsync()),
                Err(ReadError::Changed | ReadError::Denied(_)) => return Ok(None),
                // Not every service does ranges; then its own answer is all there is.
                Err(ReadError::Corrupt(why)) => {
                    tracing::debug!(why, "the origin's ranges can't be used");
                    return Ok(None);
                }
                Err(err) => return Err(self.failed(&err)),
            }
        };
        self.counters.read(outcome, status);
        outcome.push(&mut headers, directive);
        let mut response = reply::with_headers(status, headers, body);
        said_by(&mut response, by);
        Ok(Some(response))
    }

    /// The origin is down, and not all that is asked for is cached.
    fn not_here(&self) -> S3Error {
        self.counters.failed();
        S3Error::with(
            Code::ServiceUnavailable,
            "This node can't reach its origin, and does not have all of what is asked for. Please try again.",
        )
    }

    /// Passes a `HEAD` on, unless its answer is known here.
    async fn head(&self, reading: Arc<Reading>, parts: Parts) -> Result<Response> {
        if self.origin.leases().is_none() {
            return self
                .pass(Request::from_parts(parts, Upload::nothing()))
                .await;
        }
        match self.ask(&reading).await? {
            Asked::Answer(response) => Ok(response),
            Asked::Readable(readable) => {
                let Readable {
                    status,
                    mut headers,
                    by,
                    ..
                } = readable;
                if by == By::Stale {
                    self.counters.read(Outcome::Stale, StatusCode::OK);
                    Outcome::Stale.push(&mut headers, Directive::Use);
                }
                let mut response = reply::with_headers(status, headers, ReplyBody::Empty);
                said_by(&mut response, by);
                Ok(response)
            }
            Asked::Nothing => {
                self.pass(Request::from_parts(parts, Upload::nothing()))
                    .await
            }
        }
    }

    fn failed(&self, err: &ReadError) -> S3Error {
        self.counters.failed();
        tracing::debug!(%err, "a read has no bytes");
        S3Error::with(
            Code::ServiceUnavailable,
            "This node can't get the object's bytes from its origin. Please try again.",
        )
    }

    /// Passes a `HEAD` on, says how much of the object is here, and has the rest brought in if it
    /// may be read.
    async fn prestage(&self, reading: Arc<Reading>, directive: Directive) -> Result<Response> {
        let (readable, mut response) = match self.ask(&reading).await? {
            Asked::Readable(readable) => {
                let (status, headers) = (readable.status, readable.headers.clone());
                let mut response = reply::with_headers(status, headers, ReplyBody::Empty);
                said_by(&mut response, readable.by);
                (readable, response)
            }
            Asked::Answer(response) => {
                if response.status() == StatusCode::PARTIAL_CONTENT {
                    self.warn_of_no_grant();
                }
                return Ok(response);
            }
            Asked::Nothing => {
                let mut request = Request::new(Upload::nothing());
                *request.method_mut() = reading.method.clone();
                *request.uri_mut() = reading.target.clone().into();
                *request.headers_mut() = reading.headers.clone();
                return self.pass(request).await;
            }
        };
        if readable.status != StatusCode::PARTIAL_CONTENT {
            return Ok(response);
        }
        let cached = self.cache.present(&readable.version);
        outcome::push_cached(response.headers_mut(), cached);
        if readable.by == By::Stale {
            Outcome::Stale.push(response.headers_mut(), directive);
        } else if cached == readable.version.size {
            Outcome::Hit.push(response.headers_mut(), directive);
        } else if directive.fills() && self.cache.prestage(&readable.version, readable.source) {
            self.counters.read(Outcome::Prestage, StatusCode::OK);
            Outcome::Prestage.push(response.headers_mut(), directive);
        }
        Ok(response)
    }

    fn warn_of_no_grant(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the origin grants nothing for a HEAD, so no object is brought in by one: node and \
                 origin need the same cluster key"
            );
        }
    }

    /// Asks whether a client may read, and what.
    async fn ask(&self, reading: &Arc<Reading>) -> Result<Asked> {
        let asked = self.origin.ask(reading).await;
        let by = match &asked {
            Ok(Asked::Readable(readable)) => readable.by,
            Ok(Asked::Answer(response)) => {
                let by = response.extensions().get::<By>();
                by.copied().unwrap_or(By::Origin)
            }
            Ok(Asked::Nothing) | Err(_) => By::Origin,
        };
        if by == By::Origin {
            self.noted(asked)
        } else {
            asked
        }
    }

    /// Notes whether the origin answered.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.reach.note(),
            Err(error) if error.code() == Code::ServiceUnavailable => self.counters.failed(),
            Err(_) => {}
        }
        result
    }
}

/// Marks an answer that was not made of one of the origin's.
fn said_by(response: &mut Response, by: By) {
    if by != By::Origin {
        response.extensions_mut().insert(by);
    }
}

/// The first bytes of a read that has some.
async fn first_bytes(read: &mut Read) -> std::result::Result<bytes::Bytes, ReadError> {
    let none = || Err(ReadError::Corrupt("there are no bytes".to_owned()));
    read.next().await.unwrap_or_else(none)
}

impl Answers for Node {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        self.answer_one(request, peer).await
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

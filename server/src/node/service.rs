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
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::NodeConfig;
use super::admin::{self, Admin, Reach};
use super::cached::Cached;
use super::foreign::Foreign;
use super::metric::NodeMetrics;
use super::origin::{self, Asked, Forebay, Readable, Upstream};
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
    stopping: Arc<AtomicBool>,
    marks: Marks,
    warned: AtomicBool,
}

impl Node {
    /// Nothing is answered yet.
    pub(super) fn new(
        config: NodeConfig,
        cache: Cache,
        client: Client,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, getrandom::Error> {
        let metrics = Arc::new(Metrics::new());
        let counters = Arc::new(NodeMetrics::new(cache.clone(), config.disk, client.clone()));
        let stopping = Arc::new(AtomicBool::new(false));
        let origin: Arc<dyn Upstream> = match config.keys {
            None => Arc::new(Forebay::new(client)),
            Some(keys) => {
                let domains = config.base_domains.clone();
                Arc::new(Foreign::new(client, keys, domains, clock))
            }
        };
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
            stopping,
            marks: Marks::new()?,
            warned: AtomicBool::new(false),
        })
    }

    async fn answer_one(&self, request: Request<Incoming>, peer: SocketAddr) -> Response {
        let (mut parts, incoming) = request.into_parts();
        let clear = framing::check(&parts);
        let is_clear = clear.is_ok();
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
            Ok(response) => response,
            Err(error) => {
                let mut response = self.marks.refusal(&error, &method, uri.path(), &id);
                self.marks.put(&mut response, &id);
                trace.error = Some(error);
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
            Plan::Bypass => self.bypass(parts).await,
            Plan::Pass => self.pass(Request::from_parts(parts, upload)).await,
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
            let readable = match self.noted(self.origin.ask(&reading).await)? {
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
        } = readable;
        let len = range.end - range.start;
        let mut read = self.cache.read(&version, source, directive, range);
        let outcome = match read.status() {
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
        Ok(Some(reply::with_headers(status, headers, body)))
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
        let asked = self.noted(self.origin.ask(&reading).await)?;
        let (readable, mut response) = match asked {
            Asked::Readable(readable) => {
                let (status, headers) = (readable.status, readable.headers.clone());
                let response = reply::with_headers(status, headers, ReplyBody::Empty);
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
        if cached == readable.version.size {
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

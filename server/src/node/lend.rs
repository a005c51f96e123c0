//! What a node hands out to its peers: `/-/peer`, who it is, and `/-/peer/bytes`, blocks.
//!
//! Only nodes that prove the cluster's key are answered. What is in the cache they get for that
//! alone: the origin has told them this very version, for the read that they want it for, and
//! whoever has the key is believed that, as he is believed to hand nothing to anybody else. What is
//! not here is fetched with the grant that the origin gave their reader, or, where they ask for it,
//! by this node's own right, as its own mount does.
//!
//! # Invariants
//! 1. A peer's request is never passed on to a peer.
//! 2. Nothing is kept for a peer that this node has not fetched from its origin itself.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_cache::cluster::NODE_HEADER;
use forebay_cache::origin::{Authorization, Client};
use forebay_cache::peer::{self, Ask, OUTCOME_HEADER, Peers};
use forebay_cache::{Cache, Directive, FetchError, Fetching, Read, Source, Status, Version};
use forebay_store::time::Clock;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::time::Sleep;

use crate::cluster::Cluster;
use crate::grant::GRANT_HEADER;
use crate::reply::{self, RemoteError, ReplyBody, Response};

/// Whether a path is a peer's to ask for.
pub(super) fn is_for(path: &str) -> bool {
    path == peer::HELLO_PATH || path == peer::BYTES_PATH
}

/// Answers peers.
#[derive(Debug)]
pub(super) struct Lending {
    cache: Cache,
    client: Client,
    clock: Arc<dyn Clock>,
    among: Option<(Arc<Peers>, Cluster)>,
}

type Refusal = (StatusCode, String);

impl Lending {
    /// Of a node with this cache, whose peers are the node's.
    pub(super) fn new(cache: Cache, client: Client, clock: Arc<dyn Clock>) -> Self {
        let among = cache.peers().map(|peers| {
            let cluster = Cluster::new(peers.cluster_key().clone());
            (Arc::clone(peers), cluster)
        });
        Self {
            cache,
            client,
            clock,
            among,
        }
    }

    /// Answers a request; `has_body` where something follows its head.
    pub(super) fn answer(&self, request: &Parts, has_body: bool) -> Response {
        let mut response = match self.try_answer(request, has_body) {
            Ok(response) => response,
            Err((status, why)) => {
                if let Some((peers, _)) = &self.among {
                    peers.note_refused();
                }
                tracing::debug!(%status, why, "a peer is refused");
                whole(status, "text/plain", format!("{why}\n"))
            }
        };
        if has_body {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    fn try_answer(&self, request: &Parts, has_body: bool) -> Result<Response, Refusal> {
        let refuse = |status, why: &str| Err((status, why.to_owned()));
        let Some((peers, cluster)) = &self.among else {
            return refuse(StatusCode::NOT_FOUND, "this node has no peers");
        };
        if request.method != Method::GET {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "peers use GET");
        }
        if has_body {
            return refuse(StatusCode::BAD_REQUEST, "a peer's request has no body");
        }
        let now = self.clock.now();
        let proven = request
            .headers
            .get(NODE_HEADER)
            .is_some_and(|value| cluster.proves(value, &request.method, &request.uri, now));
        if !proven {
            let why = "only nodes that prove the cluster key are answered";
            return refuse(StatusCode::FORBIDDEN, why);
        }
        let query = request.uri.query().unwrap_or_default();
        let malformed = |why| (StatusCode::BAD_REQUEST, why);
        if request.uri.path() == peer::HELLO_PATH {
            peer::parse_hello(query).map_err(malformed)?;
            return Ok(whole(StatusCode::OK, "application/json", peers.hello()));
        }
        let ask = Ask::parse(query).map_err(malformed)?;
        if ask.by == peers.id() {
            return refuse(StatusCode::MISDIRECTED_REQUEST, "this is the asking node");
        }
        if ask.origin != peers.origin() {
            let why = format!("this node's origin is {}", peers.origin());
            return Err((StatusCode::MISDIRECTED_REQUEST, why));
        }
        self.lend(peers, ask, &request.headers)
    }

    fn lend(&self, peers: &Arc<Peers>, ask: Ask, headers: &HeaderMap) -> Result<Response, Refusal> {
        let authorization = self.authorization(&ask, headers)?;
        let may_fetch = authorization.is_some();
        let source = match authorization {
            Some(authorization) => self.client.source(authorization),
            None => Arc::new(Nothing),
        };
        let directive = if ask.fills {
            Directive::Use
        } else {
            Directive::NoFill
        };
        let (version, range) = (Arc::new(ask.version), ask.range);
        let len = range.end - range.start;
        let read = self.cache.lend(&version, source, directive, range);
        let word = match read.status() {
            Status::Hit => "HIT",
            Status::Partial => "PARTIAL",
            Status::Miss | Status::Bypass => "MISS",
        };
        if !may_fetch && read.status() != Status::Hit {
            let why = "not all of it is here, and nothing was shown to fetch it with";
            return Err((StatusCode::UNAUTHORIZED, why.to_owned()));
        }
        peers.note_lent();
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(OUTCOME_HEADER, HeaderValue::from_static(word));
        let body = Lent::new(read, Arc::clone(peers), len).boxed_unsync();
        Ok(reply::with_headers(
            StatusCode::OK,
            headers,
            ReplyBody::Remote(body),
        ))
    }

    /// What the bytes that are not here may be fetched with.
    fn authorization(
        &self,
        ask: &Ask,
        headers: &HeaderMap,
    ) -> Result<Option<Authorization>, Refusal> {
        let mut grants = headers.get_all(GRANT_HEADER).iter();
        match (grants.next(), grants.next()) {
            (Some(grant), None) => {
                let why = || (StatusCode::BAD_REQUEST, "the grant is no text".to_owned());
                let token = grant.to_str().map_err(|_| why())?;
                Ok(Some(Authorization::Grant(token.to_owned())))
            }
            (Some(_), Some(_)) => {
                let why = "there is more than one grant";
                Err((StatusCode::BAD_REQUEST, why.to_owned()))
            }
            (None, _) => {
                let by_own_right = ask.own && self.client.has_credentials();
                Ok(by_own_right.then_some(Authorization::Own))
            }
        }
    }
}

fn whole(status: StatusCode, kind: &'static str, text: String) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, text.len().into());
    reply::with_headers(status, headers, ReplyBody::Bytes(text.into()))
}

/// Fetches nothing.
#[derive(Debug)]
struct Nothing;

impl Source for Nothing {
    fn fetch(&self, _: &Arc<Version>, _: Range<u64>) -> Fetching {
        let why = "nothing was shown to fetch it with".to_owned();
        Box::pin(std::future::ready(Err(FetchError::Denied(why))))
    }
}

/// The body of an answer: frames.
struct Lent {
    read: Read,
    peers: Arc<Peers>,
    /// What is to be sent next.
    out: VecDeque<Bytes>,
    /// Bytes that were not read yet.
    left: u64,
    /// When it is said that there is nothing yet; there while nothing comes.
    say_at: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Lent {
    fn new(read: Read, peers: Arc<Peers>, len: u64) -> Self {
        Self {
            read,
            peers,
            out: VecDeque::new(),
            left: len,
            say_at: None,
            ended: false,
        }
    }

    fn push(&mut self, mut bytes: Bytes) {
        self.say_at = None;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.ended = self.left == 0;
        self.peers.note_bytes_to(bytes.len() as u64);
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(peer::FRAME_LEN_MAX));
            self.out.extend(peer::of_bytes(piece));
        }
    }

    fn give_up(&mut self, why: &dyn std::fmt::Display) {
        let left = self.left;
        tracing::debug!(%why, left, "a peer does not get all that it asked for");
        self.out.push_back(peer::gives_up());
        self.ended = true;
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = RemoteError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RemoteError>>> {
        let this = self.get_mut();
        loop {
            if let Some(bytes) = this.out.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match this.read.poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => this.push(bytes),
                Poll::Ready(Some(Err(err))) => this.give_up(&err),
                Poll::Ready(None) => this.give_up(&"there is no more"),
                Poll::Pending => {
                    let say_at = this
                        .say_at
                        .get_or_insert_with(|| Box::pin(tokio::time::sleep(peer::WAIT_EVERY)));
                    if say_at.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.say_at = None;
                    this.out.push_back(peer::wait());
                }
            }
        }
    }
}

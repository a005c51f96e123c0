//! Finding out who the peers are, and which of them live.
//!
//! A peer is asked for nothing before it has answered a greeting: with its id, which tells a node
//! its own address, and with its origin, which must be the same. One that lives is not greeted
//! again; one that is dead is, until it answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Empty;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::ask::HELLO_PATH;
use super::member::{Member, Standing};
use super::{Peers, Who, who};
use crate::cluster::NODE_HEADER;
use crate::origin::{Body, OriginError};
use crate::sign::encode;

/// How often peers that can't be asked are greeted.
const GREET_EVERY: Duration = Duration::from_secs(1);
/// The same for those that have not been heard of, at first: nodes often start together.
const GREET_EVERY_AT_FIRST: Duration = Duration::from_millis(200);
/// How long is at first.
const FIRST: Duration = Duration::from_secs(10);
/// How often a DNS name is asked for.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
/// Longest wait for that.
const RESOLVE_WAIT_MAX: Duration = Duration::from_secs(5);
/// Largest answer to a greeting, in bytes.
const HELLO_SIZE_MAX: usize = 8 << 10;

/// What a node says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    id: String,
    origin: String,
}

impl Peers {
    /// What this node answers a greeting: a JSON document.
    ///
    /// # Panics
    /// Never: two texts can always be written.
    pub fn hello(&self) -> String {
        let hello = Hello {
            id: self.id.clone(),
            origin: self.config.origin.clone(),
        };
        serde_json::to_string(&hello).expect("two texts are a document")
    }

    /// Looks after the peers, for ever.
    pub async fn watch(&self) {
        let began_at = Instant::now();
        let mut resolve_at = began_at;
        let mut told = Told::default();
        loop {
            if Instant::now() >= resolve_at {
                self.resolve(&mut told).await;
                resolve_at = Instant::now() + RESOLVE_EVERY;
            }
            self.greet_strangers().await;
            let at_first = began_at.elapsed() < FIRST;
            if !at_first {
                self.tell_of_own(&mut told);
            }
            tokio::time::sleep(if at_first {
                GREET_EVERY_AT_FIRST
            } else {
                GREET_EVERY
            })
            .await;
        }
    }

    /// Greets those who can't be asked for anything.
    pub(super) async fn greet_strangers(&self) {
        let view = self.view();
        let strangers = view.iter().filter(|member| {
            let standing = member.standing();
            matches!(standing, Standing::Unknown | Standing::Dead)
        });
        join_all(strangers.map(|member| self.greet(member))).await;
    }

    /// Asks for the addresses of the name, if that is what the peers have. What was known before
    /// stays if there is no answer: a name server that is down is no reason to be alone.
    async fn resolve(&self, told: &mut Told) {
        let Who::Name { host, port } = &self.config.who else {
            return;
        };
        let found = tokio::time::timeout(RESOLVE_WAIT_MAX, who::resolve(host, *port)).await;
        let found = found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let set = match found {
            Ok(found) => self.set(&found).map_err(|err| err.to_string()),
            Err(err) => Err(err.to_string()),
        };
        match set {
            Ok(()) => told.no_answer = false,
            Err(why) => {
                if !std::mem::replace(&mut told.no_answer, true) {
                    tracing::warn!(%host, why, "the peers' addresses can't be had; those known before stay");
                }
            }
        }
    }

    /// Says once that this node is not among its peers.
    fn tell_of_own(&self, told: &mut Told) {
        let view = self.view();
        let is_there = view.iter().any(|member| member.standing() == Standing::Own);
        if !is_there && !view.is_empty() && !std::mem::replace(&mut told.not_there, true) {
            tracing::warn!(
                "this node is none of its peers, as far as they answer: it is home to no block. \
                 Say with --peer-address which of them it is"
            );
        }
    }

    async fn greet(&self, member: &Arc<Member>) {
        match self.ask_who(member).await {
            Ok(hello) if hello.id == self.id => member.is_own(),
            Ok(hello) if hello.origin == self.config.origin => {
                if member.is_fit() {
                    tracing::info!(peer = %member.endpoint, "a peer is there");
                }
            }
            Ok(hello) => {
                let why = format!("its origin is {}", hello.origin);
                self.is_unfit(member, &why);
            }
            // A dead one stays what it was: it will most likely come back the same.
            Err(OriginError::Unavailable(why)) => {
                tracing::debug!(peer = %member.endpoint, why, "a peer does not answer a greeting");
            }
            Err(err) => self.is_unfit(member, &err.to_string()),
        }
    }

    fn is_unfit(&self, member: &Member, why: &str) {
        member.doubt();
        if !member.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                peer = %member.endpoint, why, own_origin = self.config.origin,
                "a peer can't be used"
            );
        }
    }

    async fn ask_who(&self, member: &Member) -> Result<Hello, OriginError> {
        let target = format!("{HELLO_PATH}?by={}", encode(&self.id));
        let request = request(member, &target)?;
        let response = member.client.send(request).await?;
        check(response.status())?;
        let body = response.into_body().collect_at_most(HELLO_SIZE_MAX).await?;
        serde_json::from_slice(&body)
            .map_err(|err| OriginError::Corrupt(format!("its greeting: {err}")))
    }
}

/// A request that proves the cluster's key.
pub(super) fn request(member: &Member, target: &str) -> Result<Request<Empty<Bytes>>, OriginError> {
    let invalid = |err: &dyn std::fmt::Display| OriginError::Invalid(err.to_string());
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(target)
        .body(Empty::new())
        .map_err(|err| invalid(&err))?;
    let host = HeaderValue::from_str(member.endpoint.authority()).map_err(|err| invalid(&err))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    if let Some(proof) = member.client.cluster_proof(&Method::GET, target) {
        headers.insert(NODE_HEADER, proof);
    }
    Ok(request)
}

fn check(status: StatusCode) -> Result<(), OriginError> {
    let why = match status {
        StatusCode::OK => return Ok(()),
        StatusCode::FORBIDDEN => "it does not take the proof: another cluster key, or another time",
        StatusCode::NOT_FOUND => "it knows of no peers: it was started without --peers",
        status => return Err(OriginError::Corrupt(format!("it answers {status}"))),
    };
    Err(OriginError::Corrupt(why.to_owned()))
}

/// What was said in the log already.
#[derive(Default)]
struct Told {
    no_answer: bool,
    not_there: bool,
}

/// The status and the body of an answer.
pub(super) type Answer = Response<Body>;

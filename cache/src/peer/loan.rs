//! Bytes from a peer, as they come: frames, taken apart and checked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::Peers;
use super::ask::Ask;
use super::frame::{Decoder, Frame, FrameError};
use super::member::Member;
use super::watch::{Answer, request};
use crate::origin::{Authorization, Body, GRANT_HEADER, OriginError};

/// Where a node says how much of what it was asked for it had: `HIT`, or another word.
pub const OUTCOME_HEADER: HeaderName = HeaderName::from_static("x-forebay-cache");

/// Longest wait for bytes from a peer that says that it waits for them itself: its origin may be
/// out of reach for it and not for us.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long is waited for the end of an answer of which all bytes have come, so that its
/// connection can be used again.
const END_WAIT: Duration = Duration::from_millis(50);

/// Why a peer is passed over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Passed {
    /// It can't be reached, is silent, or broke off.
    #[error("{0}")]
    Gone(#[from] OriginError),
    /// It says that it waits, for too long.
    #[error("it had no bytes for {} seconds", PATIENCE.as_secs())]
    Waits,
    /// It can't get the bytes either.
    #[error("it gives up")]
    GivesUp,
    /// It won't.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// What came is not what was asked for.
    #[error("{0}")]
    Wrong(String),
}

impl From<FrameError> for Passed {
    fn from(err: FrameError) -> Self {
        Self::Wrong(err.to_string())
    }
}

/// A peer's answer, under way.
#[derive(Debug)]
pub(super) struct Loan {
    peers: Arc<Peers>,
    body: Body,
    decoder: Decoder,
    /// What has come and was not taken apart yet.
    piece: Bytes,
    /// What was checked and is to be handed on.
    ready: VecDeque<Bytes>,
    /// Bytes that were not handed on yet.
    left: u64,
}

impl Peers {
    /// Asks a peer for bytes.
    pub(super) async fn borrow(
        self: &Arc<Self>,
        member: &Member,
        ask: &Ask,
        authorization: Option<&Authorization>,
    ) -> Result<Loan, Passed> {
        let mut request = request(member, &ask.target())?;
        if let Some(Authorization::Grant(token)) = authorization {
            let token = HeaderValue::from_str(token);
            let mut token = token.map_err(|err| OriginError::Invalid(err.to_string()))?;
            token.set_sensitive(true);
            request.headers_mut().insert(GRANT_HEADER, token);
        }
        let answer = member.client.send(request).await?;
        match answer.status() {
            StatusCode::OK => {}
            status => {
                let is_stranger = [
                    StatusCode::FORBIDDEN,
                    StatusCode::NOT_FOUND,
                    StatusCode::MISDIRECTED_REQUEST,
                ];
                if is_stranger.contains(&status) {
                    // Another key, another origin, or it is ourselves: let it say who it is.
                    member.doubt();
                }
                return Err(Passed::Refused(status));
            }
        }
        self.count(&answer);
        Ok(Loan {
            peers: Arc::clone(self),
            body: answer.into_body(),
            decoder: Decoder::new(),
            piece: Bytes::new(),
            ready: VecDeque::new(),
            left: ask.range.end - ask.range.start,
        })
    }

    fn count(&self, answer: &Answer) {
        let had_all = answer
            .headers()
            .get(OUTCOME_HEADER)
            .is_some_and(|word| word == "HIT");
        let counter = if had_all {
            &self.counters.hits
        } else {
            &self.counters.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Loan {
    /// The next bytes; `None` when all have come. After an error nothing follows.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Passed> {
        let give_up_at = Instant::now() + PATIENCE;
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.left -= bytes.len() as u64;
                let counter = &self.peers.counters.bytes_from;
                counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                return Ok(Some(bytes));
            }
            if self.left == 0 {
                // Whatever comes now, the bytes are here.
                drop(tokio::time::timeout(END_WAIT, self.body.frame()).await);
                return Ok(None);
            }
            match self.decoder.next(&mut self.piece)? {
                Some(Frame::Bytes(pieces)) => {
                    let len: usize = pieces.iter().map(Bytes::len).sum();
                    if len as u64 > self.left {
                        return Err(Passed::Wrong("more bytes than asked for".to_owned()));
                    }
                    self.ready = pieces;
                }
                Some(Frame::Wait) => {}
                Some(Frame::GivesUp) => return Err(Passed::GivesUp),
                None => self.piece = self.receive(give_up_at).await?,
            }
        }
    }

    /// What comes next on the connection.
    async fn receive(&mut self, give_up_at: Instant) -> Result<Bytes, Passed> {
        loop {
            let frame = tokio::time::timeout_at(give_up_at, self.body.frame()).await;
            let Ok(frame) = frame else {
                return Err(Passed::Waits);
            };
            let Some(frame) = frame else {
                let left = self.left;
                return Err(Passed::Wrong(format!("it ends {left} bytes too early")));
            };
            if let Ok(data) = frame?.into_data() {
                return Ok(data);
            }
        }
    }
}

//! Bodies of answers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::counters::Counters;
use super::error::{OriginError, chain};
use super::outgoing::{Progress, Turn};

/// The body of an answer, as it arrives. Dropping it ends the transfer.
///
/// It fails when nothing comes for too long; time in which nobody asks for more does not count.
pub struct Body {
    incoming: Incoming,
    silence: Duration,
    /// Since when somebody waits for bytes that are not there.
    waits_since: Option<Instant>,
    /// Made when it is first needed; set anew only when it goes off too early.
    alarm: Option<Pin<Box<Sleep>>>,
    permit: Option<OwnedSemaphorePermit>,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.progress.over();
    }
}

impl Body {
    pub(super) fn new(
        incoming: Incoming,
        silence: Duration,
        permit: OwnedSemaphorePermit,
        progress: Arc<Progress>,
        counters: Arc<Counters>,
    ) -> Self {
        let mut body = Self {
            incoming,
            silence,
            waits_since: None,
            alarm: None,
            permit: Some(permit),
            progress,
            counters,
        };
        if body.incoming.is_end_stream() {
            body.ended();
        }
        body
    }

    /// Gives back the place among those who may ask, as if all of it had come. For who hands it on
    /// to somebody that may read it as slowly as he likes: others would wait for him.
    pub fn give_back(&mut self) {
        self.permit = None;
    }

    /// All of it.
    ///
    /// # Errors
    /// [`OriginError::Corrupt`] if it has more than `max` bytes, and what reading it gives.
    pub async fn collect_at_most(mut self, max: usize) -> Result<Bytes, OriginError> {
        let too_long = || OriginError::Corrupt(format!("a body of more than {max} bytes"));
        if self.incoming.size_hint().lower() > max as u64 {
            return Err(too_long());
        }
        let mut all = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if data.len() > max - all.len() {
                return Err(too_long());
            }
            if all.is_empty() && self.incoming.is_end_stream() {
                return Ok(data);
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    /// Ready, with what to say, when it has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<OriginError> {
        let now = Instant::now();
        let since = *self.waits_since.get_or_insert(now);
        let silence = self.silence;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + silence)));
        while alarm.as_mut().poll(cx).is_ready() {
            // An origin may answer bit by bit while it still takes the request's body.
            let (turn, moved) = self.progress.turn();
            let from = if turn == Turn::Sender { now } else { moved };
            let due = since.max(from) + silence;
            if due <= now {
                let silence = silence.as_secs_f64();
                return Poll::Ready(OriginError::Unavailable(format!(
                    "no byte of a body came for {silence} seconds"
                )));
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn ended(&mut self) {
        self.permit = None;
        self.progress.over();
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = OriginError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waits_since = None;
                let len = frame.data_ref().map_or(0, Bytes::len);
                this.counters.bytes_in.add(len as u64);
                if this.incoming.is_end_stream() {
                    this.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.ended();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(err))) => {
                this.ended();
                this.counters.errors.add(1);
                let text = format!("a body broke off: {}", chain(&err));
                Poll::Ready(Some(Err(if err.is_parse() {
                    OriginError::Corrupt(text)
                } else {
                    OriginError::Unavailable(text)
                })))
            }
            Poll::Pending => this.poll_silence(cx).map(|err| {
                this.counters.errors.add(1);
                Some(Err(err))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

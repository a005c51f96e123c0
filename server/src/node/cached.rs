//! The body of an answer whose bytes come by way of the cache.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_cache::Read;
use http_body::{Body, Frame, SizeHint};

use crate::reply::RemoteError;

/// Bytes of a version: exactly those that the head of the answer announces.
#[derive(Debug)]
pub(super) struct Cached {
    /// What came before the head was sent.
    first: Option<Bytes>,
    read: Read,
    /// Bytes not yet handed out.
    left: u64,
}

impl Cached {
    /// `len` bytes, of which the first are here.
    ///
    /// # Panics
    /// If there are more of these than `len`.
    pub(super) fn new(first: Bytes, read: Read, len: u64) -> Self {
        assert!(first.len() as u64 <= len, "no more than was read");
        Self {
            first: Some(first),
            read,
            left: len,
        }
    }

    fn broken(&self, why: impl std::fmt::Display) -> RemoteError {
        let left = self.left;
        // The client sees a connection that breaks off.
        tracing::debug!(%why, left, "an answer out of the cache breaks off");
        RemoteError(format!("{why}, {left} bytes before its end"))
    }
}

impl Body for Cached {
    type Data = Bytes;
    type Error = RemoteError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RemoteError>>> {
        let this = self.get_mut();
        let bytes = match this.first.take() {
            Some(first) => first,
            None if this.left == 0 => return Poll::Ready(None),
            None => match ready!(this.read.poll_next(cx)) {
                Some(Ok(bytes)) => bytes,
                Some(Err(err)) => return Poll::Ready(Some(Err(this.broken(err)))),
                None => return Poll::Ready(Some(Err(this.broken("it ends")))),
            },
        };
        let Some(left) = this.left.checked_sub(bytes.len() as u64) else {
            return Poll::Ready(Some(Err(this.broken("it has more bytes than it may"))));
        };
        this.left = left;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

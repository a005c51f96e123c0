//! A client's body on its way to the origin.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request's body, in the hands of whoever sends it on.
#[derive(Debug)]
pub(super) struct Upload {
    /// None for a body of nothing.
    incoming: Option<Incoming>,
    ended: Arc<AtomicBool>,
}

/// Whether a body was read to its end.
#[derive(Clone, Debug)]
pub(super) struct UploadEnd(Arc<AtomicBool>);

impl UploadEnd {
    /// Whether nothing of it is left to read.
    pub(super) fn is_reached(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Upload {
    /// Nothing of it is read yet.
    pub(super) fn new(incoming: Incoming) -> (Self, UploadEnd) {
        let ended = Arc::new(AtomicBool::new(incoming.is_end_stream()));
        let end = UploadEnd(Arc::clone(&ended));
        let incoming = Some(incoming);
        (Self { incoming, ended }, end)
    }

    /// No body.
    pub(super) fn nothing() -> Self {
        Self {
            incoming: None,
            ended: Arc::new(AtomicBool::new(true)),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let ended = matches!(polled, Poll::Ready(None)) || incoming.is_end_stream();
        if ended {
            self.ended.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.incoming.as_ref().map_or_else(none, Body::size_hint)
    }
}

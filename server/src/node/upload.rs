//! A client's body on its way to the origin.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::drain;

/// Why a body can't be sent on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The client's connection broke.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// The client has been answered.
    #[error("the request is answered already")]
    Answered,
}

#[derive(Debug)]
struct Shared {
    /// None once it is nobody's to send on. Held for one poll.
    incoming: Mutex<Option<Incoming>>,
    ended: AtomicBool,
}

impl Shared {
    fn incoming(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body, in the hands of whoever sends it on.
#[derive(Debug)]
pub(super) struct Upload(Option<Arc<Shared>>);

/// What is left of a body, and whether there is any.
#[derive(Clone, Debug)]
pub(super) struct UploadEnd(Arc<Shared>);

impl UploadEnd {
    /// Whether nothing of it is left to read.
    pub(super) fn is_reached(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    /// Reads what is left, if it is little, so that the client reads the answer and goes on. Nobody
    /// sends it on from now on.
    pub(super) async fn drain(&self) {
        let taken = self.0.incoming().take();
        if let Some(mut incoming) = taken
            && drain(&mut incoming).await
        {
            self.0.ended.store(true, Ordering::Release);
        }
    }
}

impl Upload {
    /// Nothing of it is read yet.
    pub(super) fn new(incoming: Incoming) -> (Self, UploadEnd) {
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(incoming.is_end_stream()),
            incoming: Mutex::new(Some(incoming)),
        });
        (Self(Some(Arc::clone(&shared))), UploadEnd(shared))
    }

    /// No body.
    pub(super) fn nothing() -> Self {
        Self(None)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(shared) = &self.0 else {
            return Poll::Ready(None);
        };
        let mut held = shared.incoming();
        let Some(incoming) = &mut *held else {
            return Poll::Ready(Some(Err(UploadError::Answered)));
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let ended = matches!(polled, Poll::Ready(None)) || incoming.is_end_stream();
        if ended {
            shared.ended.store(true, Ordering::Release);
        }
        polled.map_err(UploadError::Broken)
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.0 else {
            return true;
        };
        let held = shared.incoming();
        held.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let held = shared.incoming();
        held.as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

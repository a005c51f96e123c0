//! Bytes that are not in the store's own files.

use std::fmt;
use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;

use super::CacheStatus;
use crate::error::{Error, Result};
use crate::rule::directive::Directive;

/// Bytes of a range, in order. After an error nothing follows.
pub type ForeignRange = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Where a version's bytes are if not in a store.
///
/// All of them are of that one version: where it can't be had any more there is an error.
pub trait ForeignContent: fmt::Debug + Send + Sync + 'static {
    /// See [`Content::file`](super::Content::file). Once there is one, it stays.
    fn file(&self) -> Option<&File>;

    /// The bytes from `offset` to `end`: not none, and in the object. Blocks.
    ///
    /// # Errors
    /// `Superseded` if the object changed; what the origin says.
    fn read_blocking(&self, offset: u64, end: u64) -> Result<Bytes>;

    /// The bytes from `offset` to `end`, which lie in the object.
    fn range(&self, offset: u64, end: u64) -> ForeignRange;

    /// The same bytes, for readers who say this of the cache; `None` if it makes no difference.
    fn with(&self, directive: Directive) -> Option<Arc<dyn ForeignContent>> {
        // What has no cache is the same whatever is said.
        let _: Directive = directive;
        None
    }

    /// See [`Content::status`](super::Content::status).
    fn status(&self) -> Option<CacheStatus> {
        None
    }
}

/// A range that is being read, held to its length.
pub(super) struct ForeignStream {
    bytes: ForeignRange,
    remaining: u64,
}

impl fmt::Debug for ForeignStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignStream")
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

impl ForeignStream {
    /// Bytes that are to be `len`.
    pub(super) fn new(bytes: ForeignRange, len: u64) -> Self {
        Self {
            bytes,
            remaining: len,
        }
    }

    pub(super) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// See [`ContentStream::poll_next`](super::ContentStream::poll_next).
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let wrong = |what: &str| Err(Error::OriginAnswer(what.to_owned()));
        let next = match ready!(self.bytes.as_mut().poll_next(cx)) {
            Some(Ok(bytes)) if bytes.len() as u64 > self.remaining => wrong("more than was asked"),
            Some(next) => next,
            None => wrong("less than was asked"),
        };
        self.remaining = match &next {
            Ok(bytes) => self.remaining - bytes.len() as u64,
            Err(_) => 0,
        };
        Poll::Ready(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    struct Given(VecDeque<Result<Bytes>>);

    impl Stream for Given {
        type Item = Result<Bytes>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    /// What comes of `given` when `len` bytes were asked for.
    fn read(len: u64, given: Vec<Result<Bytes>>) -> Vec<Result<Bytes>> {
        let mut stream = ForeignStream {
            bytes: Box::pin(Given(given.into())),
            remaining: len,
        };
        let mut context = Context::from_waker(Waker::noop());
        let next = || match stream.poll_next(&mut context) {
            Poll::Ready(next) => next,
            Poll::Pending => unreachable!("it never waits"),
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_range_is_as_long_as_was_asked_or_fails() {
        let bytes = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        let exact = read(5, vec![bytes("ab"), bytes("cde")]);
        assert!(exact.iter().all(Result::is_ok) && exact.len() == 2);
        for given in [
            vec![bytes("ab")],
            vec![bytes("ab"), bytes("cdef")],
            vec![bytes("ab"), Err(Error::Closed), bytes("cde")],
        ] {
            let read = read(5, given);
            assert_eq!(read.len(), 2);
            assert!(read[1].is_err());
        }
    }
}
